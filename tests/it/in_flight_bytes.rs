//! Bytes of deliveries in flight: each tenant has a share, and a delivery that does not fit waits without an attempt.

use serde_json::{Value, json};
use setgate_tests::{Host, Ingest, Receiver, Reply, Seed, World, event};

use crate::shares::bulky;

/// Memory is scarce, slots are not. An event of [`bulky`] needs about 60 kB: two fit into half of a share, which one endpoint
/// may use, and five into a share.
#[tokio::test]
async fn hanging_deliveries_leave_bytes_for_other_tenants() {
    let config = "[delivery]\nin_flight_bytes_max = 1280000\n\
        breaker_failures_max = 0\n[egress]\nhead_ms_max = 600000\nresponse_ms_max = 600000\n";
    let host = Host::with().config(config).start().await;
    let hang = host.tenant("hang").await;
    let source = hang.source("open", Seed::Open).await;
    let mut hanging = Vec::new();
    for _ in 0..3 {
        let receiver = Receiver::start().await;
        receiver.otherwise(Reply::hang());
        hanging.push((hang.subscribe(&receiver).create().await, receiver));
    }
    let mut accepted = Vec::new();
    for number in 0..6 {
        accepted.push(source.accept(bulky(&format!("large-{number}"))).await);
    }
    let arrived = || hanging.iter().map(|(_, receiver)| receiver.count()).sum::<usize>();
    setgate_tests::until("the share is used up", async || (arrived() >= 5).then_some(())).await;

    let calm = host.tenant("calm").await;
    let source = calm.source("open", Seed::Open).await;
    let receiver = Receiver::start().await;
    let subscription = calm.subscribe(&receiver).create().await;
    // The last event is larger than the share.
    let mut large: Value = serde_json::from_str(&event::set("huge")).expect("a SET is JSON");
    large["padding"] = "x".repeat(200_000).into();
    let small = (0..20).map(|number| event::set(&format!("calm-{number}")));
    for body in small.chain([large.to_string()]) {
        let id = subscription.delivery_of(&source.accept(body).await);
        let delivered = calm.delivery_in("delivered", &id).await;
        assert_eq!(delivered["attempt_count"], 1);
    }
    assert_eq!(arrived(), 5, "18 are due, and each endpoint has 16 places");
    let bytes = host.metric("setgate_deliveries_in_flight_bytes", &[]).await;
    assert!((250_000.0..320_000.0).contains(&bytes), "{bytes}");

    // Waiting deliveries made no attempt, and start when memory is free.
    hanging.iter().for_each(|(_, receiver)| receiver.release());
    for (subscription, _) in &hanging {
        for event in &accepted {
            let delivered = hang.delivery_in("delivered", &subscription.delivery_of(event)).await;
            assert_eq!(delivered["attempt_count"], 1, "{delivered}");
        }
    }
}

#[tokio::test]
async fn filter_output_is_counted() {
    let config = "[delivery]\nin_flight_bytes_max = 480000\n[egress]\nhead_ms_max = 600000\n\
        response_ms_max = 600000\n";
    let Ingest { acme, source, .. } = &World::with().config(config).source("idp", Seed::Wso2).start_ingest().await;
    acme.filter("enrich-from-table").await;
    acme.table("apps", &[("a1", json!({"notes": "x".repeat(50_000)}))]).await;
    acme.table("organizations", &[]).await;
    let receiver = Receiver::start().await;
    receiver.otherwise(Reply::hang());
    let chain = json!([{"filter": "enrich-from-table", "grants": ["config", "lookup"]}]);
    let subscription = acme.subscribe(&receiver).chain(chain).create().await;
    let mut accepted = Vec::new();
    for number in 0..3 {
        accepted.push(subscription.delivery_of(&source.accept(event::wso2(&format!("e{number}"))).await));
    }
    receiver.received(1).await;
    // All three fit as accepted, so each has run its filter, and the result is stored.
    for id in &accepted {
        setgate_tests::until("its filter has run", async || {
            let shown = acme.get(&format!("/deliveries/{id}")).await;
            shown["runs"][0].is_object().then_some(())
        })
        .await;
    }
    assert_eq!(receiver.count(), 1, "an endpoint has half of the share: room for one of some 55 kB");
    receiver.release();
    for id in &accepted {
        let delivered = acme.delivery_in("delivered", id).await;
        assert_eq!((&delivered["attempt_count"], delivered["runs"].as_array().map(Vec::len)), (&json!(1), Some(1)));
    }
    assert_eq!(receiver.count(), 3);
}
