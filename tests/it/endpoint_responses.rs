//! Unusual answers to deliveries, as real receivers give them: cut short, oddly formatted, or refused below HTTP; and
//! their interpretation.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use setgate_tests::frames::code;
use setgate_tests::{
    Authority, Ends, Frames, Ingest, Manner, Rude, Source, Subscription, Tenant, Treats, World, event, until,
};

use crate::receivers::{SHORT_WAITS, assert_failed};

/// An event id that has not been used before.
fn another() -> String {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    format!("event {}", MADE.fetch_add(1, Ordering::SeqCst))
}

/// Sends one event, waits for this state, and returns the only attempt of its delivery.
async fn tried_once(acme: &Tenant, source: &Source, subscription: &Subscription, state: &str) -> Value {
    let id = subscription.delivery_of(&source.accept(event::set(&another())).await);
    let delivery = acme.delivery_in(state, &id).await;
    assert_eq!(delivery["attempt_count"], 1, "{delivery}");
    delivery["attempts"][0]["outcome"].clone()
}

#[tokio::test]
async fn status_decides_if_the_body_is_cut_short() {
    let Ingest { acme, source, .. } = &World::with().config(SHORT_WAITS).start_ingest().await;
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf.";
    let chunked = "HTTP/1.1 202 X\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for (manner, status) in [
        (Manner::Says(cut, Ends::Close), 200),
        (Manner::Says(cut, Ends::Reset), 200),
        (Manner::Says(cut, Ends::Not), 200),
        (Manner::Says(chunked, Ends::Close), 202),
        (Manner::Says(chunked, Ends::Reset), 202),
        (Manner::Says("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n", Ends::Not), 200),
        (Manner::Says("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nbad", Ends::Close), 200),
        (Manner::Reset, 200),
        (Manner::HangInBody, 200),
        (Manner::TrickleBody, 200),
    ] {
        let receiver = Rude::start([manner]).await;
        let subscription = acme.subscribe_url(&receiver.url()).retry(&[]).create().await;
        let outcome = tried_once(acme, source, &subscription, "delivered").await;
        assert_eq!(outcome["status"], status, "{manner:?}: {outcome}");
        let why = outcome["body_incomplete"].as_str().unwrap_or_default();
        assert!(!why.is_empty(), "that the body was incomplete is recorded: {manner:?}: {outcome}");
        if matches!(manner, Manner::HangInBody | Manner::TrickleBody) {
            assert!(why.contains("did not end within 2500 ms"), "{outcome}");
            receiver.hung_up(1).await;
        }
        acme.client.delete(&subscription.path("")).await.expect(204);
    }
}

#[tokio::test]
async fn complete_body_is_not_marked_incomplete() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    for (answer, ends) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Ends::Not),
        ("HTTP/1.0 200 OK\r\n\r\nok", Ends::Close),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Ends::Not),
        ("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nok", Ends::Not),
    ] {
        let receiver = Rude::start([Manner::Says(answer, ends)]).await;
        let subscription = acme.subscribe_url(&receiver.url()).retry(&[]).create().await;
        let outcome = tried_once(acme, source, &subscription, "delivered").await;
        assert_eq!((&outcome["body_incomplete"], &outcome["body_head"]), (&Value::Null, &json!("ok")), "{outcome}");
        acme.client.delete(&subscription.path("")).await.expect(204);
    }
}

#[tokio::test]
async fn tls_close_without_close_notify_is_an_answer() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let authority = Authority::new();
    // As sent by Python's `http.server`.
    let answer = "HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\nContent-type: text/plain\r\n\r\nok";
    let receiver = Rude::start_tls(&authority.issue("127.0.0.1"), [Manner::Says(answer, Ends::Close); 3]).await;
    let endpoint = json!({"url": receiver.url(), "tls": {"ca_pem": authority.pem()}});
    let subscription = acme.subscribe_url(&receiver.url()).with("endpoint", endpoint).retry(&[]).create().await;
    for _ in 0..3 {
        let outcome = tried_once(acme, source, &subscription, "delivered").await;
        assert!(outcome["body_incomplete"].as_str().unwrap_or_default().contains("close_notify"), "{outcome}");
    }
    assert_eq!(receiver.requests(), 3);
}

