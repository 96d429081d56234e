//! The layered, deduplicated image file: making it, resolving its layers, checking it, writing it out.
#![forbid(unsafe_code)]
