//! The command line: parses it and runs the command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cli::out::{self, say_error};
use crate::cli::{admin, config, emit, filter, rollout, serve};
use crate::demo;

/// An edge worker for identity events: ingests SETs, runs tenants' WebAssembly filters over them, signs and delivers
/// them.
#[derive(Debug, Parser)]
#[command(name = "setgate", version, about, long_about = None)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a host.
    Serve(serve::Args),
    /// Run a host with two tenants, a simulated identity provider and receivers, and watch events go through.
    Demo(demo::Args),
    /// Check a filter, run it over an event, or roll it out on a host.
    #[command(subcommand)]
    Filter(FilterCommand),
    /// Sign events as a product would and send them to a host.
    Emit(Box<emit::Args>),
    /// Back up a host's data, restore it, or check it for damage.
    #[command(subcommand)]
    Admin(admin::Command),
    /// Check a configuration file.
    #[command(subcommand)]
    Config(config::Command),
    /// Compile a component from standard input. Internal: started by the sandbox.
    #[command(hide = true)]
    CompileFilter,
}

#[derive(Debug, Subcommand)]
enum FilterCommand {
    /// Check whether a host would accept this component, and list its imports.
    Check {
        /// The component, a .wasm file.
        file: PathBuf,
    },
    /// Run this component over an event and show the verdict, the difference and the cost; or rerun the chain of a
    /// host's delivery (--delivery) and compare the results.
    Run(Box<filter::RunArgs>),
    #[command(flatten)]
    Hosted(Box<rollout::Command>),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::CompileFilter = cli.command {
        return setgate_sandbox::compiler_main();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say_error!("setgate: the runtime cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    // A host keeps running if the reader of its output is gone, and exits with its own code.
    let is_host = matches!(cli.command, Command::Serve(_));
    let result = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Filter(FilterCommand::Check { file }) => filter::check(&file).await,
            Command::Filter(FilterCommand::Run(args)) => filter::run(*args).await,
            Command::Filter(FilterCommand::Hosted(command)) => rollout::run(*command).await,
            Command::Admin(command) => admin::run(command),
            Command::Config(command) => Ok(config::run(command)),
            Command::Emit(args) => emit::run(*args).await,
            Command::CompileFilter => unreachable!("returned above"),
        }
    });
    let code = result.unwrap_or_else(|error| {
        say_error!("setgate: {error:#}");
        ExitCode::FAILURE
    });
    if is_host { code } else { out::finish(code) }
}
