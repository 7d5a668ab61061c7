//! Figures of a run, and how they read.

use std::fmt;
use std::time::Duration;

use super::FRAMING_BYTES;

/// What a run showed.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Of each crash that all live nodes came to know: how long that took.
    pub detected: Vec<Duration>,
    /// Crashes that some live node did not know of in time.
    pub missed: usize,
    /// How often a node was declared down by another while it ran.
    pub false_deaths: u64,
    /// How often a node was suspected by another while it ran.
    pub false_suspicions: u64,
    /// Messages sent.
    pub messages: u64,
    /// Their bytes, without framing.
    pub bytes: u64,
    /// Messages and bytes of the idle time before the first crash, of which the first half does not count.
    pub idle: (u64, u64),
    /// How long of the idle time counts.
    pub idle_time: Duration,
    /// Simulated time of the whole run.
    pub simulated: Duration,
    /// How many nodes there were.
    pub nodes: usize,
}

/// A sorted sample.
#[derive(Clone, Debug)]
pub struct Spread(Vec<Duration>);

impl Spread {
    /// Returns the value that so many of a hundred do not exceed; zero if there are none.
    pub fn percentile(&self, percent: usize) -> Duration {
        let place = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0.get(place).copied().unwrap_or_default()
    }
}

impl Figures {
    /// Returns how the times of detection spread.
    pub fn spread(&self) -> Spread {
        let mut sorted = self.detected.clone();
        sorted.sort_unstable();
        Spread(sorted)
    }

    /// Returns the bytes that an idle node sends per second, framing included.
    pub fn idle_bytes_per_second(&self) -> u64 {
        let (messages, bytes) = self.idle;
        per_second(bytes + messages * FRAMING_BYTES, self.nodes, self.idle_time)
    }

    /// Returns the bytes that a node sends per second over the whole run, framing included.
    pub fn bytes_per_second(&self) -> u64 {
        per_second(self.bytes + self.messages * FRAMING_BYTES, self.nodes, self.simulated)
    }
}

fn per_second(total: u64, nodes: usize, time: Duration) -> u64 {
    let node_millis = u128::from(nodes as u64) * time.as_millis().max(1);
    u64::try_from(u128::from(total) * 1_000 / node_millis).unwrap_or(u64::MAX)
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = self.spread();
        if !self.detected.is_empty() || self.missed > 0 {
            writeln!(
                f,
                "  all know of a crash    p50 {:>6.2} s  p99 {:>6.2} s  max {:>6.2} s  ({} crashes, {} missed)",
                spread.percentile(50).as_secs_f64(),
                spread.percentile(99).as_secs_f64(),
                spread.percentile(100).as_secs_f64(),
                self.detected.len() + self.missed,
                self.missed,
            )?;
        }
        writeln!(f, "  false deaths           {:>6}  false suspicions {}", self.false_deaths, self.false_suspicions)?;
        let node_seconds = self.nodes as f64 * self.idle_time.as_secs_f64().max(0.001);
        writeln!(
            f,
            "  idle, per node         {:>6} B/s with framing ({:.1} messages/s, {:.0} B/s without)",
            self.idle_bytes_per_second(),
            self.idle.0 as f64 / node_seconds,
            self.idle.1 as f64 / node_seconds,
        )?;
        write!(
            f,
            "  whole run, per node    {:>6} B/s with framing over {:.0} simulated s",
            self.bytes_per_second(),
            self.simulated.as_secs_f64(),
        )
    }
}
