//! Reused instances: which calls get them, and when they end.

use futures_util::future::join_all;
use setgate_domain::id::SubscriptionId;

use super::determinism::{Inputs, guests};
use super::fairness::until;
use super::guests::{self as guest, CONFIG, WASI};
use super::*;

/// A filter that counts its events in a global, and runs `process` with the count in `$n`.
fn counting(process: &str) -> Bytes {
    guest::doing_with(COUNTER, counted(process))
}

const COUNTER: &str = r#"(global $n (mut i32) (i32.const 0)) (data (i32.const 1024) "1234567890")"#;

fn counted(process: &str) -> &'static str {
    format!("(global.set $n (i32.add (global.get $n) (i32.const 1))) {process}").leak()
}

/// Drops with a reason whose length is the count.
const TELL: &str = "(call $answer (i32.const 0) (i32.const 3) (i32.const 1024) (global.get $n))";

fn reuse(plan: u8, step: usize, events_max: u32) -> Option<ReuseSettings> {
    Some(ReuseSettings { plan: Digest([plan; 32]), step, events_max })
}

impl Fixture {
    /// A call of a binding that reuses instances.
    fn kept_call(&self, digest: Digest) -> Call {
        Call { reuse: reuse(1, 0, 100), ..self.call(digest) }
    }

    /// Processes one event and accepts its verdict. Returns how many events the instance has processed, according to
    /// [`TELL`] and to the run record.
    async fn seen(&self, call: Call) -> usize {
        let ran = self.sandbox.run(call).await;
        let Ok(Verdict::Drop(told)) = ran.verdict else { panic!("{ran:?}") };
        assert_eq!(
            ran.run.instance_events,
            u32::try_from(told.len()).ok(),
            "the record matches the guest's observation"
        );
        if let Some(used) = ran.used {
            used.release();
        }
        told.len()
    }

    fn kept(&self) -> usize {
        self.sandbox.0.host.idle_pool.len()
    }
}

#[tokio::test]
async fn instance_processes_up_to_events_max_events() {
    let fixture = Fixture::new();
    let digest = fixture.upload(counting(TELL)).await.unwrap().digest;
    for expected in [1, 2, 3, 1, 2, 3, 1] {
        let call = Call { reuse: reuse(1, 0, 3), ..fixture.call(digest) };
        assert_eq!(fixture.seen(call).await, expected);
    }
    for _ in 0..3 {
        let ran = fixture.sandbox.run(fixture.call(digest)).await;
        assert_eq!((ran.verdict, ran.run.instance_events), (Ok(Verdict::Drop("1".into())), None));
        assert!(ran.used.is_none());
    }
}

#[tokio::test]
async fn idle_instance_is_reused_only_for_its_binding() {
    let fixture = Fixture::with(|options| options.idle_pool.instances_per_tenant_max = 8);
    let digest = fixture.upload(counting(TELL)).await.unwrap().digest;
    let other_version = fixture.upload(counting(&format!("(nop) {TELL}"))).await.unwrap().digest;
    let changes: [fn(&mut Call); 5] = [
        |_| {},
        |call| call.event.tenant = "other".parse().unwrap(),
        |call| call.event.subscription = SubscriptionId::new(ACCEPTED_AT, 3),
        // A change of version, setting, secret, grant, limit or table results in another plan.
        |call| call.reuse = reuse(2, 0, 100),
        |call| call.reuse = reuse(1, 1, 100),
    ];
    for expected in 1..=3 {
        for change in &changes {
            let mut call = fixture.kept_call(digest);
            change(&mut call);
            assert_eq!(fixture.seen(call).await, expected);
        }
        assert_eq!(fixture.seen(fixture.kept_call(other_version)).await, expected);
    }
    assert_eq!(fixture.kept(), 6);
}

