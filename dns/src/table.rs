//! The table of names: which addresses each name answers with, for whom; replaced name by name.
//!
//! Input: the whole [`Names`] of the current plan. Output: one service's addresses at a time, without waiting
//! for anything but a hash lookup. Only names that changed are replaced, so that a change of one service among
//! thousands neither copies the others nor makes a question wait for it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use shoal_cluster::plan::addresses::Addresses;
use shoal_cluster::plan::names::Names;

use crate::scopes::Scopes;

/// What one service answers with. Never changed once made: a change puts another in its place.
#[derive(Debug, Default)]
pub(crate) struct Service {
    /// The addresses of the running tasks, in order of slot.
    pub(crate) addresses: Vec<Addresses>,
    turn: AtomicUsize,
}

/// What a name means: one service, or several that share an alias.
#[derive(Debug)]
pub(crate) struct Found(Vec<Arc<Service>>);

/// All services by name in lower case.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Who may ask about whom.
    pub(crate) scopes: Scopes,
    services: RwLock<HashMap<String, Arc<Service>>>,
    serial: AtomicU32,
}

impl Service {
    /// Returns a service with these addresses.
    pub(crate) fn new(addresses: Vec<Addresses>) -> Self {
        Self { addresses, turn: AtomicUsize::new(0) }
    }
}

impl Found {
    /// Returns the addresses of all of them, beginning one further at each call, so that clients which take the first spread
    /// out.
    pub(crate) fn rotated(&self) -> impl Iterator<Item = &Addresses> {
        let all = self.0.iter().flat_map(|service| &service.addresses);
        let count = self.0.iter().map(|service| service.addresses.len()).sum::<usize>().max(1);
        let turn = self.0.first().map_or(0, |first| first.turn.fetch_add(1, Ordering::Relaxed) % count);
        all.clone().skip(turn).chain(all.take(turn))
    }
}

impl Table {
    /// Makes the table say what `names` says, touching only the names that differ.
    pub(crate) fn replace(&self, names: &Names) {
        let changed = self.changed(names);
        if !self.scopes.replace(names) && changed.is_empty() {
            return;
        }
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        for (name, service) in changed {
            match service {
                Some(service) => services.insert(name, service),
                None => services.remove(&name),
            };
        }
        drop(services);
        self.serial.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns what this name (lower case) means when `client` asks, if it means any service.
    pub(crate) fn find(&self, client: IpAddr, name: &str) -> Option<Found> {
        let meant = self.scopes.services(client, name);
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let found: Vec<Arc<Service>> = meant.iter().filter_map(|name| services.get(name)).cloned().collect();
        (!found.is_empty()).then_some(Found(found))
    }

    /// Returns a number that grows with each change: the serial of the zone.
    pub(crate) fn serial(&self) -> u32 {
        self.serial.load(Ordering::Relaxed).wrapping_add(1)
    }

    /// Returns the names that are new or differ, with what they answer from now on, and those that are gone.
    fn changed(&self, names: &Names) -> Vec<(String, Option<Arc<Service>>)> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let gone = services.keys().filter(|name| !names.services.contains_key(*name)).map(|name| (name.clone(), None));
        let differs = |name: &String, addresses: &Vec<Addresses>| {
            services.get(name).is_none_or(|service| service.addresses != *addresses)
        };
        let new = names
            .services
            .iter()
            .filter(|(name, addresses)| differs(name, addresses))
            .map(|(name, addresses)| (name.to_ascii_lowercase(), Some(Arc::new(Service::new(addresses.clone())))));
        gone.chain(new).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn address(host: u16) -> Addresses {
        Addresses { v4: None, v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host) }
    }

    fn names(list: &[(&str, u16)]) -> Names {
        let services = list.iter().map(|(name, host)| (name.to_string(), vec![address(*host)])).collect();
        Names { services, ..Names::default() }
    }

    fn find(table: &Table, name: &str) -> Option<Arc<Service>> {
        table.find(HOST, name).map(|found| found.0[0].clone())
    }

    #[test]
    fn only_the_names_that_changed_are_replaced() {
        let table = Table::default();
        table.replace(&names(&[("a", 1), ("b", 2), ("c", 3)]));
        let (a, b, serial) = (find(&table, "a"), find(&table, "b"), table.serial());
        table.replace(&names(&[("a", 1), ("b", 9)]));
        assert!(Arc::ptr_eq(&a.expect("there"), &find(&table, "a").expect("there")));
        assert!(!Arc::ptr_eq(&b.expect("there"), &find(&table, "b").expect("there")));
        assert!(find(&table, "c").is_none());
        assert_eq!(table.serial(), serial + 1);
        table.replace(&names(&[("a", 1), ("b", 9)]));
        assert_eq!(table.serial(), serial + 1, "nothing changed");
    }

    #[test]
    fn each_answer_begins_one_address_further() {
        let found = |hosts: &[&[u16]]| {
            let service = |hosts: &&[u16]| Arc::new(Service::new(hosts.iter().copied().map(address).collect()));
            Found(hosts.iter().map(service).collect())
        };
        for service in [found(&[&[1, 2, 3]]), found(&[&[1], &[], &[2, 3]])] {
            let first = || service.rotated().next().copied().expect("three");
            assert_eq!([first(), first(), first(), first()], [1, 2, 3, 1].map(address));
            let all: Vec<Addresses> = service.rotated().copied().collect();
            assert_eq!(all, [2, 3, 1].map(address));
        }
        assert_eq!(found(&[&[]]).rotated().count(), 0);
    }
}
