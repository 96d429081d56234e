use super::*;
use slidecast_proto::frame::{Header, HeaderError, Kind};
use slidecast_proto::units::DeploymentId;
use std::io::{self, ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

const DEPLOYMENT: DeploymentId = DeploymentId([3; 16]);

/// Gives at most so many bytes per call, then would block once.
struct Dribble<'a> {
    bytes: &'a [u8],
    most: usize,
    dry: bool,
}

impl Read for Dribble<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.dry = !self.dry;
        if self.dry && !self.bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let most = self.most.min(out.len());
        self.bytes.read(&mut out[..most])
    }
}

fn block(number: u32, payload: &[u8]) -> Header {
    let raw_len = u32::try_from(payload.len()).unwrap();
    Header { raw_len, ..Header::with_payload(Kind::Block, DEPLOYMENT, number, payload) }
}

fn control(number: u32, payload: &[u8]) -> Vec<u8> {
    [&Header::with_payload(Kind::Part, DEPLOYMENT, number, payload).encode()[..], payload].concat()
}

fn trusting() -> FrameReader<Vec<u8>> {
    let mut reader = FrameReader::new(0);
    reader.trust();
    reader
}

/// Reads until the end, and skips the blocks with the number `skip`: what arrived, in words.
fn read_all(reader: &mut FrameReader<Vec<u8>>, source: &mut impl Read, skip: u32) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        while let Some(arrival) = reader.poll().unwrap() {
            seen.push(match arrival {
                Arrival::Announced(header) if header.number == skip => {
                    reader.skip();
                    continue;
                }
                Arrival::Announced(header) => {
                    reader.receive_into(vec![0; header.payload_len as usize]);
                    continue;
                }
                Arrival::Block { header, payload, crc } => {
                    let sum: u64 = payload.iter().map(|byte| u64::from(*byte)).sum();
                    format!("block {} {sum} {}", header.number, crc == header.payload_crc)
                }
                Arrival::Skipped(header) => format!("skipped {}", header.number),
                Arrival::Control(header, payload) => format!("{:?} {} {payload:?}", header.kind, header.number),
            });
        }
        match reader.read(source) {
            Ok(_) => {}
            Err(ReadError::Closed) => return seen,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn frames_are_cut_right_however_the_bytes_come() {
    let (small, large) = (vec![1; 100], vec![2; 200_000]);
    let damaged = Header { payload_crc: 7, ..block(4, &small) };
    let stream = [
        &Header::bare(Kind::Beat, DEPLOYMENT, 0).encode()[..],
        &block(1, &large).encode(),
        &large,
        &control(2, &[5, 6]),
        &block(3, &large).encode(),
        &large,
        &damaged.encode(),
        &small,
    ]
    .concat();
    for most in [1, 47, 48, 49, 1000, 1 << 20] {
        let mut reader = trusting();
        let mut source = Dribble { bytes: &stream, most, dry: true };
        let seen = read_all(&mut reader, &mut source, 3);
        assert_eq!(seen, ["Beat 0 []", "block 1 400000 true", "Part 2 [5, 6]", "skipped 3", "block 4 100 false"]);
    }
}

#[test]
fn nothing_is_read_while_a_block_waits_for_its_place() {
    let stream = [&block(1, &[9; 100]).encode()[..], &[9; 100]].concat();
    let mut reader = trusting();
    let mut source = &stream[..];
    reader.read(&mut source).unwrap();
    assert!(matches!(reader.poll(), Ok(Some(Arrival::Announced(_)))));
    assert_eq!(reader.read(&mut source).unwrap(), Moved { bytes: 0, blocked: false });
    assert_eq!((source.len(), reader.announced().map(|header| header.number)), (100, Some(1)));
}

#[test]
fn a_stranger_can_send_neither_blocks_nor_long_frames() {
    let long = Header { payload_len: 4 << 20, ..Header::bare(Kind::Manifest, DEPLOYMENT, 0) };
    for (bytes, kind) in [(block(1, &[1]).encode(), Kind::Block), (long.encode(), Kind::Manifest)] {
        let mut reader = FrameReader::<Vec<u8>>::new(512);
        reader.read(&mut &bytes[..]).unwrap();
        assert!(matches!(reader.poll(), Err(ReadError::Early(early)) if early.kind == kind));
    }
    let mut reader = FrameReader::<Vec<u8>>::new(512);
    reader.read(&mut &[b'G'; 48][..]).unwrap();
    assert!(matches!(reader.poll(), Err(ReadError::Header(HeaderError::Magic))));
}

#[test]
fn what_is_written_into_a_socket_arrives_on_the_other_side() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut out = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut back, _) = listener.accept().unwrap();
    let there = std::thread::spawn(move || read_all(&mut trusting(), &mut back, u32::MAX));
    out.set_nonblocking(true).unwrap();
    let payload: Arc<[u8]> = vec![1; 1 << 20].into();
    let mut writer = FrameWriter::default();
    for number in 0..20 {
        let part: Arc<[u8]> = vec![4].into();
        let head = Header::with_payload(Kind::Part, DEPLOYMENT, number, &part).encode();
        for frame in [
            Outgoing::Block(block(number, &payload).encode(), Arc::clone(&payload)),
            Outgoing::Shared(head, part),
            Outgoing::Bytes(control(number, &[5])),
        ] {
            writer.start(frame);
            while !writer.is_idle() {
                if writer.write(&mut out).unwrap().blocked {
                    std::thread::yield_now();
                }
            }
        }
    }
    assert_eq!(Arc::strong_count(&payload), 1, "what was written is let go");
    drop(out);
    let expected =
        (0..20).flat_map(|n| [format!("block {n} 1048576 true"), format!("Part {n} [4]"), format!("Part {n} [5]")]);
    assert_eq!(there.join().unwrap(), expected.collect::<Vec<_>>());
}
