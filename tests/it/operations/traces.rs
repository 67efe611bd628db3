//! Traces: one trace from the sender over the host to the receiver, decoded by a collector with types generated from
//! OTLP's own definitions; and an unreachable collector.

use std::collections::BTreeMap;
use std::time::Instant;

use http::Method;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use serde_json::json;
use setgate_tests::{Accepted, Authority, Host, Ingest, Received, Receiver, Reply, Seed, Source, World, event, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SENDER: &str = "00f067aa0ba902b7";
const STATE: &str = "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE";

/// The spans received by a collector, each once even if it was sent repeatedly.
fn spans(collector: &Receiver) -> Vec<Span> {
    let mut spans = BTreeMap::new();
    for received in collector.all() {
        assert_eq!((received.path.as_str(), received.header("content-type")), ("/v1/traces", "application/x-protobuf"));
        for span in export(&received).resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans) {
            spans.insert(span.span_id.clone(), span);
        }
    }
    spans.into_values().collect()
}

fn export(received: &Received) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(received.body.clone()).expect("the body is OTLP")
}

/// Waits for the given number of spans with a name, and returns them in the order of their start.
async fn named(collector: &Receiver, name: &str, count: usize) -> Vec<Span> {
    until(&format!("the collector has {count} spans `{name}`"), async || {
        let mut of_name: Vec<_> = spans(collector).into_iter().filter(|span| span.name == name).collect();
        of_name.sort_by_key(|span| span.start_time_unix_nano);
        assert!(of_name.len() <= count, "too many: {of_name:?}");
        (of_name.len() == count).then_some(of_name)
    })
    .await
}

/// The value of a span's attribute.
fn said(span: &Span, key: &str) -> Option<String> {
    let said = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match said.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key}: {other:?}"),
    }
}

/// Configuration lines that make a host send spans to a collector.
fn sends_to(collector: &Receiver, more: &str) -> String {
    let url = collector.url();
    let origin = url.strip_suffix("/in").unwrap();
    format!("[traces]\nendpoint = \"{origin}\"\n{more}\n")
}

/// Sends an event with trace headers.
async fn send(host: &Host, source: &Source, seed: Seed, jti: &str, more: &[(&str, &str)]) -> Accepted {
    let body = event::set(jti);
    let proof = seed.proof(body.as_bytes());
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(proof.iter().map(|(name, value)| (*name, value.as_str())));
    headers.extend(more);
    Accepted::of(&host.stranger().send(Method::POST, &source.path, &headers, body).await.expect(202))
}

/// Trace id, span id and flags in a receiver's `traceparent`.
fn parent(received: &Received) -> [String; 3] {
    let parts: Vec<_> = received.header("traceparent").split('-').collect();
    let ["00", trace, span, flags] = parts[..] else { panic!("{parts:?}") };
    [trace, span, flags].map(str::to_owned)
}

