//! Reading a configuration, and its faults.

use super::*;

fn load(text: &str) -> Result<Config, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Config::load(Some(file.path()))
}

#[test]
fn a_file_changes_what_it_names_and_nothing_else() {
    let config = load("[listen]\naddress = \"0.0.0.0:9000\"\n[quota]\nfuel_per_call = 7\n").unwrap();
    let marked = load("\u{feff}[listen]\naddress = \"0.0.0.0:9000\"\n").unwrap();
    assert_eq!(marked.listen.address.port(), 9000, "a byte order mark is no part of it");
    assert_eq!(config.listen.address.port(), 9000);
    assert_eq!(config.quota.fuel_per_call, 7);
    assert_eq!(config.ingest.body_bytes_max, 1 << 20);
}

#[test]
fn what_is_wrong_is_named() {
    for (text, expected) in [
        ("[listen]\nadress = \"x\"\n", "adress"),
        ("[listen]\naddress = 7\n", "listen.address"),
        ("[delivery]\nin_flight_max = 0\n", "delivery.in_flight_max"),
        ("[server]\npublic_url = \"http://edge.example\"\n", "`server.public_url`: the scheme has to be https"),
        ("[server]\npublic_url = \"edge.example\"\n", "`server.public_url`: this is not an absolute URL"),
        ("[data]\nretention_s = 0\n", "data.retention_s"),
        ("[data]\nretention_every_s = 0\n", "data.retention_every_s"),
        ("[data]\nledger_bytes_max = 1000\n", "data.ledger_bytes_max"),
        ("[data]\naudit_retention_s = 0\n", "data.audit_retention_s"),
        ("[listen]\ntls_key = \"k.pem\"\n", "listen.tls_certificate"),
        ("[listen.tenant]\naddress = \"127.0.0.1:1\"\ntls_key = \"k.pem\"\n", "listen.tenant.tls_certificate"),
        ("[listen.operator]\naddress = \"127.0.0.1:1\"\nclient_ca = \"ca.pem\"\n", "listen.operator.client_ca"),
        ("[listen.operator]\ntls_key = \"k.pem\"\n", "address"),
        ("[listen.operator]\naddress = \"127.0.0.1:8080\"\n", "listen.operator.address"),
        ("[listen]\nbodies_bytes_max = 1000\n", "ingest.body_bytes_max"),
        ("[delivery]\nin_flight_bytes_max = 0\n", "`delivery.in_flight_bytes_max` is 0"),
        ("[egress]\nhead_ms_max = 0\n", "`egress.head_ms_max` is 0"),
        ("[quota]\nfilter_faults_max = 101\n", "`quota.filter_faults_max` is more than 100"),
        ("[quota]\nmemory_bytes_max = 1073741825\n", "`quota.memory_bytes_max` is 1073741825"),
        ("[sandbox]\nmemory_bytes_max = 33554431\n", "`sandbox.memory_bytes_max` (33554431)"),
        ("[quota]\ntable_elements_max = 1000000\n", "`quota.table_elements_max` is no setting"),
        ("[traces]\nsample_ratio = 1.5\n", "traces.sample_ratio"),
        ("[traces]\nendpoint = \"collector:4318\"\n", "traces.endpoint"),
        ("[traces]\nendpoint = \"http://me:hush@collector:4318\"\n", "traces.headers"),
        ("[log]\nlevel = \"inof\"\n", "did you mean `info`?"),
        ("[listen]\naddress = \"8080\"\n", "127.0.0.1:8080"),
        ("[listen.operator]\ntls_certificate = \"c\"\n", "listen.operator.address"),
        ("listen = 7\n", "is a table"),
        ("[lsiten]\naddress = \"127.0.0.1:1\"\n", "did you mean `[listen]`?"),
        ("address = \"127.0.0.1:1\"\n", "did you mean `listen.address`?"),
        ("[data]\nbody_bytes_max = 7\n", "did you mean `ingest.body_bytes_max`?"),
        ("[listen.operator]\naddress = \"127.0.0.1:1\"\ntls_kye = \"k\"\n", "did you mean `listen.operator.tls_key`?"),
        ("[listen\n", "TOML parse error"),
    ] {
        let said = load(text).unwrap_err().to_string();
        assert!(said.contains(expected), "{text}: {said}");
    }
    assert!(load("[listen]\naddress = \"localhost:0\"\n").is_ok());
    assert!(load("[quota]\nfilter_faults_max = 100\n").is_ok(), "every one of the calls that are counted");
    let missing = Config::load(Some(Path::new("/nowhere/setgate.toml"))).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/setgate.toml"));
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_its_line() {
    let text = "# settings\n[listen]\nadress = \"x\"\nconnections_max = \"many\"\n\n[delivery]\nin_flight_max = 0\n\
                [data]\nclock_settle_s = -1\n[log]\nlevel = \"inof\"\n[egress]\nallow = [\"everywhere\"]\n\
                [listen.tenant]\naddress = 1\n";
    let said = load(text).unwrap_err().to_string();
    for expected in [
        "line 3: `listen.adress` is no setting; did you mean `listen.address`?",
        "line 4: `listen.connections_max`: invalid type: found string \"many\"",
        "`delivery.in_flight_max` is 0",
        "line 9: `data.clock_settle_s`: ",
        "`log.level` `inof` is no level; did you mean `info`?",
        "line 13: `egress.allow`: ",
        "line 15: `listen.tenant.address`: ",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(said.lines().count(), 8, "a line for each, and nothing that follows from another: {said}");
}
