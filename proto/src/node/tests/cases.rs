//! What holds for a chain of nodes.

use super::*;

#[test]
fn every_node_of_a_chain_writes_every_block_once() {
    for nodes in [1, 2, 3, 7] {
        let mut world = World::new(nodes, 203);
        world.run(Duration::from_secs(3));
        for at in 0..nodes as usize {
            world.assert_complete(at);
            assert_eq!(world.rigs[at].node.relay_log.held(), 0, "nothing is left in the ring of node {at}");
            assert!(world.rigs[at].most_held <= RING);
        }
    }
}

#[test]
fn a_stuck_disk_pauses_reception_and_nothing_is_lost_when_it_goes_on() {
    let mut world = World::new(3, 203);
    world.rigs[1].disk_stuck = true;
    world.run(Duration::from_secs(3));
    assert!(!world.rigs[0].finished && !world.rigs[2].finished);
    assert_eq!(world.rigs[1].most_held, RING, "the ring is full and no fuller");
    assert!(
        world.rigs[1].told.iter().all(|told| !matches!(told, ToServer::Link(event) if event.state == LinkState::Down))
    );
    world.rigs[1].disk_stuck = false;
    world.run(Duration::from_secs(3));
    (0..3).for_each(|at| world.assert_complete(at));
}

#[test]
fn a_damaged_block_is_fetched_once_more_and_a_second_time_ends_the_link() {
    let mut world = World::new(3, 50);
    world.damage = Some((1, BlockNo(10), 1));
    world.run(Duration::from_secs(2));
    (0..3).for_each(|at| world.assert_complete(at));

    let mut world = World::new(3, 50);
    world.damage = Some((1, BlockNo(10), 2));
    world.run(Duration::from_secs(2));
    let down = world.rigs[1].told.iter().any(|told| {
        matches!(told, ToServer::Link(event) if event.reason == Reason::LinkCorrupt && event.state == LinkState::Down)
    });
    assert!(down, "the server is told why: {:?}", world.rigs[1].told);
}

#[test]
fn a_block_that_came_damaged_is_asked_for_once_more_on_every_link() {
    let mut world = World::new(1, 50);
    world.damage = Some((0, BlockNo(10), 2));
    world.run(Duration::from_secs(1));
    assert_eq!(world.cut, [0]);
    world.cut.clear();
    world.damage = Some((0, BlockNo(10), 1));
    world.feed = feed(&world.image, &join(1, 1, 1), world.now);
    world.run(Duration::from_secs(2));
    world.assert_complete(0);
}

#[test]
fn a_block_read_back_wrong_is_fetched_through_the_chain_although_the_rings_let_it_go() {
    let mut world = World::new(3, 50);
    world.rigs[2].disk_stuck = true;
    world.run(Duration::from_millis(500));
    world.rigs[2].disk_stuck = false;
    world.run(Duration::from_secs(1));
    world.assert_complete(2);

    let mut world = World::new(3, 50);
    world.run(Duration::from_secs(1));
    let (bad, now) = (BlockNo(3), world.now);
    world.rigs[2].node.disk = Disk::Writing;
    world.rigs[2].finished = false;
    world.rigs[2].node.on_bad_content(bad, true);
    world.rigs[2].node.on_time(now);
    world.run(Duration::from_secs(1));
    assert!(world.rigs[2].finished);
    assert_eq!(world.rigs[2].written.iter().filter(|block| **block == bad).count(), 2);
    assert_eq!(world.rigs[1].written.iter().filter(|block| **block == bad).count(), 1, "a relay does not write again");
}

#[test]
fn a_block_that_came_wrong_once_and_is_then_read_back_wrong_once_is_no_fault_of_the_disk() {
    let mut world = World::new(1, 50);
    world.rigs[0].disk_stuck = true;
    world.run(Duration::from_millis(300));
    let block = world.rigs[0].pending.pop_front().unwrap();
    world.rigs[0].node.on_bad_content(block, false);
    world.run(Duration::from_millis(300));
    world.rigs[0].pending.retain(|other| *other != block);
    world.rigs[0].node.on_bad_content(block, true);
    world.rigs[0].disk_stuck = false;
    world.run(Duration::from_secs(2));
    world.assert_complete(0);
}

