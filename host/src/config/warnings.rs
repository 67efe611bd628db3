//! Warnings about settings that are valid and probably not intended.

use super::Config;

impl Config {
    /// One message for each setting that weakens security, or that another setting makes ineffective.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.egress.allow_http {
            warnings.push("`egress.allow_http` is true: events can be sent to receivers without encryption".to_owned());
        }
        if self.egress.allow.iter().any(|network| network.prefix_len() == 0) {
            warnings.push(
                "`egress.allow` contains every address: tenants can send requests to all internal networks".to_owned(),
            );
        }
        if self.data.retention_min_s > self.data.retention_s {
            warnings
                .push("`data.retention_min_s` is more than `data.retention_s`, and has no effect beyond it".to_owned());
        }
        for (key, share, all) in [
            (
                "sandbox.instances",
                u64::from(self.sandbox.instances_per_tenant_max),
                u64::from(self.sandbox.instances_max),
            ),
            ("delivery.in_flight", self.delivery.in_flight_per_tenant_max as u64, self.delivery.in_flight_max as u64),
        ] {
            if share > all {
                warnings.push(format!("`{key}_per_tenant_max` is more than `{key}_max`, and has no effect beyond it"));
            }
        }
        warnings
    }
}
