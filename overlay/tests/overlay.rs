//! The overlay between real network namespaces: tasks talk, strangers and liars do not, restarts heal.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on should stop")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use shoal_cluster::id::NodeId;
use shoal_cluster::plan::addresses::{Addresses, Block};
use shoal_cluster::plan::routes::{PeerRoute, Routes};
use shoal_overlay::{
    DropReason, INTERFACE, LinkError, MTU, Overlay, OverlayConfig, OverlayError, TunError, TunnelError,
};

use support::host::Host;
use support::identity::{Ca, SERVER_NAME, Tls};
use support::task::{Task, exchange_tcp, ping_udp};
use support::{block_on, privileged, wait_until};

const SHOAL: [u8; 32] = [7; 32];
const PORT: u16 = 7946;
const UNDERLAY: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

/// Node 0 has the lower id.
fn node(number: u8) -> NodeId {
    NodeId([number + 1; 32])
}

fn block(number: u8) -> Block {
    Block::derive(&SHOAL, &node(number), Some(u16::from(number) + 5))
}

fn peer(number: u8) -> PeerRoute {
    PeerRoute { endpoint: SocketAddr::new(UNDERLAY[usize::from(number)].into(), PORT), block: block(number) }
}

fn routes(own: u8, peers: &[u8]) -> Routes {
    Routes { own: block(own), peers: peers.iter().map(|&n| (node(n), peer(n))).collect() }
}

fn config(number: u8, tls: &Tls) -> OverlayConfig {
    OverlayConfig {
        node: node(number),
        listen: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT),
        interface: INTERFACE.to_owned(),
        mtu: MTU,
        server: tls.server.clone(),
        client: tls.client.clone(),
        server_name: SERVER_NAME.to_owned(),
        identify: tls.identify.clone(),
    }
}

/// Two hosts with a cable between them, and a node on each.
struct Pair {
    hosts: [Host; 2],
    tls: [Tls; 2],
    nodes: [Option<Overlay>; 2],
}

impl Pair {
    fn new() -> Self {
        let ca = Ca::new();
        Self::with([ca.issue(node(0)), ca.issue(node(1))], 1500)
    }

    fn with(tls: [Tls; 2], mtu: u32) -> Self {
        let _ = tracing_subscriber::fmt().with_env_filter("shoal_overlay=debug").with_test_writer().try_init();
        let hosts = [Host::new(), Host::new()];
        hosts[0].join(UNDERLAY[0], &hosts[1], UNDERLAY[1], mtu);
        let mut pair = Self { hosts, tls, nodes: [None, None] };
        pair.start(0);
        pair.start(1);
        pair
    }

    fn start(&mut self, number: u8) {
        let config = config(number, &self.tls[usize::from(number)]);
        let node = self.hosts[usize::from(number)].run(move || Overlay::start(config)).unwrap();
        block_on(node.set_routes(routes(number, &[1 - number]))).unwrap();
        self.nodes[usize::from(number)] = Some(node);
    }

    fn node(&self, number: u8) -> &Overlay {
        self.nodes[usize::from(number)].as_ref().unwrap()
    }

    fn connected(&self, number: u8) -> bool {
        self.node(number).stats().connected == BTreeSet::from([node(1 - number)])
    }

    fn wait_connected(&self) -> Duration {
        wait_until("both nodes are connected", || self.connected(0) && self.connected(1))
    }

    /// Starts a task on a node, with host number `host` of its block.
    fn task(&self, number: u8, host: u8) -> (Task, Addresses) {
        let (task, addresses) = (Task::new(), block(number).host(host));
        block_on(self.node(number).attach(&key(number, host), task.pid(), addresses)).unwrap();
        (task, addresses)
    }
}

