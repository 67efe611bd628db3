//! A compact JWS, parsed but not verified.

use crate::base64url;
use crate::header::Header;
use crate::jws_error::JwsError;
use crate::limits::{HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX, SIGNATURE_BYTES_MAX};

/// A JSON Web Signature in compact form (RFC 7515 section 7.1): three parts in base64url, separated by dots. Nothing in
/// it may be trusted before [`Jws::verify`] succeeded, except `iss`, to find the issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jws<'t> {
    header: Header,
    payload: Vec<u8>,
    /// The first two parts and the dot between them, as sent: the signed bytes.
    pub(crate) signed: &'t [u8],
    pub(crate) signature: Vec<u8>,
}

impl<'t> Jws<'t> {
    /// Parses a token. White space around it, such as a final newline, is ignored.
    ///
    /// # Errors
    /// The first [`JwsError`].
    pub fn parse(token: &'t [u8]) -> Result<Self, JwsError> {
        let token = token.trim_ascii();
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            // Six at most are counted, because a token may consist of dots.
            return Err(match token.split(|byte| *byte == b'.').take(6).count() {
                5 => JwsError::Encrypted,
                parts => JwsError::Parts { parts },
            });
        };
        let signed = &token[..header.len() + 1 + payload.len()];
        Ok(Self {
            header: Header::parse(&decode("header", header, HEADER_BYTES_MAX)?)?,
            payload: decode("payload", payload, PAYLOAD_BYTES_MAX)?,
            signed,
            signature: decode("signature", signature, SIGNATURE_BYTES_MAX)?,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The decoded payload. Not trustworthy before [`Jws::verify`] succeeded.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The decoded payload, without a copy.
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }
}

fn decode(part: &'static str, text: &[u8], limit: usize) -> Result<Vec<u8>, JwsError> {
    if text.is_empty() {
        return Err(JwsError::Empty { part });
    }
    if text.len() > limit {
        return Err(JwsError::TooLarge { part, bytes: text.len(), limit });
    }
    base64url::decode(text).ok_or(JwsError::Encoding { part })
}
