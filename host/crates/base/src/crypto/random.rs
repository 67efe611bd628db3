//! Randomness from the operating system.

use std::cell::RefCell;

/// Bytes that a thread requests at a time for ids. One system call per id would cost more than the rest of creating it.
const POOL_BYTES: usize = 1024;

/// Fills an array with random bytes.
///
/// # Panics
/// If the operating system provides no randomness, since nothing would be secure without it.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// A random number for ids, which are not secret after their creation. Keys and secrets must use [`random_bytes`],
/// which leaves no unused bytes in memory. Panics like [`random_bytes`].
pub fn random_u128() -> u128 {
    u128::from_ne_bytes(pooled())
}

/// Uniform in 0.0..1.0, for jitter. Panics like [`random_bytes`].
pub fn random_unit() -> f64 {
    const UNIT: f64 = (1u64 << 53) as f64;
    // An f64 represents integers of up to 53 bits exactly.
    (u64::from_ne_bytes(pooled()) >> 11) as f64 / UNIT
}

/// Random bytes from a per-thread buffer. Each byte is used only once.
fn pooled<const N: usize>() -> [u8; N] {
    const { assert!(N <= POOL_BYTES, "a pool has as much as is asked for") };
    thread_local! {
        static POOL: RefCell<([u8; POOL_BYTES], usize)> = const { RefCell::new(([0; POOL_BYTES], 0)) };
    }
    POOL.with_borrow_mut(|(bytes, left)| {
        if *left < N {
            *bytes = random_bytes();
            *left = POOL_BYTES;
        }
        let given = std::array::from_fn(|at| std::mem::take(&mut bytes[*left - N + at]));
        *left -= N;
        given
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn random_values_differ_and_stay_in_range() {
        assert_ne!(random_u128(), random_u128());
        assert_ne!(random_bytes::<32>(), random_bytes::<32>());
        let units: Vec<f64> = (0..200).map(|_| random_unit()).collect();
        assert!(units.iter().all(|u| (0.0..1.0).contains(u)));
        assert!(units.iter().any(|u| *u < 0.5) && units.iter().any(|u| *u >= 0.5));
    }

    #[test]
    fn pooled_random_bytes_are_used_once() {
        // Several buffers, with numbers of two sizes, on two threads.
        let some = || (0..500).map(|n| if n % 3 == 0 { pooled::<8>().to_vec() } else { pooled::<16>().to_vec() });
        let other = std::thread::spawn(move || some().collect::<Vec<_>>());
        let all: Vec<_> = some().chain(other.join().unwrap()).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 1000);
        // No byte is returned twice, and no unfilled byte is returned: the probability of eight zero bytes is 2^-64.
        assert!(all.iter().all(|bytes| bytes.iter().any(|byte| *byte != 0)));
    }
}
