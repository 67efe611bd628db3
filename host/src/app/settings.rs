//! The current settings, and the section of each part.

use std::sync::Arc;

use setgate_base::live::Live;
use setgate_domain::tenant::Quota;

use crate::config::Config;
use crate::control::replays;
use crate::http::listener::settings::Listen;
use crate::pipeline::settings::{Delivery, Ingest};

/// The current settings. Each part has a handle of the sections that it uses, so that it neither depends on the whole
/// configuration nor is rebuilt by a change. Sections without a handle here are applied by a call, see
/// [`reload`](super::reload), or need a restart.
pub(super) struct CurrentSettings {
    pub(super) config: Live<Config>,
    pub(super) listen: Live<Listen>,
    pub(super) ingest: Live<Ingest>,
    pub(super) default_quota: Live<Quota>,
    pub(super) delivery: Live<Delivery>,
    pub(super) replays: Live<replays::Settings>,
}

impl CurrentSettings {
    pub(super) fn new(config: Config) -> Self {
        Self {
            listen: Live::new(config.listen.clone()),
            ingest: Live::new(config.ingest.clone()),
            default_quota: Live::new(config.quota.clone()),
            delivery: Live::new(config.delivery.clone()),
            replays: Live::new(config.history.clone()),
            config: Live::new(config),
        }
    }

    /// The whole configuration.
    pub(super) fn now(&self) -> Arc<Config> {
        Arc::clone(&self.config.now())
    }

    /// Replaces all sections.
    pub(super) fn put(&self, config: Config) {
        self.listen.put(config.listen.clone());
        self.ingest.put(config.ingest.clone());
        self.default_quota.put(config.quota.clone());
        self.delivery.put(config.delivery.clone());
        self.replays.put(config.history.clone());
        self.config.put(config);
    }
}
