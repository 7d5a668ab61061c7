//! The rules of placement said again, slowly, from `docs/design/0010-placement.md`: no rings, no indices, no tiers kept.

use super::*;

const PARTS: u64 = 12;
const ALL: u64 = 24;

fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn node_hash(node: &NodeInput) -> u64 {
    hash::rank64("placement-node", &[&node.id.0])
}

fn points(node: &NodeInput) -> u64 {
    (node.capacity.nano_cpus / 500_000_000 + node.capacity.memory_bytes / (2 * GIB)).clamp(8, 256)
}

/// The node whose point follows one of eight places most closely; of equals the lower id.
fn owner<'a>(nodes: &[&'a NodeInput], seed: u64) -> Option<&'a NodeInput> {
    let scrambled = [0, 1, 2, 3].map(|probe| scramble(seed.wrapping_add(probe)));
    let places = scrambled.iter().flat_map(|places| [(places >> 32) as u32, *places as u32]);
    let places: Vec<u32> = places.collect();
    let closest = |node: &NodeInput| {
        let keys = (0..points(node)).map(|point| (scramble(node_hash(node).wrapping_add(point)) >> 32) as u32);
        keys.flat_map(|key| places.iter().map(move |place| key.wrapping_sub(*place))).min()
    };
    nodes.iter().copied().min_by_key(|node| (closest(node), node.id))
}

fn seed(service: &ServiceInput, slot: u32) -> u64 {
    scramble(hash::rank64("placement-service", &[&service.id.0]).wrapping_add(u64::from(slot)))
}

fn may<'a>(inputs: &'a Inputs, service: &ServiceInput) -> Vec<&'a NodeInput> {
    let right = |node: &&NodeInput| {
        node.active
            && node.runs(&service.platforms)
            && service.reserved.fits(&node.capacity)
            && service.constraints.iter().all(|constraint| node.meets(constraint))
    };
    let mut nodes: Vec<&NodeInput> = inputs.nodes.iter().filter(right).collect();
    nodes.sort_by_key(|node| node.id);
    nodes
}

fn rounded(nodes: usize) -> u32 {
    let mut nodes = nodes as u32;
    let mut unit = 1;
    if nodes > 32 {
        while nodes / unit >= 8 {
            unit *= 2;
        }
    }
    nodes -= nodes % unit;
    nodes
}

fn share(number: u32, nodes: usize) -> u32 {
    let even = number.div_ceil(rounded(nodes).max(1));
    even + if number > 32 { even.isqrt() + 1 } else { 0 }
}

/// One slot as the oracle sees it.
struct Slot<'a> {
    service: &'a ServiceInput,
    number: u32,
    /// Nodes of its part of the field, and of all that may run it.
    part: Vec<&'a NodeInput>,
    pool: Vec<&'a NodeInput>,
    home: &'a NodeInput,
    /// What it reserves, if that is more than some node has.
    large: Option<Amounts>,
}

/// Where each slot would be if there were room.
fn homes<'a>(inputs: &'a Inputs, service: &'a ServiceInput) -> Vec<Slot<'a>> {
    let pool = may(inputs, service);
    let most = if service.replicas_per_node_max == 0 { u32::MAX } else { service.replicas_per_node_max };
    let mut slots: Vec<Slot<'_>> = Vec::new();
    let mut in_parts: Vec<Vec<String>> = Vec::new();
    for number in (1..=service.replicas).filter(|number| !inputs.pinned.contains_key(&(service.id, *number))) {
        let (mut part, mut path) = (pool.clone(), Vec::new());
        for label in &service.spread {
            let values: BTreeSet<String> = part.iter().map(|node| node.attribute(label.attribute())).collect();
            let candidates = values.into_iter().map(|value| {
                let mut path: Vec<String> = path.clone();
                path.push(value.clone());
                let before = in_parts.iter().filter(|other| other.starts_with(&path)).count() as u64;
                let nodes: Vec<&NodeInput> =
                    part.iter().copied().filter(|node| node.attribute(label.attribute()) == value).collect();
                let order = scramble(seed(service, number) ^ hash::rank64("placement-part", &[value.as_bytes()]));
                (before, order, path, nodes)
            });
            let open = candidates.filter(|(before, _, _, nodes)| *before < nodes.len() as u64 * u64::from(most));
            let Some((_, _, chosen, nodes)) = open.min_by_key(|(before, order, _, _)| (*before, *order)) else {
                return slots;
            };
            (part, path) = (nodes, chosen);
        }
        in_parts.push(path.clone());
        let rank = in_parts.iter().filter(|other| **other == path).count() as u32;
        let share = share(rank, part.len()).min(most);
        let load = |node: &NodeInput| slots.iter().filter(|slot| slot.home.id == node.id).count() < share as usize;
        let walk =
            (0..16).filter_map(|step| owner(&part, scramble(seed(service, number).wrapping_add(0x5e1f_0000 + step))));
        let first = walk.into_iter().find(|node| load(node));
        let last = || {
            let open = part.iter().copied().filter(|node| load(node));
            open.max_by_key(|node| (scramble(seed(service, number) ^ node_hash(node)), node.id))
        };
        if let Some(home) = first.or_else(last) {
            let fits = inputs.nodes.iter().filter(|node| node.active).all(|node| service.reserved.fits(&node.capacity));
            let large = (!fits).then_some(service.reserved);
            slots.push(Slot { service, number, part, pool: pool.clone(), home, large });
        }
    }
    slots
}

