//! Starting, stopping and being killed.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use setgate_tests::{Host, Ingest, Receiver, Reply, Seed, World, event, until};

#[tokio::test]
async fn operator_key_is_shown_once() {
    let folder = tempfile::tempdir().unwrap();
    let serve = async |arguments: &[&str]| {
        let mut command = Host::command(folder.path());
        command.args(["serve", "--listen", "127.0.0.1:0", "--data", "data"]).args(arguments);
        let mut process = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(process.stdout.take().unwrap()));
        let mut said = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            said = said + &line + "\n";
            if line.starts_with("listening on ") {
                break;
            }
        }
        process.kill().await.unwrap();
        said
    };
    let first = serve(&[]).await;
    assert_eq!(first.matches("sgk_").count(), 1, "the first start shows the key once: {first}");
    assert!(first.find("sgk_") < first.find("listening on"), "before it listens: {first}");
    let second = serve(&[]).await;
    assert!(!second.contains("sgk_"), "the second start prints no key: {second}");
}

#[tokio::test]
async fn operator_key_file_is_private() {
    let mut host = Host::start().await;
    let file = host.path("operator.key");
    assert_eq!(mode(&file), 0o600, "the key file is the owner's alone");
    assert!(!host.said().contains("sgk_"), "then it is not shown: {}", host.said());
    host.operator().get("/api/v1/tenants").await.expect(200);
    let key = std::fs::read(&file).unwrap();
    host.restart().await;
    assert_eq!(std::fs::read(&file).unwrap(), key, "a restart makes no other key");
    host.operator().get("/api/v1/tenants").await.expect(200);
}

#[tokio::test]
async fn invalid_config_names_the_key() {
    let folder = tempfile::tempdir().unwrap();
    for (what, text, named) in [
        ("no TOML", "[listen\n", "TOML"),
        ("an unknown key", "[listen]\nadress = \"127.0.0.1:0\"\n", "adress"),
        ("a wrong type", "[data]\nclock_settle_s = \"many\"\n", "data.clock_settle_s"),
        ("a limit of 0", "[delivery]\nin_flight_max = 0\n", "delivery.in_flight_max"),
        ("half of TLS", "[listen]\ntls_key = \"k.pem\"\n", "listen.tls_certificate"),
        ("an invalid network", "[egress]\nallow = [\"everywhere\"]\n", "egress.allow"),
        ("an invalid log level", "[log]\nlevel = \"a=b=c\"\n", "log.level"),
        (
            "a missing certificate",
            "[listen]\naddress = \"127.0.0.1:0\"\ntls_certificate = \"c.pem\"\ntls_key = \"k.pem\"\n",
            "c.pem",
        ),
    ] {
        std::fs::write(folder.path().join("bad.toml"), text).unwrap();
        let ended = Host::command(folder.path()).args(["serve", "--config", "bad.toml"]).output().await.unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success(), "{what}: it must not start");
        assert!(said.contains(named), "{what}: the error names `{named}`: {said}");
    }
    let missing = Host::command(folder.path()).args(["serve", "--config", "nowhere.toml"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(!missing.status.success() && said.contains("nowhere.toml"), "a missing file: {said}");
}

/// A configuration with an error of each kind, and the text with which each is reported.
const WRONG: &str = "[listen]\nadress = \"127.0.0.1:0\"\n\n[data]\ndir = \"data\"\nclock_settle_s = \"many\"\n\n\
    [delivery]\nin_flight_max = 0\n\n[egress]\nallow = [\"everywhere\"]\n\n[log]\nlevel = \"inof\"\n\n[quotas]\nfilters_max = 3\n";
const REPORTED: [&str; 8] = [
    "bad.toml, line 2: `listen.adress` is no setting; did you mean `listen.address`?",
    "bad.toml, line 6: `data.clock_settle_s`",
    "`delivery.in_flight_max` is 0",
    "bad.toml, line 12: `egress.allow`",
    "`log.level` `inof` is no level; did you mean `info`?",
    "bad.toml, line 17: there is no section `[quotas]`",
    "the variable `SETGATE_LISTEN_ADDRESS` sets nothing; did you mean `SETGATE_LISTEN__ADDRESS`?",
    "the variable SETGATE_INGEST__BODY_BYTES_MAX: `ingest.body_bytes_max`",
];

#[tokio::test]
async fn all_config_errors_are_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.toml"), WRONG).unwrap();
    let mut serve = Host::command(folder.path());
    serve.args(["serve", "--config", "bad.toml", "--operator-key-file", "operator.key"]);
    serve.env("SETGATE_LISTEN_ADDRESS", "127.0.0.1:0").env("SETGATE_INGEST__BODY_BYTES_MAX", "lots");
    let ended = serve.output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    for reported in REPORTED {
        assert_eq!(said.matches(reported).count(), 1, "`{reported}` is reported once: {said}");
    }
    // A headline, and a line for each error: no error is reported as the consequence of another one.
    assert_eq!(said.trim_end().lines().count(), 1 + REPORTED.len(), "{said}");
    assert!(ended.stdout.is_empty(), "{}", String::from_utf8_lossy(&ended.stdout));
    let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(entries.collect::<Vec<_>>(), ["bad.toml"], "neither a data folder nor a key");
    assert_eq!(std::fs::read_to_string(folder.path().join("bad.toml")).unwrap(), WRONG);
}

