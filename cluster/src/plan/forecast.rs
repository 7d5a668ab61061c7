//! Forecasts: the plan that would be if nodes failed, joined or were drained. A pure computation: nothing changes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::placement::{Amounts, Assignments, Inputs, NodeInput, Placement};
use crate::hash;
use crate::id::{NodeId, ServiceId};
use crate::limits::NODES_MAX;
use crate::mutation::{self, Mutation};

/// Something that could happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node is lost.
    Fail(NodeId),
    /// A node is drained.
    Drain(NodeId),
    /// Nodes join, as large as the median of those that are up.
    Join {
        /// How many.
        count: u32,
        /// The labels that each has.
        labels: BTreeMap<String, String>,
    },
}

/// A plan as it is and as it would be.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// As it is.
    pub before: Placement,
    /// As it would be.
    pub after: Placement,
}

/// A slot that would be elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which slot.
    pub slot: (ServiceId, u32),
    /// Where it is; none if it is pending.
    pub from: Option<NodeId>,
    /// Where it would be; none if it would be pending.
    pub to: Option<NodeId>,
}

impl Forecast {
    /// Computes what would be after these changes, in order.
    pub fn of(inputs: Inputs, changes: &[Change]) -> Self {
        let mut then = inputs.clone();
        changes.iter().for_each(|change| change.apply(&mut then));
        Self { before: Placement::of(inputs), after: Placement::of(then) }
    }

    /// Returns every slot that would be elsewhere, in order.
    pub fn moves(&self) -> Vec<Move> {
        let (before, after) = (self.before.assignments(), self.after.assignments());
        let gone = |one: &Assignments, other: &Assignments| -> Vec<Move> {
            let slots = one.iter().filter(|(slot, node)| other.get(slot) != Some(node));
            slots
                .map(|(slot, _)| Move { slot, from: before.get(&slot).copied(), to: after.get(&slot).copied() })
                .collect()
        };
        let mut moves = gone(&before, &after);
        moves.extend(gone(&after, &before));
        moves.sort_by_key(|one| one.slot);
        moves.dedup();
        moves
    }
}

impl Change {
    fn apply(&self, inputs: &mut Inputs) {
        if mutation::on(Mutation::ForecastOfNothing) {
            return;
        }
        match self {
            Self::Fail(id) => {
                inputs.nodes.retain(|node| node.id != *id);
                inputs.pinned.retain(|_, node| node != id);
            }
            Self::Drain(id) => {
                inputs.nodes.iter_mut().filter(|node| node.id == *id).for_each(|node| node.active = false);
                inputs.pinned.retain(|_, node| node != id);
            }
            Self::Join { count, labels } => join(inputs, *count, labels),
        }
    }
}

/// Adds nodes that do not exist, named `new-1` and so on.
fn join(inputs: &mut Inputs, count: u32, labels: &BTreeMap<String, String>) {
    let mut capacities: Vec<Amounts> = inputs.nodes.iter().map(|node| node.capacity).collect();
    capacities.sort_unstable();
    let capacity = capacities.get(capacities.len() / 2).copied().unwrap_or_default();
    let like = inputs.nodes.first().map(|node| (node.os.clone(), node.architecture.clone()));
    let (os, architecture) = like.unwrap_or_else(|| ("linux".to_string(), "amd64".to_string()));
    let room = NODES_MAX.saturating_sub(inputs.nodes.len());
    let id = |number: u32| NodeId(hash::digest("forecast-node", &[&number.to_be_bytes()]));
    let taken: BTreeSet<NodeId> = inputs.nodes.iter().map(|node| node.id).collect();
    for number in (1..).filter(|number| !taken.contains(&id(*number))).take((count as usize).min(room)) {
        inputs.nodes.push(NodeInput {
            id: id(number),
            hostname: alloc::format!("new-{number}"),
            manager: false,
            os: os.clone(),
            architecture: architecture.clone(),
            labels: labels.clone(),
            engine_labels: BTreeMap::new(),
            capacity,
            active: true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::placement::ServiceInput;

    fn inputs(nodes: u8) -> Inputs {
        let mut inputs = Inputs { services: Vec::new(), nodes: Vec::new(), pinned: BTreeMap::new() };
        join(&mut inputs, u32::from(nodes), &BTreeMap::new());
        inputs.services.push(ServiceInput::plain(ServiceId([1; 16]), 6));
        inputs
    }

    #[test]
    fn a_forecast_of_a_failure_is_the_plan_without_the_node() {
        let inputs = inputs(3);
        let gone = inputs.nodes[1].id;
        let forecast = Forecast::of(inputs.clone(), &[Change::Fail(gone)]);
        let mut rest = inputs;
        rest.nodes.remove(1);
        assert_eq!(forecast.after.assignments(), Placement::of(rest).assignments());
        let moves = forecast.moves();
        assert!(forecast.before.assignments().of(&gone).all(|slot| moves.iter().any(|one| one.slot == slot)));
        assert!(moves.iter().all(|one| one.to.is_some() && one.to != Some(gone) && one.from != one.to));
    }

    #[test]
    fn draining_a_node_places_like_losing_it_but_it_is_still_there() {
        let inputs = inputs(4);
        let node = inputs.nodes[2].id;
        let drained = Forecast::of(inputs.clone(), &[Change::Drain(node)]);
        let lost = Forecast::of(inputs, &[Change::Fail(node)]);
        assert_eq!(drained.after.assignments(), lost.after.assignments());
        assert_eq!(drained.after.inputs().nodes.len(), 4);
    }

    #[test]
    fn nodes_that_join_have_the_labels_they_are_given() {
        let labels = BTreeMap::from([("zone".to_string(), "b".to_string())]);
        let forecast = Forecast::of(inputs(3), &[Change::Join { count: 2, labels: labels.clone() }]);
        let new: Vec<&NodeInput> = forecast.after.inputs().nodes.iter().filter(|node| node.labels == labels).collect();
        assert_eq!(new.len(), 2);
        assert_eq!(forecast.after.inputs().nodes.len(), 5, "no id is used twice");
    }
}
