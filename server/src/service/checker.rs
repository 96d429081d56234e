//! Checks stored blocks in the image file, off the event loop: reading and unpacking one takes its time.

use crate::failure::one_line;
use slidecast_image::Resolved;
use slidecast_proto::units::BlockNo;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

/// The most blocks that wait to be checked.
const WAITING: usize = 64;

/// A thread that checks blocks one after the other.
#[derive(Debug)]
pub(super) struct Checker {
    blocks: SyncSender<BlockNo>,
    asked: HashSet<BlockNo>,
}

impl Checker {
    /// Starts the thread; `tell` gets each block that was checked and what is wrong with it, if anything is.
    pub(super) fn start(
        image: Arc<Resolved>,
        tell: impl Fn(BlockNo, Option<String>) + Send + 'static,
    ) -> io::Result<Self> {
        let (blocks, asked) = sync_channel::<BlockNo>(WAITING);
        std::thread::Builder::new().name("slidecast-check".to_owned()).spawn(move || {
            while let Ok(block) = asked.recv() {
                tell(block, image.check_block(block).err().map(|error| one_line(&error)));
            }
        })?;
        Ok(Self { blocks, asked: HashSet::new() })
    }

    /// Has `block` checked, unless it is waiting for that already or too many are: whoever complained complains again.
    pub(super) fn ask(&mut self, block: BlockNo) {
        if self.asked.insert(block) && self.blocks.try_send(block).is_err() {
            self.asked.remove(&block);
        }
    }

    /// `block` was checked.
    pub(super) fn done(&mut self, block: BlockNo) {
        self.asked.remove(&block);
    }
}
