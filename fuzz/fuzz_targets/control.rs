//! Messages of the control link, in both directions.
#![no_main]

use slidecast_proto::control::{MAX_MESSAGE, ToAgent, ToServer};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(message) = ToAgent::parse(input) {
        let encoded = message.encode();
        assert!(encoded.len() <= MAX_MESSAGE);
        assert_eq!(ToAgent::parse(&encoded), Ok(message));
    }
    if let Ok(message) = ToServer::parse(input) {
        let encoded = message.encode();
        assert!(encoded.len() <= MAX_MESSAGE);
        assert_eq!(ToServer::parse(&encoded), Ok(message));
    }
});
