//! The demo's last step: replaces and rolls back filters, replaces a table and restarts the host, then reruns each
//! delivery's chain and compares the result with its record.

use std::path::Path;

use anyhow::Context as _;
use http::Method;
use serde_json::Value;

use super::stage::Stage;
use crate::cli::client::Client;
use crate::cli::out::say;

/// Replaces the filters and tables that the deliveries used, under the same names.
pub(super) async fn change_everything(stage: &Stage, filters: &Path) -> anyhow::Result<()> {
    let other = std::fs::read(filters.join("drop-by-type.wasm")).context("the example filter drop-by-type")?;
    for (tenant, client) in stage.tenants() {
        let api = format!("/api/v1/tenants/{tenant}");
        // One filter is replaced for good, the other one only temporarily.
        for name in ["redact-claims", "flag-suspicious-login"] {
            client.upload(&format!("{api}/filters/{name}"), "application/wasm", other.clone().into()).await?;
        }
        let back = format!("{api}/filters/flag-suspicious-login/rollback");
        client.json(Method::POST, &back, None).await?;
        for (name, rows) in super::tables::tables() {
            let rows = rows.replace("team-", "crew-") + "{\"key\": \"new\", \"value\": {}}\n";
            client.upload(&format!("{api}/tables/{name}"), "application/jsonl", rows.into()).await?;
        }
    }
    Ok(())
}

/// Reruns every delivery. Returns the number that must be reproducible and the number that was; prints the others.
/// Deliveries that ran in a reused instance are skipped: see [`is_reused`].
pub(super) async fn every_delivery(stage: &Stage) -> anyhow::Result<(usize, usize)> {
    let (mut all, mut same) = (0, 0);
    for (tenant, client) in stage.tenants() {
        let api = format!("/api/v1/tenants/{tenant}/deliveries");
        for delivery in ids(client, &api).await? {
            let answer = client.json(Method::POST, &format!("{api}/{delivery}/reproduce"), None).await?;
            all += 1;
            if answer["reproduced"] == true {
                same += 1;
            } else {
                say!("NOT REPRODUCED {delivery}: {} {}", answer["reason"], answer["differences"]);
            }
        }
    }
    Ok((all, same))
}

/// Whether one of these runs was in an instance that had processed other events, so that its result may not be
/// repeatable.
pub(super) fn is_reused(runs: &[Value]) -> bool {
    runs.iter().any(|run| run["instance_events"].as_u64().is_some_and(|events| events > 1))
}

async fn ids(client: &Client, api: &str) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.json(Method::GET, &format!("{api}?limit=200{cursor}"), None).await?;
        let items = page["items"].as_array().context("a list of deliveries")?;
        let repeatable = items.iter().filter(|item| !item["runs"].as_array().is_some_and(|runs| is_reused(runs)));
        ids.extend(repeatable.filter_map(|item| item["id"].as_str().map(str::to_owned)));
        match &page["next"] {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => return Ok(ids),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_ran_after_other_events_need_not_come_again() {
        let runs =
            |events: &[Value]| is_reused(&events.iter().map(|n| json!({"instance_events": n})).collect::<Vec<_>>());
        assert!(runs(&[Value::Null, json!(2)]));
        assert!(!runs(&[Value::Null, json!(1)]) && !runs(&[]), "the first event of an instance has it fresh");
    }
}
