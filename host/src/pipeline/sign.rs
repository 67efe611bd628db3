//! Issues the SET of a delivery under the issuer of its tenant and signs it. This runs once per delivery: the token is
//! stored before the first send, so that every retry sends the same bytes.

use std::sync::Arc;

use setgate_base::clock::Clock;
use setgate_base::fair::{FairLimits, FairSemaphore};
use setgate_domain::algorithm::Algorithm;
use setgate_domain::set::{Reissue, reissue};
use setgate_domain::subscription;
use setgate_jose::SigningKey;
use setgate_ledger::{Deliveries, SignedSet};

use super::issuer_keys::{IssuerKeys, NoIssuerKey};
use super::next::Filtered;

/// `typ` of a SET (RFC 8417 section 2.3).
const TYP: &str = "secevent+jwt";

/// Number of SETs that are signed at the same time, for each core.
const SIGNATURES_PER_CORE: usize = 1;
/// Assumed CPU time of an RSA signature, in microseconds.
const SIGNATURE_US: u64 = 1_000;

/// Why a SET was not signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The ledger could not be read or written. The delivery stays due.
    #[error(transparent)]
    Ledger(#[from] setgate_ledger::Error),
    /// The tenant has no usable key.
    #[error(transparent)]
    NoKey(#[from] NoIssuerKey),
    /// The claims or the key are not usable.
    #[error("the SET could not be signed: {0}")]
    Unsignable(String),
    /// The delivery was removed, or the host is shutting down.
    #[error("the delivery is gone")]
    Gone,
}

/// Signs SETs.
pub(super) struct SetSigner {
    deliveries: Deliveries,
    keys: Arc<IssuerKeys>,
    clock: Clock,
    /// Admits signatures to the CPU, so that the burst of one tenant does not delay the other tenants.
    turns: FairSemaphore,
}

impl SetSigner {
    pub(super) fn new(deliveries: Deliveries, keys: Arc<IssuerKeys>, clock: Clock) -> Self {
        let permits = SIGNATURES_PER_CORE * std::thread::available_parallelism().map_or(1, usize::from);
        let turns = FairSemaphore::new(FairLimits {
            permits,
            per_tenant_max: permits.div_ceil(2),
            reserve_for_idle_tenants: false,
            // The limits of deliveries in flight bound the queue.
            queued_per_tenant_max: usize::MAX,
            estimated_cost: SIGNATURE_US,
        });
        Self { deliveries, keys, clock, turns }
    }

    /// The signed SET of a delivery with a completed chain. Its `jti` is the id of the delivery.
    pub(super) async fn sign(
        &self,
        filtered: &Filtered,
        settings: &subscription::SignedSet,
    ) -> Result<SignedSet, Error> {
        let delivery = &filtered.delivery;
        if let Some(signed) = self.deliveries.signed_set(&delivery.tenant, delivery.seq).await? {
            return Ok(signed);
        }
        let set = self.make(filtered, settings).await?;
        self.deliveries.store_signed_set(&delivery.tenant, delivery.seq, set).await?.ok_or(Error::Gone)
    }

    async fn make(&self, filtered: &Filtered, settings: &subscription::SignedSet) -> Result<SignedSet, Error> {
        let tenant = &filtered.delivery.tenant;
        let turn = self.turns.acquire(tenant).await.map_err(|_| Error::Gone)?;
        let (keys, owner, algorithm) = (self.keys.clone(), tenant.clone(), settings.algorithm);
        let (event, claims, audience) = (filtered.event.clone(), filtered.claims.clone(), settings.audience.clone());
        let (jti, issued_at) = (filtered.delivery.id.to_string(), self.clock.system_time().as_seconds());
        let signing = tokio::task::spawn_blocking(move || {
            let (key, issuer) = keys.signing_key(&owner, algorithm)?;
            let transaction = event.id.to_string();
            let new = Reissue { issuer: &issuer, audience: &audience, jti: &jti, issued_at, transaction: &transaction };
            let claims = claims.as_deref().unwrap_or(&event.set.text);
            let payload = reissue(&event.set, claims, new).map_err(|error| Error::Unsignable(error.to_string()))?;
            let token = sign(&key, &payload)?;
            // The place moves into the work, because the caller may be cancelled before the work ends.
            turn.release(cost_us(algorithm));
            Ok(SignedSet { kid: key.kid().to_owned(), jti, token })
        });
        // The task fails only if the host shuts down.
        signing.await.map_err(|_| Error::Gone)?
    }
}

fn sign(key: &SigningKey, payload: &str) -> Result<String, Error> {
    key.sign(TYP, payload).map_err(|error| Error::Unsignable(error.to_string()))
}

/// CPU time of a signature in microseconds, as measured by the bench.
fn cost_us(algorithm: Algorithm) -> u64 {
    match algorithm {
        Algorithm::Rs256 | Algorithm::Ps256 => SIGNATURE_US,
        Algorithm::Es256 | Algorithm::EdDsa => SIGNATURE_US / 20,
    }
}
