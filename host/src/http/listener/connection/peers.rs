//! The connections of a listener by client, and the idle ones among them.
//!
//! A connection without a request is idle, regardless of pings and settings from its client. It is closed after
//! [`Limits::idle`], or earlier if its slot is needed: first from the client with the most connections, and among those
//! the one that has been idle longest.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Number of idle connections closed together if all slots are taken, so that waiting connections do not wait for one
/// close each.
const CLOSED_AT_ONCE: usize = 16;

/// The addresses that count as one client: an IPv4 address, or an IPv6 /64 network, which is the smallest that a
/// provider assigns to a customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::http) enum Peer {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// Limits of connections.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Limits {
    /// Maximum number of connections of one client.
    pub(in crate::http) per_peer_max: usize,
    /// How long a connection may be idle.
    pub(in crate::http) idle: Duration,
}

/// All connections of a listener. Clones share them.
#[derive(Clone)]
pub(super) struct Connections(Arc<Inner>);

struct Inner {
    limits: Limits,
    /// Reference of the times in milliseconds.
    begin: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    open: HashMap<u64, Entry>,
    /// Number of connections of each client, plus requests of clients behind a proxy.
    of_peer: HashMap<Peer, usize>,
}

struct Entry {
    /// `None` for a trusted proxy, also before its PROXY protocol header has arrived.
    peer: Option<Peer>,
    usage: Arc<Usage>,
    close: CancellationToken,
}

/// The current use of a connection. Lock-free, because every request updates it.
#[derive(Default)]
struct Usage {
    requests: AtomicUsize,
    /// Milliseconds from [`Inner::begin`] to the end of the last request.
    idle_since_ms: AtomicU64,
}

/// An open connection, removed on drop.
pub(super) struct Connection {
    all: Connections,
    id: u64,
    usage: Arc<Usage>,
    close: CancellationToken,
}

/// A request until its answer has been sent; its connection is not idle until this is dropped.
pub(super) struct Request {
    all: Connections,
    usage: Arc<Usage>,
}

/// A request of a client behind a proxy, counted for the client until dropped.
pub(super) struct Proxied {
    all: Connections,
    peer: Peer,
}

/// The client has reached its limit of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LimitReached;

impl Connections {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner { limits, begin: Instant::now(), state: Mutex::default() }))
    }

    /// Adds a connection of a client, or of a trusted proxy (`None`), which has no limit.
    pub(super) fn admit(&self, peer: Option<Peer>) -> Result<Connection, LimitReached> {
        let mut state = self.lock();
        if let Some(peer) = peer {
            self.take_share(&mut state, peer)?;
        }
        let id = state.next;
        state.next += 1;
        let usage = Arc::new(Usage { idle_since_ms: AtomicU64::new(self.now_ms()), ..Usage::default() });
        let close = CancellationToken::new();
        state.open.insert(id, Entry { peer, usage: usage.clone(), close: close.clone() });
        Ok(Connection { all: self.clone(), id, usage, close })
    }

    /// Closes some idle connections, if there are any, to free slots.
    pub(super) fn close_idle(&self) {
        let mut state = self.lock();
        for _ in 0..CLOSED_AT_ONCE {
            let State { open, of_peer, .. } = &*state;
            let crowd = |entry: &Entry| entry.peer.and_then(|peer| of_peer.get(&peer).copied()).unwrap_or(0);
            let idle = open.iter().filter_map(|(id, entry)| Some((crowd(entry), entry.idle_since()?, *id)));
            let longest = idle.max_by_key(|(crowd, since, _)| (*crowd, std::cmp::Reverse(*since)));
            let Some((_, _, id)) = longest else { return };
            state.close(id);
        }
    }

    /// Counts a request of a client behind a proxy whose connections carry requests of many clients.
    pub(super) fn proxied(&self, peer: Peer) -> Result<Proxied, LimitReached> {
        self.take_share(&mut self.lock(), peer)?;
        Ok(Proxied { all: self.clone(), peer })
    }

    fn take_share(&self, state: &mut State, peer: Peer) -> Result<(), LimitReached> {
        if state.of_peer.get(&peer).copied().unwrap_or(0) >= self.0.limits.per_peer_max {
            // If the client has an idle connection, that one is closed to free a slot for the new one.
            let own = state.open.iter().filter(|(_, entry)| entry.peer == Some(peer));
            let idle = own.filter_map(|(id, entry)| Some((entry.idle_since()?, *id))).min();
            let (_, id) = idle.ok_or(LimitReached)?;
            state.close(id);
        }
        *state.of_peer.entry(peer).or_default() += 1;
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counts and entries are updated together, and nothing in between can panic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Closes a connection. Its slot in the client's limit is free immediately.
    fn close(&mut self, id: u64) {
        if let Some(entry) = self.open.remove(&id) {
            entry.close.cancel();
            self.give_back(entry.peer);
        }
    }

    fn give_back(&mut self, peer: Option<Peer>) {
        let Some(peer) = peer else { return };
        if let Some(count) = self.of_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.of_peer.remove(&peer);
            }
        }
    }
}

