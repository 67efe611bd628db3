//! `setgate demo`: a host with two tenants, a simulated identity provider that sends events of five products, and a
//! receiver that verifies every signature independently. The results (lost, delivered, verified) are computed from the
//! sender's and the receiver's records, never from the host's counters. Finally every delivery is reproduced.

mod provider;
mod receiver;
mod report;
mod reproduce;
mod signed;
mod stage;
mod tables;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use setgate_base::telemetry;
use setgate_dialects::samples;

use crate::app;
use crate::cli::client::Client;
use crate::cli::out::{self, say, say_error};
use crate::config::{Config, LogFormat};
use crate::http::listener::address::Address;
use receiver::Receiver;
use report::Report;

/// Maximum time (seconds) for deliveries to arrive after the last event was sent.
const ARRIVE_S_MAX: u64 = 60;

/// Options of `demo`.
#[derive(Debug, Parser)]
pub struct Args {
    /// Exit when all events have arrived; non-zero if one was lost, a signature did not verify or a delivery cannot be
    /// reproduced.
    #[arg(long)]
    once: bool,
    /// Print the summary as one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Directory of the example filters as components; `cargo xtask demo` builds them.
    #[arg(long, default_value = "target/filters")]
    filters: PathBuf,
    /// Address of the host; port 0 lets the system choose a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: Address,
}

/// Runs the demo.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let folder = PrivateFolder::new()?;
    let mut config = Config::default();
    config.listen.address = args.listen;
    config.data.dir = folder.0.join("data");
    // The demo's receiver is on this machine.
    config.egress.allow = vec!["127.0.0.0/8".parse().context("a literal network")?];
    config.egress.allow_http = true;
    let public_url = stage::PUBLIC_URL.to_owned().try_into();
    config.server.public_url = Some(public_url.map_err(anyhow::Error::msg)?);
    config.log.format = LogFormat::Text;
    config.log.level = "warn".into();
    telemetry::init(config.log.format, &config.log.level).map_err(anyhow::Error::msg)?;

    let running = app::start(config.clone(), std::env::current_exe().ok()).await?;
    let base = format!("http://{}", running.address);
    let key = running.first_operator_key.clone().context("a new ledger makes an operator key")?;
    let operator = Client::new(&base, Some(key))?;
    let receiver = Receiver::start().await?;
    say!("setgate demo: host {base}, receiver http://{}, data {}", receiver.address, folder.0.display());

    let stage = stage::set(&operator, &base, &receiver, &args.filters).await?;
    let mut report = Report::new(&stage, receiver.clone());
    let events = samples::samples();
    say!("sending {} events in the formats of {} products", events.len(), report::seeds(&events));
    say!("");
    report.heading();
    for sample in &events {
        let sent = provider::send(&stage, sample).await?;
        report.sent(sent);
        report.print_arrived(&stage).await?;
        if out::is_closed() {
            break;
        }
    }
    if out::is_closed() {
        running.stop().await;
        receiver.stop();
        return Ok(ExitCode::SUCCESS);
    }
    let deadline = Instant::now() + Duration::from_secs(ARRIVE_S_MAX);
    while report.outstanding() > 0 && Instant::now() < deadline {
        report.print_arrived(&stage).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    report.finish(&stage).await?;

    say!("");
    say!("replacing filters and tables and restarting the host; then the chain of every delivery is run again");
    reproduce::change_everything(&stage, &args.filters).await?;
    config.listen.address = running.address.into();
    running.stop().await;
    let running = app::start(config, std::env::current_exe().ok()).await?;
    report.reproduced(reproduce::every_delivery(&stage).await?);
    let good = report.print_summary(args.json)?;

    // Without a reader of the output there is no one to try things out.
    if !args.once && !out::is_closed() {
        stage.print_things_to_try(&base);
        tokio::signal::ctrl_c().await?;
    }
    running.stop().await;
    receiver.stop();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A directory for this run, removed at its end.
struct PrivateFolder(PathBuf);

impl PrivateFolder {
    fn new() -> anyhow::Result<Self> {
        let path =
            std::env::temp_dir().join(format!("setgate-demo-{:016x}", setgate_base::crypto::random_u128() as u64));
        app::private_folder(&path)?;
        Ok(Self(path))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            say_error!("the folder {} could not be removed: {error}", self.0.display());
        }
    }
}
