//! Files, sockets and HTTP can be imported, and calls to them are denied.

use super::guests::{self, Guest};
use super::*;

/// A filter that imports `imports`, which lowers the core function `$denied`, and calls it.
fn calling(imports: &'static str, core_imports: &'static str, process: &'static str) -> Bytes {
    let with = r#"(with "host" (instance $host))"#;
    Guest { imports, with, core_imports, process, ..Guest::default() }.wasm()
}

const TAKES_NONE: &str = r#"(import "host" "denied" (func $denied (result i32)))"#;
const CALLS: &str = "(drop (call $denied)) unreachable";

const SOCKETS: &str = r#"
(import "wasi:sockets/network@0.2.3" (instance $network
  (export "network" (type (sub resource)))
  (type $families (enum "ipv4" "ipv6")) (export "ip-address-family" (type (eq $families)))))
(alias export $network "ip-address-family" (type $family))
(import "wasi:sockets/tcp@0.2.3" (instance $tcp (export "tcp-socket" (type (sub resource)))))
(alias export $tcp "tcp-socket" (type $socket))
(import "wasi:sockets/tcp-create-socket@0.2.3" (instance $create
  (alias outer 1 $family (type $f)) (export "ip-address-family" (type $family (eq $f)))
  (alias outer 1 $socket (type $s)) (export "tcp-socket" (type $socket (eq $s)))
  (export "create-tcp-socket" (func (param "address-family" $family) (result (own $socket))))))
(core func $denied (canon lower (func $create "create-tcp-socket")))
(core instance $host (export "denied" (func $denied)))"#;

/// Like a real HTTP client: uses `error` of `wasi:io/error` under another name, and one resource in two interfaces.
const HTTP: &str = r#"
(import "wasi:io/error@0.2.8" (instance $errors (export "error" (type (sub resource)))))
(alias export $errors "error" (type $error))
(import "wasi:http/types@0.2.8" (instance $http
  (alias outer 1 $error (type $e)) (export "io-error" (type $io (eq $e)))
  (export "fields" (type $fields (sub resource)))
  (export "outgoing-request" (type $request (sub resource)))
  (export "[constructor]fields" (func (result (own $fields))))
  (export "[method]outgoing-request.set-method" (func (param "self" (borrow $request)) (param "method" string)))
  (export "http-error-code" (func (param "err" (borrow $io)) (result (option u8))))))
(alias export $http "outgoing-request" (type $request))
(import "wasi:http/outgoing-handler@0.2.8" (instance $handler
  (alias outer 1 $request (type $r)) (export "outgoing-request" (type $request (eq $r)))
  (export "handle" (func (param "request" (own $request)) (result u32)))))
(core func $denied (canon lower (func $http "[constructor]fields")))
(core instance $host (export "denied" (func $denied)))"#;

const FILES: &str = r#"
(import "wasi:filesystem/types@0.2.0" (instance $files
  (export "descriptor" (type $descriptor (sub resource)))
  (export "[method]descriptor.sync" (func (param "self" (borrow $descriptor))))
  (export "open-at-root" (func (result (own $descriptor))))))
(core func $denied (canon lower (func $files "open-at-root")))
(core instance $host (export "denied" (func $denied)))"#;

/// An interface that our own list does not name, in a package that is permitted as a whole.
const TIMEZONE: &str = r#"
(import "wasi:clocks/timezone@0.2.9" (instance $zone (export "utc-offset" (func (result s32)))))
(core func $denied (canon lower (func $zone "utc-offset")))
(core instance $host (export "denied" (func $denied)))"#;

#[tokio::test]
async fn denied_wasi_call_is_named_in_fault() {
    for (imports, core_imports, process, call) in [
        (
            SOCKETS,
            r#"(import "host" "denied" (func $denied (param i32) (result i32)))"#,
            "(drop (call $denied (i32.const 0))) unreachable",
            "wasi:sockets/tcp-create-socket.create-tcp-socket",
        ),
        (HTTP, TAKES_NONE, CALLS, "wasi:http/types.[constructor]fields"),
        (FILES, TAKES_NONE, CALLS, "wasi:filesystem/types.open-at-root"),
        (TIMEZONE, TAKES_NONE, CALLS, "wasi:clocks/timezone.utc-offset"),
    ] {
        let fault = Fixture::new().fault(calling(imports, core_imports, process)).await;
        let Fault::Trap { detail } = &fault else { panic!("{call}: {fault}") };
        assert!(detail.starts_with(&format!("{call} is not available to filters")), "{detail}");
    }
}

#[tokio::test]
async fn uncalled_imports_have_no_effect() {
    for imports in [SOCKETS, HTTP, FILES, TIMEZONE] {
        let ran = Fixture::new().run(calling(imports, "", guests::PASS)).await;
        assert!(ran.verdict.is_ok(), "{imports}: {:?}", ran.verdict);
    }
}
