//! Authentication and authorisation by API keys (`Authorization: Bearer sgk_...`). A route declares the access it
//! requires by the extractor it uses.

use axum::extract::FromRequestParts;
use http::Method;
use http::request::Parts;
use setgate_base::authenticate::bearer_token;
use setgate_domain::audit::{Actor, Originator};
use setgate_domain::id::TenantId;
use setgate_domain::idempotency::IdempotencyClaim;
use setgate_domain::tenant::Scope;

use super::caller::{Remote, RequestId};
use super::extract::path_param;
use super::openapi::{DescribeInput, OperationDraft};
use super::problem::{Code, Problem};
use super::responses::{GrantSlot, budget_bytes_min};
use super::state::SharedState;
use crate::control::keys::{Grant, Principal};

/// The path's `{tenant}`, after checking that the key may read (GET, HEAD) or change its resources.
pub(super) struct Tenant(pub(super) TenantId);

impl FromRequestParts<SharedState> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedState) -> Result<Self, Problem> {
        let principal = principal(parts, app)?;
        let tenant: TenantId = path_param(parts, app).await?;
        let scope = scope_of(&parts.method);
        let access = parts.extensions.get::<GrantSlot>().cloned().unwrap_or_default();
        // Another extractor of this request has checked already. A second turn would wait for the first one, which
        // is held.
        if access.get().is_some_and(|grant| *grant.tenant() == tenant) {
            return Ok(Self(tenant));
        }
        let granted = app.control.access.grant(&principal, scope, &tenant);
        let grant = granted.ok_or_else(|| forbidden(&principal, &tenant, scope))?;
        let reads = is_read(&parts.method);
        if reads {
            access.hold(app.reads.acquire(&tenant).await?);
        }
        app.responses.check(Some(&tenant), budget_bytes_min(reads))?;
        access.set(grant);
        Ok(Self(tenant))
    }
}

/// The grant that [`Tenant`] obtained.
pub(super) struct Granted(pub(super) Grant);

impl FromRequestParts<SharedState> for Granted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedState) -> Result<Self, Problem> {
        Tenant::from_request_parts(parts, app).await?;
        let granted = parts.extensions.get::<GrantSlot>().and_then(GrantSlot::get).cloned();
        granted.map(Self).ok_or_else(Problem::no_route)
    }
}

/// Describes nothing: the [`Tenant`] extractor beside it does.
impl DescribeInput for Granted {
    fn describe(_: &mut OperationDraft<'_>) {}
}

/// The actor of a request, for the audit log: the authenticated key.
pub(super) struct RequestActor(pub(super) Actor);

impl FromRequestParts<SharedState> for RequestActor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedState) -> Result<Self, Problem> {
        let by = Originator::Key(principal(parts, app)?.key);
        let request = parts.extensions.get::<RequestId>().map(|id| id.as_str().to_owned());
        let remote = parts.extensions.get::<Remote>().map(|remote| remote.0.to_string());
        let claim = parts.extensions.get::<IdempotencyClaim>().cloned();
        Ok(Self(Actor { by, request, remote, claim }))
    }
}

/// The required key is described by another extractor beside it.
impl DescribeInput for RequestActor {
    fn describe(draft: &mut OperationDraft<'_>) {
        if *draft.method() == Method::POST {
            draft.takes_key();
        }
    }
}

impl DescribeInput for Tenant {
    fn describe(draft: &mut OperationDraft<'_>) {
        draft.in_path::<TenantId>();
        let scope = scope_of(draft.method());
        draft.needs(scope);
    }
}

/// The scope that a request's method requires.
fn scope_of(method: &Method) -> Scope {
    if is_read(method) { Scope::Read } else { Scope::Write }
}

/// The authenticated principal. Its permissions are checked by another extractor beside this one.
pub(super) struct Caller(pub(super) Principal);

impl FromRequestParts<SharedState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedState) -> Result<Self, Problem> {
        principal(parts, app).map(Self)
    }
}

/// Describes nothing: another extractor beside it describes the required key.
impl DescribeInput for Caller {
    fn describe(_: &mut OperationDraft<'_>) {}
}

/// The operator's key, or for reads (GET, HEAD) a key that the operator has allowed to read.
pub(super) struct Operator;

impl FromRequestParts<SharedState> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedState) -> Result<Self, Problem> {
        let principal = principal(parts, app)?;
        let scope = if is_read(&parts.method) { Scope::OperatorRead } else { Scope::Operator };
        if principal.may(scope, None) {
            app.responses.check(None, budget_bytes_min(is_read(&parts.method)))?;
            return Ok(Self);
        }
        let detail = match principal.tenant {
            Some(_) => "this request requires an operator key, and this key belongs to a tenant".to_owned(),
            None => lacks(scope),
        };
        Err(Problem::new(Code::Forbidden, detail))
    }
}

impl DescribeInput for Operator {
    fn describe(draft: &mut OperationDraft<'_>) {
        let scope = if is_read(draft.method()) { Scope::OperatorRead } else { Scope::Operator };
        draft.needs(scope);
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Authenticates a request, once for all its extractors.
pub(super) fn principal(parts: &mut Parts, app: &SharedState) -> Result<Principal, Problem> {
    if let Some(known) = parts.extensions.get::<Principal>() {
        return Ok(known.clone());
    }
    let shown = app.control.access.authenticate(bearer_token(&parts.headers));
    let principal = shown.map_err(|denied| Problem::new(Code::BadKey, denied.to_string()))?;
    parts.extensions.insert(principal.clone());
    Ok(principal)
}

/// The same refusal for a tenant that belongs to others and for one that does not exist, so that names cannot be
/// probed.
fn forbidden(principal: &Principal, tenant: &TenantId, scope: Scope) -> Problem {
    let own = principal.tenant.is_none() || principal.tenant.as_ref() == Some(tenant);
    let detail = if own { lacks(scope) } else { format!("this key does not belong to tenant `{tenant}`") };
    Problem::new(Code::Forbidden, detail)
}

fn lacks(scope: Scope) -> String {
    format!("this request requires the scope `{}`, which this key does not have", scope.as_str())
}
