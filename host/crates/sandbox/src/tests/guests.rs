//! Handwritten guests that each do a single thing.

use bytes::Bytes;

/// Types of `setgate:filter/types`, as a component imports them.
const TYPES: &str = r#"
(import "setgate:filter/types@0.1.0" (instance $types
  (type $e (record
    (field "id" string) (field "issuer" string) (field "issued-at" u64) (field "accepted-at" u64)
    (field "types" (list string)) (field "subject" (option string)) (field "tenant" string) (field "source" string)
    (field "subscription" string) (field "delivery" string) (field "claims" string)))
  (export "event" (type (eq $e)))
  (type $v (variant (case "pass") (case "patch" string) (case "replace" string) (case "drop" string)))
  (export "verdict" (type (eq $v)))
  (type $f (variant (case "transient" string) (case "permanent" string)))
  (export "failure" (type (eq $f)))))
(alias export $types "event" (type $event))
(alias export $types "verdict" (type $verdict))
(alias export $types "failure" (type $failure))
"#;

/// Functions in the core module of every guest: `$answer` builds the result at address 0.
///
/// `(call $answer (ok or error) (case) (text's address) (text's length))`.
const CORE: &str = r#"
(func $answer (param i32 i32 i32 i32) (result i32)
  (i32.store8 (i32.const 0) (local.get 0))
  (i32.store8 (i32.const 4) (local.get 1))
  (i32.store (i32.const 8) (local.get 2))
  (i32.store (i32.const 12) (local.get 3))
  (i32.const 0))
(global $top (mut i32) (i32.const 4096))
(func (export "realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
  (local $at i32)
  (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
  (global.set $top (i32.add (local.get $at) (local.get $size)))
  (local.get $at))
"#;

/// A filter, assembled from the text of its `process` and other parts of its core module.
pub(super) struct Guest {
    /// Component imports, and their lowering to core functions.
    pub(super) imports: &'static str,
    /// Arguments of the core module's instantiation.
    pub(super) with: &'static str,
    /// Core imports, which a module has to list first.
    pub(super) core_imports: &'static str,
    /// The memory, exported as `memory`.
    pub(super) memory: &'static str,
    /// More definitions for the core module.
    pub(super) core: &'static str,
    /// The instructions of `process`. Local 0 is the event's address; they leave the result's address on the stack.
    pub(super) process: &'static str,
    /// The name of its export.
    pub(super) export: &'static str,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            imports: "",
            with: "",
            core_imports: "",
            memory: r#"(memory (export "memory") 1)"#,
            core: "",
            process: PASS,
            export: "setgate:filter/transform@0.1.0",
        }
    }
}

pub(super) const PASS: &str = "(call $answer (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))";

impl Guest {
    pub(super) fn wasm(&self) -> Bytes {
        parse(&self.text())
    }

    fn text(&self) -> String {
        let Self { imports, with, core_imports, memory, core, process, export } = self;
        format!(
            r#"(component {TYPES} {imports}
              (core module $m {core_imports} {memory} {CORE} {core}
                (func $process (export "process") (param i32) (result i32) {process}))
              (core instance $i (instantiate $m {with}))
              (func $process (param "event" $event) (result (result $verdict (error $failure)))
                (canon lift (core func $i "process") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
              (instance $transform (export "process" (func $process)))
              (export "{export}" (instance $transform)))"#
        )
    }
}

fn parse(text: &str) -> Bytes {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}")).into()
}

