//! Tests of secrets, and of rules that apply to every scheme.

use super::*;
use crate::dialect::DIALECTS;
use crate::testing::{GITHUB_BODY, GITHUB_MAC, GITHUB_SECRET, body_mac, headers, rules, secrets, signed};

/// The secret of the Standard Webhooks vector.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn empty_secret_is_rejected() {
    // An attacker would send an HMAC with the empty key.
    let forged = format!("sha256={}", hex::encode(hmac_sha256(b"", &[GITHUB_BODY])));
    assert_eq!(body_mac(MacHeader::Hub, &[("x-hub-signature", &forged)], &[""]), Err(MacError::NoSecret));
}

#[test]
fn repeated_signature_headers_are_merged() {
    let now = Timestamp::from_millis(0);
    for dialect in
        DIALECTS.iter().filter(|dialect| dialect.scheme.as_ref().is_some_and(|s| s.notation == Notation::Text))
    {
        let header = dialect.scheme.as_ref().unwrap().proof;
        let [_, (name, right)] = signed(dialect, GITHUB_SECRET, "dlv_1").try_into().unwrap();
        let wrong = &right.replace(GITHUB_MAC, &"0".repeat(64));
        let (right, wrong) = (right.as_str(), wrong.as_str());
        let mut lines = headers(&[(name, wrong)]);
        lines.append(name, right.parse().unwrap());
        verify_mac(rules(header), &lines, GITHUB_BODY, &secrets(&[GITHUB_SECRET]), now).unwrap();
        body_mac(header, &[(name, &format!(" {wrong} , {right} "))], &[GITHUB_SECRET]).unwrap();
        let refused = body_mac(header, &[(name, &format!("{wrong},{wrong}"))], &[GITHUB_SECRET]);
        assert_eq!(refused, Err(MacError::NoMatch));
        // A valid signature beyond the limit is not checked.
        let many = format!("{} {right}", vec![wrong; ENTRIES_MAX].join(" "));
        assert_eq!(body_mac(header, &[(name, &many)], &[GITHUB_SECRET]), Err(MacError::NoMatch));
    }
}

#[test]
fn secret_encoding_is_never_guessed() {
    // Text that is also valid base64, and its bytes in base64.
    let (text, base64) = ("c2VjcmV0LXNlY3JldA", "YzJWamNtVjBMWE5sWTNKbGRB");
    let mac = |key: &[u8]| format!("sha256={}", hex::encode(hmac_sha256(key, &[GITHUB_BODY])));
    let hub = |encoding, secret: &str, signed_under: &[u8]| {
        let rules = MacOptions { encoding, ..rules(MacHeader::Hub) };
        let given = headers(&[("x-hub-signature", &mac(signed_under))]);
        verify_mac(rules, &given, GITHUB_BODY, &secrets(&[secret]), Timestamp::from_millis(0)).is_ok()
    };
    assert!(hub(Some(KeyEncoding::Text), text, text.as_bytes()));
    assert!(!hub(Some(KeyEncoding::Text), text, b"secret-secret"));
    assert!(hub(Some(KeyEncoding::Base64), text, b"secret-secret"));
    assert!(hub(Some(KeyEncoding::Base64), base64, text.as_bytes()));
    assert!(hub(Some(KeyEncoding::Text), "whsec_c2VjcmV0LXNlY3JldA==", b"secret-secret"), "a prefix implies base64");
    // The behaviour before encodings were configurable.
    assert!(hub(None, "whsec_c2VjcmV0LXNlY3JldA==", b"whsec_c2VjcmV0LXNlY3JldA=="));
}

#[test]
fn implausible_secret_is_refused_with_a_reason() {
    let check = |header, encoding, text: &str| check_source_secret(header, encoding, &Secret::new(text.to_owned()));
    let (base64, text) = (Some(KeyEncoding::Base64), Some(KeyEncoding::Text));
    for (header, encoding, secret, expected) in [
        (MacHeader::Hub, None, GITHUB_SECRET, KeyEncoding::Text),
        (MacHeader::Hub, base64, "c2VjcmV0LXNlY3JldA", KeyEncoding::Base64),
        (MacHeader::Logto, None, "whsec_c2VjcmV0LXNlY3JldA==", KeyEncoding::Base64),
        (MacHeader::Standard, None, SECRET, KeyEncoding::Base64),
        (MacHeader::Standard, base64, &SECRET[6..], KeyEncoding::Base64),
        (MacHeader::Standard, text, "a text of some length", KeyEncoding::Text),
    ] {
        assert_eq!(check(header, encoding, secret), Ok(expected), "{secret}");
    }
    for (header, encoding, secret, says) in [
        (MacHeader::Logto, None, "", "too short"),
        (MacHeader::Logto, None, "1234567", "at least 8 bytes"),
        (MacHeader::Standard, text, "123456789012345", "at least 16 bytes"),
        (MacHeader::Standard, None, "whsec_", "not base64"),
        (MacHeader::Hub, base64, "c2VjcmV0!", "not base64"),
        (MacHeader::Hub, base64, "c2VjcmV0", "at least 8 bytes"),
        (MacHeader::Hub, text, SECRET, "always followed by base64"),
        (MacHeader::Standard, None, &SECRET[6..], "`\"encoding\": \"base64\"` or `\"encoding\": \"text\"`"),
        (MacHeader::Hub, None, "a-good-secret\n", "a line end (U+000A) at its end"),
        (MacHeader::Hub, None, "a-good-secret\r\n", "a line end (U+000D) at character 14"),
        (MacHeader::Hub, None, " a-good-secret", "white space (U+0020) at its beginning"),
        (MacHeader::Hub, None, "a-good-secret\u{a0}", "white space (U+00A0) at its end"),
        (MacHeader::Wso2, None, "a-good\tsecret", "a control character (U+0009) at character 7"),
        (MacHeader::Wso2, None, "a-good\0secret", "a NUL character"),
        (MacHeader::Hub, None, "\u{feff}a-good-secret", "a byte order mark"),
        (MacHeader::Hub, base64, "c2VjcmV0LXNl\u{200b}Y3JldA", "an invisible character (U+200B)"),
        (MacHeader::Standard, None, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw ", "white space"),
    ] {
        let why = check(header, encoding, secret).unwrap_err();
        assert!(why.contains(says), "{secret:?}: {why}");
        assert!(!why.contains("good"), "nothing of the secret is shown: {why}");
    }
}
