//! Has the kernel read stored blocks before their turn comes.
//!
//! Feeds of several chains go over the same blocks more or less in step. The first to ask for a block makes the kernel read
//! it; the others find it in the page cache, so the disk reads each block once however many chains there are.
//!
//! Where a block lies is looked up once, when it is asked for ahead.

use slidecast_image::{Resolved, StoredRef};
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::BlockNo;
use std::collections::VecDeque;
use std::ops::Range;

/// How many bytes are asked for ahead of the block that is sent.
const WINDOW: u64 = 16 << 20;
/// Of how many blocks ahead it is remembered where they lie: more than the window holds, unless they are very small.
const MAX_FOUND: usize = 4096;

/// How far one feed has asked.
#[derive(Debug)]
pub(crate) struct Readahead {
    /// The first block not asked for.
    next: BlockNo,
    /// Bytes asked for that were not sent.
    ahead: u64,
    /// Where blocks lie that were asked for and not sent, in their order.
    found: VecDeque<(BlockNo, StoredRef)>,
}

impl Readahead {
    pub(crate) fn new() -> Self {
        Self { next: BlockNo(0), ahead: 0, found: VecDeque::new() }
    }

    /// Where `block` lies.
    pub(crate) fn stored(&self, image: &Resolved, block: BlockNo) -> Option<StoredRef> {
        match self.found.binary_search_by_key(&block, |(found, _)| *found) {
            Ok(at) => Some(self.found[at].1),
            Err(_) => image.stored(block),
        }
    }

    /// `len` bytes of a block were sent; asks for more of what `wanted` gives once half of the window is used up.
    pub(crate) fn sent(&mut self, image: &Resolved, wanted: &BlockSet, block: BlockNo, len: u32) {
        if block >= self.next {
            (self.next, self.ahead) = (BlockNo(block.0 + 1), 0);
            self.found.clear();
        } else {
            self.ahead = self.ahead.saturating_sub(u64::from(len));
            while self.found.front().is_some_and(|(found, _)| *found <= block) {
                self.found.pop_front();
            }
        }
        if self.ahead > WINDOW / 2 {
            return;
        }
        let mut run: Option<(u16, Range<u64>)> = None;
        while let Some(block) = wanted.next(self.next).filter(|_| self.ahead < WINDOW) {
            self.next = BlockNo(block.0 + 1);
            let Some(stored) = image.stored(block) else { continue };
            let end = stored.offset + u64::from(stored.stored_len);
            self.ahead += u64::from(stored.stored_len);
            if self.found.len() < MAX_FOUND {
                self.found.push_back((block, stored));
            }
            match &mut run {
                // Headers lie between payloads; what is nearly touching is asked for as one.
                Some((layer, range))
                    if *layer == stored.layer && (range.end..range.end + 4096).contains(&stored.offset) =>
                {
                    range.end = end;
                }
                _ => {
                    ask(image, run.replace((stored.layer, stored.offset..end)));
                }
            }
        }
        ask(image, run);
    }
}

fn ask(image: &Resolved, run: Option<(u16, Range<u64>)>) {
    let Some((layer, range)) = run else { return };
    image.layer(layer).prefetch(range);
}
