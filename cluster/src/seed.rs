//! Randomness arrives as a seed: one independent stream per purpose.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::hash;

/// A reproducible stream of random numbers for one purpose.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// Returns the stream of `seed` for `purpose`; other purposes neither shift nor repeat it.
    pub fn new(seed: &[u8; 32], purpose: &str) -> Self {
        Self(ChaCha8Rng::from_seed(hash::digest(purpose, &[seed])))
    }

    /// Returns the next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "a stream never ends, so it is no iterator to collect")]
    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns a number below `bound`, which must not be zero; the bias is below 2⁻⁶⁴ × `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        (wide >> 64) as u64
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// Returns up to `count` distinct members of `items`, in random order (Floyd's sampling, then a shuffle).
    pub fn choose<T: Clone>(&mut self, items: &[T], count: usize) -> alloc::vec::Vec<T> {
        let count = count.min(items.len());
        let mut places: alloc::vec::Vec<usize> = alloc::vec::Vec::with_capacity(count);
        for last in items.len() - count..items.len() {
            let place = self.below(last as u64 + 1) as usize;
            places.push(if places.contains(&place) { last } else { place });
        }
        self.shuffle(&mut places);
        places.into_iter().map(|place| items[place].clone()).collect()
    }
}
