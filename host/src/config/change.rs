//! Reloading of the configuration: which settings can change at run time.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Config, Error};
use crate::http::listener::settings::Listener;

/// The result of reloading the configuration.
#[derive(Debug)]
pub struct Change {
    /// The settings to apply: the current ones plus every change that needs no restart.
    pub config: Config,
    /// Changed keys that take effect now.
    pub applied: Vec<String>,
    /// Changed keys that need a restart.
    pub restart: Vec<String>,
}

/// Copies one or more settings from the second configuration to the first.
type Take = fn(&mut Config, &Config);

/// Settings that can change at run time: their keys (`table.*` for all keys of a table), and how to copy them. All
/// others need a restart. The column `reload` of `docs/reference/config.md` is derived from this list.
const LIVE: &[(&[&str], Take)] = &[
    (&["listen.tls_certificate", "listen.tls_key"], |now, read| {
        if now.listen.tls_key.is_some() && read.listen.tls_key.is_some() {
            now.listen.tls_certificate.clone_from(&read.listen.tls_certificate);
            now.listen.tls_key.clone_from(&read.listen.tls_key);
        }
    }),
    (&["listen.operator.tls_certificate", "listen.operator.tls_key", "listen.operator.client_ca"], |now, read| {
        take_files(now.listen.operator.as_mut(), read.listen.operator.as_ref());
    }),
    (&["listen.tenant.tls_certificate", "listen.tenant.tls_key", "listen.tenant.client_ca"], |now, read| {
        take_files(now.listen.tenant.as_mut(), read.listen.tenant.as_ref());
    }),
    (&["listen.metrics_open"], |now, read| now.listen.metrics_open = read.listen.metrics_open),
    (&["listen.request_ms_max"], |now, read| now.listen.request_ms_max = read.listen.request_ms_max),
    (&["listen.shutdown_delay_ms"], |now, read| now.listen.shutdown_delay_ms = read.listen.shutdown_delay_ms),
    (&["server.*"], |now, read| now.server.clone_from(&read.server)),
    (&["data.retention_s"], |now, read| now.data.retention_s = read.data.retention_s),
    (&["data.retention_every_s"], |now, read| now.data.retention_every_s = read.data.retention_every_s),
    (&["data.retention_min_s"], |now, read| now.data.retention_min_s = read.data.retention_min_s),
    (&["data.ledger_bytes_max"], |now, read| now.data.ledger_bytes_max = read.data.ledger_bytes_max),
    (&["data.disk_free_bytes_min"], |now, read| now.data.disk_free_bytes_min = read.data.disk_free_bytes_min),
    (&["data.audit_retention_s"], |now, read| now.data.audit_retention_s = read.data.audit_retention_s),
    (&["ingest.body_bytes_max"], |now, read| now.ingest.body_bytes_max = read.ingest.body_bytes_max),
    (&["quota.*"], |now, read| now.quota.clone_from(&read.quota)),
    (&["delivery.*"], |now, read| now.delivery.clone_from(&read.delivery)),
    (&["history.*"], |now, read| now.history.clone_from(&read.history)),
    (&["egress.*"], |now, read| now.egress.clone_from(&read.egress)),
    (&["log.level"], |now, read| now.log.level.clone_from(&read.log.level)),
];

/// Copies the files of a listener, all or none. Whether a listener uses TLS is decided when it is bound.
fn take_files(now: Option<&mut Listener>, read: Option<&Listener>) {
    if let (Some(now), Some(read)) = (now, read)
        && now.tls_key.is_some()
        && read.tls_key.is_some()
    {
        now.tls_certificate.clone_from(&read.tls_certificate);
        now.tls_key.clone_from(&read.tls_key);
        now.client_ca.clone_from(&read.client_ca);
    }
}

#[cfg(test)]
pub(super) fn is_live(key: &str) -> bool {
    LIVE.iter().flat_map(|(keys, _)| *keys).any(|live| match live.strip_suffix('*') {
        Some(table) => key.starts_with(table),
        None => key == *live,
    })
}

