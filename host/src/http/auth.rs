//! Who may do what: keys as `Authorization: Bearer sgk_...`. A route names what it needs by the extractor it takes.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{Method, StatusCode, header};

use super::Site;
use super::extract::path_param;
use super::operations::{Described, Sheet};
use super::problem::Problem;
use crate::control::keys::Principal;
use crate::domain::id::TenantId;
use crate::domain::tenant::Scope;
use crate::pipeline::prove::bearer;

/// The path's `{tenant}`, after it was shown that the request may read (GET, HEAD) or change its things.
pub(super) struct Tenant(pub(super) TenantId);

impl FromRequestParts<Site> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Problem> {
        let principal = principal(parts, site)?;
        let tenant: TenantId = path_param(parts, site).await?;
        if principal.may(scope_of(&parts.method), Some(&tenant)) { Ok(Self(tenant)) } else { Err(forbidden()) }
    }
}

impl Described for Tenant {
    fn describe(sheet: &mut Sheet<'_>) {
        sheet.in_path::<TenantId>();
        let scope = scope_of(sheet.method());
        sheet.needs(scope);
    }
}

/// What a request asks for of a tenant.
fn scope_of(method: &Method) -> Scope {
    if matches!(*method, Method::GET | Method::HEAD) { Scope::Read } else { Scope::Write }
}

/// Who is asking; what it may do is for another extractor beside this one.
pub(super) struct Caller(pub(super) Principal);

impl FromRequestParts<Site> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Problem> {
        principal(parts, site).map(Self)
    }
}

/// Says nothing of its own: another extractor beside it asks for the key.
impl Described for Caller {
    fn describe(_: &mut Sheet<'_>) {}
}

/// Shown to be the operator.
pub(super) struct Operator;

impl FromRequestParts<Site> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Problem> {
        if principal(parts, site)?.may(Scope::Operator, None) { Ok(Self) } else { Err(forbidden()) }
    }
}

impl Described for Operator {
    fn describe(sheet: &mut Sheet<'_>) {
        sheet.needs(Scope::Operator);
    }
}

fn principal(parts: &Parts, site: &Site) -> Result<Principal, Problem> {
    let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
    given.and_then(|key| site.control.authenticate(key)).ok_or_else(|| {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "bad_key",
            "send a key of this host as `Authorization: Bearer sgk_...`; this one is missing, unknown or has ended",
        )
    })
}

/// The same for a tenant that is another's and for one that is not there: names cannot be probed.
fn forbidden() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", "this key may not do this here")
}