fn size(service: &ServiceInput) -> u64 {
    service.reserved.nano_cpus / 1_000_000 + service.reserved.memory_bytes.div_ceil(4 << 20)
}

fn digits(value: u64) -> u32 {
    (0..64).find(|bits| value >> bits == 0).unwrap()
}

/// 0 for what reserves nothing, 1 for what is smaller than a sixteenth of the mean node, rounded down to a power of two.
fn class(inputs: &Inputs, service: &ServiceInput) -> u32 {
    let sizes: Vec<u64> = inputs.nodes.iter().filter(|node| node.active).map(|node| node.capacity.size()).collect();
    let mean = sizes.iter().sum::<u64>() / (sizes.len() as u64).max(1);
    let sixteenth = (0..60).map(|bits| 1 << bits).rfind(|power: &u64| *power <= mean).unwrap_or(0) / 16;
    match size(service) {
        0 => 0,
        size if size < sixteenth => 1,
        size => digits(size).max(2),
    }
}

fn keep_bits(count: u32, value: u64, up: bool) -> u64 {
    let mut unit = 1;
    while value / unit >= 1 << count {
        unit *= 2;
    }
    if up { value.div_ceil(unit) * unit } else { value / unit * unit }
}

/// What slots of one part reserve: cpu, memory, sizes, squares of sizes.
type Sums = [u128; 4];

