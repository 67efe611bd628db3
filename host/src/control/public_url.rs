//! `[server]`: the host as other parties reach it.

use serde::{Deserialize, Serialize};
use setgate_domain::public_url::PublicUrl;

/// The host as other parties reach it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// URL under which receivers and transmitters reach `listen.address`, such as `https://edge.example`; http is
    /// accepted for loopback hosts only. Required before a tenant's first issuer key: the tenant's issuer is this URL
    /// followed by `/t/{tenant}`. A change applies to tenants without an issuer; an issuer that was made stays.
    pub public_url: Option<PublicUrl>,
}
