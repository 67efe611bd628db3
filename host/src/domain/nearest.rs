//! What somebody may have meant who wrote a name that is none.

/// The candidate that differs least from what was given, if it is near enough that one could be mistaken for the other: at most
/// one letter in three.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distances = candidates.into_iter().map(|candidate| (distance(given, candidate), candidate));
    let (least, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (least * 3 <= given.chars().count().max(3)).then_some(candidate)
}

/// Letters to be put in, taken out or replaced to make one text of the other (Levenshtein); upper and lower case are the same.
fn distance(one: &str, other: &str) -> usize {
    let letters = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<Vec<_>>();
    let (one, other) = (letters(one), letters(other));
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.iter().enumerate() {
        let mut before = row[0];
        row[0] = at + 1;
        for (column, with) in other.iter().enumerate() {
            let replaced = before + usize::from(letter != with);
            before = row[column + 1];
            row[column + 1] = replaced.min(before + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_another_word_finds_none() {
        let names = ["address", "tls_key", "connections_max"];
        for (given, meant) in [
            ("adress", Some("address")),
            ("Address", Some("address")),
            ("connection_max", Some("connections_max")),
            ("tls_kye", Some("tls_key")),
            ("port", None),
            ("x", None),
        ] {
            assert_eq!(nearest(given, names), meant, "{given}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
