use super::*;
use slidecast_image::store::{LayerBytes, LayerStore, LocalFiles};
use slidecast_image::{CreateOptions, Image, create};
use slidecast_proto::control::LinkClass;
use slidecast_proto::feed::PATIENCE;
use slidecast_proto::frame::{HEADER_LEN, Header, Kind};
use slidecast_proto::link::{Receiver, ReceiverEvent, Terms};
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::{BlockNo, DeploymentId, Epoch, LinkKey, NodeId, Time};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver as NewsReceiver};
use std::time::Duration;

/// More than the image, so that credit is never short.
const RING: u64 = 64 << 20;

struct Bench {
    dir: tempfile::TempDir,
    context: Arc<FeedContext>,
    news: NewsReceiver<FeedEvent>,
    listener: TcpListener,
}

fn terms() -> Terms {
    Terms {
        deployment: DeploymentId([1; 16]),
        epoch: Epoch(1),
        pass: 1,
        from: NodeId::SERVER,
        to: NodeId(1),
        key: LinkKey([7; 32]),
        class: LinkClass::Paced,
    }
}

/// An image of 8 MiB that does not compress, in blocks of 1 MiB, and a place where a head may listen.
fn bench() -> Bench {
    bench_in(&LocalFiles)
}

/// Local files as a store that has no file descriptors.
#[derive(Debug)]
struct Remote;

#[derive(Debug)]
struct RemoteLayer(Arc<dyn LayerBytes>);

impl LayerStore for Remote {
    fn open(&self, path: &std::path::Path) -> io::Result<Arc<dyn LayerBytes>> {
        Ok(Arc::new(RemoteLayer(LocalFiles.open(path)?)))
    }

    fn beside(&self, path: &std::path::Path) -> Vec<PathBuf> {
        LocalFiles.beside(path)
    }
}

impl LayerBytes for RemoteLayer {
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }
}

/// The same, with the layers in `store`.
fn bench_in(store: &dyn LayerStore) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let (disk, path) = (dir.path().join("disk.raw"), layer(dir.path()));
    let mut bytes = vec![0; 8 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    std::fs::write(&disk, &bytes).unwrap();
    create(&CreateOptions::new(&disk, &path), |_| {}).unwrap();
    let image = Arc::new(Image::open_in(store, &path).unwrap().resolve().unwrap());
    let shape = image.header().shape();
    let (tell, news) = mpsc::channel();
    let context = FeedContext {
        image,
        shape: Arc::new(shape),
        clock: Clock::start(),
        egress: AtomicU64::new(0),
        tell: Box::new(move |_, event| drop(tell.send(event))),
    };
    Bench { dir, context: Arc::new(context), news, listener: TcpListener::bind("127.0.0.1:0").unwrap() }
}

fn layer(dir: &std::path::Path) -> PathBuf {
    dir.join("base.slide")
}

impl Bench {
    fn start(&self) -> Feed {
        let address = self.listener.local_addr().unwrap();
        let blocks = BlockSet::full(self.context.shape.blocks);
        Feed::start(1, 0, FeedOrder { terms: terms(), address, blocks }, self.context.clone()).unwrap()
    }

