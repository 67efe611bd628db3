//! PEM files (RFC 7468).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{KeyError, der};
use crate::limits::PRIVATE_KEY_BYTES_MAX;
use crate::shown::shown;

/// Blocks that OpenSSL writes before the key, and that are not needed.
const IGNORED: [&str; 2] = ["EC PARAMETERS", "DSA PARAMETERS"];

/// The first key of a PEM file, as PKCS#8. Text before and after it is ignored, as RFC 7468 section 2 allows.
pub(super) fn to_pkcs8(pem: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if pem.len() > PRIVATE_KEY_BYTES_MAX {
        return Err(KeyError::TooLarge { bytes: pem.len() });
    }
    let mut rest = pem;
    loop {
        let (label, content, after) = block(rest)?;
        if IGNORED.contains(&label) {
            rest = after;
            continue;
        }
        return match label {
            "PRIVATE KEY" => decode(label, content),
            "RSA PRIVATE KEY" => Ok(der::rsa_pkcs8(&decode(label, content)?)),
            "EC PRIVATE KEY" => Ok(der::p256_pkcs8(&decode(label, content)?)),
            "ENCRYPTED PRIVATE KEY" => Err(KeyError::Encrypted { label: label.to_owned() }),
            other => Err(KeyError::NotAPrivateKey { label: shown(other) }),
        };
    }
}

/// Label, content, and the text after the block.
fn block(text: &str) -> Result<(&str, &str, &str), KeyError> {
    let (_, text) = text.split_once("-----BEGIN ").ok_or(KeyError::NoPemBlock)?;
    let (label, text) = text.split_once("-----").ok_or(KeyError::NoPemBlock)?;
    let (content, text) = text.split_once("-----END ").ok_or_else(|| damaged(label))?;
    let after = text.strip_prefix(label).and_then(|text| text.strip_prefix("-----")).ok_or_else(|| damaged(label))?;
    Ok((label, content, after))
}

fn decode(label: &str, content: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    // The older form of encryption has headers in the block (RFC 1421 section 4.6.1.1).
    if content.contains("Proc-Type:") {
        return Err(KeyError::Encrypted { label: label.to_owned() });
    }
    let mut text = Zeroizing::new(Vec::with_capacity(content.len()));
    text.extend(content.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    // Sized before, so that no reallocation leaves a copy behind.
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    let len = STANDARD.decode_slice(&text, &mut bytes).map_err(|_| damaged(label))?;
    bytes.truncate(len);
    Ok(bytes)
}

fn damaged(label: &str) -> KeyError {
    KeyError::DamagedPem { label: shown(label) }
}
