//! Networks of a service: which it is on, by which other names, and which of its ports are to be open outside.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::SpecError;
use crate::intent::name::Name;
use crate::intent::object::ObjectName;
use crate::limits::{ATTACHMENTS_MAX, NAME_BYTES_MAX};

/// One network that a service is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Which.
    pub network: ObjectName,
    /// Further names by which others on that network find the service.
    pub aliases: Vec<Name>,
}

/// How a service is reached. Kept and shown; nothing is served by it yet but names with the tasks' addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// What its name answers with.
    pub mode: EndpointMode,
    /// Which of its ports are open outside.
    pub ports: Vec<Port>,
}

/// What the name of a service answers with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointMode {
    /// One address that stands for all tasks.
    #[default]
    Vip,
    /// The addresses of all tasks.
    DnsRr,
}

/// A port of a service that is to be open outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// What operators call it; may be empty.
    pub name: String,
    /// Of which protocol.
    pub protocol: Protocol,
    /// The tasks' port, not 0.
    pub target: u16,
    /// The port outside; 0 is any.
    pub published: u16,
    /// On which nodes it is open.
    pub mode: PublishMode,
}

/// The protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// On which nodes a published port is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PublishMode {
    /// On all, whichever runs a task.
    Ingress,
    /// On those that run a task, each for its own.
    Host,
}

/// Checks what types cannot: counts, and that nothing is said twice.
pub(super) fn check(networks: &[Attachment], endpoint: &Endpoint) -> Result<(), SpecError> {
    let aliases = networks.iter().map(|attachment| attachment.aliases.len()).max().unwrap_or_default();
    for (what, count) in [("networks", networks.len()), ("aliases", aliases), ("ports", endpoint.ports.len())] {
        if count > ATTACHMENTS_MAX {
            let reason = format!("{count} are too many: a service may have at most {ATTACHMENTS_MAX}");
            return Err(SpecError::Option { what, reason });
        }
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = networks.iter().find(|attachment| !seen.insert(&attachment.network)) {
        let reason = format!("{} is named twice", twice.network);
        return Err(SpecError::Option { what: "network", reason });
    }
    check_ports(endpoint)
}

fn check_ports(endpoint: &Endpoint) -> Result<(), SpecError> {
    let bad = |reason: String| Err(SpecError::Option { what: "port", reason });
    let mut seen = BTreeSet::new();
    for port in &endpoint.ports {
        if port.target == 0 || port.name.len() > NAME_BYTES_MAX {
            return bad(format!("a port has the number 0, or a name of more than {NAME_BYTES_MAX} bytes"));
        }
        if port.published != 0 && !seen.insert((port.published, port.protocol)) {
            return bad(format!("{} is published twice", port.published));
        }
        if endpoint.mode == EndpointMode::DnsRr && port.mode == PublishMode::Ingress {
            return bad("with endpoint mode dnsrr, ports can be published with mode=host only".to_string());
        }
    }
    Ok(())
}

/// Returns an upper bound of the bytes of text in both.
pub(super) fn weight(networks: &[Attachment], endpoint: &Endpoint) -> usize {
    let names = |attachment: &Attachment| {
        let aliases = attachment.aliases.iter().map(|alias| alias.as_str().len() + 8).sum::<usize>();
        attachment.network.as_str().len() + aliases + 8
    };
    networks.iter().map(names).sum::<usize>() + endpoint.ports.iter().map(|port| port.name.len() + 16).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn port(target: u16, published: u16, mode: PublishMode) -> Port {
        Port { name: String::new(), protocol: Protocol::Tcp, target, published, mode }
    }

    #[test]
    fn a_port_outside_is_published_once_and_a_network_named_once() {
        let endpoint = |ports| Endpoint { mode: EndpointMode::Vip, ports };
        let one = port(80, 8080, PublishMode::Ingress);
        assert!(check(&[], &endpoint(vec![one.clone(), port(80, 0, PublishMode::Ingress)])).is_ok());
        assert!(check(&[], &endpoint(vec![one.clone(), port(81, 8080, PublishMode::Host)])).is_err());
        let udp = Port { protocol: Protocol::Udp, ..one.clone() };
        assert!(check(&[], &endpoint(vec![one.clone(), udp])).is_ok());
        assert!(check(&[], &endpoint(vec![port(0, 1, PublishMode::Host)])).is_err());
        let without_vip = Endpoint { mode: EndpointMode::DnsRr, ports: vec![one] };
        assert!(check(&[], &without_vip).unwrap_err().to_string().contains("mode=host"));
        let on = |name: &str| Attachment { network: ObjectName::new(name).unwrap(), aliases: Vec::new() };
        assert!(check(&[on("a"), on("b")], &Endpoint::default()).is_ok());
        assert!(check(&[on("a"), on("a")], &Endpoint::default()).is_err());
        let many: Vec<Attachment> = (0..=ATTACHMENTS_MAX).map(|number| on(&format!("n{number}"))).collect();
        assert!(check(&many, &Endpoint::default()).unwrap_err().to_string().contains("too many"));
    }
}
