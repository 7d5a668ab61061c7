//! History: what a service was before, and how it travels beside what it is.
//!
//! Output: plain values. On the wire and on disk a spec of the history is what differs between its bytes and those of the
//! spec that followed it. See `docs/protocol.md#history`.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::service::{Service, ServiceSpec, TaskSpec};
use super::update::{Rollout, Verdict};
use crate::id::{NodeId, ServiceId};
use crate::limits::{HISTORY_MAX, VALUE_BYTES_MAX};
use crate::wire;

/// A revision that was replaced, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// [`Service::version`] at its last write.
    pub version: u64,
    /// [`Service::revision`].
    pub revision: u64,
    /// The node on which it was written.
    pub author: NodeId,
    /// When, in milliseconds since the Unix epoch by that node's clock.
    pub written_ms: u64,
    /// How far it had come.
    pub ended: Ended,
    /// What the operator wrote.
    pub spec: ServiceSpec,
}

/// How far a revision had come when it was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ended {
    /// Its rollout was rolled back.
    RolledBack,
    /// Its rollout was paused.
    Paused,
    /// It was replaced before its rollout had ended.
    Replaced,
    /// Every slot ran it.
    Completed,
}

impl Service {
    /// Returns the last revision before this one that every slot ran: what slots run that a rollout has not reached,
    /// and what it is rolled back to.
    pub fn base(&self) -> Option<&Kept> {
        self.history.iter().find(|kept| kept.ended == Ended::Completed)
    }

    /// Returns what the tasks are to run by this verdict, with its revision.
    pub fn effective(&self, verdict: Verdict) -> (u64, &TaskSpec) {
        match self.base().filter(|_| verdict.is_back()) {
            Some(base) => (base.revision, &base.spec.task),
            None => (self.revision, &self.spec.task),
        }
    }

    /// Returns the history after this revision is replaced: itself first, then what was before, as much as one entry
    /// may hold beside the next. Of writes in sequence that leave the tasks alone the last is kept, and the one that everything can be
    /// rolled back to goes last.
    pub fn history_with(&self, ended: Ended, next: &ServiceSpec) -> Vec<Kept> {
        let (version, revision, author, written_ms) = (self.version, self.revision, self.author, self.updated_ms);
        let mut present = Kept { version, revision, author, written_ms, ended, spec: self.spec.clone() };
        let mut earlier = self.history.as_slice();
        if let Some((newest, rest)) = earlier.split_first()
            && newest.revision == revision
        {
            present.ended = present.ended.max(newest.ended);
            earlier = rest;
        }
        let mut history = alloc::vec![present];
        history.extend_from_slice(earlier);
        let mut room = HISTORY_BYTES_MAX.saturating_sub(wire::encode(next).len());
        let base = history.iter().position(|kept| kept.ended == Ended::Completed);
        let mut place = 0;
        let mut count = 0;
        // What all can be rolled back to has its place first.
        let size = |kept: &Kept| wire::encode(kept).len();
        let reserved = base.map(|base| size(&history[base])).filter(|bytes| *bytes <= room);
        room -= reserved.unwrap_or(0);
        history.retain(|kept| {
            let is_base = Some(place) == base;
            place += 1;
            let bytes = size(kept);
            let fits = if is_base { reserved.is_some() } else { bytes <= room && count + 1 < HISTORY_MAX };
            if fits && !is_base {
                room -= bytes;
                count += 1;
            }
            fits
        });
        history
    }
}

/// Bytes of a spec and the history beside it: what one value holds, less the other fields of a service.
const HISTORY_BYTES_MAX: usize = VALUE_BYTES_MAX - 512;

/// A [`Service`] as it is encoded.
#[derive(Serialize, Deserialize)]
pub(super) struct Packed {
    id: ServiceId,
    version: u64,
    revision: u64,
    created_ms: u64,
    updated_ms: u64,
    author: NodeId,
    rollout: Option<Rollout>,
    spec: ServiceSpec,
    history: Vec<PackedKept>,
}

