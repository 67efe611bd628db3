//! Components that are small to upload and expensive to compile, and many concurrent compilations.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;

use super::arena::{Arena, Attacker};
use super::guest::Guest;
use super::trial::{Observed, Trial};
use super::{Class, How, Stage, encode, limit, rule};

/// Retries of a good filter on a host with hardly any compile time.
const TRIES: usize = 30;

const fn class(name: &'static str, tried: &'static str, answer: super::Answer, how: How) -> Class {
    Class { name, stage: Stage::Compile, tried, answer, how }
}

pub(super) const CLASSES: &[Class] = &[
    class(
        "huge-function",
        "one function of four million instructions",
        limit("filter_too_complex", "filter_function_bytes_max"),
        How::Upload(|| beside(&encode::long_function(4_000_000))),
    ),
    class(
        "million-functions",
        "a million functions",
        limit("filter_too_complex", "filter_functions_max"),
        How::Upload(|| beside(&encode::functions(1_000_000))),
    ),
    class(
        "many-locals",
        "a function of 50,000 locals",
        limit("filter_too_complex", "filter_locals_max"),
        How::Upload(|| beside(&encode::locals(50_000))),
    ),
    class(
        "fan-out",
        "components that each instantiate the one before twice, twenty deep: a million instances",
        limit("filter_too_complex", "filter_instances_max"),
        How::Upload(fan_out),
    ),
    class(
        "nesting",
        "components inside one another, two hundred deep",
        limit("filter_too_complex", "filter_nesting_max"),
        How::Upload(nesting),
    ),
    class(
        "deep-types",
        "types of instances inside one another, forty deep",
        limit("filter_too_complex", "filter_nesting_max"),
        How::Upload(|| {
            let types = format!("{}{}", "(type (instance ".repeat(40), "))".repeat(40));
            Trial::of(&Guest::pass().outer(&types))
        }),
    ),
    class(
        "many-types",
        "sixty thousand types",
        limit("filter_too_complex", "filter_types_max"),
        How::Upload(|| beside(&encode::types(60_000))),
    ),
    class(
        "exponential-types",
        "types that each hold the one before twice, sixty deep: 10^18 fields",
        rule("filter_invalid"),
        How::Upload(|| tuples(60, 2)),
    ),
    class(
        "compile-time",
        "24,000 functions that take the compiler seconds, where half of one is allowed",
        limit("filter_compile_limit", "compile_wall_ms_max"),
        How::Other(|arena, _| Box::pin(compile_over(arena, "compile_wall_ms_max", 500))),
    ),
    class(
        "compile-cpu",
        "functions that take the compiler many CPU seconds, where one is allowed",
        limit("filter_compile_limit", "compile_cpu_s_max"),
        How::Other(|arena, _| Box::pin(compile_over(arena, "compile_cpu_s_max", 1))),
    ),
    class(
        "compile-memory",
        "functions that take the compiler more memory than it is allowed",
        limit("filter_compile_limit", "compile_memory_bytes_max"),
        How::Other(|arena, _| Box::pin(compile_over(arena, "compile_memory_bytes_max", 24 << 20))),
    ),
    class(
        "compile-flood",
        "different filters, all uploaded at once",
        limit("compile_queue_full", "COMPILES_QUEUED_PER_TENANT_MAX"),
        How::Other(|arena, attacker| Box::pin(flood(arena, attacker))),
    ),
];

fn beside(module: &[u8]) -> Trial {
    Trial::bytes(encode::with_module(Guest::pass().wasm(), module))
}

fn fan_out() -> Trial {
    // The innermost component is empty: a core module in it would trigger the limit of core instances first.
    let mut text = "(component $c0)".to_owned();
    for level in 1..=20 {
        let before = level - 1;
        let _ = write!(
            text,
            "(component $c{level} (alias outer 1 $c{before} (component $b)) (instance (instantiate $b)) (instance (instantiate $b)))"
        );
    }
    Trial::of(&Guest::pass().outer(&format!("{text} (instance (instantiate $c20))")))
}

fn nesting() -> Trial {
    Trial::bytes(encode::with_components(Guest::pass().wasm(), 200))
}

/// Nested tuples with this many levels and fields.
fn tuples(levels: usize, fields: usize) -> Trial {
    let mut text = "(type $t0 (tuple u8 u8))".to_owned();
    for level in 1..=levels {
        let before = format!(" $t{}", level - 1).repeat(fields);
        let _ = write!(text, "(type $t{level} (tuple{before}))");
    }
    Trial::of(&Guest::pass().outer(&text))
}

/// Uploads a filter that takes long to compile to a host with this limit.
async fn compile_over(arena: Arc<Arena>, limit: &'static str, value: u64) -> Observed {
    let build = || encode::with_module(Guest::pass().wasm(), &encode::long_functions(24_000, 600));
    let wasm = tokio::task::spawn_blocking(build).await.expect("a guest can be built");
    let host = arena.another_host(&format!("{limit} = {value}")).await;
    let attacker = Attacker::new(&host, "hostile", &arena.quota(&Value::Null)).await;
    let seen = Observed::of_upload(&attacker.tenant.upload("hostile", wasm).await);
    // On a busy machine even a good filter may exceed such a limit, so it is retried.
    let mut works = attacker.works(&arena).await;
    for _ in 0..TRIES {
        if works.is_ok() {
            break;
        }
        works = attacker.works(&arena).await;
    }
    seen.wrong(works.err().map(|why| format!("afterwards this host does not work: {why}")))
}

/// Uploads different filters concurrently. Some may be accepted, but the flood must be refused before a long queue
/// builds up.
async fn flood(arena: Arc<Arena>, attacker: Attacker) -> Observed {
    let count = if arena.short { 32 } else { 64 };
    let build = || encode::with_module(Guest::pass().wasm(), &encode::long_functions(300, 60));
    let wasm = tokio::task::spawn_blocking(build).await.expect("a guest can be built");
    let mut uploads = tokio::task::JoinSet::new();
    for number in 0_u32..count {
        let (tenant, wasm) = (attacker.tenant.clone(), encode::with_note(wasm.clone(), &number.to_le_bytes()));
        uploads.spawn(async move { Observed::of_upload(&tenant.upload(&format!("flood-{number}"), wasm).await) });
    }
    let mut seen: BTreeMap<String, (usize, Observed)> = BTreeMap::new();
    for observed in uploads.join_all().await {
        seen.entry(observed.by.clone()).or_insert_with(|| (0, observed)).0 += 1;
    }
    let counts: Vec<_> = seen.iter().map(|(by, (count, _))| format!("{count} {by}")).collect();
    let mut refused = seen.into_iter().filter(|(by, _)| by != "taken").map(|(_, (_, observed))| observed);
    match (refused.next(), refused.next()) {
        (Some(observed), None) => Observed { told: format!("{} ({})", observed.told, counts.join(", ")), ..observed },
        (None, _) => Observed::of("taken", format!("all {count} concurrent uploads were accepted")),
        (Some(_), Some(_)) => Observed::of("several answers", counts.join(", ")),
    }
}
