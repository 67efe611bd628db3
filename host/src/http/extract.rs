//! Extractors for path parameters, queries, headers and JSON bodies. Each reports a precise problem, and describes
//! itself for `/openapi.json`.

use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::json;
use setgate_domain::id::{
    DeliveryId, Digest, EventId, FilterName, KeyId, ReplayId, SourceName, SubscriptionId, SubscriptionRef, TableName,
    TenantId,
};
use setgate_domain::text::{check_charset, without_mark};
use tokio::time::Instant;

use super::caller::Remote;
use super::connection::Peer;
use super::operations::{Described, Sheet};
use super::problem::{Code, Problem};
use super::responses::{Access, revoked_meanwhile};
use super::room::{Room, Taken};
use super::{Site, coding, strict};
use crate::control::ABSENT;

/// Time limit for the first [`BODY_BYTES_MIN`] bytes of a body, or all of it.
const BODY_GRACE: Duration = Duration::from_secs(10);
/// Time limit for each further [`BODY_BYTES_MIN`] bytes.
const BODY_WINDOW: Duration = Duration::from_secs(5);
/// Bytes of a body that must arrive within each time limit, which makes 4 KiB/s.
const BODY_BYTES_MIN: usize = 20 << 10;
/// Maximum size (bytes) of a JSON body of a management request.
pub(super) const JSON_BYTES_MAX: usize = 1 << 20;

/// A type that identifies a resource in a path.
pub(super) trait InPath: FromStr<Err = setgate_domain::id::Error> + JsonSchema {
    /// Name of the path parameter, such as `source` for `{source}`.
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
    SubscriptionRef = "subscription",
    EventId = "event",
    DeliveryId = "delivery",
    KeyId = "key",
    ReplayId = "replay",
    Digest = "digest",
);

/// The path parameter, parsed.
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

/// The subscription in the path, given by id or name. An id need not exist. Must follow the extractor that authorises
/// access to the tenant.
pub(super) struct OfSubscription(pub(super) SubscriptionId);

impl FromRequestParts<Site> for OfSubscription {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Problem> {
        let tenant: TenantId = path_param(parts, site).await?;
        let named: SubscriptionRef = path_param(parts, site).await?;
        Ok(Self(site.control.subscription_id(&tenant, &named)?))
    }
}

impl Described for OfSubscription {
    fn describe(sheet: &mut Sheet<'_>) {
        sheet.in_path::<SubscriptionRef>();
    }
}

pub(super) async fn path_param<T: InPath, S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<T, Problem> {
    let named = named(parts, state).await;
    named.map_err(|detail| Problem::new(Code::NotFound, detail))
}

/// The parsed path parameter, or an error message.
pub(super) async fn named<T: InPath, S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<T, String> {
    let params = RawPathParams::from_request_parts(parts, state).await.map_err(|error| error.body_text())?;
    let given = params.iter().find(|(key, _)| *key == T::PARAM).map_or("", |(_, value)| value);
    given.parse().map_err(|error: setgate_domain::id::Error| error.to_string())
}

/// A JSON body.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T> FromRequest<Site> for JsonBody<T>
where
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, site: &Site) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let media_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        check_text(media_type.unwrap_or_default(), &parts.headers)?;
        let is_json = media_type.is_some_and(is_json);
        // A POST without a body is treated as an empty object, whatever its content type.
        let may_be_absent = parts.method == Method::POST;
        let may_be_empty = body.size_hint().exact().is_none_or(|bytes| bytes == 0);
        if !(is_json || may_be_absent && may_be_empty) {
            return Err(not_json());
        }
        // Operator routes have no tenant. Access has been checked before the body is read.
        let tenant: Option<TenantId> = path_param(&mut parts, site).await.ok();
        let request = Request::from_parts(parts, body);
        let Arrived { body, room: _room, .. } =
            read(site, &site.uploads, tenant.as_ref(), request, JSON_BYTES_MAX, "the JSON body").await?;
        let invalid = |detail: String| Problem::new(Code::InvalidBody, detail);
        if body.is_empty() && may_be_absent {
            return strict::from_slice(b"{}").map(Self).map_err(|error| invalid(format!("the body is empty: {error}")));
        }
        if !is_json {
            return Err(not_json());
        }
        strict::from_slice(without_mark(&body)).map(Self).map_err(|error| invalid(format!("in the JSON body: {error}")))
    }
}

