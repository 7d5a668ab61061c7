//! Placement measured: time, memory, balance, and what a loss moves, beside rendezvous hashing and a greedy spread.
//!
//! `cargo bench -p shoal-cluster --bench placement` prints the tables of `docs/design/0010-placement.md`;
//! `-- --quick` does the same for a small shoal, and fails if a bound is broken.

#![allow(clippy::disallowed_types, clippy::print_stdout, reason = "a benchmark measures time and prints")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shoal_cluster::intent::constraint::{Constraint, Spread};
use shoal_cluster::plan::placement::{Amounts, Inputs, NodeInput, Placement, ServiceInput};
use shoal_cluster::{NodeId, ServiceId, hash};

struct Counting;

static PRESENT: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn count(more: usize, less: usize) {
    let present = PRESENT.fetch_add(more, Ordering::Relaxed).wrapping_add(more).wrapping_sub(less);
    PRESENT.fetch_sub(less, Ordering::Relaxed);
    PEAK.fetch_max(present, Ordering::Relaxed);
}

#[expect(unsafe_code, reason = "an allocator that counts is the only way to see the peak")]
// SAFETY: every call goes to the system's allocator as it came; only numbers are kept beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller keeps the contract of `realloc`, which is the same.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Time that this process has had a core, so that a busy machine does not count; wall time where that is unknown.
struct Watch {
    wall: Instant,
    core: Option<u64>,
}

