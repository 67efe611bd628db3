//! One instance of a filter, and what of it is new for each event.
//!
//! All that belongs to a call is in the store's data and in the store's own counters: fuel, turns, limits, host calls, log,
//! clock, randomness, settings, secrets and tables. [`Instance::new`] and [`Instance::renew`] set all of it, so that in an
//! instance that is kept nothing is left of an event but what the guest itself has in its memories, globals and tables.

use wasmtime::Store;

use crate::domain::tenant::Quota;

use super::call::Host;
use super::kept::Slot;
use super::limits::Limits;
use super::state::{Meter, State};
use super::ticks::TICKS_PER_TURN;
use super::wit_v0_1::{Event, Failure, Filter, FilterPre, Said};

/// Handles of resources one instance may hold. A std guest holds fewer than ten.
const HANDLES_MAX: usize = 1_000;
/// What may come over in one value beside the verdict's text: the bytes around it.
const OUTPUT_SLACK_BYTES: u64 = 64 << 10;

/// A filter in a slot of the pool.
pub(super) struct Instance {
    store: Store<State>,
    /// None: not instantiated yet, or ended by a fault.
    filter: Option<Filter>,
    events: u32,
    /// Given back after the store is dropped, and so declared after it.
    _slot: Slot,
}

impl Instance {
    /// A store for one filter; the guest has no instance in it yet.
    pub(super) fn new(host: &Host, slot: Slot, state: State, quota: &Quota) -> wasmtime::Result<Self> {
        let mut store = Store::try_new(&host.engine, state)?;
        store.limiter(|state| &mut state.limits);
        begin(&mut store, host, quota)?;
        Ok(Self { store, filter: None, events: 0, _slot: slot })
    }

    /// Makes the instance ready for another event. `state` is that event's; what the guest's memories and tables come to by
    /// now counts against its limits.
    pub(super) fn renew(&mut self, host: &Host, mut state: State, quota: &Quota) -> wasmtime::Result<()> {
        state.limits = self.store.data().limits.renewed(&state.limits);
        *self.store.data_mut() = state;
        begin(&mut self.store, host, quota)
    }

    /// Lets go of all that belongs to the last event: what waits for another one holds no secrets and no tables.
    pub(super) fn rest(&mut self) {
        let limits = self.store.data().limits;
        *self.store.data_mut() = State::at_rest(limits);
    }

    /// Calls the filter, in a new instance where this is its first event.
    ///
    /// # Errors
    /// The engine's. There is no further call after one.
    pub(super) async fn call(
        &mut self,
        pre: &FilterPre<State>,
        event: &Event,
    ) -> wasmtime::Result<Result<Said, Failure>> {
        self.events = self.events.saturating_add(1);
        let filter = match self.filter.take() {
            Some(filter) => filter,
            None => pre.instantiate_async(&mut self.store).await?,
        };
        let said = filter.setgate_filter_transform().call_process(&mut self.store, event).await?;
        self.filter = Some(filter);
        Ok(said)
    }

    /// The store: for a look at an instance without a call.
    pub(super) fn store(&mut self) -> &mut Store<State> {
        &mut self.store
    }

    pub(super) fn state(&mut self) -> &mut State {
        self.store.data_mut()
    }

    /// Events it was called for, the present one included.
    pub(super) fn events(&self) -> u32 {
        self.events
    }

    /// Fuel that the present call has used so far.
    pub(super) fn fuel(&self, quota: &Quota) -> u64 {
        quota.fuel_per_call.saturating_sub(self.store.get_fuel().unwrap_or(0))
    }

    /// Bytes of all its linear memories.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.store.data().limits.memory_bytes()
    }
}

/// Sets what one call may use of the engine.
fn begin(store: &mut Store<State>, host: &Host, quota: &Quota) -> wasmtime::Result<()> {
    store.set_fuel(quota.fuel_per_call)?;
    store.fuel_async_yield_interval(Some(host.fuel_slice.max(1)))?;
    store.set_epoch_deadline(TICKS_PER_TURN);
    store.epoch_deadline_async_yield_and_update(TICKS_PER_TURN);
    let lifted = quota.output_bytes_max.saturating_add(OUTPUT_SLACK_BYTES);
    store.set_hostcall_fuel(usize::try_from(lifted).unwrap_or(usize::MAX));
    store.set_max_component_handles(HANDLES_MAX);
    Ok(())
}

/// The limits of a call in a new instance.
pub(super) fn limits(host: &Host, quota: &Quota) -> Limits {
    Limits::new(
        quota.memory_bytes_max.min(host.memory_bytes_max),
        quota.table_elements_max.min(host.table_elements_max),
    )
}

/// The host calls of one call.
pub(super) fn meter(host: &Host, quota: &Quota) -> Meter {
    Meter::new(quota.host_calls_max, quota.memory_bytes_max, host.fuel_slice.max(1), quota.fuel_per_call)
}
