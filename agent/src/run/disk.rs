//! The disk of a run: what the machine wants written, and what the engine says came of it.

use super::{DiskState, Run};
use crate::disk::{BlockJob, DiskFailure, Engine, EngineOptions, Event};
use crate::inventory::{Roots, memory};
use crate::parts::Parts;
use crate::ring::Span;
use slidecast_image::codec::Codec;
use slidecast_image::manifest::{Content, ManifestHeader, Part};
use slidecast_proto::book::EntryId;
use slidecast_proto::frame::Header;
use slidecast_proto::link::LinkFault;
use slidecast_proto::node::DiskEnd;
use slidecast_proto::reason::Reason;
use slidecast_proto::units::{BlockNo, PartNo};
use std::sync::Arc;

impl Run {
    /// Takes what the engine has to say.
    pub(super) fn hear_disk(&mut self) {
        while let DiskState::Engine(engine) = &self.disk {
            let Some(event) = engine.poll() else { return };
            match event {
                Event::Compared { first, same } => self.on_compared(first, &same),
                Event::Began => log::debug!("the disk is marked, its head is wiped"),
                Event::BadContent(block) => self.node.on_bad_content(block, false),
                Event::Mismatch(block) => {
                    let part = engine.part_of(block);
                    self.restore_part(block, part);
                    self.node.on_bad_content(block, true);
                }
                Event::Unverified => {
                    log::info!("reading all of {} once more before it gets its head", engine.path());
                    self.node.on_unverified();
                }
                Event::Written(block) => self.node.on_written(block),
                Event::Durable(blocks) => {
                    self.node.on_durable(&blocks);
                    if !self.prepare.verify.reads_back() {
                        self.settle(&blocks);
                    }
                }
                Event::Verified(blocks) => {
                    self.node.on_verified(&blocks);
                    self.settle(&blocks);
                }
                Event::Failed(DiskFailure { reason, detail }) => {
                    self.node.on_disk_failed(reason, &detail);
                    self.stop_disk();
                    self.compare_nothing();
                }
                Event::Ended { verified, written, kept, last_look, note } => {
                    self.node.on_disk_ended(DiskEnd { verified, written, kept, last_look }, &note);
                }
            }
        }
    }

    /// A block is to come again, perhaps long after its part was let go of.
    fn restore_part(&mut self, block: BlockNo, part: Option<Arc<Part>>) {
        if let (Some(parts), Some(part)) = (&mut self.parts, part) {
            parts.unsettle(block, part);
        }
    }

    pub(super) fn settle(&mut self, blocks: &[BlockNo]) {
        if let Some(parts) = &mut self.parts {
            parts.settle(blocks);
        }
    }

    /// Checks the manifest header against the root, and starts the engine of the disk.
    pub(super) fn use_manifest(&mut self, bytes: &[u8]) -> Result<(), LinkFault> {
        if ManifestHeader::root(bytes) != self.prepare.root {
            return Err(LinkFault::Manifest("it does not have the root that the server announced"));
        }
        let header = ManifestHeader::parse(bytes).map_err(|error| {
            log::error!("manifest header: {error}");
            LinkFault::Manifest("its header breaks a rule")
        })?;
        let announced = &self.prepare;
        let facts = (header.disk_bytes, header.sector, header.block, header.grain);
        if facts != (announced.disk_bytes, announced.sector, announced.block, announced.grain) {
            return Err(LinkFault::Manifest("its sizes are not those that the server announced"));
        }
        let header = Arc::new(header);
        self.parts = Some(Parts::new(Arc::clone(&header)));
        if let DiskState::Open(target) = &mut self.disk
            && let Some(target) = target.take()
        {
            let waker = Arc::clone(&self.waker);
            let wake = move || {
                if let Err(error) = waker.wake() {
                    log::error!("waking the net thread: {error}");
                }
            };
            let options = EngineOptions::new(announced.deployment, announced.verify, announced.free)
                .with_memory(memory(&Roots::default()).available);
            match Engine::start(target, Arc::clone(&header), announced.root, options, wake) {
                Ok(engine) => self.disk = DiskState::Engine(engine),
                Err(failure) => {
                    self.disk = DiskState::Gone(None);
                    self.node.on_disk_failed(failure.reason, &failure.detail);
                }
            }
        }
        self.node.on_shape(header.shape());
        self.begin_if_due();
        Ok(())
    }

    /// Lets the disk be written, unless it is being compared first or lacks nothing.
    pub(super) fn begin_if_due(&mut self) {
        if let DiskState::Engine(engine) = &self.disk
            && self.comparing.begins(self.joined, &self.node)
        {
            log::info!("writing to {}; until it is done the disk carries a mark and does not boot", engine.path());
            engine.begin();
            self.compared.end();
        }
    }

    /// Checks a part against the manifest header, and hands it to the disk.
    pub(super) fn use_part(&mut self, no: PartNo, bytes: &[u8]) -> Result<(), LinkFault> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        let part = Part::parse(parts.header(), no, bytes).map_err(|error| {
            log::error!("part {no} of the manifest: {error}");
            LinkFault::Manifest("a part is not the one that its header names")
        })?;
        if self.node.is_comparing() {
            self.take_to_compare(no);
            return Ok(());
        }
        let part = Arc::new(part);
        parts.insert(no, Arc::clone(&part));
        if let DiskState::Engine(engine) = &self.disk
            && !self.node.knows_part(no)
        {
            engine.part(Arc::clone(&part));
        }
        let blocks = (part.first().0..part.first().0.saturating_add(part.len())).map(BlockNo);
        let is_fill =
            |block: &BlockNo| part.block(*block).is_some_and(|info| matches!(info.content, Content::Fill { .. }));
        self.node.on_part(no, blocks.filter(is_fill));
        Ok(())
    }

    /// Hands an entry of the ring to the disk.
    pub(super) fn write(&mut self, id: EntryId, header: &Header) {
        let DiskState::Engine(engine) = &self.disk else { return };
        let block = BlockNo(header.number);
        let part = self.parts.as_ref().and_then(|parts| parts.of(block)).map(Arc::clone);
        let payload = self.span(id);
        match (part, payload, Codec::from_byte(header.codec)) {
            (Some(part), Some(payload), Some(codec)) => {
                engine.block(BlockJob { block, codec, raw_len: header.raw_len, payload, part });
            }
            (_, _, None) => self.node.on_bad_content(block, false),
            _ => self.node.on_disk_failed(Reason::Internal, &format!("block {block} came without its part")),
        }
    }

    pub(super) fn span(&self, id: EntryId) -> Option<Span> {
        let at = self.spans.partition_point(|(other, _)| *other < id);
        self.spans.get(at).filter(|(found, _)| *found == id).map(|(_, span)| span.clone())
    }

    pub(super) fn stop_disk(&mut self) {
        self.disk = match std::mem::replace(&mut self.disk, DiskState::Gone(None)) {
            DiskState::Engine(engine) => DiskState::Gone(Some(engine.stop())),
            // Nothing was written: it is as it was.
            other => other,
        };
    }

    pub(super) fn written_bytes(&self) -> u64 {
        match &self.disk {
            DiskState::Engine(engine) => engine.written_bytes(),
            _ => 0,
        }
    }
}
