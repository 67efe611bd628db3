//! Calls: their verdicts, limits and faults.

use super::guests::{self, CONFIG, Guest, LOG, LOOKUP, WASI};
use super::*;

/// Text at address 1024.
const TEXT: &str = r#"(data (i32.const 1024) "{\"a\":1}")"#;

fn answering(result: u32, case: u32) -> Bytes {
    let process = format!("(call $answer (i32.const {result}) (i32.const {case}) (i32.const 1024) (i32.const 7))");
    guests::doing_with(TEXT, process.leak())
}

#[tokio::test]
async fn each_verdict_and_failure_is_returned() {
    let fixture = Fixture::new();
    let text = || r#"{"a":1}"#.to_owned();
    for (case, expected) in
        [(0, Verdict::Pass), (1, Verdict::Patch(text())), (2, Verdict::Replace(text())), (3, Verdict::Drop(text()))]
    {
        let ran = fixture.run(answering(0, case)).await;
        assert_eq!(ran.run.verdict, Some(expected.kind()));
        assert_eq!(ran.verdict, Ok(expected));
        assert!(ran.run.fuel > 0 && ran.run.memory_bytes == 65_536 && ran.run.elapsed_us > 0, "{:?}", ran.run);
    }
    assert_eq!(fixture.fault(answering(1, 0)).await, Fault::Transient { reason: text() });
    assert_eq!(fixture.fault(answering(1, 1)).await, Fault::Permanent { reason: text() });
}

#[tokio::test]
async fn event_is_passed_unchanged() {
    // Returns the claims: the last two words of the record, at 84 and 88.
    let process = "(call $answer (i32.const 0) (i32.const 2) (i32.load (i32.add (local.get 0) (i32.const 84)))
      (i32.load (i32.add (local.get 0) (i32.const 88))))";
    let ran = Fixture::new().run(guests::doing(process)).await;
    assert_eq!(ran.verdict, Ok(Verdict::Replace(r#"{"iss":"https://idp.example"}"#.into())));
}

#[tokio::test]
async fn secrets_are_redacted_in_run_record() {
    let fixture = Fixture::new();
    let text = r#"(data (i32.const 1024) "it is hunter2-4711, you know")"#;
    let answering = |result: u32, case: u32| {
        let answer = format!("(call $answer (i32.const {result}) (i32.const {case}) (i32.const 1024) (i32.const 28))");
        let process = format!("(call $log (i32.const 1) (i32.const 1024) (i32.const 28)) {answer}");
        LOG.doing(text, process.leak())
    };
    let said = || "it is [secret salt], you know".to_owned();
    for (result, case, expected) in [
        (0, 3, Ok(Verdict::Drop(said()))),
        (1, 0, Err(Fault::Transient { reason: said() })),
        (1, 1, Err(Fault::Permanent { reason: said() })),
        (0, 2, Ok(Verdict::Replace("it is hunter2-4711, you know".into()))),
    ] {
        let mut call = fixture.call(fixture.upload(answering(result, case)).await.unwrap().digest);
        call.secrets = BTreeMap::from([("salt".to_owned(), Secret::new("hunter2-4711".to_owned()))]);
        let ran = fixture.sandbox.run(call).await;
        assert_eq!(ran.verdict, expected);
        assert_eq!(ran.run.log[0].text, said());
        assert!(!format!("{:?}", ran.run).contains("hunter2"), "{:?}", ran.run);
    }
}

#[tokio::test]
async fn endless_loop_runs_out_of_fuel() {
    let mut fixture = Fixture::new();
    fixture.quota.fuel_per_call = 3_000_000;
    fixture.quota.wall_ms_max = 60_000;
    let ran = fixture.run(guests::endless()).await;
    assert_eq!(ran.verdict, Err(Fault::Fuel { limit: 3_000_000, function: own("process") }));
    assert_eq!(ran.run.fuel, 3_000_000);
}

#[tokio::test]
async fn endless_loop_exceeds_wall_time() {
    let mut fixture = Fixture::new();
    fixture.quota.fuel_per_call = u64::MAX / 2;
    fixture.quota.wall_ms_max = 50;
    let ran = fixture.run(guests::endless()).await;
    assert_eq!(ran.verdict, Err(Fault::Wall { limit_ms: 50 }));
    assert!(ran.run.fuel > 0);
    assert!(ran.run.elapsed_us < 5_000_000, "{}", ran.run.elapsed_us);
}

#[tokio::test]
async fn work_without_fuel_exceeds_wall_time() {
    let mut fixture = Fixture::new();
    fixture.quota.wall_ms_max = 50;
    let ran = fixture.run(guests::texts()).await;
    assert_eq!(ran.verdict, Err(Fault::Wall { limit_ms: 50 }));
    // If turns ended by fuel only, the first one would take minutes.
    assert!(ran.run.elapsed_us < 20_000_000, "{}", ran.run.elapsed_us);
}

#[tokio::test]
async fn memory_growth_costs_fuel_even_if_denied() {
    let mut fixture = Fixture::new();
    fixture.quota.fuel_per_call = 1_000_000;
    fixture.quota.wall_ms_max = 60_000;
    // 10,000 iterations.
    let process = "(local $n i32)
      (loop $again
        (drop (memory.grow (i32.const 60000)))
        (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 10000))))
      (call $answer (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))";
    assert_eq!(fixture.fault(guests::doing(process)).await, Fault::Fuel { limit: 1_000_000, function: own("process") });
}

