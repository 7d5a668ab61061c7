//! The cables of the demo: a bridge in a namespace of its own, and a veth pair from it to each host. Over netlink.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::namespace::Namespace;

/// The name of a host's interface.
const INTERFACE: &str = "eth0";
/// Length of the network's prefix.
const PREFIX: u8 = 24;

/// Connects hosts, each with its address, through a bridge in `hub`. All namespaces are there and empty.
pub(super) fn connect(hub: &Namespace, hosts: &[(Namespace, Ipv4Addr)]) -> io::Result<()> {
    let ends = hosts.iter().map(|(namespace, _)| namespace.open()).collect::<io::Result<Vec<File>>>()?;
    hub.run(move || with_netlink(async |netlink| make_bridge(&netlink, &ends).await))??;
    for (namespace, address) in hosts {
        let address = *address;
        namespace.run(move || with_netlink(async |netlink| set_host(&netlink, address).await))??;
    }
    Ok(())
}

/// Runs `work` with a netlink connection of the calling thread's namespace.
fn with_netlink(work: impl AsyncFnOnce(Handle) -> Result<(), rtnetlink::Error>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let driver = tokio::spawn(connection);
        let done = work(handle).await;
        driver.abort();
        done.map_err(io::Error::other)
    })
}

async fn make_bridge(netlink: &Handle, ends: &[File]) -> Result<(), rtnetlink::Error> {
    netlink.link().add(LinkBridge::new("hub").build()).execute().await?;
    let bridge = index(netlink, "hub").await?;
    for (number, end) in ends.iter().enumerate() {
        let inside =
            LinkMessageBuilder::<LinkUnspec>::new().name(INTERFACE.to_owned()).setns_by_fd(end.as_raw_fd()).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(format!("port{}", number + 1))
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inside)))
            .controller(bridge)
            .up()
            .build();
        netlink.link().add(pair).execute().await?;
    }
    Ok(())
}

async fn set_host(netlink: &Handle, address: Ipv4Addr) -> Result<(), rtnetlink::Error> {
    for name in ["lo", INTERFACE] {
        let index = index(netlink, name).await?;
        netlink.link().change(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    }
    netlink.address().add(index(netlink, INTERFACE).await?, IpAddr::V4(address), PREFIX).execute().await
}

async fn index(netlink: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let link = netlink.link().get().match_name(name.to_owned()).execute().try_next().await?;
    link.map(|link| link.header.index).ok_or(rtnetlink::Error::RequestFailed)
}
