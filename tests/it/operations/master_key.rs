//! A host with data that it must not modify: the master key is missing or a different one, the ledger was written by a
//! later version, or others may write to the directory. The host refuses to start, explains the solution, and leaves
//! every byte unchanged.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use setgate_tests::{Host, Receiver, Seed, Tenant, event};

/// Every file below a directory with its bytes and its mode.
fn contents(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        if path.is_dir() {
            found.extend(contents(&path));
            found.insert(path, (mode, Vec::new()));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, (mode, bytes));
        }
    }
    found
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn run(host: &Host, arguments: &[&str]) -> Output {
    let mut command = Host::command(&host.path(""));
    let ended = command.args(arguments).output();
    tokio::time::timeout(setgate_tests::wait::DEADLINE, ended).await.expect("it ends").unwrap()
}

/// Starts a host with the data, which must refuse and change nothing.
async fn refuses(host: &Host, says: &[&str]) {
    let before = contents(&host.data());
    let ended = run(host, &["serve", "--listen", "127.0.0.1:0", "--data", "data"]).await;
    let said = said(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    for part in says {
        assert!(said.contains(part), "it names `{part}`: {said}");
    }
    assert!(!said.contains("sgk_"), "no key is made: {said}");
    let after = contents(&host.data());
    let changed: Vec<_> =
        before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
    assert!(changed.is_empty(), "changed, made or removed: {changed:?}");
}

/// The report of `admin check`, which must not change anything either.
async fn check(host: &Host) -> Value {
    let before = contents(&host.data());
    let ended = run(host, &["admin", "check", "--data", "data"]).await;
    let report = serde_json::from_slice(&ended.stdout).unwrap_or_else(|_| panic!("{}", said(&ended)));
    let after = contents(&host.data());
    let is_index = |path: &Path| path.ends_with("ledger.db-shm");
    let changed: Vec<_> =
        before.keys().filter(|path| !is_index(path) && before.get(*path) != after.get(*path)).collect();
    assert!(changed.is_empty(), "changed: {changed:?}");
    report
}

/// The faults reported by one check, as text.
fn told(report: &Value, check: &str) -> String {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|found| found["name"] == check).map(|found| found["details"].to_string()).unwrap_or_default()
}

/// A host with a secret and a finished event in its ledger. With `crash`, everything is still in its WAL.
async fn with_data(crash: bool) -> Host {
    let mut host = Host::start().await;
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Wso2).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    let accepted = source.accept(event::wso2("one")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    if crash {
        host.kill9().await;
    } else {
        host.terminate().await;
    }
    host
}

