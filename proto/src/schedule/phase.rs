//! Where a disk is on its way from what it was to the whole image.

/// See the file's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing has been written. Parts may wait to be compared.
    Idle,
    /// A flush runs before the first part is compared.
    Flushing,
    /// Nothing has been written, and parts may be compared.
    Comparing,
    /// The head is being wiped.
    Beginning,
    /// Blocks are written, and looked at once more in the end.
    Body,
    /// All blocks are done; the head is looked at before the last look.
    Settling,
    /// The head is being written, or stands.
    Finishing,
    /// Ended, failed or stopped.
    Over,
}
