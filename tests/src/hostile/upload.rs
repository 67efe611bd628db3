//! Uploads that are not filters.

use serde_json::json;

use super::guest::{CONFIG, Guest};
use super::trial::{Observed, Trial};
use super::{Class, How, Stage, encode, limit, rule};

const fn class(name: &'static str, tried: &'static str, answer: super::Answer, how: How) -> Class {
    Class { name, stage: Stage::Upload, tried, answer, how }
}

pub(super) const CLASSES: &[Class] = &[
    class(
        "oversize",
        "a filter of 300 kB where 200 kB are allowed",
        limit("filter_too_large", "filter_bytes_max"),
        How::Upload(oversize),
    ),
    class("garbage", "a megabyte of bytes that mean nothing", rule("filter_not_wasm"), How::Upload(garbage)),
    class("core-module", "a core module instead of a component", rule("filter_core_module"), How::Upload(core_module)),
    class(
        "precompiled",
        "machine code of one's own, as the engine writes it",
        rule("filter_precompiled"),
        How::Upload(precompiled),
    ),
    class("cut-off", "a component that breaks off in its middle", rule("filter_invalid"), How::Upload(cut_off)),
    class(
        "wrong-world",
        "a component that exports something else",
        rule("filter_no_transform"),
        How::Upload(wrong_world),
    ),
    class(
        "wrong-version",
        "a world that this host does not speak",
        rule("filter_wrong_version"),
        How::Upload(|| Trial::of(&Guest::pass().export("setgate:filter/transform@9.0.0"))),
    ),
    class(
        "wrong-types",
        "the right names with other types behind them",
        rule("filter_wrong_types"),
        How::Upload(wrong_types),
    ),
    class("unknown-import", "an import that no filter is given", rule("filter_import"), How::Upload(unknown_import)),
    class(
        "ungranted-import",
        "a filter bound without the grant that it imports",
        rule("invalid_field"),
        How::Other(|arena, attacker| {
            Box::pin(async move {
                let uploaded = attacker.tenant.upload("hostile", reads_config().wasm()).await;
                if uploaded.status != 201 {
                    return Observed::of_upload(&uploaded).wrong(["it was to pass the upload".to_owned()]);
                }
                let chain = json!([{"filter": "hostile", "grants": []}]);
                Observed::of_upload(&attacker.tenant.subscribe(&arena.receiver).chain(chain).ask().await)
            })
        }),
    ),
];

fn oversize() -> Trial {
    let wasm = encode::with_note(Guest::pass().wasm(), &vec![0; 300_000]);
    Trial::bytes(wasm).quota(json!({"filter_bytes_max": 200_000}))
}

fn garbage() -> Trial {
    // A linear congruential generator, so that the garbage is always the same.
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    Trial::bytes((0..1 << 20).map(|_| next()).collect())
}

fn core_module() -> Trial {
    Trial::bytes(encode::functions(10))
}

/// The header of machine code as written by the engine: an ELF file with a special OS ABI.
fn precompiled() -> Trial {
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 200];
    elf.resize(16, 0);
    // A relocatable file for x86-64, version 1.
    for word in [1_u16, 62, 1, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.resize(48, 0);
    // The flag for a component; then sizes, and no sections.
    elf.extend(2_u32.to_le_bytes());
    for half in [64_u16, 0, 0, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    Trial::bytes(elf)
}

fn cut_off() -> Trial {
    let mut wasm = Guest::pass().wasm();
    wasm.truncate(wasm.len() / 2);
    Trial::bytes(wasm)
}

fn wrong_world() -> Trial {
    Trial::bytes(wat::parse_str("(component)").expect("a component"))
}

fn wrong_types() -> Trial {
    let text = r#"(component
        (core module $m (func (export "process") (result i32) (i32.const 7)))
        (core instance $i (instantiate $m))
        (func $process (result u32) (canon lift (core func $i "process")))
        (instance $transform (export "process" (func $process)))
        (export "setgate:filter/transform@0.1.0" (instance $transform)))"#;
    Trial::bytes(wat::parse_str(text).expect("a component"))
}

fn unknown_import() -> Trial {
    let store = r#"(import "wasi:keyvalue/store@0.2.0" (instance $store (export "open" (func))))"#;
    Trial::of(&Guest::pass().outer(store))
}

fn reads_config() -> Guest {
    Guest::pass().calls(CONFIG)
}
