//! The table of names: which addresses each service answers with, replaced name by name.
//!
//! Input: the whole [`Names`] of the current plan. Output: one service's addresses at a time, without waiting
//! for anything but a hash lookup. Only names that changed are replaced, so that a change of one service among
//! thousands neither copies the others nor makes a question wait for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use shoal_cluster::plan::addresses::Addresses;
use shoal_cluster::plan::names::Names;

/// What one service answers with. Never changed once made: a change puts another in its place.
#[derive(Debug, Default)]
pub(crate) struct Service {
    /// The addresses of the running tasks, in order of slot.
    pub(crate) addresses: Vec<Addresses>,
    turn: AtomicUsize,
}

/// All services by name in lower case.
#[derive(Debug, Default)]
pub(crate) struct Table {
    services: RwLock<HashMap<String, Arc<Service>>>,
    serial: AtomicU32,
}

impl Service {
    /// Returns a service with these addresses.
    pub(crate) fn new(addresses: Vec<Addresses>) -> Self {
        Self { addresses, turn: AtomicUsize::new(0) }
    }

    /// Returns the addresses, beginning one further at each call, so that clients which take the first spread out.
    pub(crate) fn rotated(&self) -> impl Iterator<Item = &Addresses> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.addresses.len().max(1);
        let (later, first) = self.addresses.split_at(turn);
        first.iter().chain(later)
    }
}

impl Table {
    /// Makes the table say what `names` says, touching only the names that differ.
    pub(crate) fn replace(&self, names: &Names) {
        let changed = self.changed(names);
        if changed.is_empty() {
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

    /// Returns what the service of this name (lower case) answers with, if there is such a service.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Service>> {
        self.services.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
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
    use std::net::Ipv6Addr;

    use super::*;

    fn names(list: &[(&str, u16)]) -> Names {
        let address = |host| Addresses { v4: None, v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host) };
        Names { services: list.iter().map(|(name, host)| (name.to_string(), vec![address(*host)])).collect() }
    }

    #[test]
    fn only_the_names_that_changed_are_replaced() {
        let table = Table::default();
        table.replace(&names(&[("a", 1), ("b", 2), ("c", 3)]));
        let (a, b, serial) = (table.find("a"), table.find("b"), table.serial());
        table.replace(&names(&[("a", 1), ("b", 9)]));
        assert!(Arc::ptr_eq(&a.expect("there"), &table.find("a").expect("there")));
        assert!(!Arc::ptr_eq(&b.expect("there"), &table.find("b").expect("there")));
        assert!(table.find("c").is_none());
        assert_eq!(table.serial(), serial + 1);
        table.replace(&names(&[("a", 1), ("b", 9)]));
        assert_eq!(table.serial(), serial + 1, "nothing changed");
    }

    #[test]
    fn each_answer_begins_one_address_further() {
        let host = |host| Addresses { v4: None, v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host) };
        let service = Service::new((1..=3).map(host).collect());
        let first = |service: &Service| service.rotated().next().copied().expect("three");
        assert_eq!([first(&service), first(&service), first(&service), first(&service)], [1, 2, 3, 1].map(host));
        assert_eq!(service.rotated().count(), 3);
        assert_eq!(Service::default().rotated().count(), 0);
    }
}
