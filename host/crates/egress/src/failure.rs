//! Failures of attempts: a class for metrics and a detail for users.

use std::error::Error;
use std::io;

use h2::Reason;
use rustix::io::Errno;
use setgate_domain::attempt::{ErrorClass, Outcome};

use super::head::HEAD_BYTES_MAX;

/// Limit for a detail in characters.
const DETAIL_CHARS_MAX: usize = 200;

/// Prefix of the TLS library's errors if the peer has refused the connection.
const TLS_ALERT: &str = "received fatal alert";

/// Why there is no response. Details come from the network libraries and from this module, and never contain a URL,
/// header or body.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Failure {
    class: ErrorClass,
    detail: String,
    kind: FailureKind,
}

/// The consequence of a failure for the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The attempt has failed.
    Attempt,
    /// The receiver has certainly not processed the request, so it can be resent at once.
    Unprocessed,
    /// The receiver requires HTTP/1.1 for this request.
    Http1Required,
    /// No attempt was made, because this host lacked a resource.
    HostShortage(HostShortage),
}

/// The resource that this host lacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostShortage {
    /// File descriptors.
    Descriptors,
    /// Memory for a connection.
    Memory,
    /// Local ports.
    Ports,
    /// Slots for name lookups.
    Lookups,
}

impl HostShortage {
    /// Label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::Ports => "ports",
            Self::Lookups => "lookups",
        }
    }
}

/// Whether the operating system reports a resource shortage of this host.
pub(super) fn host_shortage(error: &io::Error) -> Option<HostShortage> {
    match Errno::from_io_error(error)? {
        Errno::MFILE | Errno::NFILE => Some(HostShortage::Descriptors),
        Errno::NOMEM | Errno::NOBUFS => Some(HostShortage::Memory),
        Errno::ADDRNOTAVAIL | Errno::AGAIN => Some(HostShortage::Ports),
        _ => None,
    }
}

impl Failure {
    pub(super) fn new(class: ErrorClass, detail: &str) -> Self {
        Self { class, detail: detail.chars().take(DETAIL_CHARS_MAX).collect(), kind: FailureKind::Attempt }
    }

    /// Marks the request as certainly not processed by the receiver.
    pub(super) fn unprocessed(self) -> Self {
        Self { kind: FailureKind::Unprocessed, ..self }
    }

    /// Marks this host as the cause.
    pub(super) fn with_host_shortage(self, shortage: HostShortage) -> Self {
        Self { kind: FailureKind::HostShortage(shortage), ..self }
    }

    pub(super) fn class(&self) -> ErrorClass {
        self.class
    }

    pub(super) fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The resource that this host lacked, if that is the cause.
    pub(super) fn host_shortage(&self) -> Option<HostShortage> {
        match self.kind {
            FailureKind::HostShortage(shortage) => Some(shortage),
            FailureKind::Attempt | FailureKind::Unprocessed | FailureKind::Http1Required => None,
        }
    }

    /// A TLS failure. The cause is searched in the chain of `error`.
    pub(super) fn tls(error: &(dyn Error + 'static)) -> Self {
        match find_cause::<rustls::Error>(error) {
            Some(cause) => Self::new(ErrorClass::Tls, &cause.to_string()),
            None => Self::new(ErrorClass::Tls, &format!("TLS: {}", root_cause(error))),
        }
    }

    /// Converts an error of the HTTP client or of a response body.
    pub(super) fn from_error(error: &(dyn Error + 'static)) -> Self {
        if let Some(failure) = find_cause::<Self>(error) {
            return failure.clone();
        }
        // With TLS 1.3, a receiver rejects our (missing) client certificate only after the handshake.
        if find_cause::<rustls::Error>(error).is_some() {
            return Self::tls(error);
        }
        // h2 reports an oversized header list with the same reason code as a stream that was not processed.
        let is_too_long = |error: &h2::Error| {
            error.is_library() && error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)
        };
        if find_cause::<h2::Error>(error).is_some_and(is_too_long) {
            let detail = format!("the response head is longer than {HEAD_BYTES_MAX} bytes");
            return Self::new(ErrorClass::Broken, &detail);
        }
        let last = root_cause(error).to_string();
        // HTTP/2 retains only the message of a lower-level error.
        let class = if last.contains(TLS_ALERT) { ErrorClass::Tls } else { ErrorClass::Broken };
        Self { kind: kind(error), ..Self::new(class, &last) }
    }
}

/// RFC 9113 section 8.7: a stream was not processed if it was refused, or if its id is higher than the last id of a
/// GOAWAY. h2 reports a remote GOAWAY only for such streams. A request that hyper cancels itself was not written at
/// all.
fn kind(error: &(dyn Error + 'static)) -> FailureKind {
    if let Some(error) = find_cause::<h2::Error>(error).filter(|error| error.is_remote()) {
        return match error.reason() {
            Some(Reason::HTTP_1_1_REQUIRED) => FailureKind::Http1Required,
            Some(Reason::REFUSED_STREAM) => FailureKind::Unprocessed,
            _ if error.is_go_away() => FailureKind::Unprocessed,
            _ => FailureKind::Attempt,
        };
    }
    if find_cause::<hyper::Error>(error).is_some_and(hyper::Error::is_canceled) {
        FailureKind::Unprocessed
    } else {
        FailureKind::Attempt
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Outcome {
        Outcome::Failed { class: failure.class, detail: failure.detail }
    }
}

/// The first error of type `T` in a chain of causes.
pub(super) fn find_cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = cause(error);
    }
    None
}

fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut last = error;
    while let Some(next) = cause(last) {
        last = next;
    }
    last
}

// `io::Error::source` skips the wrapped error and returns the source of that error.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_alert_is_classified_by_type_or_message() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        let with_cause = io::Error::new(io::ErrorKind::InvalidData, alert.clone());
        let with_words = io::Error::new(io::ErrorKind::InvalidData, alert.to_string());
        let broken = io::Error::new(io::ErrorKind::ConnectionReset, "reset");
        for (error, expected) in
            [(with_cause, ErrorClass::Tls), (with_words, ErrorClass::Tls), (broken, ErrorClass::Broken)]
        {
            assert_eq!(Failure::from_error(&error).class, expected, "{error}");
        }
    }
}
