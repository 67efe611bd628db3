//! Compression of an event's bytes.
//!
//! A product's message and the SET made from it are nearly the same text, because the SET contains the product's body
//! unchanged. Stored side by side they took a page of the file per event, written twice, to the WAL and to the file.
//! The original is therefore stored as an LZ4 block with the SET's text as its dictionary. The text is a block of its
//! own if it is large enough to benefit.

use std::borrow::Cow;

use bytes::Bytes;
use lz4_flex::block::{compress_into_with_dict, decompress_with_dict, get_maximum_output_size};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use crate::Error;

/// Bit of `event.compressed`: the SET's text is a block.
const TEXT: i64 = 1;
/// Bit of `event.compressed`: the original is a block, with the SET's text as the dictionary.
const ORIGINAL: i64 = 2;

/// Minimum size of a text to compress, in bytes: shorter ones gain next to nothing.
const TEXT_BYTES_MIN: usize = 512;
/// Maximum bytes of text and original together that are compressed on the async thread: a tenth of a millisecond.
const INLINE_BYTES_MAX: usize = 32 << 10;
/// Bytes of a block before its LZ4 data.
const HEAD_BYTES: usize = 8;
/// Maximum expansion of LZ4 (block format: a length continues in bytes of at most 255 each).
const EXPANSION_MAX: usize = 255;

/// Values of the columns `compressed`, `set_text` and `original` of an event.
pub(crate) struct CompressedEvent {
    /// See [`TEXT`] and [`ORIGINAL`].
    pub(crate) compressed: i64,
    /// `None` if stored uncompressed.
    text: Option<Vec<u8>>,
    /// `None` if stored uncompressed.
    original: Option<Vec<u8>>,
}

/// Value of a column: a block, or the plain bytes.
pub(crate) struct Column<'a>(ValueRef<'a>);

impl ToSql for Column<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0))
    }
}

impl CompressedEvent {
    /// Compresses an event's bytes as far as it is worthwhile. Large ones are compressed with `block_in_place`, so that
    /// no other task waits for the thread.
    pub(crate) fn new(text: &str, original: &[u8]) -> Self {
        if text.len() + original.len() > INLINE_BYTES_MAX {
            tokio::task::block_in_place(|| Self::compress_now(text, original))
        } else {
            Self::compress_now(text, original)
        }
    }

    /// Bytes of its blocks.
    pub(crate) fn bytes(&self) -> usize {
        self.text.as_ref().map_or(0, Vec::len) + self.original.as_ref().map_or(0, Vec::len)
    }

    fn compress_now(text: &str, original: &[u8]) -> Self {
        let original = if original == text.as_bytes() { None } else { compress(original, text) };
        let text = if text.len() < TEXT_BYTES_MIN { None } else { compress(text.as_bytes(), "") };
        let compressed = if text.is_some() { TEXT } else { 0 } | if original.is_some() { ORIGINAL } else { 0 };
        Self { compressed, text, original }
    }

    /// Value of the column `set_text`.
    pub(crate) fn text<'a>(&'a self, plain: &'a str) -> Column<'a> {
        Column(self.text.as_deref().map_or(ValueRef::Text(plain.as_bytes()), ValueRef::Blob))
    }

    /// Value of the column `original`: null if the bytes are identical to the SET.
    pub(crate) fn original<'a>(&'a self, plain: &'a [u8], text: &str) -> Column<'a> {
        Column(match &self.original {
            Some(block) => ValueRef::Blob(block),
            None if plain == text.as_bytes() => ValueRef::Null,
            None => ValueRef::Blob(plain),
        })
    }
}

/// Compresses bytes into a block: their length and their CRC-32 (4 bytes each, little-endian), then an LZ4 block.
/// `None` if that saves less than an eighth. Takes microseconds per kilobyte.
pub(crate) fn compress(plain: &[u8], dictionary: &str) -> Option<Vec<u8>> {
    let length = u32::try_from(plain.len()).ok()?;
    let mut block = vec![0; HEAD_BYTES + get_maximum_output_size(plain.len())];
    let (head, room) = block.split_at_mut(HEAD_BYTES);
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&crc32fast::hash(plain).to_le_bytes());
    let compressed = compress_into_with_dict(plain, room, dictionary.as_bytes()).ok()?;
    block.truncate(HEAD_BYTES + compressed);
    (block.len() <= plain.len() - plain.len() / 8).then(|| {
        // The request queue is accounted by length, so excess capacity would go uncounted.
        block.shrink_to_fit();
        block
    })
}

/// The SET's text from the columns `compressed` and `set_text`.
pub(crate) fn text_of(compressed: i64, column: ValueRef<'_>) -> Result<String, Error> {
    let plain = if compressed & TEXT != 0 {
        Cow::from(decompress(column.as_blob().map_err(damaged)?, "")?)
    } else {
        Cow::from(column.as_bytes().map_err(damaged)?)
    };
    String::from_utf8(plain.into_owned()).map_err(damaged)
}

/// The original bytes from the columns `compressed` and `original` and the SET's text.
pub(crate) fn original_of(compressed: i64, column: ValueRef<'_>, text: &str) -> Result<Bytes, Error> {
    let Some(column) = column.as_blob_or_null().map_err(damaged)? else {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    };
    if compressed & ORIGINAL == 0 {
        return Ok(Bytes::copy_from_slice(column));
    }
    decompress(column, text).map(Bytes::from)
}

