//! The admitting side: judges each visitor and answers once.
//!
//! Input: TLS streams from the transport. Output: a certificate and the way into the shoal, or a reason, and a log line.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use futures::AsyncWriteExt;
use shoal_cluster::id::NodeId;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::{
    ADDRESSES_MAX, Answer, CLOCK_BOUND, Grant, MEMBERS_MAX, REQUEST_BYTES_MAX, ReadError, Refusal, Request,
    STEP_TIMEOUT, VERSION, Visitor, is_name, read_value, write_value,
};
use crate::identity::{Identity, Secret, authority};

/// Visitors that may wait for their turn; more are turned away.
const WAITING_MAX: usize = 64;
/// Visitors judged at a time.
const AT_ONCE_MAX: usize = 16;
/// Attempts of one address per second.
const ATTEMPTS_PER_SECOND: u32 = 5;
/// Addresses whose attempts are counted at a time.
const COUNTED_MAX: usize = 1024;

/// What admission must ask the rest of the node. Called from several tasks; must not block.
pub trait Desk: Send + Sync + 'static {
    /// Tells whether a node other than `node` is called `name`.
    fn name_taken(&self, name: &str, node: &NodeId) -> bool;
    /// Returns the members to tell a new node about, this node first.
    fn members(&self) -> Vec<(NodeId, Vec<SocketAddr>)>;
}

/// Returns the queue between the transport's port and [`serve`].
pub fn channel() -> (mpsc::Sender<Visitor>, mpsc::Receiver<Visitor>) {
    mpsc::channel(WAITING_MAX)
}

/// Answers visitors until the transport ends.
pub async fn serve(identity: Arc<Identity>, desk: Arc<dyn Desk>, mut visitors: mpsc::Receiver<Visitor>) {
    let slots = Arc::new(Semaphore::new(AT_ONCE_MAX));
    let mut attempts = Attempts::default();
    let mut judging = JoinSet::new();
    while let Some(visitor) = visitors.recv().await {
        while judging.try_join_next().is_some() {}
        let allowed = attempts.allow(visitor.address.ip(), Instant::now());
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (identity, desk) = (identity.clone(), desk.clone());
        judging.spawn(async move {
            attend(&identity, &*desk, visitor, allowed).await;
            drop(slot);
        });
    }
}

/// Reads the request, answers it and says in the log how it went.
async fn attend(identity: &Identity, desk: &dyn Desk, mut visitor: Visitor, allowed: bool) {
    let address = visitor.address;
    let read = timeout(STEP_TIMEOUT, read_value::<Request, REQUEST_BYTES_MAX>(&mut visitor.stream)).await;
    let judged = match read {
        _ if !allowed => Err(Refusal::TooMany),
        Ok(Ok(request)) => judge(identity, desk, &request, address),
        Ok(Err(ReadError::Version(_))) => Err(Refusal::Version { ours: VERSION }),
        Ok(Err(ReadError::Unreadable)) => Err(Refusal::BadRequest),
        Ok(Err(ReadError::Io(error))) => {
            debug!(%address, %error, "a visitor left without a request");
            return;
        }
        Err(_) => {
            debug!(%address, "a visitor sent no request in time");
            return;
        }
    };
    let answer = match judged {
        Ok(grant) => Answer::Admitted(Box::new(grant)),
        Err(refusal) => {
            warn!(%address, reason = %refusal, "refused to admit a node");
            Answer::Refused(refusal)
        }
    };
    let sent = timeout(STEP_TIMEOUT, async {
        write_value(&mut visitor.stream, &answer).await?;
        visitor.stream.close().await
    });
    if !matches!(sent.await, Ok(Ok(()))) {
        debug!(%address, "a visitor left before its answer");
    }
}