fn core_ns() -> Option<u64> {
    std::fs::read_to_string("/proc/self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

impl Watch {
    fn start() -> Self {
        Self { wall: Instant::now(), core: core_ns() }
    }

    fn elapsed(&self) -> Duration {
        let wall = self.wall.elapsed();
        // The kernel counts a core's time in ticks of some milliseconds.
        if wall < Duration::from_millis(20) {
            return wall;
        }
        let core = core_ns().zip(self.core).map(|(now, then)| Duration::from_nanos(now.saturating_sub(then)));
        core.unwrap_or(wall)
    }
}

fn random(words: &[u64]) -> u64 {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    hash::rank64("bench", &[&bytes])
}

/// Machines of three sizes in three zones, half with fast disks, 40 to a rack.
fn nodes(count: u64) -> Vec<NodeInput> {
    let node = |number: u64| {
        let cpus = match number % 10 {
            0..6 => 16,
            6..9 => 32,
            _ => 64,
        };
        let mut id = [0; 32];
        id[..8].copy_from_slice(&random(&[1, number]).to_be_bytes());
        let labels = [
            ("zone", format!("z{}", random(&[2, number]) % 3)),
            ("disk", String::from(if random(&[3, number]).is_multiple_of(2) { "ssd" } else { "hdd" })),
            ("rack", format!("r{}", number / 40)),
        ];
        NodeInput {
            id: NodeId(id),
            hostname: format!("n{number}"),
            manager: number < 5,
            os: "linux".into(),
            architecture: "amd64".into(),
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            engine_labels: BTreeMap::new(),
            capacity: Amounts { nano_cpus: cpus * 1_000_000_000, memory_bytes: (cpus * 4) << 30 },
            active: true,
        }
    };
    (0..count).map(node).collect()
}

/// Services of many sizes that reserve `percent` of all cpus: a third spread over zones, some bound to kinds of
/// disk or to a rack, some with one replica per node at most.
fn services(tasks: u64, nodes: &[NodeInput], percent: u64) -> Vec<ServiceInput> {
    let racks = nodes.len().div_ceil(40) as u64;
    let (mut services, mut weights, mut left, mut number) = (Vec::new(), 0, tasks, 0_u64);
    while left > 0 {
        number += 1;
        let draw = |purpose: u64, below: u64| random(&[purpose, number]) % below;
        let narrow = draw(5, 100) < 5;
        let most = [3, 10, 30, 100, 300, 1_000, 3_000][draw(6, 7) as usize].min(nodes.len() as u64 / 3);
        let replicas = (1 + draw(7, most)).min(left).min(if narrow { 20 } else { u64::MAX });
        let weight = [1, 1, 2, 2, 4, 8][draw(8, 6) as usize];
        let constraint = match draw(9, 100) {
            _ if narrow => Some(format!("node.labels.rack==r{}", draw(10, racks))),
            0..8 => Some("node.labels.disk==ssd".to_owned()),
            8..16 => Some("node.labels.disk!=ssd".to_owned()),
            _ => None,
        };
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random(&[11, number]).to_be_bytes());
        services.push(ServiceInput {
            // Scaled below, when the sum is known.
            reserved: Amounts { nano_cpus: weight, memory_bytes: 1 + draw(12, 3) },
            constraints: constraint.iter().map(|text| Constraint::parse(text).unwrap()).collect(),
            spread: if draw(13, 3) == 0 { vec![Spread::parse("node.labels.zone").unwrap()] } else { vec![] },
            replicas_per_node_max: u32::from(draw(14, 20) == 0 && !narrow),
            ..ServiceInput::plain(ServiceId(id), replicas as u32)
        });
        weights += weight * replicas;
        left -= replicas;
    }
    let cpus: u64 = nodes.iter().map(|node| node.capacity.nano_cpus).sum();
    for service in &mut services {
        let nano_cpus = (u128::from(service.reserved.nano_cpus) * u128::from(cpus) * u128::from(percent)
            / 100
            / u128::from(weights)) as u64;
        // Half to one and a half of the 4 GiB that go with a cpu.
        let memory_bytes = nano_cpus * 2 * service.reserved.memory_bytes * 4 / 4;
        service.reserved = Amounts { nano_cpus, memory_bytes: memory_bytes.min(nano_cpus * 4) };
    }
    services
}

type Table = BTreeMap<ServiceId, Vec<Option<NodeId>>>;

fn table(placement: &Placement) -> Table {
    let assignments = placement.assignments();
    let services = placement.inputs().services.iter().map(|service| {
        let slots = (1..=service.replicas).map(|slot| assignments.get(&(service.id, slot)).copied());
        (service.id, slots.collect())
    });
    services.collect()
}

/// Slots that are elsewhere, and those that had to: the ones on the node that is gone.
fn moved(before: &Table, after: &Table, gone: &NodeId) -> (usize, usize) {
    let pairs = || before.values().flatten().zip(after.values().flatten());
    let needed = before.values().flatten().filter(|node| **node == Some(*gone)).count();
    (pairs().filter(|(one, other)| one != other).count(), needed)
}

struct Balance {
    over: usize,
    pending: usize,
    /// Greatest reserved part of a node's cpus against the mean, in hundredths.
    most: u64,
}

fn balance(inputs: &Inputs, table: &Table) -> Balance {
    let mut used: BTreeMap<NodeId, Amounts> = BTreeMap::new();
    let mut pending = 0;
    for service in &inputs.services {
        for node in &table[&service.id] {
            match node {
                Some(node) => {
                    let used = used.entry(*node).or_default();
                    used.nano_cpus += service.reserved.nano_cpus;
                    used.memory_bytes += service.reserved.memory_bytes;
                }
                None => pending += 1,
            }
        }
    }
    let of = |node: &NodeInput| used.get(&node.id).copied().unwrap_or_default();
    let part = |node: &NodeInput| of(node).nano_cpus * 10_000 / node.capacity.nano_cpus;
    let total: u64 = used.values().map(|used| used.nano_cpus / 1_000).sum();
    let capacity: u64 = inputs.nodes.iter().map(|node| node.capacity.nano_cpus / 1_000).sum();
    let mean = (total * 10_000 / capacity).max(1);
    Balance {
        over: inputs.nodes.iter().filter(|node| !of(node).fits(&node.capacity)).count(),
        pending,
        most: inputs.nodes.iter().map(part).max().unwrap_or(0) * 100 / mean,
    }
}

fn may(service: &ServiceInput, node: &NodeInput) -> bool {
    service.constraints.iter().all(|constraint| node.meets(constraint))
}

fn scramble(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Each slot on the eligible node of the greatest hash, whatever it carries already.
fn rendezvous(inputs: &Inputs) -> Table {
    let mut pools: BTreeMap<Vec<Constraint>, Vec<(u64, NodeId)>> = BTreeMap::new();
    let place = |service: &ServiceInput| {
        let pool = pools.entry(service.constraints.clone()).or_insert_with(|| {
            let nodes = inputs.nodes.iter().filter(|node| may(service, node));
            nodes.map(|node| (hash::rank64("bench-node", &[&node.id.0]), node.id)).collect()
        });
        let seed = hash::rank64("bench-service", &[&service.id.0]);
        let slot = |number: u32| {
            let own = scramble(seed.wrapping_add(u64::from(number)));
            pool.iter().max_by_key(|(hash, _)| scramble(hash ^ own)).map(|(_, id)| *id)
        };
        (service.id, (1..=service.replicas).map(slot).collect())
    };
    inputs.services.iter().map(place).collect()
}

/// Each service over the eligible nodes that have room, those with the least part reserved first, as a scheduler that
/// knows only the present would.
fn greedy(inputs: &Inputs) -> Table {
    let mut free: Vec<Amounts> = inputs.nodes.iter().map(|node| node.capacity).collect();
    let mut pools: BTreeMap<Vec<Constraint>, Vec<usize>> = BTreeMap::new();
    let mut table = Table::new();
    for service in &inputs.services {
        let eligible = || (0..inputs.nodes.len()).filter(|node| may(service, &inputs.nodes[*node])).collect();
        let mut order = pools.entry(service.constraints.clone()).or_insert_with(eligible).clone();
        order.sort_by_key(|node| {
            let (free, all) = (free[*node].nano_cpus, inputs.nodes[*node].capacity.nano_cpus);
            (u64::MAX - free * 1_000_000 / (all / 1_000), *node)
        });
        let mut slots = Vec::with_capacity(service.replicas as usize);
        while slots.len() < service.replicas as usize {
            let before = slots.len();
            for node in &order {
                if slots.len() < service.replicas as usize && service.reserved.fits(&free[*node]) {
                    free[*node].nano_cpus -= service.reserved.nano_cpus;
                    free[*node].memory_bytes -= service.reserved.memory_bytes;
                    slots.push(Some(inputs.nodes[*node].id));
                }
            }
            if slots.len() == before {
                slots.resize(service.replicas as usize, None);
            }
        }
        table.insert(service.id, slots);
    }
    table
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn without(inputs: &Inputs, gone: &NodeId) -> Inputs {
    let mut rest = inputs.clone();
    rest.nodes.retain(|node| node.id != *gone);
    rest
}

/// Loses one node after the other, so that rounded numbers change on the way, and prints what moved in all.
fn series(full: &Placement, losses: u64) {
    let (mut present, mut before) = (full.clone(), table(full));
    let (mut sum, mut minimum, mut times) = (0, 0, Vec::new());
    for loss in 0..losses {
        let nodes = &present.inputs().nodes;
        let gone = nodes[(random(&[21, loss]) % nodes.len() as u64) as usize].id;
        let start = Watch::start();
        present.without(&gone);
        times.push(start.elapsed());
        let after = table(&present);
        let (now, needed) = moved(&before, &after, &gone);
        (sum, minimum, before) = (sum + now, minimum + needed, after);
    }
    let longest = times.iter().max().copied().unwrap_or_default();
    let ratio = sum as u64 * 100 / minimum.max(1) as u64;
    println!(
        "   {losses} losses one after another: {:.2} ms (longest {:.1} ms), moved/minimum {}.{:02}, max/mean {:.2}",
        median(&mut times).as_secs_f64() * 1e3,
        longest.as_secs_f64() * 1e3,
        ratio / 100,
        ratio % 100,
        balance(present.inputs(), &before).most as f64 / 100.0,
    );
}

/// One row; returns the movement against the minimum and the greatest load, in hundredths.
fn row(tasks: u64, count: u64, percent: u64, losses: u64, others: bool) -> (u64, u64) {
    let nodes = nodes(count);
    let services = services(tasks, &nodes, percent);
    let mut inputs = Inputs { services, nodes, pinned: BTreeMap::new() };
    inputs.services.sort_by_key(|service| service.id);
    let given = inputs.clone();
    PEAK.store(PRESENT.load(Ordering::Relaxed), Ordering::Relaxed);
    let base = PRESENT.load(Ordering::Relaxed);
    let start = Watch::start();
    let full = Placement::of(given);
    let took = start.elapsed();
    let peak = (PEAK.load(Ordering::Relaxed) - base) >> 20;
    let before = table(&full);
    let found = balance(&inputs, &before);
    assert_eq!(found.over, 0, "a node is over its capacity");
    let (mut times, mut ratios, mut sum, mut minimum) = (Vec::new(), Vec::new(), 0, 0);
    for loss in 0..losses {
        let gone = inputs.nodes[(random(&[20, loss]) % count) as usize].id;
        let mut followed = full.clone();
        let start = Watch::start();
        followed.without(&gone);
        times.push(start.elapsed());
        let after = table(&followed);
        if loss < 3 {
            assert_eq!(after, table(&Placement::of(without(&inputs, &gone))), "followed is not computed anew");
        }
        let (now, needed) = moved(&before, &after, &gone);
        ratios.push(now as u64 * 100 / needed.max(1) as u64);
        (sum, minimum) = (sum + now, minimum + needed);
    }
    ratios.sort_unstable();
    let longest = times.iter().max().copied().unwrap_or_default();
    let ratio = sum as u64 * 100 / minimum.max(1) as u64;
    println!(
        "{tasks:>8} {count:>6} {percent:>3} % {:>9.1} ms {peak:>5} MiB {:>8.2} ms {:>8.1} ms   {}.{:02} (median {}.{:02})  {}.{:02} {:>7}",
        took.as_secs_f64() * 1e3,
        median(&mut times).as_secs_f64() * 1e3,
        longest.as_secs_f64() * 1e3,
        ratio / 100,
        ratio % 100,
        ratios[ratios.len() / 2] / 100,
        ratios[ratios.len() / 2] % 100,
        found.most / 100,
        found.most % 100,
        found.pending,
    );
    series(&full, (losses * 3).min(count / 10));
    if others {
        let gone = inputs.nodes[(random(&[20, 0]) % count) as usize].id;
        type Rule = fn(&Inputs) -> Table;
        for (name, place) in [("rendezvous", rendezvous as Rule), ("greedy spread", greedy as Rule)] {
            let start = Watch::start();
            let before = place(&inputs);
            let took = start.elapsed();
            let found = balance(&inputs, &before);
            let (now, needed) = moved(&before, &place(&without(&inputs, &gone)), &gone);
            let ratio = now as u64 * 100 / needed.max(1) as u64;
            println!(
                "   {name:<14} {:>12.1} ms   movement {}.{:02}   max/mean {}.{:02}   pending {}   over capacity: {} nodes",
                took.as_secs_f64() * 1e3,
                ratio / 100,
                ratio % 100,
                found.most / 100,
                found.most % 100,
                found.pending,
                found.over
            );
        }
    }
    (ratio, found.most)
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    println!(
        "   tasks  nodes  cpu   full plan      peak   loss: median     longest  moved/minimum      max/mean pending"
    );
    let sizes: &[(u64, u64, u64)] =
        if quick { &[(20_000, 200, 20)] } else { &[(20_000, 200, 40), (1_000_000, 5_000, 12)] };
    for (tasks, nodes, losses) in sizes {
        for percent in [50, 70, 85, 95] {
            let (ratio, most) = row(*tasks, *nodes, percent, *losses, percent == 70);
            if quick && percent <= 70 {
                assert!(ratio < 250 && most < 200, "movement {ratio} %, load {most} % of the mean");
            }
        }
    }
}