#[tokio::test]
async fn fault_ends_the_instance() {
    let mut fixture = Fixture::with(|options| options.fuel_slice = 100_000);
    fixture.quota.fuel_per_call = 2_000_000;
    fixture.quota.host_calls_max = 1;
    fixture.quota.output_bytes_max = 1_000;
    let second = |process: &str| format!("(if (i32.eq (global.get $n) (i32.const 2)) (then {process})) {TELL}");
    let grow = "(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable))";
    let refuse =
        |case: u32| format!("(return (call $answer (i32.const 1) (i32.const {case}) (i32.const 1024) (i32.const 3)))");
    let large = "(return (call $answer (i32.const 0) (i32.const 2) (i32.const 1024) (i32.const 1001)))";
    let plain = |process: &str| counting(&second(process));
    let asks = "(call $all (i32.const 512)) (call $all (i32.const 512))";
    let (refusal, postponed) = (refuse(1), refuse(0));
    for (kind, wasm) in [
        ("trap", plain("unreachable")),
        ("fuel", plain("(loop $again (br $again))")),
        ("memory", plain(grow)),
        ("output", plain(large)),
        ("permanent", plain(&refusal)),
        ("transient", plain(&postponed)),
        ("trap", WASI.doing(COUNTER, counted(&second("(call $exit (i32.const 0))")))),
        ("host_calls", CONFIG.doing(COUNTER, counted(&second(asks)))),
    ] {
        let digest = fixture.upload(wasm).await.unwrap().digest;
        assert_eq!(fixture.seen(fixture.kept_call(digest)).await, 1, "{kind}");
        assert_eq!(fixture.kept(), 1, "{kind}");
        let ran = fixture.sandbox.run(fixture.kept_call(digest)).await;
        assert_eq!(ran.verdict.unwrap_err().kind(), kind);
        assert_eq!((ran.run.instance_events, ran.used.is_none(), fixture.kept()), (Some(2), true, 0), "{kind}");
        assert_eq!(fixture.seen(fixture.kept_call(digest)).await, 1, "after {kind}");
        fixture.sandbox.retain_bindings(|_| false);
    }
    fixture.quota.fuel_per_call = u64::MAX / 2;
    fixture.quota.wall_ms_max = 50;
    let digest = fixture.upload(plain("(loop $again (br $again)) (nop)")).await.unwrap().digest;
    assert_eq!(fixture.seen(fixture.kept_call(digest)).await, 1);
    let late = fixture.sandbox.run(fixture.kept_call(digest)).await;
    assert_eq!((late.verdict, fixture.kept()), (Err(Fault::Wall { limit_ms: 50 }), 0));
    assert_eq!(fixture.seen(fixture.kept_call(digest)).await, 1, "after the deadline");
}

#[tokio::test]
async fn instance_is_reused_only_after_release() {
    let fixture = Fixture::new();
    let digest = fixture.upload(counting(TELL)).await.unwrap().digest;
    let first = fixture.sandbox.run(fixture.kept_call(digest)).await;
    let second = fixture.sandbox.run(fixture.kept_call(digest)).await;
    assert_eq!(second.run.instance_events, Some(1), "the first verdict is not accepted yet");
    assert_eq!(fixture.kept(), 2);
    drop(first);
    assert_eq!(fixture.kept(), 1, "its verdict was rejected");
    second.used.unwrap().release();
    assert_eq!(fixture.seen(fixture.kept_call(digest)).await, 2);
}

#[tokio::test]
async fn instance_runs_one_call_at_a_time() {
    let fixture = Fixture::with(|options| options.idle_pool.instances_per_tenant_max = 8);
    let digest = fixture.upload(counting(TELL)).await.unwrap().digest;
    fixture.seen(fixture.kept_call(digest)).await;
    let together: Vec<_> = join_all((0..6).map(|_| fixture.sandbox.run(fixture.kept_call(digest)))).await;
    let mut events: Vec<_> = together.iter().map(|ran| ran.run.instance_events).collect();
    events.sort();
    assert_eq!(events, [Some(1), Some(1), Some(1), Some(1), Some(1), Some(2)]);
}