#[tokio::test]
async fn config_check_reports_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("bad.toml", WRONG);
    write(
        "files.toml",
        "[listen]\ntls_certificate = \"c.pem\"\ntls_key = \"k.pem\"\n[egress]\nca_files = [\"a.pem\"]\n",
    );
    write("odd.toml", "[egress]\nallow_http = true\n[data]\nretention_s = 60\n");
    write("good.toml", "[data]\ndir = \"data\"\n");
    let check = async |file: &str| {
        let mut check = Host::command(folder.path());
        let ended = check.args(["config", "check", file]).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
    };
    let (code, out, said) = check("bad.toml").await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{said}");
    for reported in REPORTED.iter().filter(|reported| !reported.contains("variable")) {
        assert_eq!(said.matches(reported).count(), 1, "`{reported}` is reported once: {said}");
    }
    let (code, out, said) = check("files.toml").await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("c.pem") && said.contains("`egress.ca_files`") && said.contains("a.pem"), "{said}");
    let (code, out, said) = check("odd.toml").await;
    assert_eq!((code, out.as_str()), (Some(0), "odd.toml is valid\n"), "{said}");
    assert!(said.contains("warning: `egress.allow_http`") && said.contains("`data.retention_min_s`"), "{said}");
    let (code, out, said) = check("good.toml").await;
    assert_eq!((code, out.as_str(), said.as_str()), (Some(0), "good.toml is valid\n", ""));
    let (code, _, said) = check("missing.toml").await;
    assert!(code == Some(1) && said.contains("missing.toml"), "{said}");
    // The environment counts, too.
    let mut with = Host::command(folder.path());
    with.args(["config", "check", "good.toml"]).env("SETGATE_INGEST__BODY_BYTES_MAX", "lots");
    let ended = with.output().await.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("SETGATE_INGEST__BODY_BYTES_MAX"));
    let mut entries: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    entries.sort();
    assert_eq!(entries, ["bad.toml", "files.toml", "good.toml", "odd.toml"], "nothing is written");
}

#[tokio::test]
async fn misspelt_variable_ends_the_start() {
    let mut host = Host::with().env("SETGATE_LISTEN_ADDRESS", "127.0.0.1:0").prepare();
    host.launch();
    assert_eq!(host.ended().await.code(), Some(1), "{}", host.log());
    host.read_to_the_end().await;
    let said = host.log();
    assert!(said.contains("`SETGATE_LISTEN_ADDRESS`") && said.contains("`SETGATE_LISTEN__ADDRESS`"), "{said}");
    assert!(!host.data().exists() && !host.path("operator.key").exists(), "nothing is written");

    let host = Host::with().env("SETGATE_LISTEN__ADDRESS", "localhost:0").start().await;
    host.operator().get("/readyz").await.expect(200);
    let (_, port) = host.base().rsplit_once(':').map(|(name, port)| (name.to_owned(), port.to_owned())).unwrap();
    assert_ne!(port.parse::<u16>().unwrap(), 0, "a free port: {}", host.base());
}

