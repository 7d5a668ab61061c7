//! The driver: one loop that owns the core, hands it what happened and carries out what it says.
//!
//! Input: transport events, task events, image lists, operators' commands, time. Output: durable records, messages,
//! task commands, and [`Views`] as a watched level. Everything else about the node hangs on those levels.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shoal_cluster::{Action, Cluster, CommandError, Input, Instant, Now, Receipt, TaskCommand, TaskEvent, Views};
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{Applied, ApplyError, Request};
use crate::lease::Lease;
use crate::store::{Store, StoreError};
use crate::transport::{Transport, TransportEvent};

/// Inputs that share one turn, and so one fsync.
const INPUTS_PER_TURN: usize = 64;

/// How long the answer to a command waits for another node to say that it is on its disk. A round trip and an fsync
/// take milliseconds; a member that has just died is thought to be up for some seconds more.
const CONFIRM_MAX: Duration = Duration::from_secs(2);

/// Where the answer to a command goes, and the answer itself.
type Answer = (oneshot::Sender<Result<Applied, ApplyError>>, Result<Receipt, CommandError>);

/// A command that is durable here and whose answer waits for another node.
struct Waiting {
    sender: oneshot::Sender<Result<Applied, ApplyError>>,
    receipt: Receipt,
    /// See [`Cluster::copies`].
    write: u64,
    until: tokio::time::Instant,
}

/// Reads both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    /// Starts the monotonic clock.
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    /// Reads both.
    pub fn now(&self) -> Now {
        let micros = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        Now { mono: Instant::from_micros(micros), wall_ms }
    }

    fn deadline(&self, at: Instant) -> tokio::time::Instant {
        self.start + Duration::from_micros(at.as_micros()).min(Duration::from_secs(3_600) + self.start.elapsed())
    }
}

/// What the driver hears from.
pub struct Inputs {
    /// The transport.
    pub transport: mpsc::Receiver<TransportEvent>,
    /// The executor.
    pub tasks: mpsc::UnboundedReceiver<TaskEvent>,
    /// The images that this node has, complete.
    pub images: watch::Receiver<BTreeSet<String>>,
    /// Operators.
    pub commands: mpsc::Receiver<Request>,
}

/// The loop and all that it owns.
pub struct Driver {
    core: Cluster,
    clock: Clock,
    store: Store,
    transport: Transport,
    tasks: mpsc::UnboundedSender<TaskCommand>,
    views: watch::Sender<Arc<Views>>,
    waiting: Vec<Waiting>,
    lease: Lease,
}

impl Driver {
    /// Makes the driver of a restored core, and the level that its views are read from.
    pub fn new(
        mut core: Cluster,
        clock: Clock,
        store: Store,
        transport: Transport,
        tasks: mpsc::UnboundedSender<TaskCommand>,
        lease: Lease,
    ) -> (Self, watch::Receiver<Arc<Views>>) {
        let (views, watched) = watch::channel(Arc::new(core.views().clone()));
        (Self { core, clock, store, transport, tasks, views, waiting: Vec::new(), lease }, watched)
    }

