//! The schedule: which steps a seed draws for its safety phase.

use shoal_cluster::seed::Stream;

use crate::options::{Fault, Options};
use crate::step::{Step, Timed};
use crate::workload::objects::OBJECTS;

/// Chances to give a command, per second.
const COMMANDS: u64 = 4;
/// Longest time that a node is down or away; the heal ends it in any case.
const DOWN_MS_MAX: u64 = 20_000;
/// How many times as long in some worlds.
const LONGER: u64 = 4;
/// How far apart wall clocks are set at most, so that no two differ by more than the core allows.
const STEP_MS_MAX: u64 = 20_000;
/// How far back wall clocks jump: 400 days.
const JUMP_MS_MAX: u64 = 400 * 86_400_000;
/// How wrong clocks run, in millionths: far worse than any that works.
const DRIFT_PPM_MAX: u64 = 20_000;

/// Returns the steps of these options, in order of time.
pub fn draw(options: &Options) -> Vec<Timed> {
    let lasting = options.stream("joins").below(3) == 0;
    let longer = if options.stream("lengths").below(4) == 0 { LONGER } else { 1 };
    let (random, steps) = (options.stream("faults"), Vec::new());
    let mut draft = Draft { options, random, steps, at_ms: 0, lasting, longer, split: false };
    draft.beginning();
    for second in 0..options.safety_s {
        draft.at_ms = second * 1_000;
        draft.network();
        draft.machines();
        draft.disks();
        draft.clocks();
        draft.containers();
        draft.others();
    }
    let mut steps = draft.steps;
    commands(options, &mut steps);
    wants(options, &mut steps);
    objects(options, &mut steps);
    steps.sort_by_key(|timed| timed.at_ms);
    steps
}

fn commands(options: &Options, steps: &mut Vec<Timed>) {
    let mut random = options.stream("operators");
    for quarter in 1..=options.safety_s * COMMANDS {
        if random.below(100) < options.commands_percent {
            let service = random.below(options.services.max(1));
            let step = Step::Write { service, node: random.below(1 << 32) as usize, roll: random.next() >> 1 };
            steps.push(Timed { at_ms: quarter * 1_000 / COMMANDS, step });
        }
        if random.below(1_000) < 3 {
            let (node, back_ms) = (random.below(options.nodes as u64) as usize, 2_000 + random.below(DOWN_MS_MAX));
            steps.push(Timed { at_ms: quarter * 1_000 / COMMANDS, step: Step::Leave { node, back_ms } });
        }
    }
}

/// What operators want of nodes: rarer than what they want of services.
fn wants(options: &Options, steps: &mut Vec<Timed>) {
    let mut random = options.stream("operators of nodes");
    for second in 1..options.safety_s {
        let (node, at) = (random.below(options.nodes as u64) as usize, random.below(options.nodes as u64) as usize);
        let roll = random.next() >> 1;
        if random.below(400) < options.commands_percent {
            steps.push(Timed { at_ms: second * 1_000 + 100, step: Step::Want { node, at, roll } });
        }
    }
}

/// What services use is made early and often, and removed likewise.
fn objects(options: &Options, steps: &mut Vec<Timed>) {
    let mut random = options.stream("operators of objects");
    for half in 1..2 * options.safety_s {
        let (object, node) = (random.below(OBJECTS), random.below(options.nodes as u64) as usize);
        let roll = random.next() >> 1;
        if random.below(200) < options.commands_percent {
            steps.push(Timed { at_ms: half * 500 + 50, step: Step::Object { object, node, roll } });
        }
    }
}

struct Draft<'a> {
    options: &'a Options,
    random: Stream,
    steps: Vec<Timed>,
    at_ms: u64,
    /// Whether what is split stays so for long, as in a third of the worlds: each side comes to hold the other down.
    lasting: bool,
    /// By how much longer nodes are down and daemons stand still, in a quarter of the worlds: fenced slots start elsewhere.
    longer: u64,
    /// Whether the network is split.
    split: bool,
}

