use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::deliveries::PAGE_DEFAULT;
use crate::control::Page;
use crate::control::audit::{Query as AuditQuery, Record};
use crate::domain::audit::By;
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::http::Site;
use crate::http::auth::{Operator, Tenant};
use crate::http::extract::Query;
use crate::http::problem::Problem;

/// Which entries of a tenant's log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    kind: Option<String>,
    object: Option<String>,
    action: Option<String>,
    by: Option<By>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// Which entries of the whole log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct WholeQuery {
    tenant: Option<TenantId>,
    kind: Option<String>,
    object: Option<String>,
    action: Option<String>,
    by: Option<By>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    cursor: Option<String>,
    limit: Option<usize>,
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    Query(asked): Query<ListQuery>,
    State(site): State<Site>,
) -> Result<Json<Page<Record>>, Problem> {
    let ListQuery { kind, object, action, by, since, until, cursor, limit } = asked;
    let query = AuditQuery { kind, object, action, by, since, until };
    Ok(Json(site.control.list_audit(&tenant, query, cursor, limit.unwrap_or(PAGE_DEFAULT)).await?))
}

pub(in crate::http) async fn list_whole(
    _: Operator,
    Query(asked): Query<WholeQuery>,
    State(site): State<Site>,
) -> Result<Json<Page<Record>>, Problem> {
    let WholeQuery { tenant, kind, object, action, by, since, until, cursor, limit } = asked;
    let query = AuditQuery { kind, object, action, by, since, until };
    let limit = limit.unwrap_or(PAGE_DEFAULT);
    Ok(Json(site.control.list_whole_audit(tenant.as_ref(), query, cursor, limit).await?))
}
