//! Every list is paginated in a stable order, with cursors that are valid only for that list.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::client::JSON;
use setgate_tests::{Client, Everything, Host};

/// Every entry of a list, read in pages of `limit`.
async fn walk(client: &Client, path: &str, limit: usize) -> Vec<Value> {
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..100 {
        let page = client.get(&format!("{path}?limit={limit}{cursor}")).await.expect(200).json();
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= limit, "{path}: no more than was asked for");
        seen.extend(items.iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return seen,
        }
    }
    panic!("{path}: its pages do not end");
}

/// A host on which each list has at least three entries, and the lists of a tenant and of the operator.
async fn lists(host: &Host) -> (Everything, Vec<&'static str>) {
    let all = Everything::at(host).await;
    let acme = &all.tenant;
    for number in 0..3 {
        acme.source(&format!("s{number}"), setgate_tests::Seed::Open).await;
        acme.table(&format!("t{number}"), &[("a", json!(number))]).await;
        acme.table("users", &[("a", json!(number))]).await;
        acme.filter(["flag-suspicious-login", "redact-claims", "translate-to-caep"][number]).await;
        acme.upload(
            "gate-2",
            setgate_tests::place::filter(["drop-by-type", "redact-claims", "enrich-from-table"][number]),
        )
        .await;
        acme.client.post(&acme.path("/keys"), &json!({})).await.expect(201);
        let replay = json!({"subscription": all.subscription("delivered"), "since": "2020-01-01T00:00:00Z"});
        acme.client.post(&acme.path("/replays"), &replay).await.expect(201);
        all.source.accept(setgate_tests::everything::marked(&format!("n{number}"))).await;
        host.tenant(&format!("other{number}")).await;
        host.operator().post("/api/v1/keys", &json!({})).await.expect(201);
    }
    // A running replay creates deliveries.
    setgate_tests::until("the replays are done", async || {
        let replays = acme.get("/replays").await;
        replays["items"].as_array().unwrap().iter().all(|replay| replay["state"] == "done").then_some(())
    })
    .await;
    let lists = vec![
        "/sources",
        "/tables",
        "/filters",
        "/subscriptions",
        "/keys",
        "/replays",
        "/events",
        "/deliveries",
        "/audit",
        "/filters/gate-2/versions",
        "/tables/users/versions",
    ];
    (all, lists)
}

#[tokio::test]
async fn pages_list_each_entry_once() {
    let host = Host::start().await;
    let (all, lists) = lists(&host).await;
    let acme = &all.tenant;
    let lists = lists.into_iter().map(|list| (&acme.client, acme.path(list)));
    let operators = ["/api/v1/tenants", "/api/v1/keys", "/api/v1/audit"].map(|list| (host.operator(), list.to_owned()));
    for (client, path) in lists.chain(operators) {
        // Deliveries settle meanwhile, but the set of entries stays the same.
        let name = |entry: &Value| {
            ["id", "name", "digest", "seq"].iter().find_map(|member| entry.get(member)).cloned().expect("a name")
        };
        let whole: Vec<_> = walk(client, &path, 200).await.iter().map(name).collect();
        assert!(whole.len() >= 3, "{path}: {whole:?}");
        for limit in [1, 2] {
            let paged: Vec<_> = walk(client, &path, limit).await.iter().map(name).collect();
            assert_eq!(paged, whole, "{path} by {limit}");
        }
        for bad in ["limit=0", "limit=201", "limit=x", "limit=1&limit=1", "cursor=x&cursor=y"] {
            let refused = client.get(&format!("{path}?{bad}")).await;
            assert_eq!(refused.not_the_problem(400, "invalid_query"), None, "{path}?{bad}");
        }
    }
}

#[tokio::test]
async fn cursor_belongs_to_one_list_of_one_tenant() {
    let host = Host::start().await;
    let (all, lists) = lists(&host).await;
    let acme = &all.tenant;
    let other = host.tenant("globex").await;
    let mut cursors = Vec::new();
    for list in &lists {
        let page = acme.get(&format!("{list}?limit=1")).await;
        cursors.push((*list, page["next"].as_str().unwrap_or_else(|| panic!("{list}: {page}")).to_owned()));
    }
    for (of, cursor) in &cursors {
        for list in &lists {
            let answer = acme.client.get(&acme.path(&format!("{list}?limit=1&cursor={cursor}"))).await;
            if list == of {
                answer.expect(200);
            } else {
                assert_eq!(answer.not_the_problem(400, "bad_cursor"), None, "{list} with the cursor of {of}");
            }
        }
        if !of.contains("/versions") {
            let answer = other.client.get(&other.path(&format!("{of}?cursor={cursor}"))).await;
            assert_eq!(answer.not_the_problem(400, "bad_cursor"), None, "{of} of another tenant");
        }
        for bad in ["", "x", ".", "00", &cursor[1..], &cursor.to_uppercase()] {
            let answer = acme.client.get(&acme.path(&format!("{of}?cursor={bad}"))).await;
            assert_eq!(answer.not_the_problem(400, "bad_cursor"), None, "{of}?cursor={bad}");
        }
    }
    let redrive = json!({"where": {"state": "dead"}, "cursor": cursors[7].1});
    let redrive = acme.client.send(Method::POST, &acme.path("/deliveries/redrive"), &[JSON], redrive.to_string()).await;
    assert_eq!(redrive.not_the_problem(400, "bad_cursor"), None);
}

#[tokio::test]
async fn changes_between_pages_shift_nothing() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    for name in ["a", "b", "c", "d"] {
        acme.source(name, setgate_tests::Seed::Open).await;
    }
    let page = acme.get("/sources?limit=2").await;
    let next = page["next"].as_str().expect("there are more");
    acme.client.delete(&acme.path("/sources/b")).await.expect(204);
    acme.source("aa", setgate_tests::Seed::Open).await;
    let rest = acme.get(&format!("/sources?limit=2&cursor={next}")).await;
    let names: Vec<_> = rest["items"].as_array().unwrap().iter().map(|source| source["name"].clone()).collect();
    assert_eq!((names, &rest["next"]), (vec![json!("c"), json!("d")], &Value::Null));
}
