//! What one call may hold at once: the sum of all its linear memories, and of all its tables.

use wasmtime::ResourceLimiter;

/// Counts all memories together and all tables together, which the engine's own limiter does not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    memory_bytes: u64,
    memory_bytes_peak: u64,
    memory_bytes_max: u64,
    table_elements: u64,
    table_elements_max: u64,
    denied: Option<Denied>,
}

/// The first growth that was refused. The guest sees -1 and may go on; where it traps afterwards, this is why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// Bytes all memories would have come to, and the limit.
    Memory { wanted: u64, limit: u64 },
    /// Elements all tables would have come to, and the limit.
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

    /// These limits for another call in the same instance, with the bounds of `call`: what the instance has stays counted,
    /// what an earlier call was refused does not.
    pub(super) fn renewed(&self, call: &Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes,
            memory_bytes_peak: self.memory_bytes,
            table_elements: self.table_elements,
            ..*call
        }
    }

    /// Bytes of all linear memories now. They never shrink.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    pub(super) fn memory_bytes_peak(&self) -> u64 {
        self.memory_bytes_peak
    }

    pub(super) fn denied(&self) -> Option<Denied> {
        self.denied
    }
}

// A growth that was granted and that the engine then could not do stays counted. Taking it back in `*_grow_failed` would be
// a hole: the engine also calls those for growths that it never asked about, so a guest could count itself down.
impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false); // past what the guest itself declared: nobody's limit but its own
        }
        let added = (desired as u64).saturating_sub(current as u64);
        let wanted = self.memory_bytes.saturating_add(added);
        if wanted > self.memory_bytes_max {
            self.denied.get_or_insert(Denied::Memory { wanted, limit: self.memory_bytes_max });
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
            self.denied.get_or_insert(Denied::Table { wanted, limit: self.table_elements_max });
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
        assert_eq!(limits.denied(), Some(Denied::Memory { wanted: 120, limit: 100 }));
        assert!(limits.memory_growing(0, 40, None).unwrap());
        assert_eq!(limits.memory_bytes_peak(), 100);
    }

    #[test]
    fn a_failed_growth_cannot_count_a_guest_down() {
        let mut limits = Limits::new(100, 10);
        assert!(limits.memory_growing(0, 60, None).unwrap());
        limits.memory_grow_failed(wasmtime::Error::msg("past what the type can hold")).unwrap();
        assert!(!limits.memory_growing(0, 60, None).unwrap());
    }

    #[test]
    fn another_call_has_its_own_bounds_over_what_the_instance_has() {
        let mut limits = Limits::new(100, 10);
        assert!(limits.memory_growing(0, 60, None).unwrap() && limits.table_growing(0, 4, None).unwrap());
        assert!(!limits.memory_growing(60, 160, None).unwrap());
        let mut next = limits.renewed(&Limits::new(80, 5));
        assert_eq!((next.memory_bytes(), next.memory_bytes_peak(), next.denied()), (60, 60, None));
        assert!(next.memory_growing(60, 80, None).unwrap() && !next.memory_growing(80, 81, None).unwrap());
        assert!(!next.table_growing(4, 6, None).unwrap());
        assert_eq!(next.denied(), Some(Denied::Memory { wanted: 81, limit: 80 }));
    }

    #[test]
    fn past_its_own_declared_maximum_is_not_the_limits_doing() {
        let mut limits = Limits::new(100, 10);
        assert!(!limits.memory_growing(10, 60, Some(50)).unwrap());
        assert!(!limits.table_growing(1, 9, Some(5)).unwrap());
        assert_eq!(limits.denied(), None);
    }
}
