//! Partition tables.

pub(crate) mod gpt;
