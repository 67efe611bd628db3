//! The bodies of responses: what they take in memory until they are sent is charged to their tenant, and they end when the
//! key that they were asked for with does not hold any more.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, SizeHint};

use super::Site;
use super::problem::Problem;
use super::room::Taken;
use crate::control::keys::{Grant, Revoked};
use crate::domain::id::TenantId;
use crate::domain::page::PAGE_BYTES_MAX;
use crate::fair::{Bounds, Gate, Place};

/// Bytes of a body up to which it is not charged: less than a connection takes by itself.
const SMALL_BYTES: u64 = 4 << 10;
/// Room that has to be left for a response before any work is done for it: a page's, if the request reads.
pub(super) fn room_bytes_min(reads: bool) -> usize {
    if reads { PAGE_BYTES_MAX } else { 64 << 10 }
}
/// How long the response to a change, which is done by then, waits for room.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);

/// Requests of tenants that read, worked on at once: each takes a processor for some milliseconds to make its page.
const READS_MAX: usize = 4;
/// Of them, one tenant's.
const READS_PER_TENANT_MAX: usize = 2;
/// Of one tenant, those that wait for that.
const READS_WAITING_PER_TENANT_MAX: usize = 256;

/// Turns of requests that read, shared between tenants. A turn lasts until the response is charged, so that those that wait
/// find out that there is no room before anything is done for them.
pub struct Reads(Gate);

impl Default for Reads {
    fn default() -> Self {
        Self(Gate::new(Bounds {
            places: READS_MAX,
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
    /// 429 if too many of the tenant's wait.
    pub(super) async fn turn(&self, tenant: &TenantId) -> Result<Place, Problem> {
        self.0.enter_bounded(tenant).await.map_err(|_| {
            let detail =
                format!("{READS_WAITING_PER_TENANT_MAX} requests of `{tenant}` that read wait: try again later");
            Problem::busy(StatusCode::TOO_MANY_REQUESTS, "busy", detail)
        })
    }
}

/// What a request was granted, for the layer around the routes: left there by the extractor that looks at the key.
#[derive(Clone, Default)]
pub(super) struct Access(Arc<Granting>);

#[derive(Default)]
struct Granting {
    grant: OnceLock<Grant>,
    turn: Mutex<Option<Place>>,
}

impl Access {
    pub(super) fn set(&self, grant: Grant) {
        // Two extractors of a request find the same.
        let _ = self.0.grant.set(grant);
    }

    pub(super) fn get(&self) -> Option<&Grant> {
        self.0.grant.get()
    }

    /// Holds a turn until the response is made.
    pub(super) fn hold(&self, turn: Place) {
        *self.0.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
    }

    pub(super) fn release(&self) {
        drop(self.0.turn.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Says of a response that its body sees to its key and to what it takes in memory by itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keeps {
    /// A stream with pieces of its own.
    Both,
    /// The bytes are there for everybody, and not for this response.
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
        // What was read may belong to somebody else by now.
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
            tracing::warn!(%error, "a response could not be made");
            let detail = "the response could not be made: try again";
            return Problem::busy(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).into_response();
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
                    let detail = "it was done, and there is no room to show the result: read it again later";
                    return Problem::busy(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).into_response();
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

/// For a request whose key or tenant went away while it was worked on.
pub(super) fn revoked_meanwhile(revoked: Revoked) -> Problem {
    let detail = format!("the request was refused while it was under way: {revoked}");
    Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
}

/// Bytes with the room that they take, given back with the last part that is sent.
pub(super) struct Charged {
    pub(super) bytes: Bytes,
    pub(super) _room: Taken,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body that breaks off once its grant does not hold any more.
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
