//! GPT and MBR, and the backup GPT on a larger disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| slidecast_image::fuzzing::partition_table(input));
