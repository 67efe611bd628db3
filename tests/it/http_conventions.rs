//! Everything around a request's body: query parameters, missing or empty bodies, trailing slashes, methods, versions.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::client::JSON;
use setgate_tests::{Everything, Host, Seed, event};

#[tokio::test]
async fn unknown_parameter_is_refused_with_a_suggestion() {
    let host = Host::start().await;
    let all = Everything::at(&host).await;
    let acme = &all.tenant;
    let operator = host.operator();
    let (get, put, post, delete) = (Method::GET, Method::PUT, Method::POST, Method::DELETE);
    let at = |below: &str| acme.path(below);
    for (client, method, path, words) in [
        (&acme.client, &get, at("/sources?limt=2"), "did you mean `limit`?"),
        (&acme.client, &get, at("/events?Cursor=x"), "did you mean `cursor`?"),
        (&acme.client, &get, at("/events?colour=red"), "`since`"),
        (&acme.client, &get, at("/sources/idp?verbose"), "and no other"),
        (&acme.client, &get, at("?pretty=1"), "and no other"),
        (&acme.client, &Method::HEAD, at("/sources/idp?x=1"), ""),
        (&acme.client, &put, at("/sources/idp?dry_run=true"), "`dry_run`"),
        (&acme.client, &put, at("/filters/gate?activated=false"), "did you mean `activate`?"),
        (&acme.client, &post, at("/keys?label=x"), "`label`"),
        (&acme.client, &delete, at("/sources/idp?force=1"), "`force`"),
        (&acme.client, &get, at("/statistics?windows=1h"), "did you mean `window`?"),
        (&acme.client, &get, at("/deliveries/tail?stat=dead"), "did you mean `state`?"),
        (operator, &get, "/api/v1/tenants?page=2".into(), "`page`"),
        (operator, &get, "/healthz?x=1".into(), "`x`"),
        (operator, &get, "/metrics?x=1".into(), "`x`"),
        (operator, &get, "/openapi.json?x=1".into(), "`x`"),
    ] {
        let answer = client.send(method.clone(), &path, &[JSON], "").await;
        if *method == Method::HEAD {
            answer.expect(400);
            continue;
        }
        assert_eq!(answer.not_the_problem(400, "invalid_query"), None, "{method} {path}");
        assert!(answer.text().contains(words), "{method} {path}: {}", answer.text());
    }
    acme.get("/sources/idp").await;
    acme.get("/sources?").await;
    let stranger = host.stranger().get(&at("/sources?limt=2")).await;
    assert_eq!(stranger.not_the_problem(401, "bad_key"), None, "an answer without a key does not reveal the route");
    // Senders and hubs add their own parameters.
    let source = acme.source("sender", Seed::Open).await;
    let _ = source;
    host.stranger()
        .send(Method::POST, "/ingest/acme/sender?utm=1&limit=x", &[JSON], event::set("odd"))
        .await
        .expect(202);
}

#[tokio::test]
async fn post_without_a_body_means_an_empty_object() {
    let host = Host::start().await;
    let all = Everything::at(&host).await;
    let acme = &all.tenant;
    let subscription = format!("/subscriptions/{}", all.subscription("delivered"));
    let form = ("content-type", "application/x-www-form-urlencoded");
    for headers in [&[][..], &[JSON], &[form]] {
        for (below, status) in [
            (format!("{subscription}/pause"), 200),
            (format!("{subscription}/resume"), 200),
            (format!("{subscription}/rotate-key"), 200),
            (format!("{subscription}/test"), 202),
            ("/keys".to_owned(), 201),
            (format!("/keys/{}/rotate", all.key), 201),
            (format!("/deliveries/{}/redrive", all.delivery("dead")), 200),
        ] {
            let answer = acme.client.send(Method::POST, &acme.path(&below), headers, "").await;
            // The third rotation of one key fails because the key has ended.
            assert!(answer.status == status || answer.status == 409, "POST {below} {headers:?}: {}", answer.text());
        }
        host.operator().send(Method::POST, "/api/v1/keys", headers, "").await.expect(201);
        let missing = acme.client.send(Method::POST, &acme.path("/replays"), headers, "").await;
        assert_eq!(missing.not_the_problem(400, "invalid_body"), None);
        assert!(missing.text().contains("missing field `subscription`"), "{}", missing.text());
    }
    // A body needs its type, and a PUT its body.
    let typeless = acme.client.send(Method::POST, &acme.path("/keys"), &[], "{}").await;
    assert_eq!(typeless.not_the_problem(415, "unsupported_media_type"), None);
    let typeless = acme.client.send(Method::PUT, &acme.path("/sources/new"), &[], "").await;
    assert_eq!(typeless.not_the_problem(415, "unsupported_media_type"), None);
    let empty = acme.client.send(Method::PUT, &acme.path("/sources/new"), &[JSON], "").await;
    assert_eq!(empty.not_the_problem(400, "invalid_body"), None);
}

