//! What a partition holds, by the signatures that lie at fixed places.
//!
//! A partition keeps the signs of what was in it before if nobody wiped them. Reading an abandoned map would be the one
//! unforgivable mistake here, so all known signs are looked for, also those of what we do not read.

use super::raid;
use super::reader::{READERS, Reader};
use super::volume::{Kept, Unused, Volume};
use super::{lvm, md};
use core::ops::Range;

/// How much of the front of a volume is looked at: to the end of the first ZFS label.
const HEAD_BYTES: u64 = 256 << 10;

/// Signatures of what is recognised but not read: name, place, bytes.
const FOREIGN: &[(&str, usize, &[u8])] = &[
    ("LUKS", 0, b"LUKS\xBA\xBE"),
    ("LUKS", 16384, b"SKUL\xBA\xBE"),
    ("squashfs", 0, b"hsqs"),
    ("BlueStore", 0, b"bluestore block device"),
    ("BitLocker", 3, b"-FVE-FS-"),
    ("ReFS", 3, b"ReFS\0\0\0\0"),
    ("APFS", 32, b"NXSB"),
    ("HFS+", 1024, b"H+\0\x04"),
    ("HFS+", 1024, b"HX\0\x05"),
    ("EROFS", 1024, b"\xE2\xE1\xF5\xE0"),
    ("OCFS2", 1024, b"OCFSV2"),
    ("OCFS2", 2048, b"OCFSV2"),
    ("OCFS2", 4096, b"OCFSV2"),
    ("OCFS2", 8192, b"OCFSV2"),
    ("bcache", 4096 + 24, b"\xC6\x85\x73\xF6\x4E\x1A\x45\xCA"),
    ("bcachefs", 4096 + 24, b"\xC6\x85\x73\xF6\x66\xCE\x90\xA9"),
    ("ReiserFS", 8192 + 52, b"ReIsEr"),
    ("ReiserFS", 65536 + 52, b"ReIsEr"),
    ("JFS", 32768, b"JFS1"),
    ("ISO 9660", 32769, b"CD001"),
    ("GFS2", 65536, b"\x01\x16\x19\x70"),
];

/// What was recognised: a name for everything, and what of it can be read.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    names: Vec<&'static str>,
    reader: Option<&'static Reader>,
    raid: Option<&'static str>,
    /// Where the array lies, on a member of one that has its superblock at its end.
    array: Option<Result<Range<u64>, Kept>>,
    head: Vec<u8>,
}

impl Signs {
    /// Looks for all the signs.
    pub(crate) fn find(volume: &Volume<'_>) -> Result<Self, Kept> {
        let len = usize::try_from(HEAD_BYTES.min(volume.bytes())).unwrap_or(0);
        let head = volume.bytes_at(0, len)?;
        let mut signs = Self::default();
        for reader in READERS {
            if let Some(name) = (reader.probe)(&head) {
                signs.names.push(name);
                signs.reader = Some(reader);
            }
        }
        for (name, at, magic) in FOREIGN {
            if head.get(*at..).is_some_and(|bytes| bytes.starts_with(magic)) && !signs.names.contains(name) {
                signs.names.push(name);
            }
        }
        signs.names.extend(is_zfs(&head).then_some("ZFS"));
        signs.raid = raid::at_the_end(volume)?;
        let at_both_ends = signs.raid.is_some_and(|name| signs.names.contains(&name));
        signs.names.extend(if at_both_ends { Some("another RAID") } else { signs.raid });
        if signs.raid == Some(md::NAME) && !at_both_ends {
            signs.array = md::array_at_the_end(volume);
        }
        // What the front looks like is what the array does.
        if signs.array.is_some() {
            signs.names = Vec::from([md::NAME]);
            signs.reader = None;
        }
        signs.head = head;
        Ok(signs)
    }

    /// The first name; empty if nothing was recognised.
    pub(crate) fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }

    /// The RAID format whose sign the end has.
    pub(crate) fn raid(&self) -> Option<&'static str> {
        self.raid
    }

    /// Whether there is something that can be read, and that a partition table in front of it does not make void: LVM2 takes
    /// no disk that has one.
    pub(crate) fn outlives_a_table(&self) -> bool {
        self.reader.is_some() && self.name() != lvm::NAME
    }

    /// The free space of `volume`, whose signs these are.
    pub(crate) fn unused(&self, volume: &Volume<'_>) -> Result<Unused, Kept> {
        if let Some(array) = &self.array {
            return md::unused(volume, array.clone()?);
        }
        match (self.names.as_slice(), self.reader) {
            ([one, other, ..], _) => Err(Kept::Several(one, other)),
            (_, Some(reader)) => (reader.unused)(volume, &self.head),
            ([name], None) => Err(Kept::NotRead(name)),
            ([], None) => Err(Kept::NotRead("an unknown content")),
        }
    }
}

/// What is on `volume`, whose signs are `signs`: its name, empty if nothing is known of it; and its free space, `None`
/// without a name.
pub(super) fn look(volume: &Volume<'_>, signs: Result<Signs, Kept>) -> (&'static str, Result<Option<Unused>, Kept>) {
    match signs {
        Err(kept) => ("", Err(kept)),
        Ok(signs) if signs.name().is_empty() => ("", Ok(None)),
        Ok(signs) => (signs.name(), signs.unused(volume).map(Some)),
    }
}

/// A ZFS label leaves the first 8 KiB alone; its uberblocks are in the second half of 256 KiB.
fn is_zfs(head: &[u8]) -> bool {
    let magic = 0x00BA_B10C_u64;
    let is = |block: &[u8]| block.starts_with(&magic.to_le_bytes()) || block.starts_with(&magic.to_be_bytes());
    head.get(128 << 10..).is_some_and(|uberblocks| uberblocks.chunks_exact(1024).any(is))
}
