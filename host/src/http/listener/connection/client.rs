//! The client address of a request: the peer of the connection, or the client stated by a trusted proxy.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

use crate::http::listener::settings::{ClientAddress, Listen};

/// The header that most proxies use.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The trusted proxies, and how they state the client address.
#[derive(Debug, Clone)]
pub(super) struct Proxies {
    trusted: Vec<IpNet>,
    named_by: ClientAddress,
}

impl Proxies {
    pub(super) fn new(settings: &Listen) -> Self {
        Self { trusted: settings.trusted_proxies.clone(), named_by: settings.client_address }
    }

    pub(super) fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }

    /// Whether connections from this address start with a PROXY protocol header.
    pub(super) fn announces(&self, address: IpAddr) -> bool {
        self.named_by == ClientAddress::ProxyProtocol && self.is_trusted(address)
    }

    /// The client stated in a request from this address. `None` if it is the peer itself.
    pub(super) fn client_of(&self, other_end: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.is_trusted(other_end) {
            return None;
        }
        let named: Vec<Option<IpAddr>> = match self.named_by {
            ClientAddress::Peer | ClientAddress::ProxyProtocol => return None,
            ClientAddress::XForwardedFor => {
                texts(headers, &X_FORWARDED_FOR).flat_map(|text| text.split(',')).map(address).collect()
            }
            ClientAddress::Forwarded => {
                let elements = texts(headers, &header::FORWARDED).flat_map(|text| text.split(','));
                elements.map(|element| forwarded_for(element).and_then(address)).collect()
            }
        };
        // Each proxy appends the address of its peer, so the last address that is not a trusted proxy is the client.
        // Everything before it was sent by the client and is not trusted.
        let mut client = None;
        for named in named.into_iter().rev() {
            let Some(named) = named else { break };
            client = Some(named);
            if !self.is_trusted(named) {
                break;
            }
        }
        client
    }
}

fn texts<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default())
}

/// The `for` parameter of an element of `Forwarded` (RFC 7239 section 4).
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then(|| value.trim_matches('"'))
    })
}

/// Parses an address with or without brackets and port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let whole = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    whole().or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn proxies(named_by: ClientAddress) -> Proxies {
        Proxies { trusted: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()], named_by }
    }

    fn client(named_by: ClientAddress, other_end: &str, name: &'static str, values: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_static(value));
        }
        proxies(named_by).client_of(other_end.parse().unwrap(), &headers).map(|client| client.to_string())
    }

    #[test]
    fn a_trusted_proxy_names_the_client_and_nobody_else_does() {
        let xff = |end, values: &[&'static str]| client(ClientAddress::XForwardedFor, end, "x-forwarded-for", values);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(xff("10.1.1.1", &["192.0.2.1"]), some("192.0.2.1"));
        assert_eq!(xff("192.0.2.9", &["192.0.2.1"]), None, "it is no proxy of ours");
        assert_eq!(xff("10.1.1.1", &["203.0.113.7, 192.0.2.1, 10.2.2.2"]), some("192.0.2.1"), "what it says itself");
        assert_eq!(xff("10.1.1.1", &["203.0.113.7", "192.0.2.1:4711"]), some("192.0.2.1"), "in two fields");
        assert_eq!(xff("10.1.1.1", &["192.0.2.1, forged, 10.2.2.2"]), some("10.2.2.2"), "up to what is no address");
        assert_eq!(xff("10.1.1.1", &["unknown"]), None);
        assert_eq!(xff("10.1.1.1", &[]), None);
        assert_eq!(xff("fd00::1", &["[2001:db8::1]:99"]), some("2001:db8::1"));
        assert_eq!(xff("10.1.1.1", &["::ffff:192.0.2.1"]), some("192.0.2.1"));
        let forwarded = |values: &[&'static str]| client(ClientAddress::Forwarded, "10.1.1.1", "forwarded", values);
        assert_eq!(forwarded(&["for=192.0.2.1;proto=https;by=10.1.1.1"]), some("192.0.2.1"));
        assert_eq!(forwarded(&["For=\"[2001:db8::1]:99\", for=10.3.3.3"]), some("2001:db8::1"));
        assert_eq!(forwarded(&["for=192.0.2.1, for=_hidden"]), None);
        for other in [ClientAddress::Peer, ClientAddress::ProxyProtocol] {
            assert_eq!(client(other, "10.1.1.1", "x-forwarded-for", &["192.0.2.1"]), None);
        }
        assert!(proxies(ClientAddress::ProxyProtocol).announces("10.1.1.1".parse().unwrap()));
        assert!(!proxies(ClientAddress::ProxyProtocol).announces("192.0.2.1".parse().unwrap()));
        assert!(!proxies(ClientAddress::Peer).announces("10.1.1.1".parse().unwrap()));
    }
}
