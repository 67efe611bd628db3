//! The settings of sources of signed SETs.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::transmitter::{AUDIENCE, ISSUER, SIGNED_SET, claims, jwks, not_the_refusal};
use setgate_tests::{Answer, Host, SetKey};

use super::{Signed, source};

#[tokio::test]
async fn document_shows_everything_but_the_secret_and_can_be_sent_back() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let path = acme.path("/sources/idp");
    let key = SetKey::new("key-1");
    for keys in [json!({"jwks_url": "https://idp.example/jwks.json"}), json!({"jwks": jwks(&[&key])})] {
        let mut settings = source(&keys, &json!({"compat": {"allow_missing_typ": true}}));
        settings["proofs"][0]["authorization"] = json!("Bearer hush-hush");
        let put = acme.client.put(&path, &settings).await;
        assert!(matches!(put.status, 200 | 201), "{}", put.text());
        let shown = acme.get("/sources/idp").await;
        let proof = &shown["proofs"][0];
        for (name, value) in keys.as_object().unwrap() {
            assert_eq!(proof[name], *value);
        }
        assert_eq!((&proof["issuer"], &proof["audience"]), (&json!(ISSUER), &json!([AUDIENCE])));
        assert_eq!(proof["algorithms"], json!(["RS256", "PS256", "ES256", "EdDSA"]));
        assert_eq!(proof["authorization"], "***");
        assert_eq!(
            (&shown["push_path"], &shown["ingest_path"]),
            (&json!("/t/acme/push/idp"), &json!("/ingest/acme/idp"))
        );
        assert_eq!(shown["compat"]["allow_missing_typ"], true);
        assert_eq!(shown["compat"]["allow_sub_and_exp"], false);
        let again = acme.client.put(&path, &shown).await.expect(200).json();
        assert_eq!(again, shown, "the document can be sent back");
        let without = json!({"form": "set", "compat": shown["compat"]});
        let kept = acme.client.put(&path, &without).await.expect(200).json();
        assert_eq!(kept["proofs"], shown["proofs"], "absent proofs are retained");
    }
    let mut removed = source(&json!({"jwks": jwks(&[&key])}), &json!({}));
    removed["proofs"][0]["authorization"] = Value::Null;
    let removed = acme.client.put(&path, &removed).await.expect(200).json();
    assert_eq!(removed["proofs"][0]["authorization"], Value::Null);
    let open = json!({"form": "set", "proofs": [{"kind": "open"}]});
    let open = acme.client.put(&path, &open).await.expect(200).json();
    assert_eq!(open["push_path"], Value::Null);
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_by_name() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let good = jwks(&[&SetKey::new("key-1")]);
    let url = json!({"jwks_url": "https://idp.example/jwks.json"});
    let put = async |settings: &Value| acme.client.put(&acme.path("/sources/idp"), settings).await;
    let proof = |change: Value| {
        let mut settings = source(&url, &json!({}));
        let proof = settings["proofs"][0].as_object_mut().unwrap();
        for (name, value) in change.as_object().unwrap() {
            proof.insert(name.clone(), value.clone());
        }
        settings
    };
    let mut two = source(&url, &json!({}));
    two["proofs"].as_array_mut().unwrap().push(json!({"kind": "open"}));
    let mut private = good.clone();
    private["keys"][0]["d"] = json!("AAAA");
    for (settings, part) in [
        (two, "`proofs`: a `jws` proof is the only one"),
        (source(&url, &json!({"form": "wso2"})), "`form`"),
        (source(&url, &json!({"issuers_allowed": [ISSUER]})), "`issuers_allowed`"),
        (json!({"form": "set", "proofs": [{"kind": "open"}], "compat": {"allow_missing_typ": true}}), "`compat`"),
        (proof(json!({"jwks": good})), "either `jwks_url` or `jwks`"),
        (proof(json!({"jwks_url": null})), "`proofs/jwks_url`: give the URL"),
        (proof(json!({"jwks_url": "ftp://idp.example/"})), "`proofs/jwks_url`"),
        (proof(json!({"jwks_url": "https://user:hush@idp.example/"})), "user name or password"),
        (proof(json!({"jwks_url": null, "jwks": private})), "private half"),
        (proof(json!({"jwks_url": null, "jwks": {"keys": []}})), "it has no key"),
        (proof(json!({"audience": []})), "`proofs/audience`"),
        (proof(json!({"algorithms": []})), "`proofs/algorithms`"),
        (proof(json!({"issuer": ""})), "`proofs/issuer`"),
        (proof(json!({"authorization": "***"})), "no value is stored"),
        (proof(json!({"authorization": "Bearer x\n"})), "a line end"),
        (proof(json!({"authorization": "short"})), "bytes"),
    ] {
        let answer = put(&settings).await;
        assert_eq!(answer.not_the_problem(422, "invalid_field"), None, "{settings}");
        assert!(answer.text().contains(part), "{part}: {}", answer.text());
        assert!(!answer.text().contains("hush"), "{}", answer.text());
    }
    for settings in [
        proof(json!({"algorithms": ["HS256"]})),
        proof(json!({"algorithms": ["none"]})),
        proof(json!({"secrets": ["x"]})),
        source(&url, &json!({"compat": {"allow_everything": true}})),
        json!({"form": "set", "proofs": [{"kind": "jws", "jwks_url": "https://idp.example/", "issuer": ISSUER}]}),
    ] {
        assert_eq!(put(&settings).await.not_the_problem(400, "invalid_body"), None, "{settings}");
    }
}

#[tokio::test]
async fn authorization_is_compared_as_a_whole_after_the_signature() {
    let signed = Signed::start().await;
    let mut settings = source(&json!({"jwks_url": signed.server.url}), &json!({}));
    settings["proofs"][0]["authorization"] = json!("Bearer a-token-of-the-transmitter");
    signed.acme.client.put(&signed.acme.path("/sources/idp"), &settings).await.expect(200);
    let token = signed.key.token(&claims("one"));
    let send = async |given: &[&str], token: &str| -> Answer {
        let headers: Vec<_> =
            [SIGNED_SET].into_iter().chain(given.iter().map(|value| ("authorization", *value))).collect();
        signed.host.stranger().send(Method::POST, &signed.path, &headers, token.to_owned()).await
    };
    let right = "Bearer a-token-of-the-transmitter";
    for given in [&[][..], &["Bearer another-token"], &["bearer a-token-of-the-transmitter"], &[right, right]] {
        let answer = send(given, &token).await;
        assert_eq!(not_the_refusal(&answer, "authentication_failed"), None, "{given:?}");
        assert!(!answer.text().contains("a-token"), "{}", answer.text());
        let unproven = send(given, &SetKey::new("stranger").token(&claims("one"))).await;
        assert_eq!(not_the_refusal(&unproven, "invalid_key"), None, "a stranger does not learn that it is asked for");
    }
    assert!(signed.events().await.is_empty());
    send(&[right], &token).await.expect(202);
    assert_eq!(signed.counted("authentication_failed").await, 4.0);
    assert!(!signed.host.log().contains("a-token-of"), "it is never logged");
}
