//! The proof of signed SETs in requests and responses.

use http::HeaderValue;
use serde_json::{Map, Value};
use setgate_base::crypto::MasterKey;
use setgate_domain::algorithm::Algorithm;
use setgate_domain::endpoint::Destination;
use setgate_domain::secret::{REDACTED, Sealed, SecretInput};
use setgate_domain::source::{JwsProof, KeyOrigin};
use setgate_egress::Egress;
use setgate_jose::{JwkSet, SkipReason};

use super::{AUDIENCES_MAX, ProofView, SECRET_BYTES_MIN};
use crate::control::{Error, TEXT_CHARS_MAX};

/// Limit for the value of an `Authorization` header in bytes.
const AUTHORIZATION_BYTES_MAX: usize = 4 << 10;
/// Limit for a JWKS in a source's document, in bytes. A document is in memory as long as the source exists.
const INLINE_JWKS_BYTES_MAX: usize = 64 << 10;

/// The proof, with its lists checked.
pub(super) fn take(
    issuer: String,
    keys: KeyOrigin,
    algorithms: Vec<Algorithm>,
    audience: Vec<String>,
    authorization: Option<Sealed>,
) -> Result<JwsProof, Error> {
    let is_text = |text: &String| (1..=TEXT_CHARS_MAX).contains(&text.chars().count());
    if !is_text(&issuer) {
        return Err(Error::invalid(
            "proofs/issuer",
            format!("1 to {TEXT_CHARS_MAX} characters: the `iss` of the SETs"),
        ));
    }
    if algorithms.is_empty() || (1..algorithms.len()).any(|at| algorithms[..at].contains(&algorithms[at])) {
        return Err(Error::invalid("proofs/algorithms", "give each accepted algorithm once, or leave the member out"));
    }
    if !(1..=AUDIENCES_MAX).contains(&audience.len()) || !audience.iter().all(is_text) {
        let why = format!(
            "give 1 to {AUDIENCES_MAX} audiences of 1 to {TEXT_CHARS_MAX} characters: a SET for somebody else must not be \
             accepted"
        );
        return Err(Error::invalid("proofs/audience", why));
    }
    Ok(JwsProof { issuer, keys, algorithms, audience, authorization })
}

/// Checks the origin of the keys.
pub(super) fn take_keys(
    egress: &Egress,
    url: Option<String>,
    jwks: Option<Map<String, Value>>,
) -> Result<KeyOrigin, Error> {
    match (url, jwks) {
        (Some(url), None) => take_url(egress, &url),
        (None, Some(jwks)) => take_jwks(jwks),
        (None, None) => Err(Error::invalid("proofs/jwks_url", "give the URL of the issuer's JWKS, or `jwks`")),
        (Some(_), Some(_)) => Err(Error::invalid("proofs/jwks", "give either `jwks_url` or `jwks`")),
    }
}

fn take_url(egress: &Egress, url: &str) -> Result<KeyOrigin, Error> {
    let invalid = |why: String| Err(Error::invalid("proofs/jwks_url", why));
    if url.chars().count() > TEXT_CHARS_MAX {
        return invalid(format!("at most {TEXT_CHARS_MAX} characters"));
    }
    let destination = match Destination::parse(url) {
        Ok(destination) => destination,
        Err(why) => return invalid(why.to_string()),
    };
    if !destination.origin().https && !egress.allows_http() {
        let why = "this host fetches https:// only; the operator can open http:// with `egress.allow_http`";
        return invalid(why.to_owned());
    }
    Ok(KeyOrigin::JwksUrl(destination.url().to_string()))
}

fn take_jwks(jwks: Map<String, Value>) -> Result<KeyOrigin, Error> {
    let invalid = |why: String| Err(Error::invalid("proofs/jwks", why));
    let text = Value::Object(jwks).to_string();
    if text.len() > INLINE_JWKS_BYTES_MAX {
        return invalid(format!("it has {} bytes: {INLINE_JWKS_BYTES_MAX} are allowed", text.len()));
    }
    let set = match JwkSet::parse(text.as_bytes()) {
        Ok(set) => set,
        Err(why) => return invalid(why.to_string()),
    };
    let private = set.skipped().iter().find(|key| key.reason == SkipReason::Private);
    let unusable = || set.skipped().first().filter(|_| set.keys().is_empty());
    match private.or_else(unusable) {
        Some(key) => {
            let kid = key.kid.as_ref().map_or_else(|| "without `kid`".to_owned(), |kid| format!("`{kid}`"));
            invalid(format!("the key {kid} cannot be used: {}", key.reason))
        }
        None if set.keys().is_empty() => invalid("it has no key".to_owned()),
        None => Ok(KeyOrigin::Jwks(text)),
    }
}

