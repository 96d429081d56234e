//! A file with a disk in it, in whatever format its front says.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| slidecast_image::fuzzing::container(input));
