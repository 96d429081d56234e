//! Control messages: every one survives its bytes, no bytes hurt, and what other versions must understand is frozen.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use slidecast_proto::approval::{Commitment, Share};
use slidecast_proto::control::*;
use slidecast_proto::reason::{EndState, Free, LookedAt, Phase, Reason, Then, Verified, Verify};
use slidecast_proto::units::{BlockNo, DeploymentId, Epoch, Hash, LinkKey, MAX_BLOCKS, NodeId};
use std::net::{IpAddr, SocketAddr};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text that may travel as it is.
fn line(limit: usize) -> impl Strategy<Value = String> {
    "[ -~äß語]{0,40}".prop_filter("too long", move |text| text.len() <= limit)
}

fn deployment() -> impl Strategy<Value = DeploymentId> {
    any::<[u8; 16]>().prop_map(DeploymentId)
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<u32>().prop_map(NodeId)
}

fn block() -> impl Strategy<Value = BlockNo> {
    (0..MAX_BLOCKS).prop_map(BlockNo)
}

fn reason() -> impl Strategy<Value = Reason> {
    select(Reason::ALL)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn card() -> impl Strategy<Value = Card> {
    (line(64), any::<[u8; 6]>(), vec(address(), 0..=8), any::<u32>(), any::<bool>())
        .prop_map(|(name, mac, addresses, mbits, up)| Card { name, mac, addresses, mbits, up })
}

fn held() -> impl Strategy<Value = Held> {
    prop_oneof![
        Just(Held::No),
        line(255).prop_map(Held::Mounted),
        line(255).prop_map(Held::BootMedium),
        line(255).prop_map(Held::InUse)
    ]
}

fn disk() -> impl Strategy<Value = Disk> {
    let texts = (line(1024), line(255), line(255), line(255), line(64));
    let sizes = (any::<u64>(), any::<u32>(), any::<u32>());
    (texts, sizes, any::<[bool; 4]>(), held(), vec(line(1024), 0..3)).prop_map(|(texts, sizes, flags, held, paths)| {
        Disk {
            path: texts.0,
            model: texts.1,
            serial: texts.2,
            wwn: texts.3,
            transport: texts.4,
            bytes: sizes.0,
            logical_sector: sizes.1,
            physical_sector: sizes.2,
            rotational: flags[0],
            removable: flags[1],
            read_only: flags[2],
            held,
            file: flags[3],
            other_paths: paths,
        }
    })
}

fn hello() -> impl Strategy<Value = ToServer> {
    let who = (line(64), line(255), any::<[u8; 16]>(), any::<u64>(), any::<u16>(), line(1024));
    (who, vec(card(), 0..4), vec(disk(), 0..4)).prop_map(|(who, cards, disks)| {
        let (agent_version, hostname, boot, ram_bytes, link_port, target) = who;
        ToServer::Hello(Hello { agent_version, hostname, boot, ram_bytes, cards, disks, link_port, target })
    })
}

fn ready() -> impl Strategy<Value = ToServer> {
    (deployment(), line(1024), line(1024), any::<u64>(), any::<[bool; 3]>(), any::<u64>()).prop_map(
        |(deployment, target, describe, bytes, [rotational, direct, comparable], ring)| {
            ToServer::Ready(Ready { deployment, target, describe, bytes, rotational, direct, comparable, ring })
        },
    )
}

/// Ascending ranges out of their lengths and the gaps between them.
fn ranges() -> impl Strategy<Value = Vec<(u32, u32)>> {
    vec((0..2000_u32, 1..2000_u32), 0..=4096).prop_map(|steps| {
        let mut at = 0;
        let mut ranges = Vec::new();
        for (gap, len) in steps {
            ranges.push((at + gap, at + gap + len));
            at += gap + len;
        }
        ranges.into_iter().filter(|(_, end)| *end <= MAX_BLOCKS).collect()
    })
}

fn progress() -> impl Strategy<Value = ToServer> {
    let numbers = (any::<[u32; 3]>(), any::<[u64; 3]>(), any::<[u32; 4]>());
    (deployment(), any::<u64>(), select(Phase::ALL), numbers, ranges()).prop_map(
        |(deployment, epoch, phase, (counts, bytes, waits), durable_new)| {
            ToServer::Progress(Progress {
                deployment,
                epoch: Epoch(epoch),
                phase,
                accepted: counts[0],
                durable: counts[1],
                verified: counts[2],
                received_bytes: bytes[0],
                sent_bytes: bytes[1],
                written_bytes: bytes[2],
                wait_upstream_ms: waits[0],
                wait_downstream_ms: waits[1],
                wait_disk_ms: waits[2],
                pass_ended: waits[3],
                durable_new,
            })
        },
    )
}

fn ended() -> impl Strategy<Value = ToServer> {
    let how = (select(EndState::ALL), reason(), line(1024), select(Verified::ALL), select(LookedAt::ALL));
    (deployment(), any::<[u8; 32]>(), how, any::<[u32; 3]>()).prop_map(
        |(deployment, root, (state, reason, detail, verified, last_look), [blocks_written, blocks_kept, looked])| {
            ToServer::Ended(Ended {
                deployment,
                root: Hash(root),
                state,
                reason,
                detail,
                verified,
                blocks_written,
                blocks_kept,
                last_look,
                last_look_blocks: looked,
            })
        },
    )
}

fn to_server() -> impl Strategy<Value = ToServer> {
    let event = (deployment(), any::<u64>(), node(), select(Side::ALL), select(LinkState::ALL), reason(), line(1024));
    prop_oneof![
        hello(),
        ready(),
        (deployment(), reason(), line(1024)).prop_map(|(deployment, reason, detail)| ToServer::Refused(Refused {
            deployment,
            reason,
            detail
        })),
        progress(),
        event.prop_map(|(deployment, epoch, peer, side, state, reason, detail)| {
            ToServer::Link(LinkEvent { deployment, epoch: Epoch(epoch), peer, side, state, reason, detail })
        }),
        (deployment(), block(), node(), line(1024)).prop_map(|(deployment, block, from, detail)| {
            ToServer::BadBlock(BadBlock { deployment, block, from, detail })
        }),
        ended(),
        (1..=5_u8, line(1024)).prop_map(|(level, text)| ToServer::Log(LogLine { level, text })),
        Just(ToServer::Heartbeat),
        any::<[u8; 16]>().prop_map(|share| ToServer::ApprovalShare(Share(share))),
    ]
}

fn link_spec() -> impl Strategy<Value = LinkSpec> {
    (node(), address(), any::<u16>(), any::<[u8; 32]>(), select(LinkClass::ALL)).prop_map(
        |(node, address, port, key, class)| LinkSpec {
            node,
            address: SocketAddr::from((address, port)),
            key: LinkKey(key),
            class,
        },
    )
}

fn prepare() -> impl Strategy<Value = ToAgent> {
    let sizes = (1..=1_u64 << 60, 9..=16_u32, 16..=24_u32, 12..=16_u32);
    let choices = (select(Verify::ALL), select(Free::ALL), select(Then::ALL), any::<bool>());
    (deployment(), any::<[u8; 32]>(), line(1024), sizes, line(1024), choices).prop_map(
        |(deployment, root, image, (disk_bytes, sector, block, grain), selector, (verify, free, then, fresh))| {
            ToAgent::Prepare(Prepare {
                deployment,
                root: Hash(root),
                image,
                disk_bytes,
                sector: 1 << sector,
                block: 1 << block,
                grain: 1 << grain,
                selector,
                verify,
                free,
                then,
                fresh,
            })
        },
    )
}

fn join() -> impl Strategy<Value = ToAgent> {
    let place = (any::<u16>(), 1..=u16::MAX).prop_flat_map(|(chain, len)| (Just(chain), 1..=len, Just(len)));
    (deployment(), any::<u64>(), any::<u32>(), place, link_spec(), option::of(link_spec())).prop_map(
        |(deployment, epoch, pass, (chain, position, chain_len), upstream, downstream)| {
            let epoch = Epoch(epoch);
            ToAgent::Join(Join { deployment, epoch, pass, chain, position, chain_len, upstream, downstream })
        },
    )
}

fn to_agent() -> impl Strategy<Value = ToAgent> {
    prop_oneof![
        (node(), line(64)).prop_map(|(node, server_version)| ToAgent::Welcome(Welcome { node, server_version })),
        prepare(),
        join(),
        (deployment(), line(1024)).prop_map(|(deployment, detail)| ToAgent::Notice(Notice { deployment, detail })),
        (deployment(), select(Then::ALL)).prop_map(|(deployment, then)| ToAgent::Finish(Finish { deployment, then })),
        (deployment(), reason(), line(1024)).prop_map(|(deployment, reason, detail)| ToAgent::Abort(Abort {
            deployment,
            reason,
            detail
        })),
        Just(ToAgent::Heartbeat),
        (deployment(), line(1024)).prop_map(|(deployment, detail)| ToAgent::Notice(Notice { deployment, detail })),
        option::of(any::<[u8; 32]>())
            .prop_map(|bytes| { ToAgent::NotApproved(NotApproved { commitment: bytes.map(Commitment) }) }),
        any::<[u8; 16]>().prop_map(|share| ToAgent::ApprovalShare(Share(share))),
    ]
}

proptest! {
    #[test]
    fn a_message_to_the_server_survives_its_bytes(message in to_server()) {
        let bytes = message.encode();
        prop_assert!(bytes.len() <= MAX_MESSAGE);
        prop_assert_eq!(ToServer::parse(&bytes), Ok(message));
    }

    #[test]
    fn a_message_to_the_agent_survives_its_bytes(message in to_agent()) {
        let bytes = message.encode();
        prop_assert!(bytes.len() <= MAX_MESSAGE);
        prop_assert_eq!(ToAgent::parse(&bytes), Ok(message));
    }

    #[test]
    fn a_message_cut_short_or_made_longer_is_malformed(message in to_server(), cut in any::<prop::sample::Index>()) {
        let mut bytes = message.encode();
        prop_assert!(ToServer::parse(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(ToServer::parse(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_a_message_that_encodes_back_or_an_error(tag in 0..12_u8, mut bytes in vec(any::<u8>(), 0..400)) {
        bytes.insert(0, tag);
        if let Ok(message) = ToServer::parse(&bytes) {
            prop_assert_eq!(message.encode(), bytes.clone());
        }
        bytes[0] = tag | 0x80;
        if let Ok(message) = ToAgent::parse(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn a_message_with_one_byte_changed_is_a_message_or_an_error(
        message in to_server(), order in to_agent(), at in any::<prop::sample::Index>(), flip in 1..=255_u8
    ) {
        for mut bytes in [message.encode(), order.encode()] {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let _ = ToServer::parse(&bytes).map(|message| assert_eq!(message.encode(), bytes));
            let _ = ToAgent::parse(&bytes).map(|message| assert_eq!(message.encode(), bytes));
        }
    }
}

fn some_disk(path: &str) -> Disk {
    Disk {
        path: path.into(),
        model: "Model".into(),
        serial: "S1".into(),
        wwn: String::new(),
        transport: "nvme".into(),
        bytes: 1 << 30,
        logical_sector: 512,
        physical_sector: 4096,
        rotational: false,
        removable: false,
        read_only: false,
        held: Held::No,
        file: false,
        other_paths: Vec::new(),
    }
}

fn some_hello() -> Hello {
    Hello {
        agent_version: "0.1.0".into(),
        hostname: "pc7".into(),
        boot: [7; 16],
        ram_bytes: 0x0102_0304,
        cards: vec![Card {
            name: "eth0".into(),
            mac: [2, 0, 0, 0, 0, 1],
            addresses: vec![IpAddr::from([10, 0, 0, 7]), IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 7])],
            mbits: 1000,
            up: true,
        }],
        disks: vec![
            some_disk("/dev/nvme0n1"),
            Disk {
                held: Held::Mounted("/".into()),
                rotational: true,
                other_paths: vec!["/dev/sdb".into()],
                ..some_disk("/dev/sda")
            },
        ],
        link_port: 7532,
        target: "size=1G".into(),
    }
}

#[test]
fn the_bytes_of_a_hello_are_frozen() {
    let bytes = ToServer::Hello(some_hello()).encode();
    let expected = concat!(
        "01",                                                   // tag
        "0500302e312e30",                                       // agent version
        "0300706337",                                           // host name
        "07070707070707070707070707070707",                     // boot
        "0403020100000000",                                     // memory
        "6c1d",                                                 // link port
        "070073697a653d3147",                                   // the agent's own target
        "01000000",                                             // cards
        "040065746830020000000001",                             // name, hardware address
        "02000000040a00000706fe800000000000000000000000000007", // addresses
        "e803000001",                                           // Mbit/s, up
        "02000000",                                             // disks
        "0c002f6465762f6e766d65306e31",                         // path
        "05004d6f64656c02005331000004006e766d65",               // model, serial, world wide name, transport
        "00000040000000000002000000100000",                     // size, logical and physical sector
        "0000000000",                                           // rotational, removable, read-only, held, file
        "00000000",                                             // further paths
        "08002f6465762f736461",                                 // path
        "05004d6f64656c02005331000004006e766d65",               // model, serial, world wide name, transport
        "00000040000000000002000000100000",                     // size, logical and physical sector
        "0100000101002f00",     // rotational, removable, read-only, held: mounted at /, file
        "01000000",             // further paths
        "08002f6465762f736462", // a path
    );
    assert_eq!(hex(&bytes), expected);
}

#[test]
fn the_bytes_of_a_join_are_frozen() {
    let spec = |node, address: &str, class| LinkSpec {
        node: NodeId(node),
        address: address.parse().unwrap(),
        key: LinkKey([u8::try_from(node).unwrap() + 0x10; 32]),
        class,
    };
    let join = Join {
        deployment: DeploymentId([0xd0; 16]),
        epoch: Epoch(3),
        pass: 1,
        chain: 2,
        position: 4,
        chain_len: 5,
        upstream: spec(8, "0.0.0.0:0", LinkClass::Paced),
        downstream: Some(spec(9, "10.0.0.9:7532", LinkClass::Follower)),
    };
    let expected = concat!(
        "83",                                                               // tag
        "d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0",                                 // deployment
        "0300000000000000",                                                 // epoch
        "01000000",                                                         // pass
        "020004000500",                                                     // chain, position, length
        "0800000004000000000000",                                           // upstream: node, address, port
        "1818181818181818181818181818181818181818181818181818181818181818", // key
        "00",                                                               // paced
        "01",                                                               // there is a downstream
        "09000000040a0000096c1d",                                           // node, address, port
        "1919191919191919191919191919191919191919191919191919191919191919", // key
        "01",                                                               // follower
    );
    assert_eq!(hex(&ToAgent::Join(join).encode()), expected);
}

#[test]
fn a_heartbeat_is_one_byte_each_way() {
    assert_eq!(ToServer::Heartbeat.encode(), [9]);
    assert_eq!(ToAgent::Heartbeat.encode(), [0x87]);
    assert!(ToServer::parse(&[0x87]).is_err(), "a message in the wrong direction is malformed");
}

#[test]
fn an_inventory_of_256_usual_disks_fits() {
    let disks: Vec<_> = (0..256)
        .map(|no| Disk {
            model: "A maker's model name with 40 characters.".into(),
            serial: "S5GXNX0T123456ABCDEF".into(),
            wwn: "naa.5002538f31234567".into(),
            ..some_disk(&format!("/dev/sd{no}"))
        })
        .collect();
    let hello = ToServer::Hello(Hello { disks, ..some_hello() });
    assert_eq!(ToServer::parse(&hello.encode()), Ok(hello));
}

#[test]
fn an_inventory_that_is_too_long_keeps_its_first_cards_and_disks() {
    let long = "x".repeat(5000);
    let disks: Vec<_> = (0..300).map(|no| some_disk(&format!("{no}-{long}"))).collect();
    let cards = vec![Card { addresses: vec![IpAddr::from([1; 16]); 20], ..some_hello().cards[0].clone() }; 100];
    let bytes = ToServer::Hello(Hello { disks, cards, target: long, ..some_hello() }).encode();
    assert!(bytes.len() <= MAX_MESSAGE);
    let Ok(ToServer::Hello(hello)) = ToServer::parse(&bytes) else { panic!("malformed") };
    assert_eq!((hello.target.len(), hello.cards.len(), hello.cards[0].addresses.len()), (1024, 32, 8));
    assert!((50..256).contains(&hello.disks.len()), "{}", hello.disks.len());
    for (no, disk) in hello.disks.iter().enumerate() {
        assert!(disk.path.starts_with(&format!("{no}-")));
    }
}

fn some_progress(durable_new: Vec<(u32, u32)>) -> ToServer {
    ToServer::Progress(Progress {
        deployment: DeploymentId([0; 16]),
        epoch: Epoch(0),
        phase: Phase::Receiving,
        accepted: 0,
        durable: 0,
        verified: 0,
        received_bytes: 0,
        sent_bytes: 0,
        written_bytes: 0,
        wait_upstream_ms: 0,
        wait_downstream_ms: 0,
        wait_disk_ms: 0,
        pass_ended: 0,
        durable_new,
    })
}

#[test]
fn the_longest_progress_fits() {
    let bytes = some_progress((0..5000).map(|no| (2 * no, 2 * no + 1)).collect()).encode();
    assert!(bytes.len() <= MAX_MESSAGE);
    let Ok(ToServer::Progress(progress)) = ToServer::parse(&bytes) else { panic!("malformed") };
    assert_eq!(progress.durable_new.len(), MAX_RANGES as usize);
}

#[test]
fn ranges_that_are_empty_backwards_overlapping_or_past_the_last_block_are_malformed() {
    let progress = |ranges: &[(u32, u32)]| ToServer::parse(&some_progress(ranges.to_vec()).encode());
    assert!(progress(&[(0, 1), (1, 3), (7, MAX_BLOCKS)]).is_ok());
    for ranges in [&[(3, 3)][..], &[(4, 3)], &[(0, 4), (3, 5)], &[(5, 6), (0, 1)], &[(0, MAX_BLOCKS + 1)]] {
        assert!(progress(ranges).is_err(), "{ranges:?}");
    }
}

#[test]
fn control_characters_do_not_travel_and_are_refused() {
    let log = |text: &str| ToServer::Log(LogLine { level: 3, text: text.into() });
    let bytes = log("a\n\u{1b}[2Jb").encode();
    assert_eq!(ToServer::parse(&bytes), Ok(log("a\u{fffd}\u{fffd}[2Jb")));
    assert!(ToServer::parse(&[8, 3, 1, 0, b'\n']).is_err());
    assert!(ToServer::parse(&[8, 3, 1, 0, 0xff]).is_err(), "no UTF-8");
    assert!(ToServer::parse(&[8, 6, 1, 0, b'a']).is_err(), "no such level");
}

#[test]
fn a_prepare_with_impossible_sizes_is_malformed() {
    let prepare = |disk_bytes, sector, block, grain| {
        let prepare = Prepare {
            deployment: DeploymentId([0; 16]),
            root: Hash([0; 32]),
            image: String::new(),
            disk_bytes,
            sector,
            block,
            grain,
            selector: String::new(),
            verify: Verify::Full,
            free: Free::Keep,
            then: Then::Hold,
            fresh: false,
        };
        ToAgent::parse(&ToAgent::Prepare(prepare).encode()).is_ok()
    };
    assert!(prepare(1 << 40, 512, 1 << 20, 4096));
    assert!(!prepare(0, 512, 1 << 20, 4096));
    assert!(!prepare((1 << 60) + 1, 512, 1 << 20, 4096));
    assert!(!prepare(1 << 40, 0, 1 << 20, 4096));
    assert!(!prepare(1 << 40, 520, 1 << 20, 4096));
    assert!(!prepare(1 << 40, 512, 1 << 25, 4096));
    assert!(!prepare(1 << 40, 512, 0, 4096));
    assert!(!prepare(1 << 40, 512, 1 << 20, 0));
    assert!(!prepare(1 << 40, 512, 1 << 20, 1 << 21));
    assert!(!prepare(1 << 40, 512, 1 << 20, 512));
}

#[test]
fn a_link_key_is_not_shown() {
    let spec = LinkSpec {
        node: NodeId(1),
        address: "10.0.0.1:1".parse().unwrap(),
        key: LinkKey([0xab; 32]),
        class: LinkClass::Paced,
    };
    assert!(!format!("{spec:?}").contains("171"));
    assert!(!format!("{spec:?}").contains("ab, "));
}

#[test]
fn the_bytes_of_an_approval_are_frozen() {
    assert_eq!(hex(&ToAgent::NotApproved(NotApproved { commitment: None }).encode()), "8900");
    let commitment = Some(Commitment([0xab; 32]));
    assert_eq!(hex(&ToAgent::NotApproved(NotApproved { commitment }).encode()), format!("8901{}", "ab".repeat(32)));
    assert_eq!(hex(&ToServer::ApprovalShare(Share([1; 16])).encode()), format!("0a{}", "01".repeat(16)));
    assert_eq!(hex(&ToAgent::ApprovalShare(Share([2; 16])).encode()), format!("8a{}", "02".repeat(16)));
}
