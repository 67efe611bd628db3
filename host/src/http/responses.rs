//! Response bodies. Their memory is charged to their tenant until they are sent, and they break off if the key of the
//! request is revoked.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, SizeHint};
use setgate_base::fair::Permit;
use setgate_domain::id::TenantId;
use setgate_domain::page::PAGE_BYTES_MAX;

use super::body_budget::Taken;
use super::problem::{Code, Problem};
use super::state::SharedState;
use crate::control::keys::{Grant, Revoked};

/// Bodies up to this size (bytes) are not charged: less than the connection itself takes.
const SMALL_BYTES: u64 = 4 << 10;
/// Memory budget that must be free before a request is processed: enough for a page if the request reads.
pub(super) fn budget_bytes_min(reads: bool) -> usize {
    if reads { PAGE_BYTES_MAX } else { 64 << 10 }
}
/// How long the response to a change, which is committed by then, waits for memory budget.
const BUDGET_WAIT_MAX: Duration = Duration::from_secs(5);

/// The grant of a request, passed from the extractor that checks the key to the middleware around the routes.
#[derive(Clone, Default)]
pub(super) struct GrantSlot(Arc<Slot>);

#[derive(Default)]
struct Slot {
    grant: OnceLock<Grant>,
    turn: Mutex<Option<Permit>>,
}

impl GrantSlot {
    pub(super) fn set(&self, grant: Grant) {
        // All extractors of a request set the same grant.
        let _ = self.0.grant.set(grant);
    }

    pub(super) fn get(&self) -> Option<&Grant> {
        self.0.grant.get()
    }

    /// Holds a turn until the response has been produced.
    pub(super) fn hold(&self, turn: Permit) {
        *self.0.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
    }

    pub(super) fn release(&self) {
        drop(self.0.turn.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Response extension of bodies that check their key or account for their memory themselves.
#[derive(Debug, Clone, Copy)]
pub(super) enum SelfManaged {
    /// A stream that does both for each part.
    Stream,
    /// The bytes are shared by all responses, so their memory is not charged.
    SharedBytes,
}

/// Response extension of a request that has no grant: the tenant to which its memory is charged.
#[derive(Debug, Clone)]
pub(super) struct ChargedTo(pub(super) TenantId);

/// Charges a response and binds it to its grant.
pub(super) async fn charge_response(
    app: &SharedState,
    method: &Method,
    tenant: Option<&TenantId>,
    access: &GrantSlot,
    response: Response,
) -> Response {
    let self_managed = response.extensions().get::<SelfManaged>().copied();
    if matches!(self_managed, Some(SelfManaged::Stream)) {
        return response;
    }
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if let Some(grant) = access.get().filter(|_| reads)
        && let Err(revoked) = app.control.access.still_holds(grant)
    {
        // The tenant may have been removed and created again since the data was read.
        return revoked_meanwhile(revoked).into_response();
    }
    let bytes = response.body().size_hint().exact();
    if bytes.is_some_and(|bytes| bytes <= SMALL_BYTES) || self_managed.is_some() {
        return response;
    }
    let (head, body) = response.into_parts();
    let tenant = tenant.or(head.extensions.get::<ChargedTo>().map(|charged| &charged.0)).cloned();
    let tenant = tenant.as_ref();
    let whole = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => {
            tracing::warn!(%error, "response body failed");
            let detail = "the response could not be created: retry";
            return Problem::host_busy(detail).into_response();
        }
    };
    let budget = match app.responses.take_at_most(tenant, whole.len()) {
        Ok(budget) => budget,
        Err(problem) if reads => return problem.into_response(),
        Err(_) => {
            let waiting = app.responses.wait(tenant, whole.len());
            match tokio::time::timeout(BUDGET_WAIT_MAX, waiting).await {
                Ok(Some(budget)) => budget,
                _ => {
                    let detail = "the request was executed, but the memory budget for its response is used up: read the resource later";
                    return Problem::host_busy(detail).into_response();
                }
            }
        }
    };
    let body = GrantedBody {
        body: Body::from(Bytes::from_owner(Charged { bytes: whole, _budget: budget })),
        app: app.clone(),
        grant: access.get().cloned(),
    };
    Response::from_parts(head, Body::new(body))
}

/// For a request that lost its authorisation while it was processed: the key was revoked or the tenant removed.
pub(super) fn revoked_meanwhile(revoked: Revoked) -> Problem {
    let detail = format!("the request was refused while it was in progress: {revoked}");
    Problem::new(Code::Forbidden, detail)
}

/// Bytes with their memory budget, which is released with the last part that is sent.
pub(super) struct Charged {
    pub(super) bytes: Bytes,
    pub(super) _budget: Taken,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body that breaks off if its grant is revoked.
pub(super) struct GrantedBody {
    pub(super) body: Body,
    pub(super) app: SharedState,
    pub(super) grant: Option<Grant>,
}

impl hyper::body::Body for GrantedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        match &this.grant {
            Some(grant) if frame.is_ready() => match this.app.control.access.still_holds(grant) {
                Ok(()) => frame,
                Err(revoked) => Poll::Ready(Some(Err(axum::Error::new(revoked)))),
            },
            _ => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
