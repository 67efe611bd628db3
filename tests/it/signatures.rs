//! Verifies the host's signatures with a third-party implementation: PyPI `standardwebhooks`. (The crate of that name
//! verifies every Standard Webhooks delivery in the other stories.) Also tests that key rotation does not break
//! receivers.

use serde_json::{Value, json};
use setgate_tests::signature::Trust;
use setgate_tests::{
    Host, Ingest, Receiver, Reply, Seed, Shim, Source, Subscription, Tenant, World, event, judges, place,
};
use tokio::process::Command;

/// Reads `{secret, headers, body}` and verifies; then once more with another body, which must fail.
const VERIFY: &str = "
import json, sys
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
given = json.load(sys.stdin)
webhook = Webhook(given['secret'])
webhook.verify(given['body'], given['headers'])
try:
    webhook.verify(given['body'] + ' ', given['headers'])
    sys.exit('a changed body was verified')
except WebhookVerificationError:
    print('verified')
";

#[tokio::test]
async fn python_receiver_verifies_signatures() {
    let python = match judges::python().await {
        Ok(python) => python,
        Err(why) => {
            assert!(!place::is_on("SETGATE_REQUIRE_INTEROP"), "SETGATE_REQUIRE_INTEROP=1, but {why}");
            return place::skip("python_receiver_verifies_signatures", &why);
        }
    };
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Logto).await;
    let receiver = Receiver::start().await;
    // The library supports only `v1`, which is also sent if there is an ed25519 key.
    let subscriptions =
        [acme.subscribe(&receiver).create().await, acme.subscribe(&receiver).signing("standard", true).create().await];
    // With letters beyond ASCII: the signature is over bytes.
    let accepted = source.accept(event::logto("s1").replace("Jane Doe", "Jäne Døe 你好")).await;

    let received = receiver.received(2).await;
    for subscription in subscriptions {
        let id = subscription.delivery_of(&accepted);
        let received = received.iter().find(|received| received.id() == id).expect("a delivery of each");
        let headers: serde_json::Map<_, _> = ["webhook-id", "webhook-timestamp", "webhook-signature"]
            .map(|name| (name.to_owned(), json!(received.header(name))))
            .into_iter()
            .collect();
        let given = json!({"secret": subscription.secret, "headers": headers, "body": received.text()});
        let said = judges::run(Command::new(&python).args(["-c", VERIFY]), &given.to_string()).await;
        assert_eq!(said.as_deref().map(str::trim), Ok("verified"), "standardwebhooks of PyPI verifies the delivery");
    }
}

/// The schemes whose header carries one signature.
const SINGLE: [&str; 3] = ["hub", "wso2", "logto"];

/// Sends an event, and returns for each key whether it verifies the delivery.
async fn verifies(source: &Source, receiver: &Receiver, jti: &str, trusts: [&Trust; 2]) -> [bool; 2] {
    let before = receiver.count();
    source.accept(event::set(jti)).await;
    let received = receiver.received(before + 1).await.pop().expect("a delivery");
    trusts.map(|trust| trust.verify(&received.headers, &received.body).is_ok())
}

async fn rotate(tenant: &Tenant, subscription: &Subscription) -> (Value, Trust) {
    let rotated = tenant.client.post(&subscription.path("/rotate-key"), &json!({})).await.expect(200).json();
    let scheme = rotated["signing"]["scheme"].as_str().expect("a scheme");
    let trust = Trust::of(scheme, rotated["signing_secret"].as_str().expect("a new secret is shown once"), None);
    (rotated, trust)
}

