//! Rollouts whose nodes die: the systematic run of `shoal-simulations steps`, at some of the events.

use shoal_cluster::intent::update::UpdateOrder;
use shoal_simulations::steps::{Ending, run_kind};

/// Every so many events; the command takes all of them.
const STRIDE: usize = 7;

fn ends(ending: Ending, order: UpdateOrder) {
    let kind = run_kind(ending, order, 4, 1, STRIDE);
    assert!(kind.events > 12 && kind.cases > 6, "{kind:?}");
    assert!(kind.wrong.is_empty(), "{:#?}", kind.wrong);
}

#[test]
fn a_rollout_completes_whoever_dies() {
    ends(Ending::Success, UpdateOrder::StopFirst);
    ends(Ending::Success, UpdateOrder::StartFirst);
}

#[test]
fn a_bad_rollout_is_paused_whoever_dies() {
    ends(Ending::Pause, UpdateOrder::StopFirst);
}

#[test]
fn a_bad_rollout_is_rolled_back_whoever_dies() {
    ends(Ending::Rollback, UpdateOrder::StopFirst);
    ends(Ending::Rollback, UpdateOrder::StartFirst);
}
