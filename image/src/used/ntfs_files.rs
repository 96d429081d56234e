//! All files of an NTFS against its map of clusters, which has no checksum and no copy: one flipped bit of it would call a file free.
//!
//! Every record of the master file table that is in use lists clusters of its own, also where a file has several records. So each record is
//! looked at once, in order, and no folder is.

use super::ntfs_record::{Stream, is_in_use, places, restore};
use super::volume::{Kept, Unused, Volume};

/// How much of the table is read at once, in bytes: a multiple of every record.
const PIECE: u64 = 1 << 20;
const CORRUPT: Kept = Kept::Corrupt("master file table");

/// Whether no cluster of a file is `unused`. The volume has `clusters` clusters of `cluster` bytes, its table records of `record` bytes.
pub(super) fn are_used(
    volume: &Volume<'_>,
    table: &Stream,
    record: usize,
    (cluster, clusters): (u64, u64),
    unused: &Unused,
) -> Result<(), Kept> {
    let end = table.written - table.written % record as u64;
    let mut buffer = vec![0; usize::try_from(PIECE.min(end)).unwrap_or(0)];
    for at in (0..end).step_by(1 << 20) {
        let piece = &mut buffer[..usize::try_from(PIECE.min(end - at)).unwrap_or(0)];
        table.read(volume, cluster, at, piece)?;
        for record in piece.chunks_exact_mut(record) {
            // A record that no file ever had may be zeros.
            if record.starts_with(&[0; 4]) || record.starts_with(b"FILE") && !is_in_use(record) {
                continue;
            }
            restore(record, *b"FILE").ok_or(CORRUPT)?;
            for run in places(record).ok_or(CORRUPT)? {
                if run.end > clusters {
                    return Err(CORRUPT);
                }
                if unused.meets(&(run.start * cluster..run.end * cluster)) {
                    return Err(Kept::Disagree("files", "map of clusters"));
                }
            }
        }
    }
    Ok(())
}