#[tokio::test]
async fn sigterm_lets_deliveries_in_flight_finish() {
    let World { host, acme, source, receiver, subscription } = &mut World::start().await;
    receiver.answer([Reply::hang()]);
    let accepted = source.accept(event::set("one")).await;
    receiver.received(1).await;

    host.tell_to_stop().await;
    until("the host accepts no more events", async || source.try_send(event::set("two")).await.err()).await;
    receiver.release();
    let status = host.ended().await;
    assert_eq!(status.code(), Some(0), "it ends with 0:\n{}", host.log());

    host.start_again().await;
    let id = subscription.delivery_of(&accepted);
    acme.delivery_in("delivered", &id).await;
    // The second event may have been accepted just before the listener was closed.
    let copies = receiver.all().iter().filter(|received| received.id() == id).count();
    assert_eq!(copies, 1, "deliveries in flight were finished, and are not sent again");
}

#[tokio::test]
async fn unfinished_delivery_is_sent_after_a_restart() {
    let World { host, acme, source, receiver, subscription } =
        &mut World::with().config("[delivery]\ndrain_ms_max = 100").start().await;
    receiver.answer([Reply::hang()]);
    let accepted = source.accept(event::set("one")).await;
    receiver.received(1).await;

    assert_eq!(host.terminate().await.code(), Some(0), "it ends although a receiver hangs:\n{}", host.log());
    host.start_again().await;
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    let received = receiver.all();
    assert_eq!(received.len(), 2, "the receiver did not answer, so it is sent again");
    assert_eq!(received[0].id(), received[1].id(), "under the same id");
    assert_eq!(received[0].body, received[1].body, "with the same bytes");
}

#[tokio::test]
async fn accepted_event_arrives_after_a_kill() {
    const EVENTS: usize = 100;
    // Printed if the story fails, so that it can be repeated.
    let killed_after = usize::try_from(RandomState::new().hash_one("kill") % EVENTS as u64).unwrap();
    let chain = json!([{"filter": "drop-by-type", "grants": ["config"]}]);
    let World { host, acme, source, receiver, subscription } =
        &mut World::with().filter("drop-by-type").chain(chain).retry(&[1; 20]).start().await;
    // At the kill, some deliveries are in flight, some wait for a retry, and some are done.
    receiver.answer((0..EVENTS / 2).map(|number| match number % 3 {
        0 => Reply::status(204),
        1 => Reply::status(500),
        _ => Reply::status(204).after(Duration::from_millis(50)),
    }));

    let (told, mut accepted_so_far) = tokio::sync::mpsc::unbounded_channel();
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..4 {
        let (source, told) = (source.clone(), told.clone());
        senders.spawn(async move {
            for number in (sender..EVENTS).step_by(4) {
                // No answer: the host is dead, and the sender is responsible for retrying.
                let Ok(answer) = source.try_send(event::set(&format!("e{number}"))).await else { return };
                if answer.status == 202 {
                    told.send(answer.json()["event"].as_str().unwrap().to_owned()).unwrap();
                }
            }
        });
    }
    drop(told);
    let mut accepted = BTreeSet::new();
    while accepted.len() <= killed_after {
        let Some(event) = accepted_so_far.recv().await else { break };
        accepted.insert(event);
    }
    host.kill9().await;
    while let Some(event) = accepted_so_far.recv().await {
        accepted.insert(event);
    }
    assert!(accepted.len() > killed_after, "the host took {} events before it was killed", accepted.len());

    host.start_again().await;
    let expected: BTreeSet<_> = accepted
        .into_iter()
        .map(|event| subscription.delivery_of(&setgate_tests::Accepted { event, duplicate: false }))
        .collect();
    until(&format!("each of {} accepted events arrives (killed after {killed_after})", expected.len()), async || {
        receiver.ids().is_superset(&expected).then_some(())
    })
    .await;
    for id in &expected {
        acme.delivery_in("delivered", id).await;
    }
    let mut bodies = BTreeMap::new();
    for received in receiver.all() {
        assert_eq!(subscription.verify(&received), Ok(()), "signed before and after");
        let first = bodies.entry(received.id().to_owned()).or_insert_with(|| received.body.clone());
        assert_eq!(*first, received.body, "a copy has the same bytes (killed after {killed_after})");
    }
}

