//! Names: which addresses each service name answers with.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::plan::addresses::Addresses;

/// The zone in which service names live, without the final dot.
pub const ZONE: &str = "shoal.internal";

/// What the embedded DNS answers, complete: a service that is not here does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Service name (lower case) to the addresses of its running tasks, in order of slot; empty while none runs.
    pub services: BTreeMap<String, Vec<Addresses>>,
}
