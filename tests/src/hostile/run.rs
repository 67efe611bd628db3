//! Attacks during a call by computation and memory.

use serde_json::{Value, json};

use super::guest::{EXIT, GIVEN, Guest, PASS, STDERR, TEXT, times};
use super::trial::Trial;
use super::{Class, How, Stage, limit, rule};

const fn class(name: &'static str, tried: &'static str, answer: super::Answer, how: fn() -> Trial) -> Class {
    Class { name, stage: Stage::Run, tried, answer, how: How::Run(how) }
}

pub(super) const CLASSES: &[Class] = &[
    class("endless-loop", "a loop that never ends", limit("fuel", "fuel_per_call"), || {
        Trial::of(&Guest::new("(loop $again (br $again)) unreachable"))
    }),
    class("bulk-memory-loop", "fills and copies of 16 MiB, over and over", limit("fuel", "fuel_per_call"), || {
        let half = 8 << 20;
        let fill = format!("(memory.fill (i32.const {half}) (i32.const 1) (i32.const {half}))");
        let copy = format!("(memory.copy (i32.const {half}) (i32.const {}) (i32.const {}))", half + 1, half - 1);
        Trial::of(&Guest::new(format!("(loop $again {fill} {copy} (br $again)) unreachable")).pages("256"))
    }),
    class(
        "bulk-table-loop",
        "fills and copies of a whole table, over and over",
        limit("fuel", "fuel_per_call"),
        || {
            let table = "(table $t 9000 funcref) (elem declare func $f) (func $f)";
            let fill = "(table.fill $t (i32.const 0) (ref.func $f) (i32.const 9000))";
            let copy = "(table.copy $t $t (i32.const 1) (i32.const 0) (i32.const 8999))";
            Trial::of(&Guest::new(format!("(loop $again {fill} {copy} (br $again)) unreachable")).core(table))
        },
    ),
    class("bulk-init-loop", "a data segment written over and over", limit("fuel", "fuel_per_call"), || {
        let data = format!("(data $d \"{}\")", "x".repeat(60_000));
        let init = format!("(memory.init $d (i32.const {GIVEN}) (i32.const 0) (i32.const 60000))");
        Trial::of(&Guest::new(format!("(loop $again {init} (br $again)) unreachable")).core(&data))
    }),
    class("wall-time", "a loop that has fuel for a day", limit("wall", "wall_ms_max"), || {
        let quota = json!({"fuel_per_call": u64::MAX >> 1, "wall_ms_max": 200});
        Trial::of(&Guest::new("(loop $again (br $again)) unreachable")).quota(quota)
    }),
    class(
        "text-between-components",
        "texts of 8 MiB from one component of the filter to another, over and over",
        limit("wall", "wall_ms_max"),
        || {
            // The engine copies and checks such a text in one step, without charging fuel.
            let length = 8 << 20;
            let take = format!("(call $take (i32.const {GIVEN}) (i32.const {length}))");
            let process = format!(
                "(memory.fill (i32.const {GIVEN}) (i32.const 120) (i32.const {length}))
                 (loop $again {take} (br $again)) unreachable"
            );
            let quota = json!({"wall_ms_max": 300});
            Trial::of(&Guest::new(process).beside_taker().pages("160")).quota(quota).also(few_texts)
        },
    ),
    class("deep-recursion", "a function that calls itself", limit("trap", "STACK_BYTES_MAX"), || {
        Trial::of(&Guest::new("(call $deep) unreachable").core("(func $deep (call $deep))"))
    }),
    class(
        "indirect-recursion",
        "a function that calls itself through a table",
        limit("trap", "STACK_BYTES_MAX"),
        || {
            let core = "(type $f (func)) (table $t 1 funcref) (elem $t (i32.const 0) $deep)
            (func $deep (type $f) (call_indirect $t (type $f) (i32.const 0)))";
            Trial::of(&Guest::new("(call $deep) unreachable").core(core))
        },
    ),
    class("stack-overflow", "a stack in linear memory that runs over its end", rule("trap"), || {
        let core = "(global $stack (mut i32) (i32.const 65536))
            (func $frame
              (global.set $stack (i32.sub (global.get $stack) (i32.const 4096)))
              (i64.store (global.get $stack) (i64.const -1))
              (call $frame))";
        Trial::of(&Guest::new("(call $frame) unreachable").core(core))
    }),
    class(
        "memory-growth",
        "48 MiB of memory, page by page, each written to",
        limit("memory", "memory_bytes_max"),
        || {
            let page = "(if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
            (i32.store (i32.mul (i32.sub (memory.size) (i32.const 1)) (i32.const 65536)) (i32.const 1))";
            Trial::of(&Guest::new(times(752, page) + PASS))
        },
    ),
    class("memory-grab", "all memory there can be, in one piece", limit("memory", "memory_bytes_max"), || {
        Trial::of(&Guest::new(
            "(if (i32.eq (memory.grow (i32.const 60000)) (i32.const -1)) (then unreachable)) (i32.const 0)",
        ))
    }),
    class("table-growth", "15,000 table elements, a thousand at a time", limit("table", "table_elements_max"), || {
        let grow = "(if (i32.eq (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)) (then unreachable))";
        Trial::of(&Guest::new(times(15, grow) + PASS).core("(table $t 1 funcref)"))
    }),
    class(
        "growth-loop",
        "a guest that asks for memory again and again after a no",
        limit("fuel", "fuel_per_call"),
        || Trial::of(&Guest::new("(loop $again (drop (memory.grow (i32.const 10000))) (br $again)) unreachable")),
    ),
    class("panic", "a panic with its words on standard error", rule("trap"), || {
        let text = "panicked at src/lib.rs:1:1: on purpose\n";
        let print =
            format!("(call $print (call $stderr) (i32.const {TEXT}) (i32.const {}) (i32.const 512))", text.len());
        Trial::of(&Guest::new(print + "unreachable").calls(STDERR).text(text)).also(|delivery| {
            let log = delivery["runs"][0]["log"].to_string();
            log.contains("on purpose").then_some(()).ok_or_else(|| format!("its words are not in the record: {log}"))
        })
    }),
    class("abort", "an exit in the middle of a call", rule("trap"), || {
        Trial::of(&Guest::new("(call $exit (i32.const 1)) unreachable").calls(EXIT))
    }),
    class("arithmetic-trap", "a division by zero", rule("trap"), || {
        Trial::of(&Guest::new("(i32.div_s (i32.const 1) (i32.const 0))"))
    }),
];

/// Checks by the fuel used that the guest was cut off after some hundred texts: 8 MiB to write the text, and little for
/// each pass. If only fuel ended a turn, there would be thousands, long after the deadline.
fn few_texts(delivery: &Value) -> Result<(), String> {
    const MOST: u64 = (8 << 20) + 100_000;
    match delivery["runs"][0]["fuel"].as_u64() {
        Some(fuel) if fuel < MOST => Ok(()),
        fuel => {
            Err(format!("it was cut off long after its deadline, with {fuel:?} fuel burnt and not less than {MOST}"))
        }
    }
}
