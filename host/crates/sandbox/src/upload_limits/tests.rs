use super::*;

const ROOM: CallMemoryLimits = CallMemoryLimits { memory_bytes_max: 1 << 20, table_elements_max: 100 };

fn looked_at(text: &str, set: impl FnOnce(&mut StructureLimits)) -> Result<(), UploadError> {
    let wasm = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut limits = StructureLimits::default();
    set(&mut limits);
    check(&wasm, &limits, ROOM).map(drop)
}

fn structure(what: &str, found: u64, limit_name: &str, limit: u64) -> Result<(), UploadError> {
    Err(UploadError::Structure { what: what.into(), found, limit_name: limit_name.into(), limit })
}

/// A component with two core modules, the second of which contains `text`.
fn module(text: &str) -> String {
    format!("(component (core module) (core module {text}))")
}

#[test]
fn each_total_has_a_limit() {
    let two = |part: &str| module(&part.repeat(2));
    for (text, words, limit_name, set) in [
        (
            two("(func)"),
            "functions",
            "filter_functions_max",
            (|limits| limits.functions_max = 1) as fn(&mut StructureLimits),
        ),
        (two("(type (func))"), "types", "filter_types_max", |limits| limits.types_max = 1),
        (two("(import \"a\" \"b\" (func))"), "imports", "filter_imports_max", |limits| limits.imports_max = 1),
        (module("(func (export \"a\")) (func (export \"b\"))"), "exports", "filter_exports_max", |limits| {
            limits.exports_max = 1
        }),
        (two("(global i32 (i32.const 0))"), "globals", "filter_globals_max", |limits| limits.globals_max = 1),
        (two("(memory 1)"), "memories", "filter_memories_max", |limits| limits.memories_max = 1),
        (two("(table 1 funcref)"), "tables", "filter_tables_max", |limits| limits.tables_max = 1),
        (two("(data \"x\")"), "segments", "filter_segments_max", |limits| limits.segments_max = 1),
        (module("(data \"x\") (elem func)"), "segments", "filter_segments_max", |limits| limits.segments_max = 1),
    ] {
        let what = format!("the number of {words} up to core module 1");
        assert_eq!(looked_at(&text, set), structure(&what, 2, limit_name, 1), "{text}");
        assert_eq!(looked_at(&text, |_| {}), Ok(()), "{text}");
    }
    let nested = "(component (core module) (component) (component))";
    let what = "the number of modules and components up to component 2";
    assert_eq!(looked_at(nested, |limits| limits.modules_max = 2), structure(what, 3, "filter_modules_max", 2));
}

#[test]
fn function_is_named_by_index() {
    let text = module("(import \"a\" \"b\" (func)) (func) (func (local i32 i32 i64) (block (loop (nop))) (block))");
    let of = |what: &str| format!("the {what} core module 1, function 2");
    assert_eq!(
        looked_at(&text, |limits| limits.locals_max = 2),
        structure(&of("number of locals of"), 3, "filter_locals_max", 2)
    );
    assert_eq!(
        looked_at(&text, |limits| limits.blocks_max = 1),
        structure(&of("nesting of blocks in"), 2, "filter_blocks_max", 1)
    );
    assert_eq!(looked_at(&text, |limits| limits.blocks_max = 2), Ok(()), "an ended block does not count");
    let Err(UploadError::Structure { what, limit_name, .. }) =
        looked_at(&text, |limits| limits.function_bytes_max = 10)
    else {
        panic!("a cap")
    };
    assert_eq!((what, limit_name.as_str()), (of("number of bytes of"), "filter_function_bytes_max"));
}

#[test]
fn locals_are_summed_without_overflow() {
    // Two groups of 2^32-1 locals each, in binary, because the text format would spell each of them out.
    let mut wasm =
        b"\0asm\x0d\0\x01\0\x01\x24\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x10\x01\x0e\x02".to_vec();
    for _ in 0..2 {
        wasm.extend(b"\xff\xff\xff\xff\x0f\x7f");
    }
    wasm.push(0x0b);
    let at = "the number of locals of core module 0, function 0";
    let refused = check(&wasm, &StructureLimits::default(), ROOM).map(drop);
    assert_eq!(refused, structure(at, u64::from(u32::MAX), "filter_locals_max", 20_000));
    // The sum exceeds the parser's own limit.
    let all = StructureLimits { locals_max: u64::MAX, ..StructureLimits::default() };
    let Err(UploadError::Invalid { detail }) = check(&wasm, &all, ROOM) else { panic!("too many") };
    assert!(detail.contains("locals"), "{detail}");
}

