//! Suggests a valid name for a misspelled one.

/// The candidate with the smallest edit distance to `given`. `None` if the distance is more than a third of the
/// letters.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distances = candidates.into_iter().map(|candidate| (distance(given, candidate), candidate));
    let (least, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (least * 3 <= given.chars().count().max(3)).then_some(candidate)
}

/// Like [`nearest`], for names with parts such as `wso2/login/loginSuccess`. Common leading parts do not count, so that
/// two long URIs with the same authority are not considered similar.
pub fn nearest_in_parts<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = |given: &str, candidate: &str| {
        let same = given.bytes().zip(candidate.bytes()).take_while(|(one, other)| one == other).count();
        let parts =
            given.as_bytes()[..same].iter().rposition(|byte| matches!(byte, b'/' | b':')).map_or(0, |at| at + 1);
        let (given, candidate) = (&given[parts..], &candidate[parts..]);
        let (length, other) = (given.chars().count(), candidate.chars().count());
        let most = length.max(3) / 3;
        // Most candidates can be excluded by length. A comparison costs the product of the lengths.
        (length.abs_diff(other) <= most).then(|| distance(given, candidate)).filter(|distance| *distance <= most)
    };
    let near = candidates.into_iter().filter_map(|candidate| Some((far(given, candidate)?, candidate)));
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// Edit distance with insertions, deletions, replacements and swaps of neighbours (optimal string alignment). Ignores
/// case.
fn distance(one: &str, other: &str) -> usize {
    let letters = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<Vec<_>>();
    let (one, other) = (letters(one), letters(other));
    // Only the last three rows of the matrix are needed, because a swap refers to the row before the last.
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
    fn typo_finds_its_name_and_other_word_none() {
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
        assert_eq!(distance("inof", "info"), 1, "swapped neighbours count as one edit");
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn common_leading_parts_do_not_count() {
        let names = ["wso2/login/loginSuccess", "https://a.example/events/login", "login/*"];
        for (given, meant) in [
            ("wso2/login/loginSucess", Some(names[0])),
            ("wso2/lgoin/loginSuccess", Some(names[0])),
            ("WSO2/login/loginSuccess", Some(names[0])),
            ("https://a.example/event/login", Some(names[1])),
            ("logn/*", Some(names[2])),
            ("wso2/login/signedOut", None),
            ("https://a.example/events/stockTaken", None),
            ("https://a.example/events/\u{e9}t\u{e9}", None),
        ] {
            assert_eq!(nearest_in_parts(given, names), meant, "{given}");
        }
    }
}
