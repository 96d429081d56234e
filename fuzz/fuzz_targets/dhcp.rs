//! What a DHCP server, or anybody else, sends to a machine that boots.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| slidecast_agent::fuzzing::dhcp(input));
