//! The current settings, and the section of each part.

use std::sync::Arc;

use setgate_base::live::Live;
use setgate_domain::tenant::Quota;

use crate::config::Config;
use crate::control::public_url::Server;
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
    pub(super) server: Live<Server>,
}

impl CurrentSettings {
    pub(super) fn new(config: Config) -> Self {
        let sections = Sections::of(&config);
        Self {
            listen: Live::new(sections.listen),
            ingest: Live::new(sections.ingest),
            default_quota: Live::new(sections.default_quota),
            delivery: Live::new(sections.delivery),
            replays: Live::new(sections.replays),
            server: Live::new(sections.server),
            config: Live::new(config),
        }
    }

    /// The whole configuration.
    pub(super) fn now(&self) -> Arc<Config> {
        Arc::clone(&self.config.now())
    }

    /// Replaces all sections.
    pub(super) fn put(&self, config: Config) {
        let Sections { listen, ingest, default_quota, delivery, replays, server } = Sections::of(&config);
        self.listen.put(listen);
        self.ingest.put(ingest);
        self.default_quota.put(default_quota);
        self.delivery.put(delivery);
        self.replays.put(replays);
        self.server.put(server);
        self.config.put(config);
    }
}

/// The sections that have a handle.
struct Sections {
    listen: Listen,
    ingest: Ingest,
    default_quota: Quota,
    delivery: Delivery,
    replays: replays::Settings,
    server: Server,
}

impl Sections {
    fn of(config: &Config) -> Self {
        // All sections by name, so that a new one does not compile before it is considered here.
        let Config {
            listen,
            server,
            ingest,
            quota,
            delivery,
            history,
            data: _,
            sandbox: _,
            egress: _,
            log: _,
            traces: _,
        } = config;
        Self {
            listen: listen.clone(),
            ingest: ingest.clone(),
            default_quota: quota.clone(),
            delivery: delivery.clone(),
            replays: history.clone(),
            server: server.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_handle_has_the_replaced_section() {
        let settings = CurrentSettings::new(Config::default());
        let mut config = Config::default();
        config.listen.request_ms_max = 1;
        config.ingest.body_bytes_max = 2;
        config.quota.backlog_deliveries_max = 3;
        config.delivery.pause_after_s = 4;
        config.history.replays_per_tenant_max = 5;
        config.server.public_url = Some("https://edge.example".to_owned().try_into().unwrap());
        config.data.retention_s = 6;
        settings.put(config);
        assert_eq!(settings.listen.now().request_ms_max, 1);
        assert_eq!(settings.ingest.now().body_bytes_max, 2);
        assert_eq!(settings.default_quota.now().backlog_deliveries_max, 3);
        assert_eq!(settings.delivery.now().pause_after_s, 4);
        assert_eq!(settings.replays.now().replays_per_tenant_max, 5);
        assert!(settings.server.now().public_url.is_some());
        assert_eq!(settings.now().data.retention_s, 6);
    }
}
