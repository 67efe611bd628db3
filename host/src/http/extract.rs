//! Parsing at the border: names in paths, queries, headers and JSON bodies, each with a problem that says what was wrong,
//! and each with what `/openapi.json` says of it.

use std::convert::Infallible;
use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Site;
use super::operations::{Described, Sheet};
use super::problem::Problem;
use super::room::{Room, Taken};
use super::strict;
use crate::control::deliveries::PAGE_MAX;
use crate::domain::id::{
    DeliveryId, Digest, EventId, FilterName, KeyId, ReplayId, SourceName, SubscriptionId, TableName, TenantId,
};

/// Bytes of a management request's JSON body at the most.
pub(super) const JSON_BYTES_MAX: usize = 1 << 20;

/// What names a thing in a path.
pub(super) trait InPath: FromStr<Err = crate::domain::id::Error> + JsonSchema {
    /// The parameter of the path: `{source}`.
    const PARAM: &'static str;
}

macro_rules! in_path {
    ($($type:ident = $param:literal),* $(,)?) => {
        $(impl InPath for $type {
            const PARAM: &'static str = $param;
        })*
    };
}

in_path!(
    TenantId = "tenant",
    SourceName = "source",
    FilterName = "filter",
    TableName = "table",
    SubscriptionId = "subscription",
    EventId = "event",
    DeliveryId = "delivery",
    KeyId = "key",
    ReplayId = "replay",
    Digest = "digest",
);

/// What the path names, parsed.
pub(super) struct Named<T>(pub(super) T);

impl<T: InPath, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_param(parts, state).await.map(Self)
    }
}

impl<T: InPath> Described for Named<T> {
    fn describe(sheet: &mut Sheet<'_>) {
        sheet.in_path::<T>();
    }
}

pub(super) async fn path_param<T: InPath, S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<T, Problem> {
    let named = named(parts, state).await;
    named.map_err(|detail| Problem::new(StatusCode::NOT_FOUND, "not_found", detail))
}

/// The same, or what is wrong with it in words.
pub(super) async fn named<T: InPath, S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<T, String> {
    let params = RawPathParams::from_request_parts(parts, state).await.map_err(|error| error.body_text())?;
    let given = params.iter().find(|(key, _)| *key == T::PARAM).map_or("", |(_, value)| value);
    given.parse().map_err(|error: crate::domain::id::Error| error.to_string())
}

/// A JSON body.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T> FromRequest<Site> for JsonBody<T>
where
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, site: &Site) -> Result<Self, Problem> {
        let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !media_type.is_some_and(is_json) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "send the body as `content-type: application/json`",
            ));
        }
        // Operators' routes have no tenant; whose it is was shown before its body is read.
        let (mut parts, body) = request.into_parts();
        let tenant: Option<TenantId> = path_param(&mut parts, site).await.ok();
        let request = Request::from_parts(parts, body);
        let Arrived { body, room: _room, .. } =
            read(&site.uploads, tenant.as_ref(), request, JSON_BYTES_MAX, "the JSON body").await?;
        strict::from_slice(&body).map(Self).map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, "invalid_body", format!("in the JSON body: {error}"))
        })
    }
}

impl<T: JsonSchema> Described for JsonBody<T> {
    fn describe(sheet: &mut Sheet<'_>) {
        sheet.json_body::<T>();
    }
}

fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// A request that has been read.
pub(super) struct Arrived {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// What the body takes in memory: to be held as long as it is.
    pub(super) room: Taken,
}

/// Reads a request's body of at most `bytes_max`.
pub(super) async fn read(
    room: &Room,
    tenant: Option<&TenantId>,
    request: Request,
    bytes_max: usize,
    what: &str,
) -> Result<Arrived, Problem> {
    let (Parts { headers, .. }, body) = request.into_parts();
    let too_large = || {
        let detail = format!("{what} is larger than {bytes_max} bytes, the limit of this host");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large());
    }
    // What is announced cannot be exceeded; without an announcement it can be anything up to the limit.
    let weight = announced.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(bytes_max);
    let weight = u32::try_from(weight).unwrap_or(u32::MAX);
    let room = room.take(tenant, weight)?;
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(Arrived { headers, body: collected.to_bytes(), room }),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Problem::new(StatusCode::BAD_REQUEST, "body_broken", format!("{what} broke off"))),
    }
}

/// The query string, parsed.
pub(super) struct Query<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(error) => Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_query", error.body_text())),
        }
    }
}

impl<T: JsonSchema> Described for Query<T> {
    fn describe(sheet: &mut Sheet<'_>) {
        sheet.in_query::<T>();
    }
}

/// Entries of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "usize")]
#[schemars(inline, extend("minimum" = 1, "maximum" = PAGE_MAX, "default" = PAGE_DEFAULT))]
pub(super) struct Limit(usize);

/// Entries of a page where the request does not say.
const PAGE_DEFAULT: usize = 50;

impl Limit {
    /// How many.
    pub(super) fn get(self) -> usize {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(PAGE_DEFAULT)
    }
}

impl TryFrom<usize> for Limit {
    type Error = String;

    fn try_from(given: usize) -> Result<Self, String> {
        if (1..=PAGE_MAX).contains(&given) {
            Ok(Self(given))
        } else {
            Err(format!("from 1 to {PAGE_MAX}, not {given}"))
        }
    }
}

/// The version that a change expects (RFC 9110 section 13.1.1): one strong tag; none: any, which is `*` too.
pub(super) struct IfMatch(pub(super) Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(given) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(None)) };
        let tag = given.to_str().unwrap_or_default().trim();
        if tag == "*" {
            return Ok(Self(None));
        }
        let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
        version.map(|version| Self(Some(version))).ok_or_else(|| {
            let detail = "`if-match` is not an ETag that this host gave: send the one of your last GET";
            Problem::new(StatusCode::PRECONDITION_FAILED, "version_changed", detail)
        })
    }
}

impl Described for IfMatch {
    fn describe(sheet: &mut Sheet<'_>) {
        let schema = json!({"type": "string", "pattern": "^(\\*|\"[0-9]{1,19}\")$"});
        sheet.in_header("if-match", &schema, "The `ETag` of the version that is to be changed; `*` or absent: any.");
        sheet.refuses([412]);
    }
}

/// The versions that are known already (RFC 9110 section 13.1.2).
pub(super) struct IfNoneMatch(HeaderMap);

impl IfNoneMatch {
    /// Whether a version is known.
    pub(super) fn has(&self, tag: &str) -> bool {
        let given = self.0.get_all(header::IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
        given.flat_map(|tags| tags.split(',')).any(|given| given.trim() == tag || given.trim() == "*")
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.headers.clone()))
    }
}

impl Described for IfNoneMatch {
    fn describe(sheet: &mut Sheet<'_>) {
        let description = "`ETag`s of what is known already, with commas between them: it is not sent again.";
        sheet.in_header("if-none-match", &json!({"type": "string"}), description);
    }
}
