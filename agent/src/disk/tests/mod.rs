//! The engine as a whole, on targets that record and break.

pub(super) mod manifest;
