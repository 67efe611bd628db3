//! Endpoints: the destinations of deliveries.
//!
//! Path and query of a receiver's URL are secret: a Slack or Teams URL, for example, permits its holder to post there.
//! An [`Endpoint`] is the stored form: scheme, host and port in plain text, the rest encrypted. A [`Destination`] is
//! the URL in plain text with the values of headers, and exists only while a request is made.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Position, Url};

use super::secret::{REDACTED, Sealed, Secret};

/// Maximum number of characters at the end of a URL that are shown.
const VISIBLE_CHARS_MAX: usize = 4;

/// Why an endpoint is invalid. The messages never quote a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not an absolute http or https URL with a host.
    #[error("this is not an endpoint: use an absolute https:// (or http://) URL with a host")]
    Url,
    /// A URL in redacted form, without its path and query.
    #[error(
        "this URL is redacted (`/{REDACTED}`) and differs from the stored one: send the whole URL, or leave \
         `url` out to keep the stored one"
    )]
    Redacted,
    /// A user name or password in the URL.
    #[error("the endpoint contains a user name or password: use a custom `authorization` header instead")]
    Credentials,
    /// A header that Setgate sets itself, or an invalid one.
    #[error("the header `{0}` cannot be set: it is malformed or Setgate sets it itself")]
    Header(String),
    /// TLS settings for a URL without TLS.
    #[error("the endpoint is plain http://, where certificates have no effect: use https://, or leave them out")]
    TlsWithoutHttps,
}

/// A receiver in stored form: the URL with its path and query encrypted, and the TLS settings.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredEndpoint", into = "StoredEndpoint")]
pub struct Endpoint {
    /// The redacted URL: see [`Destination::redacted_url`].
    shown: String,
    origin: Origin,
    /// Encrypted path and query.
    target: Sealed,
    tls: EndpointTls,
}

/// A receiver's URL in plain text, and the values of its headers.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    url: Url,
    headers: BTreeMap<String, String>,
}

/// TLS settings of one endpoint. The setter has to validate certificates and key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointTls {
    /// PEM of the trusted certificate authorities, instead of those that the host trusts. `None` to use the latter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// Client certificate, if the receiver requests one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientCertificate>,
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// PEM of the certificate, followed by its intermediates.
    pub certificate_pem: String,
    /// PEM of the private key, encrypted in the same context as header values.
    pub key: Sealed,
}

impl EndpointTls {
    /// Whether all settings have their defaults.
    pub fn is_empty(&self) -> bool {
        self.ca_pem.is_none() && self.client.is_none()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredEndpoint {
    url: String,
    target: Sealed,
    #[serde(default, skip_serializing_if = "EndpointTls::is_empty")]
    tls: EndpointTls,
}

impl Destination {
    /// Parses and checks a URL, without its fragment, which is never sent. Whether the address may be connected to is
    /// checked by egress at connect time.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let mut url = Url::parse(url).map_err(|_| Error::Url)?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(Error::Url);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::Credentials);
        }
        if is_redacted(&url) {
            return Err(Error::Redacted);
        }
        url.set_fragment(None);
        Ok(Self { url, headers: BTreeMap::new() })
    }

    /// The URL in plain text.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Headers to send in addition to Setgate's own.
    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.headers
    }

    /// Adds headers.
    pub fn with_headers(mut self, more: impl IntoIterator<Item = (String, String)>) -> Self {
        self.headers.extend(more);
        self
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> Origin {
        Origin::of(&self.url)
    }

    /// The redacted URL: scheme, host, port, and the last four characters.
    pub fn redacted_url(&self) -> String {
        redacted(&self.url)
    }

    /// Path and query, to be encrypted.
    pub fn target(&self) -> Secret {
        Secret::new(self.url[Position::BeforePath..Position::AfterQuery].to_owned())
    }

    /// Whether both have the same origin and path, so that a verification of one applies to the other.
    pub fn has_same_origin_and_path(&self, other: &Self) -> bool {
        self.origin() == other.origin() && self.url.path() == other.url.path()
    }
}