impl Config {
    /// Compares these settings, which are in force, with the newly read ones.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the immediate changes conflict with current values that only a restart would change.
    pub fn change_to(&self, read: &Self) -> Result<Change, Error> {
        let change = self.merged(read)?;
        let faults = change.config.faults();
        if faults.is_empty() {
            return Ok(change);
        }
        let waits: Vec<_> = change.restart.iter().map(|key| format!("`{key}`")).collect();
        let with =
            format!("this goes together with what only a restart changes ({}): restart the host", waits.join(", "));
        Err(Error::invalid(faults.into_iter().map(|fault| format!("{fault}; {with}"))))
    }

    fn merged(&self, read: &Self) -> Result<Change, Error> {
        let mut config = self.clone();
        for (_, take) in LIVE {
            take(&mut config, read);
        }
        let (applied, restart) = (differing(self, &config)?, differing(&config, read)?);
        Ok(Change { config, applied, restart })
    }
}

/// The keys that differ, sorted. Values are omitted because some are secrets.
fn differing(one: &Config, other: &Config) -> Result<Vec<String>, Error> {
    let in_json = |config| serde_json::to_value(config).map_err(|error| Error::invalid([error.to_string()]));
    let mut keys = BTreeSet::new();
    compare(&in_json(one)?, &in_json(other)?, "", &mut keys);
    // JSON shows only the names of the headers, and the proxy without its password: compare these values directly.
    let exposed = |config: &Config| -> Vec<(String, String)> {
        config.traces.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
    };
    if exposed(one) != exposed(other) {
        keys.insert("traces.headers".to_owned());
    }
    if one.egress.proxy != other.egress.proxy {
        keys.insert("egress.proxy".to_owned());
    }
    Ok(Vec::from_iter(keys))
}

