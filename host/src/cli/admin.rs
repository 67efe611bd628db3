//! `setgate admin backup | restore | check`: commands that access a host's data directly. They need no key and do not
//! talk to the host, because read access to its data directory already grants everything.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use serde::Serialize;
use setgate_base::clock::Clock;
use setgate_base::crypto::MasterKey;
use setgate_dialects::Signer;
use setgate_ledger::{Check, Manifest};

use crate::cli::out::{self, say_error};
use crate::config::Config;
use crate::control::secrets;

/// Commands on a host's data.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy the current ledger into a new directory, whether or not the host is running.
    Backup {
        /// Directory of the backup: new or empty.
        #[arg(long)]
        to: PathBuf,
        /// Location of the host's data.
        #[command(flatten)]
        place: Place,
    },
    /// Restore a backup into the data directory of a new host.
    Restore {
        /// Directory of the backup.
        #[arg(long)]
        from: PathBuf,
        /// Location of the host's data.
        #[command(flatten)]
        place: Place,
    },
    /// Check the ledger for damage, whether or not the host is running. Prints JSON to standard output. Exit code 0: no
    /// damage; 1: damage found; 2: the check could not run.
    Check {
        /// Check this backup instead of the data directory's ledger.
        #[arg(long)]
        backup: Option<PathBuf>,
        /// Location of the host's data.
        #[command(flatten)]
        place: Place,
    },
}

/// Location of a host's data.
#[derive(Debug, Parser)]
pub struct Place {
    /// Configuration file; defaults to `setgate.toml` in the current directory.
    #[arg(long, env = "SETGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Overrides `data.dir`
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Paths in the data directory.
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

/// Runs a command.
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
    let made = setgate_ledger::back_up(&paths.ledger, to, Clock::system().now())?;
    out::json(&made)?;
    if let Err(why) = key_of(&made, &paths.master_key) {
        say_error!("warning: {why:#}. The backup cannot be used without that key");
    }
    say_error!(
        "{} contains the ledger but not the master key. Its secrets cannot be decrypted without {}: store that file separately.",
        to.display(),
        paths.master_key.display()
    );
    Ok(ExitCode::SUCCESS)
}

fn restore(from: &Path, paths: &Paths) -> anyhow::Result<ExitCode> {
    let manifest = setgate_ledger::manifest(from)?;
    // Checked first: if a host is running, the directory is most likely the wrong one.
    if setgate_ledger::is_in_use(&paths.ledger) {
        bail!(
            "a host is running on {}: stop it and move its data away, or choose another directory",
            paths.data.display()
        );
    }
    setgate_ledger::check_folder_mode(&paths.data)?;
    only_a_master_key(&paths.data)?;
    let has_key = paths.master_key.exists();
    if has_key {
        key_of(&manifest, &paths.master_key)?;
    }
    crate::app::private_folder(&paths.data).with_context(|| format!("the data directory {}", paths.data.display()))?;
    setgate_ledger::restore(from, &paths.ledger)?;
    out::json(&manifest)?;
    let key = manifest.master_key.as_deref().unwrap_or("none");
    if !has_key {
        say_error!("Put the master key {key} into {} (mode 0600) before you start a host.", paths.master_key.display());
    }
    say_error!(
        "Deliveries that were due at the time of the backup will be delivered, even if they have been delivered since: \
         receivers recognise the second copy by its id. Events accepted after the backup are not included."
    );
    Ok(ExitCode::SUCCESS)
}

/// Checks that a restore target does not exist or contains only the master key, which may have been copied there first.
fn only_a_master_key(data: &Path) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(data) else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name();
        if name != "master.key" {
            bail!(
                "{} is not empty (it contains {}): a backup is restored into a new directory; choose another one with --data, \
                 or move this one away",
                data.display(),
                name.display()
            );
        }
    }
    Ok(())
}

/// Checks that the master key of a backup is in place.
fn key_of(manifest: &Manifest, file: &Path) -> anyhow::Result<()> {
    let here = MasterKey::load(file)?.fingerprint();
    match &manifest.master_key {
        Some(needed) if *needed != here => bail!(
            "{} contains the master key {here}, but the backup requires {needed}: put the right file there",
            file.display()
        ),
        _ => Ok(()),
    }
}

/// The result of `check`.
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
    let looked = setgate_ledger::inspect(&folder)?;
    let mut checks = looked.checks;
    if let Some(snapshot) = &looked.snapshot {
        let faults = match MasterKey::load(&paths.master_key) {
            Ok(master) if looked.master_key.as_ref().is_some_and(|known| *known != master.fingerprint()) => {
                let known = looked.master_key.unwrap_or_default();
                vec![format!(
                    "{} contains the master key {}, but the ledger requires {known}",
                    paths.master_key.display(),
                    master.fingerprint()
                )]
            }
            Ok(master) => {
                let master = Arc::new(master);
                secrets::shut(snapshot, &master, &Signer::new(master.clone()))
            }
            Err(error) => {
                let needed = looked.master_key.as_deref().unwrap_or("none");
                let error = anyhow::Error::new(error);
                vec![format!("secrets were not checked, because the master key {needed} is missing: {error:#}")]
            }
        };
        checks.push(Check::new("secrets", faults));
    }
    Ok(Report { ok: checks.iter().all(|check| check.faults == 0), folder, checks })
}
