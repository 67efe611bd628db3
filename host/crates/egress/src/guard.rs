//! Decides which addresses may be connected to.
//!
//! A tenant's endpoint must not reach the operator's own networks (server-side request forgery). The check applies to
//! the address that is about to be connected to, after name resolution, so that neither a name that points to an
//! internal address nor one that changes between check and use bypasses it. For IPv6, only global unicast (`2000::/3`)
//! is open, except the ranges that embed an IPv4 address or have a special purpose (IANA special-purpose address
//! registries, RFC 6890).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// Refused ranges with their description. The first range that contains an address is reported.
const BLOCKED_RANGES: [(&str, &str); 34] = [
    ("0.0.0.0/8", "an unspecified address"),
    ("10.0.0.0/8", "a private address"),
    ("100.64.0.0/10", "a carrier-grade NAT address"),
    ("127.0.0.0/8", "a loopback address"),
    ("169.254.0.0/16", "a link-local or metadata address"),
    // Azure's metadata and DNS service. It is reachable only from inside, although the range is public.
    ("168.63.129.16/32", "a metadata address"),
    ("172.16.0.0/12", "a private address"),
    ("192.0.0.0/24", "a protocol assignment address"),
    ("192.0.2.0/24", "a documentation address"),
    ("192.88.99.0/24", "a 6to4 relay address"),
    ("192.168.0.0/16", "a private address"),
    ("198.18.0.0/15", "a benchmark address"),
    ("198.51.100.0/24", "a documentation address"),
    ("203.0.113.0/24", "a documentation address"),
    ("224.0.0.0/4", "a multicast address"),
    ("255.255.255.255/32", "a broadcast address"),
    ("240.0.0.0/4", "a reserved address"),
    ("::/128", "an unspecified address"),
    ("::1/128", "a loopback address"),
    ("::ffff:0:0/96", "an IPv4-mapped address"),
    ("64:ff9b::/96", "a NAT64 address"),
    ("64:ff9b:1::/48", "a NAT64 address"),
    ("::/8", "a reserved address"),
    ("fc00::/7", "a private address"),
    ("fe80::/10", "a link-local address"),
    ("ff00::/8", "a multicast address"),
    ("2001::/32", "a Teredo address"),
    ("2001:2::/48", "a benchmark address"),
    ("2001::/23", "a protocol assignment address"),
    ("2001:db8::/32", "a documentation address"),
    ("2002::/16", "a 6to4 address"),
    ("3fff::/20", "a documentation address"),
    ("::/3", "a reserved address"),
    ("4000::/2", "a reserved address"),
];

/// The upper half of IPv6, for addresses without a more specific entry in [`BLOCKED_RANGES`].
const BLOCKED_LAST: (&str, &str) = ("8000::/1", "a reserved address");

/// Why an address is refused. It contains the kind of the address but not the address itself, because tenants must not
/// learn the addresses of internal names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockedAddress {
    /// The address is in a refused range.
    #[error("the endpoint's address is {0}, which is blocked unless `egress.allow` contains it")]
    Range(&'static str),
    /// The address is Setgate's own listener.
    #[error("the endpoint's address is Setgate's own listener")]
    OwnListener,
}

/// The address filter.
#[derive(Debug, Clone)]
pub struct Guard {
    refused: Vec<(IpNet, &'static str)>,
    allow: Vec<IpNet>,
    own: Vec<SocketAddr>,
}

impl Guard {
    /// `allow` lists exceptions to the refused ranges. `own_listeners` are always refused, because the management
    /// interface listens there.
    pub fn new(allow: Vec<IpNet>, own_listeners: Vec<SocketAddr>) -> Self {
        let parse =
            |(net, kind): &(&str, &'static str)| (net.parse().expect("the ranges above are well-formed"), *kind);
        let refused = BLOCKED_RANGES.iter().chain([&BLOCKED_LAST]).map(parse).collect();
        Self { refused, allow, own: own_listeners }
    }

    /// Checks a single address.
    pub fn check(&self, address: SocketAddr) -> Result<(), BlockedAddress> {
        let ip = address.ip();
        if self.own.iter().any(|own| is_own(*own, ip.to_canonical(), address.port())) {
            return Err(BlockedAddress::OwnListener);
        }
        if self.allow.iter().any(|net| net.contains(&ip)) {
            return Ok(());
        }
        match self.refused.iter().find(|(net, _)| net.contains(&ip)) {
            Some((_, kind)) => Err(BlockedAddress::Range(kind)),
            None => Ok(()),
        }
    }

    /// Checks whether an endpoint will be refused regardless of name resolution: its host is a literal address or a
    /// loopback name. No lookup takes place.
    pub fn check_host(&self, host: &str, port: u16) -> Result<(), BlockedAddress> {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let ips = match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(ip) => vec![ip],
            Err(_) if is_loopback_name(host) => loopback.to_vec(),
            Err(_) => return Ok(()),
        };
        let addresses: Vec<_> = ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        // Depending on the machine, the name may resolve to IPv4, IPv6 or both, and the port is ours in each case.
        if addresses.iter().any(|address| self.check(*address) == Err(BlockedAddress::OwnListener)) {
            return Err(BlockedAddress::OwnListener);
        }
        self.permitted(&addresses).map(drop)
    }

