//! Tests the alerts of `deploy/` with Prometheus' own `promtool`, using the metrics of a host before and after its
//! first dead and its first held delivery.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;
use setgate_tests::{Host, Receiver, Reply, Seed, Tenant, event, place, until};
use tokio::process::Command;

/// Minutes of samples before and after the change.
const MINUTES: usize = 30;

/// The program. If it is not installed, prints that the story is skipped, or fails if it is required.
async fn promtool(story: &str) -> Option<PathBuf> {
    let unpacked = place::target_dir().join("promtool/usr/bin/promtool");
    for program in [PathBuf::from("promtool"), unpacked] {
        let version =
            Command::new(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        if version.is_ok_and(|status| status.success()) {
            return Some(program);
        }
    }
    let required = ["SETGATE_REQUIRE_INTEROP", "SETGATE_REQUIRE_PROMTOOL"].into_iter().any(place::is_on);
    assert!(!required, "promtool is required and not installed: `cargo xtask test` provides it");
    place::skip(story, "promtool is not installed");
    None
}

fn rules() -> PathBuf {
    place::root().join("deploy/prometheus/setgate.rules.yml")
}

/// A host's exported metrics by series.
async fn scrape(host: &Host) -> BTreeMap<String, String> {
    let text = host.operator().get("/metrics").await.expect(200).text();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A series as stored by Prometheus, with the labels of its target.
fn stored(series: &str) -> String {
    let target = "instance=\"gate\",job=\"setgate\"";
    match series.strip_suffix('}') {
        Some(labelled) => format!("{labelled},{target}}}"),
        None => format!("{series}{{{target}}}"),
    }
}

/// Evaluates the rules over the first samples for a while, then over the second ones, and returns `promtool`'s errors
/// about the alerts that should fire at the end. At the end of the first samples none may fire.
async fn test_rules(
    promtool: &Path,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    firing: &[&str],
) -> Result<(), String> {
    let mut text = format!(
        "rule_files: [\"{}\"]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n",
        rules().display()
    );
    let mut write = |series: &str, values: &str| {
        writeln!(text, "  - series: '{}'\n    values: '{values}'", stored(series)).unwrap();
    };
    write("up", &format!("1+0x{}", 2 * MINUTES + 5));
    for (series, last) in after.iter().filter(|(series, _)| series.starts_with("setgate_")) {
        // As in Prometheus, a new series has no earlier samples.
        let first = before.get(series).map_or(format!("_x{MINUTES}"), |first| format!("{first}+0x{}", MINUTES - 1));
        write(series, &format!("{first} {last}+0x{MINUTES}"));
    }
    writeln!(text, "  promql_expr_test:").unwrap();
    let mut expect = |minute: usize, firing: &[&str]| {
        let expr = "count by (alertname) (ALERTS{alertstate=\"firing\"})";
        writeln!(text, "  - expr: '{expr}'\n    eval_time: {minute}m\n    exp_samples:").unwrap();
        for alert in firing {
            writeln!(text, "    - labels: '{{alertname=\"{alert}\"}}'\n      value: 1").unwrap();
        }
    };
    expect(MINUTES - 1, &[]);
    expect(MINUTES + 3, firing);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.yml");
    std::fs::write(&file, text).unwrap();
    let ended = Command::new(promtool).args(["test", "rules"]).arg(&file).output().await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    if ended.status.success() { Ok(()) } else { Err(said) }
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
async fn alerts_fire_on_the_first_dead_and_the_first_held_delivery() {
    let host = Host::start().await;
    let (acme, good, _bad) = set_up(&host, "acme").await;
    send(&acme, "good", "one").await;
    good.received(1).await;
    let before = scrape(&host).await;
    let of = |state: &str| format!("setgate_deliveries_total{{tenant=\"acme\",state=\"{state}\"}}");
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
    let Some(promtool) = promtool("alerts_fire_on_the_first_dead_and_the_first_held_delivery").await else { return };
    let checked = Command::new(&promtool).args(["check", "rules"]).arg(rules()).output().await.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    test_rules(&promtool, &before, &before, &[]).await.expect("a healthy host is silent");
    let both = ["SetgateDeadLetters", "SetgateHeld"];
    test_rules(&promtool, &before, &after, &both).await.expect("both fire, and no other");
    assert!(test_rules(&promtool, &before, &after, &[]).await.is_err(), "the test can fail");
    // The first occurrence of each other kind: the exported zero, plus one.
    let suspended = "setgate_filter_suspensions_total{tenant=\"acme\",filter=\"redact-claims\"}";
    for (series, alert) in [
        ("setgate_ledger_commit_failures_total", "SetgateLedgerFails"),
        ("setgate_reload_refused", "SetgateReloadRefused"),
        ("setgate_trace_spans_dropped_total{reason=\"collector\"}", "SetgateTraceSpansDropped"),
        (suspended, "SetgateFilterSuspended"),
    ] {
        let mut one = before.clone();
        assert_eq!(one.insert(series.to_owned(), "1".to_owned()).as_deref(), Some("0"), "{series}");
        test_rules(&promtool, &before, &one, &[alert]).await.unwrap_or_else(|error| panic!("{alert}: {error}"));
    }
}

#[tokio::test]
async fn a_tenant_whose_first_delivery_is_dead_before_any_scrape_is_seen_to_rise() {
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
async fn every_metric_says_what_it_is_and_those_of_what_was_removed_are_gone() {
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
    assert!(text.contains("tenant=\"acme\",source=\"bad\""), "what is there stays");
}