#[tokio::test]
async fn head_is_honoured_without_the_body() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let gone = "HTTP/1.1 410 Gone\r\ncontent-length: 10\r\n\r\nhalf.";
    let abort = "HTTP/1.1 400 No\r\nwebhook-delivery: abort\r\ntransfer-encoding: chunked\r\n\r\n4\r\nha";
    for (answer, reason) in [(gone, "410 Gone"), (abort, "abort")] {
        for ends in [Ends::Close, Ends::Reset] {
            let receiver = Rude::start([Manner::Says(answer, ends)]).await;
            let subscription = acme.subscribe_url(&receiver.url()).retry(&[1, 1]).create().await;
            let id = subscription.delivery_of(&source.accept(event::set(&another())).await);
            let dead = acme.delivery_in("dead", &id).await;
            assert!(dead["reason"].as_str().unwrap_or_default().contains(reason), "{dead}");
            if answer == gone {
                until("the subscription is paused", async || {
                    (subscription.show().await["paused"]["cause"] == "gone").then_some(())
                })
                .await;
            }
            acme.client.delete(&subscription.path("")).await.expect(204);
        }
    }
    let later = "HTTP/1.1 503 Later\r\nretry-after: 3600\r\ncontent-length: 10\r\n\r\nhalf.";
    let receiver = Rude::start([Manner::Says(later, Ends::Reset)]).await;
    let subscription = acme.subscribe_url(&receiver.url()).retry(&[1, 1]).create().await;
    let id = subscription.delivery_of(&source.accept(event::set(&another())).await);
    until("its attempt is recorded", async || {
        let delivery = acme.client.get(&acme.path(&format!("/deliveries/{id}"))).await;
        let delivery = (delivery.status == 200).then(|| delivery.json())?;
        (delivery["attempts"][0]["outcome"]["retry_after_s"] == 3600).then_some(())
    })
    .await;
}

#[tokio::test]
async fn early_response_counts() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    for (answer, status, state) in [
        ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", 200, "delivered"),
        ("HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno", 413, "dead"),
    ] {
        let receiver = Rude::start([Manner::Interrupts(answer)]).await;
        let subscription = acme.subscribe_url(&receiver.url()).retry(&[]).create().await;
        let outcome = tried_once(acme, source, &subscription, state).await;
        assert_eq!(outcome["status"], status, "{outcome}");
        acme.client.delete(&subscription.path("")).await.expect(204);
    }
}

#[tokio::test]
async fn challenge_needs_a_complete_response() {
    let Ingest { acme, .. } = &Ingest::start().await;
    let receiver = Rude::start([Manner::Says("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf", Ends::Close)]).await;
    let subscription = acme.subscribe_url(&receiver.url()).create().await;
    let answer = acme.client.post(&subscription.path("/verify"), &json!({})).await;
    assert_eq!(answer.not_the_problem(422, "endpoint_not_verified"), None);
    assert!(answer.text().contains("incomplete"), "{}", answer.text());
}

#[tokio::test]
async fn lenient_heads_are_accepted() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let many: String = (0..2_000).map(|nth| format!("x-{nth}: y\r\n")).collect();
    let many = format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n");
    for answer in [
        "HTTP/1.1 200 OK\r\nx-folded: one\r\n two\r\n\tthree\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-a : one\r\ncontent-length\t: 0\r\n\r\n",
        &*many.leak(),
        "HTTP/1.1 200 O\x01K\x1b[0m\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-a: one\x07\x0b\0two\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1  200  OK\r\ncontent-length: 0\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\ncontent-length: 0\n\n",
        "HTTP/1.1 200 OK\r\nno colon\r\nbad name: x\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0, 0\r\n\r\n",
    ] {
        let receiver = Rude::start([Manner::Says(answer, Ends::Close)]).await;
        let subscription = acme.subscribe_url(&receiver.url()).retry(&[]).create().await;
        let outcome = tried_once(acme, source, &subscription, "delivered").await;
        assert_eq!(outcome["status"], 200, "{answer:?}");
        acme.client.delete(&subscription.path("")).await.expect(204);
    }
}

#[tokio::test]
async fn unreadable_head_names_the_field_only() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let long = format!("HTTP/1.1 200 OK\r\nx-long: hush{}\r\n\r\n", "x".repeat(40_000));
    for (answer, words) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: hush\r\n\r\n", "`content-length`"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nhush", "`content-length`"),
        (&*long.leak(), "`x-long`"),
        ("HTTP/1.1 hush\r\n\r\n", "status line"),
        ("HTTP/1.1 200 OK\r\nx-cut: hush", "`x-cut`"),
    ] {
        let receiver = Rude::start([Manner::Says(answer, Ends::Close)]).await;
        let subscription = acme.subscribe_url(&receiver.url()).retry(&[]).create().await;
        let outcome = tried_once(acme, source, &subscription, "dead").await;
        assert_failed(&outcome, "broken", words);
        assert!(!outcome.to_string().contains("hush"), "{outcome}");
        acme.client.delete(&subscription.path("")).await.expect(204);
    }
}

