//! Name lookups. Each lookup blocks a thread for as long as the system resolver takes, so their number is limited and
//! shared between tenants: a tenant with unresponsive names must not delay the lookups of others.
//!
//! Each tenant has one slot of its own and may use several shared slots, which are scheduled fairly. A tenant that has
//! used more resolver time is scheduled later. The time in the queue does not count against the timeouts of an attempt
//! (see [`QueueTime`]), because it is not a failure of the receiver. A slot is occupied until the lookup ends, even if the
//! caller has given up.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use setgate_base::fair::{AcquireError, FairLimits, FairSemaphore, Permit};
use setgate_domain::attempt::ErrorClass;
use setgate_domain::id::TenantId;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::failure::{Failure, HostShortage, host_shortage};
use super::resolve::Resolve;

/// Limit for the concurrent lookups in tenants' own slots.
const DEDICATED_MAX: usize = 64;
/// Limit for the concurrent lookups in shared slots.
const SHARED_MAX: usize = 64;
/// Limit for one tenant's lookups in shared slots.
const SHARED_PER_TENANT_MAX: usize = 8;
/// Limit for the concurrent lookups of the operator's proxy.
const PROXY_LOOKUPS_MAX: usize = 8;
/// Cost in milliseconds that a tenant is charged for a lookup until its duration is known.
const COST_MS: u64 = 20;
/// Longest time in the queue. After it, the delivery is put back and becomes due again without an attempt.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Lookups {
    resolver: Arc<dyn Resolve>,
    semaphores: LookupSemaphores,
    proxy_lookups: Arc<Semaphore>,
    queue_timeout: Duration,
}

struct LookupSemaphores {
    dedicated: FairSemaphore,
    shared: FairSemaphore,
}

impl std::fmt::Debug for LookupSemaphores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LookupSemaphores")
    }
}

impl Lookups {
    pub(super) fn new(resolver: Arc<dyn Resolve>) -> Self {
        let semaphore = |permits, per_tenant_max| {
            FairSemaphore::new(FairLimits {
                permits,
                per_tenant_max,
                // The tenants' own slots already guarantee free slots for idle tenants.
                reserve_for_idle_tenants: false,
                queued_per_tenant_max: usize::MAX,
                estimated_cost: COST_MS,
            })
        };
        let semaphores = LookupSemaphores {
            dedicated: semaphore(DEDICATED_MAX, 1),
            shared: semaphore(SHARED_MAX, SHARED_PER_TENANT_MAX),
        };
        Self {
            resolver,
            semaphores,
            proxy_lookups: Arc::new(Semaphore::new(PROXY_LOOKUPS_MAX)),
            queue_timeout: QUEUE_TIMEOUT,
        }
    }

    /// Resolves the host of a tenant's receiver. The time in the queue is added to `queue_time`.
    pub(super) async fn resolve_for_tenant(
        &self,
        tenant: &TenantId,
        queue_time: &QueueTime,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let permit = {
            let _waiting = queue_time.begin();
            timeout(self.queue_timeout, self.semaphores.acquire(tenant)).await
        };
        let Ok(Ok(permit)) = permit else {
            let detail = "too many name lookups are in progress on this host";
            return Err(Failure::new(ErrorClass::Resolve, detail).with_host_shortage(HostShortage::Lookups));
        };
        let began = Instant::now();
        self.lookup(host, port, move || {
            permit.release(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1));
        })
        .await
    }

    /// Resolves the operator's proxy, which is used for all tenants.
    pub(super) async fn resolve_for_operator(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let permit = Arc::clone(&self.proxy_lookups).acquire_owned().await.expect("the semaphore is never closed");
        self.lookup(host, port, move || drop(permit)).await
    }

    /// `then` is called when the resolver has returned, even if the caller was cancelled.
    async fn lookup(
        &self,
        host: &str,
        port: u16,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let resolving = self.resolver.resolve(host, port);
        let resolved = tokio::spawn(async move {
            let resolved = resolving.await;
            then();
            resolved
        });
        match resolved.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(addresses) if addresses.is_empty() => Err(unresolved("it has no address")),
            Ok(addresses) => Ok(addresses),
            Err(error) => {
                let failure = unresolved(&error.to_string());
                Err(match host_shortage(&error).or_else(out_of_descriptors) {
                    Some(shortage) => failure.with_host_shortage(shortage),
                    None => failure,
                })
            }
        }
    }
}

