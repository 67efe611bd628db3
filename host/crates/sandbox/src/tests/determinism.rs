//! The same event, filter, settings and tables give the same bytes, fuel, memory and log: on two sandboxes with
//! different settings, after a restart, and for generated inputs.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use super::guests::{self, CONFIG, Guest, LOG, LOOKUP, WASI};
use super::*;

/// A filter whose `process` returns everything that WASI offers in randomness and time, as text.
fn chance() -> Bytes {
    let imports = r#"
(import "wasi:random/random@0.2.3" (instance $random (export "get-random-u64" (func (result u64)))))
(import "wasi:random/insecure@0.2.3" (instance $insecure (export "get-insecure-random-u64" (func (result u64)))))
(import "wasi:random/insecure-seed@0.2.3" (instance $seed (export "insecure-seed" (func (result (tuple u64 u64))))))
(import "wasi:clocks/monotonic-clock@0.2.3" (instance $mono (export "now" (func (result u64)))))
(core module $mem (memory (export "memory") 1))
(core instance $mem (instantiate $mem))
(core func $random (canon lower (func $random "get-random-u64")))
(core func $insecure (canon lower (func $insecure "get-insecure-random-u64")))
(core func $seed (canon lower (func $seed "insecure-seed") (memory (core memory $mem "memory"))))
(core func $now (canon lower (func $mono "now")))
(core instance $host (export "random" (func $random)) (export "insecure" (func $insecure))
  (export "seed" (func $seed)) (export "now" (func $now)) (export "memory" (memory $mem "memory")))"#;
    let core_imports = r#"
(import "host" "random" (func $random (result i64)))
(import "host" "insecure" (func $insecure (result i64)))
(import "host" "seed" (func $seed (param i32)))
(import "host" "now" (func $now (result i64)))
(import "host" "memory" (memory $memory 1))
(export "memory" (memory $memory))"#;
    // Six bits of each byte, as a printable character.
    let core = "(func $put (param $at i32) (param $x i64)
      (i64.store (local.get $at)
        (i64.or (i64.and (local.get $x) (i64.const 0x3f3f3f3f3f3f3f3f)) (i64.const 0x4040404040404040))))";
    let process = "
      (call $put (i32.const 1024) (call $random))
      (call $put (i32.const 1032) (call $insecure))
      (call $seed (i32.const 512))
      (call $put (i32.const 1040) (i64.load (i32.const 512)))
      (call $put (i32.const 1048) (i64.load (i32.const 520)))
      (call $put (i32.const 1056) (call $now))
      (call $put (i32.const 1064) (call $random))
      (call $answer (i32.const 0) (i32.const 2) (i32.const 1024) (i32.const 48))";
    let with = r#"(with "host" (instance $host))"#;
    Guest { imports, with, core_imports, memory: "", core, process, ..Guest::default() }.wasm()
}

/// Guests that return their input in different ways, and guests that fault.
pub(super) fn guests() -> Vec<(&'static str, Bytes)> {
    // The claims are the last two words of the event's record.
    let claims = "(i32.load (i32.add (local.get 0) (i32.const 84))) (i32.load (i32.add (local.get 0) (i32.const 88)))";
    let text = |process: String| -> &'static str { process.leak() };
    vec![
        ("claims", guests::doing(text(format!("(call $answer (i32.const 0) (i32.const 2) {claims})")))),
        ("drop", guests::doing(text(format!("(call $answer (i32.const 0) (i32.const 3) {claims})")))),
        ("refusal", guests::doing(text(format!("(call $answer (i32.const 1) (i32.const 1) {claims})")))),
        ("log", LOG.doing("", text(format!("(call $log (i32.const 1) {claims}) {}", guests::PASS)))),
        (
            "config",
            CONFIG.doing(
                "",
                "(call $all (i32.const 512))
                 (call $answer (i32.const 0) (i32.const 2) (i32.load (i32.const 512)) (i32.load (i32.const 516)))",
            ),
        ),
        (
            "lookup",
            LOOKUP.doing(
                r#"(data (i32.const 1024) "tk")"#,
                "(call $get (i32.const 1024) (i32.const 1) (i32.const 1025) (i32.const 1) (i32.const 512))
                 (call $answer (i32.const 0) (i32.const 2) (i32.load (i32.const 520)) (i32.load (i32.const 524)))",
            ),
        ),
        (
            "random bytes",
            WASI.doing(
                "",
                "(call $random (i64.const 300) (i32.const 600))
                 (i32.store8 (i32.const 65536) (i32.and (i32.load8_u (i32.const 65536)) (i32.const 127)))
                 (call $answer (i32.const 0) (i32.const 2) (i32.const 65536) (i32.const 1))",
            ),
        ),
        ("chance", chance()),
        (
            "memory",
            guests::doing(
                "(drop (memory.grow (i32.const 9))) (call $answer (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
            ),
        ),
        ("trap", guests::doing("unreachable")),
        ("recursion", guests::doing_with("(func $deep (call $deep))", "(call $deep) (i32.const 0)")),
        ("endless", guests::endless()),
        (
            "not a number",
            guests::doing(
                "(f64.store (i32.const 1024) (f64.div (f64.const 0) (f64.const -0)))
                 (i64.store (i32.const 1024) (i64.or (i64.const 0x4040404040404040)
                   (i64.and (i64.shr_u (i64.load (i32.const 1024)) (i64.const 2)) (i64.const 0x3f3f3f3f3f3f3f3f))))
                 (call $answer (i32.const 0) (i32.const 2) (i32.const 1024) (i32.const 8))",
            ),
        ),
    ]
}

