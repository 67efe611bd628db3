//! Look-up tables of the demo's two companies for `enrich-from-table`: owners of applications and regions of
//! organizations. The ids match those in the samples.

/// Names and rows, as JSON lines.
pub(super) fn tables() -> [(&'static str, &'static str); 2] {
    [("apps", include_str!("tables/apps.jsonl")), ("organizations", include_str!("tables/organizations.jsonl"))]
}
