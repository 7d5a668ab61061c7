//! The pure core of shoal: three replicated planes, the plan derived from them, and this node's agent.
//!
//! Sans-IO: the caller owns sockets, disks, clocks and containers, hands in what happened and carries out what
//! comes back. See [`Cluster`] for the contract.

#![no_std]

extern crate alloc;

pub mod agent;
pub mod bytes;
pub mod clock;
pub mod config;
pub mod crdt;
pub mod hash;
pub mod id;
pub mod intent;
pub mod io;
pub mod limits;
pub mod membership;
pub mod mutation;
pub mod plan;
pub mod record;
pub mod reports;
pub mod seed;
pub mod sync;
pub mod view;
pub mod wire;

mod commands;
mod exchange;
mod keeping;
mod news;
mod rollouts;
mod turn;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::agent::Agent;
use crate::clock::NEVER;
use crate::crdt::Actor;
use crate::intent::Intent;
use crate::membership::Membership;
use crate::plan::Plan;
use crate::record::{Record, Restored};
use crate::reports::Reports;
use crate::seed::Stream;
use crate::sync::acknowledged::Acknowledged;
use crate::sync::asking::Asking;
use crate::sync::copies::Copies;
use crate::sync::message::Digests;
use crate::sync::rounds::{Rounds, Settling};
use crate::sync::rumour::Rumours;
use crate::sync::telling::Telling;

pub use clock::{Instant, Now};
pub use config::Config;
pub use id::{NodeId, ObjectId, ServiceId, TaskId};
pub use io::{Action, Command, CommandError, Event, Input, NewObject, Receipt, TaskCommand, TaskEvent, TaskOrder};
pub use view::Views;

/// One node's core.
///
/// The contract: (1) `now.mono` never goes back within a run; (2) the same seed, inputs and times give the same
/// actions, byte for byte; (3) an action may rely on those before it: after [`Action::Persist`], nothing later
/// leaves until the record is durable; (4) [`Input::Timeout`] early or twice is harmless; (5) one input does bounded
/// work; (6) views are levels, not edges: the edge compares and reconciles.
#[derive(Debug)]
pub struct Cluster {
    own: NodeId,
    config: Config,
    /// Which run this is; never less than the configuration says.
    epoch: u64,
    now: Now,
    intent: Intent,
    membership: Membership,
    reports: Reports,
    rounds: Rounds,
    rumours: Rumours,
    telling: Telling,
    asking: Asking,
    copies: Copies,
    acknowledged: Acknowledged,
    /// When to look for tombstones to forget.
    collect_at: Instant,
    agent: Agent,
    plan: Plan,
    /// The changes of intent, membership and reports of which the plan was made.
    planned: Option<[u64; 3]>,
    /// No plan is computed before, and when one is to be that waits for this.
    plan_after: Instant,
    plan_at: Instant,
    /// Whom this node compares with until it has caught up, and how often it has asked for more.
    catching_up: BTreeMap<NodeId, u32>,
    /// As many of these changes as the plan depends on.
    basis: [u64; 4],
    /// The changes of verdicts, and of reports by which rollouts come further, that the agent has followed.
    heard: [u64; 2],
    /// The changes that verdicts were last looked for at.
    judged: [u64; 5],
    /// What this node has, as hashes, at these changes of intent and reports.
    digests: Option<([u64; 2], Digests)>,
    /// How much of this node's own report was pushed.
    pushed: reports::Head,
    /// Whether something happened that the agent must act on though no plane changed.
    agent_due: bool,
    actions: VecDeque<Action>,
    views: Option<Views>,
    /// When the views were computed.
    viewed: Instant,
}

