//! A layer file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| slidecast_image::fuzzing::layer(input));
