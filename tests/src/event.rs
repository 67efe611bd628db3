//! Events as products send them, created for these stories. Each takes a parameter that makes it unique.

/// The event type of [`set`].
pub const SET_TYPE: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
/// The event type of [`wso2`].
pub const WSO2_TYPE: &str = "https://schemas.identity.wso2.org/events/login/event-type/loginFailed";

/// A plain SET (RFC 8417) with a CAEP event.
pub fn set(jti: &str) -> String {
    format!(
        r#"{{"iss":"https://idp.example.com/","jti":"{jti}","iat":1615305159,"aud":"https://sp.example.com/caep","txn":"8675309","sub_id":{{"format":"email","email":"jane@example.com"}},"events":{{"{SET_TYPE}":{{"event_timestamp":1615304991}}}}}}"#
    )
}

/// A SET with this `jti` about this user.
pub fn about(jti: &str, user: &str) -> String {
    format!(
        r#"{{"iss":"https://idp.example.com/","jti":"{jti}","iat":1615305159,"sub_id":{{"format":"iss_sub","iss":"https://idp.example.com/","sub":"{user}"}},"events":{{"{SET_TYPE}":{{}}}}}}"#
    )
}

/// A failed login in WSO2 Identity Server, with `iat` in milliseconds.
pub fn wso2(jti: &str) -> String {
    format!(
        r#"{{"iss":"https://localhost:9443/t/shop.example","jti":"{jti}","iat":1751709144508,"rci":"05268edb-9a87-4656-87c0-0fb674dd03b1","events":{{"{WSO2_TYPE}":{{"user":{{"id":"u-17","claims":[{{"uri":"http://wso2.org/claims/username","value":"jane@example.com"}}]}},"tenant":{{"id":"12402","name":"shop.example"}},"organization":{{"id":"o1","name":"shop"}},"application":{{"id":"a1","name":"Shop"}},"userAgent":"curl/8.5","failedAttempts":4}}}}}}"#
    )
}

/// A sign-in at Logto. It contains no id: the body itself identifies it.
pub fn logto(session: &str) -> String {
    format!(
        r#"{{"event":"PostSignIn","hookId":"hook-1","createdAt":"2026-08-21T12:16:09.000Z","userAgent":"Mozilla/5.0","sessionId":"{session}","userIp":"203.0.113.10","userId":"u-17","user":{{"id":"u-17","username":"jane","primaryEmail":"jane@example.com","name":"Jane Doe","customData":{{"ratio":1.10}}}},"application":{{"id":"a1","type":"SPA","name":"Shop"}}}}"#
    )
}

/// A suspicious login in the platform's form.
pub fn platform(user: &str) -> String {
    format!(
        r#"{{"type":"security.suspicious_login","timestamp":"2026-08-21T12:16:09Z","data":{{"user_id":"{user}","email":"jane@example.com","ip":"203.0.113.10"}},"organization":{{"id":"o1","name":"Shop"}}}}"#
    )
}
