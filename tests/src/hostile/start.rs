//! Attacks during instantiation, which already runs the guest's code: start functions, and declared resources.

use serde_json::json;

use super::guest::Guest;
use super::trial::Trial;
use super::{Class, How, Stage, limit, rule};

const fn class(name: &'static str, tried: &'static str, answer: super::Answer, how: fn() -> Trial) -> Class {
    Class { name, stage: Stage::Start, tried, answer, how: How::Upload(how) }
}

pub(super) const CLASSES: &[Class] = &[
    class("start-loop", "a start function that never ends", limit("filter_start", "fuel_per_call"), || {
        let start = "(func $begin (loop $again (br $again))) (start $begin)";
        Trial::of(&Guest::pass().core(start)).quota(json!({"fuel_per_call": 20_000_000}))
    }),
    class("start-trap", "a start function that traps", rule("filter_start"), || {
        Trial::of(&Guest::pass().core("(func $begin unreachable) (start $begin)"))
    }),
    class(
        "initial-memory",
        "64 MiB of memory from the first moment",
        limit("filter_too_complex", "memory_bytes_max"),
        || Trial::of(&Guest::pass().pages("1024")),
    ),
    class(
        "initial-memories",
        "two memories of 24 MiB from the first moment",
        limit("filter_start", "memory_bytes_max"),
        || Trial::of(&Guest::pass().pages("384").core("(memory 384)")),
    ),
    class(
        "initial-table",
        "15,000 table elements from the first moment",
        limit("filter_too_complex", "table_elements_max"),
        || Trial::of(&Guest::pass().core("(table 15000 funcref)")),
    ),
    class(
        "initial-tables",
        "two tables of 8,000 elements from the first moment",
        limit("filter_start", "table_elements_max"),
        || Trial::of(&Guest::pass().core("(table 8000 funcref) (table 8000 funcref)")),
    ),
    class(
        "many-memories",
        "more memories than a component may have",
        limit("filter_too_complex", "filter_memories_max"),
        || Trial::of(&Guest::pass().core(&"(memory 1)".repeat(8))),
    ),
    class(
        "many-tables",
        "more tables than a component may have",
        limit("filter_too_complex", "filter_tables_max"),
        || Trial::of(&Guest::pass().core(&"(table 1 funcref)".repeat(50))),
    ),
];
