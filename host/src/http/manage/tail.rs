//! Server-Sent Events (HTML standard, section 9.2): settlements as they come.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::control::keys::Grant;
use crate::control::tail::{Tail, TailQuery, Tailed};
use crate::domain::id::TenantId;
use crate::fair::Shares;
use crate::http::Site;
use crate::http::auth::{Granted, Tenant};
use crate::http::extract::Query;
use crate::http::operations::{Operation, get};
use crate::http::problem::Problem;
use crate::http::responses::Keeps;

/// A stream that has nothing to send sends a comment this often, so that connections in between do not take it for dead. A client
/// that closed its HTTP/1 connection is noticed by the second write after that: until then it might only have ended its side.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Tails that are open: so many of the host, and of them so many of a tenant.
pub struct Tails {
    all: Arc<Semaphore>,
    all_max: usize,
    shares: Shares,
}

/// A tail's place among them, until dropped.
struct Open {
    _share: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Tails {
    /// So many of the host (`history.tails_max`), and of them so many of a tenant (`history.tails_per_tenant_max`).
    pub fn new(all_max: usize, per_tenant_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all_max)), all_max, shares: Shares::new(per_tenant_max) }
    }

    fn open(&self, tenant: &TenantId) -> Result<Open, Problem> {
        let full = |key: &str, max: usize| {
            let detail = format!("{max} tails are open, as many as may (`{key}`): close one, or try again later");
            Problem::busy(StatusCode::TOO_MANY_REQUESTS, "busy", detail)
        };
        let share = self.shares.of(tenant).try_acquire_owned();
        let share = share.map_err(|_| full("history.tails_per_tenant_max", self.shares.permits()))?;
        let all = self.all.clone().try_acquire_owned().map_err(|_| full("history.tails_max", self.all_max))?;
        Ok(Open { _share: share, _all: all })
    }
}

/// See [`crate::http::operations`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/deliveries/tail", "tailDeliveries", "What becomes of deliveries, as it happens.", tail)
            .says("Server-Sent Events, until the client leaves. `cursor`, or the header `last-event-id`, goes on behind a place.")
            .gives_text(200, "text/event-stream", "Events `open`, `settlement`, `missed` and `end`.")
            .refuses([429]),
    ]
}

pub(in crate::http) async fn tail(
    Tenant(tenant): Tenant,
    Query(mut asked): Query<TailQuery>,
    State(site): State<Site>,
    headers: HeaderMap,
    Granted(grant): Granted,
) -> Result<Response, Problem> {
    // A client that was cut off asks for the same URL again, with what it saw last.
    if let Some(last) = headers.get("last-event-id") {
        asked.cursor = Some(last.to_str().unwrap_or_default().to_owned());
    }
    let open = site.tails.open(&tenant)?;
    let tail = site.control.tail(&tenant, asked).await?;
    let begin = frame("open", &tail.place(), &json!({}));
    let stream = Stream {
        site,
        grant,
        tail,
        ready: VecDeque::from([begin]),
        heartbeat: next_heartbeat(),
        ended: false,
        _open: open,
    };
    let frames = futures_util::stream::unfold(stream, |mut stream| async move {
        let frame = stream.next().await?;
        Some((Ok::<_, Infallible>(frame), stream))
    });
    // Nothing in between may keep it or gather it.
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    let mut response = (headers, [("x-accel-buffering", "no")], Body::from_stream(frames)).into_response();
    response.extensions_mut().insert(Keeps::Both);
    Ok(response)
}

/// One stream while it is read. What is ready is at most a page of the log: the next one is read when it has been sent.
struct Stream {
    site: Site,
    /// What it was opened with: it ends when that does not hold any more.
    grant: Grant,
    tail: Tail,
    ready: VecDeque<Bytes>,
    heartbeat: Instant,
    ended: bool,
    _open: Open,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            // Before each frame, so that no traffic puts it off, and after what was read: it may be somebody else's by now.
            if !self.ended
                && let Err(revoked) = self.site.control.still_holds(&self.grant)
            {
                self.ready.clear();
                self.end(&revoked.to_string());
            }
            if let Some(frame) = self.ready.pop_front() {
                self.heartbeat = next_heartbeat();
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                () = self.site.stopping.cancelled() => self.end("the host is stopping"),
                // Looked at above.
                _ = self.site.control.revoked(&self.grant) => {}
                () = tokio::time::sleep_until(self.heartbeat) => {
                    self.ready.push_back(format!(":\nid: {}\n\n", self.tail.place()).into());
                }
                tailed = self.tail.next() => match tailed {
                    Ok(tailed) => self.take_in(tailed),
                    Err(error) => {
                        tracing::warn!(%error, "a tail cannot be read on");
                        self.end("the ledger cannot be read just now");
                    }
                },
            }
        }
    }

    fn take_in(&mut self, tailed: Tailed) {
        if tailed.missed {
            let why = "the log goes back no further: what came between is in the history, `GET .../deliveries`";
            // Without an id: only what follows moves the place of the client on.
            self.ready.push_back(format!("event: missed\ndata: {}\n\n", json!({"reason": why})).into());
        }
        for (place, settlement) in &tailed.settlements {
            self.ready.push_back(frame("settlement", place, settlement));
        }
    }

    /// The last event; a client goes on elsewhere or later, behind its place.
    fn end(&mut self, reason: &str) {
        self.ready.push_back(frame("end", &self.tail.place(), &json!({"reason": reason})));
        self.ended = true;
    }
}

fn next_heartbeat() -> Instant {
    Instant::now() + HEARTBEAT
}

/// JSON has no line ends outside of its strings and escapes those within, so it is one line.
fn frame(kind: &str, id: &str, data: &impl serde::Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_else(|_| "null".into());
    format!("id: {id}\nevent: {kind}\ndata: {data}\n\n").into()
}
