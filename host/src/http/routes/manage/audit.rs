use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;
use setgate_domain::audit::Originator;
use setgate_domain::id::TenantId;
use setgate_domain::time::Timestamp;

use crate::control::Page;
use crate::control::audit::{AuditLog, AuditQuery, AuditRecord};
use crate::http::auth::{Operator, Tenant};
use crate::http::extract::Query;
use crate::http::openapi::{Operation, get};
use crate::http::page::Paging;
use crate::http::problem::Problem;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/audit", "listAudit", "Lists the audit log of the tenant, newest first.", list)
            .responds::<Page<AuditRecord>>(200, "A page of entries."),
    ]
}

/// The operator's log of all tenants.
pub(in crate::http) fn of_operator() -> Vec<Operation> {
    vec![
        get("/api/v1/audit", "listWholeAudit", "Lists the audit log of all tenants, newest first.", list_whole)
            .responds::<Page<AuditRecord>>(200, "A page of entries."),
    ]
}

/// Filter of a tenant's audit log. Absent parameters match everything.
#[derive(Deserialize, JsonSchema)]
pub(in crate::http) struct ListQuery {
    /// Entries about objects of this kind.
    kind: Option<String>,
    /// Entries about the object with this id or name.
    object: Option<String>,
    /// Entries of this action, `kind.verb`.
    action: Option<String>,
    /// Changes made with this key, or by the `host`.
    by: Option<Originator>,
    /// Entries at or after this time.
    since: Option<Timestamp>,
    /// Entries before this time.
    until: Option<Timestamp>,
}

/// Filter of the whole audit log. Absent parameters match everything.
#[derive(Deserialize, JsonSchema)]
pub(in crate::http) struct WholeQuery {
    /// Entries of this tenant.
    tenant: Option<TenantId>,
    /// Entries about objects of this kind.
    kind: Option<String>,
    /// Entries about the object with this id or name.
    object: Option<String>,
    /// Entries of this action, `kind.verb`.
    action: Option<String>,
    /// Changes made with this key, or by the `host`.
    by: Option<Originator>,
    /// Entries at or after this time.
    since: Option<Timestamp>,
    /// Entries before this time.
    until: Option<Timestamp>,
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    Query(asked): Query<ListQuery>,
    paging: Paging,
    State(audit): State<AuditLog>,
) -> Result<Json<Page<AuditRecord>>, Problem> {
    let ListQuery { kind, object, action, by, since, until } = asked;
    let query = AuditQuery { kind, object, action, by, since, until };
    Ok(paging.answer(audit.list(&tenant, query, &paging.query).await?))
}

pub(in crate::http) async fn list_whole(
    _: Operator,
    Query(asked): Query<WholeQuery>,
    paging: Paging,
    State(audit): State<AuditLog>,
) -> Result<Json<Page<AuditRecord>>, Problem> {
    let WholeQuery { tenant, kind, object, action, by, since, until } = asked;
    let query = AuditQuery { kind, object, action, by, since, until };
    Ok(paging.answer(audit.list_whole(tenant.as_ref(), query, &paging.query).await?))
}
