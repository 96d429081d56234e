//! The lab: network namespaces, targets and processes for tests that use the real programs.
