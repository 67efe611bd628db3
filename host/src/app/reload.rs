//! Reading the configuration again while the host runs (SIGHUP). It is read and checked whole, with the files that it names,
//! before anything changes: what fails changes nothing.

use std::fmt;

use anyhow::Context as _;
use metrics::{counter, gauge};
use tracing::{error, info, warn};

use super::{Running, egress_options, ledger_options};
use crate::config::{Change, Config, Error};
use crate::egress::Egress;
use crate::http::tls::{self, Tls};
use crate::telemetry::{Log, metric};

/// Parts that have to be told of a change; all others ask for the settings each time.
pub(super) struct Live {
    pub(super) egress: Egress,
    /// Of each listener that speaks TLS, by its table.
    pub(super) listening: Vec<(&'static str, Tls)>,
}

/// What came of it. Shown on one line, for whoever asked.
#[derive(Debug)]
pub enum Reloaded {
    /// It is in force, as far as it can be.
    Applied {
        /// Keys that were changed.
        applied: Vec<String>,
        /// Keys that were changed and wait for a restart.
        restart: Vec<String>,
    },
    /// It is not valid, or a file that it names is not; everything stays as it was.
    Refused(anyhow::Error),
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied { restart, .. } if restart.is_empty() => f.write_str("the configuration was read again"),
            Self::Applied { restart, .. } => {
                write!(f, "the configuration was read again; a restart is needed for {}", restart.join(", "))
            }
            Self::Refused(error) => write!(f, "the configuration is not valid, all stays as it was: {error:#}"),
        }
    }
}

impl Running {
    /// Takes over a configuration that was read again, as far as it takes effect without a restart, and says in the log which
    /// of its keys do. Certificates and authorities are read again in any case.
    pub fn reload(&self, read: Result<Config, Error>, log: &Log) -> Reloaded {
        let reloaded = match self.take_over(read, log) {
            Ok(Change { applied, restart, .. }) => Reloaded::Applied { applied, restart },
            Err(error) => Reloaded::Refused(error),
        };
        tell(&reloaded);
        reloaded
    }

    fn take_over(&self, read: Result<Config, Error>, log: &Log) -> anyhow::Result<Change> {
        let change = self.settings.now().change_to(&read?)?;
        let config = &change.config;
        // All that can fail first.
        let level = Log::level(&config.log.level).map_err(anyhow::Error::msg)?;
        let listeners = config.listen.listeners();
        let mut certificates = Vec::new();
        for (table, tls) in &self.live.listening {
            let listener = listeners.iter().find(|(name, _)| name == table).map(|(_, listener)| listener);
            let read = listener.map(tls::read).transpose().with_context(|| format!("`[{table}]`"))?;
            certificates.extend(read.flatten().map(|read| (tls, read)));
        }
        let way = self.live.egress.way(egress_options(config)).context("`[egress]`")?;

        log.set(level);
        for (tls, read) in certificates {
            tls.put(read);
        }
        if let Some(way) = way {
            self.live.egress.take(way);
        }
        self.ledger.keep(&ledger_options(config));
        self.settings.put(config.clone());
        Ok(change)
    }
}

fn tell(reloaded: &Reloaded) {
    let outcome = match reloaded {
        Reloaded::Applied { applied, restart } => {
            info!(applied = applied.join(", "), "the configuration was read again, and the certificates");
            if !restart.is_empty() {
                warn!(keys = restart.join(", "), "changed in the configuration, and in force after a restart alone");
            }
            gauge!(metric::RELOAD_WAITING).set(u32::try_from(restart.len()).unwrap_or(u32::MAX));
            "applied"
        }
        Reloaded::Refused(error) => {
            let error = format!("{error:#}");
            error!(error, "the configuration was read again and is not valid: everything stays as it was");
            "refused"
        }
    };
    counter!(metric::RELOADS, "outcome" => outcome).increment(1);
    gauge!(metric::RELOAD_REFUSED).set(if outcome == "refused" { 1.0 } else { 0.0 });
}