/// Decompresses a block. A changed byte could decompress to other, plausible text, which the checksum detects.
pub(crate) fn decompress(block: &[u8], dictionary: &str) -> Result<Vec<u8>, Error> {
    let head = block.split_first_chunk().and_then(|(length, rest)| Some((length, rest.split_first_chunk()?)));
    let Some((length, (sum, rest))) = head else { return Err(damaged("a block is truncated")) };
    let length = u32::from_le_bytes(*length) as usize;
    // The length determines the allocation, so it must be plausible.
    if length > rest.len().saturating_mul(EXPANSION_MAX) {
        return Err(damaged(format!("a block of {} bytes claims to contain {length}", rest.len())));
    }
    let plain = decompress_with_dict(rest, length, dictionary.as_bytes()).map_err(damaged)?;
    if plain.len() == length && crc32fast::hash(&plain) == u32::from_le_bytes(*sum) {
        Ok(plain)
    } else {
        Err(damaged("the checksum of a block does not match"))
    }
}

fn damaged(why: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("compressed data cannot be decoded: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::noise;

    fn column<'a>(column: &'a Column<'_>) -> ValueRef<'a> {
        column.0
    }

    /// Compresses and decompresses; returns the bytes stored.
    fn round_trip(text: &str, original: &[u8]) -> usize {
        let compressed = CompressedEvent::compress_now(text, original);
        let (of_text, of_original) = (compressed.text(text), compressed.original(original, text));
        assert_eq!(text_of(compressed.compressed, column(&of_text)).unwrap(), text);
        assert_eq!(original_of(compressed.compressed, column(&of_original), text).unwrap(), original);
        let bytes = |column: ValueRef<'_>| column.as_bytes_or_null().unwrap().map_or(0, <[u8]>::len);
        bytes(column(&of_text)) + bytes(column(&of_original))
    }

    /// A login event of about a kilobyte, and the SET made from it.
    fn login() -> (String, String) {
        let claims: Vec<String> =
            (0..12).map(|n| format!(r#"{{"uri":"http://wso2.org/claims/{n}","value":"{n}"}}"#)).collect();
        let body =
            format!(r#""events":{{"https://e/login":{{"user":{{"id":"u1","claims":[{}]}}}}}}"#, claims.join(","));
        let came = format!(r#"{{"iss":"https://i","jti":"1","iat":1789977600000,{body}}}"#);
        let set = format!(
            r#"{{"iss":"https://i","jti":"1","iat":1789977600,{body},"sub_id":{{"format":"opaque","id":"u1"}}}}"#
        );
        (set, came)
    }

    #[test]
    fn original_compresses_against_set() {
        let (set, came) = login();
        let alone = round_trip(&set, set.as_bytes());
        assert!(alone < set.len() / 2, "{alone} of {}", set.len());
        let beside = round_trip(&set, came.as_bytes()) - alone;
        assert!(beside < 40, "{beside} of {}", came.len());
    }

    #[test]
    fn small_or_random_bytes_are_not_compressed() {
        let compressed = CompressedEvent::new(r#"{"jti":"1"}"#, b"original 1");
        assert_eq!(compressed.compressed, 0);
        let noise = noise(600, 1);
        assert_eq!(CompressedEvent::new("{}", &noise).compressed, 0);
        for (text, original) in [("", &b""[..]), ("{}", b""), ("{}", b"{}"), ("", b"x"), ("{}", &noise)] {
            round_trip(text, original);
        }
    }

    /// The format on disk must stay readable.
    #[test]
    fn block_format_is_stable() {
        let block = [&5_u32.to_le_bytes()[..], &0x3610_a686_u32.to_le_bytes(), b"\x50hello"].concat();
        assert_eq!(decompress(&block, "").unwrap(), b"hello");
        // Five literals, then a match of nine bytes at distance 15, the start of the dictionary.
        let sum = crc32fast::hash(b"hellodictionar").to_le_bytes();
        let block = [&14_u32.to_le_bytes()[..], &sum, b"\x55hello\x0f\x00\x00"].concat();
        assert_eq!(decompress(&block, "dictionary").unwrap(), b"hellodictionar");
    }

    #[test]
    fn damaged_block_is_refused() {
        let (set, came) = login();
        let compressed = CompressedEvent::new(&set, came.as_bytes());
        let of_text = compressed.text(&set);
        let ValueRef::Blob(block) = column(&of_text) else { panic!("it is compressed") };
        for at in 0..block.len() {
            let mut damaged = block.to_vec();
            damaged[at] ^= 0x80;
            assert!(text_of(TEXT, ValueRef::Blob(&damaged)).is_err(), "byte {at} changed");
            assert!(text_of(TEXT, ValueRef::Blob(&block[..at])).is_err(), "cut at {at}");
        }
        let huge = [&u32::MAX.to_le_bytes()[..], &block[4..]].concat();
        assert!(matches!(text_of(TEXT, ValueRef::Blob(&huge)), Err(Error::Corrupt { .. })));
        assert!(text_of(TEXT, ValueRef::Text(b"{}")).is_err() && text_of(0, ValueRef::Null).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_round_trip(
            parts in prop::collection::vec("[ -~]{0,60}", 0..40),
            picked in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
            noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let text = parts.concat();
            let mut original = noise;
            for index in picked {
                if let Some(part) = (!parts.is_empty()).then(|| index.get(&parts)) {
                    original.extend_from_slice(part.as_bytes());
                }
            }
            round_trip(&text, &original);
            // Longer than the LZ4 window.
            let (text, original) = (text.repeat(40), original.repeat(40));
            let compressed = CompressedEvent::compress_now(&text, &original);
            prop_assert_eq!(text_of(compressed.compressed, column(&compressed.text(&text))).unwrap(), text.as_str());
            let of_original = compressed.original(&original, &text);
            prop_assert_eq!(original_of(compressed.compressed, column(&of_original), &text).unwrap(), original);
        }
    }
}
