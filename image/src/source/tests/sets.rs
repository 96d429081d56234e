//! Disks in several files, and tables inside of one, that are cut or have a flipped byte: an error or the same disk. Where a format
//! has no checksum, it may be what QEMU reads out of the same files, too.

use super::qemu::{made, read_by_qemu};
use super::sweeps::places;
use super::*;
use crate::testing::{run, succeeds, tool};

/// What may come of a changed file, beside an error and the same disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum May {
    /// Nothing else.
    Nothing,
    /// Bytes of the disk with the same bits flipped.
    FlippedData,
    /// That, or what another program reads.
    ReadElsewhere,
}

/// Whether all bytes that differ do so by `flip`: flipped data, which no reader could tell.
fn is_flipped(read: &[u8], expected: &[u8], flip: u8) -> bool {
    read.len() == expected.len() && read.iter().zip(expected).all(|(one, other)| one == other || one ^ flip == *other)
}

/// A disk that is read out of files in one folder.
struct Set<'a> {
    read: &'a dyn Fn() -> Option<Vec<u8>>,
    /// What another program reads.
    elsewhere: &'a dyn Fn() -> Option<Vec<u8>>,
    expected: &'a [u8],
}

impl Set<'_> {
    /// Cuts the file at every sector, and flips bytes at each of `at`.
    fn sweep(&self, path: &Path, at: impl Iterator<Item = usize>, may: May) {
        let bytes = std::fs::read(path).unwrap();
        assert!((self.read)().as_deref() == Some(self.expected), "{}: unchanged", path.display());
        for len in (0..bytes.len()).step_by(512).chain([bytes.len() - 1]) {
            std::fs::write(path, &bytes[..len]).unwrap();
            if let Some(read) = (self.read)() {
                assert_eq!(difference(&read, self.expected), "", "{}, cut at {len}", path.display());
            }
        }
        for at in at {
            for flip in [0x01, 0x20, 0x80] {
                let mut flipped = bytes.clone();
                flipped[at] ^= flip;
                std::fs::write(path, flipped).unwrap();
                let Some(read) = (self.read)().filter(|read| *read != self.expected) else { continue };
                let is_data = may != May::Nothing && is_flipped(&read, self.expected, flip);
                let is_elsewhere = may == May::ReadElsewhere && (self.elsewhere)().is_some_and(|other| other == read);
                let differs = difference(&read, self.expected);
                assert!(is_data || is_elsewhere, "{}, byte {at} ^ {flip:#x}: {differs}", path.display());
            }
        }
        std::fs::write(path, bytes).unwrap();
    }
}

/// All bytes of a disk that is not larger than those of the tests by far.
fn read(path: &Path, asked: &Asked<'_>) -> Option<Vec<u8>> {
    let disk = open(path, asked).ok().filter(|disk| disk.bytes() < 64 << 20)?;
    bytes_of(&*disk).ok()
}

/// Every place of a short file, and some of a long one.
fn some(bytes: usize) -> impl Iterator<Item = usize> {
    (0..bytes).step_by((bytes / places()).max(1))
}

/// The lines of a descriptor that name extents.
fn extents(descriptor: &str) -> Vec<&str> {
    descriptor.lines().filter(|line| line.starts_with("RW ")).collect()
}

#[test]
fn a_vmdk_in_several_files_of_which_one_is_cut_or_flipped_is_an_error_or_the_same_disk() {
    let Some(_) = tool("qemu-img") else { return };
    for subformat in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "monolithicFlat"] {
        let dir = tempfile::tempdir().unwrap();
        let content = disk(96);
        // Two disks of one extent become one of two.
        let (one, two) = content.split_at(64 * 512);
        let [one, two] = [("one.raw", one), ("two.raw", two)].map(|(name, bytes)| {
            let raw = write(dir.path(), name, bytes);
            made(&raw, ("vmdk", &name.replace("raw", "vmdk"), &["-o", &format!("subformat={subformat}")]))
        });
        let [first, second] = [&one, &two].map(|path| std::fs::read_to_string(path).unwrap());
        let added = format!("{}\n{}", extents(&first)[0], extents(&second)[0]);
        let path = write(dir.path(), "disk.vmdk", first.replace(extents(&first)[0], &added).as_bytes());
        std::fs::remove_file(one).unwrap();
        std::fs::remove_file(two).unwrap();
        let set = Set {
            read: &|| read(&path, &Asked { format: Some("vmdk"), ..Asked::of(dir.path()) }),
            elsewhere: &|| read_by_qemu(&path, "vmdk"),
            expected: &content,
        };
        set.sweep(&path, 0..std::fs::read(&path).unwrap().len(), May::Nothing);
        let may = if subformat.ends_with("Sparse") { May::ReadElsewhere } else { May::FlippedData };
        for entry in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_str().unwrap();
            if name != "disk.vmdk" && name.ends_with("vmdk") {
                let bytes = std::fs::read(&entry).unwrap();
                let filled: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
                set.sweep(&entry, some(filled.len()).map(|index| filled[index]), may);
            }
        }
    }
}

