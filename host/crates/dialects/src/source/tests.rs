//! Tests of accepted and refused signatures.

use setgate_base::crypto::{hmac_sha1, hmac_sha384, hmac_sha512};

use super::super::webhook::{ID, TIMESTAMP};
use super::*;

const STANDARD_FORM: &str = "`v1,` and base64, several separated by spaces";
const HUB_FORM: &str = "`sha256=`, `sha384=` or `sha512=` and hex digits";
const HUB_256_FORM: &str = "`sha256=` and 64 hex digits";

const ID_VALUE: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const RIGHT: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const WRONG: &str = "v1,ceIVxkXPkMP/BEcgWtPmUTVUbBuSYhL1w5m3H93JfpI=";
const SIGNED_S: i64 = 1_614_265_330;

const GITHUB_SECRET: &str = "It's a Secret to Everybody";
const GITHUB_BODY: &[u8] = b"Hello, World!";
const GITHUB_MAC: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect()
}

fn secrets(texts: &[&str]) -> Vec<Secret> {
    texts.iter().map(|text| Secret::new((*text).to_owned())).collect()
}

/// The rules of a source that was stored before these options existed.
fn rules(header: MacHeader) -> MacRules {
    MacRules { header, encoding: None, tolerance_s: 300, allow_sha1: false }
}