#[tokio::test]
async fn ledger_without_its_master_key_is_untouched() {
    for crash in [false, true] {
        let mut host = with_data(crash).await;
        let (key, away) = (host.data().join("master.key"), host.path("away.key"));
        std::fs::rename(&key, &away).unwrap();
        refuses(&host, &["master.key", "data.master_key_file", "Nothing was written"]).await;
        let secrets = told(&check(&host).await, "secrets");
        assert!(secrets.contains("is missing") && secrets.contains("master.key"), "{secrets}");
        let backup = run(&host, &["admin", "backup", "--data", "data", "--to", "backup"]).await;
        assert!(backup.status.success() && said(&backup).contains("warning: "), "{}", said(&backup));
        assert!(!key.exists(), "no key is made in its place");

        // A different key is as bad as none.
        std::fs::write(&key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
        set_mode(&key, 0o600);
        refuses(&host, &["master.key", "put the right file back", "Nothing was written"]).await;
        assert!(told(&check(&host).await, "secrets").contains("but the ledger requires"));
        for (text, says) in
            [(&b"not base64!"[..], "is not base64"), (b"", "has 0 bytes"), (b"\xff\xfe\x00", "is not base64")]
        {
            std::fs::write(&key, text).unwrap();
            refuses(&host, &[says]).await;
            assert!(told(&check(&host).await, "secrets").contains(says));
        }
        std::fs::remove_file(&key).unwrap();
        std::fs::create_dir(&key).unwrap();
        refuses(&host, &["master.key", "directory"]).await;
        std::fs::remove_dir(&key).unwrap();
        std::fs::rename(&away, &key).unwrap();
        set_mode(&key, 0o644);
        refuses(&host, &["chmod 600"]).await;
        assert!(told(&check(&host).await, "secrets").contains("chmod 600"));

        // With the right file it continues; an editor may have written another line ending.
        set_mode(&key, 0o600);
        let text = std::fs::read_to_string(&key).unwrap();
        std::fs::write(&key, format!("{}\r\n", text.trim())).unwrap();
        assert_eq!(check(&host).await["ok"], true);
        host.start_again().await;
        let acme = Tenant::new("acme", host.key(), host.operator());
        assert_eq!(acme.get("/sources").await["items"].as_array().map(Vec::len), Some(1));
    }
}

#[tokio::test]
async fn ledger_of_a_later_version_is_untouched() {
    for crash in [false, true] {
        let mut host = with_data(crash).await;
        let backup = run(&host, &["admin", "backup", "--data", "data", "--to", "backup"]).await;
        assert!(backup.status.success(), "{}", said(&backup));
        let file = host.data().join("ledger/ledger.db");
        let conn = rusqlite::Connection::open(&file).unwrap();
        let known: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        conn.execute_batch("PRAGMA user_version = 999").unwrap();
        drop(conn);
        refuses(&host, &["later version", "999", "upgrade this program"]).await;
        let schema = told(&check(&host).await, "schema");
        assert!(schema.contains("999") && schema.contains("upgrade this program"), "{schema}");
        assert!(!schema.contains("start a host"), "{schema}");
        let copied = run(&host, &["admin", "backup", "--data", "data", "--to", "later"]).await;
        assert!(!copied.status.success() && said(&copied).contains("upgrade this program"), "{}", said(&copied));

        // A backup of a later version is not restored by this one.
        let manifest = host.path("backup/backup.json");
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(&manifest, text.replace(&format!("\"schema\": {known}"), "\"schema\": 999")).unwrap();
        let restored = run(&host, &["admin", "restore", "--from", "backup", "--data", "elsewhere"]).await;
        assert!(!restored.status.success() && said(&restored).contains("upgrade this program"), "{}", said(&restored));
        assert!(!host.path("elsewhere/ledger/ledger.db").exists());

        // An earlier version gets different advice, and a host of this version migrates it.
        let conn = rusqlite::Connection::open(&file).unwrap();
        conn.execute_batch(&format!("PRAGMA user_version = {known}")).unwrap();
        drop(conn);
        host.start_again().await;
    }
}

#[tokio::test]
async fn key_without_a_ledger_starts_anew() {
    let mut host = Host::with().prepare();
    std::fs::create_dir(host.data()).unwrap();
    set_mode(&host.data(), 0o700);
    let key = host.data().join("master.key");
    std::fs::write(&key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    set_mode(&key, 0o600);
    host.start_again().await;
    assert!(host.log().contains("master key exists without a ledger"), "it is noticed: {}", host.log());
    host.take_operator_key();
    host.operator().get("/api/v1/tenants").await.expect(200);
    host.terminate().await;

    let mut host = Host::with().prepare();
    std::fs::create_dir_all(host.data().join("ledger")).unwrap();
    for folder in [host.data(), host.data().join("ledger")] {
        set_mode(&folder, 0o700);
    }
    std::fs::write(host.data().join("ledger/ledger.db"), b"").unwrap();
    host.start_again().await;
    assert!(host.data().join("master.key").exists());
}

#[tokio::test]
async fn writable_data_folder_is_refused() {
    let host = with_data(false).await;
    for folder in [host.data(), host.data().join("ledger")] {
        for mode in [0o770, 0o702, 0o777, 0o1777] {
            set_mode(&folder, mode);
            refuses(&host, &["users may write to", "chmod go-w"]).await;
        }
        set_mode(&folder, 0o700);
    }
    // Applies to a new directory as well, and to the target of a backup.
    for name in ["new", "copy"] {
        std::fs::create_dir(host.path(name)).unwrap();
        set_mode(&host.path(name), 0o777);
    }
    let new = run(&host, &["serve", "--listen", "127.0.0.1:0", "--data", "new"]).await;
    assert!(!new.status.success() && said(&new).contains("chmod go-w"), "{}", said(&new));
    assert_eq!(std::fs::read_dir(host.path("new")).unwrap().count(), 0, "nothing is written");
    let copy = run(&host, &["admin", "backup", "--data", "data", "--to", "copy"]).await;
    assert!(!copy.status.success() && said(&copy).contains("chmod go-w"), "{}", said(&copy));
}

#[tokio::test]
async fn data_files_are_private() {
    let mut host = with_data(true).await;
    let is_private = |path: &Path, mode: u32| mode & 0o077 == 0 || path.ends_with("setgate.toml");
    let open = |folder: &Path| -> Vec<PathBuf> {
        let files = contents(folder).into_iter();
        files.filter(|(path, (mode, _))| path.is_file() && !is_private(path, *mode)).map(|(path, _)| path).collect()
    };
    assert_eq!(open(&host.data()), Vec::<PathBuf>::new());
    assert_eq!(std::fs::metadata(host.path("operator.key")).unwrap().permissions().mode() & 0o777, 0o600);
    // Files that an earlier version created with the umask get mode 0600 at the next start.
    for (path, _) in contents(&host.data().join("ledger")) {
        set_mode(&path, 0o644);
    }
    host.start_again().await;
    assert_eq!(open(&host.data()), Vec::<PathBuf>::new());
    // In an existing directory that others can read.
    std::fs::create_dir(host.path("backup")).unwrap();
    set_mode(&host.path("backup"), 0o755);
    let backup = run(&host, &["admin", "backup", "--data", "data", "--to", "backup"]).await;
    assert!(backup.status.success(), "{}", said(&backup));
    assert_eq!(open(&host.path("backup")), Vec::<PathBuf>::new());
}
