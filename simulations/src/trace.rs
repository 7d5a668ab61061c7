//! The trace: a running hash over everything that happened, which two runs of one seed must share.
//!
//! The hash tells runs apart; it need not resist anybody, so it is a fast one (multiply and fold, as in wyhash): the
//! trace sees every byte that any node sends.

/// Takes in events and gives one hash.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace {
    lanes: [u64; 2],
    events: u64,
}

/// Odd constants without structure, from the fractional digits of pi.
const MIX: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345];

impl Trace {
    /// Takes in one event: when, at which node, what kind, and its bytes.
    pub(crate) fn record(&mut self, at_us: u64, node: usize, kind: &str, bytes: &[u8]) {
        self.events += 1;
        self.word(at_us);
        self.word(node as u64);
        self.bytes(kind.as_bytes());
        self.bytes(bytes);
    }

    /// Returns how many events were taken in.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Returns the hash so far, as 16 hexadecimal digits.
    pub(crate) fn hash(&self) -> String {
        let mut end = *self;
        end.word(self.events);
        end.word(self.lanes[1]);
        format!("{:016x}", end.lanes[0])
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
    }

    fn word(&mut self, word: u64) {
        for (lane, mix) in self.lanes.iter_mut().zip(MIX) {
            let wide = u128::from(*lane ^ word ^ mix) * u128::from(mix | 1);
            *lane = (wide as u64) ^ ((wide >> 64) as u64).wrapping_add(*lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_event_counts() {
        let hash = |at_us, node, kind, bytes: &[u8]| {
            let mut trace = Trace::default();
            trace.record(at_us, node, kind, bytes);
            trace.hash()
        };
        let base = hash(1, 2, "a", &[0, 1]);
        for other in [hash(2, 2, "a", &[0, 1]), hash(1, 1, "a", &[0, 1]), hash(1, 2, "b", &[0, 1])] {
            assert_ne!(base, other);
        }
        assert_ne!(base, hash(1, 2, "a", &[0, 1, 0]), "trailing zeros count");
        assert_ne!(hash(1, 2, "", &[]), hash(1, 2, "\0", &[]));
        assert_eq!(base, hash(1, 2, "a", &[0, 1]));
    }

    #[test]
    fn the_order_of_events_counts() {
        let (mut one, mut other) = (Trace::default(), Trace::default());
        one.record(1, 1, "a", &[]);
        one.record(1, 1, "b", &[]);
        other.record(1, 1, "b", &[]);
        other.record(1, 1, "a", &[]);
        assert_ne!(one.hash(), other.hash());
    }
}
