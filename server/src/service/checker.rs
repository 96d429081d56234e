//! Checks stored blocks in the image file, off the event loop: reading and unpacking one takes its time.

use crate::failure::one_line;
use slidecast_image::Resolved;
use slidecast_proto::hosting::MAX_CHECKS;
use slidecast_proto::units::BlockNo;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

/// A thread that checks blocks one after the other.
#[derive(Debug)]
pub(super) struct Checker {
    blocks: SyncSender<BlockNo>,
}

impl Checker {
    /// Starts the thread; `tell` gets each block that was checked and what is wrong with it, if anything is.
    pub(super) fn start(
        image: Arc<Resolved>,
        tell: impl Fn(BlockNo, Option<String>) + Send + 'static,
    ) -> io::Result<Self> {
        let (blocks, asked) = sync_channel::<BlockNo>(MAX_CHECKS);
        std::thread::Builder::new().name("slidecast-check".to_owned()).spawn(move || {
            while let Ok(block) = asked.recv() {
                tell(block, image.check_block(block).err().map(|error| one_line(&error)));
            }
        })?;
        Ok(Self { blocks })
    }

    /// Has `block` checked. The machine asks for no more than the queue holds, so this does not wait.
    pub(super) fn ask(&self, block: BlockNo) {
        if let Err(error) = self.blocks.try_send(block) {
            log::warn!("block {block} is not checked: {error}");
        }
    }
}
