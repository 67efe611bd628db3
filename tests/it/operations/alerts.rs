//! Tests the alerts of `deploy/` with Prometheus' own `promtool` over the metrics of a real host: each fires after its
//! time, and none on an idle host.

mod rules;

use std::collections::BTreeSet;

use serde_json::json;
use setgate_tests::{Host, Receiver, Reply, Seed, Tenant, event, place, until};
use tokio::process::Command;

use rules::{Case, Change, Scrape, promtool, scrape};

/// A change of metrics that makes an alert fire.
struct Firing {
    alert: &'static str,
    changes: Vec<(String, Change)>,
    /// Minutes after the change at which it does not fire yet, because of its `for`.
    silent: Option<usize>,
    /// Minutes after the change at which it fires.
    fires: usize,
}

/// A firing case of every alert, on a host with this scrape.
fn firing(scrape: &Scrape) -> Vec<Firing> {
    use Change::{Once, PerMinute, To};
    let of = |alert, series: &str, change, silent, fires| {
        let changes = vec![(series.to_owned(), change)];
        Firing { alert, changes, silent, fires }
    };
    // Deliveries that take between one and five minutes.
    let is_slow = |series: &&String| {
        let bound =
            series.strip_prefix("setgate_end_to_end_seconds_bucket{le=\"").and_then(|rest| rest.strip_suffix("\"}"));
        bound.is_some_and(|bound| bound == "+Inf" || bound.parse::<f64>().unwrap() > 60.0)
    };
    let slow: Vec<_> = scrape.keys().filter(is_slow).map(|series| (series.clone(), PerMinute(1))).collect();
    assert!(slow.len() > 2, "buckets of more than a minute: {slow:?}");
    let delivery_slow = Firing { alert: "SetgateDeliverySlow", changes: slow, silent: Some(9), fires: 25 };
    let suspended = "setgate_filter_suspensions_total{tenant=\"acme\",filter=\"redact-claims\"}";
    let refused = "setgate_ingest_total{tenant=\"full\",source=\"idp\",outcome=\"backlog_full\"}";
    let unproven = "setgate_ingest_total{tenant=\"acme\",source=\"good\",outcome=\"bad_token\"}";
    vec![
        of("SetgateDown", "up", To("0"), Some(1), 3),
        of("SetgateLedgerFails", "setgate_ledger_commit_failures_total", Once, None, 1),
        of("SetgateIngestRefused", refused, PerMinute(60), Some(4), 12),
        of("SetgateSourceNotProven", unproven, PerMinute(60), Some(9), 25),
        of("SetgateDeadLetters", &deliveries("dead"), Once, None, 1),
        of("SetgateHeld", &deliveries("held"), Once, None, 1),
        of("SetgateReceiversFail", &attempts("5xx"), PerMinute(10), Some(14), 35),
        delivery_slow,
        of("SetgateFanOutBehind", "setgate_ledger_behind_events", To("10001"), Some(4), 6),
        of("SetgateWalGrows", "setgate_ledger_wal_bytes", To("1000000001"), Some(9), 11),
        of("SetgateReloadRefused", "setgate_reload_refused", To("1"), None, 1),
        of("SetgateRestartDue", "setgate_reload_waiting_keys", To("2"), Some(24 * 60 - 1), 24 * 60 + 1),
        of("SetgateFilterSuspended", suspended, Once, None, 1),
        of("SetgateFiltersWait", "setgate_filter_waiting{for=\"slot\"}", To("101"), Some(9), 11),
        of("SetgateTraceSpansDropped", "setgate_trace_spans_dropped_total{reason=\"collector\"}", Once, None, 1),
    ]
}

fn deliveries(state: &str) -> String {
    format!("setgate_deliveries_total{{tenant=\"acme\",state=\"{state}\"}}")
}

fn attempts(outcome: &str) -> String {
    format!("setgate_attempts_total{{tenant=\"acme\",outcome=\"{outcome}\"}}")
}

/// Creates a tenant with three subscriptions: one that delivers, one with a failing receiver, and one with a failing
/// filter. No events have been sent.
async fn set_up(host: &Host, name: &str) -> (Tenant, Receiver, Receiver) {
    let acme = host.tenant(name).await;
    acme.filter("redact-claims").await;
    let (good, bad) = (Receiver::start().await, Receiver::start().await);
    bad.otherwise(Reply::status(500));
    for source in ["good", "bad", "faulty"] {
        acme.source(source, Seed::Set).await;
    }
    acme.subscribe(&good).with("sources", json!(["good"])).create().await;
    acme.subscribe(&bad).with("sources", json!(["bad"])).retry(&[1]).create().await;
    // Its filter needs a secret that the binding does not have.
    let chain = json!([{"filter": "redact-claims", "grants": ["config"]}]);
    acme.subscribe(&good).with("sources", json!(["faulty"])).chain(chain).create().await;
    (acme, good, bad)
}

async fn send(acme: &Tenant, source: &str, jti: &str) {
    let path = format!("/ingest/{}/{source}", acme.name);
    acme.known_source(&path, Seed::Set).accept(event::set(jti)).await;
}

