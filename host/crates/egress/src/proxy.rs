//! The HTTP proxy through which receivers are reached, for sites that allow no direct outgoing connections.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use setgate_domain::secret::Secret;
use url::{Host, Url};

/// A proxy setting is invalid. The message does not quote the URL, which may contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The URL is not `http://[user:password@]host:port`.
    #[error("a proxy has to be http://host:port or http://user:password@host:port, without a path")]
    Url,
    /// The URL asks for TLS to the proxy itself, which is not supported.
    #[error("the proxy itself is reached over plain http:// only; TLS to receivers goes through its tunnel")]
    Https,
    /// A bypass entry is neither a name nor a network.
    #[error("`{0}` is not a host: use names, `.suffix` for all names below it, addresses or networks")]
    Bypass(String),
}

/// An HTTP proxy that opens tunnels (`CONNECT`, RFC 9110 section 9.3.6). Displayed without user and password.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Proxy {
    /// Name or address, without brackets.
    pub host: String,
    /// Port; defaults to 80.
    pub port: u16,
    /// `user:password`, if the proxy requires them.
    pub credentials: Option<Secret>,
}

impl TryFrom<String> for Proxy {
    type Error = Error;

    fn try_from(given: String) -> Result<Self, Error> {
        // `Secret` wipes the text with the password on every path out of here.
        let given = Secret::new(given);
        let url = Url::parse(given.expose()).map_err(|_| Error::Url)?;
        match url.scheme() {
            "http" => {}
            "https" => return Err(Error::Https),
            _ => return Err(Error::Url),
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(Error::Url);
        }
        let host = match url.host().ok_or(Error::Url)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = (decoded(url.username()), url.password().map(decoded).unwrap_or_default());
        // RFC 7617 section 2: a colon in the user name would be read as the start of the password.
        if user.contains(':') {
            return Err(Error::Url);
        }
        let credentials = (!user.is_empty()).then(|| Secret::new(format!("{user}:{password}")));
        Ok(Self { host, port: url.port_or_known_default().ok_or(Error::Url)?, credentials })
    }
}

impl From<Proxy> for String {
    fn from(proxy: Proxy) -> String {
        proxy.to_string()
    }
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        self.host == other.host
            && self.port == other.port
            && self.credentials.as_ref().map(Secret::expose) == other.credentials.as_ref().map(Secret::expose)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if self.credentials.is_some() { "***@" } else { "" };
        match self.host.parse() {
            Ok(IpAddr::V6(ip)) => write!(f, "http://{user}[{ip}]:{}", self.port),
            _ => write!(f, "http://{user}{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A host that is reached without the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProxyBypass {
    /// Exactly this name, in lower case.
    Name(String),
    /// Every name with this suffix, which begins with a dot.
    Suffix(String),
    /// Endpoint addresses in this network. Host names are not resolved to match it.
    Net(IpNet),
}

impl ProxyBypass {
    /// Whether the host, written as in an endpoint's URL, is reached without the proxy.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match self {
            Self::Net(net) => host.parse::<IpAddr>().is_ok_and(|ip| net.contains(&ip)),
            Self::Name(name) => host.trim_end_matches('.').eq_ignore_ascii_case(name),
            Self::Suffix(suffix) => host.trim_end_matches('.').to_ascii_lowercase().ends_with(suffix),
        }
    }
}

impl TryFrom<String> for ProxyBypass {
    type Error = Error;

    fn try_from(given: String) -> Result<Self, Error> {
        if let Ok(net) = given.parse::<IpNet>() {
            return Ok(Self::Net(net));
        }
        if let Ok(ip) = given.parse::<IpAddr>() {
            return Ok(Self::Net(ip.into()));
        }
        let lower = given.to_ascii_lowercase();
        let name = lower.strip_prefix('.').unwrap_or(&lower);
        let formed = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if !name.split('.').all(formed) {
            return Err(Error::Bypass(given));
        }
        Ok(if lower.starts_with('.') { Self::Suffix(lower) } else { Self::Name(lower) })
    }
}

impl From<ProxyBypass> for String {
    fn from(bypass: ProxyBypass) -> String {
        match bypass {
            ProxyBypass::Name(name) => name,
            ProxyBypass::Suffix(suffix) => suffix,
            ProxyBypass::Net(net) => net.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(given: &str) -> Result<Proxy, Error> {
        Proxy::try_from(given.to_owned())
    }

    #[test]
    fn proxy_is_parsed_and_displayed_without_password() {
        for (given, shown, credentials) in [
            ("http://proxy.example:3128", "http://proxy.example:3128", None),
            ("http://10.0.0.1:3128/", "http://10.0.0.1:3128", None),
            ("http://[fd00::1]:3128", "http://[fd00::1]:3128", None),
            ("http://proxy.example", "http://proxy.example:80", None),
            ("http://me:hu%40sh@proxy.example:1", "http://***@proxy.example:1", Some("me:hu@sh")),
            ("http://me@proxy.example:1", "http://***@proxy.example:1", Some("me:")),
        ] {
            let proxy = proxy(given).unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert_eq!(format!("{proxy:?}"), shown);
            assert_eq!(serde_json::to_value(&proxy).unwrap(), shown);
            assert_eq!(proxy.credentials.as_ref().map(Secret::expose), credentials);
        }
    }

    #[test]
    fn invalid_proxy_is_refused_without_quoting_it() {
        for (given, expected) in [
            ("proxy.example:3128", Error::Url),
            ("hush", Error::Url),
            ("socks5://me:hush@proxy.example:1", Error::Url),
            ("http://me:hush@proxy.example:1/path", Error::Url),
            ("http://me%3Ahush@proxy.example:1", Error::Url),
            ("https://me:hush@proxy.example:1", Error::Https),
        ] {
            let error = proxy(given).unwrap_err();
            assert_eq!(error, expected, "{given}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }

    #[test]
    fn bypass_matches_names_suffixes_and_networks() {
        for (given, host, matches) in [
            ("idp.example", "idp.example", true),
            ("IdP.Example", "idp.example", true),
            ("idp.example", "IDP.example.", true),
            ("idp.example", "a.idp.example", false),
            (".example", "idp.example", true),
            (".example", "a.b.example", true),
            (".example", "example", false),
            (".example", "idpexample", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("fd00::/8", "[fd00::1]", true),
            ("10.0.0.0/8", "ten.example", false),
        ] {
            assert_eq!(ProxyBypass::try_from(given.to_owned()).unwrap().matches(host), matches, "{given} {host}");
        }
        for bad in ["", ".", "*.example", "http://x", "a..b", "10.0.0.0/40", "a b"] {
            assert!(ProxyBypass::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
