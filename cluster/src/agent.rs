//! A.
use crate::{
    clock::*,
    id::*,
    intent::Intent,
    io::*,
    membership::Membership,
    plan::Plan,
    reports::{Reports, task::TaskReport},
};
/// A.
#[derive(Debug)]
pub struct Agent;
/// A.
#[derive(Debug)]
pub enum AgentAction {
    /// t
    Task(TaskCommand),
    /// r
    Report(TaskReport),
    /// r
    Retract(TaskId),
    /// c
    ClaimBlock(u16),
    /// n
    Notify(Event),
}
impl Agent {
    /// n
    pub fn new(_: NodeId, _: u64) -> Self {
        Self
    }
    /// n
    pub fn handle(&mut self, _: Now, _: TaskEvent) {}
    /// n
    pub fn reconcile(&mut self, _: Now, _: &Plan, _: &Intent, _: &Reports, _: &Membership) {}
    /// n
    pub fn timeout(&mut self, _: Now) {}
    /// n
    pub fn poll(&mut self) -> Option<AgentAction> {
        None
    }
    /// n
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
