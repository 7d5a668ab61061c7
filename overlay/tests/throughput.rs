//! How fast one TCP stream goes through the tunnel, beside the bare cable, in one run. Prints figures, asserts none.
//!
//! Run as root: `cargo test --release -p shoal-overlay --test throughput -- --ignored --nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "a bench that cannot go on should stop; it uses part of the lab"
)]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use shoal_cluster::id::NodeId;
use shoal_cluster::plan::addresses::Block;
use shoal_cluster::plan::routes::{PeerRoute, Routes};
use shoal_overlay::{INTERFACE, MTU, Overlay, OverlayConfig};

use support::host::Host;
use support::identity::{Ca, SERVER_NAME};
use support::task::Task;
use support::{block_on, privileged, wait_until};

const PORT: u16 = 7946;
const UNDERLAY: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const SECONDS: u64 = 5;

#[test]
#[ignore = "a bench: prints figures that depend on the machine"]
fn one_tcp_stream_through_the_tunnel_and_over_the_bare_cable() {
    if !privileged() {
        return;
    }
    let hosts = [Host::new(), Host::new()];
    hosts[0].join(UNDERLAY[0], &hosts[1], UNDERLAY[1], 1500);
    let ca = Ca::new();
    let ids = [NodeId([1; 32]), NodeId([2; 32])];
    let blocks = [0, 1].map(|n| Block::derive(&[7; 32], &ids[n], Some(n as u16)));
    let nodes = [0, 1].map(|n| {
        let tls = ca.issue(ids[n]);
        let config = OverlayConfig {
            node: ids[n],
            listen: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT),
            interface: INTERFACE.to_owned(),
            mtu: MTU,
            server: tls.server,
            client: tls.client,
            server_name: SERVER_NAME.to_owned(),
            identify: tls.identify,
        };
        let node = hosts[n].run(move || Overlay::start(config)).unwrap();
        let far = PeerRoute { endpoint: SocketAddr::new(UNDERLAY[1 - n].into(), PORT), block: blocks[1 - n] };
        block_on(node.set_routes(Routes { own: blocks[n], peers: [(ids[1 - n], far)].into() })).unwrap();
        node
    });
    wait_until("connected", || nodes.iter().all(|node| !node.stats().connected.is_empty()));
    let inner: IpAddr = blocks[1].node().v4.unwrap().into();
    let bare = stream(&hosts, UNDERLAY[1].into());
    let tunnel = stream(&hosts, inner);
    println!("bare cable {bare:.2} Gbit/s, tunnel {tunnel:.2} Gbit/s ({:.0} %)", tunnel / bare * 100.0);
    for node in &nodes {
        println!("{:?}", node.stats());
    }
    attach_many(&nodes[0], &blocks[0]);
}

/// Prints how long it takes to attach and to detach tasks.
fn attach_many(node: &Overlay, block: &Block) {
    let tasks: Vec<(String, Task)> = (2..52).map(|host| (format!("task{host}"), Task::new())).collect();
    let begin = Instant::now();
    for (host, (key, task)) in (2u8..).zip(&tasks) {
        block_on(node.attach(key, task.pid(), block.host(host))).unwrap();
    }
    println!("attached {} tasks in {:?}", tasks.len(), begin.elapsed());
    let begin = Instant::now();
    for (key, _) in &tasks {
        block_on(node.detach(key)).unwrap();
    }
    println!("detached them in {:?}", begin.elapsed());
}

/// Sends for some seconds from the first host to the second and returns Gbit/s received.
fn stream(hosts: &[Host; 2], to: IpAddr) -> f64 {
    let listener = hosts[1].run(move || TcpListener::bind((to, 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let receiving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut buffer, mut total) = (vec![0; 1 << 17], 0u64);
        let begin = Instant::now();
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            total += length as u64;
        }
        total as f64 * 8.0 / begin.elapsed().as_secs_f64() / 1e9
    });
    hosts[0].run(move || {
        let mut stream = TcpStream::connect(target).unwrap();
        let buffer = vec![7; 1 << 17];
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(SECONDS) {
            stream.write_all(&buffer).unwrap();
        }
    });
    receiving.join().unwrap()
}