#[tokio::test]
async fn denied_memory_is_reported_if_guest_aborts() {
    let grow = "(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable)) (i32.const 0)";
    let fault = Fixture::new().fault(guests::doing(grow)).await;
    assert_eq!(fault, Fault::Memory { wanted: 1_001 << 16, limit: 32 << 20, function: own("process") });
}

#[tokio::test]
async fn memory_limit_counts_all_memories_and_steps() {
    let mut fixture = Fixture::new();
    fixture.quota.memory_bytes_max = 1 << 20;
    let steps = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    let ran = fixture.run(guests::doing(steps)).await;
    assert_eq!(
        ran.verdict,
        Err(Fault::Memory { wanted: (1 << 20) + 65_536, limit: 1 << 20, function: own("process") })
    );
    assert_eq!(ran.run.memory_bytes, 1 << 20);

    let two = "(drop (memory.grow $second (i32.const 8)))
      (if (i32.eq (memory.grow (i32.const 8)) (i32.const -1)) (then unreachable)) (i32.const 0)";
    let fault = fixture.fault(guests::doing_with("(memory $second 1)", two)).await;
    assert_eq!(fault, Fault::Memory { wanted: 18 << 16, limit: 1 << 20, function: own("process") });
}

#[tokio::test]
async fn guest_may_continue_after_denied_growth() {
    let process = "(drop (memory.grow (i32.const 1000)))
      (call $answer (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))";
    assert_eq!(Fixture::new().run(guests::doing(process)).await.verdict, Ok(Verdict::Pass));
}

#[tokio::test]
async fn table_size_is_limited() {
    let grow = "(if (i32.eq (table.grow $t (ref.null func) (i32.const 12000)) (i32.const -1)) (then unreachable))
      (i32.const 0)";
    let fault = Fixture::new().fault(guests::doing_with("(table $t 1 funcref)", grow)).await;
    assert_eq!(fault, Fault::Table { wanted: 12_001, limit: 10_000 });
}

#[tokio::test]
async fn trap_names_cause_and_location() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture.fault(guests::doing("unreachable")).await,
        Fault::Trap { detail: "wasm `unreachable` instruction executed, in process".into() }
    );
    let Fault::Trap { detail } =
        fixture.fault(guests::doing_with("(func $deep (call $deep))", "(call $deep) (i32.const 0)")).await
    else {
        panic!("not a trap");
    };
    assert!(detail == "call stack exhausted: the limit is 512 KiB, in deep", "{detail}");
    for (process, says) in [
        ("(i32.load (i32.const -4))", "out of bounds"),
        ("(i32.div_u (i32.const 1) (i32.const 0))", "divide by zero"),
        // Text outside of memory, and an unknown verdict.
        ("(call $answer (i32.const 0) (i32.const 1) (i32.const -1) (i32.const 9))", "out of bounds"),
        ("(call $answer (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 0))", "discriminant"),
        ("(i32.const -8)", "out of bounds"),
    ] {
        let fault = fixture.fault(guests::doing(process)).await;
        assert!(matches!(&fault, Fault::Trap { detail } if detail.contains(says)), "{process}: {fault}");
    }
    // The instance was dropped with its call and does not affect the next call.
    assert_eq!(fixture.run(guests::pass()).await.verdict, Ok(Verdict::Pass));
}

#[tokio::test]
async fn output_over_limit_is_a_fault() {
    let mut fixture = Fixture::new();
    fixture.quota.output_bytes_max = 6;
    assert_eq!(fixture.fault(answering(0, 1)).await, Fault::Output { bytes: 7, limit: 6 });
    // Larger than the engine accepts, so the actual size is unknown.
    let huge = Guest {
        memory: r#"(memory (export "memory") 100)"#,
        process: "(call $answer (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 6000000))",
        ..Guest::default()
    };
    fixture.quota.output_bytes_max = 1_000_000;
    assert_eq!(fixture.fault(huge.wasm()).await, Fault::Output { bytes: 1_000_001, limit: 1_000_000 });
}

