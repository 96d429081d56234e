//! The header of a frame and the payload of a Hello. A header is also read with its magic, version and checksum put right.
#![no_main]

use slidecast_proto::frame::{HEADER_LEN, Header, VERSION};
use slidecast_proto::link::Greeting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((bytes, payload)) = input.split_first_chunk::<HEADER_LEN>() else { return };
    let mut sealed = *bytes;
    sealed[..4].copy_from_slice(b"SLDF");
    sealed[4] = VERSION;
    let crc = crc32fast::hash(&sealed[..44]);
    sealed[44..].copy_from_slice(&crc.to_le_bytes());
    for bytes in [bytes, &sealed] {
        if let Ok(header) = Header::parse(bytes) {
            assert!(header.payload_len <= header.kind.payload_limit());
            assert_eq!(&header.encode(), bytes);
        }
    }
    let _ = Greeting::parse(payload);
});
