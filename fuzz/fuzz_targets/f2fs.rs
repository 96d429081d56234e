//! The free space of F2FS.
#![no_main]

use slidecast_image::fuzzing::{FileSystem, file_system};

libfuzzer_sys::fuzz_target!(|input: &[u8]| file_system(FileSystem::F2fs, input));
