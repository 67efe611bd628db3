//! Reads request bodies within a memory budget and at a minimum rate.

use std::time::Duration;

use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use setgate_domain::id::TenantId;
use tokio::time::Instant;

use crate::http::body_budget::{BodyBudget, Taken};
use crate::http::caller::Remote;
use crate::http::listener::Peer;
use crate::http::problem::{Code, Problem};
use crate::http::responses::{GrantSlot, revoked_meanwhile};
use crate::http::state::SharedState;

/// Time limit for the first [`BODY_BYTES_MIN`] bytes of a body, or all of it.
const BODY_GRACE: Duration = Duration::from_secs(10);
/// Time limit for each further [`BODY_BYTES_MIN`] bytes.
const BODY_WINDOW: Duration = Duration::from_secs(5);
/// Bytes of a body that must arrive within each time limit, which makes 4 KiB/s.
const BODY_BYTES_MIN: usize = 20 << 10;

/// A request with its complete body.
pub(in crate::http) struct ReadBody {
    pub(in crate::http) headers: HeaderMap,
    pub(in crate::http) body: Bytes,
    /// The memory budget taken for the body; hold it as long as the body.
    pub(in crate::http) budget: Taken,
}

/// Reads a request's body of at most `bytes_max`. Memory budget is taken for the bytes received, not for the announced
/// length.
///
/// # Errors
/// 413 if it is larger, 429 or 503 if no memory budget is left, 408 if it arrives too slowly, 400 if it breaks off; 403
/// if the request's key was revoked in the meantime.
pub(in crate::http) async fn read(
    app: &SharedState,
    budget: &BodyBudget,
    tenant: Option<&TenantId>,
    request: Request,
    bytes_max: usize,
    what: &str,
) -> Result<ReadBody, Problem> {
    let (Parts { headers, extensions, .. }, body) = request.into_parts();
    let grant = extensions.get::<GrantSlot>().and_then(GrantSlot::get);
    // With a key the tenant is charged, and the tenant's quota applies instead of the client's limit.
    let client = extensions.get::<Remote>().copied().filter(|_| grant.is_none());
    let mut taken = budget.take(tenant, 0)?;
    let mut whole = Gathered::Nothing;
    let keep = |data: Bytes, more: bool| {
        budget.grow(&mut taken, tenant, data.len())?;
        if let Some(Remote(client)) = client.filter(|_| more) {
            budget.charge_client(&mut taken, tenant, Peer::from(client))?;
        }
        whole.add(data);
        Ok(())
    };
    arrive(&headers, body, bytes_max, what, keep).await?;
    if let Some(grant) = grant {
        // Reading may have taken a minute: the key may have been revoked, and the tenant removed and created again.
        app.control.access.still_holds(grant).map_err(revoked_meanwhile)?;
    }
    Ok(ReadBody { headers, body: whole.into_bytes(), budget: taken })
}

/// Reads and discards a request's body of at most `bytes_max`. Fails as [`read`] does.
pub(in crate::http) async fn discard(request: Request, bytes_max: usize, what: &str) -> Result<HeaderMap, Problem> {
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
    let (mut bytes, mut rate) = (0, MinimumRate::begin());
    while let Some(frame) = rate.next(&mut body).await.ok_or_else(|| too_slow(what))? {
        let frame = frame
            .map_err(|_| Problem::new(Code::BodyBroken, format!("{what} is incomplete: the connection was closed")))?;
        // Trailers are ignored.
        let Ok(data) = frame.into_data() else { continue };
        bytes += data.len();
        if bytes > bytes_max {
            return Err(too_large());
        }
        rate.arrived(data.len());
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
struct MinimumRate {
    ends: Instant,
    bytes: usize,
    bytes_min: usize,
}

impl MinimumRate {
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
