//! Signed SETs, after their signature was verified: the checks of the claims, and the event.

use bytes::Bytes;
use setgate_base::crypto::sha256;
use setgate_domain::event::{Dedupe, NewEvent};
use setgate_domain::id::EventId;
use setgate_domain::json::{JsonError, JsonLimits, Object, canonical, check_object_and, quote};
use setgate_domain::set::SetToken;
use setgate_domain::source::{Compat, JwsProof, Source};
use setgate_domain::time::Timestamp;

use super::{identifier, plain_names, subject};
use crate::normalize::error::cut;
use crate::normalize::{NormalizeError, SIGNED_SET, detect_form, iss_sub, signed_dedupe_key, text_of};

/// How far `iat` may be ahead of the clock, in seconds.
pub const IAT_AHEAD_S_MAX: i64 = 300;

/// A signed SET whose signature was verified with a key of the source.
#[derive(Debug, Clone, Copy)]
pub struct SignedSet<'a> {
    /// The compact token, without surrounding white space.
    pub token: &'a Bytes,
    /// The decoded payload of the token.
    pub payload: &'a [u8],
    /// The time to which `iat` is compared.
    pub now: Timestamp,
}

/// Why the claims of a signed SET are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedSetError {
    /// The payload is not a JSON object.
    #[error("the payload of the token cannot be read: {0}")]
    Payload(#[from] JsonError),
    /// `iss` is not the issuer of the source.
    #[error("{0}")]
    Issuer(String),
    /// `aud` has none of the audiences of the source.
    #[error("{0}")]
    Audience(String),
    /// The claims are not a SET that the source accepts.
    #[error("{0}")]
    Claims(#[from] NormalizeError),
}

/// Turns a signed SET into an event. The checks have the order of RFC 8935 section 2.4: syntax, issuer, audience, other
/// claims.
///
/// # Errors
/// The first violated rule. Nothing is stored in that case.
pub fn normalize_signed(
    source: &Source,
    proof: &JwsProof,
    sent: SignedSet<'_>,
    accepted_at: Timestamp,
    id: EventId,
    limits: JsonLimits,
) -> Result<NewEvent, SignedSetError> {
    let text = text_of(source, sent.payload);
    let (claims, events) = check_object_and("events", &text, limits)?;
    check_issuer(&claims, proof)?;
    check_audience(&claims, proof)?;
    let digest = sha256(canonical(claims.text(), &["iat"]).as_bytes());
    detect_form::check_form(source, &claims)?;
    let set = match plain_names::names_to_uris(&claims, events.as_ref()).filter(|_| source.allow_plain_event_names) {
        Some(renamed) => {
            let limits = JsonLimits { bytes_max: usize::MAX, ..limits };
            let (claims, events) = check_object_and("events", renamed.as_bytes(), limits)?;
            of_claims(&claims, events.as_ref(), source.compat)?
        }
        None => of_claims(&claims, events.as_ref(), source.compat)?,
    };
    let ahead_s = set.issued_at - sent.now.as_millis() / 1000;
    if ahead_s > IAT_AHEAD_S_MAX {
        let why = format!(
            "`iat` is {ahead_s} s in the future, more than {IAT_AHEAD_S_MAX} s: compare the clocks of the sender and of \
             this host"
        );
        return Err(NormalizeError::BadClaim { claim: "iat".to_owned(), why }.into());
    }
    let subject = Object::parse(&set.text).ok().and_then(|claims| subject::of_claims(&claims));
    Ok(NewEvent {
        id,
        tenant: source.tenant.clone(),
        source: source.name.clone(),
        subject: subject.map(|subject| subject.as_str().to_owned()),
        original: sent.token.clone(),
        content_type: SIGNED_SET.to_owned(),
        accepted_at,
        dedupe: Dedupe {
            key: signed_dedupe_key(&source.tenant, &source.name, &set.issuer, &set.jti),
            body: digest,
            window_ms: None,
        },
        set,
        trace: None,
    })
}

fn check_issuer(claims: &Object<'_>, proof: &JwsProof) -> Result<(), SignedSetError> {
    let expected = &proof.issuer;
    match (claims.get("iss"), claims.string("iss")) {
        (_, Some(issuer)) if issuer == *expected => Ok(()),
        (_, Some(issuer)) => Err(SignedSetError::Issuer(format!(
            "`iss` is `{}`, and the issuer of this source is `{expected}`: they have to be equal in every character",
            cut(&issuer)
        ))),
        (None, None) => {
            Err(SignedSetError::Issuer(format!("`iss` is missing: the issuer of this source is `{expected}`")))
        }
        (Some(_), None) => Err(SignedSetError::Issuer("`iss` has to be a string (RFC 7519 section 4.1.1)".to_owned())),
    }
}

/// RFC 7519 section 4.1.3: `aud` is a string, or an array of strings.
fn check_audience(claims: &Object<'_>, proof: &JwsProof) -> Result<(), SignedSetError> {
    let refuse = |why: &str| Err(SignedSetError::Audience(why.to_owned()));
    let Some(text) = claims.get("aud") else {
        return refuse("`aud` is missing: it has to have one of the audiences of this source");
    };
    let audiences =
        serde_json::from_str::<Vec<String>>(text).or_else(|_| serde_json::from_str(text).map(|one| vec![one]));
    let Ok(audiences) = audiences else {
        return refuse("`aud` has to be a string or an array of strings (RFC 7519 section 4.1.3)");
    };
    if audiences.iter().any(|audience| proof.audience.contains(audience)) {
        return Ok(());
    }
    refuse("`aud` has none of the audiences of this source")
}

/// The SET with its smallest edits, within the rules of SSF 1.0 section 4.1 and the deviations that the source allows.
fn of_claims(claims: &Object<'_>, events: Option<&Object<'_>>, compat: Compat) -> Result<SetToken, NormalizeError> {
    let mut edits: Vec<(&str, Option<String>)> = Vec::new();
    for claim in ["sub", "exp"] {
        if claims.get(claim).is_none() {
            continue;
        }
        if !compat.allow_sub_and_exp {
            let why = format!(
                "`{claim}` is not allowed in a SET of SSF (SSF 1.0 sections 4.1.2 and 4.1.7): leave it out, or set the \
                 source's `compat.allow_sub_and_exp`"
            );
            return Err(NormalizeError::BadClaim { claim: claim.to_owned(), why });
        }
        edits.push((claim, None));
    }
    let is_number = |text: &&str| text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    if let Some(number) = claims.get("txn").filter(is_number) {
        if !compat.allow_numeric_txn {
            let why = "`txn` has to be a string (RFC 8417 section 2.2): send one, or set the source's \
                       `compat.allow_numeric_txn`";
            return Err(NormalizeError::BadClaim { claim: "txn".to_owned(), why: why.to_owned() });
        }
        edits.push(("txn", Some(quote(number))));
    }
    let mut sub_id = identifier::new_sub_id(claims, events, compat)?;
    if sub_id.is_none()
        && claims.get("sub_id").is_none()
        && let (Some(issuer), Some(sub)) = (claims.get("iss"), claims.string("sub"))
    {
        sub_id = Some(iss_sub(issuer, &sub));
    }
    edits.extend(sub_id.map(|sub_id| ("sub_id", Some(sub_id))));
    Ok(SetToken::with_edits(claims, events, &edits)?)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use setgate_domain::algorithm::Algorithm;
    use setgate_domain::event::{Event, EventSeq};
    use setgate_domain::source::{Form, KeyOrigin, Proof};

    use super::*;
    use crate::normalize::original_body;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_123);
    const URI: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
    const SET: &str = r#"{"iss":"https://idp.example","aud":["other","https://rp.example/"],"jti":"j-1","iat":1790000000,
        "txn":"8f2c","sub_id":{"format":"iss_sub","iss":"https://idp.example","sub":"u-17"},
        "events":{"urn:x:y":{"n":1.10}}}"#;

    fn source(compat: Compat) -> Source {
        let proof = JwsProof {
            issuer: "https://idp.example".to_owned(),
            keys: KeyOrigin::Jwks(r#"{"keys":[]}"#.to_owned()),
            algorithms: Algorithm::ALL.to_vec(),
            audience: vec!["https://rp.example/".to_owned()],
            authorization: None,
        };
        Source {
            tenant: "acme".parse().unwrap(),
            name: "idp".parse().unwrap(),
            form: Form::Set,
            proofs: vec![Proof::Jws(proof)],
            issuer: None,
            issuers_allowed: Vec::new(),
            websub_topics: Vec::new(),
            timestamp_tolerance_s: 300,
            allow_sha1: false,
            allow_plain_event_names: false,
            replace_lone_surrogates: false,
            compat,
            created_at: NOW,
        }
    }

    fn take_from(source: &Source, claims: &str) -> Result<NewEvent, SignedSetError> {
        let token = Bytes::from(format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims)));
        let sent = SignedSet { token: &token, payload: claims.as_bytes(), now: NOW };
        let proof = source.signed().unwrap();
        normalize_signed(source, proof, sent, NOW, EventId::new(NOW, 1), JsonLimits::default())
    }

    fn take(claims: &str) -> Result<NewEvent, SignedSetError> {
        take_from(&source(Compat::default()), claims)
    }

    fn with(edits: &[(&str, Option<&str>)]) -> String {
        let edits: Vec<_> = edits.iter().map(|(name, text)| (*name, text.map(str::to_owned))).collect();
        Object::parse(SET).unwrap().with(&edits)
    }

    fn original(event: NewEvent) -> String {
        let NewEvent { id, tenant, source, set, subject, original, content_type, accepted_at, trace, .. } = event;
        let claims = set.text.clone();
        let seq = EventSeq(1);
        let event = Event { seq, id, tenant, source, set, subject, original, content_type, accepted_at, trace };
        original_body(&event, &claims).unwrap()
    }

    #[test]
    fn claims_become_the_event_unchanged() {
        let event = take(SET).unwrap();
        assert_eq!(event.set.text, SET);
        assert_eq!((event.subject.as_deref(), event.content_type.as_str()), (Some("u-17"), "application/secevent+jwt"));
        assert!(event.original.starts_with(b"e30.") && event.original.ends_with(b".c2ln"), "the token itself is kept");
        assert_eq!(original(event), SET);
        assert_eq!(take(&with(&[("aud", Some("\"https://rp.example/\""))])).unwrap().set.jti, "j-1");
    }

    #[test]
    fn issuer_and_audience_come_before_other_claims() {
        let broken = ("jti", Some("7"));
        for issuer in [None, Some("7"), Some("\"https://idp.example/\"")] {
            let error = take(&with(&[("iss", issuer), ("aud", None), broken])).unwrap_err();
            assert!(matches!(error, SignedSetError::Issuer(_)), "{issuer:?}: {error}");
        }
        let slash = take(&with(&[("iss", Some("\"https://idp.example/\""))])).unwrap_err().to_string();
        assert!(slash.contains("`https://idp.example/`") && slash.contains("`https://idp.example`"), "{slash}");
        for audience in [None, Some("7"), Some("[7]"), Some("[]"), Some("\"https://rp.example\"")] {
            let error = take(&with(&[("aud", audience), broken])).unwrap_err();
            assert!(matches!(error, SignedSetError::Audience(_)), "{audience:?}: {error}");
        }
        assert!(matches!(take("[]"), Err(SignedSetError::Payload(JsonError::NotAnObject))));
        assert!(matches!(
            take(r#"{"iss":"a","iss":"b"}"#),
            Err(SignedSetError::Payload(JsonError::DuplicateKey { .. }))
        ));
    }

    #[test]
    fn claims_follow_the_standards() {
        for (edit, part) in [
            (("jti", None), "`jti` is missing"),
            (("iat", None), "`iat` is missing"),
            (("iat", Some("1790000000123")), "not a time in seconds"),
            (("iat", Some("\"1790000000\"")), "`iat` has to be a number"),
            (("iat", Some("1790000301")), "`iat` is 301 s in the future"),
            (("toe", Some("\"1\"")), "`toe` has to be a number"),
            (("events", None), "`events` is missing"),
            (("events", Some("{}")), "`events` is empty"),
            (("events", Some("[]")), "`events` has to be an object"),
            (("events", Some("{\"urn:x:y\":1}")), "has to be an object"),
            (("events", Some("{\"login\":{}}")), "not named by an absolute URI"),
            (("sub", Some("\"u\"")), "compat.allow_sub_and_exp"),
            (("exp", Some("1790000000")), "compat.allow_sub_and_exp"),
            (("txn", Some("7")), "compat.allow_numeric_txn"),
            (("sub_id", Some("{\"id\":\"1\"}")), "`sub_id` has to be an object with a string `format`"),
        ] {
            let error = take(&with(&[edit])).unwrap_err();
            assert!(matches!(error, SignedSetError::Claims(_)), "{edit:?}: {error}");
            assert!(error.to_string().contains(part), "{edit:?}: {error}");
        }
        for edit in
            [("iat", "1790000300.9"), ("iat", "1"), ("sub_id", r#"{"format":"x"}"#), ("more", "[null]"), ("toe", "1.5")]
        {
            take(&with(&[(edit.0, Some(edit.1))])).unwrap();
        }
        assert_eq!(take(&with(&[("sub_id", None)])).unwrap().subject, None);
    }

    #[test]
    fn deviations_need_their_switch() {
        let legacy = format!(
            r#"{{"iss":"https://idp.example","aud":"https://rp.example/","jti":"1","iat":1,"exp":2,"sub":"u-1","txn":9,"events":{{"{URI}":{{}}}}}}"#
        );
        let all = Compat { allow_sub_and_exp: true, allow_numeric_txn: true, ..Compat::default() };
        let event = take_from(&source(all), &legacy).unwrap();
        let sub_id = r#"{"format":"iss_sub","iss":"https://idp.example","sub":"u-1"}"#;
        let expected = legacy.replace(r#""exp":2,"sub":"u-1","txn":9,"#, "\"txn\":\"9\",");
        assert_eq!(event.set.text, format!(r#"{},"sub_id":{sub_id}}}"#, expected.strip_suffix('}').unwrap()));
        assert_eq!(event.subject.as_deref(), Some("u-1"));
        assert_eq!(original(event), legacy);
        for compat in [Compat { allow_sub_and_exp: false, ..all }, Compat { allow_numeric_txn: false, ..all }] {
            assert!(matches!(take_from(&source(compat), &legacy), Err(SignedSetError::Claims(_))), "{compat:?}");
        }
        // As Google sends it.
        let in_event = format!(
            r#"{{"iss":"https://idp.example","aud":"https://rp.example/","jti":"1","iat":1,"events":{{"{URI}":{{"subject":{{"subject_type":"iss-sub","iss":"https://idp.example","sub":"u-2"}}}}}}}}"#
        );
        let compat = Compat { allow_subject_in_event: true, ..Compat::default() };
        let event = take_from(&source(compat), &in_event).unwrap();
        let claims = Object::parse(&event.set.text).unwrap();
        assert_eq!(claims.get("sub_id"), Some(r#"{"iss":"https://idp.example","sub":"u-2","format":"iss_sub"}"#));
        assert_eq!(event.subject.as_deref(), Some("u-2"));
        let why = take(&in_event).unwrap_err().to_string();
        assert!(why.contains("compat.allow_subject_in_event"), "{why}");
    }

    #[test]
    fn duplicates_are_recognised_by_issuer_jti_and_claims() {
        let dedupe = |claims: &str| take(claims).unwrap().dedupe;
        let first = dedupe(SET);
        assert_eq!(first.window_ms, None);
        let again = r#"{"events":{"urn:x:y":{"n":1.10}},"sub_id":{"sub":"u-17","iss":"https:\/\/idp.example","format":"iss_sub"},
            "txn":"8f2c","iat":1790000100,"jti":"j-1","aud":["other","https://rp.example/"],"iss":"https://idp.example"}"#;
        assert_eq!(dedupe(again), first, "another iat, order and spelling");
        assert_eq!(dedupe(&with(&[("txn", Some("\"9\""))])).key, first.key);
        assert_ne!(dedupe(&with(&[("txn", Some("\"9\""))])).body, first.body);
        assert_ne!(dedupe(&with(&[("jti", Some("\"j-2\""))])).key, first.key);
        let mut other = source(Compat::default());
        let Proof::Jws(proof) = &mut other.proofs[0] else { panic!("it has a proof") };
        proof.issuer = "https://other.example".to_owned();
        let event = take_from(&other, &with(&[("iss", Some("\"https://other.example\""))])).unwrap();
        assert_ne!(event.dedupe.key, first.key, "the jti of another issuer");
    }
}