#[tokio::test]
async fn secrets_are_in_no_file_and_no_log() {
    let mut host = Host::with().config("[log]\nlevel = \"trace\"").start().await;
    let acme = host.tenant("acme").await;
    acme.filter("redact-claims").await;
    let receiver = Receiver::start().await;
    let chain =
        json!([{"filter": "redact-claims", "grants": ["config"], "secrets": {"salt": "binding-secret-77aa01"}}]);
    let mut secrets = vec![
        ("a tenant's key", secret_half(&acme.key)),
        ("the operator's key", secret_half(std::fs::read_to_string(host.path("operator.key")).unwrap().trim())),
        ("a binding's secret", "binding-secret-77aa01".to_owned()),
    ];
    for (number, seed) in [Seed::Wso2, Seed::Platform, Seed::Set].into_iter().enumerate() {
        let source = acme.source(&format!("s{number}"), seed).await;
        let body = match seed {
            Seed::Wso2 => event::wso2("one"),
            Seed::Platform => event::platform("u-17"),
            _ => event::set("one"),
        };
        source.accept(body).await;
        secrets.push(("a source's secret", seed.secret().trim_start_matches("whsec_").to_owned()));
    }
    let standard = acme.subscribe(&receiver).chain(chain).create().await;
    let hub = acme.subscribe(&receiver).signing("hub", false).create().await;
    secrets.push(("a whsec_ secret", standard.secret.trim_start_matches("whsec_").to_owned()));
    secrets.push(("a hub's secret", hub.secret.clone()));
    let source = acme.source("last", Seed::Set).await;
    source.accept(event::set("two")).await;
    receiver.received(2).await;

    // Once with the WAL as it is, once after everything was written back.
    for state in ["running", "stopped"] {
        if state == "stopped" {
            host.terminate().await;
        }
        let mut looked_at = 0;
        for file in files(&host.data()) {
            let bytes = std::fs::read(&file).unwrap();
            looked_at += bytes.len();
            for (what, secret) in &secrets {
                assert!(!contains(&bytes, secret), "{what} is in {} ({state})", file.display());
            }
        }
        assert!(looked_at > 0, "there are files with something in them");
    }
    for (what, secret) in &secrets {
        assert!(!host.log().contains(secret.as_str()), "{what} is in the log");
    }
}

#[tokio::test]
async fn data_folder_is_private() {
    let host = Host::start().await;
    assert_eq!(mode(&host.data()), 0o700, "the data folder");
    assert_eq!(mode(&host.data().join("master.key")), 0o600, "the master key");
}

#[tokio::test]
async fn wrong_master_key_is_refused() {
    let Ingest { host, source, .. } = &mut World::with().source("idp", Seed::Wso2).start_ingest().await;
    host.terminate().await;
    let (key, kept) = (host.data().join("master.key"), host.path("kept.key"));
    std::fs::rename(&key, &kept).unwrap();

    let ended = Host::command(&host.path(""))
        .args(["serve", "--listen", "127.0.0.1:0", "--data", "data"])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success(), "it must not start with data that it cannot decrypt");
    assert!(said.contains("master.key") && said.contains("put the right file back"), "it names the remedy: {said}");

    std::fs::rename(&kept, &key).unwrap();
    host.start_again().await;
    source.accept(event::wso2("one")).await;
}