impl Draft<'_> {
    /// What is so from the start, and what happens once.
    fn beginning(&mut self) {
        for node in 0..self.options.nodes {
            if self.options.has(Fault::Drift) {
                let ppm = self.signed(DRIFT_PPM_MAX);
                self.push(Step::Drift { node, ppm });
            }
            if self.options.has(Fault::Step) {
                let off_ms = self.signed(STEP_MS_MAX / 2);
                self.push(Step::SetClock { node, off_ms });
            }
        }
        let nodes = self.options.nodes;
        if self.options.has(Fault::JoinStorm) && nodes > 1 {
            self.at_ms = 1_000 * self.random.below(self.options.safety_s.max(1));
            self.push(Step::Storm { first: nodes - nodes.div_ceil(3).min(nodes - 1) });
        }
        if self.options.has(Fault::MassLeave) && nodes > 2 {
            self.at_ms = 1_000 * self.random.below(self.options.safety_s.max(1));
            let back_ms = 1_000 + self.random.below(DOWN_MS_MAX);
            let first = self.node();
            self.push(Step::LeaveAll { first, count: nodes.div_ceil(5), back_ms });
        }
    }

    fn network(&mut self) {
        if self.strikes(Fault::Partition, 8) {
            let nodes: Vec<usize> = (0..self.options.nodes).collect();
            let count = 1 + self.random.below(nodes.len().max(2) as u64 - 1) as usize;
            let side = self.random.choose(&nodes, count);
            // Another split would let some of both sides hear each other.
            if !(self.lasting && std::mem::replace(&mut self.split, true)) {
                self.push(Step::Split { side });
            }
        }
        if self.strikes(Fault::OneWay, 8) {
            let (from, to) = (self.node(), self.node());
            self.push(Step::Cut { from, to });
        }
        if self.strikes(Fault::Partial, 8) {
            let (a, b) = (self.node(), self.node());
            self.push(Step::Sever { a, b });
        }
        let broken = [Fault::Partition, Fault::OneWay, Fault::Partial].iter().any(|fault| self.options.has(*fault));
        let join_percent = if self.lasting { 2 } else { 12 };
        if broken && self.random.below(100) < join_percent {
            self.split = false;
            self.push(Step::Join);
        }
    }

    fn machines(&mut self) {
        let (node, down_ms) = (self.node(), 200 + self.longer * self.random.below(DOWN_MS_MAX));
        if self.strikes(Fault::Crash, 15) {
            let after = self.random.below(12);
            self.push(Step::Crash { node, after, down_ms, power: false });
        }
        if self.strikes(Fault::PowerLoss, 8) {
            let after = self.random.below(12);
            self.push(Step::Crash { node, after, down_ms, power: true });
        }
        if self.strikes(Fault::Flapping, 3) {
            let (times, every_ms) = (2 + self.random.below(5), 500 + self.random.below(6_000));
            self.push(Step::Flap { node, times, every_ms });
        }
        if self.strikes(Fault::Pause, 6) {
            let ms = 100 + self.longer * self.random.below(15_000);
            self.push(Step::Pause { node, ms });
        }
        if self.strikes(Fault::Slow, 5) {
            let (delay_ms, ms) = (100 + self.random.below(5_000), 1_000 + self.random.below(30_000));
            self.push(Step::Slow { node, delay_ms, ms });
        }
    }

    fn disks(&mut self) {
        let node = self.node();
        if self.strikes(Fault::LostDisk, 2) {
            let (down_ms, roll) = (200 + self.random.below(DOWN_MS_MAX), self.roll());
            // What was written a moment ago is nowhere else yet.
            if roll % 2 == 0 {
                self.push(Step::Write { service: node as u64, node, roll });
            }
            self.push(Step::LoseDisk { node, down_ms });
        }
        if self.strikes(Fault::FullDisk, 3) {
            let ms = 500 + self.random.below(10_000);
            self.push(Step::FillDisk { node, ms });
        }
        if self.strikes(Fault::FailedSync, 6) {
            self.push(Step::FailSync { node });
        }
    }

    fn clocks(&mut self) {
        let node = self.node();
        if self.strikes(Fault::Step, 3) {
            let off_ms = self.signed(STEP_MS_MAX / 2);
            self.push(Step::SetClock { node, off_ms });
        }
        if self.strikes(Fault::Jump, 2) {
            let off_ms = -(self.random.below(JUMP_MS_MAX) as i64);
            self.push(Step::SetClock { node, off_ms });
        }
    }

    fn containers(&mut self) {
        if self.strikes(Fault::Exit, 20) {
            let (pick, code) = (self.roll(), self.random.below(3) as i32);
            self.push(Step::Exit { pick, code });
        }
        if self.strikes(Fault::Hang, 10) {
            let pick = self.roll();
            self.push(Step::Hang { pick });
        }
        if self.strikes(Fault::Refuse, 4) {
            let (node, ms) = (self.node(), 500 + self.random.below(10_000));
            self.push(Step::Refuse { node, ms });
        }
    }

    fn others(&mut self) {
        if self.strikes(Fault::MixedVersions, 4) {
            let node = self.node();
            self.push(Step::Downgrade { node });
        }
        if self.strikes(Fault::Hostile, 30) {
            let (from, to, roll) = (self.node(), self.node(), self.roll());
            self.push(Step::Garbage { from, to, roll });
        }
        if self.strikes(Fault::Hostile, 60) {
            let pick = self.roll();
            self.push(Step::Replay { pick });
        }
        if self.strikes(Fault::Buggify, 80) {
            let (node, roll) = (self.node(), self.roll());
            self.push(Step::Poke { node, roll });
        }
    }

    fn push(&mut self, step: Step) {
        self.steps.push(Timed { at_ms: self.at_ms, step });
    }

    /// Draws in any case, so that a fault that is off does not shift the others.
    fn strikes(&mut self, fault: Fault, percent: u64) -> bool {
        self.random.below(100) < percent && self.options.has(fault)
    }

    fn node(&mut self) -> usize {
        self.random.below(self.options.nodes as u64) as usize
    }

    /// Draws a number that every file format can hold.
    fn roll(&mut self) -> u64 {
        self.random.next() >> 1
    }

    fn signed(&mut self, most: u64) -> i64 {
        self.random.below(2 * most + 1) as i64 - most as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_fault_is_drawn_that_is_off_and_each_that_is_on_is() {
        let mut options = Options::draw(1, 10);
        options.safety_s = 600;
        options.faults.clear();
        let quiet = draw(&options);
        let calm = |step: &Step| {
            matches!(step, Step::Write { .. } | Step::Object { .. } | Step::Want { .. } | Step::Leave { .. })
        };
        assert!(quiet.iter().all(|timed| calm(&timed.step)), "{quiet:?}");
        let silent = [Fault::Loss, Fault::Delay, Fault::Reorder, Fault::Duplicate, Fault::Truncate];
        let passive = [Fault::TornWrite, Fault::SlowPull];
        for fault in Fault::all().iter().filter(|fault| !silent.contains(fault) && !passive.contains(fault)) {
            options.faults = [*fault].into();
            assert!(draw(&options).len() > quiet.len(), "{fault:?} draws nothing");
        }
    }
}
