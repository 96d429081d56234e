//! The datagrams of discovery, read by the agent and by the server.
#![no_main]

use slidecast_proto::discovery::{Offer, Responder, Seek};
use slidecast_proto::units::{DeploymentId, Time};
use std::net::IpAddr;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let seek = Seek::parse(input);
    if let Ok(seek) = seek {
        assert_eq!(Seek::parse(&seek.encode()), Ok(seek));
    }
    let nonce = input.get(16..24).and_then(|nonce| nonce.try_into().ok()).unwrap_or([0; 8]);
    if let Ok(offer) = Offer::parse(input, nonce) {
        assert_eq!(Offer::parse(&offer.encode(nonce), nonce), Ok(offer));
    }
    if seek.is_ok() {
        let offer = Offer { server: None, port: 7531, deployment: DeploymentId([3; 16]) };
        let mut server = Responder::new(offer, None);
        let [agent, ours] = [[10, 0, 0, 7], [10, 0, 0, 1]].map(IpAddr::from);
        let answer = server.on_datagram(agent, ours, input, Time(1_000_000));
        // Nobody makes a server send more than was sent to it.
        assert!(answer.is_some_and(|answer| answer.bytes.len() <= input.len()));
    }
});