fn standard_at(now_s: i64, pairs: &[(&'static str, &str)], texts: &[&str]) -> Result<(), MacError> {
    let now = Timestamp::from_millis(now_s * 1000);
    verify_mac(rules(MacHeader::Standard), &headers(pairs), BODY, &secrets(texts), now).map(drop)
}

fn standard_signed(signature: &str) -> Result<(), MacError> {
    standard_at(SIGNED_S, &[(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, signature)], &[SECRET])
}

fn body_mac(header: MacHeader, pairs: &[(&'static str, &str)], texts: &[&str]) -> Result<(), MacError> {
    verify_mac(rules(header), &headers(pairs), GITHUB_BODY, &secrets(texts), Timestamp::from_millis(0)).map(drop)
}

#[test]
fn standard_takes_the_published_vector_with_each_of_its_secrets() {
    standard_signed(RIGHT).unwrap();
    let pairs = [(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, RIGHT)];
    standard_at(SIGNED_S, &pairs, &["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", SECRET]).unwrap();
    standard_at(SIGNED_S, &pairs, &[&SECRET[6..]]).unwrap();
    let other = standard_at(SIGNED_S, &pairs, &["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]);
    assert_eq!(other, Err(MacError::NoMatch));
}

#[test]
fn standard_takes_a_vendors_vector_under_a_short_key() {
    let pairs = [
        (ID, "msg_loFOjxBNrRLzqYUf"),
        (TIMESTAMP, "1731705121"),
        (SIGNATURE, "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="),
    ];
    verify_mac(
        rules(MacHeader::Standard),
        &headers(&pairs),
        br#"{"event_type":"ping","data":{"success":true}}"#,
        &secrets(&["whsec_plJ3nmyCDGBKInavdOK15jsl"]),
        Timestamp::from_millis(1_731_705_121_000),
    )
    .unwrap();
}

#[test]
fn standard_finds_the_right_one_in_a_list() {
    standard_signed(&format!("{WRONG} v2,{} {RIGHT} {WRONG}", &RIGHT[3..])).unwrap();
    standard_signed(&format!("noise v1,### {RIGHT}")).unwrap();
    assert_eq!(standard_signed(&format!("{WRONG} {WRONG}")), Err(MacError::NoMatch));
}

#[test]
fn standard_refuses_parts_of_a_signature_and_other_versions() {
    assert_eq!(standard_signed("v1,"), Err(MacError::NoMatch));
    assert_eq!(standard_signed(&RIGHT[..11]), Err(MacError::NoMatch));
    assert_eq!(standard_signed("v1,###"), Err(MacError::NoMatch));
    let malformed = Err(MacError::Malformed { header: SIGNATURE, expected: STANDARD_FORM });
    assert_eq!(standard_signed(""), malformed);
    assert_eq!(standard_signed(&RIGHT[3..]), malformed);
    let algorithm = Err(MacError::Algorithm { header: SIGNATURE, expected: STANDARD_FORM });
    assert_eq!(standard_signed(&format!("v1a,{}", &RIGHT[3..])), algorithm);
    // A valid signature beyond the limit is not checked.
    assert_eq!(standard_signed(&format!("{}{RIGHT}", format!("{WRONG} ").repeat(ENTRIES_MAX))), Err(MacError::NoMatch));
}

#[test]
fn standard_misses_each_header() {
    let all = [(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, RIGHT)];
    for missing in 0..3 {
        let mut pairs = all.to_vec();
        let (header, _) = pairs.remove(missing);
        assert_eq!(standard_at(SIGNED_S, &pairs, &[SECRET]), Err(MacError::Missing { header }));
    }
}

#[test]
fn standard_keeps_five_minutes_either_way() {
    let pairs = [(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, RIGHT)];
    for (now_s, expected) in [
        (SIGNED_S - 300, Ok(())),
        (SIGNED_S + 300, Ok(())),
        (SIGNED_S - 301, Err(MacError::Timestamp { ahead_s: 301, tolerance_s: 300 })),
        (SIGNED_S + 301, Err(MacError::Timestamp { ahead_s: -301, tolerance_s: 300 })),
    ] {
        assert_eq!(standard_at(now_s, &pairs, &[SECRET]), expected);
    }
    let text = MacError::Timestamp { ahead_s: -301, tolerance_s: 300 }.to_string();
    assert_eq!(
        text,
        "the signed timestamp is 301 s in the past, more than the 300 s of the source's `timestamp_tolerance_s`"
    );
}

#[test]
fn standard_refuses_other_timestamps_and_ids() {
    for bad in ["hello", "-1614265330", "+1614265330", "1614265330.0", "", "99999999999999999999"] {
        let given = standard_at(SIGNED_S, &[(ID, ID_VALUE), (TIMESTAMP, bad), (SIGNATURE, RIGHT)], &[SECRET]);
        assert!(matches!(given, Err(MacError::Malformed { header: TIMESTAMP, .. })), "{bad}: {given:?}");
    }
    for bad in ["", "a.b"] {
        let given = standard_at(SIGNED_S, &[(ID, bad), (TIMESTAMP, "1614265330"), (SIGNATURE, RIGHT)], &[SECRET]);
        assert!(matches!(given, Err(MacError::Malformed { header: ID, .. })), "{bad}: {given:?}");
    }
}

#[test]
fn a_source_without_a_usable_secret_proves_nothing() {
    let pairs = [(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, RIGHT)];
    for unusable in [&[] as &[&str], &[""], &["whsec_"], &["whsec_!"], &["whsec_AAAA"]] {
        assert_eq!(standard_at(SIGNED_S, &pairs, unusable), Err(MacError::NoSecret), "{unusable:?}");
    }
    // An attacker would send an HMAC with the empty key.
    let forged = format!("sha256={}", hex::encode(hmac_sha256(b"", &[GITHUB_BODY])));
    assert_eq!(body_mac(MacHeader::Hub, &[(HUB, &forged)], &[""]), Err(MacError::NoSecret));
}

#[test]
fn body_macs_take_the_published_vector() {
    let prefixed = format!("sha256={GITHUB_MAC}");
    body_mac(MacHeader::Hub, &[(HUB, &prefixed)], &["old secret", GITHUB_SECRET]).unwrap();
    body_mac(MacHeader::Wso2, &[(WSO2, &prefixed)], &[GITHUB_SECRET]).unwrap();
    body_mac(MacHeader::Logto, &[(LOGTO, GITHUB_MAC)], &[GITHUB_SECRET]).unwrap();
    body_mac(MacHeader::Logto, &[(LOGTO, &GITHUB_MAC.to_uppercase())], &[GITHUB_SECRET]).unwrap();
    assert_eq!(body_mac(MacHeader::Hub, &[(HUB, &prefixed)], &["another"]), Err(MacError::NoMatch));
}

#[test]
fn hub_takes_the_longer_digests_and_refuses_sha1() {
    let key = GITHUB_SECRET.as_bytes();
    let sha384 = format!("sha384={}", hex::encode(hmac_sha384(key, &[GITHUB_BODY])));
    let sha512 = format!("SHA512={}", hex::encode(hmac_sha512(key, &[GITHUB_BODY])));
    body_mac(MacHeader::Hub, &[(HUB, &sha384)], &[GITHUB_SECRET]).unwrap();
    body_mac(MacHeader::Hub, &[(HUB, &sha512)], &[GITHUB_SECRET]).unwrap();
    let mislabelled = sha384.replace("sha384", "sha256");
    let malformed = Err(MacError::Malformed { header: HUB, expected: HUB_FORM });
    assert_eq!(body_mac(MacHeader::Hub, &[(HUB, &mislabelled)], &[GITHUB_SECRET]), malformed, "of another length");
    for method in ["sha1", "md5", ""] {
        let value = format!("{method}={GITHUB_MAC}");
        let refused = Err(MacError::Algorithm { header: HUB, expected: HUB_FORM });
        assert_eq!(body_mac(MacHeader::Hub, &[(HUB, &value)], &[GITHUB_SECRET]), refused, "{method}");
    }
    let refused = Err(MacError::Algorithm { header: WSO2, expected: WSO2_FORM });
    assert_eq!(body_mac(MacHeader::Wso2, &[(WSO2, &sha512)], &[GITHUB_SECRET]), refused);
}

#[test]
fn body_macs_name_what_is_malformed() {
    for bad in ["", "sha256", "sha256=", "sha256=zz", &format!("sha256={}", &GITHUB_MAC[..62])] {
        let refused = Err(MacError::Malformed { header: HUB, expected: HUB_FORM });
        assert_eq!(body_mac(MacHeader::Hub, &[(HUB, bad)], &[GITHUB_SECRET]), refused, "{bad}");
    }
    let refused = Err(MacError::Malformed { header: LOGTO, expected: LOGTO_FORM });
    let prefixed = format!("sha256={GITHUB_MAC}");
    assert_eq!(body_mac(MacHeader::Logto, &[(LOGTO, &prefixed)], &[GITHUB_SECRET]), refused);
    assert_eq!(body_mac(MacHeader::Wso2, &[], &[GITHUB_SECRET]), Err(MacError::Missing { header: WSO2 }));
}

#[test]
fn svix_headers_are_taken_as_a_whole_family() {
    let svix = [("svix-id", ID_VALUE), ("svix-timestamp", "1614265330"), ("svix-signature", RIGHT)];
    let now = Timestamp::from_millis(SIGNED_S * 1000);
    let signed = verify_mac(rules(MacHeader::Standard), &headers(&svix), BODY, &secrets(&[SECRET]), now).unwrap();
    assert_eq!(signed.id.as_deref(), Some(ID_VALUE));
    // Headers of the other family are not covered by the signature: an id among them does not count, and it does not
    // complete a family.
    let both = [&svix[..], &[(ID, "another")]].concat();
    let signed = verify_mac(rules(MacHeader::Standard), &headers(&both), BODY, &secrets(&[SECRET]), now).unwrap();
    assert_eq!(signed.id.as_deref(), Some(ID_VALUE));
    let mixed = [(ID, ID_VALUE), ("svix-timestamp", "1614265330"), ("svix-signature", RIGHT)];
    assert!(matches!(standard_at(SIGNED_S, &mixed, &[SECRET]), Err(MacError::Missing { .. })));
    let missing = Err(MacError::Missing { header: "svix-timestamp" });
    assert_eq!(standard_at(SIGNED_S, &[svix[0], svix[2]], &[SECRET]), missing);
    let wrong = [(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, WRONG)];
    standard_at(SIGNED_S, &[&wrong[..], &svix[..]].concat(), &[SECRET]).unwrap();
}

#[test]
fn several_lines_of_a_signature_are_one_list() {
    let mut lines = headers(&[(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, WRONG)]);
    lines.append(SIGNATURE, RIGHT.parse().unwrap());
    let now = Timestamp::from_millis(SIGNED_S * 1000);
    verify_mac(rules(MacHeader::Standard), &lines, BODY, &secrets(&[SECRET]), now).unwrap();
    standard_signed(&format!("{WRONG}, {RIGHT}")).unwrap();
    let prefixed = format!("sha256={GITHUB_MAC}");
    let other = format!("sha256={}", "0".repeat(64));
    for (header, name, right, wrong) in [
        (MacHeader::Hub, HUB, prefixed.as_str(), other.as_str()),
        (MacHeader::Wso2, WSO2, &prefixed, &other),
        (MacHeader::Logto, LOGTO, GITHUB_MAC, &other[7..]),
    ] {
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
fn of_several_algorithms_the_strongest_decides() {
    let key = GITHUB_SECRET.as_bytes();
    let sha1 = format!("sha1={}", hex::encode(hmac_sha1(key, &[GITHUB_BODY])));
    let sha256 = format!("sha256={GITHUB_MAC}");
    let sha512 = format!("sha512={}", hex::encode(hmac_sha512(key, &[GITHUB_BODY])));
    let hub = |pairs: &[(&'static str, &str)], allow_sha1| {
        let rules = MacRules { allow_sha1, ..rules(MacHeader::Hub) };
        verify_mac(rules, &headers(pairs), GITHUB_BODY, &secrets(&[GITHUB_SECRET]), Timestamp::from_millis(0)).map(drop)
    };
    // As sent by GitHub, and as lists.
    hub(&[(HUB, &sha1), (HUB_256, &sha256)], false).unwrap();
    hub(&[(HUB_256, &sha256)], false).unwrap();
    hub(&[(HUB, &format!("{sha1},{sha256}"))], false).unwrap();
    hub(&[(HUB, &format!("md5=00, {sha256}"))], false).unwrap();
    hub(&[(HUB, &format!("sha1=0, {sha256}"))], false).unwrap();
    hub(&[(HUB, &sha1)], true).unwrap();
    let algorithm = Err(MacError::Algorithm { header: HUB, expected: HUB_FORM });
    assert_eq!(hub(&[(HUB, &sha1)], false), algorithm);
    // A valid weaker signature does not count beside a stronger one.
    let wrong_256 = format!("sha256={}", "0".repeat(64));
    let wrong_512 = format!("sha512={}", "0".repeat(128));
    assert_eq!(hub(&[(HUB, &sha1), (HUB_256, &wrong_256)], true), Err(MacError::NoMatch));
    assert_eq!(hub(&[(HUB, &format!("{sha256} {wrong_512}"))], true), Err(MacError::NoMatch));
    hub(&[(HUB, &format!("{wrong_256} {sha512}"))], true).unwrap();
    let malformed = Err(MacError::Malformed { header: HUB, expected: HUB_FORM });
    assert_eq!(hub(&[(HUB, &format!("{sha256},sha512=zz"))], true), malformed);
    // GitHub's second header allows only one algorithm.
    let algorithm = Err(MacError::Algorithm { header: HUB_256, expected: HUB_256_FORM });
    assert_eq!(hub(&[(HUB_256, &sha512)], true), algorithm);
}

#[test]
fn the_tolerance_is_the_sources_own() {
    let pairs = headers(&[(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, RIGHT)]);
    for (tolerance_s, late_s, taken) in [(10, 10, true), (10, 11, false), (3_600, 3_600, true), (3_600, 3_601, false)] {
        let rules = MacRules { tolerance_s, ..rules(MacHeader::Standard) };
        let now = Timestamp::from_millis((SIGNED_S + late_s) * 1000);
        assert_eq!(verify_mac(rules, &pairs, BODY, &secrets(&[SECRET]), now).is_ok(), taken, "{tolerance_s}, {late_s}");
    }
}

#[test]
fn a_secret_is_what_its_encoding_says_and_nothing_is_guessed() {
    // Text that is also valid base64, and its bytes in base64.
    let (text, base64) = ("c2VjcmV0LXNlY3JldA", "YzJWamNtVjBMWE5sWTNKbGRB");
    let mac = |key: &[u8]| format!("sha256={}", hex::encode(hmac_sha256(key, &[GITHUB_BODY])));
    let hub = |encoding, secret: &str, signed_under: &[u8]| {
        let rules = MacRules { encoding, ..rules(MacHeader::Hub) };
        let given = headers(&[(HUB, &mac(signed_under))]);
        verify_mac(rules, &given, GITHUB_BODY, &secrets(&[secret]), Timestamp::from_millis(0)).is_ok()
    };
    assert!(hub(Some(KeyEncoding::Text), text, text.as_bytes()));
    assert!(!hub(Some(KeyEncoding::Text), text, b"secret-secret"));
    assert!(hub(Some(KeyEncoding::Base64), text, b"secret-secret"));
    assert!(hub(Some(KeyEncoding::Base64), base64, text.as_bytes()));
    assert!(hub(Some(KeyEncoding::Text), "whsec_c2VjcmV0LXNlY3JldA==", b"secret-secret"), "a prefix says base64");
    // The behaviour before encodings were configurable.
    assert!(hub(None, "whsec_c2VjcmV0LXNlY3JldA==", b"whsec_c2VjcmV0LXNlY3JldA=="));
}

#[test]
fn a_secret_that_cannot_be_meant_so_is_refused_with_the_reason() {
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
        (MacHeader::Hub, text, SECRET, "after which comes base64 always"),
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
