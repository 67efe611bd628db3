//! `setgate serve`: runs a host.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use setgate_base::{crypto, telemetry};
use tokio::signal::unix::{SignalKind, signal};

use super::notify;
use crate::app::{self, Listening};
use crate::cli::out::say;
use crate::config::{self, Config};
use crate::http::listener::address::Address;

/// Maximum bytes read from an operator key file; a key is far shorter.
const KEY_FILE_BYTES_MAX: u64 = 1024;

/// Options of `serve`; each overrides its configuration key.
#[derive(Debug, Parser)]
pub struct Args {
    /// Configuration file; defaults to `setgate.toml` in the current directory if it exists.
    #[arg(long, env = "SETGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Overrides `listen.address`
    #[arg(long)]
    listen: Option<Address>,
    /// Overrides `data.dir`
    #[arg(long)]
    data: Option<PathBuf>,
    /// Write a newly created operator key to this new file (mode 0600) instead of standard output.
    #[arg(long, env = "SETGATE_OPERATOR_KEY_FILE")]
    operator_key_file: Option<PathBuf>,
    /// Create a new operator key at this start, if the previous one was lost. Existing keys stay valid until they are
    /// removed.
    #[arg(long)]
    new_operator_key: bool,
}

/// Runs a host until SIGTERM or SIGINT. SIGHUP reloads the configuration.
pub async fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    if args.config.is_none() && Path::new(config::FILE).exists() {
        // Explicit from now on: if the file is missing at a reload, that is an error, not a request for the
        // defaults.
        args.config = Some(PathBuf::from(config::FILE));
    }
    let config = read(&args)?;
    let log = telemetry::init(config.log.format, &config.log.level).map_err(anyhow::Error::msg)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    raise_descriptors();
    // Installed before anything starts: a signal in between would end the process without cleanup.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let compiler = std::env::current_exe().ok();
    let keep = |key: &str| match &args.operator_key_file {
        Some(path) => {
            let kept = keep_in(path, key, !args.new_operator_key)
                .with_context(|| format!("the operator key file {}", path.display()))?;
            say!("operator key written to {}", path.display());
            Ok(kept)
        }
        None => {
            // Printed and flushed before the key is durable: a key that was never displayed would lock the operator
            // out.
            let mut out = io::stdout();
            writeln!(out, "operator key (shown only once, store it safely): {key}")
                .and_then(|()| out.flush())
                .context("the operator key cannot be printed: give a file with --operator-key-file")?;
            Ok(key.to_owned())
        }
    };
    let running = app::start_with(config, compiler, args.new_operator_key, keep).await?;
    // The main listener last: once its line is printed, all lines are.
    for Listening { table, address, tls } in running.listeners.iter().rev() {
        let scheme = if *tls { "https" } else { "http" };
        match table.strip_prefix("listen.") {
            Some(interface) => say!("{interface} interface on {scheme}://{address}"),
            None => say!("listening on {scheme}://{address}"),
        }
    }
    // A closed standard output is no reason to stop: the log has the addresses too.
    let _nobody_reads = io::stdout().flush();
    notify::tell(notify::READY);
    loop {
        tokio::select! {
            // Blocking reads are fine on the main thread, which serves no requests.
            _ = hang_up.recv() => notify::tell(&notify::status(&running.reload(read(&args), &log).to_string())),
            _ = terminate.recv() => {
                notify::tell(notify::STOPPING);
                running.leave();
                let leave = running.shutdown_delay();
                tokio::select! {
                    () = tokio::time::sleep(leave) => {}
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                break;
            }
            // SIGINT comes from a terminal: there is no load balancer to wait for.
            _ = interrupt.recv() => {
                notify::tell(notify::STOPPING);
                break;
            }
        }
    }
    running.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Raises the limit of file descriptors to its hard maximum: each connection and each loaded filter needs one, and many
/// systems default to 1,024.
fn raise_descriptors() {
    let limits = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }) {
        tracing::warn!(%error, limit = ?limits.current, "limit of open file descriptors could not be raised");
    }
}

/// Reads the configuration file and applies the command line options over it.
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

/// Writes the key to a new file and returns it. At a `first` start, an existing file is left over from a start that was
/// interrupted before its key was durable: its key is returned and becomes the operator's.
fn keep_in(path: &Path, key: &str, first: bool) -> anyhow::Result<String> {
    match crypto::write_private_file(path, ".operator-key", key.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && first => {
            Ok(read_private(path)?.trim().to_owned())
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(key.to_owned()),
    }
}

fn read_private(path: &Path) -> anyhow::Result<String> {
    let file = File::open(path)?;
    // Checked on the open file, not on the path, to avoid a race between check and read.
    let mode = file.metadata()?.permissions().mode() & 0o777;
    ensure!(mode & 0o077 == 0, "exists and is accessible to other users (mode {mode:o}): remove it");
    let mut text = String::new();
    file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}