/// Checks a header to be sent to an endpoint. `is_set_by_scheme` returns whether a signature scheme sets the header with
/// this lower-case name.
pub fn check_header(name: &str, value: &str, is_set_by_scheme: impl Fn(&str) -> bool) -> Result<(), Error> {
    let lower = name.to_ascii_lowercase();
    let ours = is_set_by_scheme(&lower)
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
        );
    let formed = http::HeaderName::from_bytes(lower.as_bytes()).is_ok() && http::HeaderValue::from_str(value).is_ok();
    if ours || !formed { Err(Error::Header(name.to_owned())) } else { Ok(()) }
}

/// Redacts the URL of a record: see [`Destination::redacted_url`]. Returns it unchanged if it is already redacted or is not a
/// URL.
pub fn redact_url(url: &str) -> String {
    match Url::parse(url) {
        Ok(parsed) if !is_redacted(&parsed) => redacted(&parsed),
        _ => url.to_owned(),
    }
}

/// A short value could be completely disclosed by its last characters (`?token=hush`), so at most half of the last part
/// of path or query is shown.
fn redacted(url: &Url) -> String {
    let target = &url[Position::BeforePath..Position::AfterQuery];
    if target == "/" {
        return url[..Position::AfterPath].to_owned();
    }
    let last = target.rsplit(['/', '?', '&', '=']).next().unwrap_or_default();
    let shown = VISIBLE_CHARS_MAX.min(last.len() / 2);
    format!("{}/{REDACTED}{}", &url[..Position::BeforePath], &last[last.len() - shown..])
}

fn is_redacted(url: &Url) -> bool {
    url.path().starts_with("/***")
}

impl Endpoint {
    /// A destination whose target was encrypted.
    pub fn new(destination: &Destination, target: Sealed) -> Self {
        Self { shown: destination.redacted_url(), origin: destination.origin(), target, tls: EndpointTls::default() }
    }

    /// The redacted URL: see [`Destination::redacted_url`].
    pub fn redacted_url(&self) -> &str {
        &self.shown
    }

    /// Encrypted path and query.
    pub fn target(&self) -> &Sealed {
        &self.target
    }

    /// Combines the endpoint with its decrypted target.
    pub fn with_target(&self, target: &Secret) -> Result<Destination, Error> {
        let shown = Url::parse(&self.shown).map_err(|_| Error::Url)?;
        Destination::parse(&format!("{}{}", &shown[..Position::BeforePath], target.expose()))
    }

    /// TLS settings.
    pub fn tls(&self) -> &EndpointTls {
        &self.tls
    }

    /// Removes the TLS settings.
    pub fn without_tls(&self) -> Self {
        Self { tls: EndpointTls::default(), ..self.clone() }
    }

    /// Sets the TLS settings.
    pub fn with_tls(self, tls: EndpointTls) -> Result<Self, Error> {
        if !self.origin.https && !tls.is_empty() {
            return Err(Error::TlsWithoutHttps);
        }
        Ok(Self { tls, ..self })
    }

    /// Scheme, host and port. Circuit breaker, rate limit and concurrency limit apply to each origin of a tenant.
    pub fn origin(&self) -> Origin {
        self.origin.clone()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.shown).field("tls", &self.tls).finish()
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().collect();
        f.debug_struct("Destination").field("url", &self.redacted_url()).field("headers", &names).finish()
    }
}

impl TryFrom<StoredEndpoint> for Endpoint {
    type Error = Error;

    fn try_from(raw: StoredEndpoint) -> Result<Self, Error> {
        let url = Url::parse(&raw.url).map_err(|_| Error::Url)?;
        let origin = Origin::of(&url);
        Self { shown: raw.url, origin, target: raw.target, tls: EndpointTls::default() }.with_tls(raw.tls)
    }
}

