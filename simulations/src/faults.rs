//! Faults: what goes wrong, drawn step by step during the safety phase.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_cluster::seed::Stream;

use crate::world::World;

/// Draws faults for one world.
#[derive(Debug)]
pub(crate) struct Saboteur {
    random: Stream,
}

impl Saboteur {
    pub(crate) fn new(random: Stream) -> Self {
        Self { random }
    }

    /// Does at most one thing of each kind; called once per simulated second.
    pub(crate) fn step(&mut self, world: &mut World) {
        let faults = world.options.faults.clone();
        if faults.partitions && self.chance(8) {
            self.partition(world);
        }
        if faults.one_way && self.chance(8) {
            let (from, to) = (self.node(world), self.node(world));
            world.network.cut(from, to);
            world.count("directions cut");
        }
        if self.chance(12) {
            world.network.join();
        }
        if faults.crashes && self.chance(15) {
            let node = self.node(world);
            let after_actions = self.random.below(12);
            let pause = Duration::from_millis(200 + self.random.below(20_000));
            world.crash(node, after_actions, Some(pause));
        }
        if faults.exits && self.chance(20) {
            self.exit(world);
        }
    }

    fn partition(&mut self, world: &mut World) {
        let nodes: Vec<usize> = (0..world.nodes.len()).collect();
        let count = 1 + self.random.below(nodes.len() as u64 - 1) as usize;
        let side: BTreeSet<usize> = self.random.choose(&nodes, count).into_iter().collect();
        world.network.split(side);
        world.count("partitions");
    }

    fn exit(&mut self, world: &mut World) {
        let running: Vec<_> = world
            .nodes
            .iter()
            .enumerate()
            .flat_map(|(node, machine)| machine.containers.running().map(move |order| (node, order.id)))
            .collect();
        if let Some((node, id)) = self.random.choose(&running, 1).first().copied() {
            let exit_code = self.random.below(3) as i32;
            world.exit_container(node, id, exit_code);
            world.count("containers that exited by themselves");
        }
    }

    fn node(&mut self, world: &World) -> usize {
        self.random.below(world.nodes.len() as u64) as usize
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }
}
