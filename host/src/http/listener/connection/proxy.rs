//! The PROXY protocol, versions 1 and 2 (HAProxy's specification of 2020/03/05): a proxy sends the client address at
//! the start of a connection. Read only from trusted proxies, which must send it if the host is configured so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The signature of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Maximum length (bytes) of a version 1 header, including the end of line.
const V1_BYTES_MAX: usize = 107;
/// Bytes before the addresses of version 2.
const V2_HEAD_BYTES: usize = 16;
/// Maximum length (bytes) of a version 2 header: addresses, and extensions added by proxies.
const V2_BYTES_MAX: usize = 2_048;
/// Interval of checks for the rest of an incomplete header.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A complete header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    bytes: usize,
    /// `None` if the connection is the proxy's own, such as a health check.
    pub(super) client: Option<IpAddr>,
}

/// The result of parsing the bytes received so far.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Part,
    Whole(Header),
    NoHeader,
}

/// Reads the header at the start of a connection, and nothing beyond it.
pub(super) async fn read(stream: &mut TcpStream) -> Option<Header> {
    let mut seen = [0; V2_BYTES_MAX];
    let mut before = 0;
    let header = loop {
        let bytes = stream.peek(&mut seen).await.ok().filter(|bytes| *bytes > 0)?;
        match look(&seen[..bytes]) {
            Seen::Whole(header) => break header,
            Seen::NoHeader => return None,
            Seen::Part if bytes == seen.len() => return None,
            // Peeked bytes keep the socket readable, so waiting for readability would return immediately.
            Seen::Part if bytes == before => tokio::time::sleep(LOOK_EVERY).await,
            Seen::Part => before = bytes,
        }
    };
    stream.read_exact(&mut seen[..header.bytes]).await.ok()?;
    Some(header)
}

fn look(seen: &[u8]) -> Seen {
    if seen.starts_with(SIGNATURE) {
        return version_2(seen);
    }
    if SIGNATURE.starts_with(seen) || b"PROXY ".starts_with(seen) {
        return Seen::Part;
    }
    if seen.starts_with(b"PROXY ") { version_1(seen) } else { Seen::NoHeader }
}

fn version_1(seen: &[u8]) -> Seen {
    let line = &seen[..seen.len().min(V1_BYTES_MAX)];
    let Some(end) = line.windows(2).position(|two| two == b"\r\n") else {
        return if seen.len() < V1_BYTES_MAX { Seen::Part } else { Seen::NoHeader };
    };
    let whole = |client| Seen::Whole(Header { bytes: end + 2, client });
    let Ok(text) = std::str::from_utf8(&line[..end]) else { return Seen::NoHeader };
    let parts: Vec<_> = text.split(' ').collect();
    match parts.as_slice() {
        ["PROXY", "UNKNOWN", ..] => whole(None),
        ["PROXY", family, source, destination, from, to] => {
            let address = |text: &str| match *family {
                "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
                "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
                _ => None,
            };
            let are_ports = [from, to].iter().all(|port| port.parse::<u16>().is_ok());
            match (address(source), address(destination)) {
                (Some(client), Some(_)) if are_ports => whole(Some(client)),
                _ => Seen::NoHeader,
            }
        }
        _ => Seen::NoHeader,
    }
}

fn version_2(seen: &[u8]) -> Seen {
    let Some(&[command, family, high, low]) = seen.get(SIGNATURE.len()..V2_HEAD_BYTES) else { return Seen::Part };
    let bytes = V2_HEAD_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if bytes > V2_BYTES_MAX {
        return Seen::NoHeader;
    }
    let Some(addresses) = seen.get(V2_HEAD_BYTES..bytes) else { return Seen::Part };
    let whole = |client| Seen::Whole(Header { bytes, client });
    match (command, family >> 4) {
        // LOCAL
        (0x20, _) => whole(None),
        // PROXY, from an address that is neither IPv4 nor IPv6
        (0x21, 0 | 3) => whole(None),
        (0x21, 1) => match addresses.first_chunk::<4>().filter(|_| addresses.len() >= 12) {
            Some(source) => whole(Some(IpAddr::from(*source))),
            None => Seen::NoHeader,
        },
        (0x21, 2) => match addresses.first_chunk::<16>().filter(|_| addresses.len() >= 36) {
            Some(source) => whole(Some(IpAddr::from(*source))),
            None => Seen::NoHeader,
        },
        _ => Seen::NoHeader,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let bytes = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &bytes, addresses, b"GET /"].concat()
    }

    #[test]
    fn both_versions_say_whose_connection_it_is() {
        let client = |seen: &[u8]| match look(seen) {
            Seen::Whole(header) => Some((seen.len() - header.bytes, header.client.map(|ip| ip.to_string()))),
            _ => None,
        };
        let of = |rest: usize, ip: &str| Some((rest, Some(ip.to_owned())));
        assert_eq!(client(b"PROXY TCP4 192.0.2.1 192.0.2.9 4711 443\r\nGET"), of(3, "192.0.2.1"));
        assert_eq!(client(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"), of(0, "2001:db8::1"));
        assert_eq!(client(b"PROXY UNKNOWN\r\nx"), Some((1, None)));
        assert_eq!(client(b"PROXY UNKNOWN ff::1 ff::2 1 2\r\n"), Some((0, None)));
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 1, 2, 3, 4, 9, 9, 9];
        assert_eq!(client(&v2(0x21, 0x11, &v4)), of(5, "192.0.2.1"), "with more behind the addresses");
        let v6 = [[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].as_slice(), &[0; 20]].concat();
        assert_eq!(client(&v2(0x21, 0x21, &v6)), of(5, "2001:db8::1"));
        assert_eq!(client(&v2(0x20, 0x00, &[])), Some((5, None)), "a health check");
    }

    #[test]
    fn a_part_is_waited_for_and_all_else_is_no_header() {
        let whole = b"PROXY TCP4 192.0.2.1 192.0.2.9 4711 443\r\n";
        for end in 0..whole.len() {
            assert_eq!(look(&whole[..end]), Seen::Part, "{end}");
        }
        let whole = v2(0x21, 0x11, &[0; 12]);
        for end in 0..whole.len() - 5 {
            assert_eq!(look(&whole[..end]), Seen::Part, "{end}");
        }
        for bad in [
            b"GET / HTTP/1.1\r\n".as_slice(),
            b"PROXY TCP4 2001:db8::1 192.0.2.9 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.9 1\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.9 1 70000\r\n",
            b"PROXY SCTP 192.0.2.1 192.0.2.9 1 2\r\n",
            &[b"PROXY ".as_slice(), &[b'x'; V1_BYTES_MAX]].concat(),
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x21, &[0; 35]),
            &v2(0x21, 0x11, &[0; V2_BYTES_MAX]),
        ] {
            assert_eq!(look(bad), Seen::NoHeader, "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
