//! Bad input: a precise answer, a count, and nothing stored.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::client::Answer;
use setgate_tests::{Client, Host, Receiver, Seed, Tenant, event};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

struct Story {
    host: Host,
    acme: Tenant,
}

impl Story {
    async fn new() -> Self {
        let host = Host::with().config("[ingest]\nbody_bytes_max = 4096").start().await;
        let acme = host.tenant("acme").await;
        for (name, seed) in [("open", Seed::Open), ("wso2", Seed::Wso2), ("token", Seed::Set), ("hook", Seed::Platform)]
        {
            acme.source(name, seed).await;
        }
        let strict = json!({"issuers_allowed": ["https://idp.example.com/"]});
        acme.source_with("strict", Seed::Open, &strict).await;
        acme.source_with("logto", Seed::Logto, &json!({"proofs": [{"kind": "open"}]})).await;
        Self { host, acme }
    }
}

/// A request that is refused.
struct Bad {
    what: &'static str,
    source: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
    /// The outcome label of the count, which is more precise than the answer to the sender.
    outcome: &'static str,
}

fn bad(what: &'static str, source: &'static str, body: impl Into<Vec<u8>>, status: u16, code: &'static str) -> Bad {
    let headers = vec![("content-type", "application/json".to_owned())];
    Bad { what, source, headers, body: body.into(), status, code, outcome: code }
}

impl Bad {
    fn counted(self, outcome: &'static str) -> Self {
        Self { outcome, ..self }
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.to_owned()));
        self
    }
}

