//! What the tests of sources share, and those of the seam itself.

use super::*;
use crate::error::ImageError;

/// Writes a file into `folder`.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Opens the disk at `path` by its content.
pub(crate) fn opened(path: &Path) -> Result<Box<dyn DiskSource>, ImageError> {
    open(path, &Asked::of(path.parent().unwrap()))
}

/// Opens the disk at `path` as one of that format.
pub(crate) fn open_as(path: &Path, format: &str) -> Result<Box<dyn DiskSource>, ImageError> {
    open(path, &Asked { format: Some(format), ..Asked::of(path.parent().unwrap()) })
}

/// All bytes of a disk: what [`DiskSource::next_data`] gives, read, and else zeros.
pub(crate) fn bytes_of(disk: &dyn DiskSource) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(disk.bytes()).unwrap()];
    let mut at = 0;
    while let Some(data) = disk.next_data(at)? {
        assert!(data.start >= at && data.end > data.start && data.end <= disk.bytes(), "{data:?}");
        let range = usize::try_from(data.start).unwrap()..usize::try_from(data.end).unwrap();
        disk.read_at(data.start, &mut bytes[range])?;
        at = data.end;
    }
    Ok(bytes)
}

#[test]
fn what_has_the_signs_of_nothing_is_raw_and_the_name_of_a_file_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for bytes in [&[0; 4096][..], &[0x1F; 512], &[], b"BZhoney"] {
        let path = write(dir.path(), "disk.qcow2", bytes);
        assert_eq!(opened(&path).unwrap().format(), RAW);
        assert_eq!(describe(&path).unwrap(), None);
    }
}

/// A disk with something of everything: text, noise, runs of zeros and of a fill, at odd places.
fn disk(sectors: usize) -> Vec<u8> {
    let mut bytes = vec![0; sectors * 512];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for (number, sector) in bytes.chunks_mut(512).enumerate() {
        // Runs of 48 sectors: noise, text, a fill, and zeros three times.
        match number / 48 % 6 {
            0 => sector.iter_mut().for_each(|byte| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = state.to_le_bytes()[0];
            }),
            2 => sector.iter_mut().zip((number..).step_by(7)).for_each(|(byte, n)| *byte = b"abcdefgh"[n % 8]),
            4 => sector.fill(0xE5),
            _ => {}
        }
    }
    bytes
}

/// The first 64 bytes that differ, for a message; empty if both are equal.
fn difference(one: &[u8], other: &[u8]) -> String {
    if one.len() != other.len() {
        return format!("{} bytes, not {}", one.len(), other.len());
    }
    match one.iter().zip(other).position(|(one, other)| one != other) {
        Some(at) => {
            format!("at {at}: {:?} is not {:?}", &one[at..(at + 8).min(one.len())], &other[at..(at + 8).min(one.len())])
        }
        None => String::new(),
    }
}

mod beside;
mod damage;
mod folders;
mod lvm;
mod packed;
mod partclone;
mod qemu;
mod sets;
mod sweeps;