#[tokio::test]
async fn first_dead_or_held_delivery_fires() {
    let host = Host::start().await;
    let (acme, good, _bad) = set_up(&host, "acme").await;
    send(&acme, "good", "one").await;
    good.received(1).await;
    let before = scrape(&host).await;
    let of = deliveries;
    for state in ["dead", "held"] {
        assert_eq!(before.get(&of(state)).map(String::as_str), Some("0"), "there before the first: {state}");
    }
    for zero in [
        "setgate_ledger_commit_failures_total",
        "setgate_reload_refused",
        "setgate_trace_spans_dropped_total{reason=\"queue\"}",
    ] {
        assert_eq!(before.get(zero).map(String::as_str), Some("0"), "{zero}");
    }
    send(&acme, "bad", "two").await;
    send(&acme, "faulty", "three").await;
    let after = until("one is dead and one is held", async || {
        let now = scrape(&host).await;
        let is_one = |state: &str| now.get(&of(state)).is_some_and(|value| value == "1");
        (is_one("dead") && is_one("held")).then_some(now)
    })
    .await;
    for (state, count) in [("due", "0"), ("held", "1"), ("dead", "1")] {
        let gauge = format!("setgate_deliveries_by_state{{tenant=\"acme\",state=\"{state}\"}}");
        assert_eq!(after.get(&gauge).map(String::as_str), Some(count), "{gauge}");
    }
    let Some(promtool) = promtool("first_dead_or_held_delivery_fires").await else { return };
    let checked = Command::new(&promtool).args(["check", "rules"]).arg(rules::file()).output().await.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let healthy = Case::between("healthy", &before, &before, &[]);
    let both = Case::between("first dead and held", &before, &after, &["SetgateDeadLetters", "SetgateHeld"]);
    rules::check(&promtool, &[healthy, both]).await.expect("both fire, and no other");
    let none = Case::between("none", &before, &after, &[]);
    assert!(rules::check(&promtool, &[none]).await.is_err(), "the test can fail");
}

/// A host on which each of these has happened at least once: a delivery that arrived, one that is dead, one that is held, an
/// event without its proof, and an event above the quota of its tenant.
async fn host_with_faults() -> (Host, Scrape) {
    let host = Host::start().await;
    let (acme, good, _bad) = set_up(&host, "acme").await;
    let full = host.tenant_with("full", json!({"quota": {"backlog_deliveries_max": 0}})).await;
    let source = full.source("idp", Seed::Set).await;
    full.subscribe(&good).create().await;
    let refused = source.send(event::set("refused")).await;
    assert_eq!(refused.not_the_problem(429, "backlog_full"), None);
    let unproven = acme.known_source("/ingest/acme/good", Seed::Open).send(event::set("unproven")).await;
    // The answer does not reveal the kind of proof; the metric does.
    assert_eq!(unproven.status, 401, "{}", unproven.text());
    for (source, jti) in [("good", "one"), ("bad", "two"), ("faulty", "three")] {
        send(&acme, source, jti).await;
    }
    let scraped = until("one is delivered, one is dead and one is held", async || {
        let now = scrape(&host).await;
        let counted = |state: &str| now.get(&deliveries(state)).is_some_and(|value| value == "1");
        let all = ["delivered", "dead", "held"].into_iter().all(counted) && now.contains_key(&attempts("2xx"));
        all.then_some(now)
    })
    .await;
    (host, scraped)
}

