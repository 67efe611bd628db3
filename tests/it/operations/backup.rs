//! Backups made from a running host, and their restoration.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use setgate_tests::{Host, Reply, Seed, World, event};

/// Runs `setgate admin ...` in the host's directory.
async fn admin(host: &Host, arguments: &[&str]) -> std::process::Output {
    let folder = host.path("");
    Host::command(&folder).arg("admin").args(arguments).output().await.expect("the program can be started")
}

fn said(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder has a plain name")
}

/// The report of `admin check`, and whether it found nothing.
async fn check(host: &Host, more: &[&str]) -> (bool, Value) {
    let output = admin(host, &[&["check", "--data", "data"], more].concat()).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert_eq!(output.status.code(), Some(i32::from(report["ok"] == false)), "{}", said(&output));
    (output.status.success(), report)
}

/// The names of the checks that found something.
fn faults(report: &Value) -> Vec<&str> {
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().filter(|check| check["faults"] != 0).map(|check| check["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn restored_backup_delivers_accepted_events() {
    let chain = json!([{"filter": "drop-by-type", "grants": ["config"], "secrets": {"unused": "but sealed"}}]);
    let World { host, acme, source, receiver, subscription } =
        &mut World::with().source("idp", Seed::Wso2).filter("drop-by-type").chain(chain).retry(&[1; 20]).start().await;
    receiver.answer((0..200).map(|number| Reply::status(if number % 2 == 0 { 204 } else { 500 })));

    // Senders that keep sending throughout.
    let (told, mut accepted) = tokio::sync::mpsc::unbounded_channel();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..4 {
        let (source, told, stopped) = (source.clone(), told.clone(), stopped.clone());
        senders.spawn(async move {
            for number in 0.. {
                if *stopped.borrow() {
                    break;
                }
                // Each must be accepted: a backup does not block ingest.
                let taken = source.accept(event::wso2(&format!("e{sender}-{number}"))).await;
                told.send(taken.event).unwrap();
            }
        });
    }
    drop(told);
    let mut before = BTreeSet::new();
    while before.len() < 50 {
        before.insert(accepted.recv().await.expect("senders go on"));
    }
    let backup = host.path("backup");
    let made = admin(host, &["backup", "--to", text(&backup), "--data", "data"]).await;
    assert!(made.status.success(), "{}", said(&made));
    assert!(said(&made).contains("not the master key"), "it names the missing parts: {}", said(&made));
    let during = accepted.len();
    stop.send_replace(true);
    while let Some(ended) = senders.join_next().await {
        ended.expect("every event was accepted");
    }
    assert!(during > 0, "events were accepted during the backup");
    let (ok, report) = check(host, &[]).await;
    assert!(ok, "the ledger of a host that runs: {report}");
    let (ok, report) = check(host, &["--backup", text(&backup)]).await;
    assert!(ok, "the backup: {report}");
    host.kill9().await;

    // Another machine: a new directory, and the master key, which is transferred separately.
    let mut other = Host::with().prepare();
    std::fs::copy(host.path("operator.key"), other.path("operator.key")).unwrap();
    let restored = admin(&other, &["restore", "--from", text(&backup), "--data", "data"]).await;
    assert!(restored.status.success(), "{}", said(&restored));
    assert!(said(&restored).contains("Put the master key"), "it names the missing part: {}", said(&restored));
    std::fs::copy(host.data().join("master.key"), other.data().join("master.key")).unwrap();
    let (ok, report) = check(&other, &[]).await;
    assert!(ok, "the restored data passes the checks: {report}");
    other.start_again().await;
    other.take_operator_key();
    let acme = setgate_tests::Tenant::new("acme", &acme.key, other.operator());
    let id_of = subscription.delivery_of_any();
    for event in &before {
        acme.delivery_in("delivered", &id_of(event)).await;
    }
    let arrived = receiver.ids();
    assert!(before.iter().all(|event| arrived.contains(&id_of(event))));
    let second = admin(&other, &["restore", "--from", text(&backup), "--data", "data"]).await;
    assert!(!second.status.success() && said(&second).contains("a host is running"), "{}", said(&second));
    other.terminate().await;
    let third = admin(&other, &["restore", "--from", text(&backup), "--data", "data"]).await;
    assert!(!third.status.success() && said(&third).contains("is not empty"), "{}", said(&third));
}

#[tokio::test]
async fn damaged_backup_is_not_restored() {
    let World { host, acme, source, subscription, .. } =
        &mut World::with().source("idp", Seed::Wso2).filter("redact-claims").start().await;
    for number in 0..20 {
        let accepted = source.accept(event::wso2(&format!("e{number}"))).await;
        acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    }
    let backup = host.path("backup");
    let made = admin(host, &["backup", "--to", text(&backup), "--data", "data"]).await;
    assert!(made.status.success(), "{}", said(&made));
    let again = admin(host, &["backup", "--to", text(&backup), "--data", "data"]).await;
    assert!(!again.status.success() && said(&again).contains("is not empty"), "{}", said(&again));

    // Damage that only the ledger's own checks detect: for SQLite, the file is intact.
    let file = backup.join("ledger.db");
    let good = std::fs::read(&file).unwrap();
    let conn = rusqlite::Connection::open(&file).unwrap();
    conn.execute("UPDATE tally SET delivered = delivered - 1", []).unwrap();
    conn.execute("UPDATE blob_part SET body = zeroblob(length(body)) WHERE number = 0", []).unwrap();
    drop(conn);
    let (ok, report) = check(host, &["--backup", text(&backup)]).await;
    assert!(!ok);
    assert_eq!(faults(&report), ["tally", "blobs"], "{report}");

    // Damage as caused by a disk.
    let mut bytes = good.clone();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    std::fs::write(&file, &bytes).unwrap();
    let (ok, report) = check(host, &["--backup", text(&backup)]).await;
    assert!(!ok && !faults(&report).is_empty(), "{report}");
    let refused = admin(host, &["restore", "--from", text(&backup), "--data", "elsewhere"]).await;
    assert!(!refused.status.success() && said(&refused).contains("is damaged"), "{}", said(&refused));
    assert!(!host.path("elsewhere/ledger/ledger.db").exists());

    // Another master key cannot decrypt anything, which is reported before a host is started with it.
    std::fs::write(&file, &good).unwrap();
    host.terminate().await;
    std::fs::rename(host.data().join("master.key"), host.path("kept.key")).unwrap();
    let (ok, report) = check(host, &[]).await;
    assert!(!ok);
    assert_eq!(faults(&report), ["secrets"], "{report}");
    let nothing = admin(host, &["check", "--data", "nowhere"]).await;
    assert_eq!(nothing.status.code(), Some(2), "{}", said(&nothing));
}
