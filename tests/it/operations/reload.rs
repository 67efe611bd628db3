//! SIGHUP: settings and certificates that change at run time, and invalid ones.

use http::Method;
use setgate_tests::client::Base;
use setgate_tests::{Client, Host, Ingest, Reply, World, event, until};

use super::{Authority, speaks};

/// The log line of an applied configuration, and of a refused one.
const APPLIED: &str = "configuration and certificates reloaded";
const REFUSED: &str = "reload refused";

/// Replaces the configuration, sends SIGHUP, and waits for the resulting log line.
async fn reload(host: &Host, config: &str, says: &str) -> String {
    let from = host.logged();
    std::fs::write(host.path("setgate.toml"), config).unwrap();
    host.signal("HUP").await;
    until(&format!("the log says: {says}"), async || host.last_logged(from, &[says])).await
}

#[tokio::test]
async fn lowered_limit_loses_no_request() {
    let World { host, acme, source, receiver, subscription } = &World::start().await;
    receiver.otherwise(Reply::hang());

    // Events keep arriving while the settings change. Each is accepted or refused with a reason, and none fails.
    let (ask, asked) = tokio::sync::watch::channel(false);
    let sending = tokio::spawn({
        let source = source.clone();
        async move {
            let (mut accepted, mut refused) = (Vec::new(), 0);
            for number in 0.. {
                if *asked.borrow() && refused > 0 {
                    break;
                }
                let answer = source.send(event::set(&format!("e{number}"))).await;
                match answer.status {
                    202 => accepted.push(answer.json()["event"].as_str().unwrap().to_owned()),
                    429 => {
                        assert_eq!(answer.not_the_problem(429, "backlog_full"), None);
                        refused += 1;
                    }
                    other => panic!("{other}: {}", answer.text()),
                }
            }
            accepted
        }
    });
    receiver.received(1).await;
    let line = reload(host, "[quota]\nbacklog_deliveries_max = 1\n", APPLIED).await;
    assert!(line.contains("quota.backlog_deliveries_max"), "the key is named: {line}");
    ask.send_replace(true);
    let accepted = tokio::time::timeout(setgate_tests::wait::DEADLINE, sending).await.expect("it is refused").unwrap();

    let line = reload(host, "", APPLIED).await;
    assert!(line.contains("quota.backlog_deliveries_max"), "back to the default: {line}");
    source.accept(event::set("after")).await;
    receiver.otherwise(Reply::status(204));
    receiver.release();
    for event in &accepted {
        acme.delivery_in("delivered", &subscription.delivery_of_any()(event)).await;
    }
    assert_eq!(host.metric("setgate_reloads_total", &["outcome=\"applied\""]).await, 2.0);
}

#[tokio::test]
async fn settings_that_need_a_restart_are_reported() {
    let mut host = Host::start().await;
    let config = "[data]\nclock_settle_s = 7\n[listen]\nconnections_max = 9\nrequest_ms_max = 30000\n";
    for _ in 0..2 {
        let from = host.logged();
        reload(&host, config, APPLIED).await;
        let line =
            until("the settings are named", async || host.last_logged(from, &["changed settings require a restart"]))
                .await;
        assert!(line.contains("data.clock_settle_s, listen.connections_max\""), "{line}");
        assert_eq!(host.metric("setgate_reload_waiting_keys", &[]).await, 2.0);
    }
    host.restart().await;
    let from = host.logged();
    let line = reload(&host, config, APPLIED).await;
    assert!(line.contains("applied=\"\""), "nothing is another one: {line}");
    assert_eq!(host.last_logged(from, &["changed settings require a restart"]), None);
}

#[tokio::test]
async fn invalid_config_changes_nothing() {
    let Ingest { host, source, .. } = &Ingest::start().await;
    // Each of these would refuse every event if it were applied.
    let valid = "[quota]\nbacklog_deliveries_max = 0\n";
    for (config, named) in [
        ("[delivery]\nin_flight_max = 0\n", "delivery.in_flight_max"),
        ("[egress]\nca_files = [\"nowhere.pem\"]\n", "nowhere.pem"),
        ("[egress]\nresponse_ms_max = 0\n", "egress.response_ms_max"),
        ("[log]\nlevel = \"a=b=c\"\n", "log.level"),
        ("[log]\nlevle = \"info\"\n", "levle"),
        ("[ingest]\nbody_bytes_max = 20000000\n[listen]\nbodies_bytes_max = 120000000\n", "restart"),
        ("[log\n", "TOML parse error"),
    ] {
        let line = reload(host, &format!("{valid}{config}"), REFUSED).await;
        assert!(line.contains(named), "the error names `{named}`: {line}");
        source.accept(event::set(named)).await;
    }
    // A missing file is refused as well: it is not a request for the defaults.
    let from = host.logged();
    std::fs::remove_file(host.path("setgate.toml")).unwrap();
    host.signal("HUP").await;
    let line = until("the removal is logged", async || host.last_logged(from, &[REFUSED])).await;
    assert!(line.contains("cannot read the configuration file setgate.toml"), "{line}");
    assert_eq!(host.metric("setgate_reloads_total", &["outcome=\"refused\""]).await, 8.0);
    assert_eq!(host.metric("setgate_reload_refused", &[]).await, 1.0);
    reload(host, valid, APPLIED).await;
    assert_eq!(host.metric("setgate_reload_refused", &[]).await, 0.0);
    assert_eq!(source.send(event::set("last")).await.not_the_problem(429, "backlog_full"), None, "it is in force now");
}