/// A subscription to an HTTP/2 receiver that treats its first requests according to the script.
async fn to_frames(acme: &Tenant, script: &[Treats]) -> (Frames, Subscription) {
    let authority = Authority::new();
    let receiver = Frames::start(&authority.issue("127.0.0.1"), script.iter().copied()).await;
    let endpoint = json!({"url": receiver.url(), "tls": {"ca_pem": authority.pem()}});
    let subscription = acme.subscribe_url(&receiver.url()).with("endpoint", endpoint).retry(&[]).create().await;
    (receiver, subscription)
}

#[tokio::test]
async fn unprocessed_http2_stream_is_resent_at_once() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let refused = Treats::Resets(code::REFUSED_STREAM);
    for script in [
        vec![refused],
        vec![refused, refused, refused],
        vec![Treats::GoesAwayBefore(code::NO_ERROR)],
        vec![Treats::GoesAwayBefore(code::ENHANCE_YOUR_CALM)],
        vec![Treats::GoesAwayBefore(code::INTERNAL_ERROR), refused],
        // On a connection that has served requests before.
        vec![Treats::Well, refused],
        vec![Treats::Well, Treats::GoesAwayBefore(code::NO_ERROR)],
    ] {
        let (receiver, subscription) = to_frames(acme, &script).await;
        for _ in script.iter().take_while(|treats| **treats == Treats::Well) {
            tried_once(acme, source, &subscription, "delivered").await;
        }
        let outcome = tried_once(acme, source, &subscription, "delivered").await;
        assert_eq!(outcome["status"], 204, "{script:?}");
        let failures = script.iter().filter(|treats| **treats != Treats::Well).count();
        assert_eq!(receiver.treated().len(), script.len() + 1, "{script:?}");
        assert_eq!(receiver.connections(), failures + 1, "each time over a new connection: {script:?}");
        acme.client.delete(&subscription.path("")).await.expect(204);
    }
}

#[tokio::test]
async fn possibly_processed_request_is_not_resent() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    for treats in [
        Treats::Resets(code::CANCEL),
        Treats::Resets(code::INTERNAL_ERROR),
        Treats::Resets(code::ENHANCE_YOUR_CALM),
        Treats::GoesAwayAfter(code::NO_ERROR),
        Treats::GoesAwayAfter(code::INTERNAL_ERROR),
    ] {
        let (receiver, subscription) = to_frames(acme, &[treats]).await;
        let outcome = tried_once(acme, source, &subscription, "dead").await;
        assert_eq!(outcome["class"], "broken", "{treats:?}: {outcome}");
        assert_eq!(receiver.treated(), [treats]);
        acme.client.delete(&subscription.path("")).await.expect(204);
    }
}

#[tokio::test]
async fn endless_refusals_fail_the_attempt() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    let (receiver, subscription) = to_frames(acme, &[Treats::Resets(code::REFUSED_STREAM); 20]).await;
    let outcome = tried_once(acme, source, &subscription, "dead").await;
    assert_eq!(outcome["class"], "broken", "{outcome}");
    assert_eq!(receiver.treated().len(), 4, "once, and three times again");
}

#[tokio::test]
async fn stream_reset_after_the_head_is_an_answer() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    for code in [code::CANCEL, code::INTERNAL_ERROR, code::REFUSED_STREAM] {
        let (receiver, subscription) = to_frames(acme, &[Treats::ResetsInBody(code)]).await;
        let outcome = tried_once(acme, source, &subscription, "delivered").await;
        assert!(outcome["status"] == 200 && outcome["body_incomplete"].is_string(), "{outcome}");
        assert_eq!(receiver.treated().len(), 1);
        acme.client.delete(&subscription.path("")).await.expect(204);
    }
}

#[tokio::test]
async fn http_1_1_required_is_honoured() {
    let Ingest { acme, source, .. } = &Ingest::start().await;
    for treats in [Treats::Resets(code::HTTP_1_1_REQUIRED), Treats::GoesAwayBefore(code::HTTP_1_1_REQUIRED)] {
        let (receiver, subscription) = to_frames(acme, &[treats]).await;
        let outcome = tried_once(acme, source, &subscription, "delivered").await;
        assert_eq!((&outcome["status"], receiver.over_http1()), (&json!(204), 1), "{outcome}");
        acme.client.delete(&subscription.path("")).await.expect(204);
    }
}