#[test]
fn initial_size_over_quota_is_refused() {
    let begins = |what: &str| format!("the {what} that core module 1 begins with");
    assert_eq!(
        looked_at(&module("(memory 17)"), |_| {}),
        structure(&begins("bytes of a memory"), 17 << 16, "memory_bytes_max", 1 << 20)
    );
    assert_eq!(
        looked_at(&module("(table 101 funcref)"), |_| {}),
        structure(&begins("elements of a table"), 101, "table_elements_max", 100)
    );
    assert_eq!(looked_at(&module("(memory 16) (table 100 funcref)"), |_| {}), Ok(()));
    assert!(looked_at(&module("(memory i64 0xffffffffffff)"), |_| {}).is_err(), "no overflow");
}

/// Nests components `levels` deep, each with ten instances of the one below.
fn fan_out(levels: u32, innermost: &str) -> String {
    let mut text = format!("(component $c {innermost})");
    for _ in 0..levels {
        text = format!("(component $c {text} {})", "(instance (instantiate $c))".repeat(10));
    }
    text
}

#[test]
fn nested_instances_are_multiplied() {
    let began = std::time::Instant::now();
    let refused = looked_at(&fan_out(10, ""), |_| {});
    assert!(began.elapsed() < std::time::Duration::from_secs(1), "{:?}", began.elapsed());
    let Err(UploadError::Structure { what, limit_name, limit: 1_000, found }) = refused else { panic!("{refused:?}") };
    assert_eq!(limit_name, "filter_instances_max");
    assert!(found > 1_000, "{found}");
    assert!(what.starts_with("the number of instances that one instance of component "), "{what}");

    assert_eq!(looked_at(&fan_out(2, ""), |limits| limits.instances_max = 110), Ok(()), "10, and 10 in each");
    assert!(looked_at(&fan_out(2, ""), |limits| limits.instances_max = 109).is_err());
    // Saturates: each level is the same component under another name, and a hundred levels would be 10^100 instances.
    assert!(looked_at(&fan_out(18, ""), |limits| limits.instances_max = u64::MAX).is_ok());
}

#[test]
fn nested_functions_and_links_are_multiplied() {
    let lifts = r#"(core module $m (func (export "f"))) (core instance $i (instantiate $m))
        (func (export "f") (canon lift (core func $i "f")))"#;
    let looked_at = |text: &str, set: fn(&mut StructureLimits)| {
        looked_at(text, |limits| {
            limits.core_instances_max = 100;
            set(limits);
        })
    };
    assert_eq!(looked_at(&fan_out(2, lifts), |_| {}), Ok(()));
    for (limit_name, refused) in [
        ("filter_functions_max", looked_at(&fan_out(2, lifts), |limits| limits.functions_max = 99)),
        ("filter_links_max", looked_at(&fan_out(2, lifts), |limits| limits.links_max = 199)),
    ] {
        let Err(UploadError::Structure { limit_name: named, .. }) = refused else {
            panic!("{limit_name}: {refused:?}")
        };
        assert_eq!(named, limit_name);
    }
    assert_eq!(looked_at(&fan_out(2, lifts), |limits| limits.functions_max = 100), Ok(()));
}

#[test]
fn memories_and_tables_count_per_instance() {
    // One definition of each, and three instances of it: two of the module and one through a component.
    let text = r#"(component
      (core module $m (memory 1) (table 1 funcref))
      (core instance (instantiate $m)) (core instance (instantiate $m))
      (component $c (alias outer 1 $m (core module $again)) (core instance (instantiate $again)))
      (instance (instantiate $c)))"#;
    for (words, limit_name, set) in [
        ("memories", "filter_memories_max", (|limits, max| limits.memories_max = max) as fn(&mut StructureLimits, u64)),
        ("tables", "filter_tables_max", |limits, max| limits.tables_max = max),
        ("core instances", "filter_core_instances_max", |limits, max| limits.core_instances_max = max),
    ] {
        assert_eq!(looked_at(text, |limits| set(limits, 3)), Ok(()), "{words}");
        let what = format!("the number of {words} that one instance of the outermost component comes to");
        assert_eq!(looked_at(text, |limits| set(limits, 2)), structure(&what, 3, limit_name, 2));
    }
    let exported = r#"(component (core module $m (memory 1)) (export $e "m" (core module $m))
      (core instance (instantiate $e)) (core instance (instantiate $e)))"#;
    assert_eq!(looked_at(exported, |limits| limits.memories_max = 2), Ok(()));
    assert!(looked_at(exported, |limits| limits.memories_max = 1).is_err(), "an alias costs the same");
}

