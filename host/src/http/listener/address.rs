//! Addresses of listeners.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Host and port: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`. A name is resolved when the listener is bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    host: String,
    port: u16,
}

/// The text is not a valid address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an address to listen on: give host and port, such as 127.0.0.1:8080, 0.0.0.0:8080 for all addresses, [::]:8080 \
     or localhost:8080"
)]
pub struct NotAnAddress(String);

impl Address {
    /// Name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 lets the system choose a free one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Replaces the port.
    pub fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(given: &str) -> Result<Self, NotAnAddress> {
        if let Ok(address) = given.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let wrong = || NotAnAddress(given.to_owned());
        let (host, port) = given.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        if !is_name(host) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

/// Whether this is a valid host name (RFC 1123 section 2.1). A name whose last label is a number must be an IPv4
/// address (RFC 3986 section 3.2.2), and parsing it as one has already failed.
fn is_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253 && host.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl TryFrom<String> for Address {
    type Error = NotAnAddress;

    fn try_from(given: String) -> Result<Self, NotAnAddress> {
        given.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_taken_with_a_port() {
        for (given, host, port) in [
            ("127.0.0.1:8080", "127.0.0.1", 8080),
            ("[::1]:0", "::1", 0),
            ("[::]:443", "::", 443),
            ("localhost:0", "localhost", 0),
            ("Gate-1.internal.example:9000", "gate-1.internal.example", 9000),
            ("my_service:80", "my_service", 80),
        ] {
            let address: Address = given.parse().unwrap();
            assert_eq!((address.host(), address.port()), (host, port), "{given}");
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
        for bad in [
            "",
            "8080",
            ":8080",
            "localhost",
            "127.0.0.1",
            "*:8080",
            "::1:8080",
            "localhost:99999",
            "256.0.0.1:80",
            "a b:80",
            "http://localhost:80",
        ] {
            let error = bad.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("127.0.0.1:8080"), "{error}");
        }
    }
}