fn key(number: u8, host: u8) -> String {
    format!("task-{number}-{host}")
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

fn pairs(a: Addresses, b: Addresses) -> [(IpAddr, IpAddr); 2] {
    [(a.v4.unwrap().into(), b.v4.unwrap().into()), (a.v6.into(), b.v6.into())]
}

#[test]
fn tasks_on_two_nodes_talk_by_tcp_and_udp_in_both_families() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let ((near, near_addresses), (far, far_addresses)) = (pair.task(0, 2), pair.task(1, 2));
    pair.wait_connected();
    for (from, to) in pairs(near_addresses, far_addresses) {
        let port = far.echo_udp(to);
        assert!(near.ping_udp(from, (to, port).into(), bytes(100)), "udp to {to}");
        assert!(near.ping_udp(from, (to, port).into(), bytes(1250)), "udp of a full packet to {to}");
        let port = far.echo_tcp(to);
        assert!(near.exchange_tcp((to, port).into(), bytes(1 << 20)), "1 MiB by tcp to {to}");
    }
    let (sent, received) = (pair.node(0).stats(), pair.node(1).stats());
    assert!(sent.bytes_out > 2 << 20 && received.bytes_in > 2 << 20, "{sent:?} {received:?}");
}

#[test]
fn a_node_and_tasks_of_one_node_talk_and_the_node_reaches_far_tasks() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let ((near, near_addresses), (neighbour, neighbour_addresses)) = (pair.task(0, 2), pair.task(0, 3));
    let (far, far_addresses) = pair.task(1, 2);
    pair.wait_connected();
    for (from, to) in pairs(near_addresses, neighbour_addresses) {
        let port = neighbour.echo_tcp(to);
        assert!(near.exchange_tcp((to, port).into(), bytes(1000)), "{from} to its neighbour {to}");
    }
    for (from, own) in pairs(near_addresses, block(0).node()) {
        let server = pair.hosts[0].run(move || UdpSocket::bind((own, 0)).unwrap());
        let port = server.local_addr().unwrap().port();
        let asked = near.spawn(move || ping_udp(from, (own, port).into(), b"name?"));
        let mut buffer = [0; 100];
        let (length, asker) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(asker.ip(), from);
        server.send_to(&buffer[..length], asker).unwrap();
        assert!(asked.join().unwrap(), "{from} to its node {own}");
    }
    for (_, to) in pairs(near_addresses, far_addresses) {
        let port = far.echo_tcp(to);
        assert!(pair.hosts[0].run(move || exchange_tcp((to, port).into(), bytes(1000))), "node to {to}");
    }
}

#[test]
fn an_address_that_nobody_has_is_refused_at_once() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let (near, near_addresses) = pair.task(0, 2);
    pair.wait_connected();
    let nobody = [block(0).host(99), block(1).host(99), block(9).host(2)];
    for (_, to) in nobody.into_iter().flat_map(|addresses| pairs(near_addresses, addresses)) {
        let begin = Instant::now();
        assert!(!near.exchange_tcp((to, 80).into(), bytes(1)), "{to}");
        assert!(begin.elapsed() < Duration::from_secs(15), "{to} took {:?}", begin.elapsed());
    }
    assert!(pair.node(0).stats().dropped(DropReason::NoTask) > 0);
    assert!(pair.node(0).stats().dropped(DropReason::NoRoute) > 0);
}

#[test]
fn a_node_with_a_certificate_of_another_ca_gets_no_connection() {
    if !privileged() {
        return;
    }
    let (ours, foreign) = (Ca::new(), Ca::new());
    // The second stranger trusts our CA, so it is we alone who can refuse it.
    for stranger in [foreign.issue(node(1)), foreign.issue_trusting(node(1), &ours)] {
        let pair = Pair::with([ours.issue(node(0)), stranger], 1500);
        let ((near, near_addresses), (far, far_addresses)) = (pair.task(0, 2), pair.task(1, 2));
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(4) {
            assert!(!pair.connected(0) && !pair.connected(1));
            std::thread::sleep(Duration::from_millis(5));
        }
        for (from, to) in pairs(near_addresses, far_addresses) {
            let port = far.echo_udp(to);
            assert!(!near.ping_udp(from, (to, port).into(), bytes(10)));
        }
        assert_eq!((pair.node(0).stats().packets_in, pair.node(1).stats().packets_in), (0, 0));
    }
}