    /// Checks an established connection. If both ends have the same address, the peer is this machine, and then its
    /// port must not be one of our listeners'. This detects listeners that are bound to the unspecified address.
    pub fn check_connected(&self, local: SocketAddr, peer: SocketAddr) -> Result<(), BlockedAddress> {
        let here = local.ip().to_canonical() == peer.ip().to_canonical();
        if here && self.own.iter().any(|own| own.port() == peer.port()) {
            return Err(BlockedAddress::OwnListener);
        }
        Ok(())
    }

    /// The permitted addresses of a name in their original order, or the first refusal if none is permitted. Refused
    /// addresses are skipped instead of failing the lookup, because a resolver in a NAT64 network adds a synthetic
    /// address for each real one (RFC 6147).
    pub fn permitted(&self, addresses: &[SocketAddr]) -> Result<Vec<SocketAddr>, BlockedAddress> {
        let mut permitted = Vec::new();
        let mut refusal = None;
        for address in addresses {
            match self.check(*address) {
                Ok(()) => permitted.push(*address),
                Err(refused) => refusal = refusal.or(Some(refused)),
            }
        }
        match refusal {
            Some(refused) if permitted.is_empty() => Err(refused),
            _ => Ok(permitted),
        }
    }
}

/// Whether a name refers to a loopback address: the names of RFC 6761 section 6.3, and those in `/etc/hosts` of Linux
/// distributions.
fn is_loopback_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let named = ["localhost", "localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback"].contains(&name);
    named || name.ends_with(".localhost")
}

