//! Checks the transfer coding of request bodies.

use http::{HeaderMap, header};

use crate::http::problem::{Code, Problem};

/// Refuses any transfer coding but a single `chunked` (RFC 9112 section 6.1). The HTTP library removes `chunked` and
/// passes the rest on unchanged: for `gzip, chunked` the body would be compressed bytes, for `chunked, chunked` it
/// would contain chunk headers.
///
/// # Errors
/// 501 with the given codings.
pub(in crate::http) fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = Vec::new();
    for value in headers.get_all(header::TRANSFER_ENCODING) {
        codings.extend(value.to_str().unwrap_or("?").split(',').map(str::trim).filter(|coding| !coding.is_empty()));
    }
    if codings.is_empty() || matches!(codings[..], [coding] if coding.eq_ignore_ascii_case("chunked")) {
        return Ok(());
    }
    let given: String = codings.join(", ").chars().take(GIVEN_CHARS_MAX).collect();
    let detail = format!(
        "`transfer-encoding: {given}` is not supported: send the body with `content-length`, or with `chunked` only; use \
         `content-encoding: gzip` for a compressed event body"
    );
    Err(Problem::new(Code::UnsupportedTransferCoding, detail))
}

/// Maximum characters of the codings that are repeated in the answer.
const GIVEN_CHARS_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_chunked_alone_is_read() {
        let outcome = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::TRANSFER_ENCODING, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            check(&headers).map_err(|problem| problem.code())
        };
        for good in [&[][..], &["chunked"], &["Chunked"], &[" chunked ,"]] {
            assert_eq!(outcome(good), Ok(()), "{good:?}");
        }
        for bad in [
            &["gzip, chunked"][..],
            &["gzip", "chunked"],
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["identity, chunked"],
            &["x\u{e9}, chunked"],
        ] {
            assert_eq!(outcome(bad), Err(Code::UnsupportedTransferCoding), "{bad:?}");
        }
    }
}
