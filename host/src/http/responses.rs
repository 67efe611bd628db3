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
use setgate_base::fair::{Bounds, FairSemaphore, Permit};
use setgate_domain::id::TenantId;
use setgate_domain::page::PAGE_BYTES_MAX;

use super::Site;
use super::problem::{Code, Problem};
use super::room::Taken;
use crate::control::keys::{Grant, Revoked};

/// Bodies up to this size (bytes) are not charged: less than the connection itself takes.
const SMALL_BYTES: u64 = 4 << 10;
/// Memory budget that must be free before a request is processed: enough for a page if the request reads.
pub(super) fn room_bytes_min(reads: bool) -> usize {
    if reads { PAGE_BYTES_MAX } else { 64 << 10 }
}
/// How long the response to a change, which is committed by then, waits for memory budget.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);

/// Maximum number of concurrent read requests of tenants: each uses a core for some milliseconds to produce its page.
const READS_MAX: usize = 4;
/// The share of `READS_MAX` that one tenant may use.
const READS_PER_TENANT_MAX: usize = 2;
/// Maximum number of queued read requests of one tenant.
const READS_WAITING_PER_TENANT_MAX: usize = 256;

/// Turns of read requests, shared fairly between tenants. A turn lasts until the response is charged, so that queued
/// requests notice a lack of memory budget before any work is done for them.
pub struct Reads(FairSemaphore);

impl Default for Reads {
    fn default() -> Self {
        Self(FairSemaphore::new(Bounds {
            permits: READS_MAX,
            per_tenant_max: READS_PER_TENANT_MAX,
            leaves_free: false,
            waiting_per_tenant_max: READS_WAITING_PER_TENANT_MAX,
            cost: 1,
        }))
    }
}

impl Reads {
    /// Waits for a turn.
    ///
    /// # Errors
    /// 429 if too many requests of the tenant are queued.
    pub(super) async fn turn(&self, tenant: &TenantId) -> Result<Permit, Problem> {
        self.0.acquire_bounded(tenant).await.map_err(|_| {
            let detail = format!("{READS_WAITING_PER_TENANT_MAX} read requests of `{tenant}` are queued: retry later");
            Problem::new(Code::Busy, detail)
        })
    }
}

/// The grant of a request, passed from the extractor that checks the key to the middleware around the routes.
#[derive(Clone, Default)]
pub(super) struct Access(Arc<Granting>);

#[derive(Default)]
struct Granting {
    grant: OnceLock<Grant>,
    turn: Mutex<Option<Permit>>,
}

impl Access {
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
pub(super) enum Keeps {
    /// A stream that does both for each part.
    Both,
    /// The bytes are shared by all responses, so their memory is not charged.
    Memory,
}

/// Charges a response and binds it to its grant.
pub(super) async fn bound(
    site: &Site,
    method: &Method,
    tenant: Option<&TenantId>,
    access: &Access,
    response: Response,
) -> Response {
    let keeps = response.extensions().get::<Keeps>().copied();
    if matches!(keeps, Some(Keeps::Both)) {
        return response;
    }
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if let Some(grant) = access.get().filter(|_| reads)
        && let Err(revoked) = site.control.still_holds(grant)
    {
        // The tenant may have been removed and created again since the data was read.
        return revoked_meanwhile(revoked).into_response();
    }
    let bytes = response.body().size_hint().exact();
    if bytes.is_some_and(|bytes| bytes <= SMALL_BYTES) || keeps.is_some() {
        return response;
    }
    let (head, body) = response.into_parts();
    let whole = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => {
            tracing::warn!(%error, "response body failed");
            let detail = "the response could not be created: retry";
            return Problem::host_busy(detail).into_response();
        }
    };
    let room = match site.responses.take_at_most(tenant, whole.len()) {
        Ok(room) => room,
        Err(problem) if reads => return problem.into_response(),
        Err(_) => {
            let waiting = site.responses.wait(tenant, whole.len());
            match tokio::time::timeout(ROOM_WAIT_MAX, waiting).await {
                Ok(Some(room)) => room,
                _ => {
                    let detail = "the request was executed, but the memory budget for its response is used up: read the resource later";
                    return Problem::host_busy(detail).into_response();
                }
            }
        }
    };
    let body = Granted {
        body: Body::from(Bytes::from_owner(Charged { bytes: whole, _room: room })),
        site: site.clone(),
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
    pub(super) _room: Taken,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body that breaks off if its grant is revoked.
pub(super) struct Granted {
    pub(super) body: Body,
    pub(super) site: Site,
    pub(super) grant: Option<Grant>,
}

impl hyper::body::Body for Granted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        match &this.grant {
            Some(grant) if frame.is_ready() => match this.site.control.still_holds(grant) {
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
