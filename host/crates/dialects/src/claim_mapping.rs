//! The tables of `docs/reference/identities.md`.

use std::fmt::Write as _;

use crate::dialect::forms;

/// The rows of a form: the origin of each claim of its SETs, and of the subject.
#[derive(Debug)]
pub(crate) struct ClaimMapping {
    pub(crate) body: &'static str,
    pub(crate) set: &'static str,
    pub(crate) event_uri: &'static str,
    pub(crate) event_value: &'static str,
    pub(crate) iss: &'static str,
    pub(crate) jti: &'static str,
    pub(crate) iat: &'static str,
    pub(crate) txn: &'static str,
    pub(crate) sub_id: &'static str,
    /// `aud`, `sub`, `toe`.
    pub(crate) others: &'static str,
    /// Events, and the values that are tried for their subject, in order.
    pub(crate) subjects: &'static [(&'static str, &'static str)],
}

/// A label, and the cell of a form.
type Row = (&'static str, fn(&ClaimMapping) -> &'static str);

/// The table of claims, with a column for each form.
pub fn claims_table() -> String {
    let rows: [Row; 10] = [
        ("body", |mapping| mapping.body),
        ("the SET", |mapping| mapping.set),
        ("event URI", |mapping| mapping.event_uri),
        ("event's value", |mapping| mapping.event_value),
        ("`iss`", |mapping| mapping.iss),
        ("`jti`", |mapping| mapping.jti),
        ("`iat`", |mapping| mapping.iat),
        ("`txn`", |mapping| mapping.txn),
        ("`sub_id`", |mapping| mapping.sub_id),
        ("`aud`, `sub`, `toe`", |mapping| mapping.others),
    ];
    let mut table = String::from("| |");
    forms().for_each(|form| table += &format!(" `{}` |", form.name));
    table += "\n|---|";
    forms().for_each(|_| table += "---|");
    table.push('\n');
    for (label, cell) in rows {
        let _ = write!(table, "| {label} |");
        forms().for_each(|form| table += &format!(" {} |", cell(&form.claim_mapping)));
        table.push('\n');
    }
    table
}

/// The table of subjects, with rows for each form.
pub fn subjects_table() -> String {
    let mut table = String::from("| form | events | values, in this order |\n|---|---|---|\n");
    for form in forms() {
        for (number, (events, values)) in form.claim_mapping.subjects.iter().enumerate() {
            let name = if number == 0 { format!(" `{}`", form.name) } else { String::new() };
            let _ = writeln!(table, "|{name} | {events} | {values} |");
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_page_is_up_to_date() {
        let page = include_str!("../../../../docs/reference/identities.md");
        for table in [claims_table(), subjects_table()] {
            assert!(page.contains(&table), "docs/reference/identities.md has to contain this table:\n{table}");
        }
    }
}
