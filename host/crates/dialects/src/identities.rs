//! The tables of `docs/reference/identities.md`.

use std::fmt::Write as _;

use crate::dialect::forms;

/// The rows of a form: the origin of each claim of its SETs, and of the subject.
#[derive(Debug)]
pub(crate) struct Identity {
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
type Row = (&'static str, fn(&Identity) -> &'static str);

/// The table of claims, with a column for each form.
pub fn claims() -> String {
    let rows: [Row; 10] = [
        ("body", |identity| identity.body),
        ("the SET", |identity| identity.set),
        ("event URI", |identity| identity.event_uri),
        ("event's value", |identity| identity.event_value),
        ("`iss`", |identity| identity.iss),
        ("`jti`", |identity| identity.jti),
        ("`iat`", |identity| identity.iat),
        ("`txn`", |identity| identity.txn),
        ("`sub_id`", |identity| identity.sub_id),
        ("`aud`, `sub`, `toe`", |identity| identity.others),
    ];
    let mut table = String::from("| |");
    forms().for_each(|form| table += &format!(" `{}` |", form.name));
    table += "\n|---|";
    forms().for_each(|_| table += "---|");
    table.push('\n');
    for (label, cell) in rows {
        let _ = write!(table, "| {label} |");
        forms().for_each(|form| table += &format!(" {} |", cell(&form.identity)));
        table.push('\n');
    }
    table
}

/// The table of subjects, with rows for each form.
pub fn subjects() -> String {
    let mut table = String::from("| form | events | values, in this order |\n|---|---|---|\n");
    for form in forms() {
        for (number, (events, values)) in form.identity.subjects.iter().enumerate() {
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
    fn the_page_has_the_tables() {
        let page = include_str!("../../../../docs/reference/identities.md");
        for table in [claims(), subjects()] {
            assert!(page.contains(&table), "docs/reference/identities.md has to contain this table:\n{table}");
        }
    }
}
