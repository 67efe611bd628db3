//! Extractors for path parameters, queries, headers and JSON bodies. Each reports a precise problem, and describes
//! itself for `/openapi.json`.

mod body;
mod conditional;
mod strict;

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use http::request::Parts;
use http::{HeaderMap, Method, header};
use hyper::body::Body as _;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use setgate_domain::id::{SubscriptionId, SubscriptionRef, TenantId};
use setgate_domain::text::{check_charset, strip_bom};

pub(super) use body::{ReadBody, discard, read};
pub(super) use conditional::{IfMatch, IfNoneMatch};

use super::coding;
use super::openapi::{DescribeInput, InPath, OperationDraft};
use super::problem::{Code, Problem};
use super::state::SharedState;

/// Maximum size (bytes) of a JSON body of a management request.
pub(super) const JSON_BYTES_MAX: usize = 1 << 20;

/// The path parameter, parsed.
pub(super) struct Named<T>(pub(super) T);

impl<T: InPath, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_param(parts, state).await.map(Self)
    }
}

impl<T: InPath> DescribeInput for Named<T> {
    fn describe(draft: &mut OperationDraft<'_>) {
        draft.in_path::<T>();
    }
}

/// The subscription in the path, given by id or name. An id need not exist. Must follow the extractor that authorises
/// access to the tenant.
pub(super) struct OfSubscription(pub(super) SubscriptionId);

impl FromRequestParts<SharedState> for OfSubscription {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedState) -> Result<Self, Problem> {
        let tenant: TenantId = path_param(parts, app).await?;
        let named: SubscriptionRef = path_param(parts, app).await?;
        Ok(Self(app.control.subscriptions.id_of(&tenant, &named)?))
    }
}

impl DescribeInput for OfSubscription {
    fn describe(draft: &mut OperationDraft<'_>) {
        draft.in_path::<SubscriptionRef>();
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

impl<T> FromRequest<SharedState> for JsonBody<T>
where
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, app: &SharedState) -> Result<Self, Problem> {
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
        let tenant: Option<TenantId> = path_param(&mut parts, app).await.ok();
        let request = Request::from_parts(parts, body);
        let ReadBody { body, budget: _budget, .. } =
            read(app, &app.uploads, tenant.as_ref(), request, JSON_BYTES_MAX, "the JSON body").await?;
        let invalid = |detail: String| Problem::new(Code::InvalidBody, detail);
        if body.is_empty() && may_be_absent {
            return strict::from_slice(b"{}").map(Self).map_err(|error| invalid(format!("the body is empty: {error}")));
        }
        if !is_json {
            return Err(not_json());
        }
        strict::from_slice(strip_bom(&body)).map(Self).map_err(|error| invalid(format!("in the JSON body: {error}")))
    }
}

fn not_json() -> Problem {
    let detail = "send the body as `content-type: application/json`";
    Problem::new(Code::UnsupportedMediaType, detail)
}

impl<T: JsonSchema> DescribeInput for JsonBody<T> {
    fn describe(draft: &mut OperationDraft<'_>) {
        draft.json_body::<T>();
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

impl<T: JsonSchema> DescribeInput for Query<T> {
    fn describe(draft: &mut OperationDraft<'_>) {
        draft.in_query::<T>();
    }
}
