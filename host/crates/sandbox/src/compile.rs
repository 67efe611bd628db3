//! Compiles filters in a child process of the same binary.
//!
//! The engine makes no promises about the cost of compiling hostile input: a compile may take very long, use very much
//! memory, or crash. The child limits its own memory and CPU time, the parent limits the wall-clock time, and `filters`
//! limits how many compiles run at once.
//!
//! Protocol: the parent writes [`ResourceLimits`] followed by the component to the child's standard input. The child
//! writes the artefact to standard output and exits with 0, or writes an error message to standard error and exits with
//! [`INVALID`] or [`OUT_OF_MEMORY`].

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::artefact::Artefact;
use super::{Options, UploadError, engine};

/// The subcommand that runs this program as the compiler: `setgate compile-filter`.
pub const COMPILER_ARGUMENT: &str = "compile-filter";

/// Exit code if the component is invalid.
const INVALID: u8 = 3;
/// Exit code if an allocation failed and the error could be handled. Most failed allocations abort the process instead.
const OUT_OF_MEMORY: u8 = 4;
/// Largest accepted artefact, in bytes. SpiderMonkey compiles to 43 MB.
const ARTEFACT_BYTES_MAX: u64 = 512 << 20;
/// Bytes of the compiler's standard error that are read.
const STDERR_BYTES_MAX: u64 = 4 << 10;
/// Niceness of the child. Compiles are less urgent than deliveries, so the compiler yields to guests, which yield to
/// the host (`super::GUEST_NICENESS`).
const NICENESS: i32 = 10;
/// Makes the allocator reserve memory in steps of MiB instead of GiB, because reserved memory counts against the
/// child's limits.
const ALLOCATOR: [(&str, &str); 2] = [("MIMALLOC_ARENA_RESERVE", "32MiB"), ("MIMALLOC_ARENA_EAGER_COMMIT", "0")];

/// Compiles each component in its own process.
pub(super) struct Compiler {
    program: Option<PathBuf>,
    wall_ms_max: u64,
    limits: ResourceLimits,
}

/// Header that the parent sends before the component: the limits that the child sets on itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ResourceLimits {
    memory_bytes_max: u64,
    cpu_seconds_max: u64,
}

impl Compiler {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            program: options.compiler.clone(),
            wall_ms_max: options.compile_wall_ms_max,
            limits: ResourceLimits {
                memory_bytes_max: options.compile_memory_bytes_max,
                cpu_seconds_max: options.compile_cpu_s_max,
            },
        }
    }

    /// Compiles `wasm` immediately, without a queue.
    pub(super) async fn compile(&self, wasm: Bytes) -> Result<Artefact, UploadError> {
        let Some(program) = &self.program else {
            let compile = move || engine::compile_only()?.precompile_component(&wasm);
            let compiled = tokio::task::spawn_blocking(compile).await.map_err(host_failed)?;
            return compiled.map(Artefact::compiled).map_err(|error| invalid(&format!("{error:#}")));
        };
        let mut command = Command::new(program);
        command
            .arg(COMPILER_ARGUMENT)
            .env_clear() // the host's environment may contain keys, which the compiler must not see
            .envs(ALLOCATOR)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let limit = Duration::from_millis(self.wall_ms_max);
        match tokio::time::timeout(limit, exchange(command, self.limits, wasm)).await {
            Ok(exchanged) => self.interpret_exit(exchanged.map_err(host_failed)?),
            // Dropping the exchange's future kills the child.
            Err(_) => Err(limit_exceeded("compile_wall_ms_max", self.wall_ms_max)),
        }
    }

    fn interpret_exit(
        &self,
        (status, artefact, words): (ExitStatus, Vec<u8>, Vec<u8>),
    ) -> Result<Artefact, UploadError> {
        let words = String::from_utf8_lossy(&words);
        match (status.code(), status.signal()) {
            (Some(0), _) if artefact.len() as u64 > ARTEFACT_BYTES_MAX => {
                Err(invalid("its machine code is larger than 512 MiB"))
            }
            (Some(0), _) => Ok(Artefact::compiled(artefact)),
            (Some(code), _) if code == i32::from(INVALID) => Err(invalid(&words)),
            (Some(code), _) if code == i32::from(OUT_OF_MEMORY) => {
                Err(limit_exceeded("compile_memory_bytes_max", self.limits.memory_bytes_max))
            }
            // SIGKILL is not attributed to a limit: the kernel's OOM killer sends it too.
            (_, Some(SIGXCPU)) => Err(limit_exceeded("compile_cpu_s_max", self.limits.cpu_seconds_max)),
            // Rust aborts if an allocation fails.
            (_, Some(SIGABRT)) => Err(limit_exceeded("compile_memory_bytes_max", self.limits.memory_bytes_max)),
            _ => Err(UploadError::Host { detail: format!("the compiler ended with {status}: {}", bounded(&words)) }),
        }
    }
}

