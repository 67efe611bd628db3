//! A live tail: a hand-written client for Server-Sent Events.

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use serde_json::Value;

use crate::tenant::Tenant;
use crate::wait::DEADLINE;

/// An open stream.
pub struct Tail {
    /// The id of the last event or heartbeat, from which another stream can continue.
    pub last_id: String,
    body: UnsyncBoxBody<Bytes, String>,
    text: String,
}

/// An event of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailEvent {
    /// Its `event`.
    pub kind: String,
    /// Its `data`, as JSON.
    pub data: Value,
}

impl Tail {
    /// Opens the tenant's tail with a query string, optionally after an id, and reads the first event, which announces
    /// that it is open.
    ///
    /// # Panics
    /// If it does not open.
    pub async fn open(tenant: &Tenant, query: &str, after: Option<&str>) -> Self {
        let headers: Vec<_> = after.iter().map(|id| ("last-event-id", *id)).collect();
        let response = tenant.client.open(&tenant.path(&format!("/deliveries/tail{query}")), &headers).await;
        let (head, body) = response.into_parts();
        assert_eq!(head.status, 200, "the tail opens");
        let media_type = head.headers.get("content-type").and_then(|value| value.to_str().ok());
        assert_eq!(media_type, Some("text/event-stream"));
        let mut tail = Self { last_id: String::new(), body, text: String::new() };
        let open = tail.next().await.expect("an event at the begin");
        assert_eq!(open.kind, "open", "{open:?}");
        tail
    }

    /// The next event. `None` if the stream has ended. Heartbeats are skipped.
    pub async fn next(&mut self) -> Option<TailEvent> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(event) = self.read(&block) {
                    return Some(event);
                }
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await.expect("the stream continues");
            let bytes = frame?.expect("the stream does not break off").into_data().unwrap_or_default();
            self.text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// The next settlement.
    ///
    /// # Panics
    /// If another event comes.
    pub async fn settlement(&mut self) -> Value {
        let event = self.next().await.expect("the stream is open");
        assert_eq!(event.kind, "settlement", "{event:?}");
        event.data
    }

    fn read(&mut self, block: &str) -> Option<TailEvent> {
        let (mut kind, mut data) = ("message".to_owned(), None);
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut self.last_id),
                Some(("event", name)) => name.clone_into(&mut kind),
                Some(("data", json)) => data = Some(serde_json::from_str(json).expect("JSON")),
                _ => assert!(line.starts_with(':'), "a line of the stream: {line}"),
            }
        }
        data.map(|data| TailEvent { kind, data })
    }
}
