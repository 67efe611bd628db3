//! Tests of each form, of refused bodies, and of the original format.

use proptest::prelude::*;
use setgate_domain::event::{Event, EventSeq};
use setgate_domain::json::Object;
use setgate_domain::set::SetToken;
use setgate_domain::source::{Compat, Form, Proof};

use super::*;
use crate::catalogue;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_123);

const WSO2: &str = r#"{
  "iss": "https://is.example.com/t/acme", "jti": "w-1", "iat": 1751705149662, "rci": "rci-1",
  "events": { "https://schemas.identity.wso2.org/events/login/event-type/loginSuccess": {
    "user": { "id": "u-1", "ref": "https:\/\/is.example.com\/u-1" }, "score": 1.10 } }
}"#;
const LOGTO: &str = r#"{ "event": "PostSignIn", "createdAt": "2026-08-21T12:16:09.750Z", "userId": "u-1", "n": 1.10 }"#;
const PLATFORM: &str =
    r#"{"id":"evt-1","type":"user.signup","timestamp":1787314569750,"data":{"id":"u-1"},"organization":{"id":"o-1"}}"#;
const SET: &str = r#"{"iss":"https://idp.example.com/","jti":"s-1","iat":1508184845,
    "sub_id":{"format":"email","email":"m@example.com"},"events":{"urn:example:a":{},"urn:example:b":{"n":1.10}}}"#;

const FORMS: [Form; 4] = [Form::Wso2, Form::Logto, Form::Platform, Form::Set];

fn source(form: Form) -> Source {
    Source {
        tenant: "acme".parse().unwrap(),
        name: "idp".parse().unwrap(),
        form,
        proofs: vec![Proof::Open],
        issuer: None,
        issuers_allowed: Vec::new(),
        websub_topics: Vec::new(),
        timestamp_tolerance_s: 300,
        allow_sha1: false,
        allow_plain_event_names: false,
        replace_lone_surrogates: false,
        compat: Compat::default(),
        created_at: NOW,
    }
}

fn take_with(source: &Source, body: impl Into<Bytes>, delivery_id: Option<&str>) -> Result<NewEvent, NormalizeError> {
    let body = body.into();
    let request = NormalizeInput { body: &body, content_type: None, delivery_id };
    normalize(source, request, NOW, EventId::new(NOW, 1), JsonLimits::default())
}

fn take(form: Form, body: &str) -> Result<NewEvent, NormalizeError> {
    take_with(&source(form), body.to_owned(), None)
}

fn refused(form: Form, body: &str) -> (&'static str, String) {
    let error = take(form, body).unwrap_err();
    (error.code(), error.to_string())
}

fn original(taken: NewEvent, claims: &str) -> String {
    let NewEvent { id, tenant, source, set, subject, original, content_type, accepted_at, trace, .. } = taken;
    let seq = EventSeq(1);
    let event = Event { seq, id, tenant, source, set, subject, original, content_type, accepted_at, trace };
    original_body(&event, claims).unwrap()
}

#[test]
fn wso2_event_is_minimally_edited() {
    let event = take(Form::Wso2, WSO2).unwrap();
    let expected = WSO2.replace("1751705149662", "1751705149").replace(
        "\n}",
        ",\"txn\":\"rci-1\",\"sub_id\":{\"format\":\"iss_sub\",\"iss\":\"https://is.example.com/t/acme\",\"sub\":\"u-1\"}\n}",
    );
    assert_eq!(event.set.text, expected);
    assert_eq!((event.set.jti.as_str(), event.set.issued_at), ("w-1", 1_751_705_149));
    assert_eq!((event.subject.as_deref(), event.dedupe.window_ms), (Some("u-1"), None));
    assert_eq!((&event.original[..], event.content_type.as_str()), (WSO2.as_bytes(), "application/json"));
}

