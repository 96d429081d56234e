//! The agents that a deployment wants.

use crate::approval::Identity;
use crate::control::Hello;
use crate::noise::PublicKey;
use std::collections::HashSet;

/// The agents that a deployment wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Every agent that comes.
    Everyone,
    /// The machines with one of these.
    Machines(HashSet<Identity>),
}

impl Wanted {
    /// Whether it says which machines it wants, one by one.
    pub(super) fn names_machines(&self) -> bool {
        matches!(self, Self::Machines(_))
    }

    /// Whether an agent with this hello and this key is wanted.
    #[must_use]
    pub fn takes(&self, hello: &Hello, key: Option<PublicKey>) -> bool {
        match self {
            Self::Everyone => true,
            Self::Machines(machines) => Identity::all_of(hello, key).any(|identity| machines.contains(&identity)),
        }
    }
}