fn compare(one: &Value, other: &Value, key: &str, keys: &mut BTreeSet<String>) {
    if let (Value::Object(one), Value::Object(other)) = (one, other) {
        for (name, value) in one {
            let below = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            compare(value, other.get(name).unwrap_or(&Value::Null), &below, keys);
        }
    } else if one != other {
        keys.insert(key.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All optional tables present, so that every key exists.
    fn config() -> Config {
        let mut config = Config::default();
        config.listen.operator = Some(config.listen.main());
        config.listen.tenant = Some(config.listen.main());
        config
    }

    fn changed(change: impl FnOnce(&mut Config)) -> Result<Change, Error> {
        let now = Config::default();
        let mut read = now.clone();
        change(&mut read);
        now.change_to(&read)
    }

    /// Every key that is not a table.
    fn keys() -> Vec<String> {
        fn walk(value: &Value, key: &str, keys: &mut Vec<String>) {
            match value.as_object() {
                Some(table) => table.iter().for_each(|(name, value)| walk(value, &format!("{key}/{name}"), keys)),
                None => keys.push(key.to_owned()),
            }
        }
        let mut keys = Vec::new();
        walk(&serde_json::to_value(config()).unwrap(), "", &mut keys);
        keys
    }

    #[test]
    fn each_number_and_switch_takes_effect_or_is_named() {
        let now = config();
        let values = serde_json::to_value(&now).unwrap();
        let mut tried = 0;
        for pointer in keys() {
            let mut read = values.clone();
            let value = read.pointer_mut(&pointer).unwrap();
            *value = match &*value {
                Value::Bool(on) => (!on).into(),
                Value::Number(number) => match number.as_u64() {
                    Some(number) => (number + 1).into(),
                    None => (number.as_f64().unwrap() / 2.0).into(),
                },
                _ => continue,
            };
            let key = pointer[1..].replace('/', ".");
            let change = now.merged(&serde_json::from_value(read).unwrap()).unwrap();
            let (named, other) =
                if is_live(&key) { (change.applied, change.restart) } else { (change.restart, change.applied) };
            assert_eq!((named, other), (vec![key], vec![]));
            tried += 1;
        }
        assert!(tried > 40, "{tried} keys");
    }

    #[test]
    fn what_is_called_live_is_there() {
        let keys: Vec<_> = keys().iter().map(|key| key[1..].replace('/', ".")).collect();
        for live in LIVE.iter().flat_map(|(keys, _)| *keys) {
            let is_there = match live.strip_suffix('*') {
                Some(table) => keys.iter().any(|key| key.starts_with(table)),
                None => keys.iter().any(|key| key == live),
            };
            assert!(is_there, "`{live}` is no setting");
        }
    }

    #[test]
    fn what_can_take_effect_does_and_the_rest_is_named() {
        let change = changed(|read| {
            read.quota.backlog_deliveries_max = 7;
            read.egress.allow = vec!["10.0.0.0/8".parse().unwrap()];
            read.data.clock_settle_s = 9;
            read.data.dir = "elsewhere".into();
            read.log.level = "debug".into();
        })
        .unwrap();
        assert_eq!(change.applied, ["egress.allow", "log.level", "quota.backlog_deliveries_max"]);
        assert_eq!(change.restart, ["data.clock_settle_s", "data.dir"]);
        assert_eq!(change.config.quota.backlog_deliveries_max, 7);
        assert_eq!(change.config.data.clock_settle_s, Config::default().data.clock_settle_s, "as it still is");
        let nothing = changed(|_| {}).unwrap();
        assert!(nothing.applied.is_empty() && nothing.restart.is_empty());
    }

    #[test]
    fn a_proxys_new_password_is_a_change_and_stays_one_piece() {
        let proxy = |given: &str| Some(given.to_owned().try_into().unwrap());
        let mut now = Config::default();
        now.egress.proxy = proxy("http://me:old@proxy.example:3128");
        let mut read = now.clone();
        assert!(now.change_to(&read).unwrap().applied.is_empty());
        read.egress.proxy = proxy("http://me:new@proxy.example:3128");
        let change = now.change_to(&read).unwrap();
        assert_eq!((change.applied, change.restart), (vec!["egress.proxy".to_owned()], vec![]));
        assert_eq!(change.config.egress.proxy.unwrap().credentials.unwrap().expose(), "me:new");
    }

    #[test]
    fn listeners_come_and_go_and_begin_tls_with_a_restart_alone() {
        let added = changed(|read| {
            read.listen.operator = Some(read.listen.main());
            read.listen.address = read.listen.address.clone().with_port(1);
        })
        .unwrap();
        assert_eq!(added.restart, ["listen.address", "listen.operator"]);
        assert!(added.config.listen.operator.is_none());

        let begun = changed(|read| {
            read.listen.tls_certificate = Some("c.pem".into());
            read.listen.tls_key = Some("k.pem".into());
        })
        .unwrap();
        assert_eq!(begun.restart, ["listen.tls_certificate", "listen.tls_key"]);
        assert!(begun.config.listen.tls_key.is_none());
    }

    #[test]
    fn a_listener_that_speaks_tls_takes_other_files() {
        let mut now = config();
        now.listen.tls_certificate = Some("c.pem".into());
        now.listen.tls_key = Some("k.pem".into());
        now.listen.operator = Some(now.listen.main());
        let mut read = now.clone();
        read.listen.tls_certificate = Some("new.pem".into());
        let operator = read.listen.operator.as_mut().unwrap();
        operator.client_ca = Some("ca.pem".into());
        // Ignored: this listener does not use TLS yet.
        read.listen.tenant.as_mut().unwrap().client_ca = Some("ca.pem".into());
        let change = now.merged(&read).unwrap();
        assert_eq!(change.applied, ["listen.operator.client_ca", "listen.tls_certificate"]);
        assert_eq!(change.restart, ["listen.tenant.client_ca"]);
    }

    #[test]
    fn what_does_not_go_together_is_refused_whole() {
        let error = changed(|read| {
            read.ingest.body_bytes_max = 20 << 20;
            read.listen.bodies_bytes_max = 128 << 20;
        })
        .unwrap_err();
        let said = error.to_string();
        assert!(said.contains("ingest.body_bytes_max") && said.contains("listen.bodies_bytes_max"), "{said}");
        assert!(said.contains("restart"), "{said}");
    }
}
