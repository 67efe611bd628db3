//! Tests of signed and verified requests, with published vectors.

use setgate_base::crypto::{hmac_sha1, hmac_sha384, hmac_sha512};
use setgate_domain::time::Timestamp;

use super::verify::{EXPECTED, EXPECTED_256};
use super::*;
use crate::proof::{MacError, MacOptions, verify_mac};
use crate::testing::{GITHUB_BODY, GITHUB_MAC, GITHUB_SECRET, body_mac, headers, rules, secrets, signed};

/// GitHub documentation, "Validating webhook deliveries".
#[test]
fn signs_and_verifies_published_vector() {
    let value = format!("sha256={GITHUB_MAC}");
    let expected = [("webhook-id", "dlv_1".to_owned()), (SIGNATURE, value.clone())];
    assert_eq!(signed(&DIALECT, GITHUB_SECRET, "dlv_1"), expected);
    body_mac(MacHeader::Hub, &[(SIGNATURE, &value)], &["old secret", GITHUB_SECRET]).unwrap();
    assert_eq!(body_mac(MacHeader::Hub, &[(SIGNATURE, &value)], &["another"]), Err(MacError::NoMatch));
}

#[test]
fn accepts_longer_digests_and_refuses_sha1() {
    let key = GITHUB_SECRET.as_bytes();
    let sha384 = format!("sha384={}", hex::encode(hmac_sha384(key, &[GITHUB_BODY])));
    let sha512 = format!("SHA512={}", hex::encode(hmac_sha512(key, &[GITHUB_BODY])));
    body_mac(MacHeader::Hub, &[(SIGNATURE, &sha384)], &[GITHUB_SECRET]).unwrap();
    body_mac(MacHeader::Hub, &[(SIGNATURE, &sha512)], &[GITHUB_SECRET]).unwrap();
    let mislabelled = sha384.replace("sha384", "sha256");
    let malformed = Err(MacError::Malformed { header: SIGNATURE, expected: EXPECTED });
    assert_eq!(
        body_mac(MacHeader::Hub, &[(SIGNATURE, &mislabelled)], &[GITHUB_SECRET]),
        malformed,
        "of another length"
    );
    for method in ["sha1", "md5", ""] {
        let value = format!("{method}={GITHUB_MAC}");
        let refused = Err(MacError::Algorithm { header: SIGNATURE, expected: EXPECTED });
        assert_eq!(body_mac(MacHeader::Hub, &[(SIGNATURE, &value)], &[GITHUB_SECRET]), refused, "{method}");
    }
}

#[test]
fn malformed_macs_are_described() {
    for bad in ["", "sha256", "sha256=", "sha256=zz", &format!("sha256={}", &GITHUB_MAC[..62])] {
        let refused = Err(MacError::Malformed { header: SIGNATURE, expected: EXPECTED });
        assert_eq!(body_mac(MacHeader::Hub, &[(SIGNATURE, bad)], &[GITHUB_SECRET]), refused, "{bad}");
    }
}

#[test]
fn only_strongest_algorithm_counts() {
    let key = GITHUB_SECRET.as_bytes();
    let sha1 = format!("sha1={}", hex::encode(hmac_sha1(key, &[GITHUB_BODY])));
    let sha256 = format!("sha256={GITHUB_MAC}");
    let sha512 = format!("sha512={}", hex::encode(hmac_sha512(key, &[GITHUB_BODY])));
    let hub = |pairs: &[(&'static str, &str)], allow_sha1| {
        let rules = MacOptions { allow_sha1, ..rules(MacHeader::Hub) };
        verify_mac(rules, &headers(pairs), GITHUB_BODY, &secrets(&[GITHUB_SECRET]), Timestamp::from_millis(0)).map(drop)
    };
    // As sent by GitHub, and as lists.
    hub(&[(SIGNATURE, &sha1), (SIGNATURE_256, &sha256)], false).unwrap();
    hub(&[(SIGNATURE_256, &sha256)], false).unwrap();
    hub(&[(SIGNATURE, &format!("{sha1},{sha256}"))], false).unwrap();
    hub(&[(SIGNATURE, &format!("md5=00, {sha256}"))], false).unwrap();
    hub(&[(SIGNATURE, &format!("sha1=0, {sha256}"))], false).unwrap();
    hub(&[(SIGNATURE, &sha1)], true).unwrap();
    let algorithm = Err(MacError::Algorithm { header: SIGNATURE, expected: EXPECTED });
    assert_eq!(hub(&[(SIGNATURE, &sha1)], false), algorithm);
    // A valid weaker signature does not count beside a stronger one.
    let wrong_256 = format!("sha256={}", "0".repeat(64));
    let wrong_512 = format!("sha512={}", "0".repeat(128));
    assert_eq!(hub(&[(SIGNATURE, &sha1), (SIGNATURE_256, &wrong_256)], true), Err(MacError::NoMatch));
    assert_eq!(hub(&[(SIGNATURE, &format!("{sha256} {wrong_512}"))], true), Err(MacError::NoMatch));
    hub(&[(SIGNATURE, &format!("{wrong_256} {sha512}"))], true).unwrap();
    let malformed = Err(MacError::Malformed { header: SIGNATURE, expected: EXPECTED });
    assert_eq!(hub(&[(SIGNATURE, &format!("{sha256},sha512=zz"))], true), malformed);
    // GitHub's second header allows only one algorithm.
    let algorithm = Err(MacError::Algorithm { header: SIGNATURE_256, expected: EXPECTED_256 });
    assert_eq!(hub(&[(SIGNATURE_256, &sha512)], true), algorithm);
}
