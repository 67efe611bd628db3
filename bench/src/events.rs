//! Events of a given size. Each contains a number that identifies it.

use std::fmt::Write as _;

/// Digits of the number: numbers start at the nanoseconds since 1970 at the start of a run (`load::Record`).
const DIGITS: usize = 19;
/// Precedes the number at the beginning of a `jti`.
const MARK: &[u8] = b"\"jti\":\"bench-";

/// A login of a given size in the format of WSO2 Identity Server, without its number.
#[derive(Clone)]
pub(crate) struct Template {
    before: String,
    after: String,
}

impl Template {
    /// Events of `bytes` bytes, or of their minimum size, which is about 750.
    pub(crate) fn of(bytes: usize) -> Self {
        let before = r#"{"iss":"https://is.example.com/t/example.com","jti":"bench-"#.to_owned();
        let claim = |number: usize| {
            format!(
                r#",{{"uri":"http://wso2.org/claims/attribute{number:04}","value":"the value of attribute {number:04}"}}"#
            )
        };
        let mut claims = String::new();
        let after = |claims: &str| {
            format!(
                r#"","iat":1789977600000,"rci":"c595e825-aa33-458e-a4b8-4c99399a4b11","events":{{"https://schemas.identity.wso2.org/events/login/event-type/loginSuccess":{{"user":{{"id":"b70274cf-c7ba-4ac7-a064-2cfbd5a6724f","claims":[{{"uri":"http://wso2.org/claims/username","value":"mira@example.com"}}{claims}],"organization":{{"id":"7ae6ed84-d04c-4260-af22-3d1257df5303","name":"shop","orgHandle":"shop.example","depth":0}},"ref":"https://is.example.com/t/example.com/scim2/Users/b70274cf-c7ba-4ac7-a064-2cfbd5a6724f"}},"tenant":{{"id":"2101","name":"shop.example"}},"userStore":{{"id":"UFJJTUFSWQ==","name":"PRIMARY"}},"application":{{"id":"98e4d4fa-d510-429b-a967-e19df92dd948","name":"Till"}},"authenticationMethods":["BasicAuthenticator"]}}}}}}"#
            )
        };
        let mut number = 0;
        while before.len() + DIGITS + after(&claims).len() < bytes {
            claims += &claim(number);
            number += 1;
        }
        Self { after: after(&claims), before }
    }

    /// The event with that number.
    pub(crate) fn event(&self, number: u64) -> String {
        let mut event = String::with_capacity(self.before.len() + DIGITS + self.after.len());
        event.push_str(&self.before);
        let _ = write!(event, "{number:0DIGITS$}");
        event.push_str(&self.after);
        event
    }
}

/// The `jti` of the event with that number.
pub(crate) fn jti(number: u64) -> String {
    format!("bench-{number:0DIGITS$}")
}

/// The number of the event in a body, whatever its delivery format.
pub(crate) fn number(body: &[u8]) -> Option<usize> {
    let at = body.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    std::str::from_utf8(body.get(at..at + DIGITS)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_size_and_is_found_again() {
        for bytes in [800, 5_000, 50_000] {
            let event = Template::of(bytes).event(4_711);
            assert!((bytes..bytes + 120).contains(&event.len()), "{bytes}: {}", event.len());
            assert!(serde_json::from_str::<serde_json::Value>(&event).is_ok());
            assert_eq!(number(event.as_bytes()), Some(4_711));
        }
        assert_eq!(number(b"{}"), None);
    }
}
