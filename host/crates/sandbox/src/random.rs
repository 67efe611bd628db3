//! Pseudorandom numbers for guests: the same for the same event and filter.

use setgate_base::crypto::sha256;
use setgate_domain::id::{Digest, EventId};

/// Maximum bytes for one request. A standard library requests 16 to 32.
const BYTES_MAX: u64 = 64 << 10;

/// SHA-256 in counter mode, seeded from the event and the filter.
pub(super) struct Random {
    event: EventId,
    filter: Digest,
    /// Created on first use, because few guests use it.
    seed: Option<[u8; 32]>,
    blocks: u64,
}

impl Random {
    pub(super) fn new(event: EventId, filter: Digest) -> Self {
        Self { event, filter, seed: None, blocks: 0 }
    }

    fn seed(&mut self) -> [u8; 32] {
        let (event, filter) = (self.event, self.filter);
        *self.seed.get_or_insert_with(|| {
            let mut seed = event.to_bytes().to_vec();
            seed.extend_from_slice(&filter.0);
            sha256(&seed)
        })
    }

    fn block(&mut self) -> [u8; 32] {
        let mut input = [0; 40];
        input[..32].copy_from_slice(&self.seed());
        input[32..].copy_from_slice(&self.blocks.to_le_bytes());
        self.blocks += 1;
        sha256(&input)
    }

    pub(super) fn u64(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.block();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    pub(super) fn bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        if count > BYTES_MAX {
            return Err(wasmtime::Error::msg(format!(
                "requested {count} random bytes at once: at most {BYTES_MAX} are allowed"
            )));
        }
        let count = usize::try_from(count)?;
        let mut bytes = Vec::with_capacity(count + 32);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.block());
        }
        bytes.truncate(count);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::time::Timestamp;

    #[test]
    fn randomness_depends_on_event_and_filter_only() {
        let event = EventId::new(Timestamp::from_millis(1), 2);
        let bytes = |event, filter| Random::new(event, Digest([filter; 32])).bytes(100).unwrap();
        assert_eq!(bytes(event, 1), bytes(event, 1));
        assert_ne!(bytes(event, 1), bytes(event, 2));
        assert_ne!(bytes(event, 1), bytes(EventId::new(Timestamp::from_millis(1), 3), 1));
    }
}
