//! Shrinking: the smallest script that is found to fail as a given one does, by leaving out faults, nodes and steps.
//!
//! Input: a script that fails. Output: one that fails with the same kind of outcome, found by the same checker. What
//! is left out is tried in halves, then quarters, and so on (Zeller's delta debugging), as long as there is time.

use std::time::{Duration, Instant};

use crate::options::{Fault, Options};
use crate::report::Outcome;
use crate::script::Script;
use crate::step::Timed;
use crate::workers::run_one;

/// A smaller script, and what was done to find it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The script.
    pub script: Script,
    /// How often a smaller one was tried.
    pub tried: usize,
}

/// Fewest nodes that are tried.
const NODES_MIN: usize = 2;

/// Returns a smaller script that fails alike; none if this one comes right. Begins nothing more after `budget`.
pub fn shrink(script: &Script, budget: Duration) -> Option<Shrunk> {
    let outcome = run_one(script).outcome;
    if outcome == Outcome::Right {
        return None;
    }
    let mut search = Search { kind: outcome.kind(), until: Instant::now() + budget, tried: 0 };
    let mut best = script.clone();
    loop {
        let before = size(&best);
        search.faults(&mut best);
        search.nodes(&mut best);
        search.steps(&mut best);
        search.time(&mut best);
        if size(&best) == before || search.is_over() {
            return Some(Shrunk { script: best, tried: search.tried });
        }
    }
}

fn size(script: &Script) -> (usize, usize, usize, u64) {
    (script.options.nodes, script.options.faults.len(), script.steps.len(), script.options.safety_s)
}

struct Search {
    kind: String,
    until: Instant,
    tried: usize,
}

impl Search {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Takes the smaller script over if it fails alike.
    fn take(&mut self, best: &mut Script, smaller: Script) -> bool {
        if self.is_over() {
            return false;
        }
        self.tried += 1;
        let alike = run_one(&smaller).outcome.kind() == self.kind;
        if alike {
            *best = smaller;
        }
        alike
    }

    fn faults(&mut self, best: &mut Script) {
        let on: Vec<Fault> = best.options.faults.iter().copied().collect();
        for fault in on {
            let mut smaller = best.clone();
            smaller.options.faults.remove(&fault);
            self.take(best, smaller);
        }
        // Each switches a later phase of the run off, and tells whether it was on.
        let phases: [fn(&mut Options) -> bool; 5] = [
            |options| std::mem::take(&mut options.survivor),
            |options| std::mem::take(&mut options.loss),
            |options| std::mem::take(&mut options.drain),
            |options| std::mem::take(&mut options.join),
            |options| options.horizon_s.take().is_some(),
        ];
        for switch_off in phases {
            let mut smaller = best.clone();
            if switch_off(&mut smaller.options) {
                self.take(best, smaller);
            }
        }
    }

    fn nodes(&mut self, best: &mut Script) {
        for nodes in
            [best.options.nodes / 4, best.options.nodes / 2, best.options.nodes * 3 / 4, best.options.nodes - 1]
        {
            if (NODES_MIN..best.options.nodes).contains(&nodes) {
                let mut smaller = best.clone();
                smaller.options.nodes = nodes;
                self.take(best, smaller);
            }
        }
    }

    fn steps(&mut self, best: &mut Script) {
        let mut chunk = best.steps.len().div_ceil(2);
        while chunk > 0 && !self.is_over() {
            let mut from = 0;
            while from < best.steps.len() {
                let mut smaller = best.clone();
                let until = (from + chunk).min(smaller.steps.len());
                smaller.steps.drain(from..until);
                if !self.take(best, smaller) {
                    from += chunk;
                }
            }
            chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
        }
    }

    /// Ends the safety phase soon after the last step.
    fn time(&mut self, best: &mut Script) {
        let last_ms = best.steps.iter().map(|Timed { at_ms, .. }| *at_ms).max().unwrap_or(0);
        let safety_s = last_ms / 1_000 + 1;
        if safety_s < best.options.safety_s {
            let mut smaller = best.clone();
            smaller.options.safety_s = safety_s;
            self.take(best, smaller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Sabotage;

    #[test]
    fn a_failing_run_becomes_smaller_and_still_fails_alike() {
        let mut options = Options::draw(5, 5);
        options.sabotage = Some(Sabotage::KeepTasks);
        (options.survivor, options.liveness_s, options.safety_s) = (false, 10, 50);
        options.faults = [Fault::Crash, Fault::Loss].into();
        let script = Script::drawn(options);
        let shrunk = shrink(&script, Duration::from_secs(30)).expect("a node that keeps its tasks fails");
        // How small it gets depends on the machine, that it gets smaller does not.
        assert!(shrunk.script.steps.len() < script.steps.len() && shrunk.tried > 0, "{} tried", shrunk.tried);
        assert!(shrunk.script.options.faults.is_empty(), "{:?}", shrunk.script.options.faults);
        assert_eq!(run_one(&shrunk.script).outcome.kind(), run_one(&script).outcome.kind());
    }

    #[test]
    fn a_run_that_comes_right_has_nothing_to_shrink() {
        let mut options = Options::draw(1, 2);
        (options.safety_s, options.survivor) = (3, false);
        options.faults.clear();
        assert!(shrink(&Script::drawn(options), Duration::ZERO).is_none());
    }
}
