//! Hides the routes of interfaces that a listener does not serve. They are answered 404, like unknown paths.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use http::Method;

use super::listener::interface::Interface::{self, Ingest, Operator, Tenant};
use super::problem::Problem;
use super::state::SharedState;

/// The interfaces that a route belongs to, by its pattern; an unlisted route belongs to the operator's.
fn of(route: &str, method: &Method) -> &'static [Interface] {
    const TENANT: &str = "/api/v1/tenants/{tenant}";
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match route.strip_prefix(TENANT) {
        // Only the operator removes a tenant.
        Some("" | "/") if !reads => &[Operator],
        // The operator reads tenants, and creates each tenant's first key.
        Some("" | "/") => &[Tenant, Operator],
        Some(below) if below == "/keys" || below.starts_with("/keys/") => &[Tenant, Operator],
        Some(_) => &[Tenant],
        None => match route {
            "/healthz" | "/readyz" => &[Ingest, Tenant, Operator],
            "/openapi.json" => &[Tenant, Operator],
            // Receivers and transmitters reach the issuers of tenants where senders reach the sources.
            route if route.starts_with("/ingest/") || route.starts_with("/t/") => &[Ingest],
            _ => &[Operator],
        },
    }
}

/// Hides the routes of all other interfaces.
pub(super) fn only(router: Router<SharedState>, served: Vec<Interface>) -> Router<SharedState> {
    if [Ingest, Tenant, Operator].iter().all(|interface| served.contains(interface)) {
        return router;
    }
    let served: Arc<[Interface]> = served.into();
    router.layer(middleware::from_fn(move |route: Option<MatchedPath>, request: Request, next: Next| {
        let served = served.clone();
        async move {
            let of_route = route.as_ref().map(|route| of(route.as_str(), request.method()));
            match of_route {
                Some(interfaces) if !interfaces.iter().any(|interface| served.contains(interface)) => {
                    Problem::no_route().into_response()
                }
                // An unknown path is answered by the router itself.
                _ => next.run(request).await,
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_has_its_interface() {
        for (method, route, expected) in [
            ("POST", "/ingest/{tenant}/{source}", &[Ingest][..]),
            ("GET", "/t/{tenant}/jwks.json", &[Ingest]),
            ("GET", "/t/{tenant}/{issuer}/jwks.json", &[Ingest]),
            ("POST", "/t/{tenant}/push/{source}", &[Ingest]),
            ("GET", "/healthz", &[Ingest, Tenant, Operator]),
            ("GET", "/readyz", &[Ingest, Tenant, Operator]),
            ("GET", "/metrics", &[Operator]),
            ("POST", "/api/v1/tenants", &[Operator]),
            ("GET", "/api/v1/keys", &[Operator]),
            ("DELETE", "/api/v1/keys/{name}", &[Operator]),
            ("GET", "/api/v1/tenants/{tenant}", &[Tenant, Operator]),
            ("DELETE", "/api/v1/tenants/{tenant}", &[Operator]),
            ("POST", "/api/v1/tenants/{tenant}/keys", &[Tenant, Operator]),
            ("DELETE", "/api/v1/tenants/{tenant}/keys/{name}", &[Tenant, Operator]),
            ("GET", "/api/v1/tenants/{tenant}/keysmith", &[Tenant]),
            ("POST", "/api/v1/tenants/{tenant}/issuer-keys", &[Tenant]),
            ("PUT", "/api/v1/tenants/{tenant}/sources/{name}", &[Tenant]),
            ("GET", "/api/v1/something/new", &[Operator]),
        ] {
            assert_eq!(of(route, &method.parse().unwrap()), expected, "{method} {route}");
        }
    }
}