#[tokio::test]
async fn reused_instance_sees_only_current_call_state() {
    let fixture = Fixture::new();
    // The two differ in everything that a call can observe or use.
    let one = Inputs {
        accepted_at: 1_000,
        event: 1,
        claims: "first".into(),
        config: r#"{"a":"one"}"#.into(),
        row: Some("row one".into()),
    };
    let two = Inputs {
        accepted_at: 2_000,
        event: 2,
        claims: "second, and longer".into(),
        config: r#"{"a":"number two"}"#.into(),
        row: Some("the row of two".into()),
    };
    let mut reused = Vec::new();
    for (name, wasm) in guests() {
        let digest = fixture.upload(wasm).await.unwrap_or_else(|why| panic!("{name}: {why}")).digest;
        let fresh = fixture.sandbox.run(two.call(&fixture, digest)).await;
        let first = fixture.sandbox.run(Call { reuse: reuse(1, 0, 9), ..one.call(&fixture, digest) }).await;
        let Some(used) = first.used else { continue };
        used.release();
        let tables = two.call(&fixture, digest).tables;
        let seen_tables = Arc::downgrade(&tables);
        let call = Call { reuse: reuse(1, 0, 9), tables, ..two.call(&fixture, digest) };
        let second = fixture.sandbox.run(call).await;
        assert_eq!(second.run.instance_events, Some(2), "{name}");
        assert_eq!((&second.verdict, &second.run.log), (&fresh.verdict, &fresh.run.log), "{name}");
        assert!(second.run.fuel <= fresh.run.fuel, "{name}: only starting costs more");
        assert!(seen_tables.upgrade().is_none(), "{name}: what waits holds no tables");
        fixture.sandbox.retain_bindings(|_| false);
        reused.push(name);
    }
    assert_eq!(
        reused,
        ["claims", "drop", "log", "config", "lookup", "random bytes", "chance", "memory", "not a number"]
    );
}

#[tokio::test]
async fn fuel_and_log_are_per_call_memory_per_instance() {
    let mut fixture = Fixture::new();
    // One call takes more than half of each limit.
    fixture.quota.fuel_per_call = 150_000;
    fixture.quota.host_calls_max = 1;
    let burn = "(local $i i32)
      (loop $again (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 15000))))
      (call $all (i32.const 512)) (drop (memory.grow (i32.const 4)))";
    // The memory belongs to another module and has 16 pages.
    let wasm = CONFIG.doing(
        r#"(data (i32.const 1024) "1")"#,
        format!("{burn} (call $answer (i32.const 0) (i32.const 3) (i32.const 1024) (i32.const 1))").leak(),
    );
    let digest = fixture.upload(wasm).await.unwrap().digest;
    fixture.quota.memory_bytes_max = 30 << 16;
    for (event, pages) in [(1, 20), (2, 24), (3, 28), (4, 28)] {
        let ran = fixture.sandbox.run(fixture.kept_call(digest)).await;
        assert_eq!((ran.run.instance_events, ran.run.memory_bytes), (Some(event), pages << 16));
        assert_eq!(ran.verdict, Ok(Verdict::Drop("1".into())), "event {event}");
        assert!((75_000..150_000).contains(&ran.run.fuel), "{}", ran.run.fuel);
        ran.used.unwrap().release();
    }
}

#[tokio::test]
async fn idle_instance_holds_no_secrets() {
    let fixture = Fixture::new();
    let digest = fixture.upload(counting(TELL)).await.unwrap().digest;
    let secret = || BTreeMap::from([("salt".to_owned(), Secret::new("hunter2".to_owned()))]);
    let call = || Call { secrets: secret(), ..fixture.kept_call(digest) };
    fixture.seen(call()).await;
    let (bound, _) = fixture.sandbox.0.host.idle_pool.binding_key(&call()).unwrap();
    let mut instance = fixture.sandbox.0.host.idle_pool.take(&bound).unwrap();
    assert!(instance.state().config.secrets.is_empty() && instance.state().config.text.as_ref() == "{}");
}