impl From<Endpoint> for StoredEndpoint {
    fn from(endpoint: Endpoint) -> StoredEndpoint {
        StoredEndpoint { url: endpoint.shown, target: endpoint.target, tls: endpoint.tls }
    }
}

/// Scheme, host and port of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Whether the scheme is https and not http.
    pub https: bool,
    /// Host name or address, in lower case.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Origin {
    fn of(url: &Url) -> Self {
        Self {
            https: url.scheme() == "https",
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default().unwrap_or(443),
        }
    }
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
    fn refuses_invalid_endpoint_urls() {
        for (bad, expected) in [
            ("ftp://x/", Error::Url),
            ("/path", Error::Url),
            ("https://", Error::Url),
            ("mailto:a@b", Error::Url),
            ("https://u:p@host/", Error::Credentials),
            ("https://host/***4711", Error::Redacted),
        ] {
            assert_eq!(Destination::parse(bad), Err(expected), "{bad}");
        }
        let check = |name, value| check_header(name, value, |name| name == "x-signature");
        assert_eq!(check("X-Signature", "x"), Err(Error::Header("X-Signature".into())));
        assert!(check("Host", "x").is_err());
        assert!(check("x-a", "b\r\nc: d").is_err());
        check("x-a", "b").unwrap();
    }

    #[test]
    fn redacted_url_shows_origin_and_last_four_characters() {
        for (url, expected) in [
            ("https://hooks.slack.com/services/T000/B000/XyZ4711abcd", "https://hooks.slack.com/***abcd"),
            ("https://h:8443/in?v=1&token=0123456789#part", "https://h:8443/***6789"),
            // At most half of the last part.
            ("https://h/in?token=hush", "https://h/***sh"),
            ("https://h/in", "https://h/***n"),
            ("https://h/in/", "https://h/***"),
            ("https://h/?key=", "https://h/***"),
            ("https://h", "https://h/"),
            ("http://[::1]:80/abcdefgh", "http://[::1]/***efgh"),
        ] {
            assert_eq!(Destination::parse(url).unwrap().redacted_url(), expected, "{url}");
            assert_eq!(redact_url(&redact_url(url)), expected, "{url}");
        }
    }

    #[test]
    fn stored_endpoint_round_trips() {
        let destination = Destination::parse("https://h:8443/in?token=hush").unwrap();
        let endpoint = Endpoint::new(&destination, Sealed("v1.target".into()));
        let text = serde_json::to_string(&endpoint).unwrap();
        assert_eq!(text, r#"{"url":"https://h:8443/***sh","target":"v1.target"}"#);
        assert_eq!(serde_json::from_str::<Endpoint>(&text).unwrap(), endpoint);
        assert_eq!(endpoint.origin(), destination.origin());
        assert_eq!(endpoint.with_target(&destination.target()).unwrap(), destination);
        let client = ClientCertificate { certificate_pem: "PEM".into(), key: Sealed("v1.sealed".into()) };
        let tls = EndpointTls { ca_pem: Some("PEM".into()), client: Some(client) };
        let with = endpoint.with_tls(tls.clone()).unwrap();
        assert_eq!(serde_json::from_value::<Endpoint>(serde_json::to_value(&with).unwrap()).unwrap(), with);
        assert!(!format!("{with:?}").contains("v1."));
        let plain = Endpoint::new(&Destination::parse("http://h/").unwrap(), Sealed("v1.target".into()));
        assert_eq!(plain.with_tls(tls), Err(Error::TlsWithoutHttps));
    }

    #[test]
    fn debug_output_hides_secrets() {
        let headers = [("authorization".to_owned(), "Bearer hush".to_owned())];
        let text = format!("{:?}", Destination::parse("https://h/hush-hush?a=hush").unwrap().with_headers(headers));
        assert!(text.contains("authorization") && !text.contains("hush"), "{text}");
    }
}
