//! Names of metrics, and the buckets of histograms.

/// Histogram: duration of a batch in seconds, from BEGIN to the end of the commit.
pub const COMMIT_SECONDS: &str = "setgate_ledger_commit_seconds";
/// Histogram: number of requests in a batch.
pub const BATCH_SIZE: &str = "setgate_ledger_batch_size";
/// Bucket upper bounds of these histograms.
pub const BUCKETS: &[(&str, &[f64])] = &[
    (COMMIT_SECONDS, &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0]),
    (BATCH_SIZE, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0]),
];
/// Counter: batches that could not be committed.
pub const COMMIT_FAILURES: &str = "setgate_ledger_commit_failures_total";
/// Gauge: 1 if damage has been found in the ledger's files since the start.
pub(crate) const DAMAGED: &str = "setgate_ledger_damaged";
