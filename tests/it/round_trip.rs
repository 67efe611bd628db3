//! A document from a GET can be sent back unchanged without changing anything, including its secrets.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::client::JSON;
use setgate_tests::{Everything, Host, Ingest, Seed, World, event};

#[tokio::test]
async fn every_document_can_be_sent_back_unchanged() {
    let host = Host::start().await;
    let all = Everything::at(&host).await;
    let acme = &all.tenant;
    let issuers = json!({"issuers_allowed": ["https://idp.example.com/"], "websub_topics": ["a*"]});
    acme.source_with("signed", Seed::Wso2, &issuers).await;
    acme.source("tokens", Seed::Set).await;
    let (put, patch) = (Method::PUT, Method::PATCH);
    let operator = host.operator();
    let operators = operator.post("/api/v1/keys", &json!({"label": "spare"})).await.expect(201);
    for (client, method, path) in [
        (&acme.client, &put, acme.path("/sources/idp")),
        (&acme.client, &put, acme.path("/sources/signed")),
        (&acme.client, &put, acme.path("/sources/tokens")),
        (&acme.client, &put, acme.path("/filters/gate/rollout")),
        (&acme.client, &patch, acme.path(&format!("/keys/{}", all.key))),
        (operator, &patch, format!("/api/v1/keys/{}", operators.json()["id"].as_str().unwrap())),
        (operator, &patch, acme.path("")),
    ] {
        let shown = client.get(&path).await.expect(200);
        let headers = [JSON, ("if-match", shown.header("etag").expect("a version"))];
        let sent = client.send(method.clone(), &path, &headers, shown.body.clone()).await.expect(200);
        // The rollout's report may have grown meanwhile.
        let without = |mut document: Value| {
            document.as_object_mut().unwrap().remove("report");
            document
        };
        assert_eq!(without(sent.json()), without(shown.json()), "{method} {path}");
    }
    for (path, media_type) in [("/filters/gate", "application/wasm"), ("/tables/users", "application/jsonl")] {
        let shown = acme.get(path).await;
        let digest = shown["active"].as_str().or(shown["digest"].as_str()).unwrap();
        let bytes = acme.client.get(&acme.path(&format!("{path}/versions/{digest}"))).await.expect(200).body;
        let sent = acme.client.send(Method::PUT, &acme.path(path), &[("content-type", media_type)], bytes).await;
        assert_eq!(sent.expect(200).json()["versions"], shown["versions"], "{path}");
    }
}

#[tokio::test]
async fn name_must_match_the_path() {
    let host = Host::start().await;
    let all = Everything::at(&host).await;
    let acme = &all.tenant;
    let operator = host.operator();
    let (put, patch) = (Method::PUT, Method::PATCH);
    let source = json!({"form": "set", "proofs": [{"kind": "open"}], "name": "other"});
    let rollout = json!({"digest": all.gate[1], "mode": "shadow", "filter": "other"});
    let key = json!({"label": null, "id": "key_01ARZ3NDEKTSV4RRFFQ69G5FAV"});
    for (client, method, path, body) in [
        (&acme.client, &put, acme.path("/sources/idp"), source),
        (&acme.client, &put, acme.path("/filters/gate/rollout"), rollout),
        (&acme.client, &patch, acme.path(&format!("/keys/{}", all.key)), key),
        (operator, &patch, acme.path(""), json!({"display_name": null, "id": "other"})),
    ] {
        let refused = client.send(method.clone(), &path, &[JSON], body.to_string()).await;
        assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "{method} {path}");
        let unknown = client.send(method.clone(), &path, &[JSON], r#"{"colour": "red"}"#).await;
        assert_eq!(unknown.not_the_problem(400, "invalid_body"), None, "{method} {path}");
    }
}

#[tokio::test]
async fn masked_source_secrets_are_kept() {
    let Ingest { acme, source: signed, .. } = &World::with().source("signed", Seed::Wso2).start_ingest().await;
    let tokens = acme.source("tokens", Seed::Set).await;
    let paths = [acme.path("/sources/signed"), acme.path("/sources/tokens")];
    let works = async |index: usize, number: usize| match index {
        0 => signed.accept(event::wso2(&format!("w{number}"))).await,
        _ => tokens.accept(event::set(&format!("s{number}"))).await,
    };
    let member = ["secrets", "tokens"];
    for (index, path) in paths.iter().enumerate() {
        let shown = acme.client.get(path).await.expect(200).json();
        assert_eq!(shown["proofs"][0][member[index]], json!(["***"]), "{shown}");
        // Sent back as shown; without secrets; without proofs; with another secret beside it, and another proof before
        // it.
        let mut without = shown.clone();
        without["proofs"][0].as_object_mut().unwrap().remove(member[index]);
        let bare = json!({"form": shown["form"]});
        let mut beside = shown.clone();
        beside["proofs"][0][member[index]] = json!(["***", "another-secret-4711"]);
        let first =
            if index == 0 { json!({"kind": "bearer", "tokens": ["a-token-4711"]}) } else { json!({"kind": "key"}) };
        beside["proofs"].as_array_mut().unwrap().insert(0, first);
        for (number, body) in [&shown, &without, &bare, &beside].into_iter().enumerate() {
            acme.client.put(path, body).await.expect(200);
            assert!(!works(index, number).await.duplicate);
        }
        let mut removed = shown.clone();
        removed["proofs"] = json!([{"kind": "key"}, shown["proofs"][0].clone()]);
        removed["proofs"][1][member[index]] = Value::Null;
        let left = acme.client.put(path, &removed).await.expect(200).json();
        assert_eq!(left["proofs"], json!([{"kind": "key"}]), "null removes them");
        // No stored secret is left that could be reused.
        for body in [&shown, &without] {
            let refused = acme.client.put(path, body).await;
            assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "{body}");
        }
        removed["proofs"].as_array_mut().unwrap().remove(0);
        let refused = acme.client.put(path, &removed).await;
        assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "one proof has to be left");
    }
    let stopped = signed.send(event::wso2("late")).await;
    assert_eq!(stopped.status, 401, "{}", stopped.text());
    let new = acme.client.put(&acme.path("/sources/new"), &json!({"form": "set"})).await;
    assert_eq!(new.not_the_problem(422, "invalid_field"), None, "a new source has nothing stored");
}