impl LookupSemaphores {
    async fn acquire(&self, tenant: &TenantId) -> Result<Permit, AcquireError> {
        // Uses the first free slot. The other queue entry is cancelled.
        match select(Box::pin(self.dedicated.acquire(tenant)), Box::pin(self.shared.acquire(tenant))).await {
            Either::Left((permit, _)) | Either::Right((permit, _)) => permit,
        }
    }
}

fn unresolved(why: &str) -> Failure {
    Failure::new(ErrorClass::Resolve, &format!("the name does not resolve: {why}"))
}

/// The system resolver reports its own errors if it cannot open a socket or file, some of which look like an unknown
/// name. So this checks whether a file can be opened at present.
fn out_of_descriptors() -> Option<HostShortage> {
    std::fs::File::open("/dev/null").err().as_ref().and_then(host_shortage)
}

/// The total time that a client's connections have spent in the queue. Attempts are not charged for it.
#[derive(Debug, Clone, Default)]
pub(super) struct QueueTime(Arc<Mutex<QueueTimeState>>);

#[derive(Debug, Default)]
struct QueueTimeState {
    total: Duration,
    now: usize,
    since: Option<Instant>,
}

/// A wait that ends on drop.
struct QueueTimer<'a>(&'a QueueTime);

impl QueueTime {
    fn begin(&self) -> QueueTimer<'_> {
        let mut waited = self.lock();
        waited.now += 1;
        waited.since.get_or_insert_with(Instant::now);
        drop(waited);
        QueueTimer(self)
    }

    /// The total so far.
    pub(super) fn total(&self) -> Duration {
        let waited = self.lock();
        waited.total + waited.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, QueueTimeState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for QueueTimer<'_> {
    fn drop(&mut self) {
        let mut waited = self.0.lock();
        waited.now -= 1;
        if waited.now == 0
            && let Some(since) = waited.since.take()
        {
            waited.total += since.elapsed();
        }
    }
}

/// Waits for a future until `wait` after `begin`, extended by the current value of `uncharged`. `None` on timeout.
pub(super) async fn timeout_with_extension<T>(
    begin: Instant,
    wait: Duration,
    mut uncharged: impl FnMut() -> Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut end = begin + wait;
    loop {
        if let Ok(done) = timeout_at(end, future.as_mut()).await {
            return Some(done);
        }
        let later = begin + wait + uncharged();
        // Smaller extensions are ignored, because each iteration takes some time itself.
        if later <= end + Duration::from_millis(1) {
            return None;
        }
        end = later;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;

    use super::super::failure::FailureKind;
    use super::*;

    #[derive(Debug)]
    struct Never;

    impl Resolve for Never {
        fn resolve(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
            std::future::pending().boxed()
        }
    }

    #[tokio::test]
    async fn lookup_queue_timeout_is_no_attempt() {
        let queue_timeout = Duration::from_millis(50);
        let lookups = Arc::new(Lookups { queue_timeout, ..Lookups::new(Arc::new(Never)) });
        let (queue_time, tenant): (_, TenantId) = (QueueTime::default(), "acme".parse().unwrap());
        let under_way: Vec<_> = (0..=SHARED_PER_TENANT_MAX)
            .map(|_| {
                let (lookups, queue_time, tenant) = (Arc::clone(&lookups), queue_time.clone(), tenant.clone());
                tokio::spawn(async move { lookups.resolve_for_tenant(&tenant, &queue_time, "dead.example", 443).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(queue_time.lock().now, 0, "the others have slots");
        let failure = lookups.resolve_for_tenant(&tenant, &queue_time, "alive.example", 443).await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::HostShortage(HostShortage::Lookups));
        assert!(queue_time.total() >= queue_timeout);
        under_way.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn deadline_is_extended_by_queue_time_only() {
        let (begin, wait) = (Instant::now(), Duration::from_millis(30));
        assert_eq!(timeout_with_extension(begin, wait, || Duration::ZERO, std::future::pending::<()>()).await, None);
        assert_eq!(
            timeout_with_extension(begin, wait, || Duration::from_millis(50), std::future::pending::<()>()).await,
            None
        );
        assert!(begin.elapsed() >= Duration::from_millis(80));
        let ready = tokio::time::sleep(Duration::from_millis(60));
        assert_eq!(timeout_with_extension(Instant::now(), wait, || Duration::from_secs(60), ready).await, Some(()));
    }
}
