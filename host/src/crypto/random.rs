//! Randomness from the operating system.

use std::cell::RefCell;

/// Bytes that a thread asks for at once, for ids: a call of the system for each would cost an event more than what is made
/// of them.
const POOL_BYTES: usize = 1024;

/// Fills an array. Panics where the operating system has no randomness to give: nothing here is safe without it.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// A random number for ids, which may be known once they are given: keys and secrets are made of [`random_bytes`], of which
/// nothing waits in memory. Panics as that does.
pub fn random_u128() -> u128 {
    u128::from_ne_bytes(pooled())
}

/// Evenly spread over 0.0..1.0, for jitter. Panics as [`random_bytes`] does.
pub fn random_unit() -> f64 {
    const UNIT: f64 = (1u64 << 53) as f64;
    // 53 bits are what an f64 holds exactly.
    (u64::from_ne_bytes(pooled()) >> 11) as f64 / UNIT
}

/// Bytes of the operating system, of which a thread fetched more than it needed just then; each is given once.
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
    fn differs_and_keeps_its_bounds() {
        assert_ne!(random_u128(), random_u128());
        assert_ne!(random_bytes::<32>(), random_bytes::<32>());
        let units: Vec<f64> = (0..200).map(|_| random_unit()).collect();
        assert!(units.iter().all(|u| (0.0..1.0).contains(u)));
        assert!(units.iter().any(|u| *u < 0.5) && units.iter().any(|u| *u >= 0.5));
    }

    #[test]
    fn no_bytes_are_given_twice() {
        // Several pools, with numbers of two sizes, on two threads.
        let some = || (0..500).map(|n| if n % 3 == 0 { pooled::<8>().to_vec() } else { pooled::<16>().to_vec() });
        let other = std::thread::spawn(move || some().collect::<Vec<_>>());
        let all: Vec<_> = some().chain(other.join().unwrap()).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 1000);
        // Nothing that was given is left, and nothing is given that was not filled: eight zero bytes come once in 2^64.
        assert!(all.iter().all(|bytes| bytes.iter().any(|byte| *byte != 0)));
    }
}