    /// Runs until the commands' senders are gone; ends early only if the disk fails, since nothing may be promised then.
    pub async fn run(mut self, mut inputs: Inputs) -> Result<(), StoreError> {
        self.turn(Vec::new())?;
        loop {
            self.lease.keep();
            let core = self.clock.deadline(self.core.poll_timeout());
            let deadline = self.waiting.iter().map(|waiting| waiting.until).fold(core, std::cmp::Ord::min);
            let answers = tokio::select! {
                event = inputs.transport.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    self.transport_event(event);
                    self.more(&mut inputs.transport);
                    Vec::new()
                }
                Some(event) = inputs.tasks.recv() => {
                    self.core.handle(self.clock.now(), Input::Task(event));
                    // When a hundred tasks start at once, their events come in bursts.
                    for _ in 1..INPUTS_PER_TURN {
                        let Ok(event) = inputs.tasks.try_recv() else { break };
                        self.core.handle(self.clock.now(), Input::Task(event));
                    }
                    Vec::new()
                }
                Ok(()) = inputs.images.changed() => {
                    let images = inputs.images.borrow_and_update().clone();
                    self.core.handle(self.clock.now(), Input::Images(images));
                    Vec::new()
                }
                request = inputs.commands.recv() => {
                    let Some(Request { command, answer }) = request else { return Ok(()) };
                    vec![(answer, self.core.apply(self.clock.now(), command))]
                }
                () = tokio::time::sleep_until(deadline) => {
                    self.core.handle(self.clock.now(), Input::Timeout);
                    Vec::new()
                }
            };
            self.turn(answers)?;
        }
    }

    fn more(&mut self, events: &mut mpsc::Receiver<TransportEvent>) {
        for _ in 1..INPUTS_PER_TURN {
            let Ok(event) = events.try_recv() else { return };
            self.transport_event(event);
        }
    }

    fn transport_event(&mut self, event: TransportEvent) {
        let input = match event {
            TransportEvent::Connected(peer, address) => {
                tracing::debug!(%peer, %address, "connected");
                Input::PeerConnected(peer)
            }
            TransportEvent::Lost(peer) | TransportEvent::DialFailed { to: peer, refused: true } => {
                Input::PeerLost(peer)
            }
            TransportEvent::Message { from, bytes } => Input::Received { from, message: bytes },
            TransportEvent::Closed(_) | TransportEvent::DialFailed { refused: false, .. } => return,
            TransportEvent::SeedFailed { address, reason } => {
                return tracing::warn!(%address, %reason, "a seed cannot be reached");
            }
            // The door has told the operator; a stranger is nothing to the core.
            TransportEvent::Refused { .. } => return,
        };
        self.core.handle(self.clock.now(), input);
    }

    /// Carries out all that the core wants: first what must be durable, with one fsync, then the rest in order.
    fn turn(&mut self, answers: Vec<Answer>) -> Result<(), StoreError> {
        let mut records = Vec::new();
        let mut others = Vec::new();
        while let Some(action) = self.core.poll() {
            match action {
                Action::Persist(record) => records.push(record),
                other => others.push(other),
            }
        }
        let durable = self.persist(&records);
        if durable.is_ok() {
            others.into_iter().for_each(|action| self.carry_out(action));
        }
        let (write, until) = (self.core.written(), tokio::time::Instant::now() + CONFIRM_MAX);
        for (sender, answer) in answers {
            let failed = durable.as_ref().err().map(|error| ApplyError::Store(error.to_string()));
            match failed.map_or_else(|| answer.map_err(ApplyError::from), Err) {
                Ok(receipt) => self.waiting.push(Waiting { sender, receipt, write, until }),
                // The operator may have gone away.
                Err(error) => drop(sender.send(Err(error))),
            }
        }
        durable?;
        self.confirm();
        self.publish();
        Ok(())
    }

    /// Answers the commands that another node has on its disk, that no other node can have, or that waited long enough.
    fn confirm(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let (now, others_up) = (tokio::time::Instant::now(), self.core.others_up_count());
        let others = self.core.others_count();
        for waiting in std::mem::take(&mut self.waiting) {
            let copies = self.core.copies(waiting.write);
            if copies == 0 && others_up > 0 && now < waiting.until {
                self.waiting.push(waiting);
            } else {
                // The operator may have gone away; the command stands.
                let _ = waiting.sender.send(Ok(Applied { receipt: waiting.receipt, copies, others_up, others }));
            }
        }
    }

    fn persist(&mut self, records: &[Vec<u8>]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let (store, core) = (&mut self.store, &self.core);
        tokio::task::block_in_place(|| {
            store.append(records)?;
            if store.should_rewrite() { store.rewrite(&core.snapshot()) } else { Ok(()) }
        })
    }

    fn carry_out(&self, action: Action) {
        match action {
            Action::Persist(_) => unreachable!("taken out above"),
            Action::Send { to, message } => self.transport.send(to, message),
            Action::Task(command) => {
                // The executor lives as long as the node; at the end nobody needs its work.
                let _ = self.tasks.send(command);
            }
            Action::Notify(event) => crate::telemetry::notify(&event),
        }
    }

    fn publish(&mut self) {
        let present = self.core.views();
        self.views.send_if_modified(|last| {
            let differ = **last != *present;
            if differ {
                *last = Arc::new(present.clone());
            }
            differ
        });
    }
}
