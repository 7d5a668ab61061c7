//! The objects that are there, as a plan looks at them.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{Network, Secret, Service};

use crate::cli::objects::Noun;
use crate::compose::NAMESPACE_LABEL;

/// The objects that are there, by name. Configs look as secrets do.
#[derive(Debug, Default)]
pub(super) struct Present {
    pub(super) networks: BTreeMap<String, Network>,
    secrets: BTreeMap<String, Secret>,
    configs: BTreeMap<String, Secret>,
    /// In lower case, as names of services are told apart without regard to case.
    services: BTreeMap<String, Service>,
}

/// An object that belongs to a stack.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Owned<'a> {
    pub(super) noun: Noun,
    pub(super) name: &'a str,
    pub(super) id: &'a str,
}

type Labels = HashMap<String, String>;

impl Present {
    pub(super) fn new(
        networks: Vec<Network>,
        secrets: Vec<Secret>,
        configs: Vec<Secret>,
        services: Vec<Service>,
    ) -> Self {
        let data = |data: Secret| Some((data.spec.as_ref()?.name.clone()?, data));
        let service = |service: Service| Some((service.spec.as_ref()?.name.as_ref()?.to_ascii_lowercase(), service));
        Self {
            networks: networks.into_iter().filter_map(|network| Some((network.name.clone()?, network))).collect(),
            secrets: secrets.into_iter().filter_map(data).collect(),
            configs: configs.into_iter().filter_map(data).collect(),
            services: services.into_iter().filter_map(service).collect(),
        }
    }

    /// Returns all secrets, or all configs.
    pub(super) fn data(&self, noun: Noun) -> &BTreeMap<String, Secret> {
        if noun == Noun::Config { &self.configs } else { &self.secrets }
    }

    /// Returns the service of this name.
    pub(super) fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(&name.to_ascii_lowercase())
    }

    /// Returns what belongs to a stack, in the order in which it can be removed.
    pub(super) fn of_stack(&self, stack: &str) -> Vec<Owned<'_>> {
        let services = self.services.values().filter_map(|service| {
            let spec = service.spec.as_ref()?;
            is_of(stack, spec.labels.as_ref()).then_some((Noun::Service, &spec.name, &service.id))
        });
        let data = |noun: Noun| {
            self.data(noun).values().filter_map(move |data| {
                let spec = data.spec.as_ref()?;
                is_of(stack, spec.labels.as_ref()).then_some((noun, &spec.name, &data.id))
            })
        };
        let networks = self.networks.values().filter_map(|network| {
            is_of(stack, network.labels.as_ref()).then_some((Noun::Network, &network.name, &network.id))
        });
        let all = services.chain(data(Noun::Secret)).chain(data(Noun::Config)).chain(networks);
        all.filter_map(|(noun, name, id)| Some(Owned { noun, name: name.as_deref()?, id: id.as_deref()? })).collect()
    }
}

/// Returns the stack to which something with these labels belongs.
pub(super) fn stack_of(labels: Option<&Labels>) -> Option<&str> {
    labels?.get(NAMESPACE_LABEL).map(String::as_str)
}

fn is_of(stack: &str, labels: Option<&Labels>) -> bool {
    stack_of(labels) == Some(stack)
}
