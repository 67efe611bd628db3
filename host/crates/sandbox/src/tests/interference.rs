//! Measurements for decision 0011, without assertions on time: the latency of a short call on an idle sandbox and next
//! to a tenant with endless loops, and the cost of a slice. `cargo test --workspace --lib -- --ignored --nocapture
//! sandbox::tests::interference`

use super::guests::{self, Guest};
use super::*;

/// Short calls in each measurement.
const CALLS: usize = 300;
/// Concurrent endless loops of the other tenant.
const LOOPS: usize = 32;

fn call_of(fixture: &Fixture, tenant: &str, digest: Digest) -> Call {
    let mut call = fixture.call(digest);
    call.event.tenant = tenant.parse().unwrap();
    call
}

/// Latency of [`CALLS`] calls in microseconds, with a pause of a millisecond between them: the median and the 99th
/// percentile.
async fn latencies(fixture: &Fixture, digest: Digest) -> (u128, u128) {
    let mut took = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let began = Instant::now();
        assert_eq!(fixture.sandbox.run(call_of(fixture, "quiet", digest)).await.verdict, Ok(Verdict::Pass));
        took.push(began.elapsed().as_micros());
    }
    took.sort_unstable();
    (took[CALLS / 2], took[CALLS * 99 / 100])
}

fn of_this_machine(options: &mut Options) {
    let defaults = Options::new(PathBuf::new(), [0; 32], options.component_source.clone());
    options.concurrent_slices_max = defaults.concurrent_slices_max;
    options.guest_threads = defaults.guest_threads;
    options.instances_max = defaults.instances_max;
    options.instances_per_tenant_max = defaults.instances_per_tenant_max;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; asserts nothing"]
#[expect(clippy::print_stdout, reason = "figures for a person")]
async fn short_call_latency_beside_endless_loops() {
    let spin = "(local $n i32) (loop $again
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $n) (i32.const 30000))))
      (call $answer (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))";
    let fill =
        r#"(loop $again (memory.fill (i32.const 65536) (i32.const 7) (i32.const 30000000)) (br $again)) unreachable"#;
    let fill = Guest { memory: r#"(memory (export "memory") 500)"#, process: fill, ..Guest::default() }.wasm();
    for (what, bad) in [("loops", guests::endless()), ("fills of 30 MB", fill)] {
        for (name, good) in [("passes", guests::pass()), ("computes a little", guests::doing(spin))] {
            let fixture = Fixture::with(of_this_machine);
            let good = fixture.upload(good).await.unwrap().digest;
            let bad = fixture.upload(bad.clone()).await.unwrap().digest;
            let quiet = latencies(&fixture, good).await;
            let loops: Vec<_> = (0..LOOPS)
                .map(|_| {
                    let (sandbox, call) = (fixture.sandbox.clone(), call_of(&fixture, "busy", bad));
                    let again = move || Call {
                        digest: bad,
                        filter: call.filter.clone(),
                        event: call.event.clone(),
                        config: call.config.clone(),
                        secrets: BTreeMap::new(),
                        grants: call.grants.clone(),
                        tables: call.tables.clone(),
                        quota: call.quota.clone(),
                        reuse: None,
                    };
                    tokio::spawn(async move {
                        loop {
                            sandbox.run(again()).await;
                        }
                    })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(100)).await;
            let beside = latencies(&fixture, good).await;
            loops.iter().for_each(tokio::task::JoinHandle::abort);
            println!("a filter that {name}, p50/p99 in us: quiet {quiet:?}, beside {LOOPS} {what} {beside:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; asserts nothing"]
#[expect(clippy::print_stdout, reason = "figures for a person")]
async fn slice_cost() {
    for fuel_slice in [50_000_000, 1_000_000, 200_000, 100_000, 50_000, 20_000] {
        let fixture = Fixture::with(|options| options.fuel_slice = fuel_slice);
        let endless = fixture.upload(guests::endless()).await.unwrap().digest;
        let mut took = Vec::new();
        for _ in 0..15 {
            let ran = fixture.sandbox.run(fixture.call(endless)).await;
            took.push(ran.run.elapsed_us);
        }
        took.sort_unstable();
        println!("50,000,000 fuel in slices of {fuel_slice}: {} us (median of 15)", took[7]);
    }
}
