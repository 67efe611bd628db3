//! Attacks during a call through host functions.

use serde_json::{Value, json};

use super::guest::{CONFIG, Guest, LOG, PASS, SLEEP, STDERR, TEXT, times};
use super::trial::Trial;
use super::{Class, How, Stage, limit, rule};

const fn class(name: &'static str, tried: &'static str, answer: super::Answer, how: fn() -> Trial) -> Class {
    Class { name, stage: Stage::Run, tried, answer, how: How::Run(how) }
}

/// Limit for the log in a record, including its JSON, if 16 KiB of log are allowed.
const LOG_BYTES: usize = 64 << 10;

pub(super) const CLASSES: &[Class] = &[
    class("log-flood", "4,000 lines of 100 bytes", limit("pass", "log_bytes_max"), || {
        let line = format!("(call $log (i32.const 1) (i32.const {TEXT}) (i32.const 100))");
        Trial::of(&Guest::new(times(4_000, &line) + PASS).calls(LOG).text(&"x".repeat(100))).also(small_log)
    }),
    class("empty-log-flood", "30,000 lines of nothing", limit("pass", "log_bytes_max"), || {
        let line = format!("(call $log (i32.const 1) (i32.const {TEXT}) (i32.const 0))");
        Trial::of(&Guest::new(times(30_000, &line) + PASS).calls(LOG)).also(small_log)
    }),
    class("stderr-flood", "a line on standard error that never ends", limit("pass", "log_bytes_max"), || {
        let print = format!("(call $print (call $stderr) (i32.const {TEXT}) (i32.const 4000) (i32.const 512))");
        Trial::of(&Guest::new(times(400, &print) + PASS).calls(STDERR).text(&"y".repeat(4000))).also(small_log)
    }),
    class("endless-log", "log lines without end", limit("fuel", "fuel_per_call"), || {
        let line = format!("(call $log (i32.const 1) (i32.const {TEXT}) (i32.const 4096))");
        Trial::of(&Guest::new(format!("(loop $again {line} (br $again)) unreachable")).calls(LOG)).also(small_log)
    }),
    class("host-call-flood", "2,000 host calls", limit("host_calls", "host_calls_max"), || {
        Trial::of(&Guest::new(times(2_000, "(call $config (i32.const 512))") + PASS).calls(CONFIG))
    }),
    class("host-answer-flood", "40 MB through host calls of 60 kB", limit("host_calls", "memory_bytes_max"), || {
        let guest = Guest::new(times(700, "(call $config (i32.const 512))") + PASS).calls(CONFIG);
        let config = json!({"a": "x".repeat(60_000)});
        Trial::of(&guest).quota(json!({"fuel_per_call": 1_000_000_000})).binding(json!({"config": config}))
    }),
    class("handle-flood", "handles of the host that are never given back", rule("trap"), || {
        let quota = json!({"host_calls_max": 1_000_000_000});
        Trial::of(&Guest::new("(loop $again (drop (call $sleep (i64.const 1))) (br $again)) unreachable").calls(SLEEP))
            .quota(quota)
    }),
    class("blocking-host-call", "a sleep of an hour", rule("pass"), || {
        // No limit is needed: the clock stands still, so the sleep returns immediately.
        let sleep = "(call $block (call $sleep (i64.const 3600000000000)))";
        Trial::of(&Guest::new(format!("{sleep}{PASS}")).calls(SLEEP)).also(|delivery| {
            let took_us = delivery["runs"][0]["elapsed_us"].as_u64();
            took_us.is_some_and(|us| us < 60_000_000).then_some(()).ok_or_else(|| format!("it slept: {took_us:?} us"))
        })
    }),
    class("cancel-in-host-call", "host calls without end, and the time runs out", limit("wall", "wall_ms_max"), || {
        // Half of its time is spent in the host; fuel and calls would last longer than its time limit.
        let quota = json!({"fuel_per_call": 2_000_000_000_u64, "host_calls_max": 1_000_000_000, "wall_ms_max": 200});
        Trial::of(&Guest::new("(loop $again (call $block (call $once)) (br $again)) unreachable").calls(SLEEP).core(
            "(global $handle (mut i32) (i32.const 0))
             (func $once (result i32)
               (if (i32.eqz (global.get $handle)) (then (global.set $handle (call $sleep (i64.const 1)))))
               (global.get $handle))",
        ))
        .quota(quota)
    }),
];

fn small_log(delivery: &Value) -> Result<(), String> {
    let bytes = delivery["runs"][0]["log"].to_string().len();
    if bytes > LOG_BYTES { Err(format!("{bytes} bytes of log are in the record")) } else { Ok(()) }
}
