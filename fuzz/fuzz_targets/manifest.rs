//! A manifest header, or a part of a manifest.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| slidecast_image::fuzzing::manifest(input));