#[tokio::test]
async fn log_bodies_retention_and_egress_are_reloaded() {
    let World { host, source, receiver, .. } = &World::start().await;
    receiver.otherwise(Reply::hang());
    reload(host, "[egress]\nresponse_ms_max = 300\n[log]\nlevel = \"debug\"\n[data]\nretention_every_s = 1\n", APPLIED)
        .await;
    source.accept(event::set("one")).await;
    until("an attempt has the time that was set", async || {
        (host.metric("setgate_attempts_total", &["outcome=\"timeout\""]).await > 0.0).then_some(())
    })
    .await;
    // The first run starts with the reload itself.
    for round in ["first", "second", "third"] {
        let from = host.logged();
        until(&format!("run {round} of retention is logged"), async || {
            host.last_logged(from, &["retention run finished"])
        })
        .await;
    }
    reload(host, "[ingest]\nbody_bytes_max = 64\n", APPLIED).await;
    let answer = source.send(event::set("two")).await;
    assert_eq!(answer.not_the_problem(413, "body_too_large"), None);
}

#[tokio::test]
async fn rotated_certificate_is_presented() {
    let (old, new) = (Authority::new(), Authority::new());
    let (first, next) = (old.certify("server", "127.0.0.1"), new.certify("server", "127.0.0.1"));
    let config = format!("[listen]\n{}", speaks(&first.chain, &first.key));
    let host = Host::with().config(&config).trust(old.der()).start().await;
    let base = Base::default();
    base.set(&host.base());
    let reach = async |authority: &Authority| {
        let client = Client::new(base.clone(), &[authority.der()]);
        client.try_send(Method::GET, "/healthz", &[], "").await.is_ok()
    };
    assert!(reach(&old).await && !reach(&new).await);

    // Only half of the change: certificate and key do not match.
    std::fs::copy(&next.chain, &first.chain).unwrap();
    let line = reload(&host, &config, REFUSED).await;
    assert!(line.contains(&*first.chain.to_string_lossy()), "the file is named: {line}");
    assert!(reach(&old).await && !reach(&new).await, "the old one stays in use");

    std::fs::copy(&next.key, &first.key).unwrap();
    reload(&host, &config, APPLIED).await;
    assert!(reach(&new).await && !reach(&old).await, "the same files, with their new content");

    // A different file can be used at once; removing TLS takes effect at the next start.
    let last = old.certify("last", "127.0.0.1");
    reload(&host, &format!("[listen]\n{}", speaks(&last.chain, &last.key)), APPLIED).await;
    assert!(reach(&old).await && !reach(&new).await);
    let from = host.logged();
    reload(&host, "", APPLIED).await;
    let line = until("that is logged", async || host.last_logged(from, &["changed settings require a restart"])).await;
    assert!(line.contains("listen.tls_certificate, listen.tls_key"), "{line}");
    assert!(reach(&old).await);
}

#[tokio::test]
async fn client_authority_is_reloaded() {
    let (server, old, new) = (Authority::new(), Authority::new(), Authority::new());
    let files = server.certify("server", "127.0.0.1");
    let config = |more: &str| {
        let speaks = speaks(&files.chain, &files.key);
        format!("[listen.operator]\naddress = \"127.0.0.1:0\"\n{speaks}{more}")
    };
    let host = Host::with().config(&config("")).start().await;
    let (base, trusted) = (host.interface("operator"), [server.der()]);
    let reach = async |client: Client| client.try_send(Method::GET, "/healthz", &[], "").await.is_ok();
    let of = |authority: &Authority| {
        let person = authority.certify("person", "operator.example");
        Client::certified(base.clone(), &trusted, person.der, person.private)
    };
    assert!(reach(Client::new(base.clone(), &trusted)).await, "no collector has been called so far");
    for (now, other) in [(&old, &new), (&new, &old)] {
        reload(&host, &config(&format!("client_ca = \"{}\"\n", now.file().display())), APPLIED).await;
        assert!(!reach(Client::new(base.clone(), &trusted)).await, "no certificate, no answer");
        assert!(reach(of(now)).await && !reach(of(other)).await);
    }
}

#[tokio::test]
async fn systemd_is_notified_of_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let host = Host::with().env("NOTIFY_SOCKET", path.to_str().unwrap()).start().await;
    let told = async || {
        let mut bytes = [0; 1024];
        let size = tokio::time::timeout(setgate_tests::wait::DEADLINE, socket.recv(&mut bytes)).await;
        String::from_utf8_lossy(&bytes[..size.expect("a notification arrives in time").unwrap()]).into_owned()
    };
    assert_eq!(told().await, "READY=1");
    reload(&host, "", APPLIED).await;
    assert_eq!(told().await, "STATUS=configuration reloaded");
    reload(&host, "[data]\nclock_settle_s = 7\n", APPLIED).await;
    assert_eq!(told().await, "STATUS=configuration reloaded; a restart is required for data.clock_settle_s");
    reload(&host, "[data]\nretention_s = 0\n", REFUSED).await;
    let status = told().await;
    assert!(status.starts_with("STATUS=") && status.contains("data.retention_s") && !status.contains('\n'), "{status}");
}