#[tokio::test]
async fn host_calls_are_limited() {
    let mut fixture = Fixture::new();
    fixture.quota.host_calls_max = 10;
    let flood = CONFIG.doing("", "(loop $again (call $all (i32.const 512)) (br $again)) unreachable");
    assert_eq!(fixture.fault(flood).await, Fault::HostCalls { limit_name: "host_calls_max".into(), limit: 10 });
}

#[tokio::test]
async fn bytes_from_host_calls_are_limited() {
    let mut fixture = Fixture::new();
    fixture.quota.memory_bytes_max = 2 << 20;
    fixture.quota.fuel_per_call = 1_000_000_000;
    let flood = CONFIG.doing("", "(loop $again (call $all (i32.const 512)) (br $again)) unreachable");
    let digest = fixture.upload(flood).await.unwrap().digest;
    let mut call = fixture.call(digest);
    call.config = format!(r#"{{"a":"{}"}}"#, "x".repeat(500_000)).into();
    let fault = fixture.sandbox.run(call).await.verdict.unwrap_err();
    assert_eq!(fault, Fault::HostCalls { limit_name: "memory_bytes_max".into(), limit: 2 << 20 });
}

#[tokio::test]
async fn large_log_lines_cost_fuel_and_yield() {
    let mut fixture = Fixture::new();
    fixture.quota.fuel_per_call = 100_000_000;
    fixture.quota.wall_ms_max = 60_000;
    let flood = LOG.doing(
        "",
        "(loop $again (call $log (i32.const 1) (i32.const 65536) (i32.const 900000)) (br $again)) unreachable",
    );
    let ran = fixture.run(flood).await;
    assert_eq!(ran.verdict, Err(Fault::Fuel { limit: 100_000_000, function: own("process") }));
    assert!(ran.run.log.len() <= 3, "{}", ran.run.log.len());
    assert!(ran.run.log.last().unwrap().text.starts_with("[cut"));
    // One line larger than the host accepts in one call.
    fixture.quota.output_bytes_max = 1_000;
    let line = LOG.doing("", "(call $log (i32.const 1) (i32.const 65536) (i32.const 900000)) unreachable");
    assert_eq!(fixture.fault(line).await, Fault::HostCalls { limit_name: "output_bytes_max".into(), limit: 1_000 });
}

#[tokio::test]
async fn exhausted_lookup_budget_is_an_error_value() {
    let mut fixture = Fixture::new();
    fixture.quota.host_calls_max = 3;
    // Looks up key "\"" in table "{" until the result is an error, then drops with a reason whose length is the count.
    let process = r#"(local $n i32)
      (loop $again
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (call $get (i32.const 1024) (i32.const 1) (i32.const 1025) (i32.const 1) (i32.const 512))
        (br_if $again (i32.eqz (i32.load8_u (i32.const 512)))))
      (if (i32.ne (i32.load8_u (i32.const 516)) (i32.const 1)) (then unreachable))
      (call $answer (i32.const 0) (i32.const 3) (i32.const 1024) (local.get $n))"#;
    let digest = fixture.upload(LOOKUP.doing(TEXT, process)).await.unwrap().digest;
    let mut call = fixture.call(digest);
    let rows = HashMap::from([("\"".to_owned(), Arc::from("1"))]);
    call.tables = Arc::new(MemoryTables(BTreeMap::from([("{".to_owned(), rows)])));
    assert_eq!(fixture.sandbox.run(call).await.verdict, Ok(Verdict::Drop(r#"{"a""#.into())));
}

#[tokio::test]
async fn ungranted_interface_is_unavailable() {
    let fixture = Fixture::new();
    let digest = fixture.upload(LOOKUP.doing("", guests::PASS)).await.unwrap().digest;
    let mut call = fixture.call(digest);
    call.grants = [Grant::Config].into();
    let fault = fixture.sandbox.run(call).await.verdict.unwrap_err();
    let detail = "it imports `lookup`, which its binding does not grant: add \"grants\": [\"config\", \"lookup\"] to the binding";
    assert_eq!(fault, Fault::Unavailable { detail: detail.into() });
}

#[tokio::test]
async fn wasi_is_empty_and_deterministic() {
    let fixture = Fixture::new();
    // Prints to the log, sleeps for an hour, and returns 15 random bytes as text, preceded by the seconds of the clock.
    let process = r#"
      (call $print (call $stdout) (i32.const 1024) (i32.const 7) (i32.const 512))
      (call $block (call $sleep (i64.const 3600000000000)))
      (call $now (i32.const 520))
      (if (i64.ne (i64.load (i32.const 520)) (i64.const 1751705149)) (then unreachable))
      (if (i32.ne (i32.load (i32.const 528)) (i32.const 662000000)) (then unreachable))
      (call $random (i64.const 1) (i32.const 600))
      (i32.store8 (i32.const 65536) (i32.and (i32.load8_u (i32.const 65536)) (i32.const 127)))
      (call $answer (i32.const 0) (i32.const 1) (i32.const 65536) (i32.const 1))"#;
    let first = fixture.run(WASI.doing(TEXT, process)).await;
    assert_eq!(
        first.run.log,
        [setgate_domain::verdict::LogLine {
            level: setgate_domain::verdict::LogLevel::Info,
            text: r#"{"a":1}"#.into()
        }]
    );
    assert!(first.verdict.is_ok(), "{first:?}");
    assert!(first.run.elapsed_us < 10_000_000);
    let second = fixture.run(WASI.doing(TEXT, process)).await;
    assert_eq!(second.verdict, first.verdict);
    assert_eq!(second.run.fuel, first.run.fuel);

    let exit = WASI.doing("", "(call $exit (i32.const 0)) (i32.const 0)");
    assert_eq!(fixture.fault(exit).await, Fault::Trap { detail: "called wasi:cli/exit, in process".into() });
    let greedy = WASI.doing("", "(call $random (i64.const 1000000) (i32.const 600)) (i32.const 0)");
    assert_eq!(fixture.fault(greedy).await.kind(), "trap");
}

#[tokio::test]
async fn fresh_instance_has_no_earlier_state() {
    // Faults if it finds data of an earlier call in its memory, newly grown pages included, or in a global.
    let process = "(local $at i32)
      (drop (memory.grow (i32.const 4)))
      (local.set $at (i32.const 60000))
      (loop $again
        (if (i32.load8_u (local.get $at)) (then unreachable))
        (i32.store8 (local.get $at) (i32.const 1))
        (local.set $at (i32.add (local.get $at) (i32.const 1000)))
        (br_if $again (i32.lt_u (local.get $at) (i32.const 300000))))
      (if (global.get $seen) (then unreachable))
      (global.set $seen (i32.const 1))
      (call $answer (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))";
    let fixture = Fixture::with(|options| options.instances_max = 1);
    let digest =
        fixture.upload(guests::doing_with("(global $seen (mut i32) (i32.const 0))", process)).await.unwrap().digest;
    for _ in 0..50 {
        assert_eq!(fixture.sandbox.run(fixture.call(digest)).await.verdict, Ok(Verdict::Pass));
    }
}

#[tokio::test]
async fn call_waits_for_full_pool() {
    let fixture = Fixture::with(|options| options.instances_max = 1);
    let digest = fixture.upload(guests::pass()).await.unwrap().digest;
    let calls = (0..50).map(|_| fixture.sandbox.run(fixture.call(digest)));
    for ran in futures_util::future::join_all(calls).await {
        assert_eq!(ran.verdict, Ok(Verdict::Pass));
    }
}

#[tokio::test]
async fn cancelled_call_ends() {
    let mut fixture = Fixture::with(|options| options.instances_max = 1);
    let endless = fixture.upload(guests::endless()).await.unwrap().digest;
    let pass = fixture.upload(guests::pass()).await.unwrap().digest;
    fixture.quota.fuel_per_call = u64::MAX / 2;
    fixture.quota.wall_ms_max = 3_600_000;
    let left = tokio::time::timeout(Duration::from_millis(50), fixture.sandbox.run(fixture.call(endless))).await;
    assert!(left.is_err());
    let next = tokio::time::timeout(Duration::from_secs(5), fixture.sandbox.run(fixture.call(pass))).await;
    assert_eq!(next.unwrap().verdict, Ok(Verdict::Pass));
}

#[tokio::test]
async fn shutdown_ends_calls_as_unavailable() {
    let mut fixture = Fixture::new();
    let endless = fixture.upload(guests::endless()).await.unwrap().digest;
    fixture.quota.fuel_per_call = u64::MAX / 2;
    fixture.quota.wall_ms_max = 3_600_000;
    let (sandbox, call) = (fixture.sandbox.clone(), fixture.call(endless));
    let running = tokio::spawn(async move { sandbox.run(call).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    fixture.sandbox.shutdown();
    assert_eq!(running.await.unwrap().verdict.unwrap_err().kind(), "unavailable");
    let after = fixture.sandbox.run(fixture.call(endless)).await;
    assert_eq!(after.verdict.unwrap_err().kind(), "unavailable");
}

#[tokio::test]
async fn identical_calls_have_identical_runs() {
    let fixture = Fixture::new();
    let digest = fixture.upload(answering(0, 2)).await.unwrap().digest;
    let first = fixture.sandbox.run(fixture.call(digest)).await;
    for _ in 0..5 {
        let again = fixture.sandbox.run(fixture.call(digest)).await;
        assert_eq!(again.verdict, first.verdict);
        assert_eq!(FilterRun { elapsed_us: 0, ..again.run }, FilterRun { elapsed_us: 0, ..first.run.clone() });
    }
}
