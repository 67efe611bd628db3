//! Issues a SET anew: the same event under the tenant's own issuer.

use super::SetToken;
use crate::json::{JsonError, Object, quote, write_object};

/// The claims that the new SET gets from its issuer.
#[derive(Debug, Clone, Copy)]
pub struct Reissue<'a> {
    /// `iss`.
    pub issuer: &'a str,
    /// `aud`. At least one value.
    pub audience: &'a [String],
    /// `jti`.
    pub jti: &'a str,
    /// `iat`, in seconds since the epoch.
    pub issued_at: i64,
    /// `txn` if the event has none. SETs with the same cause share it (RFC 8417 section 2.2).
    pub transaction: &'a str,
}

/// Claims that name the issuer, the audience, the validity or the subject of the token in the way of a JWT. A SET of
/// ours has its own instead, and `sub_id` in place of `sub`, so that it cannot be confused with an access token or an
/// ID token (SSF 1.0 sections 4.1.2 and 4.1.7, RFC 8417 section 4.6).
const REPLACED: [&str; 9] = ["iss", "aud", "jti", "iat", "txn", "sub", "exp", "nbf", "sub_id"];

/// The claims of the new SET as JSON text. All claims that the issuer does not set keep their bytes and their order.
///
/// `sub_id` is kept. If there is none but a `sub`, it becomes `sub_id` with the format `iss_sub` and the first issuer,
/// because a `sub` is unique only for its issuer (RFC 7519 section 4.1.2).
///
/// # Errors
/// If the text is not a JSON object, which cannot happen for the text of a [`SetToken`].
pub fn reissue(set: &SetToken, claims: &str, new: Reissue<'_>) -> Result<String, JsonError> {
    let claims = Object::parse(claims)?;
    let (iss, jti, iat) = (quote(new.issuer), quote(new.jti), new.issued_at.to_string());
    let aud = match new.audience {
        [one] => quote(one),
        several => format!("[{}]", several.iter().map(|value| quote(value)).collect::<Vec<_>>().join(",")),
    };
    let txn = claims.get("txn").map_or_else(|| quote(new.transaction), str::to_owned);
    let derived = || {
        let sub = claims.get("sub")?;
        Some(write_object(&[("format", "\"iss_sub\""), ("iss", &quote(&set.issuer)), ("sub", sub)]))
    };
    let sub_id = claims.get("sub_id").map(str::to_owned).or_else(derived);
    let mut members = vec![("iss", iss.as_str()), ("aud", &aud), ("jti", &jti), ("iat", &iat), ("txn", &txn)];
    members.extend(sub_id.as_deref().map(|sub_id| ("sub_id", sub_id)));
    members.extend(claims.iter().filter(|(name, _)| !REPLACED.contains(name)));
    Ok(write_object(&members))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::JsonLimits;

    const NEW: Reissue<'_> = Reissue {
        issuer: "https://edge.example/t/acme",
        audience: &[],
        jti: "dlv_1",
        issued_at: 1_700_000_000,
        transaction: "evt_1",
    };

    fn reissued(text: &str, audience: &[&str]) -> String {
        let set = SetToken::parse(text.to_owned(), JsonLimits::default()).unwrap();
        let audience: Vec<String> = audience.iter().map(|value| (*value).to_owned()).collect();
        let text = reissue(&set, &set.text, Reissue { audience: &audience, ..NEW }).unwrap();
        SetToken::parse(text, JsonLimits::default()).unwrap().text
    }

    #[test]
    fn claims_of_the_token_are_those_of_the_new_issuer() {
        let text = r#"{"iss":"https://idp.example","iat":1,"jti":"a","aud":["x","y"],"exp":9,"nbf":8,"sub":"u-17","toe":1.50,
            "events":{"https://e.example/t":{"n":1.10}},"custom":[1, 2]}"#;
        let expected = concat!(
            r#"{"iss":"https://edge.example/t/acme","aud":"rp","jti":"dlv_1","iat":1700000000,"txn":"evt_1","#,
            r#""sub_id":{"format":"iss_sub","iss":"https://idp.example","sub":"u-17"},"toe":1.50,"#,
            r#""events":{"https://e.example/t":{"n":1.10}},"custom":[1, 2]}"#
        );
        assert_eq!(reissued(text, &["rp"]), expected);
    }

    #[test]
    fn transaction_and_subject_are_kept() {
        let text = r#"{"iss":"i","iat":1,"jti":"a","txn":"8f2c","sub":"ignored","sub_id":{"format":"email","email":"a@b.example"},"events":{"https://e.example/t":{}}}"#;
        let expected = concat!(
            r#"{"iss":"https://edge.example/t/acme","aud":["one","two"],"jti":"dlv_1","iat":1700000000,"txn":"8f2c","#,
            r#""sub_id":{"format":"email","email":"a@b.example"},"events":{"https://e.example/t":{}}}"#
        );
        assert_eq!(reissued(text, &["one", "two"]), expected);
    }

    #[test]
    fn event_without_subject_has_none() {
        let text = r#"{"iss":"i","iat":1,"jti":"a","events":{"https://e.example/t":{}}}"#;
        assert!(!reissued(text, &["one"]).contains("sub"));
    }
}