#[test]
fn a_snapshot_whose_tables_are_cut_or_flipped_is_an_error_or_the_same_disk() {
    let Some(_) = tool("qemu-io") else { return };
    let dir = tempfile::tempdir().unwrap();
    let content = disk(96);
    let raw = write(dir.path(), "disk.raw", &content);
    let path = made(&raw, ("qcow2", "a.qcow2", &["-o", "cluster_size=4k"]));
    let shown = path.to_str().unwrap();
    run("qemu-img", ["snapshot", "-c", "installed", shown]);
    run("qemu-io", ["-f", "qcow2", "-c", "write -P 7 0 16k", shown]);
    run("qemu-img", ["snapshot", "-c", "later", shown]);
    run("qemu-io", ["-f", "qcow2", "-c", "write -P 9 4k 16k", shown]);
    let out = dir.path().join("out.raw");
    let set = Set {
        read: &|| read(&path, &Asked { snapshot: Some("installed"), ..Asked::of(dir.path()) }),
        elsewhere: &|| {
            let paths = [shown, out.to_str().unwrap()];
            let options = ["convert", "-f", "qcow2", "-l", "snapshot.name=installed", "-O", "raw"];
            succeeds("qemu-img", options.into_iter().chain(paths)).then(|| std::fs::read(&out).unwrap())
        },
        expected: &content,
    };
    let bytes = std::fs::read(&path).unwrap();
    let number = |at: usize| usize::try_from(u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap();
    // The table with two entries; the first and second tables of the first one.
    let table = number(64);
    let first = number(table);
    let second = number(first) & 0x00FF_FFFF_FFFF_FE00;
    // Nothing else says how large the disk was (8 bytes, 48 behind the front of the entry).
    let entries = (table..table + 160).filter(|at| !(table + 48..table + 56).contains(at));
    let at = (60..72).chain(entries).chain(first..first + 8).chain(second..second + 40);
    set.sweep(&path, at, May::ReadElsewhere);
}

#[test]
fn an_android_sparse_file_with_a_flipped_byte_is_an_error_or_flipped_data() {
    let Some(_) = tool("img2simg") else { return };
    let dir = tempfile::tempdir().unwrap();
    let content = disk(192);
    let raw = write(dir.path(), "disk.raw", &content);
    let path = dir.path().join("disk.simg");
    run("img2simg", [raw.to_str().unwrap(), path.to_str().unwrap(), "4096"]);
    let set = Set {
        read: &|| read(&path, &Asked { format: Some("android-sparse"), ..Asked::of(dir.path()) }),
        elsewhere: &|| None,
        expected: &content,
    };
    set.sweep(&path, some(std::fs::read(&path).unwrap().len()).chain(0..100), May::FlippedData);
}

#[test]
fn a_partition_table_beside_an_image_of_partclone_that_is_cut_or_flipped_is_an_error_or_read_without_harm() {
    let Some(_) = tool("partclone.imager") else { return };
    let dir = tempfile::tempdir().unwrap();
    let volume = write(dir.path(), "volume", &disk(2048));
    let image = partclone::saved("partclone.imager", &volume, "volume.pc", &[]);
    let text = "label: gpt\nlabel-id: 01234567-89AB-CDEF-0123-456789ABCDEF\nfirst-lba: 34\n\n/dev/sda1 : start=2048, size=2048, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n";
    for len in 0..text.len() {
        for flip in [0, 1, 0x20, 0x80] {
            let mut bytes = text.as_bytes().to_vec();
            if flip == 0 {
                bytes.truncate(len)
            } else {
                bytes[len] ^= flip
            }
            let table = write(dir.path(), "disk.sf", &bytes);
            match open(&image, &Asked { table: Some(&table), ..Asked::of(dir.path()) }) {
                Ok(disk) => assert!(disk.contents().len() == 1 && disk.bytes() > 1 << 20, "{len} ^ {flip}"),
                Err(error) => assert!(!error.to_string().contains('\n'), "{len} ^ {flip}: {error}"),
            }
        }
    }
}
