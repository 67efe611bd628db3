//! Documents that are fetched: complete bodies within a limit.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body, Incoming};
use setgate_domain::attempt::ErrorClass;
use setgate_domain::endpoint::Destination;
use setgate_domain::id::TenantId;
use tokio::time::timeout_at;

use super::failure::Failure;
use super::response::Deadline;

/// A document to be fetched.
#[derive(Debug)]
pub struct GetRequest<'a> {
    /// The tenant. Connections are not shared between tenants.
    pub tenant: &'a TenantId,
    /// The URL. Its headers are not sent.
    pub url: &'a Destination,
    /// Value of the `Accept` header.
    pub accept: &'a str,
    /// Limit for the body in bytes.
    pub bytes_max: usize,
    /// Timeout for the complete response, if it is shorter than `response_ms_max`.
    pub timeout: Duration,
}

/// A complete response.
#[derive(Debug, Clone)]
pub struct Document {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why a document could not be fetched. The detail contains neither the URL nor any part of the response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct GetError {
    /// The kind of failure.
    pub class: ErrorClass,
    /// The problem.
    pub detail: String,
}

impl From<Failure> for GetError {
    fn from(failure: Failure) -> Self {
        Self { class: failure.class(), detail: failure.to_string() }
    }
}

/// Reads a response completely.
pub(super) async fn read(response: Response<Incoming>, bytes_max: usize, end: Deadline) -> Result<Document, Failure> {
    let (head, body) = response.into_parts();
    let body = match timeout_at(end.at, read_body(body, bytes_max)).await {
        Ok(body) => body?,
        Err(_) => {
            let detail = format!("the response did not end within {} ms", end.wait.as_millis());
            return Err(Failure::new(ErrorClass::Timeout, &detail));
        }
    };
    Ok(Document { status: head.status, headers: head.headers, body })
}

async fn read_body(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Failure> {
    let too_large = || Failure::new(ErrorClass::Broken, &format!("the response is larger than {bytes_max} bytes"));
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers are ignored.
        let Ok(data) = frame.map_err(|error| Failure::from_error(&error))?.into_data() else { continue };
        if read.len() + data.len() > bytes_max {
            return Err(too_large());
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}
