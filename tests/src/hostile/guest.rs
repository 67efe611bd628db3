//! Hand-written hostile guests: each does one thing only.
//!
//! A guest consists of two core modules. The first one contains the memory and a `realloc` for results of host
//! functions; it comes first because a host function is lowered over a memory before the module that calls it exists.
//! The second one contains everything else: `process`, and the `realloc` for the incoming event.
//!
//! | address | content |
//! |---|---|
//! | 0 | the result of `process` |
//! | [`TEXT`] | texts of the guest |
//! | [`EVENT`] | the event |
//! | [`GIVEN`] | results of host functions, always at the same address |

/// Address of a guest's own texts.
pub const TEXT: u32 = 1024;
/// Address of the event.
pub const EVENT: u32 = 64 << 10;
/// Address of results of host functions.
pub const GIVEN: u32 = 512 << 10;
/// Default memory in pages: 1 MiB.
const PAGES: &str = "16";

/// Builds a filter.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The beginning of the component: imports, types, nested components.
    outer: String,
    /// Initial and maximum number of memory pages.
    pages: String,
    /// Host functions that it calls.
    calls: Vec<Calls>,
    /// Further code of the second core module.
    core: String,
    /// The body of the `realloc` for the event: locals 0 to 3 are its parameters.
    realloc: String,
    /// The body of `process`: local 0 is the event's address, and the result is the address of the verdict.
    process: String,
    /// Options of the lift of `process`, besides memory and `realloc`.
    lift: String,
    /// The interface in which `process` is exported.
    export: String,
    /// Whether it is one of two components of the filter.
    has_sibling: bool,
}

/// Host functions that a guest can call.
#[derive(Debug, Clone, Copy)]
pub struct Calls {
    /// The component's imports, and the lowered functions.
    pub outer: &'static str,
    /// The instantiation arguments of the core module.
    pub given: &'static str,
    /// The imports of the core module.
    pub core: &'static str,
}

/// `(call $log (level) (address) (length))`
pub const LOG: Calls = Calls {
    outer: r#"
(import "setgate:filter/log@0.1.0" (instance $log
  (type $levels (enum "debug" "info" "warn" "error"))
  (export "level" (type $level (eq $levels)))
  (export "write" (func (param "level" $level) (param "message" string)))))
(core func $log_write (canon lower (func $log "write") (memory (core memory $store "memory"))))"#,
    given: r#"(export "log" (func $log_write))"#,
    core: r#"(import "host" "log" (func $log (param i32 i32 i32)))"#,
};

/// `(call $config (address of the result))`: the whole config as text.
pub const CONFIG: Calls = Calls {
    outer: r#"
(import "setgate:filter/config@0.1.0" (instance $config (export "all" (func (result string)))))
(core func $config_all (canon lower (func $config "all")
  (memory (core memory $store "memory")) (realloc (core func $store "realloc"))))"#,
    given: r#"(export "config" (func $config_all))"#,
    core: r#"(import "host" "config" (func $config (param i32)))"#,
};

