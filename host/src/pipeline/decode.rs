//! A body that comes compressed becomes what was meant to be sent.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

/// How a body is coded (RFC 9110 section 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Identity,
    /// gzip (RFC 1952), in one member or several.
    Gzip,
}

/// Bytes that one byte may become. JSON of one kind a thousand times over comes to less; what comes to more was made to.
pub const RATIO_MAX: usize = 100;
/// Bytes that a body may become whatever its ratio: a short one that repeats itself is no attack.
const RATIO_FREE_BYTES: usize = 64 << 10;

/// Why a body cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodingFault {
    /// It is not what its coding says.
    #[error("the body is not gzip, as `content-encoding` says: {detail}")]
    Broken {
        /// The reader's words.
        detail: String,
    },
    /// It becomes too large.
    #[error("the body, {sent} bytes of gzip, becomes more than {limit} bytes: {}", reason(*.sent, *.limit))]
    TooLarge {
        /// Bytes as it was sent.
        sent: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

fn reason(sent: usize, limit: usize) -> String {
    if limit < sent.saturating_mul(RATIO_MAX).max(RATIO_FREE_BYTES) {
        "the limit of this host".to_owned()
    } else {
        format!("at most {RATIO_MAX} for each byte that is sent")
    }
}

/// Bytes that a body of `sent` bytes of gzip may become.
pub fn decoded_bytes_max(sent: usize, bytes_max: usize) -> usize {
    sent.saturating_mul(RATIO_MAX).max(RATIO_FREE_BYTES).min(bytes_max)
}

/// The body that was compressed; at most `bytes_max`, and no more than [`RATIO_MAX`] allows.
///
/// # Errors
/// The fault; no more than the limit was decoded then.
pub fn gunzip(sent: &[u8], bytes_max: usize) -> Result<Bytes, CodingFault> {
    let limit = decoded_bytes_max(sent.len(), bytes_max);
    let mut decoded = Vec::new();
    let mut reader = MultiGzDecoder::new(sent).take(limit as u64 + 1);
    reader.read_to_end(&mut decoded).map_err(|error| CodingFault::Broken { detail: error.to_string() })?;
    if decoded.len() > limit {
        return Err(CodingFault::TooLarge { sent: sent.len(), limit });
    }
    Ok(decoded.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_body_comes_back_within_its_limits() {
        let text = br#"{"event":"PostSignIn"}"#;
        assert_eq!(gunzip(&gzip(text), 100).unwrap(), text[..]);
        let two = [gzip(b"{\"a\":"), gzip(b"1}")].concat();
        assert_eq!(gunzip(&two, 100).unwrap(), b"{\"a\":1}"[..], "several members are one body");
        assert_eq!(gunzip(&gzip(&[b' '; 100]), 100).unwrap().len(), 100);
        let over = gunzip(&gzip(&[b' '; 101]), 100).unwrap_err();
        assert!(over.to_string().contains("more than 100 bytes: the limit of this host"), "{over}");
    }

    #[test]
    fn a_body_that_was_made_to_explode_does_not() {
        // Spaces compress a thousandfold.
        let bomb = gzip(&vec![b' '; 4 << 20]);
        let over = gunzip(&bomb, 64 << 20).unwrap_err();
        assert!(matches!(over, CodingFault::TooLarge { limit, .. } if limit == bomb.len() * RATIO_MAX), "{over}");
        assert!(over.to_string().contains("100 for each byte"), "{over}");
        assert_eq!(gunzip(&gzip(&vec![b' '; RATIO_FREE_BYTES]), 1 << 20).unwrap().len(), RATIO_FREE_BYTES);
    }

    #[test]
    fn what_is_not_gzip_is_said_to_be_none() {
        let whole = gzip(b"{}");
        let mut flipped = whole.clone();
        let last = flipped.len() - 6;
        flipped[last] ^= 1;
        for bad in [&b"{}"[..], b"", &whole[..whole.len() - 1], &flipped, &[&whole[..], b"x"].concat()] {
            assert!(matches!(gunzip(bad, 100), Err(CodingFault::Broken { .. })), "{bad:?}");
        }
    }
}
