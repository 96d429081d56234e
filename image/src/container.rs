//! Files that are no raw disk and are not imported ([`crate::source`]): recognised by how they begin, so that they are not
//! imaged as they are.

use crate::source::ReadAt;
use std::io;

/// How a container begins: name and bytes at offset 0.
const MAGICS: &[(&str, &[u8])] = &[
    ("lz4 (legacy frames)", b"\x02\x21\x4C\x18"),
    ("ntfsclone", b"\0ntfsclone-image"),
    ("QED", b"QED\0"),
    ("Parallels", b"WithoutFreeSpace"),
    ("Parallels", b"WithouFreSpacExt"),
    ("zip", b"PK\x03\x04"),
    (OURS, b"SLIDEIMG"),
];
/// What a file of our own is called.
pub(crate) const OURS: &str = "SlideCast image";
/// Where the first header of a tar file (POSIX and GNU) has its magic.
const TAR: (usize, &[u8]) = (257, b"ustar");
/// The container format of a file or of a disk of `bytes` bytes, if it is one that is known.
pub(crate) fn format_of(file: &dyn ReadAt, bytes: u64) -> io::Result<Option<&'static str>> {
    let mut head = [0; 512];
    let len = usize::try_from(bytes.min(512)).unwrap_or(512);
    file.read_at(0, &mut head[..len])?;
    if let Some((name, _)) = MAGICS.iter().find(|(_, magic)| head.starts_with(magic)) {
        return Ok(Some(name));
    }
    // The boot signature is that of a disk, and a tar file has zeros there.
    if head[TAR.0..].starts_with(TAR.1) && head[510..] != [0x55, 0xAA] {
        return Ok(Some("tar"));
    }
    if is_lzma(&head) {
        return Ok(Some("lzma"));
    }
    Ok(None)
}

/// Whether the 13 bytes of the old .lzma format stand in front, which has no magic: the usual properties, a dictionary of a
/// size that its writers use, and an unknown length or one below a TiB.
fn is_lzma(head: &[u8; 512]) -> bool {
    let dictionary = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    let usual = dictionary.is_power_of_two() || (dictionary / 3).is_power_of_two() && dictionary.is_multiple_of(3);
    let length = u64::from_le_bytes([head[5], head[6], head[7], head[8], head[9], head[10], head[11], head[12]]);
    head[0] == 0x5D && dictionary >= 4096 && usual && (length == u64::MAX || (1..1 << 40).contains(&length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8]) -> Option<&'static str> {
        format_of(&bytes.to_vec(), bytes.len() as u64).unwrap()
    }

    #[test]
    fn containers_that_are_not_imported_are_known_by_their_front() {
        for (name, magic) in MAGICS {
            assert_eq!(found(&[magic, &[0; 4096][..]].concat()), Some(*name));
        }
        let mut tar = vec![0; 4096];
        tar[257..262].copy_from_slice(TAR.1);
        assert_eq!(found(&tar), Some("tar"));
        assert_eq!(found(b"\x5D\0\0\x80\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0 and so on"), Some("lzma"));
    }

    #[test]
    fn raw_disks_and_short_files_are_no_containers() {
        for bytes in [&[][..], &[0x1F], &[0; 511], &[0; 4096], b"BZhoney", b"\xEB\x63\x90", b"\x5D\0\0\x81\0"] {
            assert_eq!(found(bytes), None);
        }
        let mut boot_sector = vec![0; 512];
        boot_sector[257..262].copy_from_slice(TAR.1);
        boot_sector[510..].copy_from_slice(&[0x55, 0xAA]);
        assert_eq!(found(&boot_sector), None);
    }
}
