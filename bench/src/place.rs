//! Locations of the bench's own files.

use std::path::PathBuf;

/// The directory of files built by `cargo xtask guests --bench` and similar commands, and of data that a run stores for
/// the next: `BENCH_GUESTS`, or `target/bench`.
pub(crate) fn folder() -> PathBuf {
    let named = std::env::var_os("BENCH_GUESTS").filter(|value| !value.is_empty());
    named.map_or_else(|| setgate_tests::place::target_dir().join("bench"), PathBuf::from)
}
