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

/// The node whose point follows one of four places most closely; of equals the lower id.
fn owner<'a>(nodes: &[&'a NodeInput], seed: u64) -> Option<&'a NodeInput> {
    let scrambled = [scramble(seed), scramble(seed.wrapping_add(1))];
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
    even + if number > 32 { even.isqrt() } else { 0 }
}

/// One slot as the oracle sees it.
struct Slot<'a> {
    service: &'a ServiceInput,
    number: u32,
    /// Nodes of its part of the field, and of all that may run it.
    part: Vec<&'a NodeInput>,
    pool: Vec<&'a NodeInput>,
    home: &'a NodeInput,
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
            slots.push(Slot { service, number, part, pool: pool.clone(), home });
        }
    }
    slots
}

fn size(service: &ServiceInput) -> u64 {
    service.reserved.nano_cpus / 1_000_000 + service.reserved.memory_bytes.div_ceil(4 << 20)
}

fn class(service: &ServiceInput) -> u32 {
    (0..64).find(|bits| size(service) >> bits == 0).unwrap()
}

fn keep_bits(value: u64, up: bool) -> u64 {
    let mut unit = 1;
    while value / unit >= 32 {
        unit *= 2;
    }
    if up { value.div_ceil(unit) * unit } else { value / unit * unit }
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
            (keep_bits(*count, true) << 20) / keep_bits(weight, false).max(1) * points(node)
        })
        .sum();
    let mean = expected.div_ceil(1 << 20);
    mean + mean.isqrt().max(1)
}

/// Slots with this in common are counted together.
type PartKey = (Vec<Constraint>, Vec<(String, String)>, Vec<NodeId>);

fn part_key(slot: &Slot<'_>) -> PartKey {
    let mut constraints = slot.service.constraints.clone();
    constraints.sort();
    let spread = slot.service.spread.iter().map(|label| label.attribute().to_string()).collect::<Vec<_>>().join(",");
    let platforms = [(spread, String::new())].into_iter().chain(slot.service.platforms.clone()).collect();
    (constraints, platforms, slot.part.iter().map(|node| node.id).collect())
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
    for of in (0..=64).rev() {
        let slots: Vec<&Slot<'_>> = homes.iter().filter(|slot| class(slot.service) == of).collect();
        left.extend(decide(inputs, &slots, &mut placed, &mut free));
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

/// Decides the offers of one class in order of rank, each for good. Returns the slots that nobody kept.
fn decide<'a>(
    inputs: &Inputs,
    slots: &[&'a Slot<'a>],
    placed: &mut BTreeMap<(ServiceId, u32), NodeId>,
    free: &mut BTreeMap<NodeId, Amounts>,
) -> Vec<&'a Slot<'a>> {
    let limits: BTreeMap<NodeId, u64> = inputs.nodes.iter().map(|node| (node.id, limit(node, slots))).collect();
    let mut kept: BTreeMap<NodeId, Vec<ServiceId>> = BTreeMap::new();
    let mut closed: BTreeSet<NodeId> = BTreeSet::new();
    let mut waiting: Vec<&Slot<'_>> = slots.to_vec();
    waiting.sort_by_key(|slot| {
        (scramble(seed(slot.service, slot.number) ^ 0x4a4e_0000) >> 8, slot.service.id, slot.number)
    });
    for position in 0..=ALL {
        waiting.retain(|slot| {
            let key = scramble(seed(slot.service, slot.number).wrapping_add(0x0ff3_0000 + position));
            let node = match position {
                0 => slot.home,
                1..=PARTS => owner(&slot.part, key).unwrap(),
                _ => owner(&slot.pool, key).unwrap(),
            };
            let here = kept.entry(node.id).or_default();
            let mates = here.iter().filter(|of| **of == slot.service.id).count() as u32;
            let most = slot.service.replicas_per_node_max;
            let bound = share(slot.service.replicas, slot.pool.len()).min(if most == 0 { u32::MAX } else { most });
            if closed.contains(&node.id) || position > 0 && mates >= bound {
                return true;
            }
            if here.len() as u64 >= limits[&node.id] || !slot.service.reserved.fits(&free[&node.id]) {
                closed.insert(node.id);
                return true;
            }
            here.push(slot.service.id);
            free.insert(node.id, free[&node.id].minus(slot.service.reserved));
            placed.insert((slot.service.id, slot.number), node.id);
            false
        });
    }
    waiting
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
    let mut rooms = other.rooms.clone();
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
            let offer = tier::Offer::new(service.slot_seed(slot - service.first + 1), slot, position);
            let desk = &mut other.tiers[tier].desks[usize::from(node)];
            desk.offers.push(offer);
            desk.offers.sort_unstable();
            other.slots.node[slot as usize] = node;
            let room = rooms[usize::from(node)];
            let (kept, reading) = other.tiers[tier].read(usize::from(node), &room, &other.services, &other.slots);
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
        for (room, desk) in rooms.iter_mut().zip(&other.tiers[tier].desks) {
            *room = room.minus(desk.used);
        }
    }
    other.place_leftovers();
    other.slots.node
}
