//! The steps from what is there to what a stack declares, and how they read.

use std::fmt;

use bollard::models::ServiceSpec;

use crate::cli::objects::Noun;
use crate::compose::{Blob, Network};

/// What becomes of one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) noun: Noun,
    pub(super) name: String,
    pub(super) deed: Deed,
    /// What the operator should know of it; empty if there is nothing to say.
    pub(super) note: String,
}

/// What is done with the object. It holds bytes of secrets, which no output of it shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Deed {
    /// It is as it should be.
    Leave { id: String },
    /// The stack has it though the files do not declare it.
    Spare,
    /// A network is made.
    CreateNetwork(Network),
    /// A secret or config is made.
    CreateData(Blob),
    /// A secret or config has the labels that it should have, and maybe the bytes. Only the node can tell, and it refuses
    /// other bytes.
    CompareData { id: String, version: u64, blob: Blob },
    /// A secret or config gets other labels. The node refuses other bytes.
    LabelData { id: String, version: u64, blob: Blob },
    /// A service is made.
    CreateService(Box<ServiceSpec>),
    /// A service is changed.
    UpdateService { id: String, version: u64, spec: Box<ServiceSpec> },
    /// It is removed.
    Remove { id: String },
}

impl Deed {
    /// Returns what people call it.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Leave { .. } | Self::Spare | Self::CompareData { .. } => "leave",
            Self::CreateNetwork(_) | Self::CreateData(_) | Self::CreateService(_) => "create",
            Self::LabelData { .. } | Self::UpdateService { .. } => "update",
            Self::Remove { .. } => "remove",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<6}  {:<7}  {}", self.deed.word(), self.noun.word(), self.name)?;
        if self.note.is_empty() { Ok(()) } else { write!(f, "  ({})", self.note) }
    }
}

/// Returns how much is done, in one line.
pub(super) fn summary(steps: &[Step]) -> String {
    let count = |word| steps.iter().filter(|step| step.deed.word() == word).count();
    let counts = ["create", "update", "leave", "remove"].map(|word| format!("{} to {word}", count(word)));
    counts.join(", ")
}
