//! `setgate config`: checks a configuration without starting a host.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;

use super::out::{say, say_error};
use crate::config::Config;
use crate::http::listener::tls;

/// Commands on the configuration.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a configuration file together with the environment, and print all errors and warnings. Nothing is written
    /// and no host is started.
    Check {
        /// The configuration file, such as setgate.toml.
        file: PathBuf,
    },
}

/// Runs a command. Returns 1 if the configuration has errors.
pub fn run(command: Command) -> ExitCode {
    let Command::Check { file } = command;
    let config = match Config::load(Some(&file)) {
        Ok(config) => config,
        Err(error) => {
            say_error!("setgate: {error}");
            return ExitCode::FAILURE;
        }
    };
    for warning in config.warnings() {
        say_error!("warning: {warning}");
    }
    let errors = file_errors(&config);
    for error in &errors {
        say_error!("setgate: {error:#}");
    }
    if !errors.is_empty() {
        return ExitCode::FAILURE;
    }
    say!("{} is valid", Path::new(&file).display());
    ExitCode::SUCCESS
}

/// Errors in the files that the configuration names: certificates, keys and certificate authorities.
fn file_errors(config: &Config) -> Vec<anyhow::Error> {
    let listeners = config.listen.listeners().into_iter();
    let listeners =
        listeners.filter_map(|(table, listener)| tls::read(&listener).with_context(|| format!("`[{table}]`")).err());
    let authorities = [("egress.ca_files", &config.egress.ca_files), ("traces.ca_files", &config.traces.ca_files)];
    let authorities = authorities.into_iter().filter(|(_, files)| !files.is_empty()).filter_map(|(key, files)| {
        setgate_egress::operator_tls_config(files).with_context(|| format!("`{key}`")).err()
    });
    listeners.chain(authorities).collect()
}
