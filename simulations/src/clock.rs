//! Clocks: what a node reads from them when they run fast or slow, or were set wrong.

use shoal_cluster::{Instant, Now};

/// Wall clock at the start of every world: 2026-01-01T00:00:00Z.
const WALL_START_MS: i64 = 1_767_225_600_000;
const MILLION: i128 = 1_000_000;

/// Both clocks of one machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// When the rate was changed last, in virtual time, and what the monotonic clock showed then.
    set_us: u64,
    mono_us: u64,
    /// How fast it runs beyond the truth, in millionths.
    ppm: i64,
    /// How far the wall clock was set from the truth.
    off_ms: i64,
}

impl Clock {
    /// Reads both.
    pub(crate) fn now(&self, at_us: u64) -> Now {
        let mono_us = self.mono(at_us);
        let drifted_ms = (mono_us as i64 - at_us as i64) / 1_000;
        let wall_ms = WALL_START_MS + self.off_ms + (at_us / 1_000) as i64 + drifted_ms;
        Now { mono: Instant::from_micros(mono_us), wall_ms: wall_ms.max(0).unsigned_abs() }
    }

    /// Returns the first moment of virtual time at which the monotonic clock shows at least this.
    pub(crate) fn reached(&self, mono: Instant) -> u64 {
        let left = i128::from(mono.as_micros()) - i128::from(self.mono_us);
        if left <= 0 {
            return self.set_us;
        }
        let rate = MILLION + i128::from(self.ppm);
        let passed = (left * MILLION + rate - 1) / rate;
        self.set_us.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// Lets both run fast or slow from now on.
    pub(crate) fn drift(&mut self, at_us: u64, ppm: i64) {
        (self.mono_us, self.set_us) = (self.mono(at_us), at_us);
        self.ppm = ppm.clamp(-500_000, 500_000);
    }

    /// Sets the wall clock to this far from the truth.
    pub(crate) fn set(&mut self, off_ms: i64) {
        self.off_ms = off_ms;
    }

    fn mono(&self, at_us: u64) -> u64 {
        let passed = i128::from(at_us.saturating_sub(self.set_us)) * (MILLION + i128::from(self.ppm)) / MILLION;
        self.mono_us + u64::try_from(passed).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_when_the_clock_shows_it_and_not_before() {
        for ppm in [-20_000, -1, 0, 1, 20_000, 499_999] {
            let mut clock = Clock::default();
            clock.drift(1_000_003, ppm);
            for mono in [0, 1, 999_999, 1_000_004, 5_000_001, 1_000_000_000_007] {
                let at = clock.reached(Instant::from_micros(mono)).max(clock.set_us);
                assert!(clock.now(at).mono.as_micros() >= mono, "{ppm} {mono}");
                assert!(at == clock.set_us || clock.now(at - 1).mono.as_micros() < mono, "{ppm} {mono}");
            }
        }
    }

    #[test]
    fn the_monotonic_clock_is_steady_when_its_rate_changes() {
        let mut clock = Clock::default();
        let mut last = 0;
        for step in 1..100_u64 {
            clock.drift(step * 777, if step % 2 == 0 { 20_000 } else { -20_000 });
            let mono = clock.now(step * 777).mono.as_micros();
            assert!(mono >= last);
            last = mono;
        }
    }
}
