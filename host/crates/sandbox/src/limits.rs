//! Memory limits of one call: its stack, the sum of all its linear memories, and the sum of all its tables.

use wasmtime::ResourceLimiter;

/// Stack for the WebAssembly frames of one call, in bytes. A deeper recursion traps.
pub(super) const STACK_BYTES_MAX: usize = 512 << 10;

/// Sums up all memories and all tables, unlike the engine's own limiter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    memory_bytes: u64,
    memory_bytes_peak: u64,
    memory_bytes_max: u64,
    table_elements: u64,
    table_elements_max: u64,
    denied: Option<DeniedGrowth>,
}

/// The first growth that was denied. The guest gets -1 and may continue; if it traps later, this is reported as the
/// reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeniedGrowth {
    /// Requested total of all memories in bytes, and the limit.
    Memory { wanted: u64, limit: u64 },
    /// Requested total of all tables in elements, and the limit.
    Table { wanted: u64, limit: u64 },
}

impl Limits {
    pub(super) fn new(memory_bytes_max: u64, table_elements_max: u64) -> Self {
        Self {
            memory_bytes: 0,
            memory_bytes_peak: 0,
            memory_bytes_max,
            table_elements: 0,
            table_elements_max,
            denied: None,
        }
    }

    /// The limits for the next call in the same instance, with the maxima of `call`. Existing memories and tables still
    /// count; a denial in an earlier call is forgotten.
    pub(super) fn renewed(&self, call: &Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes,
            memory_bytes_peak: self.memory_bytes,
            table_elements: self.table_elements,
            ..*call
        }
    }

    /// Current size of all linear memories in bytes. They never shrink.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    pub(super) fn memory_bytes_peak(&self) -> u64 {
        self.memory_bytes_peak
    }

    pub(super) fn denied(&self) -> Option<DeniedGrowth> {
        self.denied
    }
}

// A growth that was granted but failed in the engine still counts. Subtracting it in `*_grow_failed` would be
// exploitable: the engine also calls those for growths that it never requested, so a guest could lower its own count.
impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false); // past the maximum that the guest itself declared: not denied by our limit
        }
        let added = (desired as u64).saturating_sub(current as u64);
        let wanted = self.memory_bytes.saturating_add(added);
        if wanted > self.memory_bytes_max {
            self.denied.get_or_insert(DeniedGrowth::Memory { wanted, limit: self.memory_bytes_max });
            return Ok(false);
        }
        self.memory_bytes = wanted;
        self.memory_bytes_peak = self.memory_bytes_peak.max(wanted);
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let added = (desired as u64).saturating_sub(current as u64);
        let wanted = self.table_elements.saturating_add(added);
        if wanted > self.table_elements_max {
            self.denied.get_or_insert(DeniedGrowth::Table { wanted, limit: self.table_elements_max });
            return Ok(false);
        }
        self.table_elements = wanted;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_memories_share_one_limit() {
        let mut limits = Limits::new(100, 10);
        assert!(limits.memory_growing(0, 60, None).unwrap());
        assert!(!limits.memory_growing(0, 60, None).unwrap());
        assert_eq!(limits.denied(), Some(DeniedGrowth::Memory { wanted: 120, limit: 100 }));
        assert!(limits.memory_growing(0, 40, None).unwrap());
        assert_eq!(limits.memory_bytes_peak(), 100);
    }

    #[test]
    fn failed_growth_does_not_lower_the_count() {
        let mut limits = Limits::new(100, 10);
        assert!(limits.memory_growing(0, 60, None).unwrap());
        limits.memory_grow_failed(wasmtime::Error::msg("past what the type can hold")).unwrap();
        assert!(!limits.memory_growing(0, 60, None).unwrap());
    }

    #[test]
    fn renewed_limits_count_existing_memory() {
        let mut limits = Limits::new(100, 10);
        assert!(limits.memory_growing(0, 60, None).unwrap() && limits.table_growing(0, 4, None).unwrap());
        assert!(!limits.memory_growing(60, 160, None).unwrap());
        let mut next = limits.renewed(&Limits::new(80, 5));
        assert_eq!((next.memory_bytes(), next.memory_bytes_peak(), next.denied()), (60, 60, None));
        assert!(next.memory_growing(60, 80, None).unwrap() && !next.memory_growing(80, 81, None).unwrap());
        assert!(!next.table_growing(4, 6, None).unwrap());
        assert_eq!(next.denied(), Some(DeniedGrowth::Memory { wanted: 81, limit: 80 }));
    }

    #[test]
    fn growth_past_declared_maximum_is_not_a_denial() {
        let mut limits = Limits::new(100, 10);
        assert!(!limits.memory_growing(10, 60, Some(50)).unwrap());
        assert!(!limits.table_growing(1, 9, Some(5)).unwrap());
        assert_eq!(limits.denied(), None);
    }
}
