//! Trials of a filter version before it is activated: over stored events, as a shadow, and for a share of the subjects.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use setgate_tests::hostile::guest::Guest;
use setgate_tests::{Accepted, Host, Receiver, Seed, Source, Subscription, Tenant, event, place, until};

/// A tenant whose only subscription binds the filter `gate`; its active version passes everything.
struct Story {
    host: Host,
    acme: Tenant,
    source: Source,
    receiver: Receiver,
    subscription: Subscription,
    active: String,
}

impl Story {
    async fn begin() -> Self {
        Self::on(Host::start().await, json!({"filter": "gate", "grants": ["config"]})).await
    }

    async fn on(host: Host, binding: Value) -> Self {
        let acme = host.tenant("acme").await;
        let source = acme.source("idp", Seed::Wso2).await;
        let shown = acme.upload("gate", place::filter("drop-by-type")).await.expect(201).json();
        let active = shown["active"].as_str().expect("an upload is active").to_owned();
        let receiver = Receiver::start().await;
        let subscription = acme.subscribe(&receiver).chain(json!([binding])).create().await;
        Self { host, acme, source, receiver, subscription, active }
    }

    /// Uploads an inactive version.
    async fn candidate(&self, wasm: Vec<u8>) -> String {
        waiting(&self.acme, "gate", wasm).await
    }

    /// Requests a rollout and returns any answer.
    async fn roll_out(&self, rollout: Value) -> setgate_tests::Answer {
        self.acme.client.put(&self.acme.path("/filters/gate/rollout"), &rollout).await
    }

    async fn rollout(&self) -> Value {
        self.acme.get("/filters/gate/rollout").await
    }

    async fn backtest(&self, asked: Value) -> setgate_tests::Answer {
        self.acme.client.post(&self.acme.path("/filters/gate/backtest"), &asked).await
    }

    /// Waits until an event is delivered, and returns the version that ran.
    async fn ran(&self, event: &Accepted) -> String {
        let delivery = self.acme.delivery_in("delivered", &self.subscription.delivery_of(event)).await;
        delivery["runs"][0]["digest"].as_str().expect("a run has a version").to_owned()
    }
}

async fn waiting(tenant: &Tenant, name: &str, wasm: Vec<u8>) -> String {
    let shown = tenant.upload(&format!("{name}?activate=false"), wasm).await;
    assert!(matches!(shown.status, 200 | 201), "{}", shown.text());
    let shown = shown.json();
    let newest = shown["versions"].as_array().and_then(|versions| versions.last().cloned()).expect("a version");
    newest["digest"].as_str().expect("a version has a digest").to_owned()
}

/// A failed login by curl, to which `flag-suspicious-login` adds a `risk`.
fn suspicious(jti: &str, user: &str) -> String {
    event::wso2(jti).replace("u-17", user)
}

/// A login that it passes unchanged.
fn harmless(jti: &str) -> String {
    let login = event::wso2(jti).replace("loginFailed", "loginSuccess").replace("curl/8.5", "Mozilla/5.0");
    login.replace("\"failedAttempts\":4", "\"failedAttempts\":0")
}

fn flagging() -> Vec<u8> {
    place::filter("flag-suspicious-login")
}

/// Runs until its second of computing time is over.
fn endless() -> Vec<u8> {
    Guest::new("(loop $again (br $again)) unreachable").wasm()
}

fn trapping() -> Vec<u8> {
    Guest::new("unreachable").wasm()
}

