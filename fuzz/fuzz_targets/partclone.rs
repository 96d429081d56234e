//! The header and the map of used blocks of an image of partclone.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| slidecast_image::fuzzing::partclone(input));