/// A filter of two components, one of which passes strings of 4 MiB to the other in an endless loop. The engine copies
/// each in one step.
pub(super) fn texts() -> Bytes {
    let giver = Guest {
        imports: r#"
(import "take" (func $take (param "text" string)))
(core module $mem (memory (export "memory") 80))
(core instance $mem (instantiate $mem))
(core func $take (canon lower (func $take) (memory (core memory $mem "memory"))))
(core instance $host (export "take" (func $take)) (export "memory" (memory $mem "memory")))"#,
        with: r#"(with "host" (instance $host))"#,
        core_imports: r#"
(import "host" "take" (func $take (param i32 i32)))
(import "host" "memory" (memory $memory 16))
(export "memory" (memory $memory))"#,
        memory: "",
        process: "(loop $again (call $take (i32.const 65536) (i32.const 4194304)) (br $again)) unreachable",
        ..Guest::default()
    };
    let (export, giver) = (giver.export, giver.text().replacen("(component", "(component $giver", 1));
    parse(&format!(
        r#"(component {TYPES}
          (component $taker
            (core module $m (memory (export "memory") 80)
              (func (export "take") (param i32 i32))
              (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8)))
            (core instance $i (instantiate $m))
            (func (export "take") (param "text" string)
              (canon lift (core func $i "take") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
          (instance $taker (instantiate $taker))
          {giver}
          (instance $giver (instantiate $giver
            (with "setgate:filter/types@0.1.0" (instance $types)) (with "take" (func $taker "take"))))
          (export "{export}" (instance $giver "{export}")))"#
    ))
}

/// A filter that only runs `process`.
pub(super) fn doing(process: &'static str) -> Bytes {
    Guest { process, ..Guest::default() }.wasm()
}

/// A filter that runs `process`, with `core` added to its core module.
pub(super) fn doing_with(core: &'static str, process: &'static str) -> Bytes {
    Guest { core, process, ..Guest::default() }.wasm()
}

/// A filter that passes everything.
pub(super) fn pass() -> Bytes {
    doing(PASS)
}

/// A filter that never ends.
pub(super) fn endless() -> Bytes {
    doing("(loop $again (br $again)) (unreachable)")
}

/// Imports of `log`: `(call $log (level) (address) (length))`.
pub(super) const LOG: Imports = Imports {
    imports: r#"
(import "setgate:filter/log@0.1.0" (instance $log
  (type $l (enum "debug" "info" "warn" "error")) (export "level" (type $level (eq $l)))
  (export "write" (func (param "level" $level) (param "message" string)))))
(core module $mem (memory (export "memory") 16))
(core instance $mem (instantiate $mem))
(core func $log (canon lower (func $log "write") (memory (core memory $mem "memory"))))
(core instance $host (export "write" (func $log)) (export "memory" (memory $mem "memory")))"#,
    with: r#"(with "host" (instance $host))"#,
    core_imports: r#"
(import "host" "write" (func $log (param i32 i32 i32)))
(import "host" "memory" (memory $memory 16))
(export "memory" (memory $memory))"#,
};

/// Imports of `config`: `(call $all (result's address))`.
pub(super) const CONFIG: Imports = Imports {
    imports: r#"
(import "setgate:filter/config@0.1.0" (instance $config (export "all" (func (result string)))))
(core module $mem (memory (export "memory") 16)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536)))
(core instance $mem (instantiate $mem))
(core func $all (canon lower (func $config "all") (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
(core instance $host (export "all" (func $all)) (export "memory" (memory $mem "memory")))"#,
    with: r#"(with "host" (instance $host))"#,
    core_imports: r#"
(import "host" "all" (func $all (param i32)))
(import "host" "memory" (memory $memory 16))
(export "memory" (memory $memory))"#,
};

/// Imports of `lookup`: `(call $get (table) (its length) (key) (its length) (result's address))`.
pub(super) const LOOKUP: Imports = Imports {
    imports: r#"
(import "setgate:filter/lookup@0.1.0" (instance $lookup
  (type $le (variant (case "no-such-table") (case "over-budget"))) (export "lookup-error" (type $e (eq $le)))
  (export "get" (func (param "table" string) (param "key" string) (result (result (option string) (error $e)))))))
(core module $mem (memory (export "memory") 16)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536)))
(core instance $mem (instantiate $mem))
(core func $get (canon lower (func $lookup "get") (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
(core instance $host (export "get" (func $get)) (export "memory" (memory $mem "memory")))"#,
    with: r#"(with "host" (instance $host))"#,
    core_imports: r#"
(import "host" "get" (func $get (param i32 i32 i32 i32 i32)))
(import "host" "memory" (memory $memory 16))
(export "memory" (memory $memory))"#,
};

/// Imports of the WASI functions that guests with the Rust standard library use: `(call $now (result))`, `(call $random
/// (count as i64) (result))`, `(call $stdout)` returns a stream, `(call $print (stream) (address) (length) (result))`,
/// `(call $sleep (nanoseconds))` returns a pollable, `(call $block (pollable))`, `(call $exit (status))`.
pub(super) const WASI: Imports = Imports {
    imports: r#"
(import "wasi:io/error@0.2.3" (instance $io-error (export "error" (type (sub resource)))))
(alias export $io-error "error" (type $error))
(import "wasi:io/poll@0.2.3" (instance $io-poll
  (export "pollable" (type $p (sub resource)))
  (export "[method]pollable.block" (func (param "self" (borrow $p))))))
(alias export $io-poll "pollable" (type $pollable))
(import "wasi:io/streams@0.2.3" (instance $io-streams
  (export "output-stream" (type $o (sub resource)))
  (alias outer 1 $error (type $oe)) (export "error" (type $e (eq $oe)))
  (type $se (variant (case "last-operation-failed" (own $e)) (case "closed")))
  (export "stream-error" (type $s (eq $se)))
  (export "[method]output-stream.blocking-write-and-flush"
    (func (param "self" (borrow $o)) (param "contents" (list u8)) (result (result (error $s)))))))
(alias export $io-streams "output-stream" (type $output))
(import "wasi:cli/stdout@0.2.3" (instance $cli-stdout
  (alias outer 1 $output (type $oo)) (export "output-stream" (type $o (eq $oo)))
  (export "get-stdout" (func (result (own $o))))))
(import "wasi:cli/exit@0.2.3" (instance $cli-exit (export "exit" (func (param "status" (result))))))
(import "wasi:clocks/wall-clock@0.2.3" (instance $wall
  (type $d (record (field "seconds" u64) (field "nanoseconds" u32))) (export "datetime" (type $dt (eq $d)))
  (export "now" (func (result $dt)))))
(import "wasi:clocks/monotonic-clock@0.2.3" (instance $mono
  (alias outer 1 $pollable (type $op)) (export "pollable" (type $p (eq $op)))
  (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
(import "wasi:filesystem/types@0.2.3" (instance $fs
  (export "descriptor" (type $d (sub resource)))
  (export "[method]descriptor.sync" (func (param "self" (borrow $d))))))
(import "wasi:random/random@0.2.3" (instance $random
  (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
(core module $mem (memory (export "memory") 16)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536)))
(core instance $mem (instantiate $mem))
(core func $now (canon lower (func $wall "now") (memory (core memory $mem "memory"))))
(core func $random (canon lower (func $random "get-random-bytes") (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
(core func $stdout (canon lower (func $cli-stdout "get-stdout")))
(core func $exit (canon lower (func $cli-exit "exit")))
(core func $print (canon lower (func $io-streams "[method]output-stream.blocking-write-and-flush") (memory (core memory $mem "memory"))))
(core func $sleep (canon lower (func $mono "subscribe-duration")))
(core func $block (canon lower (func $io-poll "[method]pollable.block")))
(core instance $host
  (export "now" (func $now)) (export "random" (func $random)) (export "stdout" (func $stdout))
  (export "print" (func $print)) (export "sleep" (func $sleep)) (export "block" (func $block))
  (export "exit" (func $exit)) (export "memory" (memory $mem "memory")))"#,
    with: r#"(with "host" (instance $host))"#,
    core_imports: r#"
(import "host" "now" (func $now (param i32)))
(import "host" "random" (func $random (param i64 i32)))
(import "host" "stdout" (func $stdout (result i32)))
(import "host" "print" (func $print (param i32 i32 i32 i32)))
(import "host" "sleep" (func $sleep (param i64) (result i32)))
(import "host" "block" (func $block (param i32)))
(import "host" "exit" (func $exit (param i32)))
(import "host" "memory" (memory $memory 16))
(export "memory" (memory $memory))"#,
};

/// Prepared imports. Their memory is in a separate module, since a function is lowered before the module that calls it
/// is instantiated.
pub(super) struct Imports {
    imports: &'static str,
    with: &'static str,
    core_imports: &'static str,
}

impl Imports {
    /// A filter with these imports.
    pub(super) fn doing(&self, core: &'static str, process: &'static str) -> Bytes {
        let Self { imports, with, core_imports } = *self;
        Guest { imports, with, core_imports, memory: "", core, process, ..Guest::default() }.wasm()
    }
}
