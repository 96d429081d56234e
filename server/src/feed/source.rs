//! Where a feed's machine gets what it sends: the image file.

use super::readahead::Readahead;
use slidecast_image::{Resolved, StoredRef};
use slidecast_proto::feed::{BlockFrame, Source};
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::{BlockNo, PartNo};
use std::cell::RefCell;
use std::sync::Arc;

/// An image as it is sent.
#[derive(Debug)]
pub(crate) struct FromImage {
    image: Arc<Resolved>,
    /// The part made last: while it waits for credit it is asked for again and again.
    part: RefCell<Option<(PartNo, Arc<[u8]>)>>,
    readahead: Readahead,
}

impl FromImage {
    pub(crate) fn new(image: Arc<Resolved>) -> Self {
        Self { image, part: RefCell::default(), readahead: Readahead::new() }
    }

    pub(crate) fn image(&self) -> &Resolved {
        &self.image
    }

    /// `len` bytes of a block were sent; `wanted` come before and after it.
    pub(crate) fn sent(&mut self, wanted: &BlockSet, block: BlockNo, len: u32) {
        self.readahead.sent(&self.image, wanted, block, len);
    }
}

impl Source for FromImage {
    type Payload = StoredRef;

    fn manifest(&self) -> Arc<[u8]> {
        self.image.header_bytes().into()
    }

    fn part(&self, part: PartNo) -> Arc<[u8]> {
        let mut made = self.part.borrow_mut();
        match &*made {
            Some((last, bytes)) if *last == part => bytes.clone(),
            _ => made.insert((part, self.image.part_bytes(part).into())).1.clone(),
        }
    }

    fn block(&self, block: BlockNo) -> Option<BlockFrame<StoredRef>> {
        let stored = self.readahead.stored(&self.image, block)?;
        let StoredRef { codec, raw_len, stored_len, crc, .. } = stored;
        Some(BlockFrame { codec: codec as u8, raw_len, stored_len, crc, payload: stored })
    }
}