fn bad_events() -> Vec<Bad> {
    let set = event::set("one");
    let without = |claim: &str| {
        let mut set: Value = serde_json::from_str(&set).unwrap();
        set.as_object_mut().unwrap().remove(claim);
        set.to_string()
    };
    let wso2 = event::wso2("one");
    let signed = Seed::Wso2.proof(wso2.as_bytes()).remove(0).1;
    let old = setgate_tests::signature::standard_headers(Seed::Platform.secret(), "msg_1", 1_600_000_000, b"{}");
    let mut expired = bad("signed years ago", "hook", "{}", 401, "bad_signature");
    expired.headers.extend(old);
    let deep = format!(r#"{{"iss":"i","jti":"j","iat":1,"events":{}1{}}}"#, "{\"a:b\":".repeat(65), "}".repeat(65));
    vec![
        bad("no JSON", "open", "not json", 400, "malformed_json"),
        bad("nothing", "open", "", 400, "malformed_json"),
        bad("JSON that breaks off", "open", &set[..set.len() - 1], 400, "malformed_json"),
        bad("something after the JSON", "open", format!("{set}{{}}"), 400, "malformed_json"),
        bad("bytes that are not UTF-8", "open", b"{\"iss\":\"\xff\"}".to_vec(), 400, "not_utf8"),
        bad("an array", "open", "[]", 400, "not_an_object"),
        bad("a key twice", "open", set.replacen('{', r#"{"iss":"x","#, 1), 400, "duplicate_key"),
        bad("too many levels", "open", deep, 400, "too_deep"),
        bad("no iss", "open", without("iss"), 400, "missing_claim"),
        bad("no jti", "open", without("jti"), 400, "missing_claim"),
        bad("no iat", "open", without("iat"), 400, "missing_claim"),
        bad("no events", "open", without("events"), 400, "missing_claim"),
        bad("events without a member", "open", r#"{"iss":"i","jti":"j","iat":1,"events":{}}"#, 400, "bad_claim"),
        bad("an event that is no URI", "open", r#"{"iss":"i","jti":"j","iat":1,"events":{"e":{}}}"#, 400, "bad_claim"),
        bad(
            "an event that is no object",
            "open",
            r#"{"iss":"i","jti":"j","iat":1,"events":{"a:b":1}}"#,
            400,
            "bad_claim",
        ),
        bad("iat as text", "open", set.replace("1615305159", "\"1615305159\""), 400, "bad_claim"),
        bad("an issuer that is not allowed", "strict", set.replace("idp.", "evil."), 400, "issuer_not_allowed"),
        bad("an event of another form", "open", event::logto("s1"), 400, "wrong_form"),
        bad("a SET where Logto's events are expected", "logto", set.clone(), 400, "wrong_form"),
        bad("no signature", "wso2", wso2.clone(), 401, "bad_signature"),
        bad("a signature of something else", "wso2", event::wso2("two"), 401, "bad_signature")
            .header("x-wso2-event-signature", &signed),
        bad("a signature without its prefix", "wso2", wso2.clone(), 401, "bad_signature")
            .header("x-wso2-event-signature", signed.trim_start_matches("sha256=")),
        bad("another scheme's header", "wso2", wso2, 401, "bad_signature").header("x-hub-signature", &signed),
        expired,
        bad("no token", "token", set.clone(), 401, "bad_signature").counted("bad_token"),
        bad("a wrong token", "token", set.clone(), 401, "bad_token").header("authorization", "Bearer source-secret"),
        bad("an unknown source", "nobody", set.clone(), 401, "bad_signature").counted("unknown_source"),
        bad("a source that is no name", "..%2f..", set.clone(), 404, "unknown_source"),
        bad("a body over the limit", "open", set.clone() + &" ".repeat(4096), 413, "body_too_large"),
        bad("a form", "open", set.clone(), 415, "unsupported_media_type")
            .header("content-type", "application/x-www-form-urlencoded"),
        bad("a signed SET", "open", set.clone(), 415, "unsupported_media_type")
            .header("content-type", "application/secevent+jwt"),
        bad("plain text", "open", set, 415, "unsupported_media_type").header("content-type", "text/plain"),
    ]
}

#[tokio::test]
async fn bad_event_is_counted_and_not_stored() {
    let story = Story::new().await;
    let sender = story.host.stranger();
    let mut faults = Vec::new();
    for request in bad_events() {
        let labels = format!("outcome=\"{}\"", request.outcome);
        let before = story.host.metric("setgate_ingest_total", &[&labels]).await;
        let headers: Vec<_> = request.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let path = format!("/ingest/acme/{}", request.source);
        let answer = sender.send(Method::POST, &path, &headers, request.body).await;
        faults
            .extend(answer.not_the_problem(request.status, request.code).map(|why| format!("{}: {why}", request.what)));
        let after = story.host.metric("setgate_ingest_total", &[&labels]).await;
        if after - before < 1.0 {
            faults.push(format!("{}: not counted under {labels}", request.what));
        }
    }
    assert!(faults.is_empty(), "{} answers are wrong:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(story.acme.get("/events").await["items"], json!([]), "nothing of a refused event is stored");
}

#[tokio::test]
async fn truncated_body_is_no_event() {
    let story = Story::new().await;
    let address = story.host.base().trim_start_matches("http://").to_owned();
    let mut connection = TcpStream::connect(&address).await.unwrap();
    let head =
        "POST /ingest/acme/open HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n";
    let half = format!("{head}{}", &event::set("one")[..50]);
    tokio::io::AsyncWriteExt::write_all(&mut connection, half.as_bytes()).await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(&mut connection).await.unwrap();
    setgate_tests::until("it is counted with its outcome", async || {
        let count = story.host.metric("setgate_ingest_total", &["outcome=\"body_broken\""]).await;
        (count == 1.0).then_some(())
    })
    .await;
    assert_eq!(story.acme.get("/events").await["items"], json!([]), "nothing of it is stored");
}

/// The parts of an answer that could distinguish two paths: everything except the request's id and the clock.
fn visible(answer: &Answer) -> String {
    let own = ["x-request-id", "date"];
    let headers = answer.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    format!("{} {:?} {}", answer.status, headers.collect::<Vec<_>>(), answer.text())
}

#[tokio::test]
async fn names_are_hidden_without_a_proof() {
    let story = Story::new().await;
    let sender = story.host.stranger();
    // A tenant that does not exist, another source of an existing tenant, and sources with every kind of proof.
    let keyed = json!({"proofs": [{"kind": "key"}]});
    story.acme.source_with("keyed", Seed::Set, &keyed).await;
    let places = ["nobody/wso2", "acme/nobody", "acme/setgate", "acme/wso2", "acme/token", "acme/hook", "acme/keyed"];
    let json = ("content-type", "application/json");
    let mac = "0".repeat(64);
    let prefixed = format!("sha256={mac}");
    let unknown_key = "Bearer sgk_01ARZ3NDEKTSV4RRFFQ69G5FAV_not-the-secret";
    let proofs: Vec<Vec<(&str, &str)>> = vec![
        vec![],
        vec![("authorization", "Bearer guess")],
        vec![("authorization", unknown_key)],
        vec![("authorization", "Basic Zm9v")],
        vec![("x-wso2-event-signature", prefixed.as_str())],
        vec![("x-wso2-event-signature", "?")],
        vec![("x-hub-signature", prefixed.as_str())],
        vec![("logto-signature-sha-256", mac.as_str())],
        vec![("webhook-signature", "v1,AAAA"), ("webhook-id", "x"), ("webhook-timestamp", "1")],
        vec![("webhook-signature", "v1,AAAA")],
        vec![("x-hub-signature", prefixed.as_str()), ("authorization", "Bearer guess")],
    ];
    let large = vec![b' '; 5000];
    let bodies: [(&str, (&str, &str), Vec<u8>); 6] = [
        ("an event", json, event::set("one").into_bytes()),
        ("no JSON", json, b"{".to_vec()),
        ("nothing", json, Vec::new()),
        ("too large", json, large),
        ("another type", ("content-type", "text/plain"), b"x".to_vec()),
        ("another coding", ("content-encoding", "br"), b"x".to_vec()),
    ];
    let mut faults = Vec::new();
    for proof in &proofs {
        for (what, header, body) in &bodies {
            let mut answers = Vec::new();
            for place in places {
                let headers: Vec<_> = proof.iter().copied().chain([*header]).collect();
                let answer = sender.send(Method::POST, &format!("/ingest/{place}"), &headers, body.clone()).await;
                assert!(answer.status >= 400, "{place}: {}", answer.text());
                answers.push((place, visible(&answer)));
            }
            let differ = answers.iter().filter(|(_, answer)| *answer != answers[0].1);
            faults.extend(differ.map(|(place, answer)| format!("{what}, {proof:?}, {place}: {answer}")));
        }
    }
    for (method, query) in [
        (Method::GET, "?hub.mode=subscribe&hub.topic=t&hub.challenge=c"),
        (Method::GET, "?hub.mode=unsubscribe&hub.topic=t&hub.challenge=c"),
        (Method::GET, "?hub.mode=denied&hub.topic=t"),
        (Method::GET, ""),
        (Method::GET, "/"),
        (Method::HEAD, "?hub.mode=unsubscribe&hub.topic=t&hub.challenge=c"),
        (Method::OPTIONS, ""),
        (Method::PUT, ""),
        (Method::DELETE, "/"),
        (Method::POST, "/"),
    ] {
        let mut answers = Vec::new();
        for place in places {
            let path = format!("/ingest/{place}{query}");
            answers.push((place, visible(&sender.send(method.clone(), &path, &[], "").await)));
        }
        let differ = answers.iter().filter(|(_, answer)| *answer != answers[0].1);
        faults.extend(differ.map(|(place, answer)| format!("{method} {query}, {place}: {answer}")));
    }
    assert!(faults.is_empty(), "{} answers differ by path:\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test]
async fn head_is_checked_before_the_body() {
    let story = Story::new().await;
    let address = story.host.base().trim_start_matches("http://").to_owned();
    for place in ["nobody/idp", "acme/wso2", "acme/token", "acme/hook"] {
        let mut connection = TcpStream::connect(&address).await.unwrap();
        let head = format!("POST /ingest/{place} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n");
        // Announced, but never sent.
        connection.write_all(format!("{head}content-length: 500\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        connection.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 401", "{place}");
    }
}

/// The answer to these bytes if the client has closed its sending side.
async fn half_closed(address: &str, request: &str) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    connection.shutdown().await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn half_closed_connection_gets_its_answer() {
    let story = Story::new().await;
    let address = story.host.base().trim_start_matches("http://").to_owned();
    let head = "POST /ingest/acme/open HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    for close in ["", "connection: close\r\n"] {
        let body = event::set(&format!("length{}", close.len()));
        let answer = half_closed(&address, &format!("{head}{close}content-length: {}\r\n\r\n{body}", body.len())).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "with a length, {close:?}: {answer}");
        let body = event::set(&format!("chunked{}", close.len()));
        let chunked = format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let answer = half_closed(&address, &format!("{head}{close}{chunked}")).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "in chunks, {close:?}: {answer}");
    }
    let body = event::set("old");
    let old = format!("POST /ingest/acme/open HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = half_closed(&address, &old).await;
    assert!(answer.contains(" 202 "), "HTTP/1.0: {answer}");
    let answer = half_closed(&address, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "without a body: {answer}");
}

#[tokio::test]
async fn only_chunked_transfer_coding_is_accepted() {
    let story = Story::new().await;
    let address = story.host.base().trim_start_matches("http://").to_owned();
    let body = event::set("one");
    for coding in ["gzip, chunked", "chunked, chunked", "identity, chunked", "deflate,chunked"] {
        let head =
            "POST /ingest/acme/open HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n";
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let answer = half_closed(&address, &format!("{head}transfer-encoding: {coding}\r\n\r\n{chunk}")).await;
        assert!(answer.starts_with("HTTP/1.1 501"), "{coding}: {answer}");
        assert!(answer.contains("unsupported_transfer_coding") && answer.contains(coding.split(',').next().unwrap()));
    }
    assert_eq!(story.acme.get("/events").await["items"], json!([]), "nothing of it is stored");
}

#[tokio::test]
async fn key_opens_its_own_tenant_only() {
    let story = Story::new().await;
    let globex = story.host.tenant("globex").await;
    let nobody = story.host.stranger();
    let unknown = nobody.with_key("sgk_01ARZ3NDEKTSV4RRFFQ69G5FAV_not-the-secret");
    let wrong = nobody.with_key(&format!("{}x", story.acme.key));
    let keys = story.acme.path("/keys");
    let reader = story.acme.client.post(&keys, &json!({"scopes": ["read"]})).await.expect(201).json();
    let reader = nobody.with_key(reader["key"].as_str().unwrap());
    let checks: [(&str, &Client, Method, String, u16, &str); 10] = [
        ("no key", &nobody, Method::GET, story.acme.path("/sources"), 401, "bad_key"),
        ("an unknown key", &unknown, Method::GET, story.acme.path("/sources"), 401, "bad_key"),
        ("a wrong secret", &wrong, Method::GET, story.acme.path("/sources"), 401, "bad_key"),
        ("another tenant's key", &globex.client, Method::GET, story.acme.path("/sources"), 403, "forbidden"),
        (
            "another tenant's key, to write",
            &globex.client,
            Method::DELETE,
            story.acme.path("/sources/open"),
            403,
            "forbidden",
        ),
        ("an unknown tenant", &globex.client, Method::GET, "/api/v1/tenants/nobody/sources".into(), 403, "forbidden"),
        (
            "a tenant's key for the operator's list",
            &globex.client,
            Method::GET,
            "/api/v1/tenants".into(),
            403,
            "forbidden",
        ),
        ("a tenant's key to remove its tenant", &globex.client, Method::DELETE, globex.path("/"), 403, "forbidden"),
        ("a reader who writes", &reader, Method::DELETE, story.acme.path("/sources/open"), 403, "forbidden"),
        (
            "the operator, for an unknown tenant",
            story.host.operator(),
            Method::GET,
            "/api/v1/tenants/nobody/sources".into(),
            404,
            "not_found",
        ),
    ];
    for (what, client, method, path, status, code) in checks {
        let path = path.trim_end_matches('/');
        assert_eq!(client.send(method, path, &[], "").await.not_the_problem(status, code), None, "{what}: {path}");
    }
    reader.get(&story.acme.path("/sources")).await.expect(200);
    story.acme.get("/sources/open").await;

    // An ended key is not accepted.
    let id = story.acme.get("/keys").await["items"][1]["id"].as_str().unwrap().to_owned();
    story.acme.client.delete(&story.acme.path(&format!("/keys/{id}"))).await.expect(204);
    let ended = reader.get(&story.acme.path("/sources")).await;
    assert_eq!(ended.not_the_problem(401, "bad_key"), None, "a removed key");
}

#[tokio::test]
async fn bad_management_request_names_the_error() {
    let story = Story::new().await;
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let key = json!({"label": "x", "scopes": ["operator"]});
    let source = |proofs: Value| json!({"form": "set", "proofs": proofs});
    let to = |more: Value| {
        let mut asked = json!({"endpoint": {"url": url}});
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        asked
    };
    let delivery = "dlv_01ARZ3NDEKTSV4RRFFQ69G5FAV_01ARZ3NDEKTSV4RRFFQ69G5FAV_0";
    let (post, put, get) = (Method::POST, Method::PUT, Method::GET);
    let acme = |below: &str| story.acme.path(below);
    let checks: Vec<(&str, &Method, String, Value, u16, &str)> = vec![
        ("an unknown route", &get, "/nowhere".into(), Value::Null, 404, "no_route"),
        ("an unknown route of a tenant", &get, acme("/nowhere"), Value::Null, 404, "no_route"),
        ("a wrong method", &Method::DELETE, acme("/sources"), Value::Null, 405, "no_method"),
        ("a wrong method at ingest", &put, "/ingest/acme/open".into(), json!({}), 405, "no_method"),
        ("an invalid id", &get, acme("/deliveries/17"), Value::Null, 404, "not_found"),
        (
            "an id of something else",
            &get,
            acme("/events/sub_01ARZ3NDEKTSV4RRFFQ69G5FAV"),
            Value::Null,
            404,
            "not_found",
        ),
        ("an unknown delivery", &get, acme(&format!("/deliveries/{delivery}")), Value::Null, 404, "not_found"),
        ("an invalid name", &put, acme("/sources/A_B"), source(json!([{"kind": "open"}])), 404, "not_found"),
        ("an invalid query", &get, acme("/deliveries?state=lost"), Value::Null, 400, "invalid_query"),
        ("an unknown query", &get, acme("/deliveries?colour=red"), Value::Null, 400, "invalid_query"),
        ("an invalid cursor", &get, acme("/deliveries?cursor=zzz"), Value::Null, 400, "bad_cursor"),
        ("an unknown member", &put, acme("/sources/x"), json!({"form": "set", "proof": []}), 400, "invalid_body"),
        ("an unknown form", &put, acme("/sources/x"), json!({"form": "xml", "proofs": []}), 400, "invalid_body"),
        ("no proof", &put, acme("/sources/x"), source(json!([])), 422, "invalid_field"),
        (
            "a secret that can be guessed",
            &put,
            acme("/sources/x"),
            source(json!([{"kind": "bearer", "tokens": ["1234"]}])),
            422,
            "invalid_field",
        ),
        ("a key for the operator", &post, acme("/keys"), key, 422, "invalid_field"),
        (
            "an invalid endpoint",
            &post,
            acme("/subscriptions"),
            json!({"endpoint": {"url": "ftp://x"}}),
            422,
            "invalid_field",
        ),
        ("no event patterns", &post, acme("/subscriptions"), to(json!({"events": []})), 422, "invalid_field"),
        ("an unknown source", &post, acme("/subscriptions"), to(json!({"sources": ["nobody"]})), 422, "invalid_field"),
        (
            "an unknown filter",
            &post,
            acme("/subscriptions"),
            to(json!({"chain": [{"filter": "nobody"}]})),
            422,
            "invalid_field",
        ),
        (
            "a short secret",
            &post,
            acme("/subscriptions"),
            to(json!({"signing": {"secret": "whsec_c2hvcnQ="}})),
            422,
            "invalid_field",
        ),
        (
            "ed25519 for a hub",
            &post,
            acme("/subscriptions"),
            to(json!({"signing": {"scheme": "hub", "ed25519": true}})),
            422,
            "invalid_field",
        ),
        (
            "a schedule without end",
            &post,
            acme("/subscriptions"),
            to(json!({"retry": vec![1; 31]})),
            400,
            "invalid_body",
        ),
    ];
    let mut faults = Vec::new();
    for (what, method, path, body, status, code) in checks {
        let answer = match body {
            Value::Null => story.acme.client.send(method.clone(), &path, &[], "").await,
            body => {
                story.acme.client.send(method.clone(), &path, &[setgate_tests::client::JSON], body.to_string()).await
            }
        };
        faults.extend(answer.not_the_problem(status, code).map(|why| format!("{what}: {why}")));
    }
    let text = [("content-type", "text/plain")];
    let answer = story.acme.client.send(post, &acme("/subscriptions"), &text, "{}").await;
    faults.extend(answer.not_the_problem(415, "unsupported_media_type").map(|why| format!("plain text: {why}")));
    let answer = story.acme.client.send(put, &acme("/filters/x"), &text, "{}").await;
    faults.extend(answer.not_the_problem(415, "unsupported_media_type").map(|why| format!("a filter as text: {why}")));
    let lines = [("content-type", "application/jsonl")];
    let table = story.acme.client.send(Method::PUT, &acme("/tables/x"), &lines, "{\"key\":\"a\"}").await;
    faults.extend(table.not_the_problem(422, "invalid_field").map(|why| format!("a bad row: {why}")));

    assert!(faults.is_empty(), "{} answers are wrong:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(story.acme.get("/subscriptions").await["items"], json!([]), "nothing refused is stored");
    assert_eq!(story.acme.get("/sources").await["items"].as_array().map(Vec::len), Some(6), "no source either");
}

#[tokio::test]
async fn stale_change_is_refused() {
    let story = Story::new().await;
    let receiver = Receiver::start().await;
    let subscription = story.acme.subscribe(&receiver).create().await;
    let shown = story.acme.client.get(&subscription.path("")).await.expect(200);
    let etag = shown.header("etag").expect("an ETag").to_owned();
    let asked = json!({"endpoint": {"url": receiver.url()}, "description": "changed"}).to_string();
    let change = async |etag: &str| {
        let headers = [setgate_tests::client::JSON, ("if-match", etag)];
        story.acme.client.send(Method::PUT, &subscription.path(""), &headers, asked.clone()).await
    };
    change(&etag).await.expect(200);
    let late = change(&etag).await;
    assert_eq!(late.not_the_problem(412, "version_changed"), None, "its ETag is of the version before");
}

#[tokio::test]
async fn http_endpoints_are_refused_by_default() {
    let host = Host::with().env("SETGATE_EGRESS__ALLOW_HTTP", "false").start().await;
    let acme = host.tenant("acme").await;
    let receiver = Receiver::start().await;
    let refused = acme.subscribe(&receiver).ask().await;
    assert_eq!(refused.not_the_problem(422, "invalid_field"), None);
    assert!(refused.text().contains("allow_http"), "it names the setting of the operator: {}", refused.text());
}

#[tokio::test]
async fn backlog_limit_hits_its_tenant_only() {
    let host = Host::start().await;
    let acme = host.tenant_with("acme", json!({"quota": {"backlog_deliveries_max": 3}})).await;
    let globex = host.tenant("globex").await;
    let (full, free) = (acme.source("idp", Seed::Set).await, globex.source("idp", Seed::Set).await);
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    subscription.pause().await;
    for number in 0..3 {
        let accepted = full.accept(event::set(&format!("e{number}"))).await;
        acme.delivery_in("due", &subscription.delivery_of(&accepted)).await;
    }

    let refused = full.send(event::set("one-too-many")).await;
    assert_eq!(refused.not_the_problem(429, "backlog_full"), None);
    assert!(refused.header("retry-after").is_some(), "it says when to retry");
    free.accept(event::set("one")).await;

    subscription.resume().await;
    receiver.received(3).await;
    setgate_tests::until("requests are accepted again", async || {
        (full.send(event::set("one-too-many")).await.status == 202).then_some(())
    })
    .await;
}
