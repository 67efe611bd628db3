//! The host's interfaces, and the ones that each listener serves.

use crate::http::listener::settings::Listen;

/// The audience of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// Senders of events.
    Ingest,
    /// Tenants that manage their own resources.
    Tenant,
    /// The operator.
    Operator,
}

use Interface::{Ingest, Operator, Tenant};

/// The interfaces of each listener, by the name of its table. The main one serves every interface without a listener of
/// its own.
pub fn served(listen: &Listen, table: &str) -> Vec<Interface> {
    match table {
        "listen.operator" => vec![Operator],
        "listen.tenant" => vec![Tenant],
        _ => {
            let own = [(Tenant, listen.tenant.is_some()), (Operator, listen.operator.is_some())];
            let rest = own.into_iter().filter(|(_, has_its_own)| !has_its_own).map(|(interface, _)| interface);
            std::iter::once(Ingest).chain(rest).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_listener_serves_what_has_none_of_its_own() {
        let mut listen = Listen::default();
        assert_eq!(served(&listen, "listen"), [Ingest, Tenant, Operator]);
        listen.operator = Some(listen.main());
        assert_eq!(served(&listen, "listen"), [Ingest, Tenant]);
        assert_eq!(served(&listen, "listen.operator"), [Operator]);
        listen.tenant = Some(listen.main());
        assert_eq!(served(&listen, "listen"), [Ingest]);
        assert_eq!(served(&listen, "listen.tenant"), [Tenant]);
    }
}