#[test]
fn content_that_stays_wrong_fails_the_disk_but_not_the_relay() {
    let mut world = World::new(2, 50);
    world.rigs[0].disk_stuck = true;
    world.run(Duration::from_millis(300));
    let block = world.rigs[0].pending.pop_front().unwrap();
    world.rigs[0].node.on_bad_content(block, false);
    world.run(Duration::from_millis(300));
    world.rigs[0].node.on_bad_content(block, false);
    world.run(Duration::from_secs(2));
    assert_eq!(world.rigs[0].node.ended(), Some(EndState::Failed));
    world.assert_complete(1);
}

#[test]
fn a_silent_downstream_is_reported_and_the_rest_goes_on() {
    let mut world = World::new(3, 203);
    world.run(Duration::from_millis(5));
    world.cut.push(2);
    world.run(Duration::from_secs(4));
    world.assert_complete(0);
    world.assert_complete(1);
    let seen = world.rigs[1].told.iter().any(|told| {
        matches!(told, ToServer::Link(event) if event.side == Side::Downstream
            && event.reason == Reason::TimedOut && event.peer == NodeId(3))
    });
    assert!(seen, "{:?}", world.rigs[1].told);
}

#[test]
fn the_ring_is_kept_for_a_new_downstream_and_not_for_ever() {
    let mut world = World::new(3, 203);
    // The ring of node 2 fills with what node 3 does not take any more.
    world.run(Duration::from_millis(5));
    world.cut.push(2);
    world.run(Duration::from_millis(1500));
    let kept = |world: &World| (world.rigs[1].node.relay_log.first_id(), world.rigs[1].node.relay_log.held());
    let (first, held) = kept(&world);
    assert!(held > RING * 3 / 4, "{held}");
    let lost = LinkFault::Broken("reset".to_owned());
    world.rigs[1].node.on_link_lost(Side::Downstream, &lost, world.now);
    world.run(Duration::from_millis(500));
    assert_eq!(kept(&world).0, first, "whoever comes in its place may need all of it");
    world.run(Duration::from_secs(4));
    world.assert_complete(0);
    world.assert_complete(1);
}

#[test]
fn an_order_below_the_highest_epoch_is_dropped() {
    let mut world = World::new(2, 10);
    let now = world.now;
    let join = |epoch| Join {
        deployment: DEPLOYMENT,
        epoch: Epoch(1_u64 << 32 | epoch),
        pass: 1,
        chain: 0,
        position: 1,
        chain_len: 1,
        upstream: LinkSpec { node: NodeId(9), ..spec(1) },
        downstream: None,
    };
    world.rigs[0].node.on_join(&join(0), now);
    assert_eq!(world.rigs[0].node.upstream.terms().map(|terms| terms.from), Some(NodeId::SERVER));
    world.rigs[0].node.on_join(&join(2), now);
    assert_eq!(world.rigs[0].node.upstream.terms().map(|terms| terms.from), Some(NodeId(9)));
}

#[test]
fn durable_blocks_are_reported_once() {
    let mut world = World::new(1, 50);
    world.run(Duration::from_secs(1));
    let last = ToServer::Progress(world.rigs[0].node.progress(0));
    let reported: Vec<u32> = world.rigs[0]
        .told
        .iter()
        .chain([&last])
        .filter_map(|told| if let ToServer::Progress(progress) = told { Some(progress) } else { None })
        .flat_map(|progress| progress.durable_new.iter().flat_map(|(start, end)| *start..*end))
        .collect();
    assert_eq!(reported.len(), 50, "{reported:?}");
    assert!(world.rigs[0].node.progress(0).durable_new.is_empty());
}

