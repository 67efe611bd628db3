//! Limits that several modules share.

/// Maximum number of entries per page.
pub const HISTORY_LIMIT_MAX: usize = 200;
/// Maximum number of rows scanned per page.
pub const HISTORY_SCAN_ROWS_MAX: usize = 10_000;
/// How long an unreferenced plan or blob is retained after it was last stored, in milliseconds: one day, so that it
/// still exists when the document or delivery that refers to it is written.
pub const UNUSED_RETENTION_MS: i64 = 24 * 3600 * 1000;
/// Capacity of the in-memory plan cache.
pub const PLANS_CACHED_MAX: u64 = 1_000;
