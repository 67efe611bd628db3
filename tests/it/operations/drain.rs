//! Taking a host out of service: first load balancers are notified, then the listeners are closed.

use setgate_tests::{World, event, until};

#[tokio::test]
async fn stopping_host_is_unready_but_accepts_events() {
    // Longer than the story takes; a second signal ends it.
    let World { host, acme, source, receiver, subscription } =
        &mut World::with().env("SETGATE_LISTEN__SHUTDOWN_DELAY_MS", "600000").start().await;
    host.operator().get("/readyz").await.expect(200);

    host.tell_to_stop().await;
    until("the host is not ready any more", async || {
        let answer = host.operator().get("/readyz").await;
        (answer.not_the_problem(503, "not_ready").is_none()).then_some(())
    })
    .await;
    host.operator().get("/healthz").await.expect(200);
    let accepted = source.accept(event::set("one")).await;
    acme.delivery_in("delivered", &subscription.delivery_of(&accepted)).await;
    assert_eq!(receiver.count(), 1);

    host.tell_to_stop().await;
    assert_eq!(host.ended().await.code(), Some(0), "the second signal ends the wait:\n{}", host.log());
}