fn not_json() -> Problem {
    let detail = "send the body as `content-type: application/json`";
    Problem::new(Code::UnsupportedMediaType, detail)
}

impl<T: JsonSchema> Described for JsonBody<T> {
    fn describe(sheet: &mut Sheet<'_>) {
        sheet.json_body::<T>();
    }
}

/// Checks that a text body is UTF-8 and has no content coding.
pub(super) fn check_text(media_type: &str, headers: &HeaderMap) -> Result<(), Problem> {
    coding::none(headers)?;
    check_charset(media_type).map_err(|why| Problem::new(Code::UnsupportedMediaType, why))
}

fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// A request with its complete body.
pub(super) struct Arrived {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The memory budget taken for the body; hold it as long as the body.
    pub(super) room: Taken,
}

/// Reads a request's body of at most `bytes_max`. Memory budget is taken for the bytes received, not for the announced
/// length.
///
/// # Errors
/// 413 if it is larger, 429 or 503 if no memory budget is left, 408 if it arrives too slowly, 400 if it breaks off; 403
/// if the request's key was revoked in the meantime.
pub(super) async fn read(
    site: &Site,
    room: &Room,
    tenant: Option<&TenantId>,
    request: Request,
    bytes_max: usize,
    what: &str,
) -> Result<Arrived, Problem> {
    let (Parts { headers, extensions, .. }, body) = request.into_parts();
    let grant = extensions.get::<Access>().and_then(Access::get);
    // With a key the tenant is charged, and the tenant's quota applies instead of the client's limit.
    let client = extensions.get::<Remote>().copied().filter(|_| grant.is_none());
    let mut taken = room.take(tenant, 0)?;
    let mut whole = Gathered::Nothing;
    let keep = |data: Bytes, more: bool| {
        room.grow(&mut taken, tenant, data.len())?;
        if let Some(Remote(client)) = client.filter(|_| more) {
            room.charge_client(&mut taken, tenant, Peer::from(client))?;
        }
        whole.add(data);
        Ok(())
    };
    arrive(&headers, body, bytes_max, what, keep).await?;
    if let Some(grant) = grant {
        // Reading may have taken a minute: the key may have been revoked, and the tenant removed and created again.
        site.control.still_holds(grant).map_err(revoked_meanwhile)?;
    }
    Ok(Arrived { headers, body: whole.into_bytes(), room: taken })
}

/// Reads and discards a request's body of at most `bytes_max`. Fails as [`read`] does.
pub(super) async fn discard(request: Request, bytes_max: usize, what: &str) -> Result<HeaderMap, Problem> {
    let (Parts { headers, .. }, body) = request.into_parts();
    arrive(&headers, body, bytes_max, what, |_, _| Ok(())).await?;
    Ok(headers)
}

/// Reads a body and passes each part on, with a flag that is true if more may follow.
async fn arrive(
    headers: &HeaderMap,
    mut body: axum::body::Body,
    bytes_max: usize,
    what: &str,
    mut part: impl FnMut(Bytes, bool) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let too_large = || {
        let detail = format!("{what} is larger than {bytes_max} bytes, the limit of this host");
        Problem::new(Code::BodyTooLarge, detail)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large());
    }
    let (mut bytes, mut pace) = (0, Pace::begin());
    while let Some(frame) = pace.next(&mut body).await.ok_or_else(|| too_slow(what))? {
        let frame = frame
            .map_err(|_| Problem::new(Code::BodyBroken, format!("{what} is incomplete: the connection was closed")))?;
        // Trailers are ignored.
        let Ok(data) = frame.into_data() else { continue };
        bytes += data.len();
        if bytes > bytes_max {
            return Err(too_large());
        }
        pace.arrived(data.len());
        part(data, !body.is_end_stream())?;
    }
    Ok(())
}

fn too_slow(what: &str) -> Problem {
    let detail = format!(
        "{what} arrived too slowly: after the first {} s, at least {BODY_BYTES_MIN} bytes must arrive in each {} s",
        BODY_GRACE.as_secs(),
        BODY_WINDOW.as_secs()
    );
    Problem::new(Code::BodyTooSlow, detail)
}