#[tokio::test]
async fn restart_keeps_everything() {
    let Ingest { host, acme, source } = &mut World::with().source("idp", Seed::Wso2).start_ingest().await;
    acme.filter("enrich-from-table").await;
    acme.table("apps", &[("a1", json!({"owner": "team-shop"}))]).await;
    acme.table("organizations", &[]).await;
    let receiver = Receiver::start().await;
    let subscription = acme
        .subscribe(&receiver)
        .chain(json!([{"filter": "enrich-from-table", "grants": ["config", "lookup"]}]))
        .create()
        .await;
    let first = source.accept(event::wso2("one")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&first)).await;
    let before = [acme.get("/sources").await, acme.get("/filters").await, subscription.show().await];

    host.restart().await;
    let after = [acme.get("/sources").await, acme.get("/filters").await, subscription.show().await];
    assert_eq!(before, after, "the configuration is unchanged");
    assert!(source.accept(event::wso2("one")).await.duplicate, "accepted events are remembered");
    let second = source.accept(event::wso2("two")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&second)).await;
    let received = receiver.received(2).await;
    assert!(received[1].text().contains("team-shop"), "filter and table work as before: {}", received[1].text());
    assert_eq!(subscription.verify(&received[1]), Ok(()), "signed with the same key");
}

#[tokio::test]
async fn tls_is_served_with_a_certificate() {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&certificate, pem("CERTIFICATE", certified.cert.der())).unwrap();
    std::fs::write(&key, pem("PRIVATE KEY", &certified.signing_key.serialize_der())).unwrap();
    let config = format!("[listen]\ntls_certificate = \"{}\"\ntls_key = \"{}\"", certificate.display(), key.display());
    let host = Host::with().config(&config).trust(certified.cert.der().clone()).start().await;
    assert!(host.base().starts_with("https://"), "the base URL has the scheme: {}", host.base());
    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    source.accept(event::set("one")).await;
    assert_eq!(subscription.verify(&receiver.received(1).await[0]), Ok(()));

    let mut plain = setgate_tests::client::Base::default();
    plain.set(&host.base().replace("https://", "http://"));
    let plain = setgate_tests::Client::new(std::mem::take(&mut plain), &[]);
    assert!(plain.try_send(http::Method::GET, "/healthz", &[], "").await.is_err(), "plain HTTP is refused");
}

#[tokio::test]
async fn health_and_metrics_need_no_key_on_loopback() {
    let host = Host::start().await;
    let nobody = host.stranger();
    assert_eq!(nobody.get("/healthz").await.expect(200).text(), "ok\n");
    assert_eq!(nobody.get("/readyz").await.expect(200).text(), "ready\n");
    nobody.get("/metrics").await.expect(200);

    let acme = host.tenant("acme").await;
    let source = acme.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    let accepted = source.accept(event::set("one")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    for (name, labels) in [
        ("setgate_ingest_total", ["tenant=\"acme\"", "outcome=\"accepted\""]),
        ("setgate_deliveries_total", ["tenant=\"acme\"", "state=\"delivered\""]),
        ("setgate_attempts_total", ["tenant=\"acme\"", "outcome=\"2xx\""]),
    ] {
        until(&format!("{name} counts one"), async || (host.metric(name, &labels).await == 1.0).then_some(())).await;
    }
}

#[tokio::test]
async fn closed_metrics_need_the_operator_key() {
    let host = Host::with().config("[listen]\nmetrics_open = false").start().await;
    let acme = host.tenant("acme").await;
    assert_eq!(host.stranger().get("/metrics").await.not_the_problem(401, "bad_key"), None);
    assert_eq!(acme.client.get("/metrics").await.not_the_problem(403, "forbidden"), None);
    host.operator().get("/metrics").await.expect(200);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The part after `sgk_`, the key's id and `_`: the id is not secret.
fn secret_half(key: &str) -> String {
    let (_, half) = key.strip_prefix("sgk_").and_then(|key| key.split_once('_')).expect("sgk_<id>_<secret>");
    half.to_owned()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
