//! Look-up tables: uploaded as a whole, versioned, replaced atomically.

use http::Method;
use serde_json::{Value, json};
use setgate_tests::{Answer, Host, Ingest, Receiver, Seed, Tenant, World, event};

async fn put(tenant: &Tenant, name: &str, media_type: &str, rows: &str) -> Answer {
    let headers = [("content-type", media_type)];
    tenant.client.send(Method::PUT, &tenant.path(&format!("/tables/{name}")), &headers, rows.to_owned()).await
}

async fn post(tenant: &Tenant, below: &str, body: Value) -> Answer {
    tenant.client.post(&tenant.path(below), &body).await
}

#[tokio::test]
async fn delivery_keeps_the_version_it_was_created_with() {
    let Ingest { acme, source, .. } = &World::with().source("idp", Seed::Wso2).start_ingest().await;
    acme.filter("enrich-from-table").await;
    let first = put(acme, "apps", "text/csv", "app,owner,tier\na1,team-shop,gold\n").await.expect(201).json();
    assert_eq!(first["versions"][0]["format"], "csv", "{first}");
    acme.table("organizations", &[]).await;
    let receiver = Receiver::start().await;
    let subscription = acme
        .subscribe(&receiver)
        .chain(json!([{"filter": "enrich-from-table", "grants": ["config", "lookup"]}]))
        .create()
        .await;
    subscription.pause().await;
    let one = source.accept(event::wso2("one")).await;
    acme.delivery_in("due", &subscription.delivery_of(&one)).await;

    let second = put(acme, "apps", "application/jsonl", r#"{"key":"a1","value":{"owner":"second"}}"#).await;
    let second = second.expect(201).json();
    assert_eq!(second["previous"], first["digest"], "{second}");
    let two = source.accept(event::wso2("two")).await;
    acme.delivery_in("due", &subscription.delivery_of(&two)).await;

    let rolled = post(acme, "/tables/apps/rollback", json!({})).await.expect(200).json();
    assert_eq!((&rolled["digest"], &rolled["previous"]), (&first["digest"], &Value::Null), "{rolled}");
    let three = source.accept(event::wso2("three")).await;
    acme.delivery_in("due", &subscription.delivery_of(&three)).await;
    subscription.resume().await;
    for (accepted, context) in [
        (&one, json!({"owner": "team-shop", "tier": "gold"})),
        (&two, json!({"owner": "second"})),
        (&three, json!({"owner": "team-shop", "tier": "gold"})),
    ] {
        let id = subscription.delivery_of(accepted);
        acme.delivery_in("delivered", &id).await;
        let received = receiver.all().into_iter().find(|received| received.id() == id).unwrap();
        assert_eq!(received.json()["events"][event::WSO2_TYPE]["context"], context);
    }

    let nothing = post(acme, "/tables/apps/rollback", json!({})).await;
    assert_eq!(nothing.not_the_problem(409, "conflict"), None, "there is nothing before the first version");
    let active = post(acme, "/tables/apps/activate", json!({"digest": second["digest"]})).await.expect(200).json();
    assert_eq!((&active["digest"], &active["rows"]), (&second["digest"], &json!(1)), "{active}");
    let unknown = format!("sha256:{}", "0".repeat(64));
    let refused = post(acme, "/tables/apps/activate", json!({"digest": unknown})).await;
    assert_eq!(refused.not_the_problem(404, "not_found"), None);
    let shown = acme.get("/tables/apps").await;
    let versions = shown["versions"].as_array().unwrap();
    assert_eq!(versions.iter().map(|version| &version["active"]).collect::<Vec<_>>(), [false, true], "{shown}");
    // Uploading the same rows again creates no new version; a CSV equals the JSON lines that it is stored as.
    let again = put(acme, "apps", "text/csv; charset=utf-8", "app,owner,tier\na1,team-shop,gold\n").await;
    let again = again.expect(200).json();
    assert_eq!((&again["digest"], again["versions"].as_array().map(Vec::len)), (&first["digest"], Some(2)), "{again}");
    let path = acme.path(&format!("/tables/apps/versions/{}", first["digest"].as_str().unwrap()));
    let rows = acme.client.get(&path).await.expect(200).text();
    assert_eq!(rows, "{\"key\":\"a1\",\"value\":{\"owner\":\"team-shop\",\"tier\":\"gold\"}}\n");
}

#[tokio::test]
async fn last_twenty_versions_are_kept() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let mut digests = Vec::new();
    for number in 0..22 {
        let made = put(&acme, "t", "text/csv", &format!("key,n\na,{number}\n")).await.expect(201).json();
        digests.push(made["digest"].as_str().unwrap().to_owned());
    }
    let shown = acme.get("/tables/t").await;
    let versions: Vec<_> =
        shown["versions"].as_array().unwrap().iter().map(|version| version["digest"].as_str().unwrap()).collect();
    assert_eq!(versions, digests[2..], "oldest first: {shown}");
    let gone = acme.client.get(&acme.path(&format!("/tables/t/versions/{}", digests[0]))).await;
    assert_eq!(gone.not_the_problem(404, "not_found"), None, "no delivery was made with it");
}