#[test]
fn a_node_that_is_not_in_the_routes_is_refused_until_it_is() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    pair.wait_connected();
    block_on(pair.node(0).set_routes(routes(0, &[]))).unwrap();
    wait_until("the connection is closed", || !pair.connected(0) && !pair.connected(1));
    std::thread::sleep(Duration::from_secs(1));
    assert!(!pair.connected(0) && !pair.connected(1));
    block_on(pair.node(0).set_routes(routes(0, &[1]))).unwrap();
    pair.wait_connected();
}

#[test]
fn garbage_on_the_tunnel_port_does_no_harm() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let target = SocketAddr::new(UNDERLAY[1].into(), PORT);
    pair.hosts[0].run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for n in 0..2000usize {
            let mut junk = bytes(n % 1400);
            // Every other one looks like the beginning of a QUIC handshake.
            if let (0, [first, _, _, _, version, ..]) = (n % 2, &mut junk[..]) {
                (*first, *version) = (0xc0 | *first, 1);
            }
            let _ = socket.send_to(&junk, target);
        }
    });
    pair.wait_connected();
    let ((near, near_addresses), (far, far_addresses)) = (pair.task(0, 2), pair.task(1, 2));
    let (from, to) = pairs(near_addresses, far_addresses)[0];
    let port = far.echo_udp(to);
    wait_until("a ping is answered", || near.ping_udp(from, (to, port).into(), bytes(10)));
}

#[test]
fn a_peer_that_lies_about_inner_sources_is_not_believed() {
    if !privileged() {
        return;
    }
    let ca = Ca::new();
    let liar = ca.issue(node(1));
    let mut pair = Pair::with([ca.issue(node(0)), ca.issue(node(1))], 1500);
    pair.nodes[1] = None;
    let victim = block(0).node();
    let port = 5353;
    let server = pair.hosts[0].run(move || UdpSocket::bind((victim.v4.unwrap(), port)).unwrap());
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    // The liar is node 1 with a valid certificate, dialling from node 0's own host.
    pair.hosts[0].run(move || {
        block_on(async move {
            let config = quinn::crypto::rustls::QuicClientConfig::try_from(liar.client).unwrap();
            let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            let config = quinn::ClientConfig::new(std::sync::Arc::new(config));
            let target = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
            let connection = endpoint.connect_with(config, target, SERVER_NAME).unwrap().await.unwrap();
            let mut hello = connection.open_uni().await.unwrap();
            hello.write_all(&[1, 9, 9, 9, 9, 9, 9, 9, 9]).await.unwrap();
            hello.finish().unwrap();
            connection.accept_uni().await.unwrap().read_to_end(100).await.unwrap();
            let spoofed = [block(2).host(2), block(0).host(2), Addresses { v4: Some([8, 8, 8, 8].into()), ..victim }];
            for source in spoofed {
                connection.send_datagram(udp(source.v4.unwrap(), victim.v4.unwrap(), port, b"lie").into()).unwrap();
            }
            let relayed = udp(block(1).host(2).v4.unwrap(), block(3).host(2).v4.unwrap(), port, b"relay");
            connection.send_datagram(relayed.into()).unwrap();
            connection.send_datagram(vec![0x45; 30].into()).unwrap();
            let honest = udp(block(1).host(2).v4.unwrap(), victim.v4.unwrap(), port, b"truth");
            connection.send_datagram(honest.into()).unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        });
    });
    let mut buffer = [0; 100];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"truth"[..], IpAddr::from(block(1).host(2).v4.unwrap())));
    let stats = pair.node(0).stats();
    assert_eq!(stats.dropped(DropReason::ForeignSource), 3, "{stats:?}");
    assert_eq!(stats.dropped(DropReason::ForeignDestination), 1, "{stats:?}");
    assert_eq!(stats.dropped(DropReason::Malformed), 1, "{stats:?}");
}

