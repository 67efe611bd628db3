//! What is taken as a source's own and what is not.

use super::*;

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

fn standard_at(now_s: i64, pairs: &[(&'static str, &str)], texts: &[&str]) -> Result<(), MacError> {
    let now = Timestamp::from_millis(now_s * 1000);
    verify_mac(MacHeader::Standard, &headers(pairs), BODY, &secrets(texts), now)
}

fn standard_signed(signature: &str) -> Result<(), MacError> {
    standard_at(SIGNED_S, &[(ID, ID_VALUE), (TIMESTAMP, "1614265330"), (SIGNATURE, signature)], &[SECRET])
}

fn body_mac(header: MacHeader, pairs: &[(&'static str, &str)], texts: &[&str]) -> Result<(), MacError> {
    verify_mac(header, &headers(pairs), GITHUB_BODY, &secrets(texts), Timestamp::from_millis(0))
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
        MacHeader::Standard,
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
    // The right one beyond the entries that are looked at.
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
        (SIGNED_S - 301, Err(MacError::Timestamp { ahead_s: 301 })),
        (SIGNED_S + 301, Err(MacError::Timestamp { ahead_s: -301 })),
    ] {
        assert_eq!(standard_at(now_s, &pairs, &[SECRET]), expected);
    }
    let text = MacError::Timestamp { ahead_s: -301 }.to_string();
    assert_eq!(text, "`webhook-timestamp` is 301 s in the past, more than the 300 s allowed");
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
    // HMAC under the empty key is what an attacker would send.
    let forged = format!("sha256={}", hex::encode(hmac_sha256(b"", &[GITHUB_BODY])));
    assert_eq!(body_mac(MacHeader::Hub, &[(HUB, &forged)], &[""]), Err(MacError::NoSecret));
    assert!(check_source_secret(MacHeader::Standard, &Secret::new("whsec_".into())).is_err());
    assert!(check_source_secret(MacHeader::Logto, &Secret::new(String::new())).is_err());
    assert!(check_source_secret(MacHeader::Standard, &Secret::new(SECRET.into())).is_ok());
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
    assert_eq!(body_mac(MacHeader::Hub, &[(HUB, &mislabelled)], &[GITHUB_SECRET]), Err(MacError::NoMatch));
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
    let mut twice = headers(&[(LOGTO, GITHUB_MAC)]);
    twice.append(LOGTO, "00".parse().unwrap());
    let given =
        verify_mac(MacHeader::Logto, &twice, GITHUB_BODY, &secrets(&[GITHUB_SECRET]), Timestamp::from_millis(0));
    assert_eq!(given, refused);
}