impl Entry {
    fn idle_since(&self) -> Option<u64> {
        self.usage.idle_since()
    }
}

impl Usage {
    fn idle_since(&self) -> Option<u64> {
        (self.requests.load(Ordering::Acquire) == 0).then(|| self.idle_since_ms.load(Ordering::Acquire))
    }
}

impl Connection {
    /// Sets the client of a connection that came through a proxy.
    pub(super) fn set_client(&self, peer: Peer) -> Result<(), LimitReached> {
        let mut state = self.all.lock();
        self.all.take_share(&mut state, peer)?;
        match state.open.get_mut(&self.id) {
            Some(entry) => entry.peer = Some(peer),
            // The connection is being closed.
            None => state.give_back(Some(peer)),
        }
        Ok(())
    }

    /// Starts a request.
    pub(super) fn request(&self) -> Request {
        self.usage.requests.fetch_add(1, Ordering::AcqRel);
        Request { all: self.all.clone(), usage: self.usage.clone() }
    }

    /// Waits until the connection must be closed because its slot is needed or it was idle for too long.
    pub(super) async fn to_be_closed(&self) {
        tokio::select! {
            () = self.close.cancelled() => {}
            () = self.idle_for_too_long() => {}
        }
    }

    async fn idle_for_too_long(&self) {
        let idle = self.all.0.limits.idle;
        loop {
            let at = match self.usage.idle_since() {
                Some(since_ms) => self.all.0.begin + Duration::from_millis(since_ms) + idle,
                None => Instant::now() + idle,
            };
            if at <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(at).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        if let Some(entry) = state.open.remove(&self.id) {
            state.give_back(entry.peer);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.usage.idle_since_ms.store(self.all.now_ms(), Ordering::Release);
        self.usage.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        self.all.lock().give_back(Some(self.peer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(per_peer_max: usize) -> Connections {
        Connections::new(Limits { per_peer_max, idle: Duration::from_secs(60) })
    }

    fn peer(address: &str) -> Peer {
        Peer::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_client_is_an_address_or_a_network_of_64_bits() {
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff::9"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"), "an IPv4 address as IPv6 has it");
    }

    #[tokio::test]
    async fn a_client_has_its_share_and_its_idle_connections_make_place() {
        let all = connections(2);
        let (ours, theirs) = (peer("192.0.2.1"), peer("192.0.2.2"));
        let first = all.admit(Some(ours)).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let second = all.admit(Some(ours)).unwrap();
        let _third = all.admit(Some(ours)).unwrap();
        assert!(first.close.is_cancelled(), "it was idle for longest");
        assert!(!second.close.is_cancelled());

        let busy = [second.request(), _third.request()];
        assert_eq!(all.admit(Some(ours)).err(), Some(LimitReached));
        assert!(all.admit(Some(theirs)).is_ok() && all.admit(None).is_ok(), "others are not concerned");
        assert_eq!(all.proxied(ours).err(), Some(LimitReached), "its requests through a proxy are of the same share");
        let through = all.admit(None).unwrap();
        assert_eq!(through.set_client(ours), Err(LimitReached));
        drop(busy);
        assert_eq!(through.set_client(ours), Ok(()));
        drop((first, second, _third, through));
        assert!(all.lock().of_peer.is_empty(), "nothing stays counted");
        assert!(all.lock().open.is_empty());
    }

    #[tokio::test]
    async fn places_are_taken_from_the_client_with_the_most_idle_connections() {
        let all = connections(100);
        let (crowd, single) = (peer("192.0.2.1"), peer("192.0.2.2"));
        let alone = all.admit(Some(single)).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let many: Vec<_> = (0..CLOSED_AT_ONCE + 3).map(|_| all.admit(Some(crowd)).unwrap()).collect();
        let used: Vec<_> = many[..2].iter().map(Connection::request).collect();
        all.close_idle();
        let closed = many.iter().filter(|one| one.close.is_cancelled()).count();
        assert_eq!(closed, CLOSED_AT_ONCE);
        assert!(!many[0].close.is_cancelled() && !many[1].close.is_cancelled(), "those in use are not closed");
        assert!(!alone.close.is_cancelled(), "it was idle for longer, and has the fewest");
        all.close_idle();
        assert!(alone.close.is_cancelled());
        drop(used);
    }

    #[tokio::test]
    async fn a_connection_is_closed_after_it_was_idle_and_not_while_it_is_used() {
        let all = Connections::new(Limits { per_peer_max: 2, idle: Duration::from_millis(50) });
        let one = all.admit(Some(peer("192.0.2.1"))).unwrap();
        let request = one.request();
        let mut closing = Box::pin(one.to_be_closed());
        let waits = tokio::time::timeout(Duration::from_millis(300), &mut closing).await;
        assert!(waits.is_err(), "a request is open");
        drop(request);
        let begun = Instant::now();
        closing.await;
        assert!(begun.elapsed() >= Duration::from_millis(49), "{:?}", begun.elapsed());
    }
}
