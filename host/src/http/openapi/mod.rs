//! Operations of the API and their OpenAPI document. The request of an operation is derived from the arguments of its
//! route: each type of argument implements [`DescribeInput`]. Independent of the routes themselves.

mod document;
mod draft;
mod operation;
mod schemas;

pub(super) use document::{Group, document};
pub(super) use draft::{DescribeInput, IDEMPOTENCY_KEY_CHARS_MAX, InPath, OperationDraft};
pub(super) use operation::{Operation, delete, get, patch, post, put};
pub(super) use schemas::Schemas;
