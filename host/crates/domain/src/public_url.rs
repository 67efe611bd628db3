//! The URL under which other parties reach a host.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// Maximum length in characters. The issuers of all tenants begin with it.
const CHARS_MAX: usize = 500;

/// A base URL without a final slash, to which paths are appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicUrl(String);

/// Why a text is not a public URL. The messages do not quote it, because it may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicUrlError {
    /// Not an absolute URL with a host.
    #[error("this is not an absolute URL: give one such as https://edge.example")]
    NotAUrl,
    /// Neither https, nor http with a loopback host.
    #[error("the scheme has to be https; http is accepted for localhost and loopback addresses only")]
    Scheme,
    /// A user name or password.
    #[error("the URL contains a user name or password: leave it out")]
    Credentials,
    /// A query or a fragment.
    #[error("the URL has a query or a fragment: leave out everything from `?` or `#` on")]
    QueryOrFragment,
    /// More than one slash at the end.
    #[error("the path ends with several slashes: leave them out")]
    Slashes,
    /// Too many characters.
    #[error("the URL is longer than {CHARS_MAX} characters")]
    TooLong,
}

impl PublicUrl {
    /// Parses and normalises a URL, without its final slash.
    pub fn parse(given: &str) -> Result<Self, PublicUrlError> {
        let url = Url::parse(given).map_err(|_| PublicUrlError::NotAUrl)?;
        let host = url.host().ok_or(PublicUrlError::NotAUrl)?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&host) => {}
            _ => return Err(PublicUrlError::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(PublicUrlError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(PublicUrlError::QueryOrFragment);
        }
        let text = url.as_str();
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.ends_with('/') {
            return Err(PublicUrlError::Slashes);
        }
        if text.len() > CHARS_MAX {
            return Err(PublicUrlError::TooLong);
        }
        Ok(Self(text.to_owned()))
    }

    /// The URL without a final slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = PublicUrlError;

    fn try_from(given: String) -> Result<Self, PublicUrlError> {
        Self::parse(&given)
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usable_urls_are_normalised() {
        for (given, expected) in [
            ("https://edge.example", "https://edge.example"),
            ("https://Edge.Example:443/", "https://edge.example"),
            ("https://edge.example:8443/sets/", "https://edge.example:8443/sets"),
            ("https://10.0.0.1", "https://10.0.0.1"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://edge.localhost", "http://edge.localhost"),
            ("http://127.0.0.2:1/", "http://127.0.0.2:1"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(PublicUrl::parse(given).unwrap().as_str(), expected, "{given}");
        }
    }

    #[test]
    fn unusable_urls_are_refused() {
        use PublicUrlError::{Credentials, NotAUrl, QueryOrFragment, Scheme, Slashes, TooLong};
        let long = format!("https://edge.example/{}", "a".repeat(CHARS_MAX));
        for (given, expected) in [
            ("", NotAUrl),
            ("edge.example", NotAUrl),
            ("/t", NotAUrl),
            ("https://", NotAUrl),
            ("http://edge.example", Scheme),
            ("http://localhost.example", Scheme),
            ("http://10.0.0.1", Scheme),
            ("ftp://localhost", Scheme),
            ("https://me@edge.example", Credentials),
            ("https://me:hush@edge.example", Credentials),
            ("https://edge.example?", QueryOrFragment),
            ("https://edge.example/?a=1", QueryOrFragment),
            ("https://edge.example/#", QueryOrFragment),
            ("https://edge.example//", Slashes),
            (&long, TooLong),
        ] {
            assert_eq!(PublicUrl::parse(given), Err(expected), "{given}");
        }
    }
}
