//! Trusted certificates of receivers (crate `setgate_egress`) and of the clients of a listener (the host's `http`).

mod certificate_info;
mod client_verifier;
mod trust_anchors;

pub use certificate_info::CertificateInfo;
pub use trust_anchors::{TrustAnchors, check_pinned};
