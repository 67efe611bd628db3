//! `setgate admin backup | restore | check`: a host's data, looked at from beside it. None of them needs a key or speaks to
//! the host: whoever may read its data folder has everything already.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::cli::out::{self, say_error};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::secrets;
use crate::crypto::MasterKey;
use crate::ledger::{self, Check, Manifest};
use crate::signing::Signer;

/// What is done with a host's data.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy the ledger as of now into a new folder, beside a host that runs or of one that does not.
    Backup {
        /// Where the backup goes: a new or empty folder.
        #[arg(long)]
        to: PathBuf,
        /// Whose data.
        #[command(flatten)]
        place: Place,
    },
    /// Put a backup into the data folder of a host that is not there yet.
    Restore {
        /// The backup's folder.
        #[arg(long)]
        from: PathBuf,
        /// Whose data.
        #[command(flatten)]
        place: Place,
    },
    /// Look through the ledger for faults, beside a host that runs or of one that does not. JSON on standard output; ends with 0
    /// where nothing was found, with 1 where something was, with 2 where it could not look.
    Check {
        /// Look through this backup instead of the data folder's ledger.
        #[arg(long)]
        backup: Option<PathBuf>,
        /// Whose data.
        #[command(flatten)]
        place: Place,
    },
}

/// Which host's data.
#[derive(Debug, Parser)]
pub struct Place {
    /// Configuration file; `setgate.toml` of the current folder where absent.
    #[arg(long, env = "SETGATE_CONFIG")]
    config: Option<PathBuf>,
    /// `data.dir`
    #[arg(long)]
    data: Option<PathBuf>,
}

/// The data folder's parts.
struct Paths {
    data: PathBuf,
    ledger: PathBuf,
    master_key: PathBuf,
}

impl Place {
    fn paths(self) -> anyhow::Result<Paths> {
        let config = Config::load(self.config.as_deref())?;
        let data = self.data.unwrap_or(config.data.dir);
        let master_key = config.data.master_key_file.unwrap_or_else(|| data.join("master.key"));
        Ok(Paths { ledger: data.join("ledger"), master_key, data })
    }
}

/// Runs one of them.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Backup { to, place } => back_up(&to, &place.paths()?),
        Command::Restore { from, place } => restore(&from, &place.paths()?),
        Command::Check { backup, place } => match look(backup.as_deref(), &place) {
            Ok(report) => {
                out::json(&report)?;
                Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Err(error) => {
                say_error!("setgate: {error:#}");
                Ok(ExitCode::from(2))
            }
        },
    }
}

fn back_up(to: &Path, paths: &Paths) -> anyhow::Result<ExitCode> {
    let made = ledger::back_up(&paths.ledger, to, Clock::system().now())?;
    out::json(&made)?;
    if let Err(why) = key_of(&made, &paths.master_key) {
        say_error!("warning: {why:#}. The backup cannot be used without that key");
    }
    say_error!(
        "{} holds the ledger, and not the master key: without {} nobody opens its secrets. Keep that apart.",
        to.display(),
        paths.master_key.display()
    );
    Ok(ExitCode::SUCCESS)
}

fn restore(from: &Path, paths: &Paths) -> anyhow::Result<ExitCode> {
    let manifest = ledger::manifest(from)?;
    // Told first: whoever restores over a host that runs has named the wrong folder.
    if ledger::is_in_use(&paths.ledger) {
        bail!("a host runs over {}: stop it and move its data away, or name another folder", paths.data.display());
    }
    ledger::refuse_shared(&paths.data)?;
    only_a_master_key(&paths.data)?;
    let has_key = paths.master_key.exists();
    if has_key {
        key_of(&manifest, &paths.master_key)?;
    }
    crate::app::private_folder(&paths.data).with_context(|| format!("the data folder {}", paths.data.display()))?;
    ledger::restore(from, &paths.ledger)?;
    out::json(&manifest)?;
    let key = manifest.master_key.as_deref().unwrap_or("none so far");
    if !has_key {
        say_error!(
            "Put the master key {key} into {} (mode 0600) before a host is started.",
            paths.master_key.display()
        );
    }
    say_error!(
        "What was due when the backup was made will be delivered, also what has been delivered since: receivers tell the \
         second copy by its id. What was accepted since is not in it."
    );
    Ok(ExitCode::SUCCESS)
}

/// A data folder to restore into is not there, or holds the master key alone, wherever that was put first.
fn only_a_master_key(data: &Path) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(data) else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name();
        if name != "master.key" {
            bail!(
                "{} is not empty (it holds {}): a backup is restored into a new folder; name another with --data, or move \
                 this one away",
                data.display(),
                name.display()
            );
        }
    }
    Ok(())
}

/// Whether the key of a backup is in its place.
fn key_of(manifest: &Manifest, file: &Path) -> anyhow::Result<()> {
    let here = MasterKey::load(file)?.fingerprint();
    match &manifest.master_key {
        Some(needed) if *needed != here => bail!(
            "{} holds the master key {here}, and the backup was made under {needed}: put the right file there",
            file.display()
        ),
        _ => Ok(()),
    }
}

/// What `check` found.
#[derive(Serialize)]
struct Report {
    ok: bool,
    folder: PathBuf,
    checks: Vec<Check>,
}

fn look(backup: Option<&Path>, place: &Place) -> anyhow::Result<Report> {
    let place = Place { config: place.config.clone(), data: place.data.clone() };
    let paths = place.paths()?;
    let folder = backup.map_or(paths.ledger, Path::to_owned);
    let looked = ledger::inspect(&folder)?;
    let mut checks = looked.checks;
    if let Some(snapshot) = &looked.snapshot {
        let faults = match MasterKey::load(&paths.master_key) {
            Ok(master) if looked.master_key.as_ref().is_some_and(|known| *known != master.fingerprint()) => {
                let known = looked.master_key.unwrap_or_default();
                vec![format!(
                    "{} holds the master key {}, and the ledger was made under {known}",
                    paths.master_key.display(),
                    master.fingerprint()
                )]
            }
            Ok(master) => {
                let master = Arc::new(master);
                secrets::shut(snapshot, &master, &Signer::new(master.clone()))
            }
            Err(error) => {
                let needed = looked.master_key.as_deref().unwrap_or("none so far");
                let error = anyhow::Error::new(error);
                vec![format!("no secret was tried, since the master key {needed} is not there: {error:#}")]
            }
        };
        checks.push(Check::new("secrets", faults));
    }
    Ok(Report { ok: checks.iter().all(|check| check.faults == 0), folder, checks })
}
