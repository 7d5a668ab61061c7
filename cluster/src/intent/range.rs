//! Ranges: the unit of anti-entropy — all that survives of one actor's writes between two counters.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Entry, Intent, Learned};
use crate::crdt::{Actor, Dot};
use crate::limits::CLAIM_JUMP_MAX;

/// All surviving writes of one actor in `after+1..=upto`, and some beyond a hole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Whose writes.
    pub actor: Actor,
    /// The receiver knows all up to here.
    pub after: u64,
    /// It will know all up to here.
    pub upto: u64,
    /// The survivors, in order of counter; those beyond `upto` lie behind a hole that the sender has too.
    pub entries: Vec<Entry>,
    /// Up to here a write may have been removed by a tombstone that is forgotten.
    pub collected: u64,
}

/// What taking in a range did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeLearned {
    /// Entries that were not known: make them durable, before the vector.
    pub new: Vec<Entry>,
    /// The counter up to which all writes of the actor are known now, if that grew: make it durable.
    pub upto: Option<u64>,
    /// Whether more than before is now known to be removed and forgotten: make it durable.
    pub collected: bool,
    /// Why an entry was not taken, if one was not.
    pub refused: Option<&'static str>,
}

impl Intent {
    /// Returns what a node lacks of one actor's writes that knows all up to `theirs` and those in `ahead`, in at
    /// most `bytes` bytes (at least one entry), and whether that is all.
    pub fn range(&self, actor: Actor, theirs: u64, ahead: &BTreeSet<u64>, bytes: usize) -> Option<(Range, bool)> {
        let own = self.vector.counter(&actor);
        let mut range = Range { actor, after: theirs, upto: own.max(theirs), entries: Vec::new(), collected: 0 };
        let (mut used, mut complete) = (0, true);
        let held = self.dots.get(&actor).into_iter().flat_map(|dots| dots.range(theirs.saturating_add(1)..));
        for (&counter, key) in held {
            if ahead.contains(&counter) {
                continue;
            }
            let dot = Dot::new(actor, counter);
            let version = self.versions(key).iter().find(|version| version.dot == dot);
            let Some(version) = version else { continue };
            let entry = Entry { key: key.clone(), version: version.clone() };
            used += entry.weight();
            if used > bytes && !range.entries.is_empty() {
                range.upto = range.upto.min(counter - 1);
                complete = false;
                break;
            }
            range.entries.push(entry);
        }
        range.collected = self.collected().counter(&actor).min(range.upto);
        (range.upto > theirs || !range.entries.is_empty()).then_some((range, complete))
    }

    /// Takes in a range: its entries, and then that there were no others in it. Stops before an entry that is
    /// refused, so that it is asked for again.
    pub fn learn_range(&mut self, wall_ms: u64, range: Range) -> RangeLearned {
        let mut learned = RangeLearned::default();
        if range.actor == self.actor {
            return learned;
        }
        let before = self.vector.counter(&range.actor);
        if range.upto.saturating_sub(before) > CLAIM_JUMP_MAX {
            learned.refused = Some("a range jumps too far");
            return learned;
        }
        let mut upto = range.upto;
        for entry in range.entries {
            let dot = entry.version.dot;
            if dot.actor != range.actor || dot.counter <= range.after {
                learned.refused = Some("a range holds an entry that is not in it");
                return learned;
            }
            match self.learn_in_range(wall_ms, &entry) {
                Learned::New => learned.new.push(entry),
                Learned::Known => {}
                Learned::Refused(reason) => {
                    upto = upto.min(dot.counter - 1);
                    learned.refused = Some(reason);
                }
            }
        }
        self.vector.advance(range.actor, range.after, upto.max(range.after));
        let now = self.vector.counter(&range.actor);
        learned.upto = (now > before).then_some(now);
        self.changes += u64::from(now > before || !learned.new.is_empty());
        let collected = [(range.actor, range.collected.min(now))].into_iter().collect();
        learned.collected = self.note_collected(&collected);
        learned
    }

    /// As [`Intent::learn`], but room among the pending dots is not needed: the range accounts for the dot.
    fn learn_in_range(&mut self, wall_ms: u64, entry: &Entry) -> Learned {
        let dot = entry.version.dot;
        if self.vector.knows(&dot) {
            return Learned::Known;
        }
        if let Err(reason) = self.admit(wall_ms, entry) {
            return Learned::Refused(reason);
        }
        self.join(entry.clone());
        self.vector.note(dot);
        Learned::New
    }
}
