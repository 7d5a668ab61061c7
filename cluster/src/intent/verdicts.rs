//! Verdicts: how far rollouts have come, as the plane knows it.

use super::key::Key;
use super::service::Service;
use super::update::{Ruling, Verdict};
use super::{Entry, Intent};
use crate::wire;

impl Intent {
    /// Returns what is known of the present rollout of a service: the greatest verdict that any node raised, with when it
    /// was raised first. None while it progresses, and of a service without one.
    pub fn ruling(&self, service: &Service) -> Option<(Ruling, u64)> {
        self.served.ruling(&service.id, service.rollout?.id)
    }

    /// Returns how far the present rollout of a service has come; one that never had any has completed it, as has a job,
    /// which begins anew instead.
    pub fn verdict(&self, service: &Service) -> Verdict {
        match service.rollout {
            None => Verdict::Completed,
            Some(_) if service.spec.mode.is_job() => Verdict::Completed,
            Some(_) => self.ruling(service).map(|(ruling, _)| ruling.verdict).unwrap_or_default(),
        }
    }

    /// Returns the services with slots that move, in order.
    pub fn rolling(&self) -> impl Iterator<Item = &Service> {
        self.served.rolling().filter_map(|id| self.service(id))
    }

    /// Returns a number that grows with each change of a verdict.
    pub fn verdicts(&self) -> u64 {
        self.verdicts
    }

    /// Raises the verdict on a rollout.
    pub fn write_ruling(&mut self, wall_ms: u64, ruling: &Ruling) -> Entry {
        self.write(wall_ms, Key::verdict(&ruling.service, ruling.rollout), Some(wire::encode(ruling)))
    }
}
