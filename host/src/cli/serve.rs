//! `setgate serve`

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::app;
use crate::config::Config;
use crate::telemetry;

/// Options of `serve`; each overrides its configuration key.
#[derive(Debug, Parser)]
pub struct Args {
    /// Configuration file; `setgate.toml` of the current folder where absent.
    #[arg(long, env = "SETGATE_CONFIG")]
    config: Option<PathBuf>,
    /// `listen.address`
    #[arg(long)]
    listen: Option<SocketAddr>,
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

/// Runs a host until SIGTERM or SIGINT.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(args.config.as_deref())?;
    if let Some(address) = args.listen {
        config.listen.address = address;
    }
    if let Some(dir) = args.data {
        config.data.dir = dir;
    }
    telemetry::start(&config.log).map_err(anyhow::Error::msg)?;
    // Before anything is started: a signal in between would end the process without a word.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let compiler = std::env::current_exe().ok();
    let keep = |key: &str| match &args.operator_key_file {
        Some(path) => {
            write_private(path, key).with_context(|| format!("the operator key file {}", path.display()))?;
            println!("the operator key is in {}", path.display());
            Ok(())
        }
        None => {
            let mut out = std::io::stdout();
            writeln!(out, "operator key (shown this once, keep it safe): {key}").and_then(|()| out.flush())?;
            Ok(())
        }
    };
    let running = app::start_with(config, compiler, args.new_operator_key, keep).await?;
    let scheme = if running.tls { "https" } else { "http" };
    println!("listening on {scheme}://{}", running.address);
    std::io::stdout().flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    running.stop().await;
    Ok(ExitCode::SUCCESS)
}

fn write_private(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