#[derive(Serialize, Deserialize)]
struct PackedKept {
    version: u64,
    revision: u64,
    author: NodeId,
    written_ms: u64,
    ended: Ended,
    spec: Difference,
}

/// What differs between the bytes of a spec and those of the one that followed it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Difference {
    /// So many bytes at the beginning are the same.
    before: u32,
    /// So many at the end are, too.
    after: u32,
    /// What lies between them.
    #[serde(with = "crate::bytes")]
    between: Vec<u8>,
}

/// A difference is none from the spec that it stands beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a service's history does not fit the service")]
pub(super) struct HistoryError;

impl Difference {
    fn new(later: &[u8], earlier: &[u8]) -> Self {
        let alike = |(one, other): &(&u8, &u8)| one == other;
        let before = later.iter().zip(earlier).take_while(alike).count();
        let (later, earlier) = (&later[before..], &earlier[before..]);
        let after = later.iter().rev().zip(earlier.iter().rev()).take_while(alike).count();
        let between = earlier[..earlier.len() - after].to_vec();
        let count = |bytes: usize| u32::try_from(bytes).expect("a value is shorter than 4 GiB");
        Self { before: count(before), after: count(after), between }
    }

    /// Returns the earlier bytes, or none if it is a difference from others than these.
    fn apply(self, later: &[u8]) -> Option<Vec<u8>> {
        let (before, after) = (usize::try_from(self.before).ok()?, usize::try_from(self.after).ok()?);
        let end = later.len().checked_sub(after).filter(|end| *end >= before)?;
        Some([&later[..before], &self.between, &later[end..]].concat())
    }
}

impl From<Service> for Packed {
    fn from(service: Service) -> Self {
        let Service { id, version, revision, created_ms, updated_ms, author, rollout, history, spec } = service;
        let mut later = wire::encode(&spec);
        let pack = |kept: Kept| {
            let Kept { version, revision, author, written_ms, ended, spec } = kept;
            let earlier = wire::encode(&spec);
            let spec = Difference::new(&later, &earlier);
            later = earlier;
            PackedKept { version, revision, author, written_ms, ended, spec }
        };
        let history = history.into_iter().map(pack).collect();
        Self { id, version, revision, created_ms, updated_ms, author, rollout, spec, history }
    }
}

impl TryFrom<Packed> for Service {
    type Error = HistoryError;

    fn try_from(packed: Packed) -> Result<Self, HistoryError> {
        let Packed { id, version, revision, created_ms, updated_ms, author, rollout, spec, history } = packed;
        if history.len() > HISTORY_MAX {
            return Err(HistoryError);
        }
        let mut later = wire::encode(&spec);
        let unpack = |kept: PackedKept| {
            let PackedKept { version, revision, author, written_ms, ended, spec } = kept;
            later = spec.apply(&later).ok_or(HistoryError)?;
            let spec = wire::decode(&later).map_err(|_| HistoryError)?;
            Ok(Kept { version, revision, author, written_ms, ended, spec })
        };
        let history = history.into_iter().map(unpack).collect::<Result<_, HistoryError>>()?;
        Ok(Self { id, version, revision, created_ms, updated_ms, author, rollout, history, spec })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_differs_takes_few_bytes() {
        let difference = Difference::new(b"web replicas 3 image", b"web replicas 12 image");
        assert_eq!(difference, Difference { before: 13, after: 6, between: b"12".to_vec() });
    }

    #[test]
    fn a_difference_from_other_bytes_is_refused() {
        for (before, after) in [(3, 2), (5, 0), (0, 5), (u32::MAX, u32::MAX)] {
            assert_eq!(Difference { before, after, between: Vec::new() }.apply(b"four"), None);
        }
    }

    proptest! {
        #[test]
        fn the_earlier_bytes_come_again(later in proptest::collection::vec(0_u8..3, 0..9), earlier in proptest::collection::vec(0_u8..3, 0..9)) {
            prop_assert_eq!(Difference::new(&later, &earlier).apply(&later), Some(earlier));
        }
    }
}
