//! Files that are no raw disk but hold one: recognised by how they begin (or end), so that they are not imaged as they are.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How a container begins: name and bytes at offset 0.
const MAGICS: &[(&str, &[u8])] = &[
    ("qcow2", b"QFI\xFB"),
    ("VMDK", b"KDMV"),
    ("VMDK", b"COWD"),
    ("VMDK descriptor", b"# Disk DescriptorFile"),
    ("VHD", b"conectix"),
    ("VHDX", b"vhdxfile"),
    ("gzip", b"\x1F\x8B\x08"),
    ("xz", b"\xFD7zXZ\0"),
    ("zstd", b"\x28\xB5\x2F\xFD"),
    ("bzip2", b"BZh"),
    ("lz4", b"\x04\x22\x4D\x18"),
    ("lz4", b"\x02\x21\x4C\x18"),
    ("Android sparse", b"\x3A\xFF\x26\xED"),
    ("partclone", b"partclone-image"),
    ("ntfsclone", b"\0ntfsclone-image"),
    ("QED", b"QED\0"),
    ("Parallels", b"WithoutFreeSpace"),
    ("Parallels", b"WithouFreSpacExt"),
    ("zip", b"PK\x03\x04"),
    ("SlideCast image", b"SLIDEIMG"),
];
/// Where VirtualBox has its magic, behind a line of text.
const VDI: (usize, &[u8]) = (0x40, b"\x7F\x10\xDA\xBE");
/// Where the first header of a tar file (POSIX and GNU) has its magic.
const TAR: (usize, &[u8]) = (257, b"ustar");
/// The footer of a fixed VHD is in the last 512 bytes (511 in old ones), with its kind of disk at 60.
const VHD_FOOTER: u64 = 512;

/// The container format of a regular file of `bytes` bytes, if it is one that is known.
pub(crate) fn format_of(file: &File, bytes: u64) -> io::Result<Option<&'static str>> {
    let mut head = [0; 512];
    let len = usize::try_from(bytes.min(512)).unwrap_or(512);
    file.read_exact_at(&mut head[..len], 0)?;
    let bzip2_is_whole = |name: &str| name != "bzip2" || matches!(head[3], b'1'..=b'9') && head[4..10] == *b"1AY&SY";
    if let Some((name, _)) = MAGICS.iter().find(|(name, magic)| head.starts_with(magic) && bzip2_is_whole(name)) {
        return Ok(Some(name));
    }
    // A skippable frame of zstd has one of sixteen magics.
    if head[1..4] == [0x2A, 0x4D, 0x18] && head[0] & 0xF0 == 0x50 {
        return Ok(Some("zstd"));
    }
    if head[VDI.0..].starts_with(VDI.1) {
        return Ok(Some("VDI"));
    }
    // The boot signature is that of a disk, and a tar file has zeros there.
    if head[TAR.0..].starts_with(TAR.1) && head[510..] != [0x55, 0xAA] {
        return Ok(Some("tar"));
    }
    if is_lzma(&head) {
        return Ok(Some("lzma"));
    }
    for back in [VHD_FOOTER, VHD_FOOTER - 1] {
        let mut footer = [0; 64];
        if let Some(at) = bytes.checked_sub(back) {
            file.read_exact_at(&mut footer, at)?;
            if footer.starts_with(b"conectix") {
                return Ok(Some("VHD"));
            }
        }
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
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(bytes, 0).unwrap();
        format_of(file.as_file(), bytes.len() as u64).unwrap()
    }

    #[test]
    fn containers_are_known_by_their_front_or_their_footer() {
        for (name, magic) in MAGICS.iter().filter(|(name, _)| *name != "bzip2") {
            assert_eq!(found(&[magic, &[0; 4096][..]].concat()), Some(*name));
        }
        assert_eq!(found(b"BZh91AY&SY and so on"), Some("bzip2"));
        assert_eq!(found(b"\x50\x2A\x4D\x18 and so on"), Some("zstd"));
        let mut vdi = vec![0; 4096];
        vdi[0x40..0x44].copy_from_slice(VDI.1);
        assert_eq!(found(&vdi), Some("VDI"));
        let mut tar = vec![0; 4096];
        tar[257..262].copy_from_slice(TAR.1);
        assert_eq!(found(&tar), Some("tar"));
        assert_eq!(found(b"\x5D\0\0\x80\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0 and so on"), Some("lzma"));
        for back in [512, 511] {
            let mut vhd = vec![0; 1 << 20];
            vhd.extend([&b"conectix"[..], &vec![0; back - 8]].concat());
            assert_eq!(found(&vhd), Some("VHD"));
        }
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
