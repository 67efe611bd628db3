//! One instance of a filter, and its state that is reset for each event.
//!
//! Everything that belongs to a call is in the store's data and in the store's own counters: fuel, turns, limits, host
//! calls, log, clock, randomness, settings, secrets and tables. [`Instance::new`] and [`Instance::renew`] set all of
//! it. So the only state of an earlier event in a reused instance is in the guest's own memories, globals and tables.

use setgate_domain::tenant::Quota;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::{Engine, Store};

use super::epoch_ticker::TICKS_PER_SLICE;
use super::limits::Limits;
use super::state::{Meter, State};
use super::wit_v0_1::{Event, Failure, Filter, FilterPre, GuestVerdict};

/// Maximum resource handles of one instance. A guest built with the Rust standard library holds fewer than ten.
const HANDLES_MAX: usize = 1_000;
/// Bytes allowed in a value from the guest in addition to the verdict's text.
const OUTPUT_SLACK_BYTES: u64 = 64 << 10;

/// The engine, and the limits that it has for every instance.
pub(super) struct EngineLimits {
    pub(super) engine: Engine,
    /// Fuel of one slice, after which a call yields.
    pub(super) fuel_slice: u64,
    /// Size limit of a linear memory in the pool, in bytes.
    pub(super) memory_bytes_max: u64,
    /// Size limit of a table in the pool, in elements.
    pub(super) table_elements_max: u64,
}

/// Permission to use one instance slot of the pooling allocator, until dropped. The idle pool assigns it.
pub(super) struct Slot(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl From<OwnedSemaphorePermit> for Slot {
    fn from(permit: OwnedSemaphorePermit) -> Self {
        Self(permit)
    }
}

/// An instance of a filter in a pool slot.
pub(super) struct Instance {
    store: Store<State>,
    /// `None` before the first call and after a fault.
    filter: Option<Filter>,
    events: u32,
    /// Declared last, so that the slot is released after the store is dropped.
    _slot: Slot,
}

impl Instance {
    /// Creates the store. The filter is instantiated by the first call.
    pub(super) fn new(engine: &EngineLimits, slot: Slot, state: State, quota: &Quota) -> wasmtime::Result<Self> {
        let mut store = Store::try_new(&engine.engine, state)?;
        store.limiter(|state| &mut state.limits);
        begin(&mut store, engine, quota)?;
        Ok(Self { store, filter: None, events: 0, _slot: slot })
    }

    /// Prepares the instance for its next event. `state` belongs to that event. The current sizes of the guest's
    /// memories and tables count against its limits.
    pub(super) fn renew(&mut self, engine: &EngineLimits, mut state: State, quota: &Quota) -> wasmtime::Result<()> {
        state.limits = self.store.data().limits.renewed(&state.limits);
        *self.store.data_mut() = state;
        begin(&mut self.store, engine, quota)
    }

    /// Drops everything that belongs to the last event, so that an idle instance holds no secrets and no tables.
    pub(super) fn clear_call_state(&mut self) {
        let limits = self.store.data().limits;
        *self.store.data_mut() = State::idle(limits);
    }

    /// Calls the filter, and instantiates it first if this is its first event.
    ///
    /// # Errors
    /// Engine errors. The instance must not be called again after one.
    pub(super) async fn call(
        &mut self,
        pre: &FilterPre<State>,
        event: &Event,
    ) -> wasmtime::Result<Result<GuestVerdict, Failure>> {
        self.events = self.events.saturating_add(1);
        let filter = match self.filter.take() {
            Some(filter) => filter,
            None => pre.instantiate_async(&mut self.store).await?,
        };
        let said = filter.setgate_filter_transform().call_process(&mut self.store, event).await?;
        self.filter = Some(filter);
        Ok(said)
    }

    /// The store: for instantiation without a call.
    pub(super) fn store(&mut self) -> &mut Store<State> {
        &mut self.store
    }

    pub(super) fn state(&mut self) -> &mut State {
        self.store.data_mut()
    }

    /// Number of events processed, including the current one.
    pub(super) fn events(&self) -> u32 {
        self.events
    }

    /// Fuel used by the current call so far.
    pub(super) fn fuel(&self, quota: &Quota) -> u64 {
        quota.fuel_per_call.saturating_sub(self.store.get_fuel().unwrap_or(0))
    }

    /// Size of all its linear memories in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.store.data().limits.memory_bytes()
    }
}

/// Sets the engine's limits for one call.
fn begin(store: &mut Store<State>, engine: &EngineLimits, quota: &Quota) -> wasmtime::Result<()> {
    store.set_fuel(quota.fuel_per_call)?;
    store.fuel_async_yield_interval(Some(engine.fuel_slice.max(1)))?;
    store.set_epoch_deadline(TICKS_PER_SLICE);
    store.epoch_deadline_async_yield_and_update(TICKS_PER_SLICE);
    let lifted = quota.output_bytes_max.saturating_add(OUTPUT_SLACK_BYTES);
    store.set_hostcall_fuel(usize::try_from(lifted).unwrap_or(usize::MAX));
    store.set_max_component_handles(HANDLES_MAX);
    Ok(())
}

/// Memory limits of a call in a new instance.
pub(super) fn limits(engine: &EngineLimits, quota: &Quota) -> Limits {
    Limits::new(
        quota.memory_bytes_max.min(engine.memory_bytes_max),
        quota.table_elements_max.min(engine.table_elements_max),
    )
}

/// Meter for the host calls of one call.
pub(super) fn meter(engine: &EngineLimits, quota: &Quota) -> Meter {
    Meter::new(quota.host_calls_max, quota.memory_bytes_max, engine.fuel_slice.max(1), quota.fuel_per_call)
}
