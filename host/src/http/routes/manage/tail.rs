//! Live tails: settlements as Server-Sent Events (HTML standard, section 9.2).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::json;
use tokio::time::Instant;

use crate::control::keys::Grant;
use crate::control::tail::{Settlements, Tail, TailQuery, Tailed};
use crate::http::auth::{Granted, Tenant};
use crate::http::extract::Query;
use crate::http::listener::UntilClientEnds;
use crate::http::openapi::{Operation, get};
use crate::http::problem::Problem;
use crate::http::responses::SelfManaged;
use crate::http::slots::OpenSlot;
use crate::http::state::SharedState;

/// Interval of the comments sent on a quiet stream, so that intermediaries do not consider the connection dead.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/deliveries/tail", "tailDeliveries", "Streams settlements of deliveries (live tail).", tail)
            .description("Server-Sent Events until the client disconnects or closes its side of the connection. `cursor` or the header `last-event-id` continues after a position.")
            .responds_text(200, "text/event-stream", "Events `open`, `settlement`, `missed` and `end`.")
            .errors([429]),
    ]
}

pub(in crate::http) async fn tail(
    Tenant(tenant): Tenant,
    Query(mut asked): Query<TailQuery>,
    State(settlements): State<Settlements>,
    State(app): State<SharedState>,
    headers: HeaderMap,
    Granted(grant): Granted,
) -> Result<Response, Problem> {
    // A disconnected client requests the same URL again with the id of the last event it received.
    if let Some(last) = headers.get("last-event-id") {
        asked.cursor = Some(last.to_str().unwrap_or_default().to_owned());
    }
    let open = app.tails.open(&tenant)?;
    let tail = settlements.tail(&tenant, asked)?;
    let begin = frame("open", &tail.place(), &json!({}));
    let stream = Stream {
        app,
        grant,
        sent: tail.place(),
        tail,
        ready: VecDeque::from([(None, begin)]),
        heartbeat: next_heartbeat(),
        ended: false,
        _open: open,
    };
    let frames = futures_util::stream::unfold(stream, |mut stream| async move {
        let frame = stream.next().await?;
        Some((Ok::<_, Infallible>(frame), stream))
    });
    // Proxies must neither store nor buffer the stream.
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    let mut response = (headers, [("x-accel-buffering", "no")], Body::from_stream(frames)).into_response();
    response.extensions_mut().insert(SelfManaged::Stream);
    response.extensions_mut().insert(UntilClientEnds);
    Ok(response)
}

/// A stream while it is being read. At most one page of the log is buffered; the next one is read once it has been
/// sent.
struct Stream {
    app: SharedState,
    /// The grant the stream was opened with. The stream ends if it is revoked.
    grant: Grant,
    tail: Tail,
    /// Frames that were not sent yet, each with the position after it if it advances the client's.
    ready: VecDeque<(Option<String>, Bytes)>,
    /// The position after the last frame that was sent.
    sent: String,
    heartbeat: Instant,
    ended: bool,
    _open: OpenSlot,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            // Checked before each frame, so that traffic cannot delay it, and after reading, because the data may be
            // of a new tenant.
            if !self.ended
                && let Err(revoked) = self.app.control.access.still_holds(&self.grant)
            {
                self.end(&revoked.to_string());
            }
            if let Some((position, frame)) = self.ready.pop_front() {
                if let Some(position) = position {
                    self.sent = position;
                }
                self.heartbeat = next_heartbeat();
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                () = self.app.stopping.cancelled() => self.end("the host is stopping"),
                // Handled above.
                _ = self.app.control.access.revoked(&self.grant) => {}
                () = tokio::time::sleep_until(self.heartbeat) => {
                    let position = self.tail.place();
                    let frame = format!(":\nid: {position}\n\n").into();
                    self.ready.push_back((Some(position), frame));
                }
                tailed = self.tail.next() => match tailed {
                    Ok(tailed) => self.take_in(tailed),
                    Err(error) => {
                        tracing::warn!(%error, "live tail failed: the ledger cannot be read");
                        self.end("the ledger is unavailable");
                    }
                },
            }
        }
    }

    fn take_in(&mut self, tailed: Tailed) {
        if tailed.missed {
            let why = "settlements are missing here, because the host was restarted or does not retain so many for \
                       tails: read them from the history, `GET .../deliveries`";
            // Without an id: only settlements advance the client's position.
            self.ready.push_back((None, format!("event: missed\ndata: {}\n\n", json!({"reason": why})).into()));
        }
        for (place, settlement) in &tailed.settlements {
            self.ready.push_back((Some(place.clone()), frame("settlement", place, settlement)));
        }
    }

    /// The last event. Frames that were not sent are dropped. The client can reconnect, later or with another key, and
    /// continue from its position, so that it receives them then.
    fn end(&mut self, reason: &str) {
        let position = if self.ready.is_empty() { self.tail.place() } else { self.sent.clone() };
        self.ready = VecDeque::from([(None, frame("end", &position, &json!({"reason": reason})))]);
        self.ended = true;
    }
}

fn next_heartbeat() -> Instant {
    Instant::now() + HEARTBEAT
}

/// JSON escapes line breaks in strings and has none outside of them here, so the data is a single line.
fn frame(kind: &str, id: &str, data: &impl serde::Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_else(|_| "null".into());
    format!("id: {id}\nevent: {kind}\ndata: {data}\n\n").into()
}
