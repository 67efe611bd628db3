//! Compares the API's description with the host that serves it. `cargo xtask openapi` does this more thoroughly, with
//! generated data.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::{Value, json};
use setgate_tests::{Everything, Host};

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE];

async fn document(host: &Host) -> Value {
    host.stranger().get("/openapi.json").await.expect(200).json()
}

/// Path, method, operation.
fn operations(document: &Value) -> Vec<(&str, Method, &Value)> {
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            found.push((path.as_str(), method.to_ascii_uppercase().parse().expect("a method"), operation));
        }
    }
    found
}

/// The path with names and ids of resources that do not exist.
fn made_up(path: &str) -> String {
    let ulid = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    [
        ("{subscription}", format!("sub_{ulid}")),
        ("{event}", format!("evt_{ulid}")),
        ("{delivery}", format!("dlv_{ulid}_{ulid}_0")),
        ("{key}", format!("key_{ulid}")),
        ("{kid}", "0".repeat(43)),
        ("{issuer}", "2".to_owned()),
        ("{digest}", format!("sha256:{}", "0".repeat(64))),
        ("{tenant}", "nobody".to_owned()),
        ("{source}", "nobody".to_owned()),
        ("{filter}", "nobody".to_owned()),
        ("{table}", "nobody".to_owned()),
    ]
    .iter()
    .fold(path.to_owned(), |path, (parameter, value)| path.replace(parameter, value))
}

#[tokio::test]
async fn description_is_public_and_cacheable() {
    let host = Host::start().await;
    let answer = host.stranger().get("/openapi.json").await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    assert_eq!(
        (&document["openapi"], &document["info"]["version"]),
        (&json!("3.1.0"), &json!(env!("CARGO_PKG_VERSION")))
    );
    let tag = answer.header("etag").expect("an ETag").to_owned();
    let known = host.stranger().send(Method::GET, "/openapi.json", &[("if-none-match", &tag)], "").await.expect(304);
    assert!(known.body.is_empty(), "it is not sent again");
    assert_eq!(known.header("etag"), Some(tag.as_str()));
}

/// Every described operation exists and requires the described key; undescribed methods are answered 405 with the
/// allowed ones.
#[tokio::test]
async fn only_described_methods_are_served() {
    let host = Host::start().await;
    let document = document(&host).await;
    let mut methods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut faults = Vec::new();
    for (path, method, operation) in operations(&document) {
        let of_path = methods.entry(made_up(path)).or_default();
        of_path.insert(method.to_string());
        if method == Method::GET {
            of_path.insert("HEAD".to_owned());
        }
        let answer = host.stranger().send(method.clone(), &made_up(path), &[], "").await;
        let what = format!("{method} {path}: {} {}", answer.status, answer.text());
        if answer.status == 405 || (answer.status == 404 && answer.text().contains("no_route")) {
            faults.push(format!("{what}: it is not there"));
        }
        if operation["security"] == json!([]) || operation["security"].as_array().unwrap().contains(&json!({})) {
            continue;
        }
        let is_polled = operation["security"] == json!([{"pollToken": []}]);
        let code = if is_polled { "bad_token" } else { "bad_key" };
        if answer.not_the_problem(401, code).is_some() || answer.header("www-authenticate").is_none() {
            faults.push(format!("{what}: it says that it needs a key"));
        }
    }
    for (path, takes) in &methods {
        for method in METHODS.iter().filter(|method| !takes.contains(method.as_str())) {
            let answer = host.operator().send(method.clone(), path, &[], "").await;
            // An answer to HEAD has no body.
            let wrong = match method {
                &Method::HEAD => (answer.status != 405).then(|| answer.status.to_string()),
                _ => answer.not_the_problem(405, "no_method"),
            };
            faults.extend(wrong.map(|why| format!("{method} {path}: {why}")));
            let allow: BTreeSet<_> = answer.header("allow").unwrap_or_default().split(',').map(str::to_owned).collect();
            if allow != *takes {
                faults.push(format!("{method} {path}: `allow` is {allow:?}"));
            }
        }
    }
    assert!(methods.len() >= 40, "there are paths: {}", methods.len());
    assert!(faults.is_empty(), "{} answers are not as described:\n{}", faults.len(), faults.join("\n"));
}

/// A series of bad requests, each answered with a problem that its operation describes.
#[tokio::test]
async fn malformed_requests_get_described_problems() {
    let host = Host::start().await;
    let all = Everything::at(&host).await;
    let acme = &all.tenant;
    let at = |below: &str| acme.path(below);
    let large = "x".repeat((1 << 20) + 1);
    let table = [("content-type", "image/png")];
    let json = [setgate_tests::client::JSON];
    let (get, put, post) = (Method::GET, Method::PUT, Method::POST);
    let asked = [
        (&get, "/nowhere".to_owned(), &[][..], "", 404, "no_route"),
        (&get, at("//idp"), &[], "", 404, "no_route"),
        (&get, at("/sources/%"), &[], "", 404, "not_found"),
        (&get, at("/sources/%ff"), &[], "", 404, "not_found"),
        (&get, at("/sources/%00"), &[], "", 404, "not_found"),
        (&get, at("/sources/idp%2f..%2fidp"), &[], "", 404, "not_found"),
        (&get, at("/sources/idp%0a"), &[], "", 404, "not_found"),
        (&get, at("/events?limit=0"), &[], "", 400, "invalid_query"),
        (&get, at("/events?limit=201"), &[], "", 400, "invalid_query"),
        (&get, at("/events?limit=99999999999999999999999"), &[], "", 400, "invalid_query"),
        (&get, at("/events?limit=1&limit=2"), &[], "", 400, "invalid_query"),
        (&get, at("/events?since=yesterday"), &[], "", 400, "invalid_query"),
        (&get, at("/events?colour=red"), &[], "", 400, "invalid_query"),
        (&get, at("/events?cursor=%00"), &[], "", 400, "bad_cursor"),
        (&get, at("/deliveries?limit=-1"), &[], "", 400, "invalid_query"),
        (&get, at("/deliveries?cursor=ffffffffffffffffffffffffffffffffffff"), &[], "", 400, "bad_cursor"),
        (&put, at("/sources/new"), &[], "{}", 415, "unsupported_media_type"),
        (&put, at("/sources/new"), &json, "", 400, "invalid_body"),
        (&put, at("/sources/new"), &json, "[1", 400, "invalid_body"),
        (&put, at("/sources/new"), &json, large.as_str(), 413, "body_too_large"),
        (&put, at("/tables/new"), &table, "", 415, "unsupported_media_type"),
        (&put, at("/filters/new?activate=maybe"), &[], "", 400, "invalid_query"),
        (&post, at("/keys"), &json, r#"{"label":"a","label":"b"}"#, 400, "invalid_body"),
    ];
    let mut faults = Vec::new();
    for (method, path, headers, body, status, code) in asked {
        let answer = acme.client.send(method.clone(), &path, headers, body.to_owned()).await;
        faults.extend(answer.not_the_problem(status, code).map(|why| format!("{method} {path}: {why}")));
    }
    assert!(faults.is_empty(), "{} answers are not as they should be:\n{}", faults.len(), faults.join("\n"));

    // In values that are only compared, NUL is an ordinary character.
    let events = acme.get("/events?subject=%00&type=%00&jti=a%00b").await;
    assert_eq!(events["items"], json!([]));
    let found = acme.client.get(&at("/events?limit=200")).await.expect(200);
    assert_eq!(found.json()["items"].as_array().map(Vec::len), Some(1), "the most that may be asked for");
}
