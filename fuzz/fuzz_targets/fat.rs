//! The free space of FAT12, FAT16 and FAT32.
#![no_main]

use slidecast_image::fuzzing::{FileSystem, file_system};

libfuzzer_sys::fuzz_target!(|input: &[u8]| file_system(FileSystem::Fat, input));
