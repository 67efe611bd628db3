//! The return path: the guest's allocator, and its result.

use super::guest::{CONFIG, GIVEN, Guest, PASS, TEXT, drop_because, patch};
use super::trial::Trial;
use super::{Class, How, Stage, limit, rule};

const fn class(name: &'static str, tried: &'static str, answer: super::Answer, how: fn() -> Trial) -> Class {
    Class { name, stage: Stage::Return, tried, answer, how: How::Run(how) }
}

pub(super) const CLASSES: &[Class] = &[
    class("realloc-loop", "an allocator that never ends", limit("fuel", "fuel_per_call"), || {
        Trial::of(&Guest::pass().realloc("(loop $again (br $again)) unreachable"))
    }),
    class("realloc-outside", "an allocator that gives an address outside of memory", rule("trap"), || {
        Trial::of(&Guest::pass().realloc("(i32.const -65536)"))
    }),
    class("realloc-crooked", "an allocator that gives addresses that are not aligned", rule("trap"), || {
        Trial::of(&Guest::pass().realloc("(i32.const 65537)"))
    }),
    class("realloc-calls-out", "an allocator that calls the host", rule("trap"), || {
        Trial::of(&Guest::pass().realloc("(call $config (i32.const 512)) (i32.const 65536)").calls(CONFIG))
    }),
    class(
        "realloc-grows",
        "an allocator that takes a megabyte for each byte",
        limit("memory", "memory_bytes_max"),
        || {
            let body = "(local $at i32)
            (local.set $at (memory.grow (i32.const 256)))
            (if (i32.eq (local.get $at) (i32.const -1)) (then unreachable))
            (i32.mul (local.get $at) (i32.const 65536))";
            Trial::of(&Guest::pass().realloc(body))
        },
    ),
    class("post-return-loop", "a clean-up after the answer that never ends", limit("fuel", "fuel_per_call"), || {
        let after = "(func (export \"after\") (param i32) (loop $again (br $again)))";
        Trial::of(&Guest::pass().core(after).lift("(post-return (core func $guest \"after\"))"))
    }),
    class("answer-outside", "an answer outside of memory", rule("trap"), || Trial::of(&Guest::new("(i32.const -16)"))),
    class("no-such-verdict", "a verdict that there is not", rule("trap"), || {
        Trial::of(&Guest::new("(call $answer (i32.const 200) (i32.const 0) (i32.const 0))"))
    }),
    class("huge-string", "a text of 4 GiB", rule("trap"), || {
        Trial::of(&Guest::new(format!("(call $answer (i32.const 1) (i32.const {TEXT}) (i32.const -1))")))
    }),
    class(
        "output-amplification",
        "a patch of 4 MiB from an event of 300 bytes",
        limit("output", "output_bytes_max"),
        || {
            // {"a":"xxx..."}, which is valid JSON but too large.
            let length = 4 << 20;
            let fill = format!(
                "(memory.fill (i32.const {GIVEN}) (i32.const 120) (i32.const {length}))
             (i64.store (i32.const {GIVEN}) (i64.const {}))
             (i32.store16 (i32.const {}) (i32.const {}))",
                i64::from_le_bytes(*br#"{"a":"xx"#),
                GIVEN + length - 2,
                u16::from_le_bytes(*b"\"}")
            );
            Trial::of(&Guest::new(fill + &patch(GIVEN, length)).pages("128"))
        },
    ),
    class(
        "nested-patch",
        "sixty objects inside one another, a megabyte of members in the innermost",
        rule("patch"),
        || {
            // A patch of maximum size and with the most expensive merge: each level contains all of the rest.
            let members: Vec<_> = (0..80_000).map(|n| format!("\"{n}\":0")).collect();
            let text = format!("{}{{{}}}{}", "{\"a\":".repeat(60), members.join(","), "}".repeat(60));
            let length = u32::try_from(text.len()).expect("a megabyte");
            let data = format!("(data (i32.const {GIVEN}) \"{}\")", text.replace('"', "\\22"));
            Trial::of(&Guest::new(patch(GIVEN, length)).pages("64").core(&data))
        },
    ),
    class("huge-reason", "a reason of 500 kB for dropping an event", rule("drop"), || {
        let fill = format!("(memory.fill (i32.const {GIVEN}) (i32.const 120) (i32.const 500000))");
        Trial::of(&Guest::new(fill + &drop_because(GIVEN, 500_000))).also(|delivery| {
            let bytes = delivery.to_string().len();
            if bytes > 16 << 10 { Err(format!("{bytes} bytes are in the record")) } else { Ok(()) }
        })
    }),
    class("invalid-utf8", "a patch that is not UTF-8", rule("trap"), || {
        let text = format!("(data (i32.const {TEXT}) \"{{\\22a\\22:\\22\\ff\\fe\\22}}\")");
        Trial::of(&Guest::new(patch(TEXT, 10)).core(&text))
    }),
    class("not-json", "a patch that is not JSON", rule("not_a_set"), || Trial::of(&Guest::patches("{\"a\":"))),
    class("deep-json", "a patch ten thousand levels deep", rule("not_a_set"), || {
        Trial::of(&Guest::patches(&("{\"a\":".repeat(10_000) + "1" + &"}".repeat(10_000))))
    }),
    class("duplicate-keys", "claims with one key twice", rule("not_a_set"), || {
        Trial::of(&Guest::replaces(r#"{"iss":"https://idp.example.com/","iss":"https://evil.example/","events":{}}"#))
    }),
    class("no-set", "claims without an event", rule("not_a_set"), || Trial::of(&Guest::patches(r#"{"events":null}"#))),
    class("sealed-claim", "another issuer", rule("sealed"), || {
        Trial::of(&Guest::patches(r#"{"iss":"https://evil.example/"}"#))
    }),
    class("sealed-away", "an audience that is taken away", rule("sealed"), || {
        Trial::of(&Guest::patches(r#"{"aud":null}"#))
    }),
    class("endless-transient", "a filter that says \"later\" each time", rule("transient"), || {
        let later = format!(
            "(i32.store8 (i32.const 0) (i32.const 1)) (i32.store (i32.const 4) (i32.const 0))
            (i32.store (i32.const 8) (i32.const {TEXT})) (i32.store (i32.const 12) (i32.const 5)) (i32.const 0)"
        );
        Trial::of(&Guest::new(later).text("later")).also(|delivery| {
            let state = &delivery["state"];
            (*state == "held" || *state == "dead").then_some(()).ok_or_else(|| format!("it ended as {state}"))
        })
    }),
    class("event-overwritten", "the event's own text changed in place", rule("pass"), || {
        // The claims' address and length are the last two words of the record. The guest overwrites its own copy: the
        // delivered event must not change.
        let at = "(i32.load (i32.add (local.get 0) (i32.const 84)))";
        let length = "(i32.load (i32.add (local.get 0) (i32.const 88)))";
        Trial::of(&Guest::new(format!("(memory.fill {at} (i32.const 120) {length}) {PASS}")))
    }),
];
