//! `setgate filter run`: tries out a filter locally on events in the products' formats, with the same result as on a
//! host.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};
use setgate_tests::hostile::guest::Guest;
use setgate_tests::{Host, Receiver, Seed, event, place};

/// The output and exit code of a run.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    /// Its lines of JSON.
    fn lines(&self) -> Vec<Value> {
        let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{}", self.err));
        self.out.lines().map(read).collect()
    }
}

async fn run(folder: &Path, arguments: &[&str]) -> Said {
    let mut command = Host::command(folder);
    command.env("XDG_CACHE_HOME", folder.join("cache")).args(["filter", "run"]).args(arguments);
    let ended = command.output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: ended.status.code(), out: text(&ended.stdout), err: text(&ended.stderr) }
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    let file = folder.join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

#[tokio::test]
async fn product_events_run_as_on_a_host() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "filter.wasm", place::filter("flag-suspicious-login"));
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    acme.filter("flag-suspicious-login").await;
    let receiver = Receiver::start().await;
    let chain = json!([{"filter": "flag-suspicious-login", "grants": ["config"]}]);
    let subscription = acme.subscribe(&receiver).chain(chain).create().await;
    for (form, seed, body) in [
        ("wso2", Seed::Wso2, event::wso2("one")),
        ("logto", Seed::Logto, event::logto("s1")),
        ("platform", Seed::Platform, event::platform("u-17")),
        ("set", Seed::Set, event::set("two")),
    ] {
        write(folder, "event.json", &body);
        let said = run(folder, &["filter.wasm", "--form", form, "--event", "event.json", "--json"]).await;
        assert_eq!(said.code, Some(0), "{form}: {}{}", said.out, said.err);
        let [line] = &said.lines()[..] else { panic!("{form}: one line for one event: {}", said.out) };

        let accepted = acme.source(form, seed).await.accept(body).await;
        let shown = acme.get(&format!("/events/{}", accepted.event)).await;
        let delivery = acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
        assert_eq!(line["subject"], shown["subject"], "{form}: the same subject");
        assert_eq!(line["types"], shown["types"], "{form}: the same types");
        assert_eq!(line["set"]["events"], shown["set"]["events"], "{form}: the same event");
        assert_eq!(line["set"]["iat"], shown["set"]["iat"], "{form}: in the same unit");
        let (here, there) = (&line["run"], &delivery["runs"][0]);
        for member in ["verdict", "digest", "reason", "fault"] {
            assert_eq!(here[member], there[member], "{form}: {member}");
        }
        let claims = acme.get(&format!("/deliveries/{}/claims", delivery["id"].as_str().unwrap())).await;
        assert_eq!(line["claims"]["events"], claims["events"], "{form}: the same claims come out");
    }

    // An event of another form is refused, as on a host.
    let said = run(folder, &["filter.wasm", "--form", "logto", "--event", "event.json", "--json"]).await;
    assert_eq!((said.code, &said.lines()[0]["refused"]["code"]), (Some(1), &json!("wrong_form")), "{}", said.out);
    let said = run(folder, &["filter.wasm", "--form", "logto", "--event", "event.json"]).await;
    assert!(said.code == Some(1) && said.out.starts_with("refused   wrong_form: "), "{}", said.out);
}

