//! Each example filter end to end, and the life cycle of a filter: upload, activation, faults.

use serde_json::{Value, json};
use setgate_tests::hostile::guest::{Calls, Guest};
use setgate_tests::{Accepted, Host, Ingest, Received, Receiver, Seed, Source, Subscription, Tenant, World, event};

/// A tenant with one source, one filter and one subscription that binds it.
struct Story {
    _host: Host,
    acme: Tenant,
    source: Source,
    receiver: Receiver,
    subscription: Subscription,
    digest: String,
}

impl Story {
    async fn of(seed: Seed, filter: &str, binding: Value) -> Self {
        let Ingest { host, acme, source } = World::with().source("idp", seed).start_ingest().await;
        let digest = acme.filter(filter).await;
        acme.table("apps", &[("a1", json!({"owner": "team-shop"}))]).await;
        acme.table("organizations", &[("o1", json!({"region": "eu"}))]).await;
        let receiver = Receiver::start().await;
        let mut chain = json!([binding]);
        chain[0]["filter"] = json!(filter);
        chain[0]["grants"] = acme.needs(filter).await;
        let subscription = acme.subscribe(&receiver).chain(chain).create().await;
        Self { _host: host, acme, source, receiver, subscription, digest }
    }

    /// Waits until the delivery of an event is in a state, and checks the run in its history.
    async fn ran(&self, event: &Accepted, state: &str, verdict: Value) -> Value {
        let delivery = self.acme.delivery_in(state, &self.subscription.delivery_of(event)).await;
        let run = &delivery["runs"][0];
        assert_eq!(run["verdict"], verdict, "the verdict is in the history: {delivery}");
        assert_eq!(run["digest"], json!(self.digest), "the version that ran is in the history: {delivery}");
        assert!(run["fuel"].as_u64().is_some_and(|fuel| fuel > 0), "the fuel is in the history: {delivery}");
        assert!(run["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "so is the memory: {delivery}");
        delivery
    }

    /// The only delivery that arrived, with its signature verified.
    async fn arrived(&self) -> Received {
        let received = self.receiver.received(1).await.remove(0);
        assert_eq!(self.subscription.verify(&received), Ok(()), "the filtered bytes are the signed bytes");
        received
    }
}

fn body_of(received: &Received, kind: &str) -> Value {
    received.json()["events"][kind].clone()
}

#[tokio::test]
async fn drop_by_type_drops_with_a_reason() {
    let story = Story::of(Seed::Wso2, "drop-by-type", json!({"config": {"drop": ["loginFailed"]}})).await;
    let accepted = story.source.accept(event::wso2("one")).await;
    let dropped = story.ran(&accepted, "dropped", json!("drop")).await;
    let reason = dropped["reason"].as_str().unwrap();
    assert!(reason.contains("loginFailed") && reason.contains("drop-by-type"), "the reason names both: {reason}");
    assert_eq!(dropped["attempt_count"], 0, "nothing was sent");

    let other = event::wso2("two").replace("loginFailed", "loginSuccess");
    let accepted = story.source.accept(other).await;
    story.ran(&accepted, "delivered", json!("pass")).await;
    assert_eq!(story.arrived().await.json()["jti"], "two", "only the passed event arrives");
    assert_eq!(story.receiver.count(), 1, "the dropped event does not arrive");
}

#[tokio::test]
async fn redact_claims_leaves_only_a_hash() {
    let story = Story::of(Seed::Logto, "redact-claims", json!({"secrets": {"salt": "pepper-4711"}})).await;
    let accepted = story.source.accept(event::logto("s1")).await;
    story.ran(&accepted, "delivered", json!("patch")).await;
    let received = story.arrived().await;
    for personal in ["jane@example.com", "Jane Doe", "203.0.113.10", "\"jane\""] {
        assert!(!received.text().contains(personal), "{personal} must not leave: {}", received.text());
    }
    assert!(received.text().contains("hmac:"), "it is replaced by a hash: {}", received.text());
    assert!(received.text().contains("u-17"), "the user's id stays, to correlate by: {}", received.text());
    let shown = story.subscription.show().await.to_string();
    assert!(!shown.contains("pepper-4711"), "a binding's secret is never shown again: {shown}");
}

#[tokio::test]
async fn enrich_from_table_adds_table_values() {
    let story = Story::of(Seed::Wso2, "enrich-from-table", json!({})).await;
    let accepted = story.source.accept(event::wso2("one")).await;
    story.ran(&accepted, "delivered", json!("patch")).await;
    let body = body_of(&story.arrived().await, event::WSO2_TYPE);
    assert_eq!(body["context"], json!({"owner": "team-shop", "region": "eu"}), "both rows are found");
    assert_eq!(body["application"]["name"], "Shop", "the rest stays");
}

#[tokio::test]
async fn flag_suspicious_login_adds_a_risk() {
    let story = Story::of(Seed::Wso2, "flag-suspicious-login", json!({"config": {"failed_attempts": 4}})).await;
    let accepted = story.source.accept(event::wso2("one")).await;
    story.ran(&accepted, "delivered", json!("patch")).await;
    let risk = body_of(&story.arrived().await, event::WSO2_TYPE)["risk"].clone();
    assert_eq!(risk["level"], "high", "a failed login, four times, by curl: {risk}");
    let reasons = risk["reasons"].to_string();
    assert!(reasons.contains("4 failed attempts"), "the reasons are listed: {reasons}");
}

#[tokio::test]
async fn translate_to_caep_writes_caep_events() {
    let story = Story::of(Seed::Logto, "translate-to-caep", json!({})).await;
    let accepted = story.source.accept(event::logto("s1")).await;
    story.ran(&accepted, "delivered", json!("replace")).await;
    let set = story.arrived().await.json();
    let kind = "https://schemas.openid.net/secevent/caep/event-type/session-established";
    assert!(set["events"][kind].is_object(), "a sign-in is a session established: {set}");
    assert_eq!(set["sub_id"]["sub"], "u-17", "and about the same user: {set}");
    let shown = story.acme.get(&format!("/events/{}", accepted.event)).await;
    for sealed in ["iss", "iat", "jti"] {
        assert_eq!(set[sealed], shown["set"][sealed], "`{sealed}` is sealed");
    }
    assert!(shown["set"]["events"].to_string().contains("PostSignIn"), "the journal stores it unchanged: {shown}");
}

#[tokio::test]
async fn patch_keeps_all_other_bytes() {
    let story = Story::of(Seed::Set, "flag-suspicious-login", json!({})).await;
    let sent = r#"{"zone": "b","iss":"https://idp.example.com/","txn":"t-1","jti":"one","iat":1615305159,"events":{"https://example.com/login_failed":{"z":1.10,"amount":  1e-7,"big":12345678901234567890123,"a":[1.0,{"y":-0.0,"b":"\u00e9"}],"useragent":"curl/8"}},"after":{"c":3.00,"a":1}}"#;
    let accepted = story.source.accept(sent).await;
    story.ran(&accepted, "delivered", json!("patch")).await;
    let text = story.arrived().await.text();
    let (before, rest) = text.split_once(r#","risk":{"#).expect("the filter's member is the last one");
    let (_, after) = rest.split_once('}').expect("it is an object without objects");
    assert_eq!(format!("{before}{after}"), sent, "member order, number text and white space are unchanged");
}

#[tokio::test]
async fn chain_passes_each_result_to_the_next_filter() {
    let Ingest { acme, source, .. } = &World::with().source("idp", Seed::Logto).start_ingest().await;
    for filter in ["translate-to-caep", "drop-by-type"] {
        acme.filter(filter).await;
    }
    let receiver = Receiver::start().await;
    let chain = json!([
        {"filter": "translate-to-caep"},
        {"filter": "drop-by-type", "grants": ["config"], "config": {"drop": ["session-established"]}},
    ]);
    let subscription = acme.subscribe(&receiver).chain(chain).create().await;
    let accepted = source.accept(event::logto("s1")).await;
    let dropped = acme.delivery_in("dropped", &subscription.delivery_of(&accepted)).await;
    let verdicts: Vec<_> = dropped["runs"].as_array().unwrap().iter().map(|run| &run["verdict"]).collect();
    assert_eq!(verdicts, ["replace", "drop"], "the second filter saw the type that the first one made: {dropped}");
}

#[tokio::test]
async fn invalid_upload_is_refused_with_the_reason() {
    let host = Host::start().await;
    let acme = host.tenant_with("acme", json!({"quota": {"filter_bytes_max": 200_000}})).await;
    let component = |text: &str| wat::parse_str(text).expect("a component's text");
    let outside =
        imports_instead(setgate_tests::place::filter("drop-by-type"), "setgate:filter/log", "malicious:net/tcp4");
    for (what, wasm, status, code) in [
        ("garbage", b"not wasm at all".to_vec(), 422, "filter_not_wasm"),
        ("nothing", Vec::new(), 422, "filter_not_wasm"),
        ("a core module", b"\0asm\x01\0\0\0".to_vec(), 422, "filter_core_module"),
        ("a component of another world", component("(component)"), 422, "filter_no_transform"),
        ("a component that asks for more than there is", outside, 422, "filter_import"),
        ("a component too complex to compile", component(&fan_out(10)), 422, "filter_too_complex"),
        ("machine code", precompiled(), 422, "filter_precompiled"),
        ("more bytes than the quota", vec![0; 200_001], 413, "filter_too_large"),
    ] {
        let answer = acme.upload("gate", wasm).await;
        assert_eq!(answer.not_the_problem(status, code), None, "{what}");
    }
    let filters = acme.get("/filters").await;
    assert_eq!(filters["items"], json!([]), "nothing of a refused upload is stored");
}

#[tokio::test]
async fn unknown_import_is_refused_before_compilation() {
    let host = Host::with().config("[sandbox]\ncompile_wall_ms_max = 1").start().await;
    let acme = host.tenant("acme").await;
    let store = r#"(import "wasi:keyvalue/store@0.2.0" (instance $store (export "open" (func))))"#;
    for (what, guest, code) in [
        ("an unknown import", Guest::pass().outer(store), "filter_import"),
        (
            "another version of the world",
            Guest::pass().export("setgate:filter/transform@9.0.0"),
            "filter_wrong_version",
        ),
        ("no transform", Guest::pass().export("setgate:filter/other@0.1.0"), "filter_no_transform"),
    ] {
        assert_eq!(acme.upload("gate", guest.wasm()).await.not_the_problem(422, code), None, "{what}");
    }
    let compiled = acme.upload("gate", setgate_tests::place::filter("redact-claims")).await;
    assert_eq!(compiled.not_the_problem(422, "filter_compile_limit"), None, "no compile has the time");
}

#[tokio::test]
async fn wasi_files_sockets_and_http_are_denied_at_run_time() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let receiver = Receiver::start().await;
    for (name, interface, function, version) in [
        ("sockets", "wasi:sockets/instance-network", "instance-network", "0.2.0"),
        ("http", "wasi:http/types", "[constructor]fields", "0.2.8"),
        ("files", "wasi:filesystem/types", "open-root", "0.2.12"),
    ] {
        // A constructor is named after its resource.
        let resource = function.strip_prefix("[constructor]").unwrap_or("thing");
        let outer = format!(
            r#"(import "{interface}@{version}" (instance $away (export "{resource}" (type $thing (sub resource)))
                 (export "{function}" (func (result (own $thing))))))
               (core func $call_away (canon lower (func $away "{function}")))"#
        );
        let unused = acme.upload(name, Guest::pass().outer(&outer).wasm()).await;
        assert_eq!(unused.status, 201, "{name} is imported and not called: {}", unused.text());
        let call = Calls {
            outer: Box::leak(outer.into_boxed_str()),
            given: r#"(export "away" (func $call_away))"#,
            core: r#"(import "host" "away" (func $away (result i32)))"#,
        };
        acme.upload(name, Guest::new("(drop (call $away)) unreachable").calls(call).wasm()).await.expect(201);
        let subscription = acme.subscribe(&receiver).chain(json!([{"filter": name}])).create().await;
        let accepted = source.accept(event::set(name)).await;
        let held = acme.delivery_in("held", &subscription.delivery_of(&accepted)).await;
        let detail = held["runs"][0]["fault"]["detail"].as_str().unwrap();
        assert!(detail.starts_with(&format!("{interface}.{function} is not available to filters")), "{held}");
        subscription.pause().await;
    }
}

