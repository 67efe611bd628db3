//! Fairness: tenants with excessive load, and the effect on other tenants.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn call_of(fixture: &Fixture, tenant: &str, digest: Digest) -> Call {
    let mut call = fixture.call(digest);
    call.event.tenant = tenant.parse().unwrap();
    call
}

#[tokio::test]
async fn short_call_waits_one_slice_per_looping_tenant() {
    let mut fixture = Fixture::with(|options| options.concurrent_slices_max = 1);
    let pass = fixture.upload(guests::pass()).await.unwrap().digest;
    let endless = fixture.upload(guests::endless()).await.unwrap().digest;
    fixture.quota.fuel_per_call = u64::MAX / 2;
    fixture.quota.wall_ms_max = 3_600_000;
    let loops: Vec<_> = ["first", "second", "first", "second", "first", "second"]
        .into_iter()
        .map(|tenant| {
            let (sandbox, call) = (fixture.sandbox.clone(), call_of(&fixture, tenant, endless));
            tokio::spawn(async move { sandbox.run(call).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut waits = 0;
    for n in 0..20 {
        // A new tenant each time: a tenant that ran before may have to wait for the cost of its last slice.
        let (ran, waited) = fixture.sandbox.0.run(call_of(&fixture, &format!("new-{n}"), pass)).await;
        assert_eq!(ran.verdict, Ok(Verdict::Pass));
        assert_eq!(waited.turns.slices, 1);
        assert!(waited.turns.behind <= 2, "{waited:?}");
        waits += u32::from(!waited.turns.waited.is_zero());
    }
    assert!(waits > 0, "six loops occupy the only turn");
    for endless in &loops {
        assert!(!endless.is_finished());
        endless.abort();
    }
}

#[tokio::test]
async fn call_runs_in_fuel_slices() {
    let mut fixture = Fixture::with(|options| options.fuel_slice = 10_000);
    let endless = fixture.upload(guests::endless()).await.unwrap().digest;
    fixture.quota.fuel_per_call = 1_000_000;
    let (ran, waited) = fixture.sandbox.0.run(fixture.call(endless)).await;
    assert_eq!(ran.verdict, Err(Fault::Fuel { limit: 1_000_000, function: own("process") }));
    assert!((95..=105).contains(&waited.turns.slices), "{waited:?}");
}

#[tokio::test]
async fn exhausted_budget_delays_without_fault() {
    let mut fixture = Fixture::new();
    let pass = fixture.upload(guests::pass()).await.unwrap().digest;
    let endless = fixture.upload(guests::endless()).await.unwrap().digest;
    // A debt of three million at one fuel per second takes more than a month.
    fixture.quota.fuel_per_call = 3_000_000;
    fixture.quota.fuel_per_second = 1;
    let (ran, waited) = fixture.sandbox.0.run(fixture.call(endless)).await;
    assert_eq!(ran.verdict, Err(Fault::Fuel { limit: 3_000_000, function: own("process") }));
    assert_eq!(waited.budget, Duration::ZERO);

    let mut late = Box::pin(fixture.sandbox.0.run(fixture.call(pass)));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut late).await.is_err());
    let (other, waited) = fixture.sandbox.0.run(call_of(&fixture, "other", pass)).await;
    assert_eq!(other.verdict, Ok(Verdict::Pass), "another tenant has its own budget");
    assert_eq!(waited.budget, Duration::ZERO);

    // The operator raises the quota, and the waiting call continues.
    fixture.quota.fuel_per_second = 1_000_000_000;
    let raised = fixture.sandbox.0.run(fixture.call(pass));
    let ((late, waited), (raised, _)) = tokio::join!(late, raised);
    assert_eq!((late.verdict, raised.verdict), (Ok(Verdict::Pass), Ok(Verdict::Pass)));
    assert!(waited.budget >= Duration::from_millis(50), "{waited:?}");
}

#[tokio::test]
async fn cancelled_call_is_charged_used_fuel() {
    let mut fixture = Fixture::new();
    let endless = fixture.upload(guests::endless()).await.unwrap().digest;
    fixture.quota.fuel_per_call = u64::MAX / 2;
    fixture.quota.fuel_per_second = 1;
    fixture.quota.wall_ms_max = 3_600_000;
    let left = tokio::time::timeout(Duration::from_millis(200), fixture.sandbox.run(fixture.call(endless))).await;
    assert!(left.is_err());
    assert!(fixture.sandbox.0.budgets.of(&"acme".parse().unwrap(), 1).is_exhausted());
}

#[tokio::test]
async fn full_pool_alternates_between_tenants() {
    let fixture = Fixture::with(|options| options.instances_max = 1);
    let order = Mutex::new(Vec::new());
    let (sandbox, quota, order_of) = (&fixture.sandbox.0, &fixture.quota, &order);
    let mut calls: Vec<_> = std::iter::repeat_n("flood", 20)
        .chain(["second", "third"])
        .map(|tenant| {
            Box::pin(async move {
                let admitted = sandbox.admit(&tenant.parse().unwrap(), quota, &mut WaitTimes::default()).await;
                order_of.lock().unwrap().push(tenant);
                drop(admitted.ok().unwrap());
            })
        })
        .collect();
    // The only slot is held while the calls queue up.
    let held = sandbox.slots.acquire(&"flood".parse().unwrap()).await.unwrap();
    for call in &mut calls {
        assert!(futures_util::poll!(call).is_pending());
    }
    drop(held);
    futures_util::future::join_all(calls).await;
    let order = order.into_inner().unwrap();
    assert_eq!(order.len(), 22);
    assert_eq!(order[..3], ["second", "third", "flood"], "{order:?}");
}

/// A sandbox whose compiler takes one component at a time and finds each of them invalid, but not before `let_go`.
struct SlowCompiler {
    fixture: Fixture,
    dir: tempfile::TempDir,
    fetched: Arc<AtomicBool>,
}

impl SlowCompiler {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("compiler");
        let script = r#"#!/bin/sh
            cat >/dev/null; d=$(dirname "$0"); : >"$d/began"
            while [ ! -e "$d/go" ]; do sleep 0.02; done
            echo no >&2; exit 3"#;
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let fetched = Arc::new(AtomicBool::new(false));
        let told = fetched.clone();
        let fixture = Fixture::with(|options| {
            options.compiler = Some(program);
            options.compiles_max = 1;
            options.compiles_queued_per_tenant_max = 1;
            options.component_source = Arc::new(move |_, _| {
                told.store(true, Ordering::SeqCst);
                Box::pin(std::future::ready(Some(guests::pass())))
            });
        });
        Self { fixture, dir, fetched }
    }

    fn uploads(&self, tenant: &str, wasm: Bytes) -> tokio::task::JoinHandle<Result<CompiledFilter, UploadError>> {
        let (sandbox, tenant, quota) =
            (self.fixture.sandbox.clone(), tenant.parse().unwrap(), self.fixture.quota.clone());
        tokio::spawn(async move { sandbox.compile(&tenant, wasm, &quota).await })
    }

    fn let_go(&self) {
        std::fs::write(self.dir.path().join("go"), "").unwrap();
    }
}

pub(super) async fn until(mut so: impl FnMut() -> bool) {
    while !so() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn upload_flood_is_refused_for_its_tenant_only() {
    let _one = compiling::ONE.lock().await;
    let slow = SlowCompiler::new();
    let compiles = &slow.fixture.sandbox.0.filters.compiles;
    let compiled = slow.uploads("flood", guests::doing("(i32.const 1)"));
    until(|| slow.dir.path().join("began").exists()).await;
    let waits = slow.uploads("flood", guests::doing("(i32.const 2)"));
    until(|| compiles.has_waiters()).await;

    let third = guests::doing("(i32.const 3)");
    let refused = slow.uploads("flood", third.clone()).await.unwrap();
    assert_eq!(refused, Err(UploadError::CompileQueue { limit: 1 }));
    let others = slow.uploads("other", third);
    // The filter of this event was not compiled yet.
    let event = slow.fixture.call(Digest(sha256(&guests::pass())));
    let sandbox = slow.fixture.sandbox.clone();
    let event = tokio::spawn(async move { sandbox.run(Call { filter: "cold".parse().unwrap(), ..event }).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!others.is_finished() && !event.is_finished() && !slow.fetched.load(Ordering::SeqCst));

    slow.let_go();
    for upload in [compiled, waits, others] {
        assert_eq!(upload.await.unwrap(), Err(UploadError::Invalid { detail: "no".into() }));
    }
    let Fault::Unavailable { detail } = event.await.unwrap().verdict.unwrap_err() else { panic!("not unavailable") };
    assert!(detail.ends_with("the component is invalid: no"), "{detail}");
}
