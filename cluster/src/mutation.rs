//! Mutations: deliberate bugs, one at a time, each of which the simulator must catch.
//!
//! Input: which one is on, for the whole process. Output: [`on`], asked at one line of the core for each. Without the
//! feature `mutations`, which no build but the simulator's own has, [`on`] is constantly false and costs nothing. See
//! `docs/testing.md#mutations`.

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutation {
    /// Every fifth pushed entry is counted as known and not taken in.
    DroppedDelta = 1,
    /// Every fourth write of a node has the dot of the one before.
    ReusedDot,
    /// The version vector advances over holes.
    VectorOverHole,
    /// No node tells what it knows, so that none sends what another lacks.
    NoAntiEntropy,
    /// A plan depends on the node that computes it.
    PlanByOwner,
    /// Some changes do not lead to a new plan.
    StalePlan,
    /// A compacted log has no tombstones.
    TombstoneCollectedEarly,
    /// A suspected node does not refute.
    MissingRefutation,
    /// Suspicions have no end.
    LostSuspicionTimer,
    /// A node's incarnation is not made durable.
    IncarnationNotPersisted,
    /// Members that are down are never tried again.
    NoRedial,
    /// A restarted node uses its first epoch again.
    EpochReused,
    /// Writes are acknowledged that were not made durable.
    AcknowledgeBeforeDurable,
    /// A task that moved runs on at its old place.
    DoublePlacement,
    /// A task that moved ends at its old place before it runs at the new one.
    BreakBeforeMake,
    /// Third slots are never started.
    LostSlot,
    /// Names answer with tasks of nodes that are down.
    NamesOfTheDead,
    /// All nodes own the same IPv6 block.
    SharedBlock,
    /// Nodes that are drained take tasks.
    DrainIgnored,
    /// Every node may run everything.
    ConstraintsIgnored,
    /// Everything fits everywhere.
    RoomIgnored,
    /// A node says of others' writes that they are on its disk, and they are not.
    StoredNowhere,
    /// A node takes it for granted that whoever is up has its writes.
    CopiesOverstated,
    /// Tombstones are forgotten before all members know them.
    CollectedUnheard,
    /// Tombstones are never forgotten.
    NeverCollected,
    /// A forecast leaves a node out of account that is lost or drained.
    ForecastOfNothing,
    /// All slots move at once to another revision.
    ParallelismIgnored,
    /// All slots move back at once.
    RollbackParallelismIgnored,
    /// A node does not follow verdicts that others raised.
    VerdictNotJoined,
    /// A moved task counts as stable as soon as it runs.
    MonitorIgnored,
    /// Failures of moved tasks are forgotten.
    FailuresForgotten,
    /// The first task of a slot that moves start-first ends before the new one has run for long enough.
    StartFirstIgnored,
    /// A plan that is followed keeps the assignments of the one before, under the digest of its own.
    AssignmentsKept,
    /// A node that comes up is believed to run what it reported before.
    StaleReportBelieved,
    /// What the tasks of jobs have done is not written down.
    CompletionsForgotten,
    /// A member that was slow once counts as slow for ten minutes.
    SlowForLong,
    /// Fenced services run like all others.
    FenceIgnored,
    /// None: but repair is off, as it is with every other. A run that fails with this shows nothing of the others.
    NoRepair,
}

impl Mutation {
    /// All of them that must be caught.
    pub const ALL: [Self; 37] = [
        Self::DroppedDelta,
        Self::ReusedDot,
        Self::VectorOverHole,
        Self::NoAntiEntropy,
        Self::PlanByOwner,
        Self::StalePlan,
        Self::TombstoneCollectedEarly,
        Self::MissingRefutation,
        Self::LostSuspicionTimer,
        Self::IncarnationNotPersisted,
        Self::NoRedial,
        Self::EpochReused,
        Self::AcknowledgeBeforeDurable,
        Self::DoublePlacement,
        Self::BreakBeforeMake,
        Self::LostSlot,
        Self::NamesOfTheDead,
        Self::SharedBlock,
        Self::DrainIgnored,
        Self::ConstraintsIgnored,
        Self::RoomIgnored,
        Self::StoredNowhere,
        Self::CopiesOverstated,
        Self::CollectedUnheard,
        Self::NeverCollected,
        Self::ForecastOfNothing,
        Self::ParallelismIgnored,
        Self::RollbackParallelismIgnored,
        Self::VerdictNotJoined,
        Self::MonitorIgnored,
        Self::FailuresForgotten,
        Self::StartFirstIgnored,
        Self::AssignmentsKept,
        Self::StaleReportBelieved,
        Self::CompletionsForgotten,
        Self::SlowForLong,
        Self::FenceIgnored,
    ];
}

#[cfg(feature = "mutations")]
mod switch {
    use core::sync::atomic::{AtomicU8, Ordering};

    static ACTIVE: AtomicU8 = AtomicU8::new(0);

    /// Switches one mutation on, or all off, for the whole process.
    pub fn set(mutation: Option<super::Mutation>) {
        ACTIVE.store(mutation.map_or(0, |mutation| mutation as u8), Ordering::SeqCst);
    }

    pub(super) fn active() -> u8 {
        ACTIVE.load(Ordering::Relaxed)
    }
}

#[cfg(feature = "mutations")]
pub use switch::set;

/// Tells whether this mutation is on.
#[cfg(feature = "mutations")]
pub(crate) fn on(mutation: Mutation) -> bool {
    switch::active() == mutation as u8
}

/// Tells whether any mutation is on.
#[cfg(feature = "mutations")]
pub(crate) fn any() -> bool {
    switch::active() != 0
}

/// Tells whether this mutation is on: no.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn on(_: Mutation) -> bool {
    false
}

/// Tells whether any mutation is on: no.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn any() -> bool {
    false
}
