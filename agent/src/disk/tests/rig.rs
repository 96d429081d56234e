//! Drives an engine as the event loop of the agent does.

use super::image::{Dice, TestImage};
use super::recorder::Recorder;
use crate::disk::{BlockJob, Engine, EngineOptions, Event};
use crate::ring::Ring;
use crate::target::TargetIo;
use core::time::Duration;
use slidecast_proto::reason::{Free, Verify};
use slidecast_proto::units::{BlockNo, DeploymentId, Hash};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

pub(super) const DEPLOYMENT: DeploymentId = DeploymentId([9; 16]);
pub(super) const ROOT: Hash = Hash([8; 32]);

pub(super) fn options(verify: Verify, free: Free) -> EngineOptions {
    EngineOptions {
        writers: 2,
        readers: 1,
        hashers: 3,
        flush_bytes: 512 << 10,
        flush_after: Duration::from_millis(200),
        ..EngineOptions::new(DEPLOYMENT, verify, free)
    }
}

/// An engine with the loop's side of it.
pub(super) struct Rig<'a> {
    pub(super) engine: Engine,
    image: &'a TestImage,
    ring: Ring,
    woken: Receiver<()>,
    /// Every event so far.
    pub(super) events: Vec<Event>,
}

impl<'a> Rig<'a> {
    pub(super) fn new(image: &'a TestImage, target: &Recorder, options: EngineOptions) -> Self {
        Self::on(image, Box::new(target.clone()), options)
    }

    pub(super) fn on(image: &'a TestImage, target: Box<dyn TargetIo>, options: EngineOptions) -> Self {
        let (wake, woken) = channel();
        let wake = Box::new(move || wake.send(()).unwrap_or(()));
        let header = Arc::clone(&image.header);
        let engine = Engine::start_on(target, header, ROOT, options, wake).unwrap();
        // Small, so that blocks wait for space.
        let ring = Ring::new(512 << 10).unwrap();
        Self { engine, image, ring, woken, events: vec![] }
    }

    /// Takes events until one is what is waited for, or the end.
    pub(super) fn wait(&mut self, until: impl Fn(&Event) -> bool) -> Event {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            while let Some(event) = self.engine.poll() {
                self.events.push(event.clone());
                if until(&event) || matches!(event, Event::Failed(_) | Event::Ended { .. }) {
                    return event;
                }
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            self.woken.recv_timeout(rest).expect("the engine says something within a minute");
        }
    }

    pub(super) fn job(&mut self, block: BlockNo) -> BlockJob {
        let packed = &self.image.packed[&block];
        let payload = loop {
            if let Some(mut slot) = self.ring.reserve(u32::try_from(packed.payload.len()).unwrap()) {
                slot.copy_from_slice(&packed.payload);
                break slot.freeze();
            }
            // Full: some block must get written first.
            std::thread::yield_now();
        };
        BlockJob { block, codec: packed.codec, raw_len: packed.raw_len, payload, part: self.image.part_of(block) }
    }

    /// Compares every part with the disk; gives the blocks that need not come.
    pub(super) fn compare(&mut self) -> BTreeSet<BlockNo> {
        let mut found = BTreeSet::new();
        for part in &self.image.parts {
            self.engine.compare(Arc::clone(part), false);
            match self.wait(|event| matches!(event, Event::Compared { .. })) {
                Event::Compared { first, same } if first == part.first() => found.extend(same),
                other => panic!("{other:?}"),
            }
        }
        found
    }

    /// Everything from the wipe to the end. Blocks come in an order by the dice, and again when they are asked for.
    pub(super) fn deploy(&mut self, dice: &mut Dice, lacking: impl Fn(BlockNo) -> bool) -> Event {
        let mut blocks: Vec<BlockNo> = self.image.packed.keys().copied().filter(|block| lacking(*block)).collect();
        dice.shuffle(&mut blocks);
        self.deploy_all(blocks)
    }

    /// The same with all blocks in their order.
    pub(super) fn deploy_in_order(&mut self) -> Event {
        self.deploy_all(self.image.packed.keys().copied().collect())
    }

    fn deploy_all(&mut self, blocks: Vec<BlockNo>) -> Event {
        self.engine.begin();
        if let failed @ Event::Failed(_) = self.wait(|event| *event == Event::Began) {
            return failed;
        }
        self.image.parts.iter().for_each(|part| self.engine.part(Arc::clone(part)));
        for block in blocks {
            let job = self.job(block);
            self.engine.block(job);
        }
        self.engine.finish();
        let mut again = VecDeque::new();
        loop {
            match self.wait(|event| matches!(event, Event::Mismatch(_))) {
                Event::Mismatch(block) => again.push_back(block),
                end => return end,
            }
            while let Some(block) = again.pop_front() {
                let job = self.job(block);
                self.engine.block(job);
            }
        }
    }
}

/// Deploys to a target; gives the last event and all of them.
pub(super) fn deploy(image: &TestImage, target: &Recorder, options: EngineOptions, seed: u64) -> (Event, Vec<Event>) {
    let mut rig = Rig::new(image, target, options);
    let end = rig.deploy(&mut Dice::new(seed), |_| true);
    (end, rig.events)
}
