//! Items: the numbered parts of a report. Kinds that are not known here are kept and relayed, not read.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::task::TaskReport;
use crate::id::{Leg, ServiceId, TaskId};
use crate::limits::{ERROR_BYTES_MAX, FAILED_SLOTS_MAX, IMAGE_BYTES_MAX, ITEM_BYTES_MAX};
use crate::wire;

/// One part of a report as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The number of the change that made it what it is.
    pub seq: u64,
    /// What kind of item.
    pub kind: u16,
    /// Which one, encoded as the kind prescribes.
    #[serde(with = "crate::bytes")]
    pub key: Vec<u8>,
    /// What it is, encoded as the kind prescribes; absent if it was withdrawn.
    #[serde(with = "crate::bytes::optional")]
    pub value: Option<Vec<u8>>,
}

/// Which part of a report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKey {
    /// A task; kind 1, value a [`TaskReport`].
    Task(TaskId),
    /// An image that the node has, as [`crate::Input::Images`] names it; kind 2, value empty.
    Image(String),
    /// Slots of a service that failed in one direction of a rollout; kind 3, value [`Failures`].
    Failures(ServiceId, Leg),
    /// A kind that this code does not know.
    Other(u16, Vec<u8>),
}

/// The slots whose moved tasks failed on one node in one direction of a rollout. It only grows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Which slots; at most [`FAILED_SLOTS_MAX`].
    pub slots: BTreeSet<u32>,
    /// The task that failed first.
    pub task: TaskId,
}

/// What a part of a report is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Task(TaskReport),
    Image,
    Failures(Failures),
    Other(Vec<u8>),
    Withdrawn,
}

const TASK: u16 = 1;
const IMAGE: u16 = 2;
const FAILURES: u16 = 3;

impl ItemKey {
    /// Returns the kind's number and the encoded key.
    fn encode(&self) -> (u16, Vec<u8>) {
        match self {
            Self::Task(id) => (TASK, wire::encode(id)),
            Self::Image(digest) => (IMAGE, wire::encode(digest)),
            Self::Failures(service, leg) => (FAILURES, wire::encode(&(service, leg))),
            Self::Other(kind, key) => (*kind, key.clone()),
        }
    }
}

impl Item {
    /// Returns the item of a task.
    pub fn task(seq: u64, report: TaskReport) -> Self {
        Self::make(seq, &ItemKey::Task(report.id), Some(wire::encode(&report)))
    }

    /// Returns an item from its parts.
    pub(super) fn make(seq: u64, key: &ItemKey, value: Option<Vec<u8>>) -> Self {
        let (kind, key) = key.encode();
        Self { seq, kind, key, value }
    }

    /// Returns the bytes that it takes, roughly and never too few in a message.
    pub fn weight(&self) -> usize {
        48 + self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }

    /// Reads it, or says what is wrong with it.
    pub(super) fn read(&self) -> Result<(ItemKey, Body), &'static str> {
        const MALFORMED: &str = "a report's item does not decode";
        if self.key.len() + self.value.as_ref().map_or(0, Vec::len) > ITEM_BYTES_MAX {
            return Err("a report's item is too long");
        }
        match (self.kind, &self.value) {
            (TASK, None) => {
                let id = wire::decode(&self.key).map_err(|_| MALFORMED)?;
                Ok((ItemKey::Task(id), Body::Withdrawn))
            }
            (TASK, Some(value)) => {
                let id: TaskId = wire::decode(&self.key).map_err(|_| MALFORMED)?;
                let report: TaskReport = wire::decode(value).map_err(|_| MALFORMED)?;
                if report.id != id || report.error.len() > ERROR_BYTES_MAX {
                    return Err("a report's task contradicts itself");
                }
                Ok((ItemKey::Task(id), Body::Task(report)))
            }
            (IMAGE, value) => {
                let digest: String = wire::decode(&self.key).map_err(|_| MALFORMED)?;
                if digest.len() > IMAGE_BYTES_MAX {
                    return Err("a report's image has too long a name");
                }
                let body = if value.is_some() { Body::Image } else { Body::Withdrawn };
                Ok((ItemKey::Image(digest), body))
            }
            (FAILURES, value) => {
                let (service, leg) = wire::decode(&self.key).map_err(|_| MALFORMED)?;
                let body = match value {
                    Some(value) => Body::Failures(wire::decode(value).map_err(|_| MALFORMED)?),
                    None => Body::Withdrawn,
                };
                if matches!(&body, Body::Failures(failures) if failures.slots.len() > FAILED_SLOTS_MAX) {
                    return Err("a report tells of too many failures");
                }
                Ok((ItemKey::Failures(service, leg), body))
            }
            (kind, None) => Ok((ItemKey::Other(kind, self.key.clone()), Body::Withdrawn)),
            (kind, Some(value)) => Ok((ItemKey::Other(kind, self.key.clone()), Body::Other(value.clone()))),
        }
    }
}
