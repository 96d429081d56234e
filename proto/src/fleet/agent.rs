//! What the fleet knows of one agent.

use crate::approval::Boot;
use crate::control::Hello;
use crate::noise::PublicKey;
use crate::plan::CardId;
use crate::units::{DeploymentId, NodeId, Time};
use std::net::IpAddr;

/// An agent that is there, or that a deployment waits for.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its number, which no other agent of this port has.
    pub id: NodeId,
    /// The run of the agent that it is.
    pub boot: Boot,
    /// The key that it has proven to have; none with `--insecure`.
    pub key: Option<PublicKey>,
    /// The deployment that has it.
    pub loan: Option<DeploymentId>,
    /// Its control link stands.
    pub here: Option<Here>,
}

impl Agent {
    /// Whether it is there and no deployment has it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.loan.is_none() && self.here.is_some()
    }
}

/// An agent whose control link stands.
#[derive(Clone, Debug)]
pub struct Here {
    /// What it said when it called.
    pub hello: Hello,
    /// The card of the server that it came in on.
    pub card: CardId,
    /// Where it calls from.
    pub address: IpAddr,
    /// When it called.
    pub since: Time,
    /// When it was last heard, while it is idle.
    pub(super) heard: Time,
}