const SIGABRT: i32 = 6;
const SIGXCPU: i32 = 24;

async fn exchange(
    mut command: Command,
    limits: ResourceLimits,
    wasm: Bytes,
) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let mut child = command.spawn()?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(std::io::Error::other("the compiler has no pipes"));
    };
    let (mut artefact, mut words) = (Vec::new(), Vec::new());
    let writing = async move {
        // Ignore write errors: a child that stops reading reports the reason on its other pipes.
        let _ = stdin.write_all(&limits.to_bytes()).await;
        let _ = stdin.write_all(&wasm).await;
    };
    let mut stdout = stdout.take(ARTEFACT_BYTES_MAX + 1);
    let mut stderr = stderr.take(STDERR_BYTES_MAX);
    let ((), read_artefact, read_stderr) =
        tokio::join!(writing, stdout.read_to_end(&mut artefact), stderr.read_to_end(&mut words));
    read_artefact?;
    read_stderr?;
    // Output past the bounds is not read. Close the pipes, otherwise the child would block on them.
    drop((stdout, stderr));
    Ok((child.wait().await?, artefact, words))
}

/// Entry point of the child process: reads `ResourceLimits` and a component, and writes an artefact. The CLI calls this
/// for `setgate compile-filter` before any other setup.
pub fn compiler_main() -> ExitCode {
    let (code, words) = match compile_stdin() {
        Ok(artefact) => match std::io::stdout().write_all(&artefact).and_then(|()| std::io::stdout().flush()) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (ExitCode::FAILURE, error.to_string()),
        },
        Err(UploadError::Invalid { detail }) => (ExitCode::from(INVALID), detail),
        Err(why @ UploadError::CompileLimit { .. }) => (ExitCode::from(OUT_OF_MEMORY), why.to_string()),
        Err(other) => (ExitCode::FAILURE, other.to_string()),
    };
    let _ = std::io::stderr().write_all(words.as_bytes());
    code
}

fn compile_stdin() -> Result<Vec<u8>, UploadError> {
    let mut stdin = std::io::stdin().lock();
    let mut limits = [0; ResourceLimits::BYTES];
    stdin.read_exact(&mut limits).map_err(host_failed)?;
    let limits = ResourceLimits::from_bytes(limits);
    limits.apply().map_err(host_failed)?;
    let no_memory = || limit_exceeded("compile_memory_bytes_max", limits.memory_bytes_max);
    let mut wasm = Vec::new();
    match stdin.read_to_end(&mut wasm) {
        Ok(_) => {}
        // The buffer for a large component may already exceed the memory limit.
        Err(error) if error.kind() == std::io::ErrorKind::OutOfMemory => return Err(no_memory()),
        Err(error) => return Err(host_failed(error)),
    }
    let engine = engine::compile_only().map_err(host_failed)?;
    engine
        .precompile_component(&wasm)
        .map_err(|error| if error.is::<wasmtime::OutOfMemory>() { no_memory() } else { invalid(&format!("{error:#}")) })
}

impl ResourceLimits {
    const BYTES: usize = 16;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.memory_bytes_max.to_le_bytes());
        bytes[8..].copy_from_slice(&self.cpu_seconds_max.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            memory_bytes_max: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            cpu_seconds_max: u64::from_le_bytes([i, j, k, l, m, n, o, p]),
        }
    }

    /// Sets the limits on the current process.
    fn apply(self) -> rustix::io::Result<()> {
        let limit = |resource, current: u64, maximum: u64| {
            setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) })
        };
        // Written memory counts against `Data`; memory that is only reserved (allocator arenas, stacks) counts against
        // `As`.
        limit(Resource::Data, self.memory_bytes_max, self.memory_bytes_max)?;
        let reserved = self.memory_bytes_max.saturating_mul(2).saturating_add(2 << 30);
        limit(Resource::As, reserved, reserved)?;
        // The soft limit sends SIGXCPU, which identifies the limit. The hard limit sends SIGKILL, which does not.
        limit(Resource::Cpu, self.cpu_seconds_max, self.cpu_seconds_max.saturating_add(1))?;
        limit(Resource::Core, 0, 0)?;
        limit(Resource::Fsize, 0, 0)?;
        rustix::process::nice(NICENESS)?;
        Ok(())
    }
}

fn limit_exceeded(limit_name: &str, limit: u64) -> UploadError {
    UploadError::CompileLimit { limit_name: limit_name.to_owned(), limit }
}

fn invalid(words: &str) -> UploadError {
    UploadError::Invalid { detail: bounded(words) }
}

fn bounded(words: &str) -> String {
    super::log::printable(super::log::cut_to(words.trim(), 500))
}

fn host_failed(error: impl std::fmt::Display) -> UploadError {
    UploadError::Host { detail: error.to_string() }
}
