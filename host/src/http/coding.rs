//! `content-encoding`: decodes the supported codings and refuses all others explicitly, instead of misreading the body.

use http::{HeaderMap, header};

use super::problem::{Code, Problem};
use crate::pipeline::decode::Coding;

/// The coding of an event's body. One layer of gzip is supported; `x-gzip` is an alias (RFC 9110 section 8.4.1.3).
///
/// # Errors
/// 415 with the given codings, and with the supported ones in `accept-encoding`.
pub(super) fn of_event(headers: &HeaderMap) -> Result<Coding, Problem> {
    match &given(headers)[..] {
        [] => Ok(Coding::Identity),
        [coding] if coding == "gzip" || coding == "x-gzip" => Ok(Coding::Gzip),
        codings => Err(refusal(codings, "gzip", "send it uncompressed, or compressed once with `gzip`")),
    }
}

/// Checks that a body has no content coding.
///
/// # Errors
/// 415 with the given codings.
pub(super) fn none(headers: &HeaderMap) -> Result<(), Problem> {
    match &given(headers)[..] {
        [] => Ok(()),
        codings => Err(refusal(codings, "identity", "send it uncompressed")),
    }
}

/// The codings in the order in which they were applied, in lower case, without `identity`.
fn given(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(header::CONTENT_ENCODING).iter().map(|line| line.to_str().unwrap_or("?"));
    let codings = lines.flat_map(|line| line.split(',')).map(|coding| coding.trim().to_ascii_lowercase());
    codings.filter(|coding| !coding.is_empty() && coding != "identity").collect()
}

/// Maximum characters of the codings that are repeated in the answer.
const GIVEN_CHARS_MAX: usize = 80;

fn refusal(codings: &[String], accepted: &'static str, advice: &str) -> Problem {
    let given: String = codings.join(", ").chars().take(GIVEN_CHARS_MAX).collect();
    let detail = format!("the body has `content-encoding: {given}`, which is not supported here: {advice}");
    Problem::new(Code::UnsupportedCoding, detail).accepting(accepted)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(line));
        }
        headers
    }

    #[test]
    fn gzip_is_undone_once_and_all_else_is_named() {
        for (lines, coding) in [
            (&[][..], Coding::Identity),
            (&["identity"], Coding::Identity),
            (&["", "Identity,"], Coding::Identity),
            (&["gzip"], Coding::Gzip),
            (&["X-GZIP"], Coding::Gzip),
            (&["identity, gzip"], Coding::Gzip),
        ] {
            assert_eq!(of_event(&headers(lines)).unwrap_or_else(|problem| panic!("{problem:?}")), coding, "{lines:?}");
        }
        for lines in
            [&["br"][..], &["deflate"], &["zstd"], &["gzip, gzip"], &["gzip", "gzip"], &["gzip, br"], &["aws-chunked"]]
        {
            let problem = of_event(&headers(lines)).unwrap_err();
            assert_eq!(problem.code(), Code::UnsupportedCoding);
            assert!(format!("{problem:?}").contains(lines[0]), "{problem:?}");
        }
        assert!(none(&headers(&["identity"])).is_ok());
        assert!(none(&headers(&["gzip"])).is_err());
    }
}