/// The value that the `Authorization` header must have.
pub(super) fn take_authorization(
    master: &MasterKey,
    context: &str,
    given: Option<Option<SecretInput>>,
    stored: Option<&Sealed>,
) -> Result<Option<Sealed>, Error> {
    let invalid = |why: String| Err(Error::invalid("proofs/authorization", why));
    let value = match given {
        None => return Ok(stored.cloned()),
        Some(None) => return Ok(None),
        Some(Some(SecretInput::Stored)) => match stored {
            Some(stored) => return Ok(Some(stored.clone())),
            None => return invalid(format!("no value is stored, so `{REDACTED}` keeps nothing: give one")),
        },
        Some(Some(SecretInput::New(value))) => value,
    };
    let text = value.expose();
    if let Err(why) = setgate_dialects::check_pasted_text(text) {
        return invalid(why);
    }
    if !(SECRET_BYTES_MIN..=AUTHORIZATION_BYTES_MAX).contains(&text.len()) {
        return invalid(format!("it has to have {SECRET_BYTES_MIN} to {AUTHORIZATION_BYTES_MAX} bytes"));
    }
    if !text.is_ascii() || HeaderValue::from_str(text).is_err() {
        return invalid("it cannot be the value of a header: use printable ASCII".to_owned());
    }
    Ok(Some(master.seal(context, &value)))
}

/// The view of the proof, without its secret.
pub(super) fn show(proof: &JwsProof) -> ProofView {
    let (jwks_url, jwks) = match &proof.keys {
        KeyOrigin::JwksUrl(url) => (Some(url.clone()), None),
        KeyOrigin::Jwks(text) => (None, serde_json::from_str(text).ok()),
    };
    ProofView::Jws {
        issuer: proof.issuer.clone(),
        jwks_url,
        jwks,
        algorithms: proof.algorithms.clone(),
        audience: proof.audience.clone(),
        authorization: proof.authorization.as_ref().map(|_| REDACTED),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn jwks(value: Value) -> Result<KeyOrigin, String> {
        let Value::Object(jwks) = value else { panic!("an object") };
        take_jwks(jwks).map_err(|error| error.to_string())
    }

    #[test]
    fn inline_jwks_has_only_usable_public_keys() {
        // RFC 8037 appendix A.2.
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "a"});
        let other = json!({"kty": "oct", "k": "AA"});
        assert!(jwks(json!({"keys": [key, other]})).is_ok(), "others are skipped");
        let private = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "d": x, "kid": "secret"});
        for (given, part) in [
            (json!({"keys": [key, private]}), "`secret` cannot be used: it includes its private half"),
            (json!({"keys": [other]}), "without `kid` cannot be used"),
            (json!({"keys": []}), "it has no key"),
            (json!({"key": []}), "no array `keys`"),
        ] {
            let why = jwks(given.clone()).unwrap_err();
            assert!(why.contains(part), "{given}: {why}");
        }
    }

    #[test]
    fn lists_are_not_empty_and_have_no_repetitions() {
        let keys = || KeyOrigin::JwksUrl("https://idp.example/jwks".to_owned());
        let take = |issuer: &str, algorithms: &[Algorithm], audience: &[&str]| {
            let audience = audience.iter().map(|&audience| audience.to_owned()).collect();
            take(issuer.to_owned(), keys(), algorithms.to_vec(), audience, None).map_err(|error| error.to_string())
        };
        let (rs, es) = (Algorithm::Rs256, Algorithm::Es256);
        assert!(take("i", &[rs, es], &["a"]).is_ok());
        for (issuer, algorithms, audience, field) in [
            ("", &[rs][..], &["a"][..], "proofs/issuer"),
            ("i", &[], &["a"], "proofs/algorithms"),
            ("i", &[rs, rs], &["a"], "proofs/algorithms"),
            ("i", &[rs], &[], "proofs/audience"),
            ("i", &[rs], &[""], "proofs/audience"),
            ("i", &[rs], &["a"; AUDIENCES_MAX + 1], "proofs/audience"),
        ] {
            let why = take(issuer, algorithms, audience).unwrap_err();
            assert!(why.contains(field), "{why}");
        }
    }
}
