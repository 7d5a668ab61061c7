//! Local health: how much this node trusts its own probes (Lifeguard §4.1).
//!
//! A node that hears too little, because it is overloaded, paused or badly connected, would suspect everybody. Its own
//! failed probes and missing replies raise a multiplier that stretches its own probe times; answers lower it.

use core::time::Duration;

/// Greatest multiplier on top of 1; memberlist's awareness bound.
const WORST: u32 = 8;

/// How badly this node hears, 0 (well) to [`WORST`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health(u32);

impl Health {
    /// Takes in an answer.
    pub(super) fn better(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    /// Takes in this many signs that this node hears badly.
    pub(super) fn worse(&mut self, signs: usize) {
        self.0 = self.0.saturating_add(u32::try_from(signs).unwrap_or(WORST)).min(WORST);
    }

    /// Tells whether nothing says that this node hears badly.
    pub(super) fn is_well(self) -> bool {
        self.0 == 0
    }

    /// Tells whether it could not hear worse.
    pub(super) fn is_worst(self) -> bool {
        self.0 >= WORST
    }

    /// Returns the time that this node allows where a healthy one allows `time`.
    pub(super) fn stretch(self, time: Duration) -> Duration {
        time.saturating_mul(1 + self.0)
    }
}
