//! Interfaces on separate listeners, each with its own TLS settings.

use http::Method;
use serde_json::json;
use setgate_tests::certificate::Issued;
use setgate_tests::{Client, Host, Receiver, Seed, Tenant, event};

use super::{Authority, speaks};

/// A local address with any free port.
const ANY: &str = "address = \"127.0.0.1:0\"\n";

#[tokio::test]
async fn interface_answers_on_its_listener_only() {
    let authority = Authority::new();
    let [main, operator, tenant] = ["main", "operator", "tenant"].map(|name| authority.certify(name, "127.0.0.1"));
    let person = authority.certify("person", "operator.example");
    let config = format!(
        "[listen]\n{}[listen.operator]\n{ANY}{}client_ca = \"{}\"\n[listen.tenant]\n{ANY}{}",
        speaks(&main.chain, &main.key),
        speaks(&operator.chain, &operator.key),
        authority.file().display(),
        speaks(&tenant.chain, &tenant.key),
    );
    let host = Host::with().config(&config).trust(authority.der()).start().await;
    let trusted = [authority.der()];
    let key = host.operator_key();
    let of_operator =
        Client::certified(host.interface("operator"), &trusted, person.der, person.private).with_key(&key);
    let of_tenants = Client::new(host.interface("tenant"), &trusted);
    let at_main = host.operator();

    // The whole flow, each step on its own listener.
    of_operator.post("/api/v1/tenants", &json!({"id": "acme"})).await.expect(201);
    let made = of_operator.post("/api/v1/tenants/acme/keys", &json!({})).await.expect(201).json();
    let acme = Tenant::new("acme", made["key"].as_str().unwrap(), &of_tenants);
    let receiver = Receiver::start().await;
    let subscription = acme.subscribe(&receiver).create().await;
    let source = acme.source("idp", Seed::Set).await;
    let accepted = source.at(at_main).accept(event::set("one")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    of_operator.get("/metrics").await.expect(200);

    // No listener serves another one's routes, with any key.
    let of_tenants = of_tenants.with_key(&key);
    for (at, method, path) in [
        ("main", Method::GET, "/api/v1/tenants"),
        ("main", Method::POST, "/api/v1/keys"),
        ("main", Method::GET, "/metrics"),
        ("main", Method::GET, "/api/v1/tenants/acme"),
        ("main", Method::GET, "/api/v1/tenants/acme/sources"),
        ("main", Method::POST, "/api/v1/tenants/acme/keys"),
        ("tenant", Method::GET, "/api/v1/tenants"),
        ("tenant", Method::GET, "/api/v1/keys"),
        ("tenant", Method::GET, "/metrics"),
        ("tenant", Method::DELETE, "/api/v1/tenants/acme"),
        ("tenant", Method::POST, "/ingest/acme/idp"),
        ("operator", Method::GET, "/api/v1/tenants/acme/sources"),
        ("operator", Method::POST, "/ingest/acme/idp"),
    ] {
        let client = match at {
            "main" => at_main,
            "tenant" => &of_tenants,
            _ => &of_operator,
        };
        let answer = client.send(method.clone(), path, &[], "").await;
        assert_eq!(answer.not_the_problem(404, "no_route"), None, "{at}: {method} {path}");
    }
    for client in [at_main, &of_tenants, &of_operator] {
        client.get("/healthz").await.expect(200);
        client.get("/readyz").await.expect(200);
    }
}

#[tokio::test]
async fn operator_listener_requires_a_client_certificate() {
    let (authority, another) = (Authority::new(), Authority::new());
    let server = authority.certify("server", "127.0.0.1");
    let config = format!(
        "[listen.operator]\n{ANY}{}client_ca = \"{}\"",
        speaks(&server.chain, &server.key),
        authority.file().display()
    );
    let host = Host::with().config(&config).start().await;
    let trusted = [authority.der()];
    let base = host.interface("operator");
    let reach = async |client: Client| {
        client.with_key(&host.operator_key()).try_send(Method::GET, "/api/v1/tenants", &[], "").await
    };
    assert!(reach(Client::new(base.clone(), &trusted)).await.is_err(), "no certificate, no answer");
    let stranger = another.certify("stranger", "operator.example");
    let stranger = Client::certified(base.clone(), &trusted, stranger.der, stranger.private);
    assert!(reach(stranger).await.is_err(), "a certificate of another authority is refused");
    let person = authority.certify("person", "operator.example");
    let person = Client::certified(base, &trusted, person.der, person.private);
    assert_eq!(reach(person.clone()).await.unwrap().status, 200);
    // The client certificate only admits the connection; the key identifies the caller.
    assert_eq!(person.get("/api/v1/tenants").await.not_the_problem(401, "bad_key"), None);
}

/// A certificate of version 1, valid until 2126, made with `openssl x509 -req -signkey` of OpenSSL 3.0.
const OF_VERSION_1: &str = "-----BEGIN CERTIFICATE-----\n\
    MIIBHjCBxQIUNnim86F73pzqofl5Z7W6RYiG9RcwCgYIKoZIzj0EAwIwETEPMA0G\n\
    A1UEAwwGcGVyc29uMCAXDTI2MTEyODIzNDkyNloYDzIxMjYxMTA0MjM0OTI2WjAR\n\
    MQ8wDQYDVQQDDAZwZXJzb24wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQqX1N8\n\
    UQMgH5TgMu/6Ndpyfm5RNX76nhh14Zxc2aoch7UJOQBLXEGDK8QhfjBCxnkjxDI+\n\
    RT+FQtAT19allBO4MAoGCCqGSM49BAMCA0gAMEUCIQDQLvPhms9FbGugLo7rjqQU\n\
    FLdYFLiOFcRiLnO3+/Gb6AIgKUuXrkv48mK9x+M1d5gMAfuNydh+mvaoZGO1dOxI\n\
    nxo=\n\
    -----END CERTIFICATE-----\n";

#[tokio::test]
async fn self_signed_client_certificate_can_be_trusted() {
    let authority = Authority::new();
    let server = authority.certify("server", "127.0.0.1");
    // As made by `openssl req -x509`; then one without basic constraints, and one that an unknown authority has issued.
    let own = [true, false].map(|may_sign| Issued::by_itself(&["person.example"], may_sign, 4096));
    let employed = setgate_tests::certificate::Authority::new().issue("person.example");
    let expired = Issued::by_itself(&["person.example"], false, 2020);
    let stranger = Issued::by_itself(&["person.example"], false, 4096);
    let file = authority.folder.path().join("clients.pem");
    let all = own.iter().chain([&employed, &expired]).map(Issued::certificate_pem).collect::<String>();
    std::fs::write(&file, all).unwrap();
    let speaks = speaks(&server.chain, &server.key);
    let config = format!("[listen.operator]\n{ANY}{speaks}client_ca = \"{}\"", file.display());
    let host = Host::with().config(&config).start().await;
    let trusted = [authority.der()];
    let reach = async |client: &Issued| {
        let client = Client::certified(host.interface("operator"), &trusted, client.der(), client.private());
        client.try_send(Method::GET, "/healthz", &[], "").await.is_ok()
    };
    for (nth, client) in own.iter().chain([&employed]).enumerate() {
        assert!(reach(client).await, "certificate {nth} matches exactly");
    }
    assert!(!reach(&stranger).await, "another certificate with the same name");
    assert!(!reach(&expired).await);
    let warned = host.last_logged(0, &["WARN", "client_ca", "has expired"]).expect("a line of the log");
    assert!(warned.contains("clients.pem") && warned.contains('4'), "{warned}");

    // A certificate that no client can present is refused at the start.
    std::fs::write(&file, OF_VERSION_1).unwrap();
    std::fs::write(authority.folder.path().join("bad.toml"), config).unwrap();
    let ended = Host::command(authority.folder.path()).args(["serve", "--config", "bad.toml"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success(), "it must not start: {said}");
    for part in ["clients.pem", "certificate 1", "version 3", "`openssl req -x509 "] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn single_interface_can_be_moved() {
    let host = Host::with().config(&format!("[listen.tenant]\n{ANY}")).start().await;
    host.operator().get("/api/v1/tenants").await.expect(200);
    host.operator().post("/api/v1/tenants", &json!({"id": "acme"})).await.expect(201);
    let hidden = host.operator().get("/api/v1/tenants/acme/events").await;
    assert_eq!(hidden.not_the_problem(404, "no_route"), None);
    let moved = Client::new(host.interface("tenant"), &[]).with_key(&host.operator_key());
    moved.get("/api/v1/tenants/acme/events").await.expect(200);
}
