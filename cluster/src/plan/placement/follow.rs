//! Following: the present placement, kept from change to change of the planes.

use alloc::sync::Arc;

use super::{Assignments, Inputs, Placement, ServiceInput};

/// How many lost nodes are followed one by one; of more everything is computed.
const LOSSES_MAX: usize = 8;

/// The placement of the present inputs, with what others read of it.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    placement: Placement,
    assignments: Assignments,
    digest: [u8; 32],
    inputs: Arc<Inputs>,
}

impl Placed {
    /// Brings the placement up to date, and tells whether anything changed. Most changes of the planes change no input:
    /// those cost a comparison.
    pub fn follow(&mut self, mut inputs: Inputs) -> bool {
        inputs.services.sort_by_key(|service| service.id);
        inputs.nodes.sort_by_key(|node| node.id);
        let before = self.placement.inputs();
        if *before == inputs {
            return false;
        }
        if differ_in_jobs_alone(before, &inputs) {
            self.placement.inputs = inputs;
        } else {
            match losses(before, &inputs) {
                Some(lost) => lost.iter().for_each(|node| self.placement.without(node)),
                None => self.placement = self.placement.again(inputs),
            }
        }
        self.assignments = self.placement.assignments();
        self.digest = self.assignments.digest();
        self.inputs = Arc::new(self.placement.inputs().clone());
        true
    }

    /// Returns the placement itself.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Returns what it was computed from.
    pub fn inputs(&self) -> &Arc<Inputs> {
        &self.inputs
    }

    /// Returns which node runs each slot.
    pub fn assignments(&self) -> &Assignments {
        &self.assignments
    }

    /// Returns [`Assignments::digest`].
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.placement.inputs() == other.placement.inputs()
    }
}

impl Eq for Placed {}

/// Tells whether nothing changed but what is left to do in jobs: their lanes then stay where they are.
fn differ_in_jobs_alone(before: &Inputs, now: &Inputs) -> bool {
    let same = |(before, now): (&ServiceInput, &ServiceInput)| {
        before == now || ServiceInput { job: before.job.clone(), ..now.clone() } == *before
    };
    before.nodes == now.nodes
        && before.pinned == now.pinned
        && before.services.len() == now.services.len()
        && before.services.iter().zip(&now.services).all(same)
}

/// Returns the nodes that were lost, if that is all that changed and there are few of them.
fn losses(before: &Inputs, now: &Inputs) -> Option<alloc::vec::Vec<crate::id::NodeId>> {
    let fewer = before.nodes.len().checked_sub(now.nodes.len()).filter(|lost| (1..=LOSSES_MAX).contains(lost))?;
    if before.services != now.services || before.pinned != now.pinned {
        return None;
    }
    let mut lost = alloc::vec::Vec::with_capacity(fewer);
    let mut stayed = now.nodes.iter().peekable();
    for node in &before.nodes {
        if stayed.next_if(|other| *other == node).is_none() {
            lost.push(node.id);
        }
    }
    (stayed.peek().is_none() && lost.len() == fewer).then_some(lost)
}
