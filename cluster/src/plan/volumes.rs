//! Volumes: where the tasks of services that mount named volumes may run.
//!
//! Input: services, and which node claims which volume. Output: for each service that is bound by its volumes how, and
//! what placement is told of it. A volume's data is on one node, so its tasks run there or wait; a volume that does not
//! exist yet is made by one task, before the others start. See `docs/design/0025-container-options-health-and-volumes.md`.

use alloc::collections::{BTreeMap, BTreeSet};

use super::placement::ServiceInput;
use crate::id::{NodeId, ServiceId};
use crate::intent::Intent;
use crate::intent::constraint::Constraint;
use crate::intent::service::Service;
use crate::intent::service::container::VolumeName;

/// How a service is bound by the volumes that it mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bond {
    /// None of them exists yet: one of its slots may run anywhere and makes them, the others wait.
    Makes(VolumeName),
    /// This one does not exist yet, and another service is to make it.
    Waits {
        /// Which.
        volume: VolumeName,
        /// Which makes it.
        maker: ServiceId,
    },
    /// They are on this node, or will be.
    At {
        /// One that is.
        volume: VolumeName,
        /// Where.
        node: NodeId,
    },
    /// Two are on different nodes: it cannot run.
    Torn {
        /// One and where it is.
        one: (VolumeName, NodeId),
        /// Another and where it is.
        other: (VolumeName, NodeId),
    },
}

/// Returns the bonds of all services that have one. A global service has none: its tasks never leave their nodes, and
/// each uses the volumes there.
pub fn bonds(intent: &Intent) -> BTreeMap<ServiceId, Bond> {
    let mut bonds = BTreeMap::new();
    let mut makers: BTreeMap<&VolumeName, ServiceId> = BTreeMap::new();
    // One without slots waits for nothing, and makes nothing that others could wait for.
    let bound = |service: &&Service| !service.spec.mode.is_global() && service.spec.replicas > 0;
    let mut unbound = BTreeSet::new();
    // Those that know where they run make their other volumes there, whatever those say whose place is still open.
    for service in intent.services().filter(bound) {
        let volumes = || service.spec.task.container.volumes();
        let mut claimed = volumes().filter_map(|name| Some((name, *intent.volumes().get(name)?)));
        let Some((volume, node)) = claimed.next() else {
            if volumes().next().is_some() {
                unbound.insert(service.id);
            }
            continue;
        };
        let bond = match claimed.find(|(_, other)| *other != node) {
            Some((other, at)) => Bond::Torn { one: (volume.clone(), node), other: (other.clone(), at) },
            None => {
                for name in volumes().filter(|name| !intent.volumes().contains_key(*name)) {
                    makers.entry(name).or_insert(service.id);
                }
                Bond::At { volume: volume.clone(), node }
            }
        };
        bonds.insert(service.id, bond);
    }
    for service in intent.services().filter(|service| unbound.contains(&service.id)) {
        let volumes = || service.spec.task.container.volumes();
        let taken = volumes().find_map(|name| Some((name, *makers.get(name)?)));
        let bond = match (taken, volumes().next()) {
            (Some((volume, maker)), _) => Bond::Waits { volume: volume.clone(), maker },
            (None, Some(volume)) => {
                makers.extend(volumes().map(|name| (name, service.id)));
                Bond::Makes(volume.clone())
            }
            (None, None) => continue,
        };
        bonds.insert(service.id, bond);
    }
    bonds
}

