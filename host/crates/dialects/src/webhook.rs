//! The headers of each signing scheme.

use setgate_domain::subscription::SigningScheme;
use setgate_domain::time::Timestamp;

use super::Error;
use super::key::Key;

/// The delivery id, in every scheme. Receivers use it to detect duplicates.
pub(super) const ID: &str = "webhook-id";
/// The time of the signature in seconds since the Unix epoch (Standard Webhooks).
pub(super) const TIMESTAMP: &str = "webhook-timestamp";
/// The signatures, separated by spaces (Standard Webhooks).
pub(super) const SIGNATURE: &str = "webhook-signature";
/// WebSub section 7: `method=hex`.
pub(super) const HUB: &str = "x-hub-signature";
/// WSO2 Identity Server's webhooks: `sha256=hex`.
pub(super) const WSO2: &str = "x-wso2-event-signature";
/// Logto's webhooks: only hex.
pub(super) const LOGTO: &str = "logto-signature-sha-256";

/// The headers for a body. `keys` starts with the current key and is never empty. Each key is followed by its
/// additional `v1` key, if it has one.
pub(super) fn headers(
    scheme: SigningScheme,
    keys: &[impl AsRef<Key>],
    id: &str,
    now: Timestamp,
    body: &[u8],
) -> Result<Vec<(&'static str, String)>, Error> {
    // If the id could contain a dot, bytes could be moved between id, timestamp and body under the same signature.
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_graphic() && b != b'.') {
        return Err(Error::DeliveryId);
    }
    let current = || keys.first().and_then(|key| key.as_ref().mac_hex(body)).ok_or(Error::NoKey);
    let mut headers = Vec::with_capacity(4);
    headers.push((ID, id.to_owned()));
    match scheme {
        SigningScheme::Standard => {
            let timestamp_s = now.as_seconds();
            let entries: Vec<String> =
                keys.iter().map(|key| key.as_ref().sign_standard(id, timestamp_s, body)).collect();
            headers.push((TIMESTAMP, timestamp_s.to_string()));
            headers.push((SIGNATURE, entries.join(" ")));
        }
        SigningScheme::Hub => headers.push((HUB, format!("sha256={}", current()?))),
        SigningScheme::Wso2 => headers.push((WSO2, format!("sha256={}", current()?))),
        SigningScheme::Logto => headers.push((LOGTO, current()?)),
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use setgate_domain::secret::Secret;

    fn key(scheme: SigningScheme, text: &str) -> Arc<Key> {
        Arc::new(Key::parse(scheme, &Secret::new(text.to_owned())).unwrap())
    }

    #[track_caller]
    fn check(secret: &str, id: &str, seconds: i64, body: &str, expected: &str) {
        let keys = [key(SigningScheme::Standard, secret)];
        // Milliseconds are ignored.
        let now = Timestamp::from_millis(seconds * 1000 + 999);
        let headers = headers(SigningScheme::Standard, &keys, id, now, body.as_bytes()).unwrap();
        assert_eq!(headers, [(ID, id.to_owned()), (TIMESTAMP, seconds.to_string()), (SIGNATURE, expected.to_owned())]);
    }

    /// The test vectors of the official Standard Webhooks libraries, and of the Rust library.
    #[test]
    fn v1_agrees_with_the_published_vectors() {
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
    fn v1_agrees_with_the_vector_under_a_short_key() {
        let short = Key::Symmetric(super::super::key::decode("plJ3nmyCDGBKInavdOK15jsl").unwrap());
        assert_eq!(
            short.sign_standard(
                "msg_loFOjxBNrRLzqYUf",
                1_731_705_121,
                br#"{"event_type":"ping","data":{"success":true}}"#
            ),
            "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="
        );
    }

    /// The example of the specification, which is also a test of the Svix server.
    #[test]
    fn v1a_agrees_with_the_published_vector() {
        check(
            "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
        );
    }

    /// GitHub documentation, "Validating webhook deliveries": the same MAC under three header names.
    #[test]
    fn body_macs_agree_with_the_published_vector_and_carry_the_id() {
        const MAC: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        for (scheme, name, expected) in [
            (SigningScheme::Hub, "x-hub-signature", format!("sha256={MAC}")),
            (SigningScheme::Wso2, "x-wso2-event-signature", format!("sha256={MAC}")),
            (SigningScheme::Logto, "logto-signature-sha-256", MAC.to_owned()),
        ] {
            let keys = [key(scheme, "It's a Secret to Everybody")];
            let headers = headers(scheme, &keys, "dlv_1", Timestamp::from_millis(0), b"Hello, World!").unwrap();
            assert_eq!(headers, [(ID, "dlv_1".to_owned()), (name, expected)]);
        }
    }

    #[test]
    fn ids_that_could_shift_the_signed_bytes_are_refused() {
        let keys = [key(SigningScheme::Hub, "It's a Secret to Everybody")];
        for bad in ["", "a.b", "a b", "a\r\nb: c", "ä"] {
            let signed = headers(SigningScheme::Hub, &keys, bad, Timestamp::from_millis(0), b"");
            assert!(matches!(signed, Err(Error::DeliveryId)), "{bad:?}");
        }
    }
}
