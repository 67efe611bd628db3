//! The data of a call's store.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use setgate_domain::id::{Digest, EventId};
use setgate_domain::secret::Secret;
use setgate_domain::time::Timestamp;
use wasmtime::{StoreContextMut, Trap};

use super::limits::Limits;
use super::log::Log;
use super::random::Random;
use super::{MemoryTables, Tables};

/// Fuel cost of one host call. About the cost of entering and leaving the host, so that a loop of cheap calls is
/// metered like any other.
const HOST_CALL_FUEL: u64 = 1_000;

/// The data of one call's store. A pooled instance gets a new one for each call.
pub(super) struct State {
    pub(super) limits: Limits,
    pub(super) meter: Meter,
    pub(super) log: Log,
    pub(super) accepted_at: Timestamp,
    pub(super) random: Random,
    pub(super) config: Config,
    pub(super) tables: Arc<dyn Tables>,
}

impl State {
    /// The state between calls: no settings, no secrets, no tables, no fuel and no log.
    pub(super) fn idle(limits: Limits) -> Self {
        Self {
            limits,
            meter: Meter::new(0, 0, 1, 0),
            log: Log::new(0, Arc::default()),
            accepted_at: Timestamp::from_millis(0),
            random: Random::new(EventId::from_bytes([0; 16]), Digest([0; 32])),
            config: Config::new("{}".into(), BTreeMap::new()),
            tables: Arc::new(MemoryTables::default()),
        }
    }
}

/// The binding's settings and secrets.
pub(super) struct Config {
    /// The settings, as the text of a JSON object.
    pub(super) text: Arc<str>,
    pub(super) secrets: BTreeMap<String, Secret>,
    /// The object's members, parsed when the filter first requests one.
    members: Option<BTreeMap<String, Box<RawValue>>>,
}

impl Config {
    pub(super) fn new(text: Arc<str>, secrets: BTreeMap<String, Secret>) -> Self {
        Self { text, secrets, members: None }
    }

    pub(super) fn member(&mut self, key: &str) -> Option<String> {
        let members = self.members.get_or_insert_with(|| serde_json::from_str(&self.text).unwrap_or_default());
        members.get(key).map(|value| value.get().to_owned())
    }
}

/// Counts host calls and the bytes that they return.
pub(super) struct Meter {
    calls: u64,
    calls_max: u64,
    bytes: u64,
    bytes_max: u64,
    /// Fuel of one slice, after which the call yields.
    slice: u64,
    /// Fuel left when the current turn began.
    turn_began_at: u64,
}

/// Why a host call ended the guest's call. Passed through the engine as an error and downcast in `fault`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    #[error("went over `{limit_name}`")]
    HostCalls { limit_name: &'static str, limit: u64 },
    #[error("called wasi:cli/exit")]
    Exit,
    #[error("{call} is not available to filters")]
    Denied { call: Arc<str> },
}

impl Meter {
    pub(super) fn new(calls_max: u64, bytes_max: u64, slice: u64, fuel: u64) -> Self {
        Self { calls: 0, calls_max, bytes: 0, bytes_max, slice, turn_began_at: fuel }
    }

    /// Counts one host call.
    ///
    /// # Errors
    /// [`Stop::HostCalls`] if the guest already made `host_calls_max` calls.
    pub(super) fn count_call(&mut self) -> Result<(), Stop> {
        self.calls += 1;
        if self.calls > self.calls_max {
            return Err(Stop::HostCalls { limit_name: "host_calls_max", limit: self.calls_max });
        }
        Ok(())
    }

    /// Counts bytes returned to the guest.
    ///
    /// # Errors
    /// [`Stop::HostCalls`] if the total exceeds the guest's memory limit.
    pub(super) fn count_bytes(&mut self, bytes: usize) -> Result<(), Stop> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.bytes > self.bytes_max {
            return Err(Stop::HostCalls { limit_name: "memory_bytes_max", limit: self.bytes_max });
        }
        Ok(())
    }
}

/// Consumes the fuel of one host call that moves `bytes` bytes, and yields if the slice is used up.
///
/// Metering instructions alone would not be enough: a guest could spend hours inside host calls for the fuel of the few
/// instructions around them. Since the engine yields only between instructions, no other call would get the thread.
///
/// # Errors
/// [`Trap::OutOfFuel`] if not enough fuel is left.
pub(super) async fn charge(store: &mut StoreContextMut<'_, State>, bytes: usize) -> wasmtime::Result<()> {
    let cost = HOST_CALL_FUEL.saturating_add(bytes as u64);
    let Some(left) = store.get_fuel()?.checked_sub(cost) else {
        store.set_fuel(0)?;
        return Err(Trap::OutOfFuel.into());
    };
    // Setting the fuel also starts a new slice in the engine, so turns are counted here as well.
    store.set_fuel(left)?;
    let meter = &mut store.data_mut().meter;
    if meter.turn_began_at.saturating_sub(left) >= meter.slice {
        meter.turn_began_at = left;
        tokio::task::yield_now().await;
    }
    Ok(())
}
