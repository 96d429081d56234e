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
    ("SlideCast image", b"SLIDEIMG"),
];
/// Where VirtualBox has its magic, behind a line of text.
const VDI: (usize, &[u8]) = (0x40, b"\x7F\x10\xDA\xBE");
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
        for back in [512, 511] {
            let mut vhd = vec![0; 1 << 20];
            vhd.extend([&b"conectix"[..], &vec![0; back - 8]].concat());
            assert_eq!(found(&vhd), Some("VHD"));
        }
    }

    #[test]
    fn raw_disks_and_short_files_are_no_containers() {
        for bytes in [&[][..], &[0x1F], &[0; 511], &[0; 4096], b"BZhoney", b"\xEB\x63\x90"] {
            assert_eq!(found(bytes), None);
        }
    }
}
