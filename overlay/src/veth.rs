//! The link of one task: a veth pair between this host and the task's network namespace, routed, not bridged.
//!
//! Input: the task's key, its process and its addresses. Output: `eth0` inside, with both addresses and default routes;
//! outside, an interface whose name follows from the key, with routes to exactly those addresses. Neighbours are
//! permanent on both sides, so nothing is ever asked or awaited. See `docs/architecture.md#overlay`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use shoal_cluster::plan::addresses::Addresses;

use crate::link::{LinkError, Netlink, errno, refused};
use crate::netns::Namespace;
use crate::sysctl;

/// The name of the task's interface inside its network namespace.
const INSIDE: &str = "eth0";
/// What every host-side name begins with; 13 characters of hash follow, which fills the kernel's 15.
const PREFIX: &str = "sh";
/// What every host-side interface is labelled with, before the task's key: only these are ours to remove.
const ALIAS: &str = "shoal task ";
/// The group of links that are being removed; the number is drawn at random, since groups have no owners.
const DOOMED: u32 = 0x5ea1_9d3c;
/// The gateway that a task sees; it exists on its link only (RFC 3927).
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The same for IPv6 (RFC 4291 §2.5.6).
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

type Mac = [u8; 6];

/// Ensures the link of the task `key`, whose process is `pid`.
pub(crate) async fn attach(
    netlink: &Netlink,
    key: &str,
    pid: i32,
    addresses: Addresses,
    mtu: u16,
) -> Result<(), LinkError> {
    let namespace = Namespace::of_process(pid)?;
    let name = host_name(key);
    let host = match netlink.find(&name).await? {
        Some(link) if leads_into(&link, &namespace).await? => link.header.index,
        Some(stale) => {
            remove(netlink, &name, stale.header.index).await?;
            create(netlink, &name, key, &namespace, pid, mtu).await?
        }
        None => create(netlink, &name, key, &namespace, pid, mtu).await?,
    };
    let (outer, inner) = macs(key);
    namespace.run(move || async move { set_inside(addresses, outer).await }).await?;
    set_outside(netlink, &name, host, key, addresses, inner).await
}

/// Removes the links of the tasks `keys`, where there are any. Returns a result for each.
pub(crate) async fn detach(netlink: &Netlink, keys: &[String]) -> Vec<Result<(), LinkError>> {
    let mut results = Vec::new();
    let mut doomed = Vec::new();
    for key in keys {
        let name = host_name(key);
        results.push(match netlink.find(&name).await {
            Ok(Some(link)) => {
                doomed.push((results.len(), name, link.header.index));
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        });
    }
    // One alone is as well removed as such; and each one that the group did not take along.
    if doomed.len() < 2 || remove_group(netlink, &doomed).await.is_err() {
        for (number, name, index) in doomed {
            results[number] = remove(netlink, &name, index).await;
        }
    }
    results
}

/// Puts links into one group and removes that. Nothing else is ever in it, unless another node of ours in this network
/// namespace is about to remove it too.
async fn remove_group(netlink: &Netlink, links: &[(usize, String, u32)]) -> Result<(), LinkError> {
    for (_, name, index) in links {
        let message = LinkUnspec::new_with_index(*index).append_extra_attribute(LinkAttribute::Group(DOOMED)).build();
        match netlink.change(name, message).await {
            // It went with its task's namespace.
            Err(LinkError::Netlink { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {}
            result => result?,
        }
    }
    let mut request = netlink.handle.link().del(0);
    request.message_mut().attributes.push(LinkAttribute::Group(DOOMED));
    match request.execute().await {
        Ok(()) => Ok(()),
        Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(()),
        Err(error) => Err(refused("remove the links of ended tasks".to_owned(), error)),
    }
}

/// Removes the links of all tasks but those in `keep`. Interfaces that carry no label of ours are left alone.
pub(crate) async fn retain(netlink: &Netlink, keep: &BTreeSet<String>) -> Result<(), LinkError> {
    let keep: BTreeSet<String> = keep.iter().map(|key| host_name(key)).collect();
    let links: Vec<LinkMessage> = netlink
        .handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(|error| refused("list the network interfaces".to_owned(), error))?;
    for link in links {
        let Some(name) = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        }) else {
            continue;
        };
        let ours = link.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::IfAlias(alias) => alias.starts_with(ALIAS),
            _ => false,
        });
        if ours && name.starts_with(PREFIX) && !keep.contains(&name) {
            remove(netlink, &name, link.header.index).await?;
        }
    }
    Ok(())
}

/// Tells whether the other end of `link` is the `eth0` of `namespace`, as after a restart of the daemon.
async fn leads_into(link: &LinkMessage, namespace: &Namespace) -> Result<bool, LinkError> {
    let index = link.header.index;
    let Some(far) = peer_index(link) else { return Ok(false) };
    namespace
        .run(move || async move {
            let inside = Netlink::open()?.find(INSIDE).await?;
            Ok(inside.is_some_and(|inside| inside.header.index == far && peer_index(&inside) == Some(index)))
        })
        .await
}

fn peer_index(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    })
}

