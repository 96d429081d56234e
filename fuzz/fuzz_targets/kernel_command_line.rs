//! The kernel command line.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| slidecast_agent::fuzzing::kernel_command_line(input));