#[test]
fn returns_names_of_outermost_component() {
    let wasm = wat::parse_str(
        r#"(component
          (import "wasi:io/poll@0.2.3" (instance)) (import "f" (func))
          (component (import "inner" (func)) (core module $m) (export "n" (core module $m)))
          (core module $m) (export "a:b/c@0.1.0" (core module $m)))"#,
    )
    .unwrap();
    let limits = StructureLimits::default();
    let names = check(&wasm, &limits, ROOM).unwrap();
    assert_eq!(names.imports, [("wasi:io/poll@0.2.3", true), ("f", false)]);
    assert_eq!(names.exports, ["a:b/c@0.1.0"]);
}

#[test]
fn aliased_component_costs_the_same() {
    let outer = r#"(component
      (component $big (core module $m) (core instance (instantiate $m)) (core instance (instantiate $m)))
      (component $user (alias outer 1 $big (component $again)) (instance (instantiate $again)))
      (instance (instantiate $user)))"#;
    assert_eq!(looked_at(outer, |limits| limits.instances_max = 4), Ok(()), "the user, the large one, and its two");
    assert!(looked_at(outer, |limits| limits.instances_max = 3).is_err());
}

#[test]
fn components_and_modules_as_values_are_refused() {
    for text in [
        r#"(component (component (import "c" (component))))"#,
        r#"(component (component (import "m" (core module))))"#,
        r#"(component (component $a (core module $b) (export "b" (core module $b)))
             (instance $i (instantiate $a)) (alias export $i "b" (core module)))"#,
        r#"(component (component $a (component $b) (export "b" (component $b)))
             (instance $i (instantiate $a)) (alias export $i "b" (component)))"#,
    ] {
        let refused = looked_at(text, |_| {});
        assert!(
            matches!(&refused, Err(UploadError::Invalid { detail }) if detail.contains("which no filter may")),
            "{refused:?}"
        );
    }
}

#[test]
fn nesting_is_limited() {
    let mut deep = "(component)".to_owned();
    for _ in 0..19 {
        deep = format!("(component {deep})");
    }
    assert_eq!(looked_at(&deep, |_| {}), Ok(()));
    let deeper = format!("(component {deep})");
    let what = "the nesting of component 20";
    assert_eq!(looked_at(&deeper, |_| {}), structure(what, 21, "filter_nesting_max", 20));
}

#[test]
fn nested_types_do_not_overflow_the_stack() {
    // A million nested instance types of three bytes each: a recursive parser would overflow its stack.
    let types = b"\x42\x01\x01".repeat(1_000_000);
    let mut section = vec![1];
    section.extend(types);
    let mut wasm = b"\0asm\x0d\0\x01\0\x07".to_vec();
    let mut length = section.len();
    while length >= 0x80 {
        wasm.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    wasm.push(u8::try_from(length).unwrap());
    wasm.extend(section);
    for nesting_max in [20, u64::MAX] {
        let limits = StructureLimits { nesting_max, ..StructureLimits::default() };
        let refused = check(&wasm, &limits, ROOM);
        let limit = nesting_max.min(100);
        let Err(UploadError::Structure { found, limit_name, limit: named, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!((found, limit_name.as_str(), named), (limit + 1, "filter_nesting_max", limit));
    }
}

#[test]
fn type_declarations_are_counted() {
    let text = r#"(component (type (component
        (core type (func)) (type string) (import "i" (func)) (export "e" (func)) (alias outer 1 0 (type)))))"#;
    let text = text.replacen("(type (component", "(type string) (type (component", 1);
    // The two outer types, each declaration, and the types of the two functions.
    assert_eq!(looked_at(&text, |limits| limits.types_max = 9), Ok(()));
    let refused = looked_at(&text, |limits| limits.types_max = 8);
    assert_eq!(refused, structure("the number of types up to the outermost component", 9, "filter_types_max", 8));
}

#[test]
fn unparsable_input_is_reported_with_offset() {
    let whole = wat::parse_str(module("(func)")).unwrap();
    for cut in [9, 12, whole.len() - 1] {
        let refused = check(&whole[..cut], &StructureLimits::default(), ROOM).map(drop);
        let Err(UploadError::Invalid { detail }) = refused else { panic!("{cut}: {refused:?}") };
        assert!(detail.contains("at offset 0x"), "{detail}");
    }
}
