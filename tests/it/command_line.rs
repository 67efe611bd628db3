//! The command line in practice: in pipes, with the wrong host, with key files from any editor, and with untrusted text
//! in its output.

use std::fs::File;
use std::io::PipeWriter;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::json;
use setgate_tests::{Authority, Host, Receiver, Reply, Seed, event, place, until};
use tokio::process::Command;

/// Exit code of a program after its reader has gone, as reported by a shell: 128 plus the number of SIGPIPE.
const READER_GONE: i32 = 141;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A pipe without a reader.
fn nobody_reads() -> PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}

/// A host with some data, and its files: `tenant.key`, `event.json`, `filter.wasm`.
async fn host_with_a_filter() -> (Host, String) {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    acme.filter("drop-by-type").await;
    let receiver = Receiver::start().await;
    let chain = json!([{"filter": "drop-by-type", "grants": ["config"]}]);
    let subscription = acme.subscribe(&receiver).chain(chain).create().await;
    let source = acme.source("idp", Seed::Set).await;
    acme.source_with("own", Seed::Set, &json!({"proofs": [{"kind": "key"}]})).await;
    let accepted = source.accept(event::set("one")).await;
    let delivery = subscription.delivery_of(&accepted);
    acme.delivery_in("delivered", &delivery).await;
    // A key that may also send events.
    let scopes = json!({"scopes": ["ingest", "read", "write"]});
    let made = host.operator().post("/api/v1/tenants/acme/keys", &scopes).await.expect(201).json();
    std::fs::write(host.path("tenant.key"), format!("{}\n", made["key"].as_str().unwrap())).unwrap();
    std::fs::write(host.path("event.json"), event::set("two")).unwrap();
    std::fs::write(host.path("filter.wasm"), place::filter("drop-by-type")).unwrap();
    (host, delivery)
}

/// Every command that prints, with its arguments.
fn commands(host: &Host, delivery: &str) -> Vec<Vec<String>> {
    let base = host.base();
    let at = ["--host", &base, "--key-file", "tenant.key", "--tenant", "acme"];
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    vec![
        words(&[&["filter", "list"][..], &at].concat()),
        words(&[&["filter", "list", "--json"][..], &at].concat()),
        words(&[&["filter", "run", "--delivery", delivery][..], &at].concat()),
        words(&["filter", "run", "filter.wasm", "--event", "event.json"]),
        words(&["filter", "check", "filter.wasm"]),
        words(&[&["emit", "--source", "own", "--proof", "bearer", "event.json"][..], &at].concat()),
        words(&["admin", "check", "--data", "data"]),
        words(&["admin", "backup", "--data", "data", "--to", "backup"]),
    ]
}

#[tokio::test]
async fn closed_pipe_ends_the_command_without_a_panic() {
    let (host, delivery) = host_with_a_filter().await;
    for arguments in commands(&host, &delivery) {
        let mut command = Host::command(&host.path(""));
        let ended = command.args(&arguments).stdout(nobody_reads()).stderr(Stdio::piped()).spawn().unwrap();
        let ended = ended.wait_with_output().await.unwrap();
        let said = said(&ended);
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        assert_eq!(ended.status.code(), Some(READER_GONE), "{arguments:?}: {said}");
    }
    // A real shell pipe, with a reader that reads one line.
    let pipe =
        "\"$0\" filter list --host \"$1\" --key-file tenant.key --tenant acme 2>err.txt | head -1; cat err.txt >&2";
    let mut shell = Command::new("sh");
    shell.current_dir(host.path("")).args(["-c", pipe]).arg(place::setgate()).arg(host.base());
    let ended = shell.output().await.unwrap();
    assert_eq!(said(&ended), "drop-by-type\n");
}

#[tokio::test]
async fn full_disk_is_reported_without_a_panic() {
    let (host, delivery) = host_with_a_filter().await;
    for arguments in commands(&host, &delivery) {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = Host::command(&host.path(""));
        let ended = command.args(&arguments).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let ended = ended.wait_with_output().await.unwrap();
        let said = said(&ended);
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        assert!(said.contains("standard output cannot be written"), "{arguments:?}: {said}");
        assert_eq!(ended.status.code(), Some(74), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn demo_with_closed_pipe_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let filters = place::target_dir().join("filters");
    let mut command = Host::command(folder.path());
    command.arg("demo").arg("--filters").arg(&filters).env("TMPDIR", folder.path());
    let demo = command.stdout(nobody_reads()).stderr(Stdio::piped()).spawn().unwrap().wait_with_output();
    let ended = tokio::time::timeout(setgate_tests::wait::DEADLINE, demo).await.expect("it ends").unwrap();
    assert!(!said(&ended).contains("panicked"), "{}", said(&ended));
    assert_eq!(ended.status.code(), Some(READER_GONE), "{}", said(&ended));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "its folder is removed");
}

#[tokio::test]
async fn host_survives_a_closed_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Host::command(folder.path());
    command.args(["serve", "--data", "data", "--operator-key-file", "operator.key"]);
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    let mut host = command.stdout(nobody_reads()).stderr(nobody_reads()).spawn().unwrap();
    until("it answers", async || {
        assert_eq!(host.try_wait().unwrap(), None, "it runs");
        let mut client = Command::new("curl");
        client.args(["-sf", &format!("http://127.0.0.1:{port}/readyz")]).stdout(Stdio::null());
        client.status().await.unwrap().success().then_some(())
    })
    .await;
    let id = host.id().unwrap().to_string();
    assert!(Command::new("kill").arg(&id).status().await.unwrap().success());
    let ended = tokio::time::timeout(setgate_tests::wait::DEADLINE, host.wait()).await.expect("it ends").unwrap();
    assert_eq!(ended.code(), Some(0), "it ends as it would have with a reader");
}

