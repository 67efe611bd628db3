//! What somebody may have meant who wrote a name that is none.

/// The candidate that differs least from what was given, if it is near enough that one could be mistaken for the other: at most
/// one letter in three.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distances = candidates.into_iter().map(|candidate| (distance(given, candidate), candidate));
    let (least, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (least * 3 <= given.chars().count().max(3)).then_some(candidate)
}

/// Letters to be inserted, deleted, replaced or swapped with their neighbour to turn one text into the other (optimal string
/// alignment); case is ignored.
fn distance(one: &str, other: &str) -> usize {
    let letters = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<Vec<_>>();
    let (one, other) = (letters(one), letters(other));
    // The last three rows of the table: a swap looks back two.
    let mut before_last = vec![0; other.len() + 1];
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.iter().enumerate() {
        let mut row = vec![i + 1; other.len() + 1];
        for (j, with) in other.iter().enumerate() {
            row[j + 1] = (last[j] + usize::from(letter != with)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == other[j - 1] && one[i - 1] == *with {
                row[j + 1] = row[j + 1].min(before_last[j - 1] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[other.len()]
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
        assert_eq!(distance("inof", "info"), 1, "neighbours that are swapped are one slip");
        assert_eq!(distance("", "abc"), 3);
    }
}