#[tokio::test]
async fn created_is_201_with_location() {
    let host = Host::start().await;
    let made = host.operator().post("/api/v1/tenants", &json!({"id": "acme"})).await.expect(201);
    assert_eq!(made.header("location"), Some("/api/v1/tenants/acme"));
    let acme = host.tenant("globex").await;
    let receiver = setgate_tests::Receiver::start().await;
    let open = json!({"form": "set", "proofs": [{"kind": "open"}]}).to_string();
    let endpoint = json!({"endpoint": {"url": receiver.url()}}).to_string();
    let wasm = setgate_tests::place::filter("drop-by-type");
    let (put, post) = (Method::PUT, Method::POST);
    let rows: &[u8] = br#"{"key":"a","value":1}"#;
    let mut places = Vec::new();
    for (method, below, media_type, body) in [
        (&put, "/sources/idp", "application/json", open.as_bytes()),
        (&put, "/filters/gate", "application/wasm", &wasm),
        (&put, "/tables/t", "application/jsonl", rows),
        (&post, "/subscriptions", "application/json", endpoint.as_bytes()),
        (&post, "/keys", "application/json", b"{}"),
    ] {
        let made =
            acme.client.send(method.clone(), &acme.path(below), &[("content-type", media_type)], body.to_vec()).await;
        let made = made.expect(201);
        let place = made.header("location").unwrap_or_else(|| panic!("{below} has a place")).to_owned();
        let shown = acme.client.get(&place).await.expect(200);
        assert_eq!(shown.header("etag"), made.header("etag"), "{below}");
        let known = acme.client.send(Method::GET, &place, &[("if-none-match", made.header("etag").unwrap())], "").await;
        assert!(known.expect(304).body.is_empty(), "{below}");
        let weak = format!("\"other\", W/{}", made.header("etag").unwrap());
        acme.client.send(Method::HEAD, &place, &[("if-none-match", &weak)], "").await.expect(304);
        places.push(place);
        if *method == put {
            let again =
                acme.client.send(put.clone(), &acme.path(below), &[("content-type", media_type)], body.to_vec()).await;
            assert_eq!(again.expect(200).header("location"), None, "{below} is there");
        }
    }
    let subscription = json!({"subscription": places[3].rsplit('/').next(), "since": "2020-01-01T00:00:00Z"});
    let replay = acme.client.post(&acme.path("/replays"), &subscription).await.expect(201);
    acme.client.get(replay.header("location").expect("its place")).await.expect(200);
    let rotated = acme.client.post(&format!("{}/rotate", places[4]), &json!({})).await.expect(201);
    acme.client.get(rotated.header("location").expect("its place")).await.expect(200);
    let sent = acme.client.post(&format!("{}/test", places[3]), &json!({})).await.expect(202);
    let delivery = sent.header("location").expect("its place").to_owned();
    setgate_tests::until("it is in the history", async || {
        (acme.client.get(&delivery).await.status == 200).then_some(())
    })
    .await;
    let other = acme.upload("gate", setgate_tests::place::filter("redact-claims")).await.expect(201).json();
    let active = acme.upload("gate", wasm).await.expect(200).json();
    assert_ne!(active["active"], other["active"]);
    let shadow = json!({"digest": other["active"], "mode": "shadow"});
    let begun = acme.client.put(&acme.path("/filters/gate/rollout"), &shadow).await.expect(201);
    acme.client.get(begun.header("location").expect("its place")).await.expect(200);
}