fn is_own(own: SocketAddr, ip: IpAddr, port: u16) -> bool {
    let same = own.ip().to_canonical() == ip;
    own.port() == port && (same || (own.ip().is_unspecified() && (ip.is_loopback() || ip.is_unspecified())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow: &[&str], own: &[&str]) -> Guard {
        Guard::new(
            allow.iter().map(|net| net.parse().unwrap()).collect(),
            own.iter().map(|address| address.parse().unwrap()).collect(),
        )
    }

    fn at(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 443)
    }

    #[test]
    fn blocks_non_public_addresses() {
        let guard = guard(&[], &[]);
        for (ip, kind) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("10.255.0.1", "private"),
            ("100.64.0.1", "carrier-grade NAT"),
            ("100.127.255.255", "carrier-grade NAT"),
            ("100.100.100.200", "carrier-grade NAT"),
            ("127.0.0.1", "loopback"),
            ("127.8.8.8", "loopback"),
            ("168.63.129.16", "metadata"),
            ("169.254.169.254", "metadata"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.192", "protocol assignment"),
            ("192.0.2.1", "documentation"),
            ("192.88.99.1", "6to4 relay"),
            ("192.168.1.1", "private"),
            ("198.18.0.1", "benchmark"),
            ("198.19.255.255", "benchmark"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.1", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::2", "reserved"),
            ("::127.0.0.1", "reserved"),
            ("::ffff:127.0.0.1", "IPv4-mapped"),
            ("::ffff:8.8.8.8", "IPv4-mapped"),
            ("64:ff9b::a00:1", "NAT64"),
            ("64:ff9b::808:808", "NAT64"),
            ("64:ff9b:1::1", "NAT64"),
            ("100::1", "reserved"),
            ("2001::1", "Teredo"),
            ("2001:2::1", "benchmark"),
            ("2001:10::1", "protocol assignment"),
            ("2001:20::1", "protocol assignment"),
            ("2001:db8::1", "documentation"),
            ("2002:7f00:1::", "6to4"),
            ("3fff::1", "documentation"),
            ("4000::1", "reserved"),
            ("5f00::1", "reserved"),
            ("8000::1", "reserved"),
            ("fc00::1", "private"),
            ("fd00:ec2::254", "private"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "reserved"),
            ("ff02::1", "multicast"),
        ] {
            match guard.check(at(ip)) {
                Err(BlockedAddress::Range(said)) => assert!(said.contains(kind), "{ip}: {said}"),
                other => panic!("{ip}: {other:?}"),
            }
        }
    }

    #[test]
    fn permits_public_addresses() {
        let guard = guard(&[], &[]);
        for ip in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "168.63.129.17",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "2001:4860:4860::8888",
            "2001:200::1",
            "2003::1",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert_eq!(guard.check(at(ip)), Ok(()), "{ip}");
        }
    }

    #[test]
    fn allow_list_permits_only_its_networks() {
        let guard = guard(&["10.1.0.0/16", "::1/128"], &[]);
        assert_eq!(guard.check(at("10.1.2.3")), Ok(()));
        assert_eq!(guard.check(at("::1")), Ok(()));
        for still in ["10.2.0.1", "127.0.0.1", "::ffff:10.1.2.3", "64:ff9b::a01:203"] {
            assert!(guard.check(at(still)).is_err(), "{still}");
        }
    }

    #[test]
    fn own_listeners_are_blocked_despite_allow_list() {
        let exact = guard(&["127.0.0.0/8", "::ffff:0:0/96"], &["127.0.0.1:443"]);
        assert_eq!(exact.check(at("127.0.0.1")), Err(BlockedAddress::OwnListener));
        assert_eq!(exact.check(at("::ffff:127.0.0.1")), Err(BlockedAddress::OwnListener));
        assert_eq!(exact.check("127.0.0.1:444".parse().unwrap()), Ok(()));
        assert_eq!(exact.check(at("127.0.0.2")), Ok(()));
        for unspecified in ["0.0.0.0:443", "[::]:443"] {
            let guard = guard(&["0.0.0.0/0", "::/0"], &[unspecified]);
            for here in ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::"] {
                assert_eq!(guard.check(at(here)), Err(BlockedAddress::OwnListener), "{unspecified} {here}");
            }
            // An address of this machine that is in no list. It is detected after the connection is established.
            assert_eq!(guard.check(at("8.8.4.4")), Ok(()));
            let connected = guard.check_connected("8.8.4.4:50000".parse().unwrap(), at("8.8.4.4"));
            assert_eq!(connected, Err(BlockedAddress::OwnListener));
            assert_eq!(guard.check_connected("8.8.4.4:50000".parse().unwrap(), at("8.8.8.8")), Ok(()));
        }
    }

    #[test]
    fn loopback_hosts_are_blocked_without_lookup() {
        let shut = guard(&[], &["0.0.0.0:443"]);
        for host in ["10.0.0.1", "169.254.169.254", "[fd00::1]", "[::ffff:8.8.8.8]"] {
            assert!(matches!(shut.check_host(host, 80), Err(BlockedAddress::Range(_))), "{host}");
        }
        for host in ["localhost", "localhost.", "api.localhost", "ip6-localhost", "localhost.localdomain"] {
            assert_eq!(shut.check_host(host, 80), Err(BlockedAddress::Range("a loopback address")), "{host}");
            assert_eq!(shut.check_host(host, 443), Err(BlockedAddress::OwnListener), "{host}");
        }
        for host in ["1.1.1.1", "[2606:4700::1111]", "hooks.example.com", "localhost.example.com", "notlocalhost"] {
            assert_eq!(shut.check_host(host, 443), Ok(()), "{host}");
        }
        let open = guard(&["127.0.0.0/8"], &["127.0.0.1:443"]);
        assert_eq!(open.check_host("localhost", 80), Ok(()), "one of its addresses is permitted");
        for host in ["localhost", "127.0.0.1"] {
            assert_eq!(open.check_host(host, 443), Err(BlockedAddress::OwnListener), "{host}");
        }
    }

    #[test]
    fn blocked_addresses_of_a_name_are_skipped() {
        let guard = guard(&[], &[]);
        let (inside, outside) = (at("10.0.0.1"), at("1.1.1.1"));
        assert_eq!(guard.permitted(&[inside, outside]), Ok(vec![outside]));
        assert_eq!(guard.permitted(&[at("127.0.0.1"), inside]), Err(BlockedAddress::Range("a loopback address")));
        assert_eq!(guard.permitted(&[]), Ok(Vec::new()));
    }
}
