//! The protected header of a token (RFC 7515 section 4).

use setgate_domain::json::{JsonError, JsonLimits, Object, check_object};

use crate::algorithm::HeaderAlgorithm;
use crate::jws_error::JwsError;
use crate::limits::{HEADER_BYTES_MAX, JSON_DEPTH_MAX};
use crate::shown::shown;

/// The members of a header that are used. All others are ignored, among them the keys that a token brings along
/// (`jwk`, `jku`, `x5c`, `x5u`): a key is only trusted if it is in the issuer's JWKS (RFC 8725 section 3.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Algorithm of the signature.
    pub alg: HeaderAlgorithm,
    /// ID of the key, as in the issuer's JWKS.
    pub kid: Option<String>,
    /// Media type of the token. Compare it without regard to case and to the prefix `application/` (RFC 7515 section
    /// 4.1.9).
    pub typ: Option<String>,
}

impl Header {
    /// Parses the decoded header.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, JwsError> {
        let limits = JsonLimits { depth_max: JSON_DEPTH_MAX, bytes_max: HEADER_BYTES_MAX };
        let object = check_object(json, limits).map_err(|error| match error {
            JsonError::NotAnObject => JwsError::NotAnObject,
            error => JwsError::Header(error),
        })?;
        // Without support for an extension, a token that depends on it must be refused (RFC 7515 section 4.1.11).
        if object.get("crit").is_some() {
            return Err(JwsError::Critical);
        }
        // RFC 7797: the payload would not be base64url. It requires `crit`, but not every sender sets it.
        if object.get("b64").is_some_and(|value| value != "true") {
            return Err(JwsError::UnencodedPayload);
        }
        let alg = string(&object, "alg")?.ok_or(JwsError::NoAlgorithm)?;
        let alg = HeaderAlgorithm::parse(&alg).ok_or_else(|| refused(&alg))?;
        Ok(Self { alg, kid: string(&object, "kid")?, typ: string(&object, "typ")? })
    }
}

fn string(object: &Object<'_>, member: &'static str) -> Result<Option<String>, JwsError> {
    match (object.get(member), object.string(member)) {
        (None, _) => Ok(None),
        (Some(_), None) => Err(JwsError::NotAString { member }),
        (Some(_), text) => Ok(text),
    }
}

/// The error for an algorithm that is not supported.
fn refused(alg: &str) -> JwsError {
    // Exact names are case-sensitive. The comparison here only selects the message.
    if alg.eq_ignore_ascii_case("none") {
        JwsError::Unsigned
    } else if alg.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("HS")) {
        JwsError::Mac { alg: shown(alg) }
    } else {
        JwsError::UnsupportedAlgorithm { alg: shown(alg) }
    }
}
