//! Receivers of the simulation: real HTTP on loopback, scripted by simulated time.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use setgate_base::clock::Clock;
use setgate_domain::time::Timestamp;

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Status(u16),
    Throttle {
        status: u16,
        retry_after_s: u64,
    },
    /// Closes the connection before a response.
    HangUp,
}

/// A request and its response.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) at: Timestamp,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// `None` if the response was 204.
    pub(super) trouble: Option<Trouble>,
}

impl Arrival {
    pub(super) fn delivery(&self) -> String {
        self.headers["webhook-id"].to_str().unwrap().to_owned()
    }

    /// The event's `jti`.
    pub(super) fn jti(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        body["jti"].as_str().unwrap().to_owned()
    }
}

/// A receiver. Its task ends with the runtime.
pub(super) struct Receiver {
    pub(super) url: String,
    pub(super) outages: Vec<(Timestamp, Timestamp, Trouble)>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

#[derive(Clone)]
struct Desk {
    clock: Clock,
    outages: Vec<(Timestamp, Timestamp, Trouble)>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

impl Receiver {
    pub(super) async fn start(clock: Clock, outages: Vec<(Timestamp, Timestamp, Trouble)>) -> Self {
        let arrivals = Arc::default();
        let desk = Desk { clock, outages: outages.clone(), arrivals: Arc::clone(&arrivals) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(desk);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, outages, arrivals }
    }

    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().clone()
    }
}

async fn answer(State(desk): State<Desk>, request: Request) -> Response {
    let at = desk.clock.now();
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    let trouble = desk.outages.iter().find(|(from, to, _)| (*from..*to).contains(&at)).map(|(_, _, trouble)| *trouble);
    desk.arrivals.lock().unwrap().push(Arrival { at, headers: head.headers, body, trouble });
    match trouble {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(Trouble::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Trouble::Throttle { status, retry_after_s }) => {
            (StatusCode::from_u16(status).unwrap(), [("retry-after", retry_after_s.to_string())]).into_response()
        }
        // hyper closes the connection if the body fails before its first frame.
        Some(Trouble::HangUp) => {
            let broken =
                futures_util::stream::once(async { Err::<bytes::Bytes, _>(std::io::Error::other("hangs up")) });
            Response::builder().header("content-length", "10").body(axum::body::Body::from_stream(broken)).unwrap()
        }
    }
}
