//! Names: which addresses each service name answers with.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::id::{NodeId, ServiceId, TaskId};
use crate::intent::Intent;
use crate::intent::service::ServiceSpec;
use crate::intent::service::network::Attachment;
use crate::membership::Membership;
use crate::mutation::{self, Mutation};
use crate::plan::addresses::{Addresses, Block};
use crate::reports::Reports;

/// The zone in which service names live, without the final dot.
pub const ZONE: &str = "shoal.internal";

/// What the embedded DNS answers, complete: a service that is not here does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Service name (lower case) to the addresses of its running tasks, in order of slot; empty while none runs.
    pub services: BTreeMap<String, Vec<Addresses>>,
    /// Of the services that name networks, which, and the aliases (lower case) that each has there. The others are on
    /// [`crate::intent::object::BUILT_IN`].
    pub networks: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

/// Returns the names of all services with the tasks that run, on nodes that are up, in slots that are wanted. While a
/// slot moves, both of its tasks answer. A task with an address that is not its node's is not told: packets would go
/// elsewhere.
pub(super) fn names(
    intent: &Intent,
    membership: &Membership,
    reports: &Reports,
    blocks: &BTreeMap<NodeId, Block>,
) -> Names {
    let mut running: BTreeMap<ServiceId, BTreeMap<(u32, TaskId), Addresses>> = BTreeMap::new();
    for (node, tasks) in
        reports.running().filter(|(node, _)| membership.is_up(node) || mutation::on(Mutation::NamesOfTheDead))
    {
        let Some(block) = blocks.get(node) else { continue };
        for task in tasks {
            if task.addresses.iter().all(|address| block.contains(address)) {
                running.entry(task.service).or_default().insert((task.slot, task.id), task.addresses);
            }
        }
    }
    let services = intent.services().map(|service| {
        let tasks = running.get(&service.id).into_iter().flatten();
        let wanted = tasks.filter(|((slot, _), _)| service.spec.has_slot(*slot));
        (service.spec.name.folded().to_string(), wanted.map(|(_, addresses)| *addresses).collect())
    });
    Names { services: services.collect(), networks: networks(intent) }
}

fn networks(intent: &Intent) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let aliases = |attachment: &Attachment| attachment.aliases.iter().map(|alias| alias.folded().to_string()).collect();
    let named = intent.services().map(|service| &service.spec).filter(|spec| !spec.networks.is_empty());
    let on = |spec: &ServiceSpec| {
        spec.networks.iter().map(|attachment| (attachment.network.to_string(), aliases(attachment))).collect()
    };
    named.map(|spec| (spec.name.folded().to_string(), on(spec))).collect()
}
