//! Parses signature headers. Some senders put several signatures into one line, others send one line each.

use http::HeaderMap;

use super::{ENTRIES_MAX, MacError};

/// The entries of all lines of a header, separated by commas or white space. There is at least one. All entries are
/// checked against the same secrets, so their order does not matter.
pub(crate) fn split<'a>(
    headers: &'a HeaderMap,
    header: &'static str,
    expected: &'static str,
) -> Result<Vec<&'a str>, MacError> {
    let lines = headers.get_all(header);
    let mut entries = Vec::new();
    let mut missing = true;
    for line in lines {
        missing = false;
        let line = line.to_str().map_err(|_| MacError::Malformed { header, expected })?;
        let parts = line.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
        entries.extend(parts.take(ENTRIES_MAX - entries.len().min(ENTRIES_MAX)));
    }
    match (missing, entries.is_empty()) {
        (true, _) => Err(MacError::Missing { header }),
        (false, true) => Err(MacError::Malformed { header, expected }),
        (false, false) => Ok(entries),
    }
}

/// The value of a header that must occur only once, because different parsers may pick different values of a repeated
/// header.
pub(crate) fn single<'a>(
    headers: &'a HeaderMap,
    header: &'static str,
    expected: &'static str,
) -> Result<&'a str, MacError> {
    let mut values = headers.get_all(header).iter();
    let first = values.next().ok_or(MacError::Missing { header })?;
    match (first.to_str(), values.next()) {
        (Ok(text), None) => Ok(text.trim()),
        _ => Err(MacError::Malformed { header, expected }),
    }
}

/// A MAC of `bytes` bytes, in hex digits of either case.
pub(crate) fn decode_hex(
    text: &str,
    bytes: usize,
    header: &'static str,
    expected: &'static str,
) -> Result<Vec<u8>, MacError> {
    let mac = hex::decode(text.trim()).ok().filter(|mac| mac.len() == bytes);
    mac.ok_or(MacError::Malformed { header, expected })
}