#[test]
fn nodes_compare_first_and_then_get_only_what_they_lack() {
    let mut world = World::in_pass(0, 3, 203);
    let held = |world: &mut World, at: usize, lacking: &[u32]| {
        world.rigs[at].holds = Some((0..203).filter(|block| !lacking.contains(block)).collect());
    };
    held(&mut world, 0, &[10, 100, 104]);
    held(&mut world, 2, &[10, 11]);
    world.run(Duration::from_secs(1));
    assert!((0..3).all(|at| world.phase(at) == Phase::Waiting && world.rigs[at].written.is_empty()));
    assert!((0..3).all(|at| world.rigs[at].pending.is_empty()));
    world.main_pass();
    world.run(Duration::from_secs(3));
    world.assert_complete(1);
    for (at, lacking) in [(0, [10, 100, 104].map(BlockNo).to_vec()), (2, [10, 11].map(BlockNo).to_vec())] {
        world.rigs[at].written.sort();
        assert_eq!(world.rigs[at].written, lacking);
        assert!(world.rigs[at].finished);
    }
}

#[test]
fn a_node_that_lacks_nothing_finishes_without_a_write_and_still_passes_parts_on() {
    let mut world = World::in_pass(0, 2, 50);
    world.rigs[0].holds = Some((0..50).collect());
    world.rigs[1].holds = Some((1..50).collect());
    world.run(Duration::from_secs(1));
    assert!(world.rigs[0].finished && world.rigs[0].written.is_empty());
    assert!(!world.rigs[1].finished);
    world.main_pass();
    world.run(Duration::from_secs(1));
    assert!(world.rigs[0].written.is_empty());
    assert_eq!(world.rigs[1].written, [BlockNo(0)]);
    assert!(world.rigs[1].finished);
}

#[test]
fn a_disk_that_compares_slowly_holds_up_parts_instead_of_filling_the_memory() {
    // 4 KiB of credit are counted for each part, so not all 100 fit the ring of 128 KiB.
    let mut world = World::in_pass(0, 1, 800);
    world.rigs[0].holds = Some(Vec::new());
    world.rigs[0].disk_stuck = true;
    world.run(Duration::from_secs(1));
    let waiting = world.rigs[0].to_compare.len();
    assert!((2..=32).contains(&waiting), "{waiting}");
    assert_eq!(world.phase(0), Phase::Preparing);
    world.rigs[0].disk_stuck = false;
    world.run(Duration::from_secs(1));
    assert_eq!(world.phase(0), Phase::Waiting);
}

#[test]
fn what_is_not_compared_when_the_main_pass_begins_is_sent() {
    let mut world = World::in_pass(0, 1, 50);
    world.rigs[0].holds = Some((0..50).collect());
    world.rigs[0].disk_stuck = true;
    world.run(Duration::from_secs(1));
    world.rigs[0].to_compare.clear();
    world.rigs[0].holds = None;
    world.rigs[0].disk_stuck = false;
    world.main_pass();
    world.run(Duration::from_secs(1));
    world.assert_complete(0);
}

#[test]
fn a_node_that_loses_its_downstream_in_the_middle_of_a_frame_gets_its_ring_back() {
    let mut world = World::new(2, 203);
    world.rigs[1].disk_stuck = true;
    world.run(Duration::from_millis(300));
    world.rigs[1].disk_stuck = false;
    world.act(1);
    world.now = world.now.after(Duration::from_millis(60));
    let now = world.now;
    world.rigs[1].node.on_time(now);
    while let Some(transmit) = world.rigs[1].node.poll_transmit(Side::Upstream) {
        let Transmit::Bytes(bytes) = &transmit else { panic!("only control frames go up") };
        let (header, payload) = split(bytes);
        world.rigs[1].node.on_transmitted(Side::Upstream, &transmit, now);
        world.rigs[0].node.on_control(Side::Downstream, &header, payload, now).unwrap();
    }
    // Beats and parts may come first; the block never gets out.
    loop {
        match world.rigs[0].node.poll_transmit(Side::Downstream).unwrap() {
            Transmit::Block(..) => break,
            other => world.rigs[0].node.on_transmitted(Side::Downstream, &other, now),
        }
    }
    world.cut.push(1);
    world.rigs[0].node.on_join(&join(1, 1, 1), now);
    world.run(Duration::from_secs(3));
    world.assert_complete(0);
}