#[tokio::test]
async fn one_trace_spans_sender_filter_receiver_and_crash() {
    let collector = Receiver::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    std::fs::write(&file, "# of the collector\nauthorization: Bearer collector-token-19c4\n").unwrap();
    // No trace that starts on the host is sampled: this one is sampled because of the sender's flag.
    let more = format!("sample_ratio = 0.0\nservice_name = \"edge\"\nheaders_file = \"{}\"", file.display());
    let Ingest { host, acme, source } = &mut World::with()
        .config(&sends_to(&collector, &more))
        .env("SETGATE_TRACES__HEADERS", "{x-project = \"collector-project-77e0\"}")
        .start_ingest()
        .await;
    let digest = acme.filter("redact-claims").await;
    let receiver = Receiver::start().await;
    receiver.answer([Reply::status(500)]);
    let chain =
        json!([{"filter": "redact-claims", "grants": ["config"], "secrets": {"salt": "binding-secret-77aa01"}}]);
    let url = format!("{}?token=endpoint-query-31b7", receiver.url());
    let subscription = acme.subscribe_url(&url).chain(chain).retry(&[3; 20]).create().await;

    let sent = format!("00-{TRACE}-{SENDER}-01");
    let headers = [("traceparent", sent.as_str()), ("tracestate", STATE)];
    let accepted = send(host, source, Seed::Set, "one", &headers).await;
    let delivery = subscription.delivery_of(&accepted);
    // A killed process loses the spans that it has not sent.
    for name in ["accept", "fan-out", "filter", "sign", "attempt"] {
        named(&collector, name, 1).await;
    }
    // The trace context is stored with the event: the second attempt is made by another process.
    host.kill9().await;
    host.start_again().await;
    acme.delivery_in("delivered", &delivery).await;

    let attempts = named(&collector, "attempt", 2).await;
    let accept = named(&collector, "accept", 1).await.remove(0);
    let fan_out = named(&collector, "fan-out", 1).await.remove(0);
    let filter = named(&collector, "filter", 1).await.remove(0);
    let signs = named(&collector, "sign", 2).await;
    assert_eq!(hex::encode(&accept.trace_id), TRACE, "the sender's trace is continued");
    assert_eq!((hex::encode(&accept.parent_span_id).as_str(), accept.kind()), (SENDER, SpanKind::Server));
    assert_eq!((accept.trace_state.as_str(), accept.flags), (STATE, 0x301));
    assert_eq!(said(&accept, "setgate.outcome").as_deref(), Some("accepted"));
    assert_eq!(said(&fan_out, "setgate.deliveries").as_deref(), Some("1"));
    assert_eq!(said(&filter, "setgate.filter.digest"), Some(digest));
    assert_eq!(said(&filter, "setgate.filter.verdict").as_deref(), Some("patch"));
    let runs = acme.delivery(&delivery).await["runs"][0]["fuel"].to_string();
    assert_eq!(said(&filter, "setgate.filter.fuel"), Some(runs), "as the history has it");
    assert_eq!(said(&signs[0], "setgate.signing.scheme").as_deref(), Some("standard"));
    for (span, number, status) in [(&attempts[0], "1", "500"), (&attempts[1], "2", "204")] {
        assert_eq!(said(span, "setgate.attempt").as_deref(), Some(number));
        assert_eq!(said(span, "http.response.status_code").as_deref(), Some(status));
        assert_eq!(span.kind(), SpanKind::Client);
        let failed = span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error);
        assert_eq!(failed, number == "1");
        assert_eq!(said(span, "error.type").as_deref(), failed.then_some("500"));
        assert_eq!(said(span, "server.port"), Some(receiver.address.port().to_string()));
    }
    for span in [&fan_out, &filter].into_iter().chain(&signs).chain(&attempts) {
        assert_eq!(span.trace_id, accept.trace_id, "one trace: {}", span.name);
        assert_eq!(span.parent_span_id, accept.span_id, "below the acceptance: {}", span.name);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        assert!(span.start_time_unix_nano >= accept.start_time_unix_nano, "{}", span.name);
        let is_delivery = !matches!(span.name.as_str(), "fan-out");
        assert_eq!(said(span, "setgate.delivery").as_ref(), is_delivery.then_some(&delivery), "{}", span.name);
        assert_eq!(said(span, "setgate.event").as_ref(), Some(&accepted.event), "{}", span.name);
    }

    let expected: Vec<_> =
        attempts.iter().map(|span| [TRACE.to_owned(), hex::encode(&span.span_id), "01".to_owned()]).collect();
    let passed_on: Vec<_> = receiver.all().iter().map(parent).collect();
    assert_eq!(passed_on, expected, "each attempt passes its own place on");
    for received in receiver.all() {
        assert_eq!(received.header("tracestate"), STATE);
        assert_eq!(subscription.verify(&received), Ok(()));
    }
    let record = acme.delivery(&delivery).await.to_string();
    assert!(record.contains(receiver.all()[0].header("traceparent")), "the record has it too: {record}");

    for received in collector.all() {
        assert_eq!(received.header("authorization"), "Bearer collector-token-19c4");
        assert_eq!(received.header("x-project"), "collector-project-77e0");
        let text = format!("{:?}", export(&received));
        assert!(text.contains("\"edge\"") && text.contains("service.instance.id"), "{text}");
        let kept = ["jane@example.com", "binding-secret-77aa01", "endpoint-query-31b7", "idp.example.com"];
        for kept in kept.into_iter().chain([subscription.secret.as_str(), &acme.key, Seed::Set.secret()]) {
            assert!(!text.contains(kept), "`{kept}` is not sent to the collector: {text}");
        }
    }
    let log = host.log();
    assert!(!log.contains("collector-token") && !log.contains("collector-project"), "{log}");
}