#[tokio::test]
async fn one_fault_fails_the_whole_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Its config does not match, so it fails when it reads the config.
    write(folder, "good.wasm", place::filter("drop-by-type"));
    for (name, jti) in [("events/b.json", "two"), ("events/a.json", "one"), ("c.json", "three")] {
        write(folder, name, event::set(jti));
    }
    write(folder, "events/notes.txt", "no event");
    let arguments = ["good.wasm", "--event", "events", "c.json", "--event", "events/a.json"];
    let said = run(folder, &arguments).await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let files: Vec<_> = said.out.lines().filter_map(|line| line.strip_prefix("event     ")).collect();
    assert_eq!(files, ["events/a.json", "events/b.json", "c.json", "events/a.json"], "a folder by name");
    assert_eq!(said.out.lines().last(), Some("4 events: 4 pass"), "{}", said.out);

    write(folder, "broken.json", "{");
    let said = run(folder, &["good.wasm", "--json", "--event", "c.json", "broken.json", "events/a.json"]).await;
    let lines = said.lines();
    assert_eq!((said.code, lines.len()), (Some(1), 3), "{}", said.out);
    assert_eq!(lines[1]["refused"]["code"], "malformed_json", "{}", said.out);
    assert_eq!(lines[2]["run"]["verdict"], "pass", "the others are run all the same");

    write(folder, "traps.wasm", Guest::new("unreachable").wasm());
    let said = run(folder, &["traps.wasm", "--event", "c.json", "--json"]).await;
    assert_eq!((said.code, &said.lines()[0]["run"]["fault"]["kind"]), (Some(1), &json!("trap")), "{}", said.out);
    let said = run(folder, &["traps.wasm", "--event", "c.json"]).await;
    assert!(said.code == Some(1) && said.out.starts_with("fault     trap\n          it trapped: "), "{}", said.out);

    write(folder, "none.wasm", "no component");
    let said = run(folder, &["none.wasm", "--event", "c.json", "--json"]).await;
    assert_eq!((said.code, &said.lines()[0]["refused"]["code"]), (Some(1), &json!("not_wasm")), "{}", said.out);
    std::fs::create_dir(folder.join("empty")).unwrap();
    let said = run(folder, &["good.wasm", "--event", "empty"]).await;
    assert!(said.code != Some(0) && said.err.contains("empty has no event"), "{}", said.err);
}

#[tokio::test]
async fn tables_are_json_lines_or_csv() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "filter.wasm", place::filter("enrich-from-table"));
    write(folder, "event.json", event::wso2("one"));
    write(folder, "apps.csv", "key,owner\na1,\"team, shop\"\n");
    write(folder, "organizations.jsonl", "{\"key\":\"o1\",\"value\":{\"region\":\"eu\"}}\n");
    let tables = ["--table", "apps=apps.csv", "--table", "organizations=organizations.jsonl"];
    let base = ["filter.wasm", "--form", "wso2", "--event", "event.json", "--json"];
    let said = run(folder, &[&base[..], &tables[..]].concat()).await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let context = &said.lines()[0]["claims"]["events"][event::WSO2_TYPE]["context"];
    assert_eq!(*context, json!({"owner": "team, shop", "region": "eu"}));
    write(folder, "apps.csv", "key;owner\na1;other\n");
    let said = run(folder, &[&base[..], &tables[..], &["--delimiter", ";"]].concat()).await;
    let context = &said.lines()[0]["claims"]["events"][event::WSO2_TYPE]["context"];
    assert_eq!(context["owner"], "other", "{}{}", said.out, said.err);
    write(folder, "apps.csv", "key,owner\na1,x\na1,y\n");
    let said = run(folder, &[&base[..], &tables[..]].concat()).await;
    assert!(said.code != Some(0) && said.err.contains("apps.csv: line 3"), "{}", said.err);
}

#[tokio::test]
async fn compiled_filters_are_cached_privately() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "filter.wasm", place::filter("drop-by-type"));
    write(folder, "event.json", event::set("one"));
    let arguments = ["filter.wasm", "--event", "event.json"];
    let first = run(folder, &arguments).await;
    assert_eq!(first.code, Some(0), "{}{}", first.out, first.err);
    let kept = folder.join("cache/setgate/filters");
    let files = || -> Vec<_> { std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let [compiled] = &files()[..] else { panic!("one compiled filter: {:?}", files()) };
    assert_eq!(std::fs::metadata(&kept).unwrap().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(compiled).unwrap().mode() & 0o777, 0o600);

    // A cached filter is loaded: the file is not written again.
    let written = std::fs::metadata(compiled).unwrap().ino();
    assert_eq!(run(folder, &arguments).await.code, Some(0));
    assert_eq!(std::fs::metadata(compiled).unwrap().ino(), written, "it was not compiled again");
    // A modified file is not loaded.
    let mut bytes = std::fs::read(compiled).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(compiled, &bytes).unwrap();
    assert_eq!(run(folder, &arguments).await.code, Some(0));
    assert_ne!(std::fs::metadata(compiled).unwrap().ino(), written, "it was compiled again");
    assert_ne!(std::fs::read(compiled).unwrap(), bytes);

    // A directory that others may write to is not used, and the run continues without a cache.
    std::fs::set_permissions(&kept, std::os::unix::fs::PermissionsExt::from_mode(0o770)).unwrap();
    std::fs::remove_file(compiled).unwrap();
    let said = run(folder, &arguments).await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.err.contains("not cached") && said.err.contains("chmod 700"), "{}", said.err);
    assert!(files().is_empty(), "nothing is put there");
}
