//! Reloads the configuration at run time (SIGHUP). The configuration and the files it refers to are read and checked
//! before anything changes: a failure changes nothing.

use std::fmt;

use anyhow::Context as _;
use metrics::{counter, gauge};
use setgate_base::telemetry::{LogHandle, metric};
use setgate_egress::Egress;
use tracing::{error, info, warn};

use super::{Running, ledger_options};
use crate::config::{Change, Config, Error};
use crate::http::listener::tls::{self, Tls};

/// Components that must be notified of a change; all others read the settings on every use.
pub(super) struct Live {
    pub(super) egress: Egress,
    /// The TLS listeners, by configuration table.
    pub(super) listening: Vec<(&'static str, Tls)>,
}

/// The result of a reload. Displayed on one line.
#[derive(Debug)]
pub enum Reloaded {
    /// The configuration was applied.
    Applied {
        /// Changed keys that took effect.
        applied: Vec<String>,
        /// Changed keys that need a restart.
        restart: Vec<String>,
    },
    /// The configuration, or a file it refers to, is invalid; nothing was changed.
    Refused(anyhow::Error),
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied { restart, .. } if restart.is_empty() => f.write_str("configuration reloaded"),
            Self::Applied { restart, .. } => {
                write!(f, "configuration reloaded; a restart is required for {}", restart.join(", "))
            }
            Self::Refused(error) => {
                write!(f, "reload refused: the configuration is invalid and nothing was changed: {error:#}")
            }
        }
    }
}

impl Running {
    /// Applies a configuration that was read again, except for keys that need a restart, and logs the changed keys.
    /// Certificates and certificate authorities are always read again.
    pub fn reload(&self, read: Result<Config, Error>, log: &LogHandle) -> Reloaded {
        let reloaded = match self.take_over(read, log) {
            Ok(Change { applied, restart, .. }) => Reloaded::Applied { applied, restart },
            Err(error) => Reloaded::Refused(error),
        };
        tell(&reloaded);
        reloaded
    }

    fn take_over(&self, read: Result<Config, Error>, log: &LogHandle) -> anyhow::Result<Change> {
        let change = self.settings.now().change_to(&read?)?;
        let config = &change.config;
        // All fallible steps come first.
        let level = LogHandle::parse_level(&config.log.level).map_err(anyhow::Error::msg)?;
        let listeners = config.listen.listeners();
        let mut certificates = Vec::new();
        for (table, tls) in &self.live.listening {
            let listener = listeners.iter().find(|(name, _)| name == table).map(|(_, listener)| listener);
            let read = listener.map(tls::read).transpose().with_context(|| format!("`[{table}]`"))?;
            certificates.extend(read.flatten().map(|read| (tls, read)));
        }
        let clients = self.live.egress.prepare((&config.egress).into()).context("`[egress]`")?;

        log.set_level(level);
        for (tls, read) in certificates {
            tls.put(read);
        }
        if let Some(clients) = clients {
            self.live.egress.replace(clients);
        }
        self.ledger.upkeep.apply_limits(&ledger_options(config));
        self.settings.put(config.clone());
        Ok(change)
    }
}

/// Counts, then logs, so that an operator who has seen the line finds the metrics up to date.
fn tell(reloaded: &Reloaded) {
    let refused = matches!(reloaded, Reloaded::Refused(_));
    counter!(metric::RELOADS, "outcome" => if refused { "refused" } else { "applied" }).increment(1);
    gauge!(metric::RELOAD_REFUSED).set(f64::from(u8::from(refused)));
    match reloaded {
        Reloaded::Applied { applied, restart } => {
            gauge!(metric::RELOAD_WAITING).set(u32::try_from(restart.len()).unwrap_or(u32::MAX));
            info!(applied = applied.join(", "), "configuration and certificates reloaded");
            if !restart.is_empty() {
                warn!(keys = restart.join(", "), "changed settings require a restart");
            }
        }
        Reloaded::Refused(error) => {
            let error = format!("{error:#}");
            error!(error, "reload refused: the configuration is invalid and nothing was changed");
        }
    }
}