/// How far a node is filled with small slots. `homes` are all slots that have a home.
fn level(inputs: &Inputs, node: &NodeInput, homes: &[Slot<'_>]) -> Amounts {
    let mut parts: BTreeMap<PartKey, (Sums, u64)> = BTreeMap::new();
    let (mut all, mut largest) = ([0; 4], 0);
    for slot in homes {
        let (reserved, size) = (slot.service.reserved, u128::from(size(slot.service)));
        let sums = [u128::from(reserved.nano_cpus), u128::from(reserved.memory_bytes), size, size * size];
        let weight = slot.part.iter().map(|node| points(node)).sum();
        let here = &mut parts.entry(part_key(slot)).or_insert(([0; 4], weight)).0;
        (0..4).for_each(|index| here[index] += sums[index]);
        (0..4).for_each(|index| all[index] += sums[index]);
        if class(inputs, slot.service) == 1 && slot.part.iter().any(|other| other.id == node.id) {
            largest = largest.max(size);
        }
    }
    let mut own = [0; 4];
    for ((_, _, _, members), (sums, weight)) in &parts {
        if members.contains(&node.id) {
            let weight = u128::from(keep_bits(7, *weight, false).max(1));
            (0..4).for_each(|index| own[index] += sums[index] / weight * u128::from(points(node)));
        }
    }
    let one = 1_u128 << 20;
    let of = |sums: &Sums, cpus: u64, memory: u64| {
        (sums[0] * one / u128::from(cpus.max(1))).max(sums[1] * one / u128::from(memory.max(1)))
    };
    let active = || inputs.nodes.iter().filter(|node| node.active).map(|node| node.capacity);
    let (cpus, memory) =
        (active().map(|capacity| capacity.nano_cpus).sum(), active().map(|capacity| capacity.memory_bytes).sum());
    let mean = of(&all, cpus, memory) as u64;
    let (below, above) = (keep_bits(8, mean, false), keep_bits(8, mean, true));
    let mean = u128::from(if mean - below < above - mean { below } else { above });
    let own_part = of(&own, node.capacity.nano_cpus, node.capacity.memory_bytes);
    let falls = if own_part > mean + mean / 16 { own_part } else { mean };
    let strays = own_part * (own[3].isqrt() + largest) / own[2].max(1);
    let level = (falls + strays.max(falls / 64 * 9)).min(one);
    let of = |amount: u64| (u128::from(amount) * level / one) as u64;
    Amounts { nano_cpus: of(node.capacity.nano_cpus), memory_bytes: of(node.capacity.memory_bytes) }
}

/// How many slots of these a node may keep.
fn limit(node: &NodeInput, slots: &[&Slot<'_>]) -> u64 {
    let mut parts: BTreeMap<PartKey, u64> = BTreeMap::new();
    for slot in slots.iter().filter(|slot| slot.part.iter().any(|other| other.id == node.id)) {
        *parts.entry(part_key(slot)).or_default() += 1;
    }
    let expected: u64 = parts
        .iter()
        .map(|(key, count)| {
            let weight: u64 =
                slots.iter().find(|slot| part_key(slot) == *key).unwrap().part.iter().map(|node| points(node)).sum();
            (keep_bits(5, *count, true) << 20) / keep_bits(7, weight, false).max(1) * points(node)
        })
        .sum();
    let mean = expected.div_ceil(1 << 20);
    mean + (mean.isqrt() + 1).max(mean / 8)
}

/// Slots with this in common are counted together.
type PartKey = (Vec<Constraint>, Vec<(String, String)>, Option<Amounts>, Vec<NodeId>);

fn part_key(slot: &Slot<'_>) -> PartKey {
    let mut constraints = slot.service.constraints.clone();
    constraints.sort();
    let spread = slot.service.spread.iter().map(|label| label.attribute().to_string()).collect::<Vec<_>>().join(",");
    let platforms = [(spread, String::new())].into_iter().chain(slot.service.platforms.clone()).collect();
    (constraints, platforms, slot.large, slot.part.iter().map(|node| node.id).collect())
}

/// Places everything: slots of one size class after the other, the largest first, then what is left.
pub(super) fn place(inputs: &Inputs) -> BTreeMap<(ServiceId, u32), NodeId> {
    let mut placed: BTreeMap<(ServiceId, u32), NodeId> = BTreeMap::new();
    let mut free: BTreeMap<NodeId, Amounts> = inputs.nodes.iter().map(|node| (node.id, node.capacity)).collect();
    let mut services: Vec<&ServiceInput> = inputs.services.iter().collect();
    services.sort_by_key(|service| service.id);
    for ((id, number), node) in &inputs.pinned {
        let service = services.iter().find(|service| service.id == *id).filter(|service| *number <= service.replicas);
        if let Some(service) = service {
            placed.insert((*id, *number), *node);
            free.insert(*node, free[node].minus(service.reserved));
        }
    }
    let numbers = assignments::node_numbers(inputs.nodes.iter().map(|node| node.id));
    for service in services.iter().filter(|service| service.global) {
        for node in
            may(inputs, service).into_iter().filter(|node| service.reserved.fits(&free[&node.id])).collect::<Vec<_>>()
        {
            placed.insert((service.id, numbers[&node.id]), node.id);
            free.insert(node.id, free[&node.id].minus(service.reserved));
        }
    }
    let homes: Vec<Slot<'_>> =
        services.iter().filter(|service| !service.global).flat_map(|service| homes(inputs, service)).collect();
    let mut left: Vec<&Slot<'_>> = Vec::new();
    let mut levels: BTreeMap<NodeId, Amounts> =
        inputs.nodes.iter().map(|node| (node.id, level(inputs, node, &homes))).collect();
    for of in (0..=64).rev() {
        let slots: Vec<&Slot<'_>> = homes.iter().filter(|slot| class(inputs, slot.service) == of).collect();
        let limits: Limits = inputs
            .nodes
            .iter()
            .map(|node| {
                let free = if of == 1 { free[&node.id].least(levels[&node.id]) } else { free[&node.id] };
                (node.id, (if of == 1 { u64::MAX } else { limit(node, &slots) }, free))
            })
            .collect();
        let (kept, waiting) = decide(&slots, &limits);
        left.extend(waiting);
        for (slot, node) in kept {
            placed.insert((slot.service.id, slot.number), node);
            for left in [&mut free, &mut levels] {
                left.insert(node, left[&node].minus(slot.service.reserved));
            }
        }
    }
    left.sort_by_key(|slot| (core::cmp::Reverse(size(slot.service)), slot.service.id, slot.number));
    for slot in left {
        let mates = |node: &NodeInput, placed: &BTreeMap<(ServiceId, u32), NodeId>| {
            placed.iter().filter(|((of, _), at)| *of == slot.service.id && **at == node.id).count()
        };
        let most = slot.service.replicas_per_node_max as usize;
        let open = slot
            .pool
            .iter()
            .filter(|node| slot.service.reserved.fits(&free[&node.id]) && (most == 0 || mates(node, &placed) < most));
        let order = |node: &NodeInput| core::cmp::Reverse(scramble(seed(slot.service, slot.number) ^ node_hash(node)));
        if let Some(node) = open.min_by_key(|node| (mates(node, &placed), order(node), node.id)) {
            placed.insert((slot.service.id, slot.number), node.id);
            free.insert(node.id, free[&node.id].minus(slot.service.reserved));
        }
    }
    placed
}

/// How many slots each node may keep, and what they may reserve.
type Limits = BTreeMap<NodeId, (u64, Amounts)>;

/// Decides the offers of one class in order of rank, each for good. Returns who is kept where, and the slots that nobody
/// kept.
fn decide<'a>(slots: &[&'a Slot<'a>], limits: &Limits) -> (Vec<(&'a Slot<'a>, NodeId)>, Vec<&'a Slot<'a>>) {
    let mut decided: Vec<(&Slot<'_>, NodeId)> = Vec::new();
    let mut kept: BTreeMap<NodeId, (Vec<ServiceId>, Amounts)> = BTreeMap::new();
    let mut closed: BTreeSet<NodeId> = BTreeSet::new();
    let mut waiting: Vec<&Slot<'_>> = slots.to_vec();
    waiting.sort_by_key(|slot| {
        let hash = scramble(seed(slot.service, slot.number) ^ 0x4a4e_0000) >> 16;
        (digits(size(slot.service)), hash, slot.service.id, slot.number)
    });
    for position in 0..=ALL {
        waiting.retain(|slot| {
            let key = scramble(seed(slot.service, slot.number).wrapping_add(0x0ff3_0000 + position));
            let node = match position {
                0 => slot.home,
                1..=PARTS => owner(&slot.part, key).unwrap(),
                _ => owner(&slot.pool, key).unwrap(),
            };
            let (here, used) = kept.entry(node.id).or_default();
            let (most_kept, room) = limits[&node.id];
            let mates = here.iter().filter(|of| **of == slot.service.id).count() as u32;
            let most = slot.service.replicas_per_node_max;
            let bound = share(slot.service.replicas, slot.pool.len()).min(if most == 0 { u32::MAX } else { most });
            if closed.contains(&node.id) || position > 0 && mates >= bound {
                return true;
            }
            if here.len() as u64 >= most_kept || !used.plus(slot.service.reserved).fits(&room) {
                closed.insert(node.id);
                return true;
            }
            here.push(slot.service.id);
            *used = used.plus(slot.service.reserved);
            decided.push((slot, node.id));
            false
        });
    }
    (decided, waiting)
}

/// Lets slots offer themselves in an order drawn from `seed`, one at a time, each node keeping the best of what it
/// was offered so far, until nobody has anything to say; then places leftovers. Returns where the slots are.
pub(super) fn offered_in_any_order(placement: &Placement, seed: u64) -> Vec<u16> {
    let mut other = placement.clone();
    let mut random = seed;
    let mut draw = |count: usize| {
        random = scramble(random);
        (random % count as u64) as usize
    };
    for tier in 0..other.tiers.len() {
        other.tiers[tier].desks.iter_mut().for_each(|desk| desk.offers.clear());
        let mut waiting: Vec<(u32, u8)> = (0..other.slots.node.len() as u32)
            .filter(|slot| other.services[usize::from(other.slots.service[*slot as usize])].tier == tier)
            .filter(|slot| other.slots.home[*slot as usize] != NOWHERE)
            .map(|slot| (slot, 0))
            .collect();
        while !waiting.is_empty() {
            let (slot, position) = waiting.swap_remove(draw(waiting.len()));
            other.slots.position[slot as usize] = position;
            other.slots.node[slot as usize] = NOWHERE;
            if position == tier::POSITIONS {
                continue;
            }
            let service = &other.services[usize::from(other.slots.service[slot as usize])];
            let node = tier::walk(&other.field, service, &other.slots, slot, position);
            let offer = tier::Offer::of(&other.slots, service, slot, position);
            let desk = &mut other.tiers[tier].desks[usize::from(node)];
            desk.offers.push(offer);
            desk.offers.sort_unstable();
            other.slots.node[slot as usize] = node;
            let room = other.room(tier, usize::from(node));
            let (kept, reading) = other.tiers[tier].read(usize::from(node), &room, &other.services);
            other.tiers[tier].desks[usize::from(node)].used = reading.used;
            let offers = other.tiers[tier].desks[usize::from(node)].offers.clone();
            for (offer, _) in offers.iter().zip(kept).filter(|(_, kept)| !kept) {
                if other.slots.position[offer.slot as usize] == offer.position()
                    && !waiting.iter().any(|(slot, _)| *slot == offer.slot)
                {
                    waiting.push((offer.slot, offer.position() + 1));
                }
            }
        }
    }
    other.place_leftovers();
    other.slots.node
}
