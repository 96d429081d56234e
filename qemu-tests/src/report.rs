//! The report that `slidecast deploy --report` writes, as the command-line contract has it.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::error::{LabError, Result};

/// One deployment's report. Fields are those of the contract; unknown ones are ignored.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// The image as it was named.
    pub image: String,
    /// Plan fixed to last node ended.
    pub seconds: f64,
    /// Bytes of all places of one target.
    pub raw_bytes: u64,
    /// Bytes of the payloads of one image.
    pub stored_bytes: u64,
    /// Bytes sent by the server.
    pub egress_bytes: u64,
    /// Whether keys were switched off.
    pub insecure: bool,
    /// The chains of the plan.
    pub chains: Vec<Chain>,
    /// Every node that came.
    pub nodes: Vec<Node>,
    /// Every change of a chain while it ran.
    pub repair_log: Vec<Repair>,
}

/// One change of a chain.
#[derive(Debug, Clone, Deserialize)]
pub struct Repair {
    /// Plan fixed to the first sign.
    pub at: f64,
    /// The number of the node that it is about.
    pub node: u32,
    /// A word of the closed list.
    pub kind: String,
    /// Who saw what.
    pub detail: String,
    /// The first sign to blocks flowing again.
    pub seconds: Option<f64>,
}

/// One chain of a report.
#[derive(Debug, Clone, Deserialize)]
pub struct Chain {
    /// The server's card.
    pub interface: String,
    /// Its nodes, head first: the same as in [`Report::nodes`].
    pub nodes: Vec<Node>,
}

/// One node of a report.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// Its number.
    pub id: u32,
    /// Its address.
    pub address: String,
    /// The disk on it.
    pub target: String,
    /// `done`, `written` or `failed`.
    pub state: String,
    /// A code of the closed list; `none` if it did not fail.
    pub reason: String,
    /// The facts behind the reason.
    pub detail: String,
    /// Plan fixed to this node ended.
    pub seconds: f64,
    /// `direct`, `cached` or `no`.
    pub verified: String,
    /// Blocks it wrote.
    pub blocks_written: u64,
    /// Blocks its disk already had.
    pub blocks_kept: u64,
    /// Blocks of which something was read once more before the head was written.
    #[serde(default)]
    pub last_look_blocks: u64,
    /// How often its chain was closed around a neighbour.
    pub repairs: u32,
    /// Whether it was moved behind the tail.
    pub moved: bool,
    /// Whether it came after the start.
    pub late: bool,
    /// How often it was given up and came back.
    pub returned: u32,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// When there is none or it does not follow the contract.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(LabError::io("reading", path))?;
        let wrong = |error: serde_json::Error| LabError::Report { path: path.to_owned(), detail: error.to_string() };
        serde_json::from_str(&text).map_err(wrong)
    }

    /// The nodes of a chain, head first.
    pub fn nodes_of(&self, chain: &Chain) -> impl Iterator<Item = &Node> {
        chain.nodes.iter().filter_map(|of| self.nodes.iter().find(|node| node.id == of.id))
    }

    /// The node at `address`.
    pub fn node(&self, address: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.address == address)
    }
}