#[tokio::test]
async fn single_signature_rotation_is_staged() {
    let mut host = Host::start().await;
    let acme = host.tenant("acme").await;
    let mut source = acme.source("idp", Seed::Set).await;
    for scheme in SINGLE {
        let receiver = Receiver::start().await;
        let subscription = acme.subscribe(&receiver).signing(scheme, false).create().await;
        let (rotated, new) = rotate(&acme, &subscription).await;
        let keys = &rotated["signing"]["keys"];
        assert_eq!((&rotated["signing"]["next"], &rotated["signing"]["current"]), (&keys[0]["id"], &keys[1]["id"]));
        assert_eq!(keys[0]["activates_at"], keys[1]["expires_at"], "without a gap: {rotated}");
        let trusts = [&subscription.trust, &new];
        assert_eq!(verifies(&source, &receiver, &format!("{scheme}1"), trusts).await, [true, false], "{scheme}");
        let again = acme.client.post(&subscription.path("/rotate-key"), &json!({})).await;
        assert_eq!(again.not_the_problem(409, "conflict"), None, "a key is staged already");

        host.restart().await;
        source = acme.known_source("/ingest/acme/idp", Seed::Set);
        assert_eq!(subscription.show().await["signing"]["next"], keys[0]["id"], "it is staged still");
        assert_eq!(verifies(&source, &receiver, &format!("{scheme}2"), trusts).await, [true, false], "{scheme}");
        let activated = acme.client.post(&subscription.path("/activate-key"), &json!({})).await.expect(200).json();
        assert_eq!((&activated["signing"]["current"], &activated["signing"]["next"]), (&keys[0]["id"], &Value::Null));
        assert_eq!(activated["signing_secret"], Value::Null, "it was shown once");
        assert_eq!(verifies(&source, &receiver, &format!("{scheme}3"), trusts).await, [false, true], "{scheme}");
        let again = acme.client.post(&subscription.path("/activate-key"), &json!({})).await;
        assert_eq!(again.not_the_problem(409, "conflict"), None, "no key is staged any more");
        acme.client.delete(&subscription.path("")).await.expect(204);
    }
}

/// The host's clock is `tests/shims/clock.c`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn staged_key_takes_over_after_the_overlap() {
    const STORY: &str = "staged_key_takes_over_after_the_overlap";
    if !cfg!(target_os = "linux") {
        return place::skip(STORY, "the library that sets the clock is for Linux");
    }
    let mut host = Host::with().prepare();
    let clock = Shim::clock(&mut host);
    host.start_again().await;
    host.take_operator_key();
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).signing("logto", false).create().await;
    let (_, new) = rotate(&acme, &subscription).await;
    let trusts = [&subscription.trust, &new];
    assert_eq!(verifies(&source, &receiver, "one", trusts).await, [true, false]);
    clock.tell(&(25 * 3_600_000_i64).to_string());
    assert_eq!(verifies(&source, &receiver, "two", trusts).await, [false, true], "a day has passed");
}

#[tokio::test]
async fn staged_key_can_be_cancelled() {
    let World { acme, source, receiver, subscription, .. } = &World::with().signing("hub", false).start().await;
    // A paused subscription is rotated like any other.
    subscription.pause().await;
    let (_, new) = rotate(acme, subscription).await;
    let cancelled = acme.client.post(&subscription.path("/cancel-key"), &json!({})).await.expect(200).json();
    assert_eq!(
        (&cancelled["signing"]["next"], cancelled["signing"]["keys"].as_array().map(Vec::len)),
        (&Value::Null, Some(1))
    );
    assert_eq!(cancelled["signing"]["keys"][0]["expires_at"], Value::Null, "the current key has no end any more");
    let again = acme.client.post(&subscription.path("/cancel-key"), &json!({})).await;
    assert_eq!(again.not_the_problem(409, "conflict"), None);
    subscription.resume().await;
    assert_eq!(verifies(source, receiver, "one", [&subscription.trust, &new]).await, [true, false]);

    let (_, staged) = rotate(acme, subscription).await;
    let asked = json!({"endpoint": {}, "signing": {"scheme": "logto"}});
    let changed = acme.client.put(&subscription.path(""), &asked).await.expect(200).json();
    assert_eq!(
        (&changed["signing"]["next"], changed["signing"]["keys"].as_array().map(Vec::len)),
        (&Value::Null, Some(1))
    );
    let of_logto = Trust::of("logto", changed["signing_secret"].as_str().unwrap(), None);
    assert_eq!(verifies(source, receiver, "two", [&of_logto, &staged]).await, [true, false]);
    // Without an overlap nothing is staged.
    let rotated =
        acme.client.post(&subscription.path("/rotate-key"), &json!({"overlap_hours": 0})).await.expect(200).json();
    let at_once = Trust::of("logto", rotated["signing_secret"].as_str().unwrap(), None);
    assert_eq!(verifies(source, receiver, "three", [&of_logto, &at_once]).await, [false, true]);
}

