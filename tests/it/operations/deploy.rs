//! Compares the files in `deploy/` with the host: reads files, and starts programs if they are installed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use setgate_tests::{Host, World, event, place, until};

/// Every metric named in the host's sources, with its kind.
fn exported() -> BTreeMap<String, &'static str> {
    let mut names = BTreeMap::new();
    let mut uses = BTreeSet::new();
    walk(&place::root().join("host"), &mut |text| {
        for (name, value) in text.lines().filter_map(constant) {
            names.insert(name.to_owned(), value.to_owned());
        }
        let made = [
            ("counter!(", "counter"),
            ("persistent_counters::counter(", "counter"),
            ("gauge!(", "gauge"),
            ("histogram!(", "histogram"),
        ];
        for (call, kind) in made {
            for (at, found) in text.match_indices(call) {
                let path = text[at + found.len()..].split([',', ')']).next().unwrap_or_default().trim();
                uses.insert((path.rsplit("::").next().unwrap_or_default().to_owned(), kind));
            }
        }
    });
    uses.into_iter().filter_map(|(name, kind)| Some((names.get(&name)?.clone(), kind))).collect()
}

/// Parses `const NAME: &str = "setgate_...";`
fn constant(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once("const ")?.1.split_once(": &str = \"")?;
    let value = rest.split('"').next()?;
    value.starts_with("setgate_").then_some((name, value))
}

fn walk(folder: &Path, look: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The metrics that a text uses.
fn asked(text: &str) -> BTreeSet<String> {
    let ends = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '_');
    let starts = text.match_indices("setgate_").filter(|(at, _)| *at == 0 || text[..*at].ends_with(ends));
    starts.map(|(at, _)| text[at..].split(ends).next().unwrap_or_default().to_owned()).collect()
}

/// Whether a name is one of a metric's series.
fn is_of(name: &str, exported: &BTreeMap<String, &'static str>) -> bool {
    let whole = ["_sum", "_count", "_bucket"].iter().find_map(|suffix| name.strip_suffix(suffix));
    exported.contains_key(name) || whole.is_some_and(|whole| exported.get(whole) == Some(&"histogram"))
}

fn deploy(file: &str) -> String {
    std::fs::read_to_string(place::root().join("deploy").join(file)).unwrap()
}

#[test]
fn dashboards_and_alerts_use_existing_metrics() {
    let exported = exported();
    assert!(exported.len() > 15, "the sources' metrics are found: {exported:?}");
    for file in ["prometheus/setgate.rules.yml", "grafana/setgate.json"] {
        let asked = asked(&deploy(file));
        assert!(asked.len() > 5, "{file}: {asked:?}");
        let unknown: Vec<_> = asked.iter().filter(|name| !is_of(name, &exported)).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}, which the host does not export");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&deploy("grafana/setgate.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
    assert!(!is_of("setgate_no_such_total", &exported) && !is_of("setgate_ingest_total_sum", &exported));
}

#[tokio::test]
async fn busy_host_fills_the_dashboard() {
    let chain = serde_json::json!([{"filter": "drop-by-type", "grants": ["config"]}]);
    let World { host, acme, source, subscription, .. } =
        &World::with().filter("drop-by-type").chain(chain).start().await;
    let accepted = source.accept(event::set("one")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    // Counters of failures only exist after a failure.
    let seldom = ["commit_failures", "suspensions", "rollouts_ended", "put_off", "shadow_runs"];
    let often = |name: &String| !seldom.iter().any(|seldom| name.contains(seldom));
    let wanted: BTreeSet<_> = asked(&deploy("grafana/setgate.json")).into_iter().filter(often).collect();
    until("all series are exported", async || {
        let shown = asked(&host.operator().get("/metrics").await.expect(200).text());
        wanted.is_subset(&shown).then_some(())
    })
    .await;
}

#[tokio::test]
async fn systemd_accepts_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    // The program and its documentation are not at their installed locations here.
    let unit = deploy("systemd/setgate.service").replace("/usr/local/bin/setgate", &place::setgate().to_string_lossy());
    let file = folder.path().join("setgate.service");
    std::fs::write(&file, unit).unwrap();
    let verify = tokio::process::Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output().await;
    let Ok(verified) = verify else {
        return place::skip("systemd_accepts_the_unit", "systemd-analyze is not installed");
    };
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let of_ours: Vec<_> = said.lines().filter(|line| line.contains("setgate.service")).collect();
    assert!(verified.status.success() && of_ours.is_empty(), "{said}");
}

#[tokio::test]
async fn systemd_is_notified_of_start_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let mut host = Host::with().env("NOTIFY_SOCKET", path.to_str().unwrap()).start().await;
    let told = async || {
        let mut bytes = [0; 64];
        let size = tokio::time::timeout(setgate_tests::wait::DEADLINE, socket.recv(&mut bytes)).await;
        let size = size.expect("a notification arrives in time").unwrap();
        String::from_utf8_lossy(&bytes[..size]).into_owned()
    };
    assert_eq!(told().await, "READY=1");
    host.operator().get("/readyz").await.expect(200);
    host.terminate().await;
    assert_eq!(told().await, "STOPPING=1");
}
