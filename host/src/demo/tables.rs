//! Look-up tables of the demo's two companies, for `enrich-from-table`: who owns an application, where an organization
//! is at home. The ids are those of the samples.

/// Names and rows, as JSON lines.
pub(super) fn tables() -> [(&'static str, &'static str); 2] {
    [("apps", include_str!("tables/apps.jsonl")), ("organizations", include_str!("tables/organizations.jsonl"))]
}