/// Decides. The secret comes first: who does not know it learns nothing else.
fn judge(identity: &Identity, desk: &dyn Desk, request: &Request, address: SocketAddr) -> Result<Grant, Refusal> {
    if identity.token(crate::identity::Role::Manager).is_none() {
        return Err(Refusal::NotManager);
    }
    let role = identity.role_for(&Secret::from(request.secret)).ok_or(Refusal::WrongToken)?;
    let wall_ms = u64::try_from(authority::since_1970().as_millis()).unwrap_or(u64::MAX);
    check_clock(request.wall_ms, wall_ms)?;
    if !is_name(&request.name) {
        return Err(Refusal::BadName);
    }
    let (node, leaf) = identity.issue(&request.signing_request, role).map_err(|error| {
        error!(%address, %error, "cannot issue a certificate");
        Refusal::Internal
    })?;
    if desk.name_taken(&request.name, &node) {
        return Err(Refusal::NameTaken { name: request.name.clone() });
    }
    info!(%address, %node, name = request.name, role = role.as_str(), "admitted a node");
    let authority = match role {
        crate::identity::Role::Manager => identity.authority(),
        crate::identity::Role::Worker => None,
    };
    let authority = authority.map(|a| (a.ca_key, a.secrets.manager.bytes(), a.secrets.worker.bytes()));
    Ok(Grant {
        leaf: leaf.to_vec(),
        ca: identity.ca().to_vec(),
        authority,
        data_key: *identity.data_key().bytes(),
        members: members_of(desk),
        wall_ms,
    })
}

fn members_of(desk: &dyn Desk) -> Vec<(NodeId, Vec<SocketAddr>)> {
    let mut members = desk.members();
    members.truncate(MEMBERS_MAX);
    for (_, addresses) in &mut members {
        addresses.truncate(ADDRESSES_MAX);
    }
    members
}

fn check_clock(theirs_ms: u64, ours_ms: u64) -> Result<(), Refusal> {
    let ahead_ms = i128::from(theirs_ms) - i128::from(ours_ms);
    if ahead_ms.unsigned_abs() <= CLOCK_BOUND.as_millis() {
        return Ok(());
    }
    let ahead_ms = i64::try_from(ahead_ms).unwrap_or(if ahead_ms < 0 { i64::MIN } else { i64::MAX });
    Err(Refusal::Clock { ahead_ms, bound_s: CLOCK_BOUND.as_secs() })
}

/// Counts attempts by address and second, so that a secret cannot be guessed by trying.
#[derive(Default)]
struct Attempts(BTreeMap<IpAddr, (Instant, u32)>);

impl Attempts {
    fn allow(&mut self, address: IpAddr, now: Instant) -> bool {
        let fresh = |since: Instant| now.duration_since(since).as_secs() == 0;
        if self.0.len() >= COUNTED_MAX {
            self.0.retain(|_, (since, _)| fresh(*since));
        }
        if self.0.len() >= COUNTED_MAX && !self.0.contains_key(&address) {
            return false;
        }
        let (since, count) = self.0.entry(address).or_insert((now, 0));
        if !fresh(*since) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= ATTEMPTS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_address_may_try_a_few_times_a_second() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let address = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..ATTEMPTS_PER_SECOND {
            assert!(attempts.allow(address, now));
        }
        assert!(!attempts.allow(address, now));
        assert!(attempts.allow(IpAddr::from([192, 0, 2, 2]), now));
        assert!(attempts.allow(address, now + Duration::from_secs(1)));
    }

    #[test]
    fn a_flood_from_many_addresses_is_bounded() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for number in 0..5000u32 {
            attempts.allow(IpAddr::from(number.to_be_bytes()), now);
        }
        assert!(attempts.0.len() <= COUNTED_MAX);
        assert!(attempts.allow(IpAddr::from([9, 9, 9, 9]), now + Duration::from_secs(2)));
    }

    #[test]
    fn clocks_may_differ_by_a_minute() {
        assert_eq!(check_clock(100_000, 160_000), Ok(()));
        assert_eq!(check_clock(160_000, 100_000), Ok(()));
        let refusal = check_clock(0, 3_600_000).expect_err("an hour is too much");
        assert!(refusal.to_string().contains("3600 s behind the shoal's"), "{refusal}");
        assert!(check_clock(u64::MAX, 0).is_err());
    }
}
