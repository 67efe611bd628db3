//! Issuer keys in requests and responses.

use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use setgate_domain::algorithm::Algorithm;
use setgate_domain::id::IssuerKeyId;
use setgate_domain::issuer_key::{IssuerKey, KeyState};
use setgate_domain::secret::Secret;
use setgate_domain::time::Timestamp;
use setgate_ledger::{TenantView, Versioned};
use zeroize::Zeroize as _;

use super::keys_of;
use super::making::Wanted;
use crate::control::Error;

/// A request for an issuer key. Without `pem` and `jwk` a key is generated.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewIssuerKey {
    /// The algorithm that the key signs with. If absent: the `alg` of `jwk`, or RS256 for a key to generate. Required
    /// with `pem`.
    pub algorithm: Option<Algorithm>,
    /// A private key to import: PEM of PKCS#8, PKCS#1 or SEC1.
    pub pem: Option<Secret>,
    /// A private key to import, as a JWK.
    pub jwk: Option<PrivateJwk>,
}

impl NewIssuerKey {
    pub(super) fn wanted(self) -> Result<Wanted, Error> {
        match self {
            Self { pem: Some(_), jwk: Some(_), .. } => {
                Err(Error::invalid("jwk", "give one key to import: `pem` or `jwk`"))
            }
            Self { algorithm: Some(algorithm), pem: Some(pem), .. } => Ok(Wanted::Pem(algorithm, pem)),
            Self { pem: Some(_), .. } => {
                let why =
                    "a PEM does not name the algorithm that its key signs with: give RS256, PS256, ES256 or EdDSA";
                Err(Error::invalid("algorithm", why))
            }
            Self { algorithm, jwk: Some(jwk), .. } => Ok(Wanted::Jwk(algorithm, jwk)),
            Self { algorithm, .. } => Ok(Wanted::Generated(algorithm.unwrap_or(Algorithm::Rs256))),
        }
    }
}

/// A JWK with the private members, as JSON text.
pub struct PrivateJwk(pub(super) Secret);

impl<'de> Deserialize<'de> for PrivateJwk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Map::<String, Value>::deserialize(deserializer)?;
        let text = serde_json::to_string(&members).map_err(serde::de::Error::custom);
        for member in members.values_mut() {
            if let Value::String(text) = member {
                text.zeroize();
            }
        }
        text.map(|text| Self(Secret::new(text)))
    }
}

impl fmt::Debug for PrivateJwk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateJwk(..)")
    }
}

impl JsonSchema for PrivateJwk {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PrivateJwk".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "writeOnly": true,
            "description": "A private key (RFC 7517) in the clear. It is stored encrypted and never shown.",
        })
    }
}

/// An issuer key as returned by the API, without its private half.
#[derive(Debug, Serialize, JsonSchema)]
pub struct IssuerKeyView {
    /// The version, for `If-Match`.
    #[serde(skip)]
    pub version: u64,
    /// The id in the JWKS and in the header of each SET: the thumbprint of the public key (RFC 7638).
    pub kid: IssuerKeyId,
    /// The algorithm that it signs with.
    pub algorithm: Algorithm,
    /// Whether it signs. In each state it is in the JWKS.
    pub state: KeyState,
    /// The issuer that it signs for.
    pub issuer: String,
    /// Time of its creation or import.
    pub created_at: Timestamp,
    /// Time from which it signs, or signed.
    pub signs_from: Timestamp,
    /// Time from which another key of its algorithm signs. Absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Timestamp>,
    /// The public key, as in the JWKS.
    pub public_jwk: Map<String, Value>,
}

impl IssuerKeyView {
    pub(super) fn of(view: &TenantView, key: &Arc<Versioned<IssuerKey>>, now: Timestamp) -> Self {
        let Versioned { version, value, .. } = &**key;
        Self {
            version: *version,
            kid: value.kid.clone(),
            algorithm: value.algorithm,
            state: value.state(keys_of(view), now),
            issuer: view.tenant.value.issuer.clone().unwrap_or_default(),
            created_at: value.created_at,
            signs_from: value.signs_from,
            retired_at: value.retired_at(keys_of(view)),
            public_jwk: serde_json::from_str(&value.public_jwk).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(body: &str) -> Result<Wanted, Error> {
        serde_json::from_str::<NewIssuerKey>(body).unwrap().wanted()
    }

    #[test]
    fn request_names_one_key() {
        assert!(matches!(wanted("{}"), Ok(Wanted::Generated(Algorithm::Rs256))));
        assert!(matches!(wanted(r#"{"algorithm":"EdDSA"}"#), Ok(Wanted::Generated(Algorithm::EdDsa))));
        let pem = wanted(r#"{"algorithm":"ES256","pem":"x"}"#);
        assert!(matches!(pem, Ok(Wanted::Pem(Algorithm::Es256, pem)) if pem.expose() == "x"));
        let jwk = wanted(r#"{"jwk":{"kty":"OKP","d":"hush"}}"#);
        assert!(matches!(jwk, Ok(Wanted::Jwk(None, jwk)) if jwk.0.expose() == r#"{"kty":"OKP","d":"hush"}"#));
        assert!(matches!(wanted(r#"{"pem":"x"}"#), Err(Error::Invalid { field: "algorithm", .. })));
        assert!(matches!(wanted(r#"{"pem":"x","jwk":{}}"#), Err(Error::Invalid { field: "jwk", .. })));
        for bad in [r#"{"algorithm":"none"}"#, r#"{"jwk":"{}"}"#, r#"{"private":"x"}"#] {
            assert!(serde_json::from_str::<NewIssuerKey>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn private_keys_are_not_printed() {
        let new: NewIssuerKey = serde_json::from_str(r#"{"pem":"hush","jwk":{"d":"hush"}}"#).unwrap();
        assert!(!format!("{new:?}").contains("hush"), "{new:?}");
    }
}
