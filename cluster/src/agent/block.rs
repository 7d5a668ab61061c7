//! Addresses of this node's tasks: which block it claims, and which host number a new task takes.

use alloc::collections::BTreeSet;

use crate::hash;
use crate::id::NodeId;
use crate::plan::addresses::{BLOCK_COUNT, TASK_HOSTS};

/// Returns the number of the block that `node` should claim: the first by hash of its key that is not taken, in order
/// from there. None if all are.
pub(super) fn choose(node: &NodeId, taken: &BTreeSet<u16>) -> Option<u16> {
    let first = (hash::rank64("block", &[&node.0]) % u64::from(BLOCK_COUNT)) as u16;
    let probes = (first..BLOCK_COUNT).chain(0..first);
    probes.into_iter().find(|number| !taken.contains(number))
}

/// Gives host numbers in rotation, so that one that was freed is not used again soon: others may still know it as an
/// address of the task that had it.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    next: u8,
}

impl Default for Hosts {
    fn default() -> Self {
        Self { next: *TASK_HOSTS.start() }
    }
}

impl Hosts {
    /// Returns the next host number that is not used. None if all are.
    pub(super) fn take(&mut self, used: &BTreeSet<u8>) -> Option<u8> {
        let rotation = (self.next..=*TASK_HOSTS.end()).chain(*TASK_HOSTS.start()..self.next);
        let host = rotation.into_iter().find(|host| !used.contains(host))?;
        self.next = if host == *TASK_HOSTS.end() { *TASK_HOSTS.start() } else { host + 1 };
        Some(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_block_from_the_hash_on_is_chosen_until_none_is_left() {
        let node = NodeId([7; 32]);
        let mut taken = BTreeSet::new();
        let first = choose(&node, &taken).expect("all are free");
        for step in 0..50 {
            let number = choose(&node, &taken).expect("some are free");
            assert_eq!(number, (first + step) % BLOCK_COUNT);
            taken.insert(number);
        }
        taken = (0..BLOCK_COUNT).filter(|number| number + 1 != first).collect();
        assert_eq!(choose(&node, &taken), Some(first - 1), "the last in order from the first");
        taken = (0..BLOCK_COUNT).collect();
        assert_eq!(choose(&node, &taken), None);
    }

    #[test]
    fn freed_hosts_are_used_again_last_and_never_two_at_once() {
        let mut hosts = Hosts::default();
        let mut used = BTreeSet::new();
        for expected in TASK_HOSTS {
            assert_eq!(hosts.take(&used), Some(expected));
            used.insert(expected);
        }
        assert_eq!(hosts.take(&used), None);
        used.remove(&9);
        used.remove(&5);
        assert_eq!((hosts.take(&used), hosts.take(&used), hosts.take(&used)), (Some(5), Some(9), Some(5)));
    }
}
