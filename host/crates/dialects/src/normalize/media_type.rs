//! Accepted media types.

use setgate_domain::text::check_charset;

use super::NormalizeError;

/// The JSON media type without its parameters, in lower case: `application/json` or `application/*+json` (RFC 6839
/// section 3.1), in UTF-8. If the header is absent, JSON is assumed.
///
/// # Errors
/// If the type is not JSON or not in UTF-8.
pub(super) fn check_json(content_type: Option<&str>) -> Result<String, NormalizeError> {
    let Some(given) = content_type.map(str::trim).filter(|given| !given.is_empty()) else {
        return Ok("application/json".to_owned());
    };
    let refuse =
        |hint: &str| NormalizeError::UnsupportedMediaType { given: super::error::cut(given), hint: hint.to_owned() };
    let media_type = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = media_type.strip_prefix("application/").unwrap_or_default();
    if subtype == "secevent+jwt" || subtype == "jwt" {
        return Err(refuse(
            "signed SETs go to the path of RFC 8935, POST /t/{tenant}/push/{source}, of a source with a `jws` proof; send \
             claims without a signature as JSON",
        ));
    }
    if subtype == "x-www-form-urlencoded" {
        return Err(refuse("set the sender's content type to JSON"));
    }
    if subtype != "json" && !(subtype.ends_with("+json") && subtype.len() > "+json".len()) {
        return Err(refuse("send JSON"));
    }
    check_charset(given).map_err(|why| refuse(&why))?;
    Ok(media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_json_in_utf_8() {
        for (given, media_type) in [
            (None, "application/json"),
            (Some(" "), "application/json"),
            (Some("application/json"), "application/json"),
            (Some("Application/JSON ; Charset=\"UTF-8\""), "application/json"),
            (Some("application/json; charset=utf8"), "application/json"),
            (Some("application/secevent+json;charset=utf-8; v=1"), "application/secevent+json"),
        ] {
            assert_eq!(check_json(given).unwrap(), media_type, "{given:?}");
        }
    }

    #[test]
    fn other_media_types_are_refused_with_a_remedy() {
        for (given, part) in [
            ("text/plain", "send JSON"),
            ("application/+json", "send JSON"),
            ("application/x-www-form-urlencoded", "content type to JSON"),
            ("application/json; charset=iso-8859-1", "the charset `iso-8859-1` is not supported"),
            ("application/secevent+jwt", "signed SETs"),
            ("\u{e9}", "send JSON"),
        ] {
            let error = check_json(Some(given)).unwrap_err();
            assert_eq!(error.code(), "unsupported_media_type");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