impl Bond {
    /// Tells placement of it.
    pub(super) fn bind(&self, service: &mut ServiceInput) {
        match self {
            Self::Makes(_) => service.replicas = service.replicas.min(1),
            Self::Waits { .. } => service.replicas = 0,
            Self::At { node, .. } => service.constraints.push(Constraint::node(node)),
            // No node is both.
            Self::Torn { one, other } => {
                service.constraints.extend([Constraint::node(&one.1), Constraint::node(&other.1)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;
    use crate::crdt::Actor;
    use crate::intent::service::container::{Mount, MountSource};
    use crate::membership::member::MemberState;
    use crate::plan::tests::{SHOAL, id, membership, service};
    use crate::plan::{Plan, plan};
    use crate::reports::Reports;

    fn name(text: &str) -> VolumeName {
        VolumeName::new(text).expect("a valid name")
    }

    /// Service `number`, whose name is a letter, with these volumes.
    fn mounting(number: u8, replicas: u32, volumes: &[&str]) -> Service {
        let letter = char::from(b'a' + number);
        let mut service = service(number, &letter.to_string(), replicas, 1);
        service.spec.task.container.mounts = volumes
            .iter()
            .map(|volume| Mount {
                target: alloc::format!("/{volume}"),
                read_only: false,
                source: MountSource::Volume { name: Some(name(volume)), no_copy: false, labels: BTreeMap::new() },
            })
            .collect();
        service
    }

    /// Intent with these services, in which these nodes claimed these volumes.
    fn intent(services: &[Service], claims: &[(u8, &str)]) -> Intent {
        let mut intent = Intent::new(Actor { node: id(99), epoch: 1 });
        for service in services {
            intent.write_service(1, service);
        }
        let mut authors: BTreeMap<u8, Intent> = BTreeMap::new();
        for (number, volume) in claims {
            let author = authors.entry(*number).or_insert_with(|| Intent::new(Actor { node: id(*number), epoch: 1 }));
            intent.learn(1, author.claim_volume(1, &name(volume)));
        }
        intent
    }

    fn planned(intent: &Intent, nodes: &[(u8, MemberState)]) -> Plan {
        plan(&SHOAL, intent, &membership(nodes), &Reports::new(id(0), 1))
    }

    fn nodes_of(plan: &Plan, number: u8) -> Vec<(u32, NodeId)> {
        plan.assignments.slots(&ServiceId([number; 16])).collect()
    }

    const THREE: [(u8, MemberState); 2] = [(1, MemberState::Alive), (2, MemberState::Alive)];

    #[test]
    fn one_slot_makes_a_volume_and_all_are_then_where_it_is() {
        let services = [mounting(1, 3, &["data"]), service(2, "free", 3, 1)];
        let before = planned(&intent(&services, &[]), &THREE);
        assert_eq!(nodes_of(&before, 1).len(), 1);
        assert_eq!(nodes_of(&before, 2).len(), 3);
        for holder in 0..3 {
            let after = planned(&intent(&services, &[(holder, "data")]), &THREE);
            assert_eq!(nodes_of(&after, 1), [1, 2, 3].map(|slot| (slot, id(holder))));
        }
    }

    #[test]
    fn no_slot_runs_while_the_node_of_its_volume_is_down() {
        let intent = intent(&[mounting(1, 2, &["data"])], &[(1, "data")]);
        let down = planned(&intent, &[(1, MemberState::Down), (2, MemberState::Alive)]);
        assert_eq!(nodes_of(&down, 1), []);
        assert_eq!(nodes_of(&planned(&intent, &THREE), 1).len(), 2, "it runs again once the node is back");
    }

    #[test]
    fn of_two_services_that_would_make_a_volume_the_first_by_name_does() {
        let services = [mounting(1, 1, &["data"]), mounting(2, 1, &["log", "data"]), mounting(3, 1, &["log"])];
        let bonds = bonds(&intent(&services, &[]));
        let of = |number: u8| &bonds[&ServiceId([number; 16])];
        assert_eq!(*of(1), Bond::Makes(name("data")));
        assert_eq!(*of(2), Bond::Waits { volume: name("data"), maker: ServiceId([1; 16]) });
        // It does not wait for one that waits.
        assert_eq!(*of(3), Bond::Makes(name("log")));
    }

    #[test]
    fn nobody_waits_for_a_service_without_slots() {
        let bonds = bonds(&intent(&[mounting(1, 0, &["data"]), mounting(2, 1, &["data"])], &[]));
        assert_eq!(bonds.get(&ServiceId([1; 16])), None);
        assert_eq!(bonds[&ServiceId([2; 16])], Bond::Makes(name("data")));
    }

    #[test]
    fn a_service_that_knows_its_node_makes_its_other_volumes_there() {
        let services = [mounting(1, 1, &["new"]), mounting(2, 2, &["data", "new"])];
        let intent = intent(&services, &[(2, "data")]);
        let bonds = bonds(&intent);
        let waits = Bond::Waits { volume: name("new"), maker: ServiceId([2; 16]) };
        assert_eq!(bonds[&ServiceId([1; 16])], waits);
        assert_eq!(bonds[&ServiceId([2; 16])], Bond::At { volume: name("data"), node: id(2) });
    }

    #[test]
    fn volumes_on_two_nodes_let_nothing_run() {
        let intent = intent(&[mounting(1, 1, &["one", "two"])], &[(1, "one"), (2, "two")]);
        let torn = Bond::Torn { one: (name("one"), id(1)), other: (name("two"), id(2)) };
        assert_eq!(bonds(&intent)[&ServiceId([1; 16])], torn);
        assert_eq!(nodes_of(&planned(&intent, &THREE), 1), []);
    }

    #[test]
    fn global_services_use_the_volumes_of_each_node() {
        let mut global = mounting(1, 1, &["data"]);
        global.spec.mode = crate::intent::service::Mode::Global;
        let intent = intent(&[global], &[(1, "data")]);
        assert!(bonds(&intent).is_empty());
        assert_eq!(nodes_of(&planned(&intent, &THREE), 1).len(), 3);
    }

    #[test]
    fn of_two_claims_the_later_counts_whatever_came_first_and_one_for_another_never() {
        let claim =
            |number: u8, at_ms| Intent::new(Actor { node: id(number), epoch: 1 }).claim_volume(at_ms, &name("data"));
        let (earlier, later) = (claim(1, 5), claim(2, 6));
        for order in [[&earlier, &later], [&later, &earlier]] {
            let mut intent = intent(&[], &[]);
            order.into_iter().for_each(|entry| {
                intent.learn(9, entry.clone());
            });
            assert_eq!(intent.volumes().get(&name("data")), Some(&id(2)));
            intent.release_volume(9, &name("data"));
            assert!(intent.volumes().is_empty());
        }
        let mut forged = later;
        forged.version.value = Some(crate::wire::encode(&id(7)));
        let mut intent = intent(&[], &[]);
        intent.learn(9, forged);
        assert!(intent.volumes().is_empty());
    }
}
