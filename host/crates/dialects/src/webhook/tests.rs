//! Tests of signed and verified requests, with published vectors.

use setgate_domain::secret::Secret;
use setgate_domain::time::Timestamp;

use super::verify::EXPECTED;
use super::*;
use crate::proof::{ENTRIES_MAX, MacError, MacOptions, verify_mac};
use crate::signing::{decode, headers as delivery_headers};
use crate::testing::{BODY, headers, rules, secrets};

const ID_VALUE: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const RIGHT: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const WRONG: &str = "v1,ceIVxkXPkMP/BEcgWtPmUTVUbBuSYhL1w5m3H93JfpI=";
const SIGNED_S: i64 = 1_614_265_330;

fn standard_at(now_s: i64, pairs: &[(&'static str, &str)], texts: &[&str]) -> Result<(), MacError> {
    let now = Timestamp::from_millis(now_s * 1000);
    verify_mac(rules(MacHeader::Standard), &headers(pairs), BODY, &secrets(texts), now).map(drop)
}

fn standard_signed(signature: &str) -> Result<(), MacError> {
    standard_at(SIGNED_S, &[(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, signature)], &[SECRET])
}

#[track_caller]
fn check(secret: &str, id: &str, seconds: i64, body: &str, expected: &str) {
    let keys = [Arc::new(Key::parse(Notation::Prefixed, &Secret::new(secret.to_owned())).unwrap())];
    // Milliseconds are ignored.
    let now = Timestamp::from_millis(seconds * 1000 + 999);
    let message = Message { id, now, body: body.as_bytes() };
    let headers = delivery_headers(DIALECT.scheme.as_ref().unwrap(), &keys, &message).unwrap();
    assert_eq!(headers, [(ID, id.to_owned()), (TIMESTAMP, seconds.to_string()), (SIGNATURE, expected.to_owned())]);
}

/// The test vectors of the official Standard Webhooks libraries, and of the Rust library.
#[test]
fn v1_matches_published_vectors() {
    check(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        r#"{"test": 2432232314}"#,
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    );
    check(
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        1_649_367_553,
        r#"{"email":"test@example.com","username":"test_user"}"#,
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    );
}

/// Svix documentation, "Verifying webhooks manually". Its key is shorter than the specification allows and would be
/// refused as a signing key, but the signed bytes are the same.
#[test]
fn v1_matches_vector_with_short_key() {
    let short = Key::Symmetric(decode("plJ3nmyCDGBKInavdOK15jsl").unwrap());
    let body = br#"{"event_type":"ping","data":{"success":true}}"#;
    let message = Message { id: "msg_loFOjxBNrRLzqYUf", now: Timestamp::from_millis(0), body };
    assert_eq!(entry(&short, &message, "1731705121"), "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=");
}

/// The example of the specification, which is also a test of the Svix server.
#[test]
fn v1a_matches_published_vector() {
    check(
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        r#"{"test": 2432232314}"#,
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
    );
}

#[test]
fn verifies_published_vector_with_each_secret() {
    standard_signed(RIGHT).unwrap();
    let pairs = [(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, RIGHT)];
    standard_at(SIGNED_S, &pairs, &["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", SECRET]).unwrap();
    standard_at(SIGNED_S, &pairs, &[&SECRET[6..]]).unwrap();
    let other = standard_at(SIGNED_S, &pairs, &["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]);
    assert_eq!(other, Err(MacError::NoMatch));
}

#[test]
fn verifies_vendor_vector_with_short_key() {
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
fn finds_matching_signature_in_list() {
    standard_signed(&format!("{WRONG} v2,{} {RIGHT} {WRONG}", &RIGHT[3..])).unwrap();
    standard_signed(&format!("noise v1,### {RIGHT}")).unwrap();
    assert_eq!(standard_signed(&format!("{WRONG} {WRONG}")), Err(MacError::NoMatch));
}

#[test]
fn refuses_partial_signatures_and_other_versions() {
    assert_eq!(standard_signed("v1,"), Err(MacError::NoMatch));
    assert_eq!(standard_signed(&RIGHT[..11]), Err(MacError::NoMatch));
    assert_eq!(standard_signed("v1,###"), Err(MacError::NoMatch));
    let malformed = Err(MacError::Malformed { header: SIGNATURE, expected: EXPECTED });
    assert_eq!(standard_signed(""), malformed);
    assert_eq!(standard_signed(&RIGHT[3..]), malformed);
    let algorithm = Err(MacError::Algorithm { header: SIGNATURE, expected: EXPECTED });
    assert_eq!(standard_signed(&format!("v1a,{}", &RIGHT[3..])), algorithm);
    // A valid signature beyond the limit is not checked.
    assert_eq!(standard_signed(&format!("{}{RIGHT}", format!("{WRONG} ").repeat(ENTRIES_MAX))), Err(MacError::NoMatch));
}

#[test]
fn reports_each_missing_header() {
    let all = [(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, RIGHT)];
    for missing in 0..3 {
        let mut pairs = all.to_vec();
        let (header, _) = pairs.remove(missing);
        assert_eq!(standard_at(SIGNED_S, &pairs, &[SECRET]), Err(MacError::Missing { header }));
    }
}

#[test]
fn accepts_timestamps_within_five_minutes() {
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
fn refuses_malformed_timestamps_and_ids() {
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
fn svix_headers_are_accepted_only_together() {
    let svix = [(SVIX_ID, ID_VALUE), (SVIX_TIMESTAMP, "1614265330"), (SVIX_SIGNATURE, RIGHT)];
    let now = Timestamp::from_millis(SIGNED_S * 1000);
    let signed = verify_mac(rules(MacHeader::Standard), &headers(&svix), BODY, &secrets(&[SECRET]), now).unwrap();
    assert_eq!(signed.id.as_deref(), Some(ID_VALUE));
    // Headers of the other family are not covered by the signature: an id among them does not count, and it does not
    // complete a family.
    let both = [&svix[..], &[(ID, "another")]].concat();
    let signed = verify_mac(rules(MacHeader::Standard), &headers(&both), BODY, &secrets(&[SECRET]), now).unwrap();
    assert_eq!(signed.id.as_deref(), Some(ID_VALUE));
    let mixed = [(ID, ID_VALUE), (SVIX_TIMESTAMP, "1614265330"), (SVIX_SIGNATURE, RIGHT)];
    assert!(matches!(standard_at(SIGNED_S, &mixed, &[SECRET]), Err(MacError::Missing { .. })));
    let missing = Err(MacError::Missing { header: SVIX_TIMESTAMP });
    assert_eq!(standard_at(SIGNED_S, &[svix[0], svix[2]], &[SECRET]), missing);
    let wrong = [(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, WRONG)];
    standard_at(SIGNED_S, &[&wrong[..], &svix[..]].concat(), &[SECRET]).unwrap();
}

#[test]
fn timestamp_tolerance_is_set_by_source() {
    let pairs = headers(&[(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, RIGHT)]);
    for (tolerance_s, late_s, taken) in [(10, 10, true), (10, 11, false), (3_600, 3_600, true), (3_600, 3_601, false)] {
        let rules = MacOptions { tolerance_s, ..rules(MacHeader::Standard) };
        let now = Timestamp::from_millis((SIGNED_S + late_s) * 1000);
        assert_eq!(verify_mac(rules, &pairs, BODY, &secrets(&[SECRET]), now).is_ok(), taken, "{tolerance_s}, {late_s}");
    }
}

#[test]
fn source_without_usable_secret_is_rejected() {
    let pairs = [(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, RIGHT)];
    for unusable in [&[] as &[&str], &[""], &["whsec_"], &["whsec_!"], &["whsec_AAAA"]] {
        assert_eq!(standard_at(SIGNED_S, &pairs, unusable), Err(MacError::NoSecret), "{unusable:?}");
    }
}

#[test]
fn repeated_signature_headers_are_merged() {
    let mut lines = headers(&[(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, WRONG)]);
    lines.append(SIGNATURE, RIGHT.parse().unwrap());
    let now = Timestamp::from_millis(SIGNED_S * 1000);
    verify_mac(rules(MacHeader::Standard), &lines, BODY, &secrets(&[SECRET]), now).unwrap();
    standard_signed(&format!("{WRONG}, {RIGHT}")).unwrap();
}
