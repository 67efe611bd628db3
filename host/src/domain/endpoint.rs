//! Endpoints: where deliveries go.
//!
//! The path and query of a receiver's URL are secrets: whoever knows a Slack or Teams URL may post there. An [`Endpoint`] is what is
//! stored: scheme, host and port in the clear, the rest sealed. A [`Destination`] is the URL in the clear, with the values of
//! headers, for as long as a request is made.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Position, Url};

use super::secret::{REDACTED, Sealed, Secret};

/// Characters that are shown of the end of a URL at the most.
const SHOWN_CHARS_MAX: usize = 4;

/// What was wrong with an endpoint. None of the texts quotes a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not an absolute http or https URL with a host.
    #[error("this is not an endpoint: use an absolute https:// (or http://) URL with a host")]
    Url,
    /// A URL as it is shown, without its path and query.
    #[error(
        "this URL is redacted (`/{REDACTED}`), and it is not the stored one as it is shown: give the whole URL, or leave \
         `url` out to keep the stored one"
    )]
    Redacted,
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

/// A receiver as it is stored: its URL without what is secret in it, that sealed, and what is particular to TLS there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct Endpoint {
    /// See [`Destination::shown`].
    shown: String,
    origin: Origin,
    /// Path and query.
    target: Sealed,
    tls: EndpointTls,
}

/// A receiver's URL in the clear, and the values of the headers that it wants.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    url: Url,
    headers: BTreeMap<String, String>,
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
    target: Sealed,
    #[serde(default, skip_serializing_if = "EndpointTls::is_empty")]
    tls: EndpointTls,
}

impl Destination {
    /// Checks a URL. Whether the address may be connected to is egress's question, at connect time. A fragment is never sent,
    /// so it is left out.
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

    /// The URL.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Headers to send besides Setgate's own.
    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.headers
    }

    /// The same with these headers besides those it has.
    pub fn with_headers(mut self, more: impl IntoIterator<Item = (String, String)>) -> Self {
        self.headers.extend(more);
        self
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> Origin {
        Origin::of(&self.url)
    }

    /// What is shown of the URL: scheme, host, port, and the last four characters.
    pub fn shown(&self) -> String {
        shown(&self.url)
    }

    /// Path and query: what is sealed.
    pub fn target(&self) -> Secret {
        Secret::new(self.url[Position::BeforePath..Position::AfterQuery].to_owned())
    }

    /// Whether both lead to the same origin and path: what was verified of one holds for the other.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.origin() == other.origin() && self.url.path() == other.url.path()
    }
}

/// Checks a header that an endpoint is to be sent.
pub fn check_header(name: &str, value: &str) -> Result<(), Error> {
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
    let formed = http::HeaderName::from_bytes(lower.as_bytes()).is_ok() && http::HeaderValue::from_str(value).is_ok();
    if ours || !formed { Err(Error::Header(name.to_owned())) } else { Ok(()) }
}

/// The URL of a record: see [`Destination::shown`]. One that is redacted, or that is no URL, stays as it is.
pub fn shown_url(url: &str) -> String {
    match Url::parse(url) {
        Ok(parsed) if !is_redacted(&parsed) => shown(&parsed),
        _ => url.to_owned(),
    }
}

/// A short end could be all that is secret (`?token=hush`), so at most half of the last part of path or query is shown.
fn shown(url: &Url) -> String {
    let target = &url[Position::BeforePath..Position::AfterQuery];
    if target == "/" {
        return url[..Position::AfterPath].to_owned();
    }
    let last = target.rsplit(['/', '?', '&', '=']).next().unwrap_or_default();
    let shown = SHOWN_CHARS_MAX.min(last.len() / 2);
    format!("{}/{REDACTED}{}", &url[..Position::BeforePath], &last[last.len() - shown..])
}

fn is_redacted(url: &Url) -> bool {
    url.path().starts_with("/***")
}

impl Endpoint {
    /// A destination whose target was sealed.
    pub fn new(destination: &Destination, target: Sealed) -> Self {
        Self { shown: destination.shown(), origin: destination.origin(), target, tls: EndpointTls::default() }
    }

    /// See [`Destination::shown`].
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// What `crypto` opens.
    pub fn target(&self) -> &Sealed {
        &self.target
    }

    /// With its target opened.
    pub fn with_target(&self, target: &Secret) -> Result<Destination, Error> {
        let shown = Url::parse(&self.shown).map_err(|_| Error::Url)?;
        Destination::parse(&format!("{}{}", &shown[..Position::BeforePath], target.expose()))
    }

    /// What is particular to TLS there.
    pub fn tls(&self) -> &EndpointTls {
        &self.tls
    }

    /// The same with nothing particular to TLS.
    pub fn without_tls(&self) -> Self {
        Self { tls: EndpointTls::default(), ..self.clone() }
    }

    /// The same with that.
    pub fn with_tls(self, tls: EndpointTls) -> Result<Self, Error> {
        if !self.origin.https && !tls.is_empty() {
            return Err(Error::TlsWithoutHttps);
        }
        Ok(Self { tls, ..self })
    }

    /// Scheme, host and port: what a breaker, a rate and a concurrency limit belong to, within a tenant.
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
        f.debug_struct("Destination").field("url", &self.shown()).field("headers", &names).finish()
    }
}

impl TryFrom<Raw> for Endpoint {
    type Error = Error;

    fn try_from(raw: Raw) -> Result<Self, Error> {
        let url = Url::parse(&raw.url).map_err(|_| Error::Url)?;
        let origin = Origin::of(&url);
        Self { shown: raw.url, origin, target: raw.target, tls: EndpointTls::default() }.with_tls(raw.tls)
    }
}

impl From<Endpoint> for Raw {
    fn from(endpoint: Endpoint) -> Raw {
        Raw { url: endpoint.shown, target: endpoint.target, tls: endpoint.tls }
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
    fn refuses_what_is_not_a_receiver() {
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
        assert_eq!(check_header("Webhook-Id", "x"), Err(Error::Header("Webhook-Id".into())));
        assert!(check_header("x-a", "b\r\nc: d").is_err());
        check_header("x-a", "b").unwrap();
    }

    #[test]
    fn scheme_host_and_the_last_four_characters_are_shown() {
        for (url, expected) in [
            ("https://hooks.slack.com/services/T000/B000/XyZ4711abcd", "https://hooks.slack.com/***abcd"),
            ("https://h:8443/in?v=1&token=0123456789#part", "https://h:8443/***6789"),
            // Half of the last part at the most.
            ("https://h/in?token=hush", "https://h/***sh"),
            ("https://h/in", "https://h/***n"),
            ("https://h/in/", "https://h/***"),
            ("https://h/?key=", "https://h/***"),
            ("https://h", "https://h/"),
            ("http://[::1]:80/abcdefgh", "http://[::1]/***efgh"),
        ] {
            assert_eq!(Destination::parse(url).unwrap().shown(), expected, "{url}");
            assert_eq!(shown_url(&shown_url(url)), expected, "{url}");
        }
    }

    #[test]
    fn what_is_stored_is_read_back() {
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
    fn is_printed_without_its_secrets() {
        let headers = [("authorization".to_owned(), "Bearer hush".to_owned())];
        let text = format!("{:?}", Destination::parse("https://h/hush-hush?a=hush").unwrap().with_headers(headers));
        assert!(text.contains("authorization") && !text.contains("hush"), "{text}");
    }
}