#[test]
fn complete_wso2_event_is_unchanged() {
    for (has, lacks) in [
        (r#""sub":"x""#, "sub_id"),
        (r#""txn":"t""#, "rci-1\",\"sub"),
        (r#""sub_id":{"format":"opaque","id":"x"}"#, "iss_sub"),
    ] {
        let body = WSO2.replacen('{', &format!("{{{has},"), 1);
        let event = take(Form::Wso2, &body).unwrap();
        assert!(event.set.text.contains(has) && !event.set.text.contains(lacks), "{}", event.set.text);
    }
}

#[test]
fn plain_set_only_gets_iat_in_seconds() {
    let event = take(Form::Set, &format!(" {SET}\n")).unwrap();
    assert_eq!(event.set.text, SET);
    assert_eq!(event.subject.as_deref(), Some("m@example.com"));
    assert_eq!(event.set.types, ["urn:example:a", "urn:example:b"]);
    assert_eq!(take(Form::Set, WSO2).unwrap().set.text, WSO2.replace("1751705149662", "1751705149"));
}

#[test]
fn logto_body_is_wrapped_unchanged() {
    let event = take(Form::Logto, &format!("\n{LOGTO} ")).unwrap();
    let head = r#"{"iss":"https://schemas.setgate.dev/sources/acme/idp","jti":"b-"#;
    let uri = "https://schemas.setgate.dev/events/logto/interaction/event-type/PostSignIn";
    assert!(event.set.text.starts_with(head), "{}", event.set.text);
    assert!(event.set.text.ends_with(&format!(
        r#","iat":1787314569,"sub_id":{{"format":"iss_sub","iss":"https://schemas.setgate.dev/sources/acme/idp","sub":"u-1"}},"events":{{"{uri}":{LOGTO}}}}}"#
    )));
    assert_eq!((event.subject.as_deref(), event.dedupe.window_ms), (Some("u-1"), Some(BODY_DIGEST_WINDOW_MS)));
}

#[test]
fn platform_event_uses_its_id_and_lenient_name() {
    let mut source = source(Form::Platform);
    source.issuer = Some("https://auth.example.com".to_owned());
    let event = take_with(&source, PLATFORM, Some("ignored")).unwrap();
    let uri = "https://schemas.setgate.dev/events/platform/user/event-type/user.created";
    let sub_id = r#"{"format":"iss_sub","iss":"https://auth.example.com","sub":"u-1"}"#;
    assert_eq!(
        event.set.text,
        format!(
            r#"{{"iss":"https://auth.example.com","jti":"evt-1","iat":1787314569,"sub_id":{sub_id},"events":{{"{uri}":{PLATFORM}}}}}"#
        )
    );
    assert_eq!(event.dedupe.window_ms, None);
}

#[test]
fn jti_is_derived_from_delivery_id_or_body() {
    let no_id = PLATFORM.replace(r#""id":"evt-1","#, "");
    let jti = |source: &Source, body: &str, id| take_with(source, body.to_owned(), id).unwrap().set.jti;
    let source = source(Form::Platform);
    let first = jti(&source, &no_id, Some("dlv 1"));
    assert!(first.starts_with("d-") && first.len() == 34, "{first}");
    assert_eq!(first, jti(&source, &no_id.replace("u-1", "u-2"), Some("dlv 1")), "the body has no influence");
    assert_ne!(first, jti(&source, &no_id, Some("dlv 2")));
    let other = Source { name: "other".parse().unwrap(), ..source.clone() };
    assert_ne!(first, jti(&other, &no_id, Some("dlv 1")));
    let digest = jti(&source, &no_id, Some(" "));
    assert!(digest.starts_with("b-") && digest.len() == 34, "{digest}");
    assert_ne!(digest, jti(&source, &no_id.replace("u-1", "u-2"), None));
}

#[test]
fn parses_timestamps_of_all_products() {
    for (at, seconds) in [
        ("\"2026-08-21T14:16:09.999+02:00\"", Some(1_787_314_569)),
        ("1787314569", Some(1_787_314_569)),
        ("1787314569999", Some(1_787_314_569)),
        ("1787314569.5", Some(1_787_314_569)),
        ("\"2026-08-21T12:16:09\"", None),
        ("\"\"", None),
        ("-1", None),
        ("1e30", None),
        ("null", None),
    ] {
        let body = PLATFORM.replace("1787314569750", at);
        match (take(Form::Platform, &body), seconds) {
            (Ok(event), Some(seconds)) => assert_eq!(event.set.issued_at, seconds, "{at}"),
            (Err(NormalizeError::BadClaim { claim, .. }), None) => assert_eq!(claim, "timestamp", "{at}"),
            (other, _) => panic!("{at}: {other:?}"),
        }
    }
    let undated = LOGTO.replace("\"createdAt\": \"2026-08-21T12:16:09.750Z\", ", "");
    assert_eq!(take(Form::Logto, &undated).unwrap().set.issued_at, NOW.as_seconds());
}

#[test]
fn undocumented_events_are_accepted() {
    let event = take(Form::Logto, &LOGTO.replace("PostSignIn", "Brand New")).unwrap();
    assert_eq!(event.set.types, ["https://schemas.setgate.dev/events/logto/other/event-type/Brand%20New"]);
}

#[test]
fn error_names_claim_and_remedy() {
    for (form, body, code, part) in [
        (Form::Logto, "", "malformed_json", "line 1, column 0"),
        (Form::Logto, "[1]", "not_an_object", "send one event as one object"),
        (Form::Logto, r#"{"event":"A","event":"B"}"#, "duplicate_key", "`/event` occurs twice"),
        (Form::Logto, "{}", "missing_claim", "`event` is missing"),
        (Form::Logto, r#"{"event":1}"#, "bad_claim", "`event` has to be a string"),
        (Form::Logto, r#"{"event":""}"#, "bad_claim", "1 to 255 characters"),
        (Form::Logto, r#"{"event":"A","createdAt":"today"}"#, "bad_claim", "`createdAt` is \"today\""),
        (
            Form::Logto,
            PLATFORM,
            "wrong_form",
            "looks like an event of the platform form; the source `idp` is configured as logto",
        ),
        (Form::Logto, WSO2, "wrong_form", "looks like a WSO2 or Asgardeo event"),
        (Form::Logto, SET, "wrong_form", "looks like a SET"),
        (Form::Platform, LOGTO, "wrong_form", "looks like a Logto event; the source `idp` is configured as platform"),
        (Form::Platform, r#"{"type":"user.created","data":{}}"#, "missing_claim", "`timestamp` is missing"),
        (Form::Platform, r#"{"id":"","type":"a","timestamp":1}"#, "bad_claim", "`id` becomes the `jti`"),
        (Form::Set, LOGTO, "wrong_form", "looks like a Logto event"),
        (Form::Wso2, PLATFORM, "wrong_form", "configured as wso2"),
        (Form::Set, "{}", "missing_claim", "`iss` is missing"),
        (Form::Set, r#"{"iss":"x","iat":1,"jti":"1","events":{}}"#, "bad_claim", "`events` is empty"),
    ] {
        let (got, text) = refused(form, body);
        assert_eq!(got, code, "{text}");
        assert!(text.contains(part), "{text}\nshould say: {part}");
    }
    assert_eq!(take_with(&source(Form::Set), &b"{\"\xff\":1}"[..], None).unwrap_err().code(), "not_utf8");
}

#[test]
fn depth_limit_applies_to_the_set() {
    let nested = |levels: usize| format!(r#"{{"event":"A","x":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
    let deepest = take(Form::Logto, &nested(62)).unwrap();
    assert!(SetToken::parse(deepest.set.text, JsonLimits::default()).is_ok());
    assert_eq!(refused(Form::Logto, &nested(63)).0, "too_deep");
}

#[test]
fn issuer_must_be_in_issuers_allowed() {
    let mut source = source(Form::Set);
    source.issuers_allowed = vec!["https://idp.example.com/".to_owned()];
    assert!(take_with(&source, SET, None).is_ok());
    source.issuers_allowed = vec!["https://idp.example.com".to_owned()];
    let error = take_with(&source, SET, None).unwrap_err();
    assert_eq!(error.code(), "issuer_not_allowed");
}

#[test]
fn original_body_is_restored_after_filters() {
    let passed = |form, body| {
        let event = take(form, body).unwrap();
        let claims = event.set.text.clone();
        original(event, &claims)
    };
    assert_eq!(passed(Form::Wso2, WSO2), WSO2);
    assert_eq!(passed(Form::Logto, LOGTO), LOGTO);
    assert_eq!(passed(Form::Platform, PLATFORM), PLATFORM);
    assert_eq!(passed(Form::Set, SET), SET);

    let redacted = take(Form::Wso2, WSO2).unwrap();
    let claims = redacted.set.text.replace("\"id\": \"u-1\", ", "");
    assert_eq!(original(redacted, &claims), WSO2.replace("\"id\": \"u-1\", ", ""));
    let pairwise = take(Form::Wso2, WSO2).unwrap();
    let claims = pairwise.set.text.replace("\"sub\":\"u-1\"", "\"sub\":\"p-9\"");
    assert!(original(pairwise, &claims).contains("\"sub\":\"p-9\""), "a sub_id set by a filter is retained");
    let translated = take(Form::Logto, LOGTO).unwrap();
    assert_eq!(original(translated, r#"{"events":{"urn:x":{"a":1.0}}}"#), r#"{"a":1.0}"#);
}

/// The folder of sample events from products and specifications, if it is available.
fn documented_samples() -> Option<std::path::PathBuf> {
    let beside = || concat!(env!("CARGO_MANIFEST_DIR"), "/../../../../shared/events").into();
    Some(std::env::var_os("SETGATE_EVENT_SAMPLES").unwrap_or_else(beside).into())
        .filter(|p: &std::path::PathBuf| p.is_dir())
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that did not run has to say so")]
fn documented_samples_become_valid_sets() {
    let Some(folder) = documented_samples() else {
        eprintln!("skipped: set SETGATE_EVENT_SAMPLES to a folder of sample events");
        return;
    };
    // Events about a role, a purpose, or a failed registration have no user, and neither has Logto's test payload.
    let nobody = |name: &str| {
        [".role", "purposeVersion", "registrationFailed", "test-payload.User"].iter().any(|part| name.contains(part))
    };
    let mut taken = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let body = std::fs::read_to_string(&path).unwrap();
        let form = match name.split('.').next().unwrap() {
            "wso2-is" => Form::Wso2,
            "logto" => Form::Logto,
            "caep" | "risc" | "ssf" | "rfc8417" => Form::Set,
            _ => {
                for form in FORMS {
                    let (code, text) = refused(form, &body);
                    assert_eq!(code, "wrong_form", "{name}: {text}");
                    assert!(text.contains("only events are accepted here"), "{name}: {text}");
                }
                continue;
            }
        };
        let event = take(form, &body).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(event.subject.is_none(), nobody(&name), "{name}: {:?}", event.subject);
        if form != Form::Set {
            assert!(event.set.types.iter().all(|uri| catalogue::by_uri(uri).is_some()), "{name}");
        }
        let claims = event.set.text.clone();
        assert_eq!(original(event, &claims), body.trim(), "{name}: the way back");
        taken += 1;
    }
    assert!(taken > 0);
}

#[test]
fn demo_samples_become_valid_sets() {
    let mut types = std::collections::BTreeSet::new();
    let mut jtis = std::collections::BTreeSet::new();
    for sample in crate::samples::samples() {
        let event = take(sample.form.form, &sample.body).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        for uri in &event.set.types {
            assert!(catalogue::by_uri(uri).is_some(), "{}: {uri} is not in the catalogue", sample.name);
            types.insert(uri.clone());
        }
        assert!(jtis.insert(event.set.jti.clone()), "{}: {} is there twice", sample.name, event.set.jti);
        let claims = event.set.text.clone();
        assert_eq!(original(event, &claims), sample.body, "{}", sample.name);
    }
    assert!(types.len() >= 45 && jtis.len() >= 70, "{} types, {} events", types.len(), jtis.len());
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for form in FORMS {
            let _ = take_with(&source(form), bytes.clone(), None);
        }
    }

    #[test]
    fn arbitrary_json_does_not_panic(
        base in prop_oneof![Just(WSO2), Just(LOGTO), Just(PLATFORM), Just(SET)],
        member in prop_oneof![
            Just("iss"), Just("jti"), Just("iat"), Just("rci"), Just("events"), Just("event"), Just("type"),
            Just("createdAt"), Just("timestamp"), Just("data"), Just("id"), Just("sub_id"), Just("user"), Just("userId"),
        ],
        value in prop_oneof![
            Just("null"), Just("{}"), Just("[]"), Just("\"\""), Just("-0.0"), Just("1e308"), Just("9223372036854775808"),
            Just("{\"user\":{}}"), Just("{\"format\":\"complex\"}"), Just("{\"a\":{\"user\":{\"claims\":[1,{\"uri\":2}]}}}"),
            Just("\"\\u0000\""), Just("{\"urn:x\":{\"user\":{\"id\":\"\\\"\"}}}"),
        ],
    ) {
        let body = Object::parse(base).unwrap().with(&[(member, Some(value.to_owned()))]);
        for form in FORMS {
            if let Ok(event) = take(form, &body) {
                prop_assert!(SetToken::parse(event.set.text, JsonLimits::default()).is_ok());
            }
        }
    }

    #[test]
    fn member_order_and_number_spelling_are_preserved(
        members in proptest::collection::btree_map("[a-z]{1,6}_", "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,20})?", 0..6),
        space in "[ \n\t]{0,3}",
    ) {
        let extra: String = members.iter().rev().map(|(key, number)| format!(",{space}\"{key}\":{space}{number}")).collect();
        let body = |text: &str| format!("{}{extra}}}", text.trim_end().strip_suffix('}').unwrap().trim_end());
        for (form, text) in [(Form::Logto, LOGTO), (Form::Platform, PLATFORM), (Form::Wso2, WSO2), (Form::Set, SET)] {
            let event = take(form, &body(text)).unwrap();
            prop_assert!(event.set.text.contains(&extra));
            let claims = event.set.text.clone();
            prop_assert_eq!(original(event, &claims), body(text));
        }
    }
}
