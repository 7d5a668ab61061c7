//! Netlink: this node's TUN, its addresses and its routes; the connection that [`crate::veth`] uses too.
//!
//! Everything is ensured rather than done: each function compares with what is there, so calling it again is harmless.
//! All of it happens in the network namespace of the thread that made the [`Netlink`].

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use futures::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use shoal_cluster::plan::addresses::{Addresses, Block, POOL_V4};
use tokio::task::JoinHandle;

use crate::sysctl;

/// Prefix length of the shoal's own IPv6 pool, of which every node owns a block.
const POOL_PREFIX_V6: u8 = 32;

/// Why an interface, an address or a route could not be set. What was set before stays; calling again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// This process may not change network interfaces.
    #[error("not allowed to {doing}: run as root, or grant CAP_NET_ADMIN")]
    NotAllowed {
        /// What was tried.
        doing: String,
    },
    /// The kernel refused a change.
    #[error("cannot {doing}")]
    Netlink {
        /// What was tried.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No netlink socket could be had.
    #[error("cannot open a netlink socket: the kernel or a sandbox forbids it")]
    Socket(#[source] io::Error),
    /// The network namespace of a task's process cannot be entered.
    #[error("cannot enter the network namespace of process {pid}: the task has ended, or has another owner")]
    Namespace {
        /// The task's process.
        pid: i32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The task's process shares this node's network namespace, so it needs no link.
    #[error(
        "process {pid} is in this node's own network namespace: start the task with a network namespace of its own"
    )]
    OwnNamespace {
        /// The task's process.
        pid: i32,
    },
    /// The task already has an interface `eth0` that is not ours.
    #[error(
        "the network namespace of process {pid} has an eth0 that shoal did not make: start the task with a fresh network namespace"
    )]
    InterfaceTaken {
        /// The task's process.
        pid: i32,
    },
    /// A kernel setting cannot be read or written.
    #[error("cannot set {}: it must be writable, so run as root and with /proc/sys mounted read-write", path.display())]
    Sysctl {
        /// The file of the setting.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something else carries the packets to the addresses of tasks: another shoal, or a network of the same range.
    #[error(
        "the route to {pool}/{prefix}, the tasks of all nodes, belongs to interface {interface}: run one shoal per network namespace, and no other network of that range"
    )]
    PoolTaken {
        /// The range of all tasks' addresses.
        pool: Ipv4Addr,
        /// Its prefix length.
        prefix: u8,
        /// Number of the interface, as `ip link` shows it.
        interface: u32,
    },
    /// The overlay is shutting down.
    #[error("the overlay has stopped: restart the node")]
    Stopped,
}

