//! Scopes: which services a question's name means, from the networks of whoever asks.
//!
//! Input: the networks of services, as [`Names`] has them, and which service each address of this node's tasks belongs to.
//! Output: the services that share a network with the asking one and are called so there, by name or by alias. Who is no
//! task of this node asks about all services, each by its own name.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use shoal_cluster::intent::object::BUILT_IN;
use shoal_cluster::plan::names::Names;

/// Networks, and who asks.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    /// The service of each task of this node, in lower case, by the task's addresses.
    clients: RwLock<HashMap<IpAddr, String>>,
    index: RwLock<Arc<Index>>,
}

/// Services by network and name. A service that is not here is on the built-in network, by its own name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    /// The networks of each service.
    networks: HashMap<String, Vec<String>>,
    /// For each network the services with each name or alias.
    services: HashMap<String, HashMap<String, BTreeSet<String>>>,
}

impl Scopes {
    /// Notes whose address this is; nobody's without a service.
    pub(crate) fn set_client(&self, address: IpAddr, service: Option<&str>) {
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        match service {
            Some(service) => clients.insert(address, service.to_ascii_lowercase()),
            None => clients.remove(&address),
        };
    }

    /// Takes in the networks of all services; tells whether anything changed.
    pub(crate) fn replace(&self, names: &Names) -> bool {
        let index = Index::new(names);
        let mut present = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let differ = **present != index;
        if differ {
            *present = Arc::new(index);
        }
        differ
    }

    /// Returns the services that `name` (lower case) means when `client` asks. Some of them may not exist.
    pub(crate) fn services(&self, client: IpAddr, name: &str) -> Vec<String> {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        let Some(asking) = clients.get(&client) else { return vec![name.to_owned()] };
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner).clone();
        index.services(asking, name)
    }
}

impl Index {
    fn new(names: &Names) -> Self {
        let mut index = Self::default();
        for (service, networks) in &names.networks {
            for (network, aliases) in networks {
                let called = index.services.entry(network.clone()).or_default();
                for name in aliases.iter().chain([service]) {
                    called.entry(name.clone()).or_default().insert(service.clone());
                }
            }
            index.networks.insert(service.clone(), networks.keys().cloned().collect());
        }
        index
    }

    fn services(&self, asking: &str, name: &str) -> Vec<String> {
        let built_in = [BUILT_IN.to_owned()];
        let networks = self.networks.get(asking).map_or(&built_in[..], Vec::as_slice);
        let called = |network: &String| self.services.get(network)?.get(name);
        let mut found: BTreeSet<&str> = networks.iter().filter_map(called).flatten().map(String::as_str).collect();
        if networks.iter().any(|network| network == BUILT_IN) && !self.networks.contains_key(name) {
            found.insert(name);
        }
        found.into_iter().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    /// Networks of services, each as `service: network/alias,alias network …`.
    fn names(lines: &[&str]) -> Names {
        let texts = |text: &str| text.split(',').filter(|text| !text.is_empty()).map(str::to_owned).collect();
        let on = |text: &str| {
            let (network, aliases) = text.split_once('/').unwrap_or((text, ""));
            (network.to_owned(), texts(aliases))
        };
        let service = |line: &&str| {
            let (service, networks) = line.split_once(": ").expect("service: networks");
            (service.to_owned(), networks.split(' ').map(on).collect())
        };
        Names { networks: lines.iter().map(service).collect(), ..Names::default() }
    }

    fn asked(scopes: &Scopes, service: Option<&str>, name: &str) -> Vec<String> {
        scopes.set_client(CLIENT, service);
        scopes.services(CLIENT, name)
    }

    #[test]
    fn a_task_finds_those_that_share_a_network_with_it_and_the_host_finds_all() {
        let scopes = Scopes::default();
        assert!(scopes.replace(&names(&[
            "a_web: a_default/web",
            "a_db: a_default/db,store",
            "b_web: b_default/web shoal",
        ])));
        assert_eq!(asked(&scopes, Some("A_Web"), "db"), ["a_db"]);
        assert_eq!(asked(&scopes, Some("a_web"), "store"), ["a_db"]);
        assert_eq!(asked(&scopes, Some("a_web"), "a_web"), ["a_web"]);
        assert_eq!(asked(&scopes, Some("a_web"), "web"), ["a_web"], "the other stack's has the same alias elsewhere");
        assert_eq!(asked(&scopes, Some("a_web"), "b_web"), [""; 0]);
        assert_eq!(asked(&scopes, Some("a_web"), "plain"), [""; 0], "it is on the built-in network only");
        assert_eq!(asked(&scopes, Some("b_web"), "plain"), ["plain"]);
        assert_eq!(asked(&scopes, Some("plain"), "b_web"), ["b_web"]);
        assert_eq!(
            asked(&scopes, Some("plain"), "other"),
            ["other"],
            "those that name no network share the built-in one"
        );
        assert_eq!(asked(&scopes, Some("plain"), "a_db"), [""; 0]);
        assert_eq!(asked(&scopes, None, "a_db"), ["a_db"]);
        assert_eq!(asked(&scopes, None, "db"), ["db"], "aliases are those of a network");
    }

    #[test]
    fn services_with_one_alias_answer_together() {
        let scopes = Scopes::default();
        let both = names(&["blue: n/web", "green: n/web", "client: n"]);
        assert!(scopes.replace(&both));
        assert!(!scopes.replace(&both), "nothing changed");
        assert_eq!(asked(&scopes, Some("client"), "web"), ["blue", "green"]);
    }
}