/// Returns a UDP packet without a UDP checksum, which IPv4 allows.
fn udp(source: Ipv4Addr, destination: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = (28 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !(((sum >> 16) + (sum & 0xffff)) as u16);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend((length - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// The cable is pulled while a node stops, so that its peer hears nothing, as after SIGKILL or a power cut.
#[test]
fn a_node_that_was_killed_and_started_again_is_back_before_its_old_connection_times_out() {
    if !privileged() {
        return;
    }
    for killed in [0u8, 1] {
        let mut pair = Pair::new();
        let ((near, near_addresses), (far, far_addresses)) = (pair.task(0, 2), pair.task(1, 2));
        pair.wait_connected();
        let host = usize::from(killed);
        pair.hosts[host].plug(false);
        pair.nodes[host] = None;
        pair.hosts[host].plug(true);
        pair.start(killed);
        // A daemon that starts again ensures the links of the tasks that it finds.
        let (task, addresses) = if killed == 0 { (&near, near_addresses) } else { (&far, far_addresses) };
        block_on(pair.node(killed).attach(&key(killed, 2), task.pid(), addresses)).unwrap();
        let took = wait_until("the restarted node is connected", || pair.connected(killed));
        println!("node {killed} was connected again after {took:?}");
        assert!(took < Duration::from_secs(8), "only after the idle timeout: {took:?}");
        for (from, to) in pairs(near_addresses, far_addresses) {
            let port = far.echo_udp(to);
            wait_until("a ping is answered", || near.ping_udp(from, (to, port).into(), bytes(10)));
        }
    }
}

#[test]
fn a_cut_cable_is_noticed_and_healed() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    pair.wait_connected();
    pair.hosts[0].plug(false);
    wait_until("both notice", || !pair.connected(0) && !pair.connected(1));
    pair.hosts[0].plug(true);
    let took = pair.wait_connected();
    println!("connected again {took:?} after the cable was plugged");
}

#[test]
fn a_path_narrower_than_the_tunnel_wants_still_carries() {
    if !privileged() {
        return;
    }
    let ca = Ca::new();
    let pair = Pair::with([ca.issue(node(0)), ca.issue(node(1))], 1400);
    let ((near, near_addresses), (far, far_addresses)) = (pair.task(0, 2), pair.task(1, 2));
    pair.wait_connected();
    for (_, to) in pairs(near_addresses, far_addresses) {
        let port = far.echo_tcp(to);
        assert!(near.exchange_tcp((to, port).into(), bytes(200_000)), "{to}");
    }
}

#[test]
fn attaching_again_changes_nothing_and_links_end_with_their_tasks() {
    if !privileged() {
        return;
    }
    let mut pair = Pair::new();
    let ((near, near_addresses), (far, far_addresses)) = (pair.task(0, 2), pair.task(1, 2));
    pair.wait_connected();
    let to = far_addresses.v4.unwrap();
    let port = far.echo_udp(to.into());
    let ping = || near.ping_udp(near_addresses.v4.unwrap().into(), (to, port).into(), bytes(10));
    assert!(ping());
    block_on(pair.node(0).attach(&key(0, 2), near.pid(), near_addresses)).unwrap();
    assert_eq!(pair.hosts[0].task_links(), 1);
    assert!(ping());

    // The daemon goes away and comes back; the task stays.
    pair.nodes[0] = None;
    assert!(!pair.hosts[0].has_interface(INTERFACE));
    assert_eq!(pair.hosts[0].task_links(), 1);
    pair.start(0);
    block_on(pair.node(0).attach(&key(0, 2), near.pid(), near_addresses)).unwrap();
    pair.wait_connected();
    wait_until("a ping is answered", ping);

    let (other, _) = pair.task(0, 3);
    assert_eq!(pair.hosts[0].task_links(), 2);
    block_on(pair.node(0).retain(BTreeSet::from([key(0, 2)]))).unwrap();
    assert_eq!(pair.hosts[0].task_links(), 1);
    drop(other);
    block_on(pair.node(0).detach(&key(0, 2))).unwrap();
    block_on(pair.node(0).detach(&key(0, 2))).unwrap();
    assert_eq!(pair.hosts[0].task_links(), 0);

    let (ended, _) = pair.task(0, 4);
    drop(ended);
    wait_until("the link of a dead task is gone", || pair.hosts[0].task_links() == 0);
}

#[test]
fn a_link_to_a_process_that_is_gone_or_in_our_own_namespace_is_refused() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let task = Task::new();
    let pid = task.pid();
    drop(task);
    let gone = block_on(pair.node(0).attach("gone", pid, block(0).host(9)));
    assert!(matches!(gone, Err(LinkError::Namespace { .. })), "{gone:?}");
    let own = pair.hosts[0].run(|| nix::unistd::gettid().as_raw());
    let same = block_on(pair.node(0).attach("same", own, block(0).host(9)));
    assert!(matches!(same, Err(LinkError::OwnNamespace { .. })), "{same:?}");
}

#[test]
fn a_new_block_re_addresses_the_node() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let old = block(0).node().v4.unwrap();
    let can_bind = |address: Ipv4Addr| pair.hosts[0].run(move || UdpSocket::bind((address, 0)).is_ok());
    assert!(can_bind(old));
    let moved = Block::derive(&SHOAL, &node(0), Some(77));
    let wanted = Routes { own: moved, ..routes(0, &[1]) };
    block_on(pair.node(0).set_routes(wanted)).unwrap();
    assert!(can_bind(moved.node().v4.unwrap()) && !can_bind(old));

    let unclaimed = Routes { own: Block { v4: None, ..moved }, peers: BTreeMap::new() };
    block_on(pair.node(0).set_routes(unclaimed)).unwrap();
    assert!(!can_bind(moved.node().v4.unwrap()));
    let v6 = moved.node().v6;
    assert!(pair.hosts[0].run(move || UdpSocket::bind((v6, 0)).is_ok()));
}

/// Tells whether the route to the IPv4 addresses of all tasks leads to this interface.
fn has_route(host: &Host, interface: &str) -> bool {
    let shown = host.run(|| Command::new("ip").args(["-4", "route", "show", "10.64.0.0/10"]).output().unwrap());
    String::from_utf8(shown.stdout).unwrap().contains(interface)
}

#[test]
fn a_route_that_others_removed_comes_again() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    assert!(has_route(&pair.hosts[0], INTERFACE));
    let removed =
        pair.hosts[0].run(|| Command::new("ip").args(["-4", "route", "del", "10.64.0.0/10"]).status().unwrap());
    assert!(removed.success() && !has_route(&pair.hosts[0], INTERFACE));
    wait_until("the route is there again", || {
        block_on(pair.node(0).set_routes(routes(0, &[1]))).unwrap();
        has_route(&pair.hosts[0], INTERFACE)
    });
}

