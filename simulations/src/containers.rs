//! Containers: a runtime that starts and ends tasks after drawn delays, as one node's executor sees it.

use std::collections::BTreeMap;

use shoal_cluster::{TaskId, TaskOrder};

/// How far a simulated container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Made, not running yet.
    Starting,
    /// Its process runs.
    Running,
    /// Asked to end; its process still runs.
    Stopping,
}

/// One simulated container.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) order: TaskOrder,
    pub(crate) phase: Phase,
    /// Whether it ends only when it is killed.
    pub(crate) hangs: bool,
    /// When it was ordered.
    pub(crate) ordered_us: u64,
    /// When it came to run.
    pub(crate) since_us: Option<u64>,
}

impl Container {
    /// Returns for how long it has run.
    pub(crate) fn ran_us(&self, at_us: u64) -> u64 {
        self.since_us.map_or(0, |since_us| at_us.saturating_sub(since_us))
    }
}

/// The containers of one host; they may outlive its daemon.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    live: BTreeMap<TaskId, Container>,
    /// Those that did their work while there was no daemon to tell.
    untold: Vec<TaskOrder>,
}

impl Containers {
    /// Makes a container unless there is one; tells whether it is new.
    pub(crate) fn start(&mut self, at_us: u64, order: TaskOrder) -> bool {
        if self.live.contains_key(&order.id) {
            return false;
        }
        self.live.insert(
            order.id,
            Container { order, phase: Phase::Starting, hangs: false, ordered_us: at_us, since_us: None },
        );
        true
    }

    /// Moves a starting container to running; tells whether it was starting.
    pub(crate) fn run(&mut self, at_us: u64, id: &TaskId) -> bool {
        let Some(container) = self.live.get_mut(id).filter(|container| container.phase == Phase::Starting) else {
            return false;
        };
        (container.phase, container.since_us) = (Phase::Running, Some(at_us));
        true
    }

    /// Asks a container to end and returns it as it was, if it was there and not asked before.
    pub(crate) fn stop(&mut self, id: &TaskId) -> Option<Container> {
        let container = self.live.get_mut(id).filter(|container| container.phase != Phase::Stopping)?;
        let before = container.clone();
        container.phase = Phase::Stopping;
        Some(before)
    }

    /// Lets a container hang when it is asked to end.
    pub(crate) fn hang(&mut self, id: &TaskId) {
        if let Some(container) = self.live.get_mut(id) {
            container.hangs = true;
        }
    }

    /// Returns one container.
    pub(crate) fn find(&self, id: &TaskId) -> Option<&Container> {
        self.live.get(id)
    }

    /// Ends a container and returns it, if it was there.
    pub(crate) fn end(&mut self, id: &TaskId) -> Option<Container> {
        self.live.remove(id)
    }

    /// Ends them all and returns them: the host lost its power.
    pub(crate) fn clear(&mut self) -> Vec<Container> {
        self.untold.clear();
        std::mem::take(&mut self.live).into_values().collect()
    }

    /// Ends those that never ran: their maker is gone. Returns what a restarted daemon finds running.
    pub(crate) fn recover(&mut self) -> Vec<TaskOrder> {
        self.live.retain(|_, container| container.phase != Phase::Starting);
        for container in self.live.values_mut() {
            container.phase = Phase::Running;
        }
        self.live.values().map(|container| container.order.clone()).collect()
    }

    /// Keeps a container that did its work for the next daemon to find.
    pub(crate) fn leave(&mut self, order: TaskOrder) {
        self.untold.push(order);
    }

    /// Returns those that did their work while there was no daemon.
    pub(crate) fn take_untold(&mut self) -> Vec<TaskOrder> {
        std::mem::take(&mut self.untold)
    }

    /// Returns those whose process runs.
    pub(crate) fn running(&self) -> impl Iterator<Item = &TaskOrder> {
        self.live.values().filter(|container| container.phase != Phase::Starting).map(|container| &container.order)
    }

    /// Returns all of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Container> {
        self.live.values()
    }
}
