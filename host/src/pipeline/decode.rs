//! Decompresses request bodies.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

/// Content coding of a body (RFC 9110 section 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Not compressed.
    Identity,
    /// gzip (RFC 1952), with one or more members.
    Gzip,
}

/// Highest accepted expansion ratio. Even a thousand repetitions of similar JSON stay below it, so anything above is
/// treated as a decompression bomb.
pub const RATIO_MAX: usize = 100;
/// Size in bytes that a body may reach regardless of its ratio: a short repetitive body is no attack.
const RATIO_FREE_BYTES: usize = 64 << 10;

/// Why a body cannot be decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodingFault {
    /// The body is not valid for its declared coding.
    #[error("the body is not gzip, as `content-encoding` says: {detail}")]
    Broken {
        /// The decoder's error message.
        detail: String,
    },
    /// The decompressed body would exceed its limit.
    #[error("the body, {sent} bytes of gzip, becomes more than {limit} bytes: {}", reason(*.sent, *.limit))]
    TooLarge {
        /// Compressed size in bytes.
        sent: usize,
        /// Limit for the decompressed size in bytes.
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

/// Limit in bytes for the decompressed size of a gzip body of `sent` bytes.
pub fn decoded_bytes_max(sent: usize, bytes_max: usize) -> usize {
    sent.saturating_mul(RATIO_MAX).max(RATIO_FREE_BYTES).min(bytes_max)
}

/// Decompresses a body, up to `bytes_max` bytes and up to the expansion that [`RATIO_MAX`] allows.
///
/// # Errors
/// If the body is not gzip, or if it is too large. At most one byte beyond the limit is decompressed.
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
        // Spaces compress about a thousandfold.
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
