//! Fuzzing of claims: parsing, normalisation, and verdicts of filters.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value};
use setgate_dialects::normalize::{NormalizeError, NormalizeInput, normalize, original_body};
use setgate_domain::event::{Event, EventSeq, NewEvent};
use setgate_domain::id::EventId;
use setgate_domain::json::{JsonError, JsonLimits, Object, check, merge_reference};
use setgate_domain::redact::Redactor;
use setgate_domain::secret::Secret;
use setgate_domain::set::{Applied, SEALED_CLAIMS, SetToken, apply};
use setgate_domain::source::{Compat, Form, Proof, Source};
use setgate_domain::time::Timestamp;
use setgate_domain::verdict::{Fault, Verdict};

use super::short;

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_123);

/// JSON that is accepted is also valid for other parsers, and a SET's fields match its text.
pub fn set(bytes: &[u8]) {
    let limits = JsonLimits { depth_max: 16, bytes_max: 64 << 10 };
    let read: Result<Value, _> = serde_json::from_slice(bytes);
    let text = match check(bytes, limits) {
        Ok(text) => text,
        Err(fault) => {
            short(&fault.to_string());
            let sound = matches!(
                fault,
                JsonError::DuplicateKey { .. } | JsonError::TooDeep { .. } | JsonError::TooLarge { .. }
            );
            assert!(sound || read.is_err(), "refused, but JSON: {fault}");
            return;
        }
    };
    let value = read.expect("what is sound is JSON");
    assert!(depth(&value) <= limits.depth_max);
    assert_eq!(text.trim(), text);
    edits(text, &value);

    let Ok(whole) = std::str::from_utf8(bytes) else { panic!("not UTF-8") };
    match SetToken::parse(whole.to_owned(), limits) {
        Ok(set) => {
            assert_eq!(set.text, text, "the text is kept");
            tells(&set, &value);
            assert_eq!(SetToken::parse(set.text.clone(), limits).as_ref(), Ok(&set), "it is a SET for good");
        }
        Err(fault) => short(&fault.to_string()),
    }
}

/// One level of an object, taken apart and put together.
fn edits(text: &str, value: &Value) {
    let object = match (Object::parse(text), value) {
        (Ok(object), Value::Object(_)) => object,
        (Err(JsonError::NotAnObject), value) if !value.is_object() => return,
        (object, _) => panic!("{object:?} of {text}"),
    };
    let members = value.as_object().map_or(0, Map::len);
    assert_eq!(object.len(), members);
    assert_eq!(object.with(&[]), text);
    let Some((first, kept)) = object.iter().next() else { return };
    assert_eq!(object.with(&[(first, Some(kept.to_owned()))]), text, "put in as it was");
    let mut less = value.clone();
    less.as_object_mut().map(|members| members.shift_remove(first));
    assert_eq!(serde_json::from_str::<Value>(&object.with(&[(first, None)])).ok(), Some(less));
}

/// The fields of the parsed SET match the claims in its text.
fn tells(set: &SetToken, value: &Value) {
    assert_eq!(value["iss"], Value::from(set.issuer.as_str()));
    assert_eq!(value["jti"], Value::from(set.jti.as_str()));
    assert!(!set.issuer.is_empty() && !set.jti.is_empty() && set.issued_at >= 0);
    assert!(value["iat"].as_f64().is_some_and(|iat| (iat.floor() - set.issued_at as f64).abs() < 1.0));
    let types: Vec<_> = value["events"].as_object().map(|events| events.keys().collect()).unwrap_or_default();
    assert!(types.iter().copied().eq(&set.types) && !types.is_empty());
}

/// A body of any form becomes a valid SET, deterministically, and can be converted back to its bytes.
pub(super) fn ingest(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else { return };
    let forms: Vec<Form> = setgate_dialects::forms().map(|form| form.form).collect();
    let form = forms[usize::from(choice & 3) % forms.len()];
    let source = source(form, choice & 4 != 0);
    let delivery_id = (choice & 8 != 0).then_some("d-1");
    let limits = JsonLimits { depth_max: 16, bytes_max: 64 << 10 };
    let body = Bytes::copy_from_slice(body);
    let taken = |now| {
        let request = NormalizeInput { body: &body, content_type: None, delivery_id };
        normalize(&source, request, now, EventId::new(NOW, 1), limits)
    };
    let event = match taken(NOW) {
        Ok(event) => event,
        Err(refusal) => return refused(&refusal),
    };
    let again = taken(NOW).expect("what is taken once is taken again");
    assert_eq!((&event.set, event.dedupe), (&again.set, again.dedupe), "the same each time");
    // If a body has no time of its own, its `iat` is the time of arrival.
    let later = taken(NOW.plus_millis(86_400_000)).expect("and later too");
    assert_eq!((&event.set.jti, event.dedupe), (&later.set.jti, later.dedupe), "a second copy is the same event");
    assert_eq!(event.original, body);

    let text = &event.set.text;
    let wrapped = JsonLimits { depth_max: limits.depth_max, bytes_max: usize::MAX };
    assert_eq!(SetToken::parse(text.clone(), wrapped).as_ref(), Ok(&event.set), "what is stored is a SET");
    // Escapes make an event's name up to six times as long, and it appears once as a URI.
    assert!(text.len() <= 2 * body.len() + 8 * 1024, "{} bytes became {}", body.len(), text.len());
    if let Some(subject) = &event.subject {
        assert!(subject.len() <= body.len(), "{subject}");
    }
    let sent = check(&body, limits).expect("it was taken").to_owned();
    let claims = text.clone();
    let back = original_body(&stored(event), &claims).expect("what is stored can be sent");
    assert_eq!(back, sent, "the way back gives the body as it came");
}