#[tokio::test]
async fn invalid_table_names_line_and_column() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    for (media_type, rows, says) in [
        ("text/csv", "key,a\nx,1\ny\n", "line 3, column 2: the row has 1 columns, the header 2"),
        ("text/csv", "key,a\nx,1\ny,2\nx,3\n", "line 4: the key `x` already occurs in line 2"),
        ("text/csv", "key,\n", "line 1, column 2: the column has no name"),
        (
            "application/jsonl",
            "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\"}\n",
            "line 2, column 11: missing field `value`",
        ),
        ("application/jsonl", "{\"key\":\"a\",\"value\":1}\n{\"key\":\"a\",\"value\":2}\n", "already occurs in line 1"),
    ] {
        let refused = put(&acme, "t", media_type, rows).await;
        assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "{rows}");
        assert!(refused.json()["detail"].as_str().unwrap().contains(says), "{says}: {}", refused.text());
    }
    let refused = put(&acme, "t", "application/xml", "<rows/>").await;
    assert_eq!(refused.not_the_problem(415, "unsupported_media_type"), None);
    assert_eq!(acme.client.get(&acme.path("/tables/t")).await.not_the_problem(404, "not_found"), None);
}

#[tokio::test]
async fn quota_limits_table_bytes() {
    let host = Host::start().await;
    let quota = json!({"table_bytes_max": 400, "tables_bytes_max": 700});
    let acme = host.tenant_with("acme", json!({"quota": quota})).await;
    let rows = |mark: &str, bytes: usize| format!("{{\"key\":\"{mark}\",\"value\":\"{}\"}}", "x".repeat(bytes));
    let named = |answer: &Answer, quota: &str| {
        assert_eq!(answer.not_the_problem(409, "conflict"), None, "{quota}");
        assert!(answer.text().contains(&format!("`{quota}`")), "{quota}: {}", answer.text());
    };
    named(&put(&acme, "one", "application/jsonl", &rows("a", 400)).await, "table_bytes_max");
    // A CSV grows when it is converted.
    let csv =
        format!("key,a-name-of-a-column-that-is-long\n{}", (0..20).map(|n| format!("{n},\n")).collect::<String>());
    assert!(csv.len() < 400);
    let grown = put(&acme, "one", "text/csv", &csv).await;
    assert_eq!(grown.not_the_problem(422, "invalid_field"), None);
    assert!(grown.text().contains("`table_bytes_max`"), "{}", grown.text());

    put(&acme, "one", "application/jsonl", &rows("a", 300)).await.expect(201);
    put(&acme, "one", "application/jsonl", &rows("b", 300)).await.expect(201);
    named(&put(&acme, "two", "application/jsonl", &rows("c", 300)).await, "tables_bytes_max");
    named(&put(&acme, "one", "application/jsonl", &rows("c", 300)).await, "tables_bytes_max");
    put(&acme, "one", "application/jsonl", &rows("a", 300)).await.expect(200);
    acme.client.delete(&acme.path("/tables/one")).await.expect(204);
    put(&acme, "two", "application/jsonl", &rows("c", 300)).await.expect(201);
    // No other tenant's share is affected.
    let globex = host.tenant("globex").await;
    put(&globex, "one", "application/jsonl", &rows("a", 400)).await.expect(201);
}

#[tokio::test]
async fn spreadsheet_csv_is_read_unchanged() {
    let host = Host::start().await;
    let acme = host.tenant("acme").await;
    let put_with = async |query: &str, media_type: &str, rows: &str| {
        let headers = [("content-type", media_type)];
        acme.client.send(Method::PUT, &acme.path(&format!("/tables/t{query}")), &headers, rows.to_owned()).await
    };
    for (rows, offered) in [
        ("\u{feff}app;owner\na1;x\n", ";"),
        ("app\towner\na1\tx\n", "tab"),
        ("app|owner\na1|x\n", "|"),
        ("sep=;\napp;owner\n", ";"),
    ] {
        let refused = put_with("", "text/csv", rows).await;
        assert_eq!(refused.not_the_problem(422, "invalid_field"), None, "{rows}");
        assert!(refused.text().contains(&format!("?delimiter={offered}")), "{}", refused.text());
    }
    for (query, delimiter) in
        [("?delimiter=;", ";"), ("?delimiter=%3B", ";"), ("?delimiter=tab", "\t"), ("?delimiter=%7C", "|")]
    {
        let rows = format!("\u{feff}app{delimiter}owner\na1{delimiter}x,y\n");
        let shown = put_with(query, "text/csv", &rows).await;
        // The rows are the same each time, and so is the version.
        assert!(matches!(shown.status, 200 | 201), "{query}: {}", shown.text());
        let shown = shown.json();
        let below = format!("/tables/t/versions/{}", shown["digest"].as_str().unwrap());
        let version = acme.client.get(&acme.path(&below)).await.expect(200);
        assert_eq!(version.text().trim(), r#"{"key":"a1","value":{"owner":"x,y"}}"#, "{query}");
    }
    put_with("?delimiter=,", "text/csv", "a;b\nx\n").await.expect(201);
    let refused = put_with("?delimiter=:", "text/csv", "a\nx\n").await;
    assert_eq!(refused.not_the_problem(400, "invalid_query"), None);
    let refused = put_with("?delimiter=;", "application/jsonl", "").await;
    assert_eq!(refused.not_the_problem(400, "invalid_query"), None, "lines have no delimiter");
    let marked = put_with("", "application/jsonl", "\u{feff}{\"key\":\"a\",\"value\":1}\n").await.expect(201).json();
    let plain = put_with("", "application/jsonl", "{\"key\":\"a\",\"value\":1}\n").await.expect(200).json();
    assert_eq!((&marked["digest"], &marked["rows"]), (&plain["digest"], &json!(1)), "the mark is no part of the rows");
}