/// The received bytes of a body. Most bodies arrive in one piece, which is not copied.
enum Gathered {
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl Gathered {
    fn add(&mut self, data: Bytes) {
        match self {
            Self::Nothing => *self = Self::One(data),
            Self::One(first) => {
                let mut many = BytesMut::with_capacity(first.len() + data.len());
                many.extend_from_slice(first);
                many.extend_from_slice(&data);
                *self = Self::Many(many);
            }
            Self::Many(many) => many.extend_from_slice(&data),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
    }
}

/// Enforces the minimum rate of a body: a sender that announces a body and does not send it holds its request for at
/// most [`BODY_GRACE`].
struct Pace {
    ends: Instant,
    bytes: usize,
    bytes_min: usize,
}

impl Pace {
    fn begin() -> Self {
        Self { ends: Instant::now() + BODY_GRACE, bytes: 0, bytes_min: BODY_BYTES_MIN }
    }

    /// The next frame, with an inner `None` at the end of the body. The outer `None` means that the body arrived too
    /// slowly.
    async fn next<B>(&mut self, body: &mut B) -> Option<Option<Result<Frame<B::Data>, B::Error>>>
    where
        B: Body + Unpin,
    {
        loop {
            match tokio::time::timeout_at(self.ends, body.frame()).await {
                Ok(frame) => return Some(frame),
                Err(_) if self.bytes < self.bytes_min => return None,
                Err(_) => *self = Self { ends: Instant::now() + BODY_WINDOW, bytes: 0, bytes_min: self.bytes_min },
            }
        }
    }

    fn arrived(&mut self, bytes: usize) {
        self.bytes += bytes;
        if Instant::now() >= self.ends && self.bytes >= self.bytes_min {
            *self = Self { ends: Instant::now() + BODY_WINDOW, bytes: 0, bytes_min: self.bytes_min };
        }
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
            Err(error) => Err(Problem::new(Code::InvalidQuery, error.body_text())),
        }
    }
}

impl<T: JsonSchema> Described for Query<T> {
    fn describe(sheet: &mut Sheet<'_>) {
        sheet.in_query::<T>();
    }
}

/// The version that a change expects (RFC 9110 section 13.1.1): one strong tag. `None`, as well as `*`, matches any
/// version. A PUT with `if-none-match: *` expects [`ABSENT`] (section 13.1.2).
pub(super) struct IfMatch(pub(super) Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let makes = parts.method == Method::PUT && IfNoneMatch::of(&parts.headers).is_any();
        let Some(given) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(makes.then_some(ABSENT))) };
        let tag = given.to_str().unwrap_or_default().trim();
        if tag == "*" {
            return Ok(Self(None));
        }
        let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
        version.map(|version| Self(Some(version))).ok_or_else(|| {
            let detail = "`if-match` is not an ETag of this host: send the ETag of your last GET";
            Problem::new(Code::VersionChanged, detail)
        })
    }
}

impl Described for IfMatch {
    fn describe(sheet: &mut Sheet<'_>) {
        let schema = json!({"type": "string", "pattern": "^(\\*|\"[0-9]{1,19}\")$"});
        sheet.in_header(
            "if-match",
            &schema,
            "The `ETag` of the version to change. `*` or no header matches any version.",
        );
        if *sheet.method() == Method::PUT {
            let schema = json!({"type": "string", "enum": ["*"]});
            sheet.in_header("if-none-match", &schema, "`*` creates the resource only if it does not exist.");
        }
        sheet.refuses([412]);
    }
}

/// The versions that the client has cached (RFC 9110 section 13.1.2).
pub(super) struct IfNoneMatch(Vec<HeaderValue>);

impl IfNoneMatch {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self(headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect())
    }

    /// Whether the header is `*`.
    fn is_any(&self) -> bool {
        self.0.iter().any(|given| given.as_bytes() == b"*")
    }

    /// Whether the client has this version.
    pub(super) fn has(&self, tag: &str) -> bool {
        let given = self.0.iter().filter_map(|tags| tags.to_str().ok());
        let mut given = given.flat_map(|tags| tags.split(',')).map(str::trim);
        // Weak comparison, since a proxy may have weakened the tag.
        given.any(|given| given == "*" || given.trim_start_matches("W/") == tag)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

impl Described for IfNoneMatch {
    fn describe(sheet: &mut Sheet<'_>) {
        sheet.known_versions();
    }
}
