//! Fetches key sets.

use std::time::Duration;

use ::http::{HeaderMap, StatusCode, header};
use setgate_domain::endpoint::Destination;
use setgate_domain::id::TenantId;
use setgate_domain::text::strip_bom;
use setgate_egress::{Egress, GetRequest};
use setgate_jose::JwkSet;
use setgate_jose::limits::JWKS_BYTES_MAX;

/// Timeout of a fetch. A sender waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a key set is used if its response has no `max-age`, in milliseconds.
const LIFETIME_MS_DEFAULT: i64 = 5 * 60_000;
/// Limits for a `max-age`, in milliseconds. A key that was withdrawn is accepted for at most the longer one.
const LIFETIME_MS_MIN: i64 = 60_000;
const LIFETIME_MS_MAX: i64 = 3_600_000;

/// A key set, and how long it may be used.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) set: JwkSet,
    pub(super) lifetime_ms: i64,
}

/// Fetches a JWKS (RFC 7517).
///
/// # Errors
/// The problem, for the log. It contains neither the URL nor any part of the response.
pub(super) async fn fetch(egress: &Egress, tenant: &TenantId, url: &str) -> Result<Fetched, String> {
    let url = Destination::parse(url).map_err(|error| error.to_string())?;
    let request = GetRequest {
        tenant,
        url: &url,
        accept: "application/jwk-set+json, application/json",
        bytes_max: JWKS_BYTES_MAX,
        timeout: FETCH_TIMEOUT,
    };
    let document = egress.get(request).await.map_err(|error| error.to_string())?;
    if document.status != StatusCode::OK {
        return Err(format!("the response has the status {}, and must have 200", document.status.as_u16()));
    }
    if !is_json(&document.headers) {
        return Err("the response has to have the content type application/json or application/jwk-set+json".to_owned());
    }
    let set = JwkSet::parse(strip_bom(&document.body)).map_err(|error| error.to_string())?;
    Ok(Fetched { set, lifetime_ms: lifetime_ms(&document.headers) })
}

fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.eq_ignore_ascii_case("application/jwk-set+json")
}

/// The `max-age` of `Cache-Control` (RFC 9111 section 5.2.2) within its limits.
fn lifetime_ms(headers: &HeaderMap) -> i64 {
    let lines = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let directives = lines.flat_map(|line| line.split(',')).map(|directive| directive.trim().to_ascii_lowercase());
    let mut lifetime_ms = LIFETIME_MS_DEFAULT;
    for directive in directives {
        if directive == "no-store" || directive == "no-cache" {
            return LIFETIME_MS_MIN;
        }
        let seconds = directive.strip_prefix("max-age=").map(|seconds| seconds.trim_matches('"'));
        if let Some(seconds) = seconds.and_then(|seconds| seconds.parse::<u32>().ok()) {
            lifetime_ms = i64::from(seconds) * 1000;
        }
    }
    lifetime_ms.clamp(LIFETIME_MS_MIN, LIFETIME_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_age_counts_within_limits() {
        for (lines, expected_s) in [
            (&[][..], 300),
            (&["public, max-age=600"], 600),
            (&["Max-Age=\"600\", must-revalidate"], 600),
            (&["public", "max-age=600"], 600),
            (&["max-age=0"], 60),
            (&["max-age=604800"], 3600),
            (&["max-age=99999999999999"], 300),
            (&["max-age=soon"], 300),
            (&["max-age=600, no-cache"], 60),
            (&["no-store"], 60),
            (&["s-maxage=600"], 300),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::CACHE_CONTROL, line.parse().unwrap());
            }
            assert_eq!(lifetime_ms(&headers), expected_s * 1000, "{lines:?}");
        }
    }

    #[test]
    fn content_type_has_to_be_json() {
        for (given, expected) in [
            ("application/json", true),
            ("application/JSON; charset=utf-8", true),
            ("application/jwk-set+json", true),
            ("text/html", false),
            ("application/jwk+json", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, given.parse().unwrap())]);
            assert_eq!(is_json(&headers), expected, "{given}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