#[test]
fn a_server_that_is_back_is_told_again_what_is_durable_and_how_it_ended() {
    let mut world = World::new(1, 50);
    world.run(Duration::from_secs(1));
    let rig = &mut world.rigs[0];
    rig.node.on_disk_ended(DiskEnd { verified: Verified::Direct, written: 50, ..DiskEnd::default() }, "");
    while rig.node.poll().is_some() {}
    assert!(rig.node.progress(0).durable_new.is_empty());
    rig.node.on_server_back();
    let told: Vec<Act> = std::iter::from_fn(|| rig.node.poll()).collect();
    let [Act::Tell(ToServer::Ended(ended)), Act::Tell(ToServer::Progress(progress))] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((ended.state, ended.blocks_written), (EndState::Done, 50));
    assert_eq!(progress.durable_new, [(0, 50)]);
}

#[test]
fn wrong_content_from_a_neighbour_waits_for_another_pass_and_from_the_server_it_fails() {
    let mut world = World::new(2, 50);
    world.rigs[1].disk_stuck = true;
    world.run(Duration::from_millis(300));
    let block = world.rigs[1].pending.pop_front().unwrap();
    (0..5).for_each(|_| world.rigs[1].node.on_bad_content(block, false));
    assert_eq!(world.rigs[1].node.ended(), None);
    assert!(!world.rigs[1].node.blocks.accepted().contains(block));
    let mut world = World::new(1, 50);
    world.run(Duration::from_millis(5));
    (0..2).for_each(|_| world.rigs[0].node.on_bad_content(BlockNo(0), false));
    assert_eq!(world.rigs[0].node.ended(), Some(EndState::Failed));
}

#[test]
fn what_a_downstream_lacks_may_be_said_before_the_upstream_knows_the_image() {
    let mut world = World::new(2, 50);
    let header = world.image.manifest().to_vec();
    world.rigs[1].node.manifest.take_header(header, Hash::of(world.image.manifest)).unwrap();
    world.rigs[1].node.on_shape(world.image.shape());
    world.run(Duration::from_secs(2));
    (0..2).for_each(|at| world.assert_complete(at));
    let down = |told: &ToServer| matches!(told, ToServer::Link(event) if event.state == LinkState::Down);
    assert!(!world.rigs.iter().any(|rig| rig.told.iter().any(down)));
}

#[test]
fn a_part_or_a_manifest_header_that_was_damaged_is_neither_kept_nor_passed_on() {
    let mut world = World::new(2, 50);
    world.run(Duration::from_millis(100));
    let now = world.now;
    let node = &mut world.rigs[0].node;
    while node.poll_transmit(Side::Downstream).is_some() {}
    let bytes = 99_u32.to_le_bytes();
    let header = Header::with_payload(Kind::Part, DEPLOYMENT, 1, &bytes);
    let kept = node.part_bytes(PartNo(1)).map(|bytes| bytes.to_vec());
    assert_eq!(kept, Some(1_u32.to_le_bytes().to_vec()));
    node.end_comparing();
    let fault = node.on_control(Side::Upstream, &header, bytes.to_vec(), now);
    assert_eq!(fault, Err(LinkFault::PartHash(PartNo(1))));
    assert_eq!((node.part_bytes(PartNo(1)), node.poll(), node.poll_transmit(Side::Downstream)), (None, None, None));

    let mut world = World::new(1, 50);
    world.image.manifest = b"manifesU";
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run(Duration::from_millis(100))));
    assert!(failed.is_err(), "the frame is refused");
    assert!(!world.rigs[0].node.manifest.has_header(), "so that the right one is taken on the next link");
}

/// A Hello with the right numbers from somebody who does not know the link key.
fn false_hello(node: &Node, now: Time) -> Sender {
    let terms = Terms { key: LinkKey([0xEE; 32]), ..node.upstream_terms().unwrap().clone() };
    Sender::new(terms, [9; 16], now)
}

