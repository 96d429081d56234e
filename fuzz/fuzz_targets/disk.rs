//! A whole disk: its table and what is in each partition.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| slidecast_image::fuzzing::disk(input));