    fn next_news(&self) -> FeedEvent {
        self.news.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    /// Answers the next call as a head that lacks `lacks`; gives the blocks that come before the end, or the first `most`;
    /// nothing if the feed hung up before.
    fn take(&self, lacks: &BlockSet, most: usize) -> Option<Vec<u32>> {
        let (mut link, _) = self.listener.accept().unwrap();
        link.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut receiver: Option<Receiver> = None;
        let mut blocks = Vec::new();
        while blocks.len() < most {
            let (header, payload) = frame(&mut link)?;
            let now = Time(1);
            let Some(receiver) = &mut receiver else {
                receiver = Some(Receiver::answer(terms(), &header, &payload, false, [2; 16], now).unwrap());
                write(&mut link, receiver.as_mut().unwrap())?;
                continue;
            };
            if header.kind == Kind::Block {
                assert_eq!(crc32fast::hash(&payload), header.payload_crc);
                receiver.on_block(&header, now).unwrap();
                receiver.on_block_complete(BlockNo(header.number));
                blocks.push(header.number);
            } else {
                match receiver.on_frame(&header, &payload, now).unwrap() {
                    ReceiverEvent::Manifest => receiver.say_lacks(lacks),
                    ReceiverEvent::End(_) => break,
                    _ => {}
                }
            }
            receiver.on_time(0, RING, RING, now).unwrap();
            write(&mut link, receiver)?;
        }
        Some(blocks)
    }
}

fn frame(link: &mut TcpStream) -> Option<(Header, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    link.read_exact(&mut head).ok()?;
    let header = Header::parse(&head).unwrap();
    let mut payload = vec![0; header.payload_len as usize];
    link.read_exact(&mut payload).ok()?;
    Some((header, payload))
}

fn write(link: &mut TcpStream, receiver: &mut Receiver) -> Option<()> {
    while let Some(bytes) = receiver.poll_control() {
        link.write_all(&bytes).ok()?;
    }
    Some(())
}

#[test]
fn a_head_gets_what_it_lacks_in_order_and_bytes_sent_are_counted() {
    let bench = bench();
    let feed = bench.start();
    let mut lacks = BlockSet::full(8);
    lacks.remove(BlockNo(3));
    assert_eq!(bench.take(&lacks, usize::MAX).unwrap(), [0, 1, 2, 4, 5, 6, 7]);
    assert_eq!((bench.next_news(), bench.next_news()), (FeedEvent::Up, FeedEvent::Ended));
    let egress = bench.context.egress.load(Ordering::Relaxed);
    assert!((7 << 20..(7 << 20) + (64 << 10)).contains(&egress), "{egress}");
    drop(feed);
}

#[test]
fn a_connection_that_breaks_is_made_again_and_goes_on_with_what_is_lacking() {
    let bench = bench();
    let _feed = bench.start();
    assert_eq!(bench.take(&BlockSet::full(8), 2).unwrap(), [0, 1]);
    let mut lacks = BlockSet::full(8);
    (0..2).for_each(|block| assert!(lacks.remove(BlockNo(block))));
    assert_eq!(bench.take(&lacks, usize::MAX).unwrap(), [2, 3, 4, 5, 6, 7]);
    assert_eq!(bench.next_news(), FeedEvent::Up);
    assert!(matches!(bench.next_news(), FeedEvent::Broken { .. }), "the server is told at once");
    assert_eq!(bench.next_news(), FeedEvent::Ended);
}

#[test]
fn a_head_that_is_not_there_is_given_up_by_name() {
    let bench = bench();
    let feed = bench.start();
    let address = bench.listener.local_addr().unwrap();
    let Bench { context: _context, news, listener, dir: _dir } = bench;
    drop(listener);
    let FeedEvent::Down { detail, damaged: false } = news.recv_timeout(PATIENCE * 3).unwrap() else { panic!("no end") };
    assert!(detail.starts_with(&format!("link to node 1 at {address}: ")), "{detail}");
    drop(feed);
}

#[test]
fn a_head_whose_kernel_answers_and_nobody_else_is_called_once() {
    let bench = bench();
    let _feed = bench.start();
    let FeedEvent::Down { detail, damaged: false } = bench.next_news() else { panic!("no end") };
    assert!(detail.contains("handshake"), "{detail}");
    bench.listener.set_nonblocking(true).unwrap();
    assert_eq!(std::iter::from_fn(|| bench.listener.accept().ok()).count(), 1);
}

#[test]
fn a_head_whose_every_answer_is_damaged_is_called_three_times_and_told_of() {
    let bench = bench();
    let _feed = bench.start();
    for _ in 0..3 {
        let (mut link, _) = bench.listener.accept().unwrap();
        frame(&mut link).unwrap();
        let mut answer = Header::bare(Kind::Accept, DeploymentId([1; 16]), 0).encode();
        answer[20] ^= 1;
        link.write_all(&answer).unwrap();
    }
    assert!(matches!(bench.next_news(), FeedEvent::Down { damaged: true, .. }));
}

#[test]
fn a_store_without_file_descriptors_is_read_and_sent() {
    let bench = bench_in(&Remote);
    let _feed = bench.start();
    assert_eq!(bench.take(&BlockSet::full(8), usize::MAX).unwrap(), Vec::from_iter(0..8));
    assert_eq!((bench.next_news(), bench.next_news()), (FeedEvent::Up, FeedEvent::Ended));
}

#[test]
fn a_layer_that_lost_its_end_is_named_with_block_and_place_whatever_its_store() {
    for store in [&LocalFiles as &dyn LayerStore, &Remote] {
        lost_end(store);
    }
}

fn lost_end(store: &dyn LayerStore) {
    let bench = bench_in(store);
    let path = layer(bench.dir.path());
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(3 << 20).unwrap();
    let _feed = bench.start();
    assert_eq!(bench.take(&BlockSet::full(8), usize::MAX), None);
    assert_eq!(bench.next_news(), FeedEvent::Up);
    let FeedEvent::ImageCorrupt(detail) = bench.next_news() else { panic!("no such news") };
    assert!(detail.starts_with("reading block 2 at ") && detail.contains("base.slide"), "{detail}");
}