#[test]
fn a_hello_with_the_right_numbers_changes_nothing_before_the_link_key_is_proven() {
    let mut world = World::new(3, 203);
    world.rigs[1].disk_stuck = true;
    world.run(Duration::from_millis(100));
    for round in 0..40_u8 {
        let now = world.now;
        let node = &mut world.rigs[1].node;
        let mut stranger = false_hello(node, now);
        let (header, payload) = split(&stranger.poll_control().unwrap());
        let mut candidate = node.on_hello(&header, &payload, [round; 16], now).unwrap();
        let (header, payload) = split(&candidate.poll_control().unwrap());
        assert!(stranger.on_frame(&header, &payload, now).is_err(), "the node proves the key first");
        let (header, payload) = match round % 3 {
            0 => split(&refusal(DEPLOYMENT, "no")),
            1 => (Header::with_payload(Kind::Proof, DEPLOYMENT, 0, &[7; 32]), vec![7; 32]),
            _ => (Header::bare(Kind::Beat, DEPLOYMENT, 0), Vec::new()),
        };
        assert!(candidate.on_frame(&header, &payload, now).is_err());
        assert_eq!(node.adopt(candidate), Err(LinkFault::Superseded), "nor is it adopted by mistake");
        world.run(Duration::from_millis(20));
    }
    world.rigs[1].disk_stuck = false;
    world.run(Duration::from_secs(2));
    (0..3).for_each(|at| world.assert_complete(at));
    let down = |told: &ToServer| matches!(told, ToServer::Link(event) if event.state != LinkState::Up);
    assert!(!world.rigs.iter().any(|rig| rig.told.iter().any(down)), "no link was ever called broken");
}

#[test]
fn a_candidate_of_an_order_that_was_superseded_does_not_become_the_upstream() {
    let now = Time(1);
    let mut world = World::new(2, 50);
    let node = &mut world.rigs[1].node;
    let mut upstream = Sender::new(node.upstream_terms().unwrap().clone(), [9; 16], now);
    let (header, payload) = split(&upstream.poll_control().unwrap());
    let mut candidate = node.on_hello(&header, &payload, [2; 16], now).unwrap();
    let (header, payload) = split(&candidate.poll_control().unwrap());
    upstream.on_frame(&header, &payload, now).unwrap();
    let mut other = join(2, 2, 1);
    (other.upstream.node, other.upstream.key) = (NodeId(7), LinkKey([0x77; 32]));
    other.epoch = Epoch(other.epoch.0 + 1);
    node.on_join(&other, now);
    let (header, payload) = split(&upstream.poll_control().unwrap());
    assert!(candidate.on_frame(&header, &payload, now).unwrap());
    assert_eq!(node.adopt(candidate), Err(LinkFault::Superseded));
}

#[test]
fn a_downstream_whose_every_answer_is_damaged_is_told_of_after_three_calls_and_one_that_answers_well_is_not() {
    let mut world = World::new(2, 10);
    let now = world.now;
    let node = &mut world.rigs[0].node;
    let damaged = LinkFault::PayloadCrc(Kind::Accept);
    let mut faults = vec![LinkFault::Broken("reset".to_owned()), damaged.clone(), damaged.clone()];
    let mut at = now;
    let mut told = Vec::new();
    while told.is_empty() {
        node.on_time(at);
        while let Some(act) = node.poll() {
            match act {
                Act::Connect { attempt, .. } => {
                    assert!(node.on_connected(attempt, [3; 16], at));
                    let fault = faults.pop().unwrap_or_else(|| damaged.clone());
                    node.on_link_lost(Side::Downstream, &fault, at);
                }
                Act::Tell(ToServer::Link(event)) => told.push(event),
                _ => {}
            }
        }
        at = at.after(Duration::from_millis(10));
    }
    assert_eq!((told[0].side, told[0].reason), (Side::Downstream, Reason::LinkCorrupt));
    assert!(faults.is_empty(), "a reset between says nothing");
    assert!(at.since(now) < Duration::from_secs(1), "calling again for long would not help");
}
