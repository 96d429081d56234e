//! What both ends say of the approval of an agent: see [`crate::approval`].

use crate::approval::{Commitment, Share};
use crate::wire::{Parsed, array, flag};
use nom::Parser;
use nom::combinator::{cond, map};

/// The agent gets no number, no image and no place before somebody approves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotApproved {
    /// Where a code lets it in: what the server commits itself to before the agent says its share.
    pub commitment: Option<Commitment>,
}

impl NotApproved {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0x89, self.commitment.is_some().into()]);
        if let Some(commitment) = &self.commitment {
            out.extend_from_slice(&commitment.0);
        }
    }

    pub(super) fn read(input: &[u8]) -> Parsed<'_, Self> {
        let (input, more) = flag(input)?;
        map(cond(more, array), |bytes| Self { commitment: bytes.map(Commitment) }).parse(input)
    }
}

impl Share {
    pub(super) fn put(&self, tag: u8, out: &mut Vec<u8>) {
        out.push(tag);
        out.extend_from_slice(&self.0);
    }

    pub(super) fn read(input: &[u8]) -> Parsed<'_, Self> {
        map(array, Self).parse(input)
    }
}