#[tokio::test]
async fn every_command_takes_host_and_key_file() {
    let (host, delivery) = host_with_a_filter().await;
    let key = std::fs::read_to_string(host.path("tenant.key")).unwrap();
    for ending in ["", "\n", "\r\n", "\n\n"] {
        std::fs::write(host.path("tenant.key"), format!("{}{ending}", key.trim())).unwrap();
        for arguments in commands(&host, &delivery).iter().filter(|words| words.iter().any(|word| word == "--host")) {
            let ended = Host::command(&host.path("")).args(arguments).output().await.unwrap();
            assert!(ended.status.success(), "{ending:?} {arguments:?}: {}", said(&ended));
        }
    }
    for (text, says) in [("", "is empty"), ("sgk_a\nsgk_b\n", "more than one key")] {
        std::fs::write(host.path("tenant.key"), text).unwrap();
        let arguments = &commands(&host, &delivery)[0];
        let ended = Host::command(&host.path("")).args(arguments).output().await.unwrap();
        assert_eq!(ended.status.code(), Some(1));
        assert!(said(&ended).contains(says) && said(&ended).contains("tenant.key"), "{}", said(&ended));
    }
}

/// Runs `setgate filter ARGUMENTS` in a directory with a key file, expects it to fail, and returns its output.
async fn fails(folder: &Path, arguments: &[&str]) -> String {
    std::fs::write(folder.join("tenant.key"), "sgk_a_b\n").unwrap();
    let mut command = Host::command(folder);
    let ended = command.arg("filter").args(arguments).args(["--tenant", "acme", "--key-file", "tenant.key"]).output();
    let ended = ended.await.unwrap();
    assert!(!ended.status.success(), "{arguments:?}: {}", said(&ended));
    said(&ended)
}

#[tokio::test]
async fn errors_name_the_url_and_the_expectation() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let text = fails(folder, &["list", "--host", &url]).await;
    let path = "/api/v1/tenants/acme/filters";
    assert!(text.contains(&format!("GET {url}{path}")) && text.contains("Connection refused"), "{text}");

    // A different server with its usual answers.
    let other = Receiver::start().await;
    let url = format!("http://{}", other.address);
    let page = |_: &setgate_tests::Received| format!("<html>\x1b[2J<h1>Not here</h1>{}</html>", "x".repeat(100_000));
    other.otherwise(Reply::status(404).header("content-type", "text/html").body(page));
    let text = fails(folder, &["list", "--host", &url]).await;
    assert!(text.contains(&format!("GET {url}{path}")) && text.contains("404"), "{text}");
    assert!(text.contains("not a response of a Setgate host") && text.contains("Not here"), "{text}");
    assert!(text.len() < 1_000 && !text.contains('\x1b'), "the page is cut and escaped: {text}");
    other.otherwise(Reply::status(200).header("content-type", "text/html").body(|_| "<html></html>".to_owned()));
    let text = fails(folder, &["list", "--host", &url]).await;
    assert!(text.contains(&format!("GET {url}{path}")) && text.contains("is not JSON"), "{text}");

    for (host, says) in [("127.0.0.1:8080", "http://127.0.0.1:8080"), ("localhost:8080", "http://localhost:8080")] {
        let text = fails(folder, &["list", "--host", host]).await;
        assert!(text.contains("such as") && text.contains(says), "{text}");
    }
    let digest = format!("sha256:{}", "ab".repeat(31));
    for bad in [digest.as_str(), "ab12", "sha256:XY"] {
        let text = fails(folder, &["activate", "gate", bad, "--host", &url]).await;
        assert!(text.contains("is not a digest") && text.contains("64 hexadecimal digits"), "{text}");
        assert!(!text.contains("26 characters"), "{text}");
    }
    let ended = Host::command(folder).args(["filter", "list", "--tenant", "acme"]).output().await.unwrap();
    assert!(said(&ended).contains("--key-file"), "{}", said(&ended));
}