#[tokio::test]
async fn invalid_traceparent_starts_a_new_trace() {
    let authority = Authority::new();
    let collector = Receiver::start_tls(authority.issue("127.0.0.1").server(None)).await;
    // Accepted at the second attempt: retryable requests are retried.
    collector.answer([Reply::status(503)]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let more = format!("ca_files = [\"{}\"]", file.display());
    let World { host, source, receiver, .. } =
        &mut World::with().config(&sends_to(&collector, &more)).source("idp", Seed::Open).start().await;

    let none = format!("00-{}-{SENDER}-01", "0".repeat(32));
    for (jti, headers) in [("one", vec![]), ("two", vec![("traceparent", none.as_str()), ("tracestate", STATE)])] {
        send(host, source, Seed::Open, jti, &headers).await;
    }
    // If the sender does not sample, neither does the host, and it passes the trace context on unchanged.
    let unsampled = format!("00-{TRACE}-{SENDER}-00");
    send(host, source, Seed::Open, "three", &[("traceparent", unsampled.as_str()), ("tracestate", STATE)]).await;
    let received = receiver.received(3).await;
    let attempts = named(&collector, "attempt", 2).await;
    let accepts = named(&collector, "accept", 2).await;
    for accept in &accepts {
        assert!(accept.parent_span_id.is_empty() && accept.trace_state.is_empty(), "it begins its trace: {accept:?}");
        assert_eq!((accept.trace_id.len(), accept.span_id.len()), (16, 8));
    }
    assert_ne!(accepts[0].trace_id, accepts[1].trace_id);
    for received in received {
        let [trace, span, flags] = parent(&received);
        if trace == TRACE {
            assert_eq!((span.as_str(), flags.as_str(), received.header("tracestate")), (SENDER, "00", STATE));
        } else {
            let attempt = attempts.iter().find(|attempt| hex::encode(&attempt.span_id) == span).expect("its attempt");
            assert_eq!((hex::encode(&attempt.trace_id), flags.as_str()), (trace, "01"));
            assert!(!received.headers.contains_key("tracestate"), "the event had no parent");
        }
    }
    let asked = collector.received(2).await;
    assert_eq!(asked[0].body, asked[1].body, "503, and then the same again");
    assert_eq!(host.metric("setgate_trace_spans_dropped_total", &[]).await, 0.0);
    host.terminate().await;
    assert!(spans(&collector).iter().all(|span| hex::encode(&span.trace_id) != TRACE));
}

#[tokio::test]
async fn pending_spans_are_sent_at_shutdown() {
    let collector = Receiver::start().await;
    let World { host, acme, source, subscription, .. } =
        &mut World::with().config(&sends_to(&collector, "")).source("idp", Seed::Open).start().await;
    let accepted = source.accept(event::set("one")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    assert!(host.terminate().await.success());
    let names: Vec<_> = spans(&collector).into_iter().map(|span| span.name).collect();
    for name in ["accept", "fan-out", "sign", "attempt"] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
}

#[tokio::test]
async fn rejected_spans_are_counted() {
    let collector = Receiver::start().await;
    let rejects_one = |_: &Received| {
        let part = ExportTracePartialSuccess { rejected_spans: 1, error_message: "too odd".into() };
        let answer = ExportTraceServiceResponse { partial_success: Some(part) };
        String::from_utf8(answer.encode_to_vec()).expect("small numbers and ASCII")
    };
    collector.answer([Reply::status(200).body(rejects_one)]);
    let Ingest { host, source, .. } =
        &World::with().config(&sends_to(&collector, "")).source("idp", Seed::Open).start_ingest().await;
    // No subscription matches its events, so there are only acceptance and fan-out.
    source.accept(event::set("one")).await;
    let count =
        async |reason: &str| host.metric("setgate_trace_spans_dropped_total", &[&format!("reason=\"{reason}\"")]).await;
    let sent = async || host.metric("setgate_trace_spans_sent_total", &[]).await;
    until("one of two is sent", async || (sent().await == 1.0 && count("rejected").await == 1.0).then_some(())).await;
    let told = host.last_logged(0, &["collector of traces"]).expect("it is logged");
    assert!(told.contains("too odd") && told.contains("rejected 1 of"), "{told}");
    // A permanent failure is not retried.
    collector.otherwise(Reply::status(400));
    let before = collector.count();
    source.accept(event::set("two")).await;
    until("two are dropped", async || (count("collector").await == 2.0).then_some(())).await;
    assert!(collector.count() <= before + 2, "each once");
    assert_eq!(sent().await, 1.0);
}

#[tokio::test]
async fn traceparent_is_forwarded_without_a_collector() {
    let World { host, source, receiver, .. } = &World::with().source("idp", Seed::Open).start().await;
    let sent = format!("00-{TRACE}-{SENDER}-01");
    send(host, source, Seed::Open, "one", &[("traceparent", &sent), ("tracestate", STATE)]).await;
    let first = receiver.received(1).await.remove(0);
    assert_eq!((first.header("traceparent"), first.header("tracestate")), (sent.as_str(), STATE));
    for (count, jti, headers) in [
        (2, "two", vec![]),
        (3, "three", vec![("traceparent", "00-no-trace-01"), ("tracestate", STATE)]),
        (4, "four", vec![("traceparent", sent.as_str()), ("traceparent", sent.as_str())]),
    ] {
        send(host, source, Seed::Open, jti, &headers).await;
        let headers = receiver.received(count).await.remove(count - 1).headers;
        assert!(!headers.contains_key("traceparent") && !headers.contains_key("tracestate"), "{jti}: {headers:?}");
    }
    assert_eq!(host.metric("setgate_trace_spans_sent_total", &[]).await, 0.0);
}

#[tokio::test]
async fn absent_collector_delays_nothing() {
    // Nothing listens on port 1, and no other story can start to.
    let config = "[traces]\nendpoint = \"http://127.0.0.1:1\"";
    let began = Instant::now();
    let World { host, acme, source, subscription, .. } =
        &mut World::with().config(config).source("idp", Seed::Open).start().await;
    for number in 0..8 {
        let accepted = source.accept(event::set(&number.to_string())).await;
        acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    }
    assert_eq!(host.metric("setgate_trace_spans_sent_total", &[]).await, 0.0);
    until("it is logged", async || host.last_logged(0, &["collector of traces does not take spans"])).await;
    assert!(host.terminate().await.success(), "{}", host.log());
    host.read_to_the_end().await;
    let log = host.log();
    let told = log.lines().filter(|line| line.contains("does not take spans")).count() as u64;
    assert!(told <= 1 + began.elapsed().as_secs() / 60, "{told} times: {log}");
}

#[tokio::test]
async fn hanging_collector_delays_nothing() {
    let collector = Receiver::start().await;
    collector.otherwise(Reply::hang());
    let World { host, acme, source, subscription, .. } =
        &mut World::with().config(&sends_to(&collector, "")).source("idp", Seed::Open).start().await;
    source.accept(event::set("one")).await;
    collector.received(1).await;
    let accepted = source.accept(event::set("two")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    assert!(host.terminate().await.success(), "{}", host.log());
    host.read_to_the_end().await;
    let told = host.last_logged(0, &["the last spans were not sent"]).expect("it is logged");
    assert!(told.contains("within 5000 ms"), "{told}");
}