/// The inputs that a call may depend on.
#[derive(Debug, Clone)]
pub(super) struct Inputs {
    pub(super) accepted_at: i64,
    pub(super) event: u128,
    pub(super) claims: String,
    pub(super) config: String,
    pub(super) row: Option<String>,
}

fn inputs() -> impl Strategy<Value = Inputs> {
    let row = proptest::option::of("\\PC{0,200}");
    (0..4_000_000_000_000_i64, any::<u128>(), "\\PC{0,300}", "[a-z]{0,100}", row).prop_map(
        |(accepted_at, event, claims, config, row)| Inputs {
            accepted_at,
            event,
            claims,
            config: format!(r#"{{"a":"{config}"}}"#),
            row,
        },
    )
}

impl Inputs {
    pub(super) fn call(&self, fixture: &Fixture, digest: Digest) -> Call {
        let mut call = fixture.call(digest);
        let at = Timestamp::from_millis(self.accepted_at);
        call.event.id = EventId::new(at, self.event);
        call.event.delivery.event = call.event.id;
        call.event.accepted_at = at;
        call.event.claims.clone_from(&self.claims);
        call.config = self.config.as_str().into();
        let rows = self.row.iter().map(|row| ("k".to_owned(), Arc::from(row.as_str()))).collect();
        call.tables = Arc::new(MemoryTables(BTreeMap::from([("t".to_owned(), rows)])));
        call.quota.fuel_per_call = 2_000_000;
        call.quota.wall_ms_max = 60_000;
        call
    }
}

#[test]
fn same_inputs_give_identical_results() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let guests = guests();
    let first = Fixture::new();
    // Settings of threads, slices and slots must not affect the result.
    let second = Fixture::with(|options| {
        (options.guest_threads, options.fuel_slice, options.instances_max) = (1, 10_000, 2);
        (options.memory_bytes_max, options.keep_resident_bytes) = (64 << 20, 0);
    });
    let digests: Vec<_> = runtime.block_on(async {
        let mut digests = Vec::new();
        for (name, wasm) in &guests {
            let digest = first.upload(wasm.clone()).await.unwrap_or_else(|why| panic!("{name}: {why}")).digest;
            second.upload(wasm.clone()).await.unwrap();
            digests.push((*name, digest));
        }
        digests
    });
    // A new sandbox on the same cache directory: it runs code that the first one compiled.
    let restarted = Fixture::with(|options| options.cache_dir = first.dir.path().join("cache"));

    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let told = runner.run(&inputs(), |inputs| {
        for (name, digest) in &digests {
            let run = |fixture: &Fixture| {
                let ran = runtime.block_on(fixture.sandbox.run(inputs.call(fixture, *digest)));
                (ran.verdict, FilterRun { elapsed_us: 0, ..ran.run })
            };
            let expected = run(&first);
            for (place, fixture) in [("again", &first), ("another sandbox", &second), ("restarted", &restarted)] {
                prop_assert_eq!(&run(fixture), &expected, "{}, {}", name, place);
            }
        }
        Ok(())
    });
    match told {
        Ok(()) => {}
        Err(TestError::Fail(why, inputs)) => panic!("{why}\nwith {inputs:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[tokio::test]
async fn randomness_and_clock_depend_on_event_and_filter() {
    let fixture = Fixture::new();
    let digest = fixture.upload(chance()).await.unwrap().digest;
    let inputs =
        |accepted_at, event| Inputs { accepted_at, event, claims: String::new(), config: "{}".into(), row: None };
    let text = async |inputs: Inputs| match fixture.sandbox.run(inputs.call(&fixture, digest)).await.verdict {
        Ok(Verdict::Replace(text)) => text,
        other => panic!("{other:?}"),
    };
    let one = text(inputs(1_000, 1)).await;
    assert_eq!(one.len(), 48);
    let words: BTreeSet<_> = [0..8, 8..16, 16..24, 24..32, 40..48].map(|at| &one[at]).into();
    assert_eq!(words.len(), 5, "each number is another one: {one}");
    let (other_event, later) = (text(inputs(1_000, 2)).await, text(inputs(2_000, 1)).await);
    assert_ne!(one[..32], other_event[..32], "another event has other random numbers");
    assert_eq!(one[32..40], other_event[32..40], "at the same time");
    assert_ne!(one[32..40], later[32..40], "the clock is the event's");
}
