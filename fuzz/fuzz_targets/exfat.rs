//! The free space of exFAT.
#![no_main]

use slidecast_image::fuzzing::{FileSystem, file_system};

libfuzzer_sys::fuzz_target!(|input: &[u8]| file_system(FileSystem::Exfat, input));
