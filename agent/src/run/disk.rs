//! The disk of a run: the engine is given what the machine asks for, and the machine hears what the engine says.

use super::Run;
use crate::disk::{BlockJob, Engine, EngineOptions, Event};
use crate::inventory::{Roots, memory};
use crate::parts::Parts;
use crate::ring::Span;
use slidecast_image::codec::Codec;
use slidecast_image::manifest::{Content, ManifestHeader, Part};
use slidecast_proto::frame::Header;
use slidecast_proto::link::LinkFault;
use slidecast_proto::node::Shape;
use slidecast_proto::reason::Reason;
use slidecast_proto::run::PartUse;
use slidecast_proto::units::{BlockNo, PartNo, Time};
use std::sync::Arc;

impl Run {
    /// Hands over what the engine has to say.
    pub(super) fn hear_disk(&mut self) {
        while let Some(engine) = &self.engine {
            let Some(event) = engine.poll() else { return };
            match &event {
                Event::Began => log::debug!("the disk is marked, its head is wiped"),
                Event::Compared { same, .. } => self.compared.on_part(same.len()),
                Event::Mismatch(block) => {
                    // It is to come again, perhaps long after its part was let go of.
                    if let (Some(parts), Some(part)) = (&mut self.parts, engine.part_of(*block)) {
                        parts.unsettle(*block, part);
                    }
                }
                Event::Unverified => {
                    log::info!("reading all of {} once more before it gets its head", engine.path());
                }
                _ => {}
            }
            self.machine.on_disk(event);
        }
    }

    /// Checks the manifest header against the root and what the server announced.
    pub(super) fn use_manifest(&mut self, bytes: &[u8], now: Time) {
        let result = self.read_manifest(bytes);
        self.machine.on_manifest(result, now);
    }

    fn read_manifest(&mut self, bytes: &[u8]) -> Result<Shape, LinkFault> {
        let announced = self.machine.order();
        if ManifestHeader::root(bytes) != announced.root {
            return Err(LinkFault::Manifest("it does not have the root that the server announced"));
        }
        let header = ManifestHeader::parse(bytes).map_err(|error| {
            log::error!("manifest header: {error}");
            LinkFault::Manifest("its header breaks a rule")
        })?;
        let facts = (header.disk_bytes, header.sector, header.block, header.grain);
        if facts != (announced.disk_bytes, announced.sector, announced.block, announced.grain) {
            return Err(LinkFault::Manifest("its sizes are not those that the server announced"));
        }
        let shape = header.shape();
        self.parts = Some(Parts::new(Arc::new(header)));
        Ok(shape)
    }

    /// Starts the engine of the disk. It writes nothing yet.
    pub(super) fn start_disk(&mut self) {
        let (Some(target), Some(parts)) = (self.target.take(), &self.parts) else { return };
        let waker = Arc::clone(&self.waker);
        let wake = move || {
            if let Err(error) = waker.wake() {
                log::error!("waking the net thread: {error}");
            }
        };
        let order = self.machine.order();
        let options = EngineOptions::new(order.deployment, order.verify, order.free)
            .with_memory(memory(&Roots::default()).available);
        let result = Engine::start(target, parts.shared_header(), order.root, options, wake);
        let result = result.map(|engine| self.engine = Some(engine));
        self.machine.on_disk_started(result);
    }

    /// Lets the disk be written.
    pub(super) fn begin_disk(&mut self) {
        if let Some(engine) = &self.engine {
            log::info!("writing to {}; until it is done the disk carries a mark and does not boot", engine.path());
            engine.begin();
        }
        self.compared.end();
    }

    /// Checks a part against the manifest header, and hands it to the disk.
    pub(super) fn use_part(&mut self, no: PartNo, bytes: &[u8], of: PartUse, now: Time) {
        let Some(parts) = &mut self.parts else { return };
        let part = match Part::parse(parts.header(), no, bytes) {
            Ok(part) => Arc::new(part),
            Err(error) => {
                log::error!("part {no} of the manifest: {error}");
                let fault = LinkFault::Manifest("a part is not the one that its header names");
                return self.machine.on_part(no, of, Err::<[BlockNo; 0], _>(fault), now);
            }
        };
        if let PartUse::Keep { to_disk } = of {
            parts.insert(no, Arc::clone(&part));
            if let Some(engine) = self.engine.as_ref().filter(|_| to_disk) {
                engine.part(Arc::clone(&part));
            }
        }
        let blocks = (part.first().0..part.first().0.saturating_add(part.len())).map(BlockNo);
        let is_fill =
            |block: &BlockNo| part.block(*block).is_some_and(|info| matches!(info.content, Content::Fill { .. }));
        self.machine.on_part(no, of, Ok(blocks.filter(is_fill)), now);
    }

    /// Hands a part to the engine to compare the disk with. Packed, it took less memory while it waited.
    pub(super) fn compare(&mut self, no: PartNo, bytes: &[u8], sampled: bool) {
        let part = self.parts.as_ref().and_then(|parts| Part::parse(parts.header(), no, bytes).ok());
        match (part, &self.engine) {
            (Some(part), Some(engine)) => {
                self.compared.begin();
                engine.compare(Arc::new(part), sampled);
            }
            // It was checked when it came.
            _ => {
                let detail = format!("part {no} was lost before it was compared");
                self.machine.on_disk_lost(Reason::Internal, &detail);
            }
        }
    }

    /// Hands a payload of the ring to the disk.
    pub(super) fn write(&mut self, header: &Header, payload: Span) {
        let Some(engine) = &self.engine else { return };
        let block = BlockNo(header.number);
        let part = self.parts.as_ref().and_then(|parts| parts.of(block)).map(Arc::clone);
        match (part, Codec::from_byte(header.codec)) {
            (Some(part), Some(codec)) => {
                engine.block(BlockJob { block, codec, raw_len: header.raw_len, payload, part });
            }
            (_, None) => self.machine.on_bad_content(block),
            (None, _) => {
                let detail = format!("block {block} came without its part");
                self.machine.on_disk_lost(Reason::Internal, &detail);
            }
        }
    }
}