#[tokio::test]
async fn host_events_max_caps_binding() {
    let fixture = Fixture::with(|options| options.idle_pool.events_max = 2);
    let digest = fixture.upload(counting(TELL)).await.unwrap().digest;
    for expected in [1, 2, 1, 2] {
        assert_eq!(fixture.seen(fixture.kept_call(digest)).await, expected);
    }
    let offs: [fn(&mut IdlePoolLimits); 3] =
        [|kept| kept.events_max = 1, |kept| kept.instances_max = 0, |kept| kept.instances_per_tenant_max = 0];
    for off in offs {
        let fixture = Fixture::with(|options| off(&mut options.idle_pool));
        let digest = fixture.upload(counting(TELL)).await.unwrap().digest;
        for _ in 0..2 {
            let ran = fixture.sandbox.run(fixture.kept_call(digest)).await;
            assert_eq!((ran.verdict, ran.run.instance_events), (Ok(Verdict::Drop("1".into())), None));
        }
    }
}

/// Processes one event for each of these bindings, identified by tenant and plan. Then returns the counts that further
/// events get, for the last binding first.
async fn after_one_each(fixture: &Fixture, bindings: &[(&str, u8)]) -> Vec<usize> {
    let digest = fixture.upload(counting(TELL)).await.unwrap().digest;
    let call = |(tenant, plan): (&str, u8)| {
        let mut call = Call { reuse: reuse(plan, 0, 100), ..fixture.call(digest) };
        call.event.tenant = tenant.parse().unwrap();
        call
    };
    for binding in bindings {
        assert_eq!(fixture.seen(call(*binding)).await, 1);
    }
    let mut found = Vec::new();
    for binding in bindings.iter().rev() {
        found.push(fixture.seen(call(*binding)).await);
    }
    found.reverse();
    found
}

#[tokio::test]
async fn idle_instances_are_limited() {
    let three = [("a", 1), ("b", 1), ("c", 1)];
    let fixture = Fixture::with(|options| options.idle_pool.instances_max = 2);
    assert_eq!(after_one_each(&fixture, &three).await, [1, 2, 2], "the first was least recently used");
    assert_eq!(fixture.kept(), 2);
}

#[tokio::test]
async fn idle_instances_per_tenant_are_limited() {
    let of_two = [("a", 1), ("b", 1), ("a", 2), ("a", 3)];
    let fixture = Fixture::with(|options| options.idle_pool.instances_per_tenant_max = 2);
    assert_eq!(after_one_each(&fixture, &of_two).await, [1, 2, 2, 2], "no other tenant's instance was evicted");
    assert_eq!(fixture.kept(), 3);
}

#[tokio::test]
async fn idle_instance_memory_is_limited() {
    let three = [("a", 1), ("b", 1), ("c", 1)];
    let fixture = Fixture::with(|options| options.idle_pool.memory_bytes_max = 2 << 16);
    assert_eq!(after_one_each(&fixture, &three).await, [1, 2, 2], "each has one page");
    let fixture = Fixture::with(|options| options.idle_pool.memory_bytes_max = (1 << 16) - 1);
    assert_eq!(after_one_each(&fixture, &three).await, [1, 1, 1], "a single one is too large");
    assert_eq!(fixture.kept(), 0);
}

#[tokio::test]
async fn unused_instance_is_evicted_after_idle_ms_max() {
    let fixture = Fixture::with(|options| options.idle_pool.idle_ms_max = 100);
    let digest = fixture.upload(counting(TELL)).await.unwrap().digest;
    let began = Instant::now();
    fixture.seen(fixture.kept_call(digest)).await;
    until(|| fixture.kept() == 0).await;
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
    assert_eq!(fixture.seen(fixture.kept_call(digest)).await, 1);
    // Repeat, to check that the sweep continues after the pool was empty.
    until(|| fixture.kept() == 0).await;
}