#[test]
fn a_second_node_in_one_namespace_says_what_is_taken_and_leaves_nothing() {
    if !privileged() {
        return;
    }
    let pair = Pair::new();
    let tls = pair.tls[0].clone();
    let (same_port, mut same_name) = (config(0, &tls), config(0, &tls));
    let same_port = pair.hosts[0].run(move || Overlay::start(same_port)).unwrap_err();
    assert!(matches!(same_port, OverlayError::Tunnel(TunnelError::PortInUse { .. })), "{same_port:?}");
    same_name.listen.set_port(0);
    let same_name = pair.hosts[0].run(move || Overlay::start(same_name)).unwrap_err();
    assert!(matches!(same_name, OverlayError::Tun(TunError::Taken { .. })), "{same_name:?}");

    let mut other = config(0, &tls);
    other.interface = "shoal1".to_owned();
    other.listen.set_port(0);
    let other = pair.hosts[0].run(move || Overlay::start(other)).unwrap();
    assert_ne!(other.listen_address().port(), 0);
    let refused = block_on(other.set_routes(routes(1, &[])));
    assert!(matches!(refused, Err(LinkError::PoolTaken { .. })), "{refused:?}");
    drop(other);
    assert!(has_route(&pair.hosts[0], INTERFACE), "the second node took the route of the first");
    assert!(!pair.hosts[0].has_interface("shoal1"));
    pair.wait_connected();
}
