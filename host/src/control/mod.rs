//! The control plane: configuration and inspection by tenants and by the operator. Each file covers one resource, with a
//! handle that holds the components it uses. Its functions take parsed requests and return the views that the API
//! serialises. Functions that change something take the [`Actor`](setgate_domain::audit::Actor) for the audit log. Secrets
//! are never returned, except for generated ones, which are returned once.

pub mod audit;
mod checks;
pub mod deliveries;
pub mod downloads;
mod error;
pub mod events;
pub mod filters;
pub mod idempotency;
pub mod issuer_keys;
pub mod keys;
pub mod pages;
pub mod public_url;
mod rate;
pub mod read_only;
pub mod redrive;
pub mod replays;
pub mod reproduction;
pub mod rollouts;
pub mod secrets;
pub mod sources;
pub mod statistics;
pub mod subscriptions;
pub mod tables;
pub mod tail;
pub mod tenants;
pub mod versions;
pub mod warnings;

use std::sync::Arc;

use setgate_base::clock::Clock;
use setgate_base::crypto::MasterKey;
use setgate_base::fair::TenantSemaphores;
use setgate_base::live::Live;
use setgate_dialects::Signer;
use setgate_domain::tenant::Quota;
use setgate_egress::Egress;
use setgate_ledger::Ledger;
use setgate_sandbox::Sandbox;

use crate::pipeline::DataPlane;
use crate::pipeline::settings::Delivery;

pub use checks::{ABSENT, TEXT_CHARS_MAX};
pub use error::Error;
pub use pages::{Page, PageQuery};
pub use setgate_ledger::{DeliveryQuery, EventQuery};

/// The components that the control plane is built from.
pub struct Components {
    pub ledger: Ledger,
    /// Validates and compiles uploads.
    pub sandbox: Sandbox,
    /// Encrypts secrets.
    pub master: Arc<MasterKey>,
    /// Encrypts signing keys.
    pub signer: Arc<Signer>,
    /// Checks endpoints against the address rules.
    pub egress: Egress,
    pub clock: Clock,
    /// Used for tenants that have no quota of their own.
    pub default_quota: Live<Quota>,
    pub delivery: Live<Delivery>,
    pub replays: Live<replays::Settings>,
    pub server: Live<public_url::Server>,
    pub data_plane: DataPlane,
}

/// The handles of all resources. Routes take the handle that they use as axum state, see
/// `http::state`.
pub struct ControlPlane {
    pub access: keys::Access,
    pub audit: audit::AuditLog,
    pub delivery_history: deliveries::DeliveryHistory,
    pub downloads: downloads::Downloads,
    pub events: events::Events,
    pub filters: filters::Filters,
    pub issuer_keys: issuer_keys::IssuerKeys,
    pub keys: keys::Keys,
    pub poll_tokens: subscriptions::PollTokens,
    pub redrives: redrive::Redrives,
    pub replays: replays::Replays,
    pub reproductions: reproduction::Reproductions,
    pub rollouts: rollouts::Rollouts,
    pub settlements: tail::Settlements,
    pub signing_keys: subscriptions::SigningKeys,
    pub sources: sources::Sources,
    pub statistics: statistics::Statistics,
    pub stored_answers: idempotency::StoredAnswers,
    pub subscriptions: subscriptions::Subscriptions,
    pub tables: tables::Tables,
    pub tenants: tenants::Tenants,
    pub test_events: subscriptions::TestEvents,
    pub verifications: subscriptions::Verifications,
}