/// `(call $sleep (nanoseconds as i64))` returns a handle, `(call $block (handle))` waits for it.
pub const SLEEP: Calls = Calls {
    outer: r#"
(import "wasi:io/poll@0.2.0" (instance $poll
  (export "pollable" (type $pollable (sub resource)))
  (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
(alias export $poll "pollable" (type $ready))
(import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
  (alias outer 1 $ready (type $theirs))
  (export "pollable" (type $pollable (eq $theirs)))
  (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
(core func $subscribe (canon lower (func $clock "subscribe-duration")))
(core func $wait (canon lower (func $poll "[method]pollable.block")))"#,
    given: r#"(export "sleep" (func $subscribe)) (export "block" (func $wait))"#,
    core: r#"(import "host" "sleep" (func $sleep (param i64) (result i32)))
(import "host" "block" (func $block (param i32)))"#,
};

/// `(call $exit (0: success, 1: failure))`
pub const EXIT: Calls = Calls {
    outer: r#"
(import "wasi:cli/exit@0.2.0" (instance $cli (export "exit" (func (param "status" (result))))))
(core func $leave (canon lower (func $cli "exit")))"#,
    given: r#"(export "exit" (func $leave))"#,
    core: r#"(import "host" "exit" (func $exit (param i32)))"#,
};

/// `(call $stderr)` returns a stream, `(call $print (stream) (address) (length) (address of the result))` writes to it.
pub const STDERR: Calls = Calls {
    outer: r#"
(import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
(alias export $errors "error" (type $error))
(import "wasi:io/streams@0.2.0" (instance $streams
  (export "output-stream" (type $stream (sub resource)))
  (alias outer 1 $error (type $theirs)) (export "error" (type $failed (eq $theirs)))
  (type $cases (variant (case "last-operation-failed" (own $failed)) (case "closed")))
  (export "stream-error" (type $ended (eq $cases)))
  (export "[method]output-stream.blocking-write-and-flush"
    (func (param "self" (borrow $stream)) (param "contents" (list u8)) (result (result (error $ended)))))))
(alias export $streams "output-stream" (type $output))
(import "wasi:cli/stderr@0.2.0" (instance $terminal
  (alias outer 1 $output (type $theirs)) (export "output-stream" (type $stream (eq $theirs)))
  (export "get-stderr" (func (result (own $stream))))))
(core func $get (canon lower (func $terminal "get-stderr")))
(core func $put (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
  (memory (core memory $store "memory"))))"#,
    given: r#"(export "stderr" (func $get)) (export "print" (func $put))"#,
    core: r#"(import "host" "stderr" (func $stderr (result i32)))
(import "host" "print" (func $print (param i32 i32 i32 i32)))"#,
};

/// `(call $take (address) (length))` passes a text to another component of the same filter, see
/// [`Guest::beside_taker`].
const TAKER: Calls = Calls {
    outer: r#"
(import "take" (func $take (param "text" string)))
(core func $taken (canon lower (func $take) (memory (core memory $store "memory"))))"#,
    given: r#"(export "take" (func $taken))"#,
    core: r#"(import "host" "take" (func $take (param i32 i32)))"#,
};

/// `setgate:filter/types`, as imported by a component.
const TYPES: &str = r#"
(import "setgate:filter/types@0.1.0" (instance $types
  (type $event_fields (record
    (field "id" string) (field "issuer" string) (field "issued-at" u64) (field "accepted-at" u64)
    (field "types" (list string)) (field "subject" (option string))
    (field "tenant" string) (field "source" string) (field "subscription" string) (field "delivery" string)
    (field "claims" string)))
  (export "event" (type (eq $event_fields)))
  (type $verdicts (variant
    (case "pass") (case "patch" string) (case "replace" string) (case "drop" string)))
  (export "verdict" (type (eq $verdicts)))
  (type $failures (variant (case "transient" string) (case "permanent" string)))
  (export "failure" (type (eq $failures)))))
(alias export $types "event" (type $event))
(alias export $types "verdict" (type $verdict))
(alias export $types "failure" (type $failure))"#;

/// Instructions that return `pass`.
pub const PASS: &str = "(call $answer (i32.const 0) (i32.const 0) (i32.const 0))";

/// Instructions that return a patch: the text at this address with this length.
pub fn patch(at: u32, length: u32) -> String {
    format!("(call $answer (i32.const 1) (i32.const {at}) (i32.const {length}))")
}

/// Instructions that return a drop whose reason is the text at this address.
pub fn drop_because(at: u32, length: u32) -> String {
    format!("(call $answer (i32.const 3) (i32.const {at}) (i32.const {length}))")
}

/// Instructions that repeat `body`; the counter is `$n`, a local of the guest's `process`.
pub fn times(count: u32, body: &str) -> String {
    format!(
        "(local.set $n (i32.const {count}))
         (loop $next {body}
           (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
    )
}

impl Guest {
    /// A filter with this body of `process`.
    pub fn new(process: impl Into<String>) -> Self {
        Self {
            outer: String::new(),
            pages: PAGES.to_owned(),
            calls: Vec::new(),
            core: String::new(),
            realloc: "(local $at i32)
                (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                (global.set $top (i32.add (local.get $at) (local.get 3)))
                (local.get $at)"
                .to_owned(),
            process: process.into(),
            lift: String::new(),
            export: "setgate:filter/transform@0.1.0".to_owned(),
            has_sibling: false,
        }
    }

    /// A filter that passes everything.
    pub fn pass() -> Self {
        Self::new(PASS)
    }

    /// A filter that returns this text as a patch.
    pub fn patches(text: &str) -> Self {
        let length = u32::try_from(text.len()).expect("a short text");
        Self::new(patch(TEXT, length)).text(text)
    }

    /// A filter that returns this text as the whole claims.
    pub fn replaces(text: &str) -> Self {
        let answer = format!("(call $answer (i32.const 2) (i32.const {TEXT}) (i32.const {}))", text.len());
        Self::new(answer).text(text)
    }

    /// Adds a text at [`TEXT`].
    pub fn text(self, text: &str) -> Self {
        let bytes: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        self.core(&format!("(data (i32.const {TEXT}) \"{bytes}\")"))
    }

    /// Adds code to its core module.
    pub fn core(mut self, text: &str) -> Self {
        self.core += text;
        self
    }

    /// Adds code to the component, before the core modules.
    pub fn outer(mut self, text: &str) -> Self {
        self.outer += text;
        self
    }

    /// Sets the memory, such as `1` or `1 100` pages.
    pub fn pages(mut self, pages: &str) -> Self {
        pages.clone_into(&mut self.pages);
        self
    }

    /// Adds host functions.
    pub fn calls(mut self, calls: Calls) -> Self {
        self.calls.push(calls);
        self
    }

    /// Makes it one of two components of a filter: `(call $take (address) (length))` passes a text to the other one,
    /// which has a memory of 10 MiB for it.
    pub fn beside_taker(mut self) -> Self {
        self.has_sibling = true;
        self.calls(TAKER)
    }

    /// Replaces `realloc`.
    pub fn realloc(mut self, body: &str) -> Self {
        body.clone_into(&mut self.realloc);
        self
    }

    /// Adds options to the lift of `process`.
    pub fn lift(mut self, options: &str) -> Self {
        options.clone_into(&mut self.lift);
        self
    }

    /// Exports it under another name.
    pub fn export(mut self, name: &str) -> Self {
        name.clone_into(&mut self.export);
        self
    }

    /// The binary component.
    ///
    /// # Panics
    /// If the text is not a valid component.
    pub fn wasm(&self) -> Vec<u8> {
        let own = self.text_of();
        let text = if self.has_sibling { beside_taker(&own, &self.export) } else { own };
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn text_of(&self) -> String {
        let Self { outer, pages, calls, core, realloc, process, lift, export, has_sibling: _ } = self;
        let all = |part: fn(&Calls) -> &'static str| calls.iter().map(part).collect::<Vec<_>>().join("\n");
        let (lowered, given, imported) = (all(|c| c.outer), all(|c| c.given), all(|c| c.core));
        format!(
            r#"(component {TYPES} {outer}
  (core module $store
    (memory (export "memory") {pages})
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const {GIVEN})))
  (core instance $store (instantiate $store))
  {lowered}
  (core instance $host {given} (export "memory" (memory $store "memory")))
  (core module $guest
    (import "host" "memory" (memory 0))
    {imported}
    (global $top (mut i32) (i32.const {EVENT}))
    (func $answer (param $case i32) (param $at i32) (param $length i32) (result i32)
      (i64.store (i32.const 0) (i64.const 0))
      (i32.store8 (i32.const 4) (local.get $case))
      (i32.store (i32.const 8) (local.get $at))
      (i32.store (i32.const 12) (local.get $length))
      (i32.const 0))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc})
    {core}
    (func (export "process") (param $event i32) (result i32) (local $n i32) {process}))
  (core instance $guest (instantiate $guest (with "host" (instance $host))))
  (func $process (param "event" $event) (result (result $verdict (error $failure)))
    (canon lift (core func $guest "process")
      (memory (core memory $store "memory")) (realloc (core func $guest "realloc")) {lift}))
  (instance $transform (export "process" (func $process)))
  (export "{export}" (instance $transform)))"#
        )
    }
}

/// A filter of two components: the guest, and one that accepts texts from it.
fn beside_taker(guest: &str, export: &str) -> String {
    let guest = guest.strip_prefix("(component").expect("it is a component");
    format!(
        r#"(component {TYPES}
  (component $taker
    (core module $m
      (memory (export "memory") 160)
      (func (export "take") (param i32 i32))
      (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
    (core instance $i (instantiate $m))
    (func (export "take") (param "text" string)
      (canon lift (core func $i "take") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
  (instance $taker (instantiate $taker))
  (component $giver {guest}
  (instance $giver (instantiate $giver
    (with "setgate:filter/types@0.1.0" (instance $types)) (with "take" (func $taker "take"))))
  (export "{export}" (instance $giver "{export}")))"#
    )
}