#[tokio::test]
async fn attempt_is_signed_with_the_current_key() {
    let World { acme, source, receiver, subscription, .. } =
        &World::with().signing("wso2", false).retry(&[1; 30]).start().await;
    let (rotated, new) = rotate(acme, subscription).await;
    receiver.otherwise(Reply::status(500));
    let id = subscription.delivery_of(&source.accept(event::set("one")).await);
    let first = receiver.received(1).await.remove(0);
    assert_eq!(subscription.verify(&first), Ok(()));
    acme.client.post(&subscription.path("/activate-key"), &json!({})).await.expect(200);
    receiver.otherwise(Reply::status(204));
    let delivered = acme.delivery_in("delivered", &id).await;
    let last = receiver.all().pop().expect("the last attempt");
    assert_eq!(new.verify(&last.headers, &last.body), Ok(()));
    let exchanges = delivered["attempts"].as_array().unwrap();
    let keys = &rotated["signing"]["keys"];
    assert_eq!(exchanges[0]["signed_with"], json!([keys[1]["id"]]));
    assert_eq!(exchanges.last().unwrap()["signed_with"], json!([keys[0]["id"]]));
}

/// A published private key, for an import.
const IMPORTED: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";

#[tokio::test]
async fn ed25519_key_signs_v1_and_stays_private() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let receiver = Receiver::start().await;
    let mut answers = Vec::new();
    for signing in [json!({"ed25519": true}), json!({"secret": IMPORTED})] {
        let made = acme.subscribe(&receiver).with("signing", signing).ask().await.expect(201);
        answers.push(made.text());
        let made = made.json();
        let public = made["signing_public_key"].as_str().expect("the public half is shown");
        assert_eq!(
            (&made["signing"]["keys"][0]["public"], &made["signing"]["with_v1"]),
            (&json!(public), &json!(true))
        );
        let v1 = Trust::V1(made["signing_secret"].as_str().expect("the secret of v1 is shown once").to_owned());
        let v1a = Trust::V1a(public.to_owned());
        let jti = format!("a{}", answers.len());
        assert_eq!(verifies(source, &receiver, &jti, [&v1, &v1a]).await, [true, true], "both, in one header");

        let path = acme.path(&format!("/subscriptions/{}", made["id"].as_str().unwrap()));
        let rotated = acme.client.post(&format!("{path}/rotate-key"), &json!({})).await.expect(200);
        answers.push(rotated.text());
        let rotated = rotated.json();
        let new_v1 = Trust::V1(rotated["signing_secret"].as_str().expect("another one").to_owned());
        assert_eq!(verifies(source, &receiver, &format!("{jti}b"), [&v1, &v1a]).await, [true, true], "both overlap");
        let new_v1a = Trust::V1a(rotated["signing_public_key"].as_str().unwrap().to_owned());
        assert_eq!(verifies(source, &receiver, &format!("{jti}c"), [&new_v1, &new_v1a]).await, [true, true]);

        let off = json!({"endpoint": {}, "signing": {"with_v1": false}});
        let off = acme.client.put(&path, &off).await.expect(200);
        answers.push(off.text());
        assert_eq!((&off.json()["signing"]["with_v1"], &off.json()["signing_secret"]), (&json!(false), &Value::Null));
        assert_eq!(verifies(source, &receiver, &format!("{jti}d"), [&new_v1, &new_v1a]).await, [false, true]);
        let rotated = acme.client.post(&format!("{path}/rotate-key"), &json!({})).await.expect(200);
        answers.push(rotated.text());
        assert_eq!(rotated.json()["signing"]["with_v1"], false, "the removed key stays off");
        let on = json!({"endpoint": {}, "signing": {"with_v1": true}});
        let on = acme.client.put(&path, &on).await.expect(200);
        answers.push(on.text());
        let on_again = Trust::V1(on.json()["signing_secret"].as_str().expect("a new one is shown once").to_owned());
        assert_eq!(verifies(source, &receiver, &format!("{jti}e"), [&new_v1, &on_again]).await, [false, true]);
        answers.push(acme.client.get(&path).await.expect(200).text());
        acme.client.delete(&path).await.expect(204);
    }
    answers.push(acme.get("/audit").await.to_string());
    for answer in answers {
        assert!(!answer.contains("whsk_") && !answer.contains("6Xb/dCcHpPea"), "a private half: {answer}");
    }
    for (signing, field) in
        [(json!({"with_v1": false}), "with_v1"), (json!({"scheme": "hub", "with_v1": true}), "with_v1")]
    {
        let refused = acme.subscribe(&receiver).with("signing", signing).ask().await;
        assert_eq!(refused.not_the_problem(422, "invalid_field"), None);
        assert!(refused.text().contains(field), "{}", refused.text());
    }
}