#[tokio::test]
async fn backtest_shows_changes_and_sends_nothing() {
    let story = Story::begin().await;
    let digest = story.candidate(flagging()).await;
    let (mut changed, mut sent) = (BTreeSet::new(), 0);
    for (jti, body) in [
        ("a", suspicious("a", "u-1")),
        ("b", harmless("b")),
        ("c", suspicious("c", "u-2")),
        ("d", harmless("d")),
        ("e", suspicious("e", "u-3")),
    ] {
        let accepted = story.source.accept(body).await;
        assert_eq!(story.ran(&accepted).await, story.active);
        if !["b", "d"].contains(&jti) {
            changed.insert(accepted.event);
        }
        sent += 1;
    }
    let before = story.acme.deliveries("").await;

    let report = story.backtest(json!({"digest": digest})).await.expect(200).json();
    assert_eq!((&report["events"], &report["complete"]), (&json!(sent), &json!(true)), "{report}");
    assert_eq!((&report["changed"], &report["unchanged"]), (&json!(3), &json!(2)), "{report}");
    let found: BTreeSet<_> =
        report["changes"].as_array().unwrap().iter().map(|c| c["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, changed, "just these events change: {report}");
    for change in report["changes"].as_array().unwrap() {
        let (active, candidate) = (&change["active"], &change["candidate"]);
        assert_eq!((&active["verdict"], &candidate["verdict"]), (&json!("pass"), &json!("patch")), "{change}");
        assert_eq!((&active["end"], &candidate["end"]), (&json!("through"), &json!("through")), "{change}");
        let claims = change["claims"].as_array().unwrap();
        assert_eq!(claims.len(), 1, "one member is added: {change}");
        assert!(claims[0].as_str().unwrap().starts_with("+ /events/") && claims[0].to_string().contains("/risk "));
    }
    for version in ["active", "candidate"] {
        let calls = &report[version];
        assert_eq!((&calls["calls"], &calls["faults"]), (&json!(sent), &json!(0)), "{report}");
        let fuel = |member: &str| calls["fuel"][member].as_u64().unwrap();
        assert!(fuel("p50") > 0 && fuel("p50") <= fuel("max") && fuel("max") < fuel("sum"), "{report}");
    }
    // The fuel of a filter is the same in every run.
    let again = story.backtest(json!({"digest": digest})).await.expect(200).json();
    assert_eq!(again["candidate"]["fuel"], report["candidate"]["fuel"]);

    let newest = story.backtest(json!({"digest": digest, "events": 2})).await.expect(200).json();
    assert_eq!((&newest["events"], &newest["changed"]), (&json!(2), &json!(1)), "the newest two: {newest}");
    let other = story.backtest(json!({"digest": digest, "source": "elsewhere"})).await.expect(200).json();
    assert_eq!((&other["events"], &other["complete"]), (&json!(0), &json!(true)), "no event of that source: {other}");
    let one = json!({"digest": digest, "subscription": story.subscription.id});
    assert_eq!(story.backtest(one).await.expect(200).json()["subscriptions"], 1);

    let faulty = story.candidate(trapping()).await;
    let report = story.backtest(json!({"digest": faulty})).await.expect(200).json();
    assert_eq!((&report["changed"], &report["candidate"]["faults"]), (&json!(sent), &json!(sent)), "{report}");
    let change = &report["changes"][0];
    assert_eq!(change["candidate"]["fault"]["kind"], "trap", "{change}");
    assert_eq!(change["candidate"]["end"], "held", "the end of the delivery is predicted: {change}");

    assert_eq!(story.receiver.count(), sent, "a backtest sends nothing");
    assert_eq!(story.acme.deliveries("").await, before, "and stores nothing");
    let shown = story.acme.get("/filters/gate").await;
    assert_eq!(shown["active"], json!(story.active), "and activates nothing");
}

#[tokio::test]
async fn backtest_ends_at_its_time_limit() {
    // A backtest has half of the time of a request, and each call of the candidate uses its whole second.
    let config =
        "[listen]\nrequest_ms_max = 8000\n[quota]\nfuel_per_call = 1000000000000\nfuel_per_second = 1000000000000";
    let story =
        Story::on(Host::with().config(config).start().await, json!({"filter": "gate", "grants": ["config"]})).await;
    let endless = story.candidate(endless()).await;
    for number in 0..20 {
        story.source.accept(harmless(&number.to_string())).await;
    }
    story.receiver.received(20).await;
    let report = story.backtest(json!({"digest": endless})).await.expect(200).json();
    assert_eq!(report["complete"], false, "{report}");
    assert!(report["events"].as_u64().unwrap() < 20, "{report}");
}

#[tokio::test]
async fn one_backtest_at_a_time_and_cancellable() {
    let story = Story::begin().await;
    let endless = story.candidate(Guest::new("(loop $again (br $again)) unreachable").wasm()).await;
    for number in 0..50 {
        story.source.accept(suspicious(&format!("e{number}"), "u-1")).await;
    }
    story.receiver.received(50).await;
    let (client, path) = (story.acme.client.clone(), story.acme.path("/filters/gate/backtest"));
    let long = tokio::spawn(async move { client.post(&path, &json!({"digest": endless})).await });
    let short = json!({"digest": story.active, "events": 1});
    until("it is at work", async || {
        let faults = story.host.metric("setgate_filter_calls_total", &["verdict=\"fault\""]).await;
        (faults > 0.0).then_some(())
    })
    .await;
    let second = story.backtest(short.clone()).await;
    assert_eq!(second.not_the_problem(429, "backtest_running"), None, "one at a time");
    long.abort();
    until("the broken-off one has ended", async || (story.backtest(short.clone()).await.status == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn shadow_is_compared_and_not_delivered() {
    let story = Story::begin().await;
    let digest = story.candidate(flagging()).await;
    let begun = story.roll_out(json!({"digest": digest, "mode": "shadow"})).await.expect(201).json();
    assert_eq!((&begun["rollout"]["mode"], &begun["active"]), (&json!("shadow"), &json!(story.active)), "{begun}");
    let mut different = BTreeSet::new();
    for number in 0..4 {
        // One after the other, because concurrent shadow runs are limited.
        let (jti, expected) = (format!("e{number}"), number + 1);
        let odd = number % 2 == 1;
        let body = if odd { suspicious(&jti, "u-1") } else { harmless(&jti) };
        let accepted = story.source.accept(body).await;
        assert_eq!(story.ran(&accepted).await, story.active, "the active version decides");
        if odd {
            different.insert(accepted.event);
        }
        until("the shadow has run", async || {
            (story.rollout().await["report"]["shadow"]["runs"] == json!(expected)).then_some(())
        })
        .await;
    }
    let shadow = story.rollout().await["report"]["shadow"].clone();
    assert_eq!((&shadow["same"], &shadow["different"]), (&json!(2), &json!(2)), "{shadow}");
    assert_eq!((&shadow["skipped"], &shadow["undecided"]), (&json!(0), &json!(0)), "{shadow}");
    let samples = shadow["samples"].as_array().unwrap();
    let found: BTreeSet<_> = samples.iter().map(|sample| sample["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, different, "{shadow}");
    assert!(samples[0]["claims"][0].as_str().unwrap().contains("/risk "), "the difference is shown: {shadow}");
    for version in ["active", "candidate"] {
        assert!(shadow[version]["fuel"].as_u64().is_some_and(|fuel| fuel > 0), "{shadow}");
        assert_eq!(shadow[version]["faults"], 0, "{shadow}");
    }
    let received = story.receiver.received(4).await;
    assert_eq!(received.len(), 4, "each event arrives once");
    assert!(received.iter().all(|one| !one.text().contains("\"risk\"")), "nothing of the candidate is sent");

    // A faulting candidate is counted, and does not affect deliveries.
    story.acme.client.delete(&story.acme.path("/filters/gate/rollout")).await.expect(200);
    let faulty = story.candidate(trapping()).await;
    story.roll_out(json!({"digest": faulty, "mode": "shadow"})).await.expect(201);
    story.ran(&story.source.accept(harmless("last")).await).await;
    let shadow = until("the shadow has faulted", async || {
        let shadow = story.rollout().await["report"]["shadow"].clone();
        (shadow["runs"] == 1).then_some(shadow)
    })
    .await;
    assert_eq!((&shadow["candidate"]["faults"], &shadow["different"]), (&json!(1), &json!(1)), "{shadow}");
    assert_eq!(shadow["samples"][0]["candidate"]["fault"]["kind"], "trap", "{shadow}");
}

#[tokio::test]
async fn shadow_without_capacity_skips_events() {
    // Each shadow runs for a second, and two of a tenant run at the same time.
    let config = "[quota]\nfuel_per_call = 1000000000000\nfuel_per_second = 1000000000000";
    let story =
        Story::on(Host::with().config(config).start().await, json!({"filter": "gate", "grants": ["config"]})).await;
    let digest = story.candidate(endless()).await;
    story.roll_out(json!({"digest": digest, "mode": "shadow"})).await.expect(201);
    let mut sent = 0;
    until("an event is skipped", async || {
        for _ in 0..5 {
            story.source.accept(suspicious(&format!("e{sent}"), "u-1")).await;
            sent += 1;
        }
        (story.host.metric("setgate_shadow_runs_total", &["result=\"skipped\""]).await > 0.0).then_some(())
    })
    .await;
    let shadow = until("each event is counted", async || {
        let shadow = story.rollout().await["report"]["shadow"].clone();
        let counted = shadow["skipped"].as_u64().unwrap() + shadow["runs"].as_u64().unwrap();
        (counted == sent).then_some(shadow)
    })
    .await;
    assert!(shadow["skipped"].as_u64().unwrap() > 0, "counted, not run: {shadow}");
    story.receiver.received(usize::try_from(sent).unwrap()).await;
}

#[tokio::test]
async fn canary_takes_a_fixed_share_of_subjects() {
    let story = Story::begin().await;
    let digest = story.candidate(flagging()).await;
    let canary = |percent: f64| json!({"digest": digest, "mode": "canary", "percent": percent});
    story.roll_out(canary(50.0)).await.expect(201);
    let subjects: Vec<String> = (0..30).map(|number| format!("user-{number}")).collect();
    let mut version_of = BTreeMap::new();
    for round in 0..2 {
        for subject in &subjects {
            let accepted = story.source.accept(suspicious(&format!("{round}-{subject}"), subject)).await;
            let version = story.ran(&accepted).await;
            let first = version_of.entry(subject.clone()).or_insert_with(|| version.clone());
            assert_eq!(*first, version, "{subject} gets the same version each time");
        }
    }
    let picked = version_of.values().filter(|version| **version == digest).count();
    assert!((1..30).contains(&picked), "some, not all: {picked}");
    let received = story.receiver.received(60).await;
    assert_eq!(story.receiver.ids().len(), 60, "each event is delivered");
    let flagged = received.iter().filter(|one| one.text().contains("\"risk\"")).count();
    assert_eq!(flagged, picked * 2, "the candidate's subjects get its bytes, the others the active version's");
    let report = story.rollout().await["report"]["canary"].clone();
    assert_eq!(report, json!({"calls": picked * 2, "faults": 0}));

    // A larger share: no subject is removed, and the counts are kept.
    let begun = story.rollout().await["rollout"]["started_at"].clone();
    let changed = story.roll_out(canary(99.99)).await.expect(200).json();
    assert_eq!((&changed["rollout"]["percent"], &changed["rollout"]["started_at"]), (&json!(99.99), &begun));
    let accepted = story.source.accept(suspicious("more", &subjects[0])).await;
    assert_eq!(story.ran(&accepted).await, digest);
    assert_eq!(story.rollout().await["report"]["canary"]["calls"], json!(picked * 2 + 1));

    let promote = story.acme.path("/filters/gate/rollout/promote");
    let promoted = story.acme.client.post(&promote, &json!({})).await.expect(200).json();
    assert_eq!((&promoted["active"], &promoted["rollout"]), (&json!(digest), &Value::Null), "{promoted}");
    let last = &promoted["last_rollout"];
    assert_eq!((&last["reason"], &last["calls"]), (&json!("promoted"), &json!(picked * 2 + 1)), "{promoted}");
    let shown = story.acme.get("/filters/gate").await;
    assert_eq!(shown["previous"], json!(story.active), "a roll-back returns to the version before: {shown}");
    for subject in &subjects[..5] {
        let accepted = story.source.accept(suspicious(&format!("last-{subject}"), subject)).await;
        assert_eq!(story.ran(&accepted).await, digest, "everybody's now");
    }
}

#[tokio::test]
async fn trapping_canary_is_rolled_back() {
    let story = Story::begin().await;
    let digest = story.candidate(trapping()).await;
    let canary = json!({"digest": digest, "mode": "canary", "percent": 60, "calls_min": 5});
    story.roll_out(canary).await.expect(201);
    let mut accepted = Vec::new();
    for number in 0..40 {
        let (jti, user) = (format!("e{number}"), format!("user-{number}"));
        accepted.push(story.source.accept(suspicious(&jti, &user)).await);
    }
    let ended = until("the host ends the rollout", async || {
        let shown = story.rollout().await;
        shown["rollout"].is_null().then_some(shown)
    })
    .await;
    let last = &ended["last_rollout"];
    assert_eq!((&last["reason"], &last["digest"]), (&json!("faults"), &json!(digest)), "{ended}");
    assert!(last["faults"].as_u64().is_some_and(|faults| faults >= 5 && last["calls"] == faults), "{ended}");
    assert_eq!(ended["active"], json!(story.active), "the active version stays: {ended}");

    until("each event is delivered", async || (story.receiver.ids().len() == 40).then_some(())).await;
    for event in &accepted {
        let id = story.subscription.delivery_of(event);
        let delivery = until("its history has the reason", async || {
            let delivery = story.acme.delivery(&id).await;
            (delivery["state"] == "delivered").then_some(delivery)
        })
        .await;
        let runs = delivery["runs"].as_array().unwrap();
        assert_eq!((runs.len(), &runs[0]["digest"]), (1, &json!(story.active)), "by the active version: {delivery}");
    }
    assert!(story.acme.deliveries("state=held").await.is_empty(), "nothing is held any more");
    let shown = story.acme.get("/filters/gate").await;
    assert!(shown["versions"][1]["withdrawn"].is_string(), "the candidate is withdrawn: {shown}");
    assert_eq!(story.host.metric("setgate_rollouts_ended_total", &["reason=\"faults\""]).await, 1.0);
    let after = story.source.accept(suspicious("after", "user-1")).await;
    assert_eq!(story.ran(&after).await, story.active, "no event runs through the candidate any more");
}

#[tokio::test]
async fn suspended_canary_delays_nothing() {
    let host = Host::with().config("[quota]\nfilter_faults_max = 3").start().await;
    let story = Story::on(host, json!({"filter": "gate", "grants": ["config"]})).await;
    let digest = story.candidate(trapping()).await;
    story.roll_out(json!({"digest": digest, "mode": "canary", "percent": 100, "calls_min": 1000})).await.expect(201);
    let mut deliveries = Vec::new();
    for number in 0..8 {
        let accepted = story.source.accept(suspicious(&format!("e{number}"), &format!("user-{number}"))).await;
        let id = story.subscription.delivery_of(&accepted);
        // Its third fault suspends it; from then on its subjects run the active version.
        story.acme.delivery_in(if number < 3 { "held" } else { "delivered" }, &id).await;
        deliveries.push(id);
    }
    story.acme.client.delete(&story.acme.path("/filters/gate/rollout")).await.expect(200);
    for id in &deliveries {
        let delivery = until("the held deliveries are delivered too", async || {
            let delivery = story.acme.delivery(id).await;
            (delivery["state"] == "delivered").then_some(delivery)
        })
        .await;
        assert_eq!(delivery["runs"][0]["digest"], json!(story.active), "by the active version: {delivery}");
    }
}

#[tokio::test]
async fn ended_rollout_returns_to_the_active_version() {
    // With this policy, a fault of the candidate would pass the event unfiltered.
    let story =
        Story::on(Host::start().await, json!({"filter": "gate", "grants": ["config"], "on_fault": "open"})).await;
    let digest = story.candidate(trapping()).await;
    story.subscription.pause().await;
    story.roll_out(json!({"digest": digest, "mode": "canary", "percent": 100})).await.expect(201);
    let accepted = story.source.accept(suspicious("one", "u-1")).await;
    let id = story.subscription.delivery_of(&accepted);
    let due = story.acme.delivery_in("due", &id).await;
    let ended = story.acme.client.delete(&story.acme.path("/filters/gate/rollout")).await.expect(200).json();
    assert_eq!(ended["last_rollout"]["reason"], "ended", "{ended}");
    story.subscription.resume().await;
    let delivered = story.acme.delivery_in("delivered", &id).await;
    let run = &delivered["runs"][0];
    assert_eq!((&run["digest"], &run["verdict"]), (&json!(story.active), &json!("pass")), "{delivered}");
    assert_ne!(delivered["plan"], due["plan"], "its record names the plan that ran");

    // A new rollout of the same version starts a new trial.
    story.roll_out(json!({"digest": digest, "mode": "canary", "percent": 100})).await.expect(201);
    let accepted = story.source.accept(suspicious("two", "u-1")).await;
    assert_eq!(story.ran(&accepted).await, digest, "a fault passes the event on, as the binding requires");
}

#[tokio::test]
async fn rollout_blocks_other_activations() {
    let story = Story::begin().await;
    let (acme, digest) = (&story.acme, story.candidate(flagging()).await);
    let other = story.candidate(trapping()).await;
    let path = |below: &str| acme.path(&format!("/filters/gate{below}"));
    let unknown = format!("sha256:{}", "0".repeat(64));
    let shadow = |digest: &str| json!({"digest": digest, "mode": "shadow"});
    for (what, asked, status, code) in [
        ("an unknown version", shadow(&unknown), 404, "not_found"),
        ("the active version", shadow(&story.active), 409, "conflict"),
        ("a share of a shadow", json!({"digest": digest, "mode": "shadow", "percent": 5}), 422, "invalid_field"),
        ("a canary without a share", json!({"digest": digest, "mode": "canary"}), 422, "invalid_field"),
        ("too great a share", json!({"digest": digest, "mode": "canary", "percent": 100.5}), 422, "invalid_field"),
        ("another mode", json!({"digest": digest, "mode": "blue"}), 400, "invalid_body"),
    ] {
        assert_eq!(story.roll_out(asked).await.not_the_problem(status, code), None, "{what}");
    }
    for (what, asked, status, code) in [
        ("an unknown version", json!({"digest": unknown}), 404, "not_found"),
        ("no events", json!({"digest": digest, "events": 0}), 422, "invalid_field"),
        ("too many events", json!({"digest": digest, "events": 1001}), 422, "invalid_field"),
    ] {
        assert_eq!(story.backtest(asked).await.not_the_problem(status, code), None, "a backtest of {what}");
    }
    let none = acme.client.post(&path("/rollout/promote"), &json!({})).await;
    assert_eq!(none.not_the_problem(404, "not_found"), None, "there is nothing to promote");

    // A candidate that imports more than the binding grants is refused.
    let needy = story.candidate(place::filter("enrich-from-table")).await;
    assert_eq!(story.roll_out(shadow(&needy)).await.not_the_problem(409, "conflict"), None, "no binding grants lookup");

    story.roll_out(shadow(&digest)).await.expect(201);
    assert_eq!(story.roll_out(shadow(&other)).await.not_the_problem(409, "conflict"), None, "one at a time");
    let activate = acme.client.post(&path("/activate"), &json!({"digest": other})).await;
    assert_eq!(activate.not_the_problem(409, "conflict"), None);
    let upload = acme.upload("gate", Guest::new("unreachable unreachable").wasm()).await;
    assert_eq!(upload.not_the_problem(409, "conflict"), None);

    // A rollback is never blocked.
    let back = acme.client.post(&path("/rollback"), &json!({})).await;
    assert_eq!(back.not_the_problem(409, "conflict"), None, "there is nothing to roll back to");
    acme.client.post(&path("/rollout/promote"), &json!({})).await.expect(200);
    story.roll_out(json!({"digest": other, "mode": "canary", "percent": 1})).await.expect(201);
    let back = acme.client.post(&path("/rollback"), &json!({})).await.expect(200).json();
    assert_eq!((&back["active"], &back["rollout"]), (&json!(story.active), &Value::Null), "{back}");
    assert_eq!(back["last_rollout"]["reason"], "rolled_back", "{back}");

    // Four filters at once.
    for name in ["f1", "f2", "f3", "f4", "f5"] {
        acme.upload(name, place::filter("drop-by-type")).await.expect(201);
        let candidate = waiting(acme, name, trapping()).await;
        let began = acme.client.put(&acme.path(&format!("/filters/{name}/rollout")), &shadow(&candidate)).await;
        if name == "f5" {
            assert_eq!(began.not_the_problem(409, "conflict"), None, "the fifth");
            let unbound = acme.path("/filters/f5/backtest");
            let unbound = acme.client.post(&unbound, &json!({"digest": candidate})).await;
            assert_eq!(unbound.not_the_problem(409, "conflict"), None, "no chain to run");
        } else {
            began.expect(201);
        }
    }
}

#[tokio::test]
async fn command_line_rolls_out_a_version() {
    let story = Story::begin().await;
    story.ran(&story.source.accept(suspicious("one", "u-1")).await).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("new.wasm"), flagging()).unwrap();
    let setgate = async |arguments: &[&str]| {
        let mut command = Host::command(folder.path());
        command.arg("filter").args(arguments).env("SETGATE_HOST", story.host.base());
        command.env("SETGATE_TENANT", "acme").env("SETGATE_KEY", &story.acme.key);
        let output = command.output().await.expect("the program can be started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    let said = async |arguments: &[&str], parts: &[&str]| {
        let (ok, out, err) = setgate(arguments).await;
        assert!(ok, "{arguments:?}: {out}{err}");
        for part in parts {
            assert!(out.contains(part), "{arguments:?} should say {part}: {out}");
        }
        out
    };
    let json = async |arguments: &[&str]| -> Value {
        let out = said(&[arguments, &["--json"]].concat(), &[]).await;
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{out} is not JSON: {error}"))
    };
    let shown = json(&["upload", "gate", "new.wasm", "--no-activate"]).await;
    assert_eq!(shown["active"], json!(story.active), "it waits: {shown}");
    let digest = shown["versions"][1]["digest"].as_str().unwrap().to_owned();
    let digest = digest.as_str();
    said(&["list"], &["gate", "active", digest]).await;
    said(&["backtest", "gate", digest, "--events", "10"], &["1 changed", "patch", "/risk "]).await;
    let report = json(&["backtest", "gate", digest]).await;
    assert_eq!(report["changed"], 1, "{report}");
    said(&["shadow", "gate", digest], &["shadow since", "compared   0"]).await;
    said(&["end", "gate"], &["rollout    none", "shadow of", "ended"]).await;
    said(&["canary", "gate", digest, "--percent", "12.5"], &["canary 12.5% since", "5.0% may fault, from 20 calls"])
        .await;
    said(&["rollout", "gate"], &["canary 12.5% since", "calls      0, 0 faulted"]).await;
    said(&["list"], &["canary 12.5%"]).await;
    said(&["promote", "gate"], &[&format!("active     {digest}"), "promoted"]).await;
    said(&["rollback", "gate"], &["gate"]).await;
    assert_eq!(story.acme.get("/filters/gate").await["active"], json!(story.active));
    said(&["activate", "gate", digest], &["gate"]).await;
    assert_eq!(story.acme.get("/filters/gate").await["active"], json!(digest));

    let (ok, _, err) = setgate(&["promote", "gate"]).await;
    assert!(!ok && err.contains("404") && err.contains("rollout of filter"), "the refusal is printed: {err}");
}
