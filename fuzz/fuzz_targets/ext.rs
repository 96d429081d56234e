//! The free space of ext2, ext3 and ext4.
#![no_main]

use slidecast_image::fuzzing::{FileSystem, file_system};

libfuzzer_sys::fuzz_target!(|input: &[u8]| file_system(FileSystem::Ext, input));
