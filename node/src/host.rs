//! The host: what this machine is called, what it has, and which of its addresses others can reach.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use shoal_cluster::intent::name::Name;

/// Returns the architecture as OCI names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Returns billionths of a CPU that this process may use.
pub fn nano_cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64) * 1_000_000_000
}

/// Returns bytes of memory; 0 if the kernel does not say.
pub fn memory_bytes() -> u64 {
    nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total())
}

/// Returns the host name's first label, as a node's name, or `node` if it has none that is valid.
pub fn name() -> Name {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let label = host.split('.').next().unwrap_or_default();
    Name::new(label).unwrap_or_else(|_| Name::new("node").expect("a plain name"))
}

/// Returns the address of this host that others are told: the one that a packet to `towards` would leave from, or the
/// first of an interface that is up, or loopback.
pub fn address(towards: Option<SocketAddr>) -> IpAddr {
    // Connecting a UDP socket sends nothing: the kernel only looks up the route. 192.0.2.1 is of RFC 5737.
    let towards = towards.unwrap_or_else(|| (Ipv4Addr::new(192, 0, 2, 1), 9).into());
    let any: IpAddr =
        if towards.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let routed = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(towards)?;
        Ok(socket.local_addr()?.ip())
    });
    routed.ok().or_else(interface).unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// Returns the first IPv4 address of an interface that is up and is not loopback.
fn interface() -> Option<IpAddr> {
    use nix::net::if_::InterfaceFlags;
    let up =
        |flags: InterfaceFlags| flags.contains(InterfaceFlags::IFF_UP) && !flags.contains(InterfaceFlags::IFF_LOOPBACK);
    let mut addresses = nix::ifaddrs::getifaddrs().ok()?.filter(|interface| up(interface.flags));
    addresses.find_map(|interface| Some(IpAddr::V4(interface.address?.as_sockaddr_in()?.ip())))
}