/// An open netlink connection; closed when dropped.
#[derive(Debug)]
pub(crate) struct Netlink {
    pub(crate) handle: Handle,
    driver: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Netlink {
    /// Opens a connection to the network namespace of the calling thread, which must run a runtime.
    pub(crate) fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Socket)?;
        Ok(Self { handle, driver: tokio::spawn(connection) })
    }

    /// Finds an interface by its name.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<LinkMessage>, LinkError> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await {
            Ok(link) => Ok(link),
            Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(refused(format!("look up the network interface {name}"), error)),
        }
    }

    /// Applies a change to an existing interface.
    pub(crate) async fn change(&self, name: &str, message: LinkMessage) -> Result<(), LinkError> {
        let request = self.handle.link().change(message).execute();
        request.await.map_err(|error| refused(format!("set up the network interface {name}"), error))
    }

    /// Makes the addresses of the interface `index` exactly `wanted`, each alone in its prefix.
    pub(crate) async fn set_addresses(&self, index: u32, wanted: &Addresses) -> Result<(), LinkError> {
        let mut missing: BTreeSet<IpAddr> = wanted.iter().filter(|a| a.is_ipv4() || sysctl::has_ipv6()).collect();
        let present: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute()
            .try_collect()
            .await
            .map_err(|error| refused("list the addresses of a network interface".to_owned(), error))?;
        for message in present {
            let Some(address) = address_of(&message) else { continue };
            let full = message.header.prefix_len == full_prefix(address);
            if (full && missing.remove(&address)) || is_link_local(address) {
                continue;
            }
            let request = self.handle.address().del(message).execute();
            request.await.map_err(|error| refused(format!("remove the address {address}"), error))?;
        }
        for address in missing {
            self.add_address(index, address).await?;
        }
        Ok(())
    }

    async fn add_address(&self, index: u32, address: IpAddr) -> Result<(), LinkError> {
        let mut request = self.handle.address().add(index, address, full_prefix(address)).replace();
        let message = request.message_mut();
        // A broadcast address makes no sense in a prefix of one address, and would become a second local route.
        message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
        if address.is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(|error| refused(format!("add the address {address}"), error))
    }

    /// Makes sure that this route is there.
    pub(crate) async fn set_route(&self, what: &str, route: RouteMessage) -> Result<(), LinkError> {
        let request = self.handle.route().add(route).replace().execute();
        request.await.map_err(|error| refused(format!("set the route to {what}"), error))
    }

    /// Sets up the node's TUN, which exists, and leaves it up and without addresses.
    pub(crate) async fn prepare_tun(&self, interface: &str, mtu: u16) -> Result<u32, LinkError> {
        sysctl::enable_forwarding()?;
        sysctl::prepare_tun(interface)?;
        let link = self.find(interface).await?.ok_or_else(|| gone(interface))?;
        let index = link.header.index;
        let message = LinkUnspec::new_with_index(index)
            .mtu(u32::from(mtu))
            .append_extra_attribute(LinkAttribute::TxQueueLen(TUN_QUEUE_PACKETS))
            .up()
            .build();
        self.change(interface, message).await?;
        Ok(index)
    }

    /// Returns the interface that the route to exactly this IPv4 range leads to, if there is one.
    async fn route_to(&self, pool: Ipv4Addr, prefix: u8) -> Result<Option<u32>, LinkError> {
        let mut routes = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        let listing = |error| refused(format!("list the routes to {pool}/{prefix}"), error);
        while let Some(route) = routes.try_next().await.map_err(listing)? {
            let leads = route.attributes.contains(&RouteAttribute::Destination(RouteAddress::Inet(pool)))
                && route.header.destination_prefix_length == prefix;
            let interface = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            if leads && interface.is_some() {
                return Ok(interface);
            }
        }
        Ok(None)
    }

    /// Gives the TUN the node's own addresses in `own`, and routes the pools of the whole overlay into it. A route of
    /// another interface stays as it is.
    pub(crate) async fn set_own(&self, tun: u32, own: &Block) -> Result<(), LinkError> {
        let addresses = own.node();
        self.set_addresses(tun, &addresses).await?;
        if let Some(source) = addresses.v4 {
            let (pool, prefix) = POOL_V4;
            if let Some(interface) = self.route_to(pool, prefix).await?.filter(|interface| *interface != tun) {
                return Err(LinkError::PoolTaken { pool, prefix, interface });
            }
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(pool, prefix)
                .output_interface(tun)
                .pref_source(source)
                .scope(RouteScope::Link)
                .build();
            self.set_route(&format!("{pool}/{prefix}"), route).await?;
        }
        if sysctl::has_ipv6() {
            let pool = Ipv6Addr::from(u128::from(own.v6) & !(u128::MAX >> POOL_PREFIX_V6));
            let route = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(pool, POOL_PREFIX_V6)
                .output_interface(tun)
                .pref_source(addresses.v6)
                .build();
            self.set_route(&format!("{pool}/{POOL_PREFIX_V6}"), route).await?;
        }
        Ok(())
    }
}

/// How many packets wait in the TUN before the kernel drops: a burst of one TCP window of 1 MiB.
const TUN_QUEUE_PACKETS: u32 = 1000;

fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    // IFA_LOCAL is the interface's own address, IFA_ADDRESS the far one on a point-to-point link.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Returns the prefix length that covers one address.
pub(crate) fn full_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// Returns the system's error number behind a netlink error.
pub(crate) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

pub(crate) fn refused(doing: String, error: rtnetlink::Error) -> LinkError {
    match errno(&error) {
        Some(libc::EPERM | libc::EACCES) => LinkError::NotAllowed { doing },
        Some(code) => LinkError::Netlink { doing, source: io::Error::from_raw_os_error(code) },
        None => LinkError::Netlink { doing, source: io::Error::other(error.to_string()) },
    }
}

fn gone(interface: &str) -> LinkError {
    let source = io::Error::from_raw_os_error(libc::ENODEV);
    LinkError::Netlink { doing: format!("find the network interface {interface}"), source }
}
