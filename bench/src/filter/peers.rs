//! Controls `bench/peers`, a separate process with the peers' engines, by lines on its standard input.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The running program; killed on drop.
pub(super) struct Peers {
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

#[derive(Serialize)]
struct Ask<'a> {
    act: &'a str,
    claims: &'a str,
    millis: u64,
    threads: usize,
}

/// Measurements: calls per second over all threads, and CPU microseconds per call.
#[derive(Deserialize)]
pub(super) struct Answer {
    /// A plug-in for each call.
    pub(super) fresh_per_second: f64,
    pub(super) fresh_cpu_us: f64,
    /// One plug-in per thread.
    pub(super) kept_per_second: f64,
    pub(super) kept_cpu_us: f64,
}

/// Path of the program, or the reason for which it is not measured.
pub(super) fn program() -> Result<PathBuf, String> {
    let program = std::env::var_os("BENCH_PEERS").filter(|value| !value.is_empty()).map(PathBuf::from);
    program.ok_or_else(|| "BENCH_PEERS does not name the program, see `cargo xtask guests --peers`".to_owned())
}

impl Peers {
    /// Starts the program with its own plug-in. It inherits the pinning of the current thread.
    pub(super) fn start(program: &Path, plugin: &Path) -> anyhow::Result<Self> {
        let mut process = Command::new(program)
            .arg(plugin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let asks = process.stdin.take().context("its input")?;
        let answers = BufReader::new(process.stdout.take().context("its output")?);
        Ok(Self { process, asks, answers })
    }

    /// Repeats calls for the given time.
    pub(super) fn repeat(
        &mut self,
        act: &str,
        claims: &str,
        threads: usize,
        lasts: Duration,
    ) -> anyhow::Result<Answer> {
        let millis = u64::try_from(lasts.as_millis())?;
        writeln!(self.asks, "{}", serde_json::to_string(&Ask { act, claims, millis, threads })?)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the peers' program answered {line:?}"))
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}