#[tokio::test]
async fn trailing_slash_is_accepted() {
    let host = Host::start().await;
    let all = Everything::at(&host).await;
    let acme = &all.tenant;
    for below in ["", "/sources", "/sources/idp", "/filters/gate/rollout", "/deliveries"] {
        let (with, without) = (acme.get(&format!("{below}/")).await, acme.get(below).await);
        assert_eq!(with, without, "{below}");
    }
    let cursor = acme.get("/subscriptions?limit=1").await["next"].as_str().unwrap().to_owned();
    acme.get(&format!("/subscriptions/?cursor={cursor}")).await;
    let unknown = acme.client.get(&acme.path("/sources/?limt=1")).await;
    assert_eq!(unknown.not_the_problem(400, "invalid_query"), None);
    acme.client.get(&acme.path("/sources//")).await.expect(404);
    assert_eq!(acme.client.get(&acme.path("/sources/idp/x")).await.not_the_problem(404, "no_route"), None);
    let metrics = host.operator().get("/metrics").await.expect(200).text();
    assert!(!metrics.contains("/sources/\""), "it is counted as one route");
}

#[tokio::test]
async fn options_lists_the_methods() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    for (path, allow) in [
        (acme.path("/keys"), "GET,HEAD,POST"),
        (acme.path("/sources/x"), "GET,HEAD,PUT,DELETE"),
        ("/api/v1/tenants".to_owned(), "GET,HEAD,POST"),
    ] {
        let answer = host.stranger().send(Method::OPTIONS, &path, &[], "").await.expect(204);
        assert_eq!(answer.header("allow"), Some(allow), "{path}");
        let answer = acme.client.send(Method::PATCH, &path, &[], "").await;
        assert_eq!(answer.not_the_problem(405, "no_method"), None, "{path}");
        assert_eq!(answer.header("allow"), Some(allow), "{path}");
    }
    host.stranger().send(Method::OPTIONS, "/nowhere", &[], "").await.expect(404);
}

#[tokio::test]
async fn keys_have_versions() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    for (client, list) in [(&acme.client, acme.path("/keys")), (host.operator(), "/api/v1/keys".to_owned())] {
        let made = client.post(&list, &json!({"label": "a"})).await.expect(201);
        let (path, tag) = (made.header("location").unwrap().to_owned(), made.header("etag").unwrap().to_owned());
        let change = async |tag: &str, label: &str| {
            let body = json!({"label": label}).to_string();
            client.send(Method::PATCH, &path, &[JSON, ("if-match", tag)], body).await
        };
        let labelled = change(&tag, "b").await.expect(200);
        assert_eq!(change(&tag, "c").await.not_the_problem(412, "version_changed"), None);
        let shown = client.get(&path).await.expect(200);
        assert_eq!((shown.header("etag"), &shown.json()["label"]), (labelled.header("etag"), &json!("b")));
        for (method, path) in [(Method::DELETE, path.clone()), (Method::POST, format!("{path}/rotate"))] {
            let stale = client.send(method, &path, &[("if-match", &tag)], "").await;
            assert_eq!(stale.not_the_problem(412, "version_changed"), None);
        }
        let now = shown.header("etag").unwrap();
        client.send(Method::DELETE, &path, &[("if-match", now)], "").await.expect(204);
        assert_eq!(client.get(&path).await.not_the_problem(404, "not_found"), None);
    }
    let _: Value = acme.get("/keys").await;
}
