//! Adds data from the tenant's tables: the team that owns the application, and the region of the organization.
//!
//! Table `apps` has rows such as `{"owner": "team-shop"}` by application id, table `organizations` rows such as
//! `{"region": "eu"}` by organization id. All members of both rows are copied to the body's `context`. Config (all
//! optional): `{"apps": "apps", "organizations": "organizations", "member": "context"}`.

use serde::Deserialize;
use setgate_sdk::serde_json::Map;
use setgate_sdk::{Event, Result, Value, Verdict, config, json, log, lookup};

setgate_sdk::export!(filter);

/// Locations of the application in events of WSO2, Logto and the platform form. WSO2's session events contain lists of
/// applications.
const APPLICATION: [&str; 9] = [
    "/application/id",
    "/applications/0/id",
    "/session/applications/0/id",
    "/sessions/0/applications/0/id",
    "/data/application/id",
    "/data/application_id",
    "/data/applicationId",
    "/data/client_id",
    "/application/consumerKey",
];

/// Locations of the organization. In the platform form, `organization` may be an object or the id itself; a Logto route
/// contains the id in its parameters.
const ORGANIZATION: [&str; 7] = [
    "/organization/id",
    "/organization",
    "/user/organization/id",
    "/data/organization/id",
    "/data/organization_id",
    "/organizationId",
    "/data/organizationId",
];

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    apps: String,
    organizations: String,
    member: String,
}

impl Default for Config {
    fn default() -> Config {
        Config { apps: "apps".into(), organizations: "organizations".into(), member: "context".into() }
    }
}

/// The entry point of the filter.
pub fn filter(event: &Event) -> Result<Verdict> {
    let config: Config = config()?;
    let mut context = Map::new();
    for (table, places) in [(&config.apps, &APPLICATION[..]), (&config.organizations, &ORGANIZATION[..])] {
        let Some(key) = event.text(places.iter().copied()) else { continue };
        match lookup::get::<Value>(table, key)? {
            Some(Value::Object(row)) => context.extend(row),
            _ => log::debug!("table `{table}` has no row `{key}`"),
        }
    }
    if context.is_empty() { Ok(Verdict::pass()) } else { event.patch_body(json!({ (config.member): context })) }
}

#[test]
fn cases() {
    setgate_sdk::testing::cases(filter, include_str!("../cases.json"));
}
