//! UploadError uploads, and their messages.

use super::guests::{self, CONFIG, Guest, LOOKUP};
use super::*;

/// Two instances of a module with a memory of 100 pages.
const APART: &str =
    "(core module $one (memory 100)) (core instance (instantiate $one)) (core instance (instantiate $one))";

async fn rejected(wasm: Bytes) -> UploadError {
    Fixture::new().upload(wasm).await.unwrap_err()
}

#[tokio::test]
async fn accepted_filter_reports_its_grants() {
    let fixture = Fixture::new();
    let pass = guests::pass();
    let compiled = fixture.upload(pass.clone()).await.unwrap();
    assert_eq!(compiled.digest, Digest(sha256(&pass)));
    assert_eq!(compiled.size_bytes, pass.len() as u64);
    assert_eq!(compiled.needs, BTreeSet::new());
    let lookup = fixture.upload(LOOKUP.doing("", guests::PASS)).await.unwrap();
    assert_eq!(lookup.needs, [Grant::Lookup].into());
    let config = fixture.upload(CONFIG.doing("", guests::PASS)).await.unwrap();
    assert_eq!(config.needs, [Grant::Config].into());
}

#[tokio::test]
async fn non_components_are_identified() {
    assert_eq!(rejected(wat::parse_str("(module)").unwrap().into()).await, UploadError::CoreModule);
    assert_eq!(rejected(Bytes::from_static(b"\x7fELF....")).await.kind(), "not_wasm");
    assert_eq!(rejected(Bytes::new()).await.kind(), "not_wasm");
    let engine = engine::compile_only().unwrap();
    let machine_code = engine.precompile_component(&guests::pass()).unwrap();
    assert_eq!(rejected(machine_code.into()).await, UploadError::Precompiled);
    let cut = guests::pass().slice(..100);
    assert_eq!(rejected(cut).await.kind(), "invalid");
}

#[tokio::test]
async fn oversized_filter_is_refused_unparsed() {
    let mut fixture = Fixture::new();
    fixture.quota.filter_bytes_max = 10;
    let bytes = guests::pass().len() as u64;
    assert_eq!(fixture.upload(guests::pass()).await.unwrap_err(), UploadError::TooLarge { bytes, limit: 10 });
}

#[tokio::test]
async fn component_of_other_world_is_refused_with_reason() {
    let empty = wat::parse_str("(component)").unwrap();
    assert_eq!(rejected(empty.into()).await, UploadError::NoTransform { exports: "nothing".into() });
    let newer = Guest { export: "setgate:filter/transform@0.2.0", ..Guest::default() }.wasm();
    assert_eq!(rejected(newer).await, UploadError::WrongVersion { export: "setgate:filter/transform@0.2.0".into() });
    let patched = Guest { export: "setgate:filter/transform@0.1.9", ..Guest::default() }.wasm();
    assert!(Fixture::new().run(patched).await.verdict.is_ok());
    let other_types = wat::parse_str(
        r#"(component
             (core module $m (func (export "process")))
             (core instance $i (instantiate $m))
             (func $process (canon lift (core func $i "process")))
             (instance $transform (export "process" (func $process)))
             (export "setgate:filter/transform@0.1.0" (instance $transform)))"#,
    );
    assert_eq!(rejected(other_types.unwrap().into()).await.kind(), "wrong_types");
}

#[tokio::test]
async fn unavailable_imports_are_refused() {
    for import in [
        r#"(import "wasi:http/types@0.3.0" (instance $h (export "f" (func))))"#,
        r#"(import "wasi:keyvalue/store@0.2.0" (instance $s (export "open" (func))))"#,
        r#"(import "wasi:sockets/tcp@0.2.0" (func))"#,
        r#"(import "setgate:filter/http@0.1.0" (instance $h (export "f" (func))))"#,
        r#"(import "bare" (func))"#,
    ] {
        let why = rejected(Guest { imports: import, ..Guest::default() }.wasm()).await;
        assert_eq!(why.kind(), "import", "{import}: {why}");
    }
    let newer = r#"(import "setgate:filter/log@0.1.4" (instance $l (export "flush" (func))))"#;
    assert_eq!(rejected(Guest { imports: newer, ..Guest::default() }.wasm()).await.kind(), "wrong_types");
}

#[tokio::test]
async fn import_is_refused_before_compile() {
    let fixture = Fixture::with(|options| options.compiler = Some("/nowhere/compiler".into()));
    for (imports, export, kind) in [
        (
            r#"(import "malicious:net/tcp@1.0.0" (instance $h (export "f" (func))))"#,
            "setgate:filter/transform@0.1.0",
            "import",
        ),
        (
            r#"(import "setgate:filter/http@0.1.0" (instance $h (export "f" (func))))"#,
            "setgate:filter/transform@0.1.0",
            "import",
        ),
        ("", "setgate:filter/transform@0.2.0", "wrong_version"),
        ("", "setgate:other/transform@0.1.0", "no_transform"),
    ] {
        let why = fixture.upload(Guest { imports, export, ..Guest::default() }.wasm()).await.unwrap_err();
        assert_eq!(why.kind(), kind, "{imports} {export}: {why}");
    }
    assert_eq!(fixture.upload(guests::pass()).await.unwrap_err().kind(), "host", "this one reaches the compiler");
}