#[tokio::test]
async fn private_ca_can_be_trusted() {
    let (authority, another) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |name: &str, pem: String| {
        let path: PathBuf = folder.join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (ca, wrong) = (write("ca.pem", authority.pem()), write("wrong.pem", another.pem()));
    let host = Receiver::start_tls(authority.issue("127.0.0.1").server(None)).await;
    host.otherwise(Reply::status(200).body(|_| r#"{"items": [{"name": "gate", "versions": []}]}"#.to_owned()));
    let url = format!("https://{}", host.address);
    for trusted in [&[][..], &["--ca-file", &wrong]] {
        let text = fails(folder, &[&["list", "--host", &url], trusted].concat()).await;
        assert!(text.contains(&url) && text.contains("--ca-file"), "{text}");
    }
    let text = fails(folder, &["list", "--host", &url, "--ca-file", "nowhere.pem"]).await;
    assert!(text.contains("nowhere.pem"), "{text}");
    std::fs::write(folder.join("tenant.key"), "sgk_a_b\n").unwrap();
    let mut command = Host::command(folder);
    command.args(["filter", "list", "--host", &url, "--ca-file", &ca, "--tenant", "acme", "--key-file", "tenant.key"]);
    let ended = command.output().await.unwrap();
    assert!(ended.status.success() && said(&ended).contains("gate"), "{}", said(&ended));
}

#[tokio::test]
async fn output_is_free_of_control_characters() {
    /// Clears the screen, sets the title (C0 and C1), returns to the start of the line, and reverses the following
    /// text.
    const EVIL: &str = "\x1b[2J\x1b]0;x\x07\u{9b}31m\r\u{202e}";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tenant.key"), "sgk_a_b\n").unwrap();
    let host = Receiver::start().await;
    let base = format!("http://{}", host.address);
    let at = ["--host", base.as_str(), "--tenant", "acme"];
    let check = |arguments: &[&str], output: &Output| {
        let text = said(output);
        let controls = |character: &char| (character.is_control() && *character != '\n') || *character == '\u{202e}';
        assert_eq!(text.chars().find(controls), None, "{arguments:?}: {text:?}");
        assert!(text.contains("u{1b}") || text.contains("u001b"), "it is shown as an escape: {arguments:?}: {text}");
    };
    let document = |_: &setgate_tests::Received| {
        let evil = format!("{EVIL}\nverdict   pass");
        let version = json!({"digest": &evil, "active": true, "uploaded_at": &evil, "size_bytes": &evil});
        json!({"items": [{"name": &evil, "versions": [version]}], "reason": &evil, "filter": &evil}).to_string()
    };
    host.otherwise(Reply::status(200).body(document));
    std::fs::write(folder.path().join("event.json"), "{}").unwrap();
    for words in [
        &["filter", "list", "--key-file", "tenant.key"][..],
        &["filter", "list", "--json", "--key-file", "tenant.key"],
        &["filter", "rollout", "gate", "--key-file", "tenant.key"],
        &["emit", "--source", "idp", "event.json"],
    ] {
        let arguments = [words, &at].concat();
        let output = Host::command(folder.path()).args(&arguments).output().await.unwrap();
        check(&arguments, &output);
        assert!(output.status.success(), "{}", said(&output));
        let forged = said(&output).lines().any(|line| line == "verdict   pass");
        assert!(!forged, "a value cannot start a new line: {}", said(&output));
    }
    let refusal = |_: &setgate_tests::Received| json!({"code": "conflict", "detail": EVIL}).to_string();
    host.otherwise(Reply::status(409).body(refusal));
    for words in
        [&["filter", "promote", "gate", "--key-file", "tenant.key"][..], &["emit", "--source", "i", "event.json"]]
    {
        let arguments = [words, &at].concat();
        let output = Host::command(folder.path()).args(&arguments).output().await.unwrap();
        check(&arguments, &output);
        assert!(!output.status.success());
    }

    // Text from a filter and an event: here a value that the filter removes from the event.
    let wasm = folder.path().join("filter.wasm");
    std::fs::write(&wasm, place::filter("redact-claims")).unwrap();
    let mut set: serde_json::Value = serde_json::from_str(&event::set("one")).unwrap();
    for (_, claims) in set["events"].as_object_mut().unwrap() {
        claims["badge"] = json!("\u{9b}31m\u{7f}\u{202e}");
    }
    std::fs::write(folder.path().join("event.json"), set.to_string()).unwrap();
    let config = r#"{"also": ["badge"]}"#;
    let arguments =
        ["filter", "run", "filter.wasm", "--event", "event.json", "--config", config, "--secret", "salt=pepper"];
    let output = Host::command(folder.path()).args(arguments).output().await.unwrap();
    let text = said(&output);
    assert!(output.status.success() && text.contains("/badge"), "{text}");
    assert!(!text.contains(['\u{9b}', '\u{7f}', '\u{202e}']), "{text:?}");
}
