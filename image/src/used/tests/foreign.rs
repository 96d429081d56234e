//! What is recognised and not read is kept as a whole, and named.

use super::oracle::MIB;
use crate::source::MemoryDisk;
use crate::testing::{run, tool};
use crate::used::scan;

/// A disk with one partition, from 1 MiB to its end, that begins so.
fn disk(content: &[(usize, &[u8])]) -> MemoryDisk {
    let mut bytes = vec![0; 4 << 20];
    bytes[446 + 4] = 7;
    bytes[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    bytes[446 + 12..446 + 16].copy_from_slice(&6144_u32.to_le_bytes());
    bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
    for (at, content) in content {
        bytes[(1 << 20) + at..][..content.len()].copy_from_slice(content);
    }
    MemoryDisk { content: bytes, ..MemoryDisk::default() }
}

fn assert_kept_and_named(disk: &MemoryDisk, name: &str) {
    let report = scan(disk, 4 * MIB, 512);
    assert!(report.unused.iter().all(|range| range.end <= MIB), "{name}: {:?}", report.unused);
    let notes = report.all_notes();
    assert!(notes.iter().any(|note| note.contains(name)), "{name}: {notes:?}");
}

#[test]
fn what_is_encrypted_or_of_another_system_is_kept_as_a_whole_and_named() {
    let uberblock = 0x00BA_B10C_u64.to_le_bytes();
    let rows: [(&str, usize, &[u8]); 6] = [
        ("BitLocker", 0, b"\xEB\x58\x90-FVE-FS-\0\x02\x08"),
        ("APFS", 32, b"NXSB\0\x10\0\0"),
        ("ReFS", 3, b"ReFS\0\0\0\0"),
        ("bcachefs", 4096 + 24, b"\xC6\x85\x73\xF6\x66\xCE\x90\xA9\xD9\x6A\x60\xCF\x80\x3D\xF7\xEF"),
        ("ZFS", 128 << 10, &uberblock),
        ("LUKS", 0, b"LUKS\xBA\xBE\0\x01"),
    ];
    for (name, at, magic) in rows {
        assert_kept_and_named(&disk(&[(at, magic)]), name);
    }
    // What nobody knows has no name, and is kept as well.
    let report = scan(&disk(&[(0, &[0xA5; 4096])]), 4 * MIB, 512);
    assert!(report.unused.iter().all(|range| range.end <= MIB), "{:?}", report.unused);
}

#[test]
fn a_luks_that_cryptsetup_made_is_kept_as_a_whole_and_named() {
    let Some(_) = tool("cryptsetup") else { return };
    let dir = tempfile::tempdir().unwrap();
    for kind in ["luks1", "luks2"] {
        let (path, key) = (dir.path().join(kind), dir.path().join("key"));
        std::fs::write(&path, vec![0; 20 << 20]).unwrap();
        std::fs::write(&key, "a key for a test").unwrap();
        let [path_text, key] = [&path, &key].map(|path| path.to_str().unwrap());
        let cheap = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        let fixed = ["luksFormat", "-q", "--type", kind, "--key-file", key];
        run("cryptsetup", fixed.into_iter().chain(cheap).chain([path_text]));
        let made = std::fs::read(&path).unwrap();
        assert_kept_and_named(&disk(&[(0, &made[..64 << 10])]), "LUKS");
    }
}