fn refused(refusal: &NormalizeError) {
    short(&refusal.to_string());
    assert_eq!(crate::http::problem::Code::from(refusal).as_str(), refusal.code());
}

pub(super) fn source(form: Form, with_issuer: bool) -> Source {
    Source {
        tenant: "acme".parse().expect("a name"),
        name: "idp".parse().expect("a name"),
        form,
        proofs: vec![Proof::Open],
        issuer: with_issuer.then(|| "https://idp.example/\"\u{e4}".to_owned()),
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

pub(super) fn stored(event: NewEvent) -> Event {
    let NewEvent { id, tenant, source, set, subject, original, content_type, accepted_at, trace, .. } = event;
    Event { seq: EventSeq(1), id, tenant, source, set, subject, original, content_type, accepted_at, trace }
}

/// SETs that verdicts are applied to: plain, with every sealed claim in unusual spelling, and with large members.
const BEFORE: [&str; 3] = [
    r#"{"iss":"i","jti":"1","iat":1,"events":{"urn:x:y":{}}}"#,
    "{ \"txn\" : \"a\\u002fb\", \"iss\":\"https:\\/\\/idp.example\",\"jti\":\"\\u0031\", \"iat\": 1520364019.0,\n\"aud\":[ \"x\" ],\
     \"events\":{\"urn:x:login\":{\"ip\":\"192.0.2.1\",\"score\":1.10,\"in\":{\"a\":1,\"b\":[1,{}]}}}, \"extra\": 12345678901234567890123 }",
    r#"{"a":{"b":{"c":{"d":1}}},"iss":"i","n":null,"jti":"2","iat":2,"aud":"me","sub_id":{"format":"opaque","id":"u"},"events":{"urn:x:y":{"k":"v"},"urn:x:z":{}},"":0}"#,
];

/// Any output of a filter results in a valid SET with unchanged sealed claims and unchanged members that a patch does
/// not name, or in a fault with a message.
pub fn verdict(bytes: &[u8]) {
    let Some((choice, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let before = BEFORE[usize::from(choice >> 2) % BEFORE.len()];
    let before = SetToken::parse(before.to_owned(), JsonLimits::default()).expect("a SET");
    let bytes_max = if choice & 0x80 == 0 { 1 << 20 } else { 600 };
    let (text, verdict) = match choice & 3 {
        0 => return redacted(text),
        1 => (text, Verdict::Replace(text.to_owned())),
        _ => (text, Verdict::Patch(text.to_owned())),
    };
    let patches = matches!(verdict, Verdict::Patch(_));
    let after = match apply(&before, verdict, bytes_max) {
        Ok(Applied::Changed(after)) => after,
        Ok(Applied::Unchanged) => return,
        Ok(Applied::Dropped(_)) => panic!("nobody dropped it"),
        Err(fault) => {
            short(&fault.to_string());
            assert!(matches!(fault, Fault::Output { .. } | Fault::Sealed { .. } | Fault::NotASet { .. }), "{fault}");
            return;
        }
    };
    assert_ne!(after.text, before.text);
    assert!(after.text.len() as u64 <= bytes_max);
    let limits = JsonLimits { bytes_max: usize::MAX, ..JsonLimits::default() };
    assert_eq!(SetToken::parse(after.text.clone(), limits).as_ref(), Ok(&after), "what comes out is a SET");
    let (was, is) = (object(&before.text), object(&after.text));
    for claim in SEALED_CLAIMS {
        assert_eq!(was.get(claim), is.get(claim), "`{claim}` is sealed");
    }
    let (is_value, text_value) = (value(&after.text), value(text));
    if patches {
        let patch = object(text);
        let kept = |object: &Object<'_>| -> Vec<(String, String)> {
            let members = object.iter().filter(|(key, _)| patch.get(key).is_none());
            members.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        assert_eq!(kept(&was), kept(&is), "what the patch does not name keeps its bytes and its order");
        assert_eq!(is_value, merge_reference(value(&before.text), &text_value), "as RFC 7396 says");
    } else {
        assert_eq!(is_value, text_value, "what the filter gave");
    }
}

/// A reason or log line never contains the secret, wherever it is cut.
fn redacted(text: &str) {
    const SECRET: &str = "hunter2\u{1b}";
    let secrets = BTreeMap::from([("key".to_owned(), Secret::new(SECRET.to_owned()))]);
    let redactor = Redactor::new(&secrets);
    let whole = redactor.redact(text);
    assert!(!whole.contains(SECRET) && !whole.contains(r"hunter2\u{1b}"), "{whole}");
    assert_eq!(
        whole == text,
        !text.contains("hunter2\u{1b}") && !text.contains(r"hunter2\u{1b}") && !text.contains(r"hunter2\u001b")
    );
    let cut = text.floor_char_boundary(text.len() / 2);
    // A cut text starts like the whole redacted text, except for a secret across the cut.
    assert!(whole.starts_with(&redactor.redact_start(text, cut)), "{whole}");
}

fn object(text: &str) -> Object<'_> {
    Object::parse(text).expect("an object")
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
