//! The compiler process, from the parent's side. Shell scripts replace the compiler; the integration tests run the real
//! one, because they have a binary.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

/// Serialises these tests: a process that another test forks may still hold a script open for writing when this test
/// executes it.
pub(super) static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A fixture with a shell script as compiler.
async fn compiler(script: &str) -> (Fixture, tempfile::TempDir, tokio::sync::MutexGuard<'static, ()>) {
    let one = ONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("compiler");
    write_program(&program, script);
    let fixture = Fixture::with(|options| {
        options.compiler = Some(program);
        options.compile_wall_ms_max = 300;
        options.compile_cpu_s_max = 7;
        options.compile_memory_bytes_max = 9;
    });
    (fixture, dir, one)
}

fn write_program(path: &Path, script: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
}

async fn rejected(script: &str) -> UploadError {
    let (fixture, _dir, _one) = compiler(script).await;
    fixture.upload(guests::pass()).await.unwrap_err()
}

fn limit(limit_name: &str, limit: u64) -> UploadError {
    UploadError::CompileLimit { limit_name: limit_name.into(), limit }
}

#[tokio::test]
async fn hung_compiler_is_killed() {
    let began = Instant::now();
    assert_eq!(rejected("exec sleep 60").await, limit("compile_wall_ms_max", 300));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn exceeded_compile_limits_are_named() {
    assert_eq!(rejected("cat >/dev/null; kill -XCPU $$").await, limit("compile_cpu_s_max", 7));
    assert_eq!(rejected("cat >/dev/null; kill -ABRT $$").await, limit("compile_memory_bytes_max", 9));
    assert_eq!(rejected("cat >/dev/null; exit 4").await, limit("compile_memory_bytes_max", 9));
}

#[tokio::test]
async fn compiler_failures_distinguish_upload_and_host() {
    let why = rejected("cat >/dev/null; echo 'bad section' >&2; exit 3").await;
    assert_eq!(why, UploadError::Invalid { detail: "bad section".into() });
    // The sender of SIGKILL is unknown: it may be the kernel's OOM killer.
    for script in ["exit 1", "cat >/dev/null; kill -KILL $$"] {
        let why = rejected(script).await;
        assert!(why.is_host_error(), "{why}");
    }
    let (fixture, dir, _one) = compiler("").await;
    drop(dir);
    assert!(fixture.upload(guests::pass()).await.unwrap_err().is_host_error(), "no compiler");
}

#[tokio::test]
async fn compiler_gets_limits_but_no_environment() {
    let script = r#"d=$(dirname "$0"); cat >"$d/in"; env >"$d/env"; echo "$1" >"$d/arg"; exit 3"#;
    let (fixture, dir, _one) = compiler(script).await;
    assert!(fixture.upload(guests::pass()).await.is_err());
    let read = |name| std::fs::read(dir.path().join(name)).unwrap();
    let expected = [&9u64.to_le_bytes()[..], &7u64.to_le_bytes(), &guests::pass()].concat();
    assert_eq!(read("in"), expected);
    assert_eq!(read("arg"), b"compile-filter\n");
    let env = String::from_utf8(read("env")).unwrap();
    assert!(!env.contains("CARGO"), "{env}");
}

#[tokio::test]
async fn compiler_output_is_limited() {
    let why = rejected("cat >/dev/null; yes 'no' | head -c 100000 >&2; exit 3").await;
    assert!(why.to_string().len() < 700, "{why}");
}
