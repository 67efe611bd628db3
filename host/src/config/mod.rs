//! Settings. Each has a usable default, a TOML file overrides the defaults, and environment variables override both.
//! Each part declares, defaults and validates its own section; this module nests the sections, merges file and
//! environment, and reports all errors at once.
//!
//! `SETGATE_<SECTION>__<KEY>` sets `<key>` in `[<section>]`, for example `SETGATE_LISTEN__ADDRESS=0.0.0.0:8080`. Every
//! limit's name ends in its unit. `docs/reference/config.md` and `deploy/config.defaults.toml` list all settings; a test
//! compares them with the types. A value that no operator has a reason to change is a constant next to its use;
//! `docs/reference/shares.md` lists those that are shared between tenants.

mod change;
mod environment;
mod log;
#[cfg(test)]
mod names;
mod quota;
mod read;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod shares;
mod warnings;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use setgate_domain::filter::FAULT_WINDOW_CALLS;
use setgate_domain::tenant::Quota;

pub use change::Change;
pub use log::Log;
pub use setgate_base::telemetry::LogFormat;

use crate::control::public_url::Server;
use crate::control::replays;
use crate::http::listener::settings::Listen;
use crate::pipeline::settings::{Delivery, Ingest};
use crate::traces;

/// The configuration file that is read from the current directory if no other is given.
pub const FILE: &str = "setgate.toml";

/// The settings could not be read. The message names file, key and value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be read.
    #[error(
        "cannot read the configuration file {path}: {source}; give another with --config, or none to use the defaults"
    )]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Unknown keys or invalid values; one message each.
    #[error("the configuration is not valid:{}", listed(.0))]
    Invalid(Vec<String>),
}

impl Error {
    fn invalid(faults: impl IntoIterator<Item = String>) -> Self {
        Self::Invalid(faults.into_iter().collect())
    }
}

/// One indented line per message.
fn listed(faults: &[String]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

/// All settings of a host.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listeners, TLS, connection limits and request limits.
    pub listen: Listen,
    /// The host as other parties reach it.
    pub server: Server,
    /// Storage: data directory, retention and disk limits.
    pub data: setgate_ledger::Settings,
    /// Limits of event ingest.
    pub ingest: Ingest,
    /// Default quota of a tenant. A tenant's own quota overrides it, and has further members.
    #[serde(with = "quota")]
    pub quota: Quota,
    /// Filter execution: instances, memory, compilation and reuse of instances.
    pub sandbox: setgate_sandbox::Settings,
    /// Delivery: concurrency, circuit breaker and endpoint verification.
    pub delivery: Delivery,
    /// Replays of stored events.
    pub history: replays::Settings,
    /// Outgoing connections to receivers.
    pub egress: setgate_egress::Settings,
    /// Format and level of the log.
    pub log: Log,
    /// Export of OpenTelemetry spans.
    pub traces: traces::Settings,
}

impl Config {
    /// Reads the settings: defaults, then the file, then the environment. If `file` is `None`, `setgate.toml` in the
    /// current directory is read if it exists.
    ///
    /// # Errors
    /// Returns every invalid setting with its location.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let implied = Path::new(FILE);
        let file = file.or_else(|| implied.exists().then_some(implied));
        let text = |path: &Path| {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|source| Error::File { path: path.to_owned(), source })?;
            // Some editors write a byte order mark.
            Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
        };
        read::read(file.map(|path| Ok((path, text(path)?))).transpose()?)
    }

    /// Messages for values that parse but are not usable: limits of 0, and combinations that contradict each other.
    fn faults(&self) -> Vec<String> {
        let mut faults = self.listen.faults();
        faults.extend(self.data.faults());
        faults.extend(self.ingest.faults());
        faults.extend(self.sandbox.faults());
        faults.extend(self.delivery.faults());
        faults.extend(self.egress.faults());
        faults.extend(self.log.faults());
        faults.extend(self.traces.faults());
        if self.ingest.body_bytes_max as u64 > u64::from(self.listen.bodies_bytes_per_tenant_max()) {
            faults.push(
                "`ingest.body_bytes_max` is more than a quarter of `listen.bodies_bytes_max`, the share of one tenant: such \
                 a body would never be accepted"
                    .to_owned(),
            );
        }
        // A tenant's own quota above this gets a warning in the response; the host's would silently be another value.
        let (wanted, most) = (self.quota.memory_bytes_max, self.sandbox.memory_bytes_max);
        if wanted > most {
            faults.push(format!(
                "`quota.memory_bytes_max` is {wanted}, which is more than `sandbox.memory_bytes_max` ({most}) allows any \
                 tenant: lower it, or raise that"
            ));
        }
        if self.quota.filter_faults_max > FAULT_WINDOW_CALLS {
            faults.push(format!(
                "`quota.filter_faults_max` is more than {FAULT_WINDOW_CALLS}, the number of calls that are counted; 0 never \
                 suspends a filter"
            ));
        }
        faults
    }
}

#[cfg(test)]
mod tests;
