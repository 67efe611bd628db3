//! `setgate serve`

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::notify;
use crate::app::{self, Listening};
use crate::cli::out::say;
use crate::config::{self, Address, Config};
use crate::crypto;
use crate::telemetry;

/// An operator's key file is read this far; a key is far shorter.
const KEY_FILE_BYTES_MAX: u64 = 1024;

/// Options of `serve`; each overrides its configuration key.
#[derive(Debug, Parser)]
pub struct Args {
    /// Configuration file; `setgate.toml` of the current folder where absent.
    #[arg(long, env = "SETGATE_CONFIG")]
    config: Option<PathBuf>,
    /// `listen.address`
    #[arg(long)]
    listen: Option<Address>,
    /// `data.dir`
    #[arg(long)]
    data: Option<PathBuf>,
    /// Write the operator's key, where one is made, to this new file (mode 0600) instead of standard output.
    #[arg(long, env = "SETGATE_OPERATOR_KEY_FILE")]
    operator_key_file: Option<PathBuf>,
    /// Make another operator's key at this start, where the one so far was lost. Those so far stay until they are
    /// removed.
    #[arg(long)]
    new_operator_key: bool,
}

/// Runs a host until SIGTERM or SIGINT. SIGHUP has it read its configuration again.
pub async fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    if args.config.is_none() && Path::new(config::FILE).exists() {
        // From now on it is meant: where it is gone when it is read again, that is no wish for the defaults.
        args.config = Some(PathBuf::from(config::FILE));
    }
    let config = read(&args)?;
    let log = telemetry::start(&config.log).map_err(anyhow::Error::msg)?;
    raise_descriptors();
    // Before anything is started: a signal in between would end the process without a word.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let compiler = std::env::current_exe().ok();
    let keep = |key: &str| match &args.operator_key_file {
        Some(path) => {
            let kept = keep_in(path, key, !args.new_operator_key)
                .with_context(|| format!("the operator key file {}", path.display()))?;
            say!("the operator key is in {}", path.display());
            Ok(kept)
        }
        None => {
            // Written before the key is durable, and checked: a key that nobody has seen would lock its operator out.
            let mut out = io::stdout();
            writeln!(out, "operator key (shown this once, keep it safe): {key}")
                .and_then(|()| out.flush())
                .context("the operator key cannot be printed: give a file with --operator-key-file")?;
            Ok(key.to_owned())
        }
    };
    let running = app::start_with(config, compiler, args.new_operator_key, keep).await?;
    // The main one last: once it is told, all are.
    for Listening { table, address, tls } in running.listeners.iter().rev() {
        let scheme = if *tls { "https" } else { "http" };
        match table.strip_prefix("listen.") {
            Some(interface) => say!("{interface} interface on {scheme}://{address}"),
            None => say!("listening on {scheme}://{address}"),
        }
    }
    // That nobody reads these lines is no reason to stop: the log has the addresses too.
    let _nobody_reads = io::stdout().flush();
    notify::tell(notify::READY);
    loop {
        tokio::select! {
            // Files are read here, on the program's first thread, where nobody waits.
            _ = hang_up.recv() => notify::tell(&notify::status(&running.reload(read(&args), &log).to_string())),
            _ = terminate.recv() => {
                notify::tell(notify::STOPPING);
                running.leave();
                let leave = Duration::from_millis(running.settings.now().listen.leave_ms);
                tokio::select! {
                    () = tokio::time::sleep(leave) => {}
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                break;
            }
            // A person at a terminal: no balancer is to be told.
            _ = interrupt.recv() => {
                notify::tell(notify::STOPPING);
                break;
            }
        }
    }
    running.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Takes as many file descriptors as the system lets it: a connection takes one, and so does each filter in memory. Many
/// systems give 1,024 to who does not ask for more.
fn raise_descriptors() {
    let limits = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }) {
        tracing::warn!(%error, limit = ?limits.current, "the limit of file descriptors cannot be raised");
    }
}

/// The configuration as it stands in its file now, and what the command line says over it.
fn read(args: &Args) -> Result<Config, config::Error> {
    let mut config = Config::load(args.config.as_deref())?;
    if let Some(address) = &args.listen {
        config.listen.address.clone_from(address);
    }
    if let Some(dir) = &args.data {
        config.data.dir.clone_from(dir);
    }
    Ok(config)
}

/// Keeps the key in a new file, and gives it back. At a `first` start a file that is there already is what a start left
/// that was broken off before its key was durable: that key is given back, and becomes the operator's.
fn keep_in(path: &Path, key: &str, first: bool) -> anyhow::Result<String> {
    match crypto::write_private(path, ".operator-key", key.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && first => {
            Ok(read_private(path)?.trim().to_owned())
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(key.to_owned()),
    }
}

fn read_private(path: &Path) -> anyhow::Result<String> {
    let file = File::open(path)?;
    // Asked of the open file, not of the path: what is checked is what is read.
    let mode = file.metadata()?.permissions().mode() & 0o777;
    ensure!(mode & 0o077 == 0, "is there, and may be used by others than its owner (mode {mode:o}): remove it");
    let mut text = String::new();
    file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}
