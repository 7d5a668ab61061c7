//! Time as an argument: instants and wall-clock readings that the caller hands in, and hybrid stamps.
//!
//! Nothing here reads a clock. [`Instant`] drives timers, `wall_ms` feeds only the [`HybridClock`].

use core::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on a clock that never goes back within one run; it means nothing on another node or after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    micros: u64,
}

/// Later than everything.
pub(crate) const NEVER: Instant = Instant::from_micros(u64::MAX);

impl Instant {
    /// Returns the instant that lies this many microseconds after the clock's start.
    pub const fn from_micros(micros: u64) -> Self {
        Self { micros }
    }

    /// Returns the microseconds since the clock's start.
    pub const fn as_micros(self) -> u64 {
        self.micros
    }

    /// Returns the time from `earlier` to this instant, zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.micros.saturating_sub(earlier.micros))
    }
}

impl core::ops::Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self { micros: self.micros.saturating_add(micros) }
    }
}

/// Both clocks, read once per turn by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Drives timers.
    pub mono: Instant,
    /// Milliseconds since the Unix epoch by the wall clock, which may jump.
    pub wall_ms: u64,
}

/// A reading of a hybrid logical clock (Kulkarni et al., 2014): wall time, then a counter that breaks ties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Counts the stamps that share one `wall_ms`.
    pub logical: u32,
}

/// Gives stamps that are later than every stamp given or accepted before.
#[derive(Clone, Copy, Debug, Default)]
pub struct HybridClock {
    last: Stamp,
}

impl HybridClock {
    /// Returns a new stamp, later than all before.
    pub fn tick(&mut self, wall_ms: u64) -> Stamp {
        self.last = if wall_ms > self.last.wall_ms {
            Stamp { wall_ms, logical: 0 }
        } else if self.last.logical == u32::MAX {
            Stamp { wall_ms: self.last.wall_ms + 1, logical: 0 }
        } else {
            Stamp { wall_ms: self.last.wall_ms, logical: self.last.logical + 1 }
        };
        self.last
    }

    /// Takes in a stamp seen elsewhere, so that later ones exceed it.
    /// Refuses one that lies more than `skew_max_ms` ahead of `wall_ms`, or one wrong clock would win for ever.
    pub fn observe(&mut self, stamp: Stamp, wall_ms: u64, skew_max_ms: u64) -> Result<(), SkewError> {
        let ahead_ms = stamp.wall_ms.saturating_sub(wall_ms);
        if ahead_ms > skew_max_ms {
            return Err(SkewError { ahead_ms, skew_max_ms });
        }
        self.last = self.last.max(stamp);
        Ok(())
    }
}

/// A stamp lies too far ahead of this node's wall clock. The clock is unchanged; one of the two clocks is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stamp is {ahead_ms} ms ahead of this node's clock, more than the {skew_max_ms} ms allowed")]
pub struct SkewError {
    /// How far ahead, in milliseconds.
    pub ahead_ms: u64,
    /// How far ahead would have been accepted, in milliseconds.
    pub skew_max_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_even_when_the_wall_clock_steps_back() {
        let mut clock = HybridClock::default();
        let stamps = [clock.tick(10), clock.tick(10), clock.tick(3), clock.tick(11)];
        assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_stamp_from_far_ahead_is_refused_and_changes_nothing() {
        let mut clock = HybridClock::default();
        let far = Stamp { wall_ms: 100_000, logical: 0 };
        assert_eq!(clock.observe(far, 1_000, 60_000).map_err(|error| error.ahead_ms), Err(99_000));
        assert_eq!(clock.tick(1_000).wall_ms, 1_000);
    }
}