#[tokio::test]
async fn number_of_memories_is_limited() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let receiver = Receiver::start().await;
    let with = |more: usize| Guest::patches(r#"{"seen":true}"#).core(&"(memory 1)".repeat(more)).wasm();
    // Each component has one memory.
    for (name, more) in [("seven", 6), ("eight", 7)] {
        acme.upload(name, with(more)).await.expect(201);
        let subscription = acme.subscribe(&receiver).chain(json!([{"filter": name}])).create().await;
        let accepted = source.accept(event::set(name)).await;
        acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
        subscription.pause().await;
    }
    let refused = acme.upload("nine", with(8)).await;
    assert_eq!(refused.not_the_problem(422, "filter_too_complex"), None);
    assert!(refused.text().contains("`filter_memories_max` is 8"), "{}", refused.text());
}

#[tokio::test]
async fn binding_must_grant_the_imports() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let receiver = Receiver::start().await;
    acme.filter("enrich-from-table").await;
    let binding = |grants: &Value| match grants.as_str() {
        Some("absent") => json!({"filter": "enrich-from-table"}),
        _ => json!({"filter": "enrich-from-table", "grants": grants}),
    };
    let both = json!(["config", "lookup"]);
    let granted = acme.subscribe(&receiver).chain(json!([binding(&both)])).create().await;
    for (grants, missing) in [
        (json!("absent"), "imports `config` and `lookup`"),
        (Value::Null, "imports `config` and `lookup`"),
        (json!([]), "imports `config` and `lookup`"),
        (json!(["config"]), "imports `lookup`"),
        (json!(["lookup"]), "imports `config`"),
    ] {
        let chain = json!([binding(&grants)]);
        let put = json!({"endpoint": {"url": receiver.url()}, "chain": chain});
        let replaced = acme.client.put(&granted.path(""), &put).await;
        for refused in [acme.subscribe(&receiver).chain(chain).ask().await, replaced] {
            assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "grants {grants}");
            let detail = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
            for part in ["`enrich-from-table`", missing, r#""grants": ["config", "lookup"]"#] {
                assert!(detail.contains(part), "grants {grants}: {detail}");
            }
        }
    }
    assert_eq!(granted.show().await["chain"][0]["grants"], json!(["config", "lookup"]), "a refusal changes nothing");

    // A filter that imports only `log`, or nothing, needs no grant; its document can be sent back.
    acme.filter("translate-to-caep").await;
    let bare = acme.subscribe(&receiver).chain(json!([{"filter": "translate-to-caep"}])).create().await;
    assert_eq!(bare.show().await["chain"][0]["grants"], json!([]), "absent `grants` grant nothing");

    // A version that imports more than a binding grants would fault on each delivery: it can neither be activated nor
    // tried.
    acme.filter("drop-by-type").await;
    let narrow = json!([{"filter": "drop-by-type", "grants": ["config"]}]);
    acme.subscribe(&receiver).chain(narrow.clone()).create().await;
    let wider = setgate_tests::place::filter("enrich-from-table");
    let filter = acme.path("/filters/drop-by-type");
    let uploaded = acme.upload("drop-by-type?activate=false", wider.clone()).await.expect(201).json();
    let digest = &uploaded["versions"][1]["digest"];
    for refused in [
        acme.upload("drop-by-type", wider).await,
        acme.client.post(&format!("{filter}/activate"), &json!({"digest": digest})).await,
        acme.client.put(&format!("{filter}/rollout"), &json!({"digest": digest, "mode": "shadow"})).await,
        acme.client.put(&format!("{filter}/rollout"), &json!({"digest": digest, "mode": "canary", "percent": 5})).await,
    ] {
        assert_eq!(refused.not_the_problem(409, "conflict"), None);
        let detail = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(
            detail.contains("imports `lookup`") && detail.contains(r#""grants": ["config", "lookup"]"#),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn binding_must_grant_the_imports_of_a_trial() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let receiver = Receiver::start().await;
    acme.filter("drop-by-type").await;
    let wider = setgate_tests::place::filter("enrich-from-table");
    let uploaded = acme.upload("drop-by-type?activate=false", wider).await.expect(201).json();
    let rollout = json!({"digest": uploaded["versions"][1]["digest"], "mode": "canary", "percent": 50});
    acme.client.put(&acme.path("/filters/drop-by-type/rollout"), &rollout).await.expect(201);
    let bind = |grants: Value| acme.subscribe(&receiver).chain(json!([{"filter": "drop-by-type", "grants": grants}]));
    let refused = bind(json!(["config"])).ask().await;
    assert_eq!(refused.not_the_problem(422, "invalid_field"), None);
    assert!(refused.text().contains("version on trial") && refused.text().contains("`lookup`"), "{}", refused.text());
    bind(json!(["config", "lookup"])).create().await;
}

#[tokio::test]
async fn delivery_keeps_the_version_it_was_created_with() {
    let story = Story::of(Seed::Wso2, "drop-by-type", json!({})).await;
    let (acme, subscription) = (&story.acme, &story.subscription);
    subscription.pause().await;
    let before = story.source.accept(event::wso2("before")).await;
    acme.delivery_in("due", &subscription.delivery_of(&before)).await;

    // Another filter's component, as the next version under the same name.
    let shown = acme.upload("drop-by-type", setgate_tests::place::filter("flag-suspicious-login")).await.expect(201);
    let (second, shown) = (shown.json()["active"].clone(), shown.json());
    assert_eq!(shown["previous"], json!(story.digest), "a rollback returns to the previous version: {shown}");
    let after = story.source.accept(event::wso2("after")).await;
    acme.delivery_in("due", &subscription.delivery_of(&after)).await;
    let rolled = acme.client.post(&acme.path("/filters/drop-by-type/rollback"), &json!({})).await.expect(200).json();
    assert_eq!(rolled["active"], json!(story.digest), "a roll-back returns to the version before: {rolled}");
    let last = story.source.accept(event::wso2("last")).await;
    acme.delivery_in("due", &subscription.delivery_of(&last)).await;

    subscription.resume().await;
    for (accepted, digest) in [(&before, &json!(story.digest)), (&after, &second), (&last, &json!(story.digest))] {
        let delivery = acme.delivery_in("delivered", &subscription.delivery_of(accepted)).await;
        assert_eq!(&delivery["runs"][0]["digest"], digest, "the digest is pinned at creation: {delivery}");
    }
    let again = acme.client.post(&acme.path("/filters/drop-by-type/rollback"), &json!({})).await;
    assert_eq!(again.not_the_problem(409, "conflict"), None, "there is nothing before the first version");
    let activate = acme.path("/filters/drop-by-type/activate");
    let shown = acme.client.post(&activate, &json!({"digest": second})).await.expect(200).json();
    assert_eq!(shown["active"], second, "a version can be activated by its digest");
}

#[tokio::test]
async fn same_bytes_are_the_same_version() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let wasm = setgate_tests::place::filter("drop-by-type");
    let first = acme.upload("gate", wasm.clone()).await.expect(201).json();
    let second = acme.upload("gate", wasm).await.expect(200).json();
    assert_eq!(first["active"], second["active"]);
    assert_eq!(second["versions"].as_array().map(Vec::len), Some(1), "one version: {second}");
}

/// A filter that leaks its secret `token`: it logs it, then drops the event with it as the reason, or fails with it.
fn telling(verdict_or_failure: u32, case: u32) -> Vec<u8> {
    let text = format!(
        r#"(component
          (import "setgate:filter/types@0.1.0" (instance $types
            (type $e (record
              (field "id" string) (field "issuer" string) (field "issued-at" u64) (field "accepted-at" u64)
              (field "types" (list string)) (field "subject" (option string)) (field "tenant" string)
              (field "source" string) (field "subscription" string) (field "delivery" string)
              (field "claims" string)))
            (export "event" (type (eq $e)))
            (type $v (variant (case "pass") (case "patch" string) (case "replace" string) (case "drop" string)))
            (export "verdict" (type (eq $v)))
            (type $f (variant (case "transient" string) (case "permanent" string)))
            (export "failure" (type (eq $f)))))
          (alias export $types "event" (type $event))
          (alias export $types "verdict" (type $verdict))
          (alias export $types "failure" (type $failure))
          (import "setgate:filter/log@0.1.0" (instance $log
            (type $l (enum "debug" "info" "warn" "error")) (export "level" (type $level (eq $l)))
            (export "write" (func (param "level" $level) (param "message" string)))))
          (import "setgate:filter/config@0.1.0" (instance $config
            (export "secret" (func (param "name" string) (result (option string))))))
          (core module $mem
            (memory (export "memory") 1)
            (global $top (mut i32) (i32.const 1024))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
              (local $at i32)
              (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
              (global.set $top (i32.add (local.get $at) (local.get 3)))
              (local.get $at)))
          (core instance $mem (instantiate $mem))
          (core func $write (canon lower (func $log "write") (memory (core memory $mem "memory"))))
          (core func $secret (canon lower (func $config "secret")
            (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
          (core instance $host
            (export "write" (func $write)) (export "secret" (func $secret)) (export "memory" (memory $mem "memory")))
          (core module $m
            (import "host" "write" (func $write (param i32 i32 i32)))
            (import "host" "secret" (func $secret (param i32 i32 i32)))
            (import "host" "memory" (memory 1))
            (data (i32.const 64) "token")
            ;; The secret comes as its presence, address and length at 128.
            (func (export "process") (param i32) (result i32)
              (call $secret (i32.const 64) (i32.const 5) (i32.const 128))
              (call $write (i32.const 2) (i32.load (i32.const 132)) (i32.load (i32.const 136)))
              (i32.store8 (i32.const 0) (i32.const {verdict_or_failure}))
              (i32.store8 (i32.const 4) (i32.const {case}))
              (i32.store (i32.const 8) (i32.load (i32.const 132)))
              (i32.store (i32.const 12) (i32.load (i32.const 136)))
              (i32.const 0)))
          (core instance $i (instantiate $m (with "host" (instance $host))))
          (func $process (param "event" $event) (result (result $verdict (error $failure)))
            (canon lift (core func $i "process")
              (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
          (instance $transform (export "process" (func $process)))
          (export "setgate:filter/transform@0.1.0" (instance $transform)))"#
    );
    wat::parse_str(text).expect("a component's text")
}

#[tokio::test]
async fn secrets_are_masked_in_the_history() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let receiver = Receiver::start().await;
    // (verdict or failure, case): a drop, a permanent failure, a replacement that is not a SET.
    for (name, wasm, state) in
        [("drops", telling(0, 3), "dropped"), ("fails", telling(1, 1), "held"), ("replaces", telling(0, 2), "held")]
    {
        acme.upload(name, wasm).await.expect(201);
        let binding = json!({"filter": name, "grants": ["config"], "secrets": {"token": "hunter2-4711-and-more"}});
        let subscription = acme.subscribe(&receiver).chain(json!([binding])).create().await;
        let accepted = source.accept(event::set(name)).await;
        let id = subscription.delivery_of(&accepted);
        let delivery = acme.delivery_in(state, &id).await;
        assert_eq!(delivery["runs"][0]["log"][0]["text"], "[secret token]", "the filter's log is recorded: {delivery}");
        if name != "replaces" {
            let reason = delivery["reason"].as_str().unwrap();
            assert!(reason.ends_with("[secret token]"), "the reason names the secret: {reason}");
        }
        for shown in [delivery.to_string(), acme.get("/deliveries").await.to_string()] {
            assert!(!shown.contains("hunter2"), "{name}: nobody is shown the secret: {shown}");
        }
        subscription.pause().await;
    }
    assert_eq!(receiver.count(), 0, "no event was delivered");
}

/// Without its salt, `redact-claims` fails on every event.
async fn faulting(on_fault: Value) -> Story {
    Story::of(Seed::Set, "redact-claims", on_fault).await
}

#[tokio::test]
async fn fault_holds_by_default() {
    let story = faulting(json!({})).await;
    let (acme, subscription) = (&story.acme, &story.subscription);
    let sent = event::set("released");
    let released = subscription.delivery_of(&story.source.accept(sent.clone()).await);
    let discarded = subscription.delivery_of(&story.source.accept(event::set("discarded")).await);
    for id in [&released, &discarded] {
        let held = acme.delivery_in("held", id).await;
        assert_eq!(held["runs"][0]["fault"]["kind"], "permanent", "the fault is in the history: {held}");
        assert_eq!(held["runs"][0]["verdict"], Value::Null, "a fault is no verdict: {held}");
        assert!(held["reason"].as_str().unwrap().contains("salt"), "the reason names the missing secret: {held}");
    }
    assert_eq!(receiver_count(&story), 0, "a redaction that failed does not leak");

    // The current chain is the same, so it fails again.
    let before = acme.delivery(&released).await;
    acme.redrive(&released, "again").await.expect(200);
    let again = acme.delivery_in_after("held", &released, &before["updated_at"]).await;
    assert_eq!(again["runs"][0]["fault"]["kind"], "permanent", "it ran again: {again}");

    acme.redrive(&discarded, "discard").await.expect(200);
    acme.delivery_in("dropped", &discarded).await;
    acme.redrive(&released, "release").await.expect(200);
    acme.delivery_in("delivered", &released).await;
    let received = story.arrived().await;
    assert_eq!(received.id(), released);
    assert_eq!(received.text(), sent, "a release sends the bytes from before the chain");
    assert_eq!(receiver_count(&story), 1, "a discarded delivery does not arrive");
}

#[tokio::test]
async fn on_fault_open_skips_the_filter() {
    let story = faulting(json!({"on_fault": "open"})).await;
    let sent = event::set("one");
    let id = story.subscription.delivery_of(&story.source.accept(sent.clone()).await);
    let delivered = story.acme.delivery_in("delivered", &id).await;
    assert_eq!(delivered["runs"][0]["fault"]["kind"], "permanent", "the fault is in the history: {delivered}");
    assert_eq!(story.arrived().await.text(), sent, "as if the filter were not in the chain");
}

#[tokio::test]
async fn on_fault_drop_ends_the_delivery() {
    let story = faulting(json!({"on_fault": "drop"})).await;
    let id = story.subscription.delivery_of(&story.source.accept(event::set("one")).await);
    let dropped = story.acme.delivery_in("dropped", &id).await;
    assert_eq!(dropped["runs"][0]["fault"]["kind"], "permanent", "the fault is in the history: {dropped}");
    assert_eq!(receiver_count(&story), 0, "nothing is sent");
}

fn receiver_count(story: &Story) -> usize {
    story.receiver.count()
}

/// Nested components, each with ten instances of the next one: 10^levels instances in a few hundred bytes.
fn fan_out(levels: u32) -> String {
    let mut text = "(component $c)".to_owned();
    for _ in 0..levels {
        text = format!("(component $c {text} {})", "(instance (instantiate $c))".repeat(10));
    }
    text
}

/// Replaces an import of the component by one with a name of the same length, so that no offset changes.
fn imports_instead(mut component: Vec<u8>, name: &str, other: &str) -> Vec<u8> {
    assert_eq!(name.len(), other.len());
    let places: Vec<_> = component
        .windows(name.len())
        .enumerate()
        .filter(|(_, bytes)| *bytes == name.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "it imports `{name}`");
    for at in places {
        component[at..at + other.len()].copy_from_slice(other.as_bytes());
    }
    component
}

/// The header of machine code as written by wasmtime: an ELF file with its own OS ABI.
fn precompiled() -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\xc8\0\0\0\0\0\0\0\0".to_vec();
    // Type, machine (x86-64), version; entry, program headers, section headers.
    elf.extend([1, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend([0; 24]);
    // Flags: a component; sizes and counts of the absent tables.
    elf.extend([2, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0]);
    elf
}