#[tokio::test]
async fn filter_memories_max_limits_memories() {
    let more = |core| guests::doing_with(core, guests::PASS);
    assert!(Fixture::new().run(more("(memory 1) (memory 1)")).await.verdict.is_ok(), "three memories");
    let most = Fixture::with(|options| options.structure.memories_max = 5);
    let wasm = more("(memory 1) (memory 1) (memory 1) (memory 1)");
    assert!(most.run(wasm.clone()).await.verdict.is_ok(), "as many as allowed");
    let less = Fixture::with(|options| options.structure.memories_max = 4).upload(wasm).await.unwrap_err();
    let UploadError::Structure { limit_name, limit, found, .. } = &less else { panic!("{less}") };
    assert_eq!((limit_name.as_str(), *limit, *found), ("filter_memories_max", 4, 5));

    // In separate modules, as in composed guests. All memories count towards one limit.
    let apart = |imports| Guest { imports, ..Guest::default() }.wasm();
    let ran = Fixture::new().run(apart(APART)).await;
    assert_eq!(ran.run.memory_bytes, 201 << 16, "all memories of a call count");
    let two = Fixture::with(|options| options.structure.memories_max = 2).upload(apart(APART)).await.unwrap_err();
    assert_eq!(two.kind(), "structure", "{two}");
}

#[tokio::test]
async fn tables_and_core_instances_up_to_limits_are_accepted() {
    let tables = guests::doing_with("(table 1 funcref) (table 1 funcref) (table 1 funcref)", guests::PASS);
    assert!(Fixture::with(|options| options.structure.tables_max = 3).run(tables.clone()).await.verdict.is_ok());
    let refused = Fixture::with(|options| options.structure.tables_max = 2).upload(tables).await.unwrap_err();
    assert!(
        matches!(&refused, UploadError::Structure { limit_name, .. } if limit_name == "filter_tables_max"),
        "{refused}"
    );
    let apart = Guest { imports: APART, ..Guest::default() }.wasm();
    assert!(Fixture::with(|options| options.structure.core_instances_max = 3).run(apart.clone()).await.verdict.is_ok());
    let refused = Fixture::with(|options| options.structure.core_instances_max = 2).upload(apart).await.unwrap_err();
    assert!(
        matches!(&refused, UploadError::Structure { limit_name, .. } if limit_name == "filter_core_instances_max"),
        "{refused}"
    );
}

#[tokio::test]
async fn filter_that_cannot_start_within_quota_is_refused() {
    let mut fixture = Fixture::new();
    fixture.quota.fuel_per_call = 100_000;
    let endless = guests::doing_with("(func $start (loop $again (br $again))) (start $start)", guests::PASS);
    assert_eq!(
        fixture.upload(endless).await.unwrap_err(),
        UploadError::Start(Fault::Fuel { limit: 100_000, function: own("start") })
    );
    let traps = guests::doing_with("(func $start unreachable) (start $start)", guests::PASS);
    assert_eq!(fixture.upload(traps).await.unwrap_err().kind(), "start");

    let (wanted, limit) = (1_000 << 16, 32 << 20);
    // Each would fit alone.
    let two = Guest { memory: r#"(memory (export "memory") 501)"#, core: "(memory 499)", ..Guest::default() }.wasm();
    assert_eq!(
        fixture.upload(two).await.unwrap_err(),
        UploadError::Start(Fault::Memory { wanted, limit, function: None })
    );
    let tables = guests::doing_with("(table 7000 funcref) (table 8000 funcref)", guests::PASS);
    assert_eq!(
        fixture.upload(tables).await.unwrap_err(),
        UploadError::Start(Fault::Table { wanted: 15_000, limit: 10_000 })
    );
}

#[tokio::test]
async fn too_complex_filter_is_refused_before_compile() {
    let fixture = Fixture::with(|options| {
        options.compiler = Some("/nowhere/compiler".into());
        options.structure.functions_max = 2;
    });
    let expected = UploadError::Structure {
        what: "the number of functions up to core module 0".into(),
        found: 3,
        limit_name: "filter_functions_max".into(),
        limit: 2,
    };
    assert_eq!(fixture.upload(guests::pass()).await.unwrap_err(), expected);
}

#[tokio::test]
async fn initial_sizes_over_host_limits_are_refused() {
    let mut fixture = Fixture::new();
    let limited = |what: &str, found, limit_name: &str, limit| UploadError::Structure {
        what: format!("the {what} that core module 0 begins with"),
        found,
        limit_name: limit_name.into(),
        limit,
    };
    let large = Guest { memory: r#"(memory (export "memory") 1000)"#, ..Guest::default() }.wasm();
    let refused = limited("bytes of a memory", 1_000 << 16, "memory_bytes_max", 32 << 20);
    assert_eq!(fixture.upload(large).await.unwrap_err(), refused);
    let table = guests::doing_with("(table 15000 funcref)", guests::PASS);
    let refused = limited("elements of a table", 15_000, "table_elements_max", 10_000);
    assert_eq!(fixture.upload(table).await.unwrap_err(), refused);

    // A quota above the size of a pool slot is capped at that size.
    fixture.quota.memory_bytes_max = 1 << 40;
    let huge = Guest { memory: r#"(memory (export "memory") 20000)"#, ..Guest::default() }.wasm();
    let refused = limited("bytes of a memory", 20_000 << 16, "memory_bytes_max", 128 << 20);
    assert_eq!(fixture.upload(huge).await.unwrap_err(), refused);
}

#[tokio::test]
async fn disabled_proposals_are_refused() {
    for off in [
        "(memory i64 1)",
        "(func (result v128) (f32x4.relaxed_madd (v128.const i64x2 0 0) (v128.const i64x2 0 0) (v128.const i64x2 0 0)))",
        "(memory 1 1 shared)",
        "(tag $t)",
    ] {
        assert_eq!(rejected(guests::doing_with(off, guests::PASS)).await.kind(), "invalid", "{off}");
    }
}