async fn create(
    netlink: &Netlink,
    name: &str,
    key: &str,
    namespace: &Namespace,
    pid: i32,
    mtu: u16,
) -> Result<u32, LinkError> {
    let (outer, inner) = macs(key);
    let inside = LinkMessageBuilder::<LinkUnspec>::new()
        .name(INSIDE.to_owned())
        .address(inner.to_vec())
        .mtu(u32::from(mtu))
        .setns_by_fd(namespace.file().as_raw_fd())
        .build();
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name.to_owned())
        .address(outer.to_vec())
        .mtu(u32::from(mtu))
        .set_info_data(InfoData::Veth(InfoVeth::Peer(inside)))
        .build();
    match netlink.handle.link().add(pair).execute().await {
        Ok(()) => {}
        Err(error) if errno(&error) == Some(libc::EEXIST) => return Err(LinkError::InterfaceTaken { pid }),
        Err(error) => return Err(refused(format!("make the link of task {key}"), error)),
    }
    let made = netlink.find(name).await?;
    // The pair dies with the task's namespace, so it can be gone already.
    made.map(|link| link.header.index)
        .ok_or_else(|| LinkError::Namespace { pid, source: std::io::Error::from_raw_os_error(libc::ESRCH) })
}

async fn remove(netlink: &Netlink, name: &str, index: u32) -> Result<(), LinkError> {
    match netlink.handle.link().del(index).execute().await {
        Ok(()) => Ok(()),
        Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(()),
        Err(error) => Err(refused(format!("remove the network interface {name}"), error)),
    }
}

/// Sets up the task's side, on a thread inside its network namespace.
async fn set_inside(addresses: Addresses, gateway_mac: Mac) -> Result<(), LinkError> {
    let netlink = Netlink::open()?;
    if let Some(loopback) = netlink.find("lo").await? {
        let message = LinkUnspec::new_with_index(loopback.header.index).up().build();
        netlink.change("lo", message).await?;
    }
    sysctl::prepare_inside(INSIDE)?;
    let index = netlink.find(INSIDE).await?.map(|link| link.header.index).unwrap_or_default();
    netlink.change(INSIDE, LinkUnspec::new_with_index(index).up().build()).await?;
    netlink.set_addresses(index, &addresses).await?;
    if let Some(source) = addresses.v4 {
        set_neighbour(&netlink, index, GATEWAY_V4.into(), gateway_mac).await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(GATEWAY_V4)
            .output_interface(index)
            .pref_source(source)
            .onlink()
            .build();
        netlink.set_route("everywhere inside a task", route).await?;
    }
    if sysctl::has_ipv6() {
        set_neighbour(&netlink, index, GATEWAY_V6.into(), gateway_mac).await?;
        let route = RouteMessageBuilder::<Ipv6Addr>::new()
            .gateway(GATEWAY_V6)
            .output_interface(index)
            .pref_source(addresses.v6)
            .onlink()
            .build();
        netlink.set_route("everywhere inside a task", route).await?;
    }
    Ok(())
}

/// Sets up the host's side.
async fn set_outside(
    netlink: &Netlink,
    name: &str,
    index: u32,
    key: &str,
    addresses: Addresses,
    task_mac: Mac,
) -> Result<(), LinkError> {
    sysctl::prepare_task_link(name)?;
    let message = LinkUnspec::new_with_index(index)
        .append_extra_attribute(LinkAttribute::IfAlias(format!("{ALIAS}{key}")))
        .up()
        .build();
    netlink.change(name, message).await?;
    for address in addresses.iter() {
        let route = match address {
            IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(address, 32)
                .output_interface(index)
                .scope(RouteScope::Link)
                .build(),
            IpAddr::V6(_) if !sysctl::has_ipv6() => continue,
            IpAddr::V6(address) => {
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).output_interface(index).build()
            }
        };
        set_neighbour(netlink, index, address, task_mac).await?;
        netlink.set_route(&address.to_string(), route).await?;
    }
    Ok(())
}

async fn set_neighbour(netlink: &Netlink, index: u32, address: IpAddr, mac: Mac) -> Result<(), LinkError> {
    let request = netlink.handle.neighbours().add(index, address).link_local_address(&mac).replace().execute();
    request.await.map_err(|error| refused(format!("set the neighbour {address}"), error))
}

/// Returns the name of the host's end of the link of `key`: 64 bits of hash in base 36.
pub(crate) fn host_name(key: &str) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut value = fnv1a(key.as_bytes(), 0);
    let mut name = PREFIX.to_owned();
    for _ in 0..13 {
        name.push(char::from(DIGITS[(value % 36) as usize]));
        value /= 36;
    }
    name
}

/// Returns the hardware addresses of the link of `key`, host's end first: locally administered, unicast.
fn macs(key: &str) -> (Mac, Mac) {
    let bytes = fnv1a(key.as_bytes(), 1).to_be_bytes();
    let tail = [bytes[1], bytes[2], bytes[3], bytes[4]];
    let mac = |first: u8| [0x02, first, tail[0], tail[1], tail[2], tail[3]];
    (mac(bytes[0] | 1), mac(bytes[0] & !1))
}

/// Hashes a task's key by FNV-1a, which needs to be spread out and short, not hard to find a collision of: keys are
/// made by this node.
fn fnv1a(bytes: &[u8], variant: u8) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().chain([&variant]).fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_differ() {
        let names: BTreeSet<String> = (0..10_000).map(|n| host_name(&format!("task{n}"))).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() == 15 && name.starts_with(PREFIX)));
    }

    #[test]
    fn the_two_ends_of_a_link_have_different_unicast_hardware_addresses() {
        for n in 0..1000 {
            let (outer, inner) = macs(&format!("task{n}"));
            assert_ne!(outer, inner);
            assert!([outer, inner].iter().all(|mac| mac[0] & 0b11 == 0b10));
        }
    }
}