/// What was made durable cannot be read back. The node must not start: it would break promises it made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A record does not decode.
    #[error(
        "record {index} of the store does not decode ({reason}): restore the data directory from a backup, \
         or remove it and join again"
    )]
    Record {
        /// Its position, from 0.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Cluster {
    /// Makes the core of a node, from the records that its earlier runs made durable (none at first), in order.
    pub fn restore(
        id: NodeId,
        config: Config,
        seed: [u8; 32],
        now: Now,
        records: impl Iterator<Item = Vec<u8>>,
    ) -> Result<Self, RestoreError> {
        let mut restored = Restored::default();
        for (index, bytes) in records.enumerate() {
            let record = Record::decode(&bytes).map_err(|reason| RestoreError::Record { index, reason })?;
            restored.add(record);
        }
        Ok(Self::make(id, config, seed, now, restored))
    }

    fn make(own: NodeId, config: Config, seed: [u8; 32], now: Now, mut restored: Restored) -> Self {
        // The wall clock keeps epochs apart even if a disk was lost with the count of the starts.
        let epoch = restored.next_epoch(&own, config.epoch.max(now.wall_ms / 1_000));
        let stream = |purpose| Stream::new(&seed, purpose);
        let mut intent = Intent::new(Actor { node: own, epoch });
        restored.fill(&mut intent);
        let membership = turn::membership(own, &config, stream("membership"), now.mono, restored);
        let reports = Reports::new(own, epoch);
        let others = membership.members().keys().chain(config.contacts.iter().map(|(id, _)| id));
        let alone = others.into_iter().all(|other| *other == own);
        let until = now.mono + config.settle_timeout;
        let rounds = Rounds::new(config.sync_interval, alone, until, stream("rounds"), now.mono);
        let telling = Telling::new(config.tell_interval, now.mono);
        let plan =
            if config.plans { plan::plan(&config.shoal, &intent, &membership, &reports) } else { Plan::default() };
        let mut cluster = Self {
            own,
            config,
            epoch,
            now,
            intent,
            membership,
            reports,
            rounds,
            rumours: Rumours::new(stream("rumours")),
            telling,
            asking: Asking::default(),
            copies: Copies::default(),
            acknowledged: Acknowledged::default(),
            collect_at: now.mono,
            agent: Agent::new(own, epoch),
            plan,
            planned: None,
            plan_after: now.mono,
            plan_at: NEVER,
            catching_up: BTreeMap::new(),
            basis: [0; 4],
            heard: [0; 2],
            judged: [0; 5],
            digests: None,
            pushed: reports::Head::default(),
            agent_due: false,
            actions: VecDeque::new(),
            views: None,
            viewed: now.mono,
        };
        cluster.persist(&Record::Start(epoch));
        if alone {
            cluster.settled();
        }
        cluster.turn();
        cluster
    }

    /// Takes in what happened. Never fails and never blocks; hostile bytes are counted and dropped.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.advance(now);
        match input {
            Input::Received { from, message } => self.receive(from, &message),
            Input::PeerConnected(peer) => {
                self.membership.peer_connected(self.now.mono, peer);
                self.connected(peer);
            }
            Input::PeerLost(peer) => {
                self.membership.peer_lost(self.now.mono, peer);
                self.catching_up.remove(&peer);
            }
            Input::Task(event) => self.task_event(event),
            Input::Images(images) => self.reports.report_images(&images),
            Input::Timeout => self.timeout(),
        }
        self.turn();
    }

    /// Takes in what an operator wants, or says why not.
    pub fn apply(&mut self, now: Now, command: Command) -> Result<Receipt, CommandError> {
        self.advance(now);
        let receipt = self.command(command)?;
        self.turn();
        Ok(receipt)
    }

    /// Returns what to do next: drain after each `handle` and `apply`, carry out in order.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns when [`Input::Timeout`] is due at the latest.
    pub fn poll_timeout(&self) -> Instant {
        let sync = self.rounds.deadline().min(self.news_deadline()).min(self.keeping_deadline());
        let others = self.membership.poll_timeout().min(self.plan_at).min(sync);
        self.agent.poll_timeout().map_or(others, |agent| agent.min(others))
    }

    /// Returns the present views, and recomputes them if anything changed.
    pub fn views(&mut self) -> &Views {
        let views = match self.views.take() {
            Some(views) => views,
            None => self.compute_views(),
        };
        self.views.insert(views)
    }

    /// Returns the intent plane, to read.
    pub fn intent(&self) -> &Intent {
        &self.intent
    }

    /// Returns the membership plane, to read.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Returns the reports plane, to read.
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Returns the present plan, to read.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the records that a restart needs, complete: the store may replace all it has by these.
    pub fn snapshot(&self) -> Vec<Vec<u8>> {
        record::snapshot(self.epoch, self.membership.members().values(), &self.intent)
    }

    /// Returns whether this node acts on what it knows yet.
    pub fn settling(&self) -> Settling {
        self.rounds.settling()
    }
}