#[tokio::test]
async fn call_evicts_idle_instance_for_its_slot() {
    let fixture = Fixture::with(|options| options.instances_max = 2);
    let digest = fixture.upload(counting(TELL)).await.unwrap().digest;
    for plan in [1, 2] {
        let call = Call { reuse: reuse(plan, 0, 100), ..fixture.call(digest) };
        assert_eq!(fixture.seen(call).await, 1);
    }
    assert_eq!(fixture.kept(), 2, "the pool is full of idle instances");
    let mut other = fixture.call(digest);
    other.event.tenant = "other".parse().unwrap();
    let ran = fixture.sandbox.run(other).await;
    assert_eq!(ran.verdict, Ok(Verdict::Drop("1".into())));
    assert_eq!(fixture.kept(), 1);
    assert_eq!(
        fixture.seen(Call { reuse: reuse(2, 0, 100), ..fixture.call(digest) }).await,
        2,
        "the older one was evicted"
    );
    // An upload needs a slot too.
    assert_eq!(fixture.seen(Call { reuse: reuse(1, 0, 100), ..fixture.call(digest) }).await, 1);
    assert_eq!(fixture.kept(), 2);
    fixture.upload(guest::pass()).await.unwrap();
    assert_eq!(fixture.kept(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_calls_on_small_pool_all_complete() {
    let fixture = Fixture::with(|options| {
        options.instances_max = 3;
        options.idle_pool.instances_max = 3;
        options.idle_pool.instances_per_tenant_max = 2;
        options.idle_pool.idle_ms_max = 1;
        options.fuel_slice = 500;
    });
    let digest = fixture.upload(counting(TELL)).await.unwrap().digest;
    let calls = (0..600_u32).map(|n| {
        let mut call = fixture.call(digest);
        call.event.tenant = format!("t-{}", n % 3).parse().unwrap();
        // Every fourth call gets a fresh instance; some verdicts are rejected, some calls are cancelled.
        call.reuse = if n.is_multiple_of(4) { None } else { reuse((n % 5) as u8, 0, 7) };
        let sandbox = fixture.sandbox.clone();
        tokio::spawn(async move {
            let running = sandbox.run(call);
            if n.is_multiple_of(11) {
                let _given_up = tokio::time::timeout(Duration::from_micros(200), running).await;
                return;
            }
            let ran = running.await;
            assert!(matches!(ran.verdict, Ok(Verdict::Drop(_))), "{ran:?}");
            if let Some(used) = ran.used.filter(|_| !n.is_multiple_of(13)) {
                used.release();
            }
        })
    });
    let all = tokio::time::timeout(Duration::from_secs(60), join_all(calls.collect::<Vec<_>>())).await;
    all.expect("no call waits for ever").into_iter().for_each(|ended| ended.unwrap());
}

#[tokio::test]
async fn changed_binding_evicts_its_instances() {
    let fixture = Fixture::new();
    let digest = fixture.upload(counting(TELL)).await.unwrap().digest;
    for plan in [1, 2, 2] {
        fixture.seen(Call { reuse: reuse(plan, 0, 100), ..fixture.call(digest) }).await;
    }
    fixture.sandbox.retain_bindings(|bound| bound.plan == Digest([2; 32]));
    assert_eq!(fixture.kept(), 1);
    assert_eq!(fixture.seen(Call { reuse: reuse(2, 0, 100), ..fixture.call(digest) }).await, 3);
    assert_eq!(fixture.seen(fixture.kept_call(digest)).await, 1);
}

#[tokio::test]
async fn shutdown_evicts_all_instances() {
    let fixture = Fixture::new();
    let digest = fixture.upload(counting(TELL)).await.unwrap().digest;
    fixture.seen(fixture.kept_call(digest)).await;
    let late = fixture.sandbox.run(fixture.kept_call(digest)).await;
    fixture.sandbox.shutdown();
    assert_eq!(fixture.kept(), 0);
    late.used.unwrap().release();
    assert_eq!(fixture.kept(), 0);
}
