//! Randomness from the operating system.

/// Fills an array. Panics where the operating system has no randomness to give: nothing here is safe without it.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// A random number for ids. Panics as [`random_bytes`] does.
pub fn random_u128() -> u128 {
    u128::from_ne_bytes(random_bytes())
}

/// Evenly spread over 0.0..1.0, for jitter. Panics as [`random_bytes`] does.
pub fn random_unit() -> f64 {
    const UNIT: f64 = (1u64 << 53) as f64;
    // 53 bits are what an f64 holds exactly.
    (u64::from_ne_bytes(random_bytes()) >> 11) as f64 / UNIT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differs_and_keeps_its_bounds() {
        assert_ne!(random_u128(), random_u128());
        assert_ne!(random_bytes::<32>(), random_bytes::<32>());
        let units: Vec<f64> = (0..200).map(|_| random_unit()).collect();
        assert!(units.iter().all(|u| (0.0..1.0).contains(u)));
        assert!(units.iter().any(|u| *u < 0.5) && units.iter().any(|u| *u >= 0.5));
    }
}
