//! Endpoints: where deliveries go.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

use super::secret::Sealed;

/// What was wrong with an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not an absolute http or https URL with a host.
    #[error("`{0}` is not an endpoint: use an absolute https:// (or http://) URL with a host")]
    Url(String),
    /// A user name or password in the URL.
    #[error("the endpoint carries a user name or password: use a custom `authorization` header instead")]
    Credentials,
    /// A header that Setgate sets itself, or that is malformed.
    #[error("the header `{0}` cannot be set: it is malformed or Setgate sets it itself")]
    Header(String),
    /// Settings of TLS for a URL without it.
    #[error("the endpoint is plain http://, where certificates have no effect: use https://, or leave them out")]
    TlsWithoutHttps,
}

/// A receiver's URL, the headers it wants, and what is particular to TLS there. Header values are secrets: they are
/// stored apart, sealed, and stand in here only while a request is made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct Endpoint {
    url: Url,
    headers: BTreeMap<String, String>,
    tls: EndpointTls,
}

/// What is particular to TLS at one endpoint. Whether certificates and key can be used is checked by whoever sets them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointTls {
    /// PEM of the authorities that are trusted there; no others are. None: those that the host trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// What Setgate shows to the receiver, where it asks for a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientCertificate>,
}

/// A certificate that Setgate shows to a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// PEM of the certificate, then of those that lead to its authority.
    pub certificate_pem: String,
    /// PEM of its key, encrypted as the values of headers are.
    pub key: Sealed,
}

impl EndpointTls {
    /// Whether there is nothing particular.
    pub fn is_empty(&self) -> bool {
        self.ca_pem.is_none() && self.client.is_none()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    url: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "EndpointTls::is_empty")]
    tls: EndpointTls,
}

impl Endpoint {
    /// Checks URL and headers. Whether the address may be connected to is egress's question, at connect time.
    pub fn new(url: &str, headers: BTreeMap<String, String>) -> Result<Self, Error> {
        let parsed = Url::parse(url).map_err(|_| Error::Url(url.to_owned()))?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none_or(str::is_empty) {
            return Err(Error::Url(url.to_owned()));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(Error::Credentials);
        }
        for (name, value) in &headers {
            let lower = name.to_ascii_lowercase();
            let ours = lower.starts_with("webhook-")
                || matches!(
                    lower.as_str(),
                    "host"
                        | "content-length"
                        | "content-type"
                        | "transfer-encoding"
                        | "connection"
                        | "te"
                        | "trailer"
                        | "upgrade"
                        | "expect"
                        | "user-agent"
                        | "x-hub-signature"
                        | "x-wso2-event-signature"
                        | "logto-signature-sha-256"
                );
            let formed =
                http::HeaderName::from_bytes(lower.as_bytes()).is_ok() && http::HeaderValue::from_str(value).is_ok();
            if ours || !formed {
                return Err(Error::Header(name.clone()));
            }
        }
        Ok(Self { url: parsed, headers, tls: EndpointTls::default() })
    }

    /// The URL.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Headers to send besides Setgate's own.
    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.headers
    }

    /// What is particular to TLS there.
    pub fn tls(&self) -> &EndpointTls {
        &self.tls
    }

    /// The same with that.
    pub fn with_tls(self, tls: EndpointTls) -> Result<Self, Error> {
        if self.url.scheme() == "http" && !tls.is_empty() {
            return Err(Error::TlsWithoutHttps);
        }
        Ok(Self { tls, ..self })
    }

    /// The same with these headers besides those it has.
    pub fn with_headers(&self, more: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut endpoint = self.clone();
        endpoint.headers.extend(more);
        endpoint
    }

    /// Whether both lead to the same origin and path: what was verified of one holds for the other.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.origin() == other.origin() && self.url.path() == other.url.path()
    }

    /// Scheme, host and port: what a breaker, a rate and a concurrency limit belong to, within a tenant.
    pub fn origin(&self) -> Origin {
        Origin {
            https: self.url.scheme() == "https",
            host: self.url.host_str().unwrap_or_default().to_owned(),
            port: self.url.port_or_known_default().unwrap_or(443),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().collect();
        let mut shown = f.debug_struct("Endpoint");
        shown.field("url", &self.url.as_str()).field("headers", &names).field("tls", &self.tls).finish()
    }
}

impl TryFrom<Raw> for Endpoint {
    type Error = Error;

    fn try_from(raw: Raw) -> Result<Self, Error> {
        Self::new(&raw.url, raw.headers)?.with_tls(raw.tls)
    }
}

impl From<Endpoint> for Raw {
    fn from(endpoint: Endpoint) -> Raw {
        Raw { url: endpoint.url.into(), headers: endpoint.headers, tls: endpoint.tls }
    }
}

/// Scheme, host and port of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// https rather than http.
    pub https: bool,
    /// Host name or address, lower case.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.https { "https" } else { "http" }, self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_receiver() {
        for bad in ["ftp://x/", "/path", "https://", "mailto:a@b", "https://u:p@host/"] {
            assert!(Endpoint::new(bad, BTreeMap::new()).is_err(), "{bad}");
        }
        let ours = BTreeMap::from([("Webhook-Id".to_owned(), "x".to_owned())]);
        assert_eq!(Endpoint::new("https://h/", ours), Err(Error::Header("Webhook-Id".into())));
        let split = BTreeMap::from([("x-a".to_owned(), "b\r\nc: d".to_owned())]);
        assert!(Endpoint::new("https://h/", split).is_err());
    }

    #[test]
    fn what_is_stored_is_read_back_also_from_before_there_was_tls() {
        let before: Endpoint = serde_json::from_str(r#"{"url":"https://h/"}"#).unwrap();
        assert!(before.tls().is_empty());
        assert_eq!(serde_json::to_string(&before).unwrap(), r#"{"url":"https://h/"}"#);
        let client = ClientCertificate { certificate_pem: "PEM".into(), key: Sealed("v1.sealed".into()) };
        let tls = EndpointTls { ca_pem: Some("PEM".into()), client: Some(client) };
        let with = before.with_tls(tls.clone()).unwrap();
        assert_eq!(serde_json::from_value::<Endpoint>(serde_json::to_value(&with).unwrap()).unwrap(), with);
        assert!(!format!("{with:?}").contains("v1.sealed"));
        let plain = Endpoint::new("http://h/", BTreeMap::new()).unwrap();
        assert_eq!(plain.with_tls(tls), Err(Error::TlsWithoutHttps));
    }

    #[test]
    fn is_printed_without_the_values_of_its_headers() {
        let headers = BTreeMap::from([("authorization".to_owned(), "Bearer hush".to_owned())]);
        let text = format!("{:?}", Endpoint::new("https://h/", headers).unwrap());
        assert!(text.contains("authorization") && !text.contains("hush"), "{text}");
    }
}
