//! SETs that one host signs and another one receives.

use serde_json::json;
use setgate_tests::{Host, Receiver, World, event};

use super::make;

#[tokio::test]
async fn one_host_signs_and_another_verifies() {
    let config = "[server]\npublic_url = \"https://edge.example\"\n";
    let sender = World::with().config(config).start_ingest().await;
    let receiving = Host::start().await;
    let zeta = receiving.tenant("zeta").await;
    let receiver = Receiver::start().await;
    zeta.subscribe(&receiver).create().await;
    for algorithm in ["RS256", "EdDSA"] {
        let key = json!({"algorithm": algorithm});
        sender.acme.client.post(&sender.acme.path("/issuer-keys"), &key).await.expect(201);
        let (audience, credential) = (format!("https://zeta.example/{algorithm}"), format!("Bearer for-{algorithm}"));
        let settings = json!({"form": "set", "proofs": [{
            "kind": "jws", "issuer": "https://edge.example/t/acme", "audience": [audience], "algorithms": [algorithm],
            "jwks_url": format!("{}/t/acme/jwks.json", sender.host.base()), "authorization": credential,
        }]});
        let path = make(&zeta, &algorithm.to_lowercase(), &settings).await;
        let endpoint = json!({"url": format!("{}{path}", receiving.base()), "headers": {"authorization": credential}});
        let asked = sender.acme.subscribe(&receiver).format("signed_set");
        let asked = asked.with("signed_set", json!({"audience": [audience], "algorithm": algorithm}));
        asked.with("endpoint", endpoint).ask().await.expect(201);
    }
    let accepted = sender.source.accept(event::about("one", "u-17")).await;
    let mut audiences = Vec::new();
    for received in receiver.received(2).await {
        let claims = received.json();
        assert_eq!(claims["iss"], "https://edge.example/t/acme");
        assert_eq!(claims["sub_id"]["sub"], "u-17");
        audiences.push(claims["aud"].as_str().unwrap().to_owned());
    }
    audiences.sort();
    assert_eq!(audiences, ["https://zeta.example/EdDSA", "https://zeta.example/RS256"]);
    let query = format!("event={}&state=delivered", accepted.event);
    setgate_tests::until("both are delivered", async || {
        (sender.acme.deliveries(&query).await.len() == 2).then_some(())
    })
    .await;
}