impl ControlPlane {
    /// Builds the handles, each with the components that it uses.
    pub fn new(components: Components) -> Self {
        let Components {
            ledger,
            sandbox,
            master,
            signer,
            egress,
            clock,
            default_quota,
            delivery,
            replays,
            server,
            data_plane,
        } = components;
        let Ledger { ref registry, ref history, ref plans, ref blobs, ref usage, .. } = ledger;
        let requests = rate::ReceiverRequests::new(clock.clone());
        let delivery_history = deliveries::DeliveryHistory { registry: registry.clone(), history: history.clone() };
        let documents =
            subscriptions::Documents { registry: registry.clone(), egress: egress.clone(), clock: clock.clone() };
        let endpoints =
            subscriptions::Endpoints { master: master.clone(), clock: clock.clone(), egress: egress.clone() };
        let signing_keys = subscriptions::SigningKeys { documents: documents.clone(), signer, clock: clock.clone() };
        let verifications = subscriptions::Verifications {
            documents: documents.clone(),
            endpoints: endpoints.clone(),
            history: history.clone(),
            default_quota: default_quota.clone(),
            delivery,
            verifier: data_plane.verifier,
            requests: requests.clone(),
        };
        Self {
            access: keys::Access { registry: registry.clone(), clock: clock.clone() },
            audit: audit::AuditLog { registry: registry.clone(), history: history.clone() },
            downloads: downloads::Downloads { registry: registry.clone(), plans: plans.clone(), blobs: blobs.clone() },
            events: events::Events {
                registry: registry.clone(),
                history: history.clone(),
                events: ledger.events.clone(),
            },
            filters: filters::Filters {
                registry: registry.clone(),
                blobs: blobs.clone(),
                plans: plans.clone(),
                usage: usage.clone(),
                sandbox: sandbox.clone(),
                rollouts: data_plane.rollouts.clone(),
                clock: clock.clone(),
                default_quota: default_quota.clone(),
            },
            issuer_keys: issuer_keys::IssuerKeys::new(registry.clone(), master.clone(), clock.clone(), server),
            keys: keys::Keys { registry: registry.clone(), clock: clock.clone(), default_quota: default_quota.clone() },
            poll_tokens: subscriptions::PollTokens { documents: documents.clone() },
            redrives: redrive::Redrives {
                registry: registry.clone(),
                history: history.clone(),
                deliveries: ledger.deliveries.clone(),
                shown: delivery_history.clone(),
                requeues: data_plane.requeues,
                due: data_plane.due,
                clock: clock.clone(),
                running: Arc::new(TenantSemaphores::new(redrive::REDRIVES_PER_TENANT_MAX)),
            },
            replays: replays::Replays {
                registry: registry.clone(),
                replays: ledger.replays.clone(),
                clock: clock.clone(),
                settings: replays,
            },
            reproductions: reproduction::Reproductions {
                registry: registry.clone(),
                history: history.clone(),
                plans: plans.clone(),
                sandbox: sandbox.clone(),
                chain: data_plane.chain,
                default_quota: default_quota.clone(),
            },
            rollouts: rollouts::Rollouts {
                registry: registry.clone(),
                results: data_plane.rollouts,
                backtester: data_plane.backtester,
                clock: clock.clone(),
            },
            settlements: tail::Settlements { registry: registry.clone(), history: history.clone() },
            sources: sources::Sources {
                registry: registry.clone(),
                clock: clock.clone(),
                master: master.clone(),
                egress,
                default_quota: default_quota.clone(),
            },
            statistics: statistics::Statistics {
                registry: registry.clone(),
                history: history.clone(),
                usage: usage.clone(),
                clock: clock.clone(),
            },
            stored_answers: idempotency::StoredAnswers { registry: registry.clone(), master: master.clone() },
            subscriptions: subscriptions::Subscriptions {
                registry: registry.clone(),
                documents,
                endpoints,
                chains: subscriptions::Chains { master, sandbox: sandbox.clone() },
                signing_keys: signing_keys.clone(),
                verifications: verifications.clone(),
                clock: clock.clone(),
                default_quota: default_quota.clone(),
            },
            tables: tables::Tables {
                registry: registry.clone(),
                blobs: blobs.clone(),
                plans: plans.clone(),
                usage: usage.clone(),
                clock: clock.clone(),
                default_quota: default_quota.clone(),
            },
            tenants: tenants::Tenants {
                registry: registry.clone(),
                clock,
                sandbox: sandbox.clone(),
                usage: usage.clone(),
            },
            test_events: subscriptions::TestEvents {
                registry: registry.clone(),
                usage: usage.clone(),
                default_quota,
                sender: data_plane.test_events,
                requests,
            },
            delivery_history,
            signing_keys,
            verifications,
        }
    }
}

/// Deserialises a member that may be absent (unchanged), `null` (removed) or a value.
fn changed<'de, T: serde::Deserialize<'de>, D: serde::Deserializer<'de>>(
    given: D,
) -> Result<Option<Option<T>>, D::Error> {
    serde::Deserialize::deserialize(given).map(Some)
}