#[tokio::test]
async fn every_alert_fires_after_its_delay() {
    let (_host, scrape) = host_with_faults().await;
    let firing = firing(&scrape);
    let covered: BTreeSet<_> = firing.iter().map(|case| case.alert.to_owned()).collect();
    assert_eq!(covered, rules::alerts(), "every alert of the file has a firing case");
    let mut cases = vec![Case::steady("after some faults", &scrape, 60)];
    for Firing { alert, changes, silent, fires } in &firing {
        let alerts = [*alert];
        let mut expected: Vec<(usize, &[&str])> = vec![(*fires, &alerts)];
        expected.extend(silent.map(|minute| (minute, &[][..])));
        cases.push(Case::changed(alert, &scrape, changes, &expected));
    }
    // At the bound itself no alert fires, however long it lasts.
    for (series, change) in [
        ("setgate_ledger_behind_events", Change::To("10000")),
        ("setgate_ledger_wal_bytes", Change::To("1000000000")),
        ("setgate_filter_waiting{for=\"slot\"}", Change::To("100")),
        ("setgate_ingest_total{tenant=\"full\",source=\"idp\",outcome=\"backlog_full\"}", Change::PerMinute(5)),
        ("setgate_ingest_total{tenant=\"acme\",source=\"good\",outcome=\"bad_token\"}", Change::PerMinute(5)),
        (&attempts("2xx"), Change::PerMinute(100)),
    ] {
        cases.push(Case::changed(series, &scrape, &[(series.to_owned(), change)], &[(60, &[])]));
    }
    let mixed = [(attempts("5xx"), Change::PerMinute(10)), (attempts("2xx"), Change::PerMinute(11))];
    cases.push(Case::changed("fewer than half of the attempts fail", &scrape, &mixed, &[(60, &[])]));
    let Some(promtool) = promtool("every_alert_fires_after_its_delay").await else { return };
    rules::check(&promtool, &cases).await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn idle_host_fires_nothing() {
    let host = Host::start().await;
    set_up(&host, "idle").await;
    // The first scrape may be the one that creates series.
    scrape(&host).await;
    let scrape = scrape(&host).await;
    let of_tenant: Vec<_> = scrape.iter().filter(|(series, _)| series.contains("tenant=\"idle\"")).collect();
    let bytes: usize = of_tenant.iter().map(|(series, value)| series.len() + value.len() + 2).sum();
    // Its counters of dead and held deliveries, the suspensions of its filter, and the bytes that it has stored.
    assert!((3..=8).contains(&of_tenant.len()) && bytes < 1024, "{bytes} bytes: {of_tenant:?}");
    let Some(promtool) = promtool("idle_host_fires_nothing").await else {
        return;
    };
    let idle = Case::steady("idle", &scrape, 26 * 60);
    rules::check(&promtool, &[idle]).await.unwrap_or_else(|error| panic!("{error}"));
}

/// Outcomes that alerts name are codes of the host, and the runbook has a row for each alert.
#[test]
fn alerts_name_existing_codes_and_runbooks() {
    let text = std::fs::read_to_string(rules::file()).unwrap();
    let lists = text.lines().filter_map(|line| line.split_once("outcome=~\"")?.1.split('"').next());
    let codes: BTreeSet<_> = lists.flat_map(|list| list.split('|')).collect();
    assert!(codes.len() > 5, "{codes:?}");
    // Codes of RFC 8935 are documented with the sources.
    let sources = std::fs::read_to_string(place::root().join("docs/reference/sources.md")).unwrap();
    for code in codes {
        if sources.contains(&format!("| 400 `{code}`")) {
            continue;
        }
        let page = place::root().join(format!("docs/errors/{code}.md"));
        assert!(page.is_file(), "`{code}` is no code of the host");
    }
    let operations = std::fs::read_to_string(place::root().join("docs/how-to/operations.md")).unwrap();
    let row = |line: &str| Some(line.strip_prefix("| `Setgate")?.split('`').next()?.to_owned());
    let rows: Vec<_> = operations.lines().filter_map(row).map(|name| format!("Setgate{name}")).collect();
    assert_eq!(
        rows.iter().cloned().collect::<BTreeSet<_>>(),
        rules::alerts(),
        "rows of docs/how-to/operations.md, Alerts"
    );
    assert_eq!(rows.len(), rules::alerts().len(), "each once");
}

#[tokio::test]
async fn dead_delivery_before_the_first_scrape_counts() {
    let host = Host::start().await;
    let (acme, _good, _bad) = set_up(&host, "acme").await;
    send(&acme, "bad", "one").await;
    until("it is dead", async || {
        let dead = acme.get("/deliveries?state=dead").await;
        (dead["items"].as_array().map(Vec::len) == Some(1)).then_some(())
    })
    .await;
    let series = "setgate_deliveries_total{tenant=\"acme\",state=\"dead\"}";
    let seen = [scrape(&host).await, scrape(&host).await].map(|scrape| scrape.get(series).cloned().unwrap_or_default());
    assert_eq!(seen, ["0", "1"]);
}

#[tokio::test]
async fn metrics_have_help_and_removed_series_end() {
    let host = Host::start().await;
    let (acme, good, _bad) = set_up(&host, "acme").await;
    let (other, ..) = set_up(&host, "other").await;
    for tenant in [&acme, &other] {
        send(tenant, "good", "one").await;
        send(tenant, "bad", "two").await;
        send(tenant, "faulty", "three").await;
    }
    good.received(1).await;
    let labels = ["tenant=\"acme\",source=\"good\"", "tenant=\"acme\",filter=\"redact-claims\"", "tenant=\"other\""];
    until("all of it has series", async || {
        let text = host.operator().get("/metrics").await.expect(200).text();
        labels.iter().all(|label| text.contains(label)).then_some(())
    })
    .await;
    let text = host.operator().get("/metrics").await.expect(200).text();
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|rest| rest.split(' ').next()) {
        let help = text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
        assert!(help.is_some_and(|help| help.len() > 5), "{name} says what it is");
    }
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "setgate_build_info",
    ] {
        assert!(host.metric(name, &[]).await > 0.0, "{name}");
    }
    let rest = acme.get("/subscriptions").await;
    for subscription in rest["items"].as_array().unwrap() {
        let path = acme.path(&format!("/subscriptions/{}", subscription["id"].as_str().unwrap()));
        acme.client.delete(&path).await.expect(204);
    }
    acme.client.delete(&acme.path("/filters/redact-claims")).await.expect(204);
    acme.client.delete(&acme.path("/sources/good")).await.expect(204);
    host.operator().delete("/api/v1/tenants/other").await.expect(204);
    let text = host.operator().get("/metrics").await.expect(200).text();
    for label in labels {
        let left: Vec<_> = text.lines().filter(|line| line.contains(label)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    assert!(text.contains("tenant=\"acme\",source=\"bad\""), "existing values stay");
}
