//! Where the bench's own files lie.

use std::path::PathBuf;

/// The folder of what `cargo xtask guests --bench` and its like build, and of what a run keeps for the next: `BENCH_GUESTS`,
/// else `target/bench`.
pub(crate) fn folder() -> PathBuf {
    let named = std::env::var_os("BENCH_GUESTS").filter(|value| !value.is_empty());
    named.map_or_else(|| setgate_tests::place::target_dir().join("bench"), PathBuf::from)
}
