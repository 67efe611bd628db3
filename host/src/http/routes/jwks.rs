//! `/t/{tenant}/jwks.json`: the public keys with which a tenant signs the SETs that it issues.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use setgate_domain::id::{IssuerNumber, TenantId};
use setgate_domain::issuer_key::JWKS_MAX_AGE_S;

use crate::control::issuer_keys::IssuerKeys;
use crate::http::extract::Named;
use crate::http::openapi::{Operation, get};
use crate::http::problem::{Code, Problem};

/// RFC 7517 section 8.5.
const MEDIA_TYPE: &str = "application/jwk-set+json";

/// See [`crate::http::routes`].
pub(super) fn operations() -> Vec<Operation> {
    let about = "Public keys of the tenant's issuer, as a JWK Set (RFC 7517). They verify the SETs that it signed.";
    vec![
        get("/t/{tenant}/jwks.json", "showJwks", "Shows the public keys of a tenant's issuer.", of_tenant)
            .description(about)
            .responds_in::<JwkSet>(200, MEDIA_TYPE, "The public keys.")
            .ignores_parameters(),
        get(
            "/t/{tenant}/{issuer}/jwks.json",
            "showNumberedJwks",
            "Shows the public keys of a tenant's issuer with a number.",
            of_issuer,
        )
        .description(
            "An issuer has a number if an earlier tenant of the same name was an issuer. The number is part of the `iss` of \
             its SETs.",
        )
        .responds_in::<JwkSet>(200, MEDIA_TYPE, "The public keys.")
        .ignores_parameters(),
    ]
}

/// A JWK Set (RFC 7517 section 5), for the description.
#[derive(Serialize, JsonSchema)]
struct JwkSet {
    /// The public keys.
    keys: Vec<Map<String, Value>>,
}

async fn of_tenant(Named(tenant): Named<TenantId>, State(keys): State<IssuerKeys>) -> Result<Response, Problem> {
    answer(keys.jwks(&tenant, 1))
}

async fn of_issuer(
    Named(tenant): Named<TenantId>,
    Named(issuer): Named<IssuerNumber>,
    State(keys): State<IssuerKeys>,
) -> Result<Response, Problem> {
    answer(keys.jwks(&tenant, issuer.get()))
}

/// The same refusal for a tenant that does not exist and for one without keys, so that names cannot be probed.
fn answer(jwks: Option<String>) -> Result<Response, Problem> {
    let jwks = jwks.ok_or_else(|| Problem::new(Code::NotFound, "there are no public keys at this address"))?;
    let cache = format!("public, max-age={JWKS_MAX_AGE_S}");
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE.to_owned()), (header::CACHE_CONTROL, cache)], jwks).into_response())
}
