//! Who may take part, where that was said: by a list of machines, or by a code that stands on both screens.
//!
//! [`Approval`] is the server's machine. It stands in front of [`crate::deployment::Deployment`]: an agent that is not approved gets no
//! number, no word of the image and no place, and is counted nowhere. [`Applicant`] is the agent's part of the code.

mod code;
mod list;
mod machine;
#[cfg(test)]
mod tests;

pub use code::{Applicant, BadCode, Code, Commitment, Share, WrongShare};
pub use list::{BadEntry, Identity, ListError, MAX_LIST, parse_list};
pub use machine::{Approval, ApprovalEvent, Boot, Caller, Entry, Held, HeldId, Rules, Typed, Unapproved};
