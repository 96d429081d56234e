//! Images that partclone made, and what partclone restores out of them.

use super::*;
use crate::testing::{run, run_with, tool};
use twox_hash::{XxHash3_128, XxHash64};

const MIB: u64 = 1 << 20;

/// A file system with some files: the program that makes it, the one of partclone that saves it, its size and options.
type Kind = (&'static str, &'static str, u64, &'static [&'static str]);

pub(super) const VOLUMES: &[Kind] = &[
    ("mke2fs", "partclone.extfs", 6, &["-q", "-F", "-t", "ext4", "-N", "64"]),
    ("mkfs.vfat", "partclone.fat", 9, &["-F", "16"]),
    ("mkntfs", "partclone.ntfs", 5, &["-q", "-F", "-Q", "-p", "0"]),
];

/// Makes one in the folder, of some more than `mib`.
pub(super) fn volume(folder: &Path, (program, _, mib, options): Kind) -> Option<PathBuf> {
    let installed = tools(&[program, "mcopy", "ntfscp", "partclone.restore"]);
    let path = folder.join(program);
    let (files, content) = (folder.join("files"), disk(if mib == 1 { 200 } else { 1500 }));
    std::fs::create_dir_all(&files).unwrap();
    std::fs::write(files.join("a"), content).unwrap();
    // Garbage where nothing is used, and a tail that is no whole cluster.
    std::fs::write(&path, vec![0xA5; usize::try_from(mib * MIB + 3072).unwrap()]).unwrap();
    let (shown, file) = (path.to_str().unwrap(), files.join("a"));
    installed?;
    match program {
        "mke2fs" => drop(run(program, options.iter().copied().chain(["-d", files.to_str().unwrap(), shown]))),
        "mkfs.vfat" => {
            run(program, options.iter().copied().chain([shown]));
            run("mcopy", ["-i", shown, file.to_str().unwrap(), "::a"]);
        }
        _ => {
            run(program, options.iter().copied().chain([shown]));
            run("ntfscp", ["-q", shown, file.to_str().unwrap(), "a"]);
        }
    }
    Some(path)
}

pub(super) fn tools(names: &[&'static str]) -> Option<()> {
    names.iter().try_for_each(|name| tool(name).map(drop))
}

/// What partclone saves of `volume`.
pub(super) fn saved(program: &str, volume: &Path, name: &str, options: &[&str]) -> PathBuf {
    let image = volume.with_file_name(name);
    let log = volume.with_file_name("log");
    let fixed = ["-c", "-s", volume.to_str().unwrap(), "-O", image.to_str().unwrap(), "-L", log.to_str().unwrap()];
    run(program, fixed.into_iter().chain(["-B", "-f", "0"]).chain(options.iter().copied()));
    image
}

/// What partclone makes of its image.
fn restored(image: &Path) -> Vec<u8> {
    let to = image.with_file_name("restored");
    let _ = std::fs::remove_file(&to);
    let log = image.with_file_name("log");
    let paths = ["-s", image.to_str().unwrap(), "-o", to.to_str().unwrap(), "-L", log.to_str().unwrap()];
    run("partclone.restore", ["-W", "-B", "-f", "0"].into_iter().chain(paths));
    std::fs::read(to).unwrap()
}

fn range(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

/// `bytes` with zeros in what the source calls unused.
pub(super) fn without_unused(mut bytes: Vec<u8>, disk: &dyn DiskSource) -> Vec<u8> {
    bytes.resize(usize::try_from(disk.bytes()).unwrap(), 0);
    disk.unused().iter().for_each(|unused| bytes[range(unused)].fill(0));
    bytes
}

pub(super) fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn seal(image: &mut [u8]) {
    let crc = !crc32fast::hash(&image[..106]);
    put(image, 106, &crc.to_le_bytes());
}

/// Header and map of an image with a checksum for each block, and its blocks.
fn taken_apart(image: &[u8]) -> (Vec<u8>, Vec<&[u8]>) {
    let number = |at| usize::try_from(crate::le::u64_at(image, at).unwrap()).unwrap();
    let block = u32::from_le_bytes(image[84..88].try_into().unwrap()) as usize;
    let map_end = 110 + number(60).div_ceil(8) + 4;
    (image[..map_end].to_vec(), image[map_end..].chunks_exact(block + 4).map(|piece| &piece[..block]).collect())
}

/// The same image with checksums of another kind, each over `per` blocks, as newer versions of partclone write them.
fn with_sums(image: &[u8], mode: u16, per: usize, reseed: bool) -> Vec<u8> {
    let (mut out, blocks) = taken_apart(image);
    let len: u16 = if mode == 0x30 { 8 } else { 16 };
    put(&mut out, 96, &[mode.to_le_bytes(), len.to_le_bytes()].concat());
    put(&mut out, 100, &u32::try_from(per).unwrap().to_le_bytes());
    out[104] = reseed.into();
    seal(&mut out);
    let mut over = Vec::new();
    for pieces in blocks.chunks(per) {
        over.truncate(if reseed { 0 } else { over.len() });
        over.extend(pieces.concat());
        out.extend(pieces.concat());
        match mode {
            0x30 => out.extend(XxHash64::oneshot(0, &over).to_le_bytes()),
            _ => out.extend(XxHash3_128::oneshot(&over).to_le_bytes()),
        }
    }
    out
}

/// The same image as partclone before 0.3 wrote it, with checksums of 4 or, on some systems, 8 bytes.
fn of_version_1(image: &[u8], sum_bytes: usize) -> Vec<u8> {
    let (front, blocks) = taken_apart(image);
    let mut out = vec![0; 64 + 4096];
    put(&mut out, 0, b"partclone-image");
    put(&mut out, 15, &front[36..51]);
    put(&mut out, 30, b"0001");
    put(&mut out, 36, &front[84..88]);
    put(&mut out, 40, &front[52..60]);
    put(&mut out, 48, &front[60..76]);
    let count = usize::try_from(crate::le::u64_at(&front, 60).unwrap()).unwrap();
    out.extend((0..count).map(|block| front[110 + block / 8] >> (block % 8) & 1));
    out.extend(b"BiTmAgIc");
    let mut crc = crc32fast::Hasher::new();
    for block in blocks {
        out.extend(block);
        crc.update(&vec![block[0]; block.len()]);
        let sum = u64::from(!crc.clone().finalize()).to_le_bytes();
        out.extend(&sum[..sum_bytes]);
    }
    out
}

#[test]
fn every_image_of_partclone_gives_what_partclone_restores() {
    let dir = tempfile::tempdir().unwrap();
    for kind in VOLUMES {
        let Some(path) = volume(dir.path(), *kind) else { return };
        let source = std::fs::read(&path).unwrap();
        let by_blocks = std::fs::read(saved(kind.1, &path, "k1", &["-k", "1"])).unwrap();
        let mut images = vec![path.with_file_name("k1")];
        images.extend([
            saved(kind.1, &path, "none", &["-a", "0"]),
            saved(kind.1, &path, "k7", &["-k", "7"]),
            saved(kind.1, &path, "on", &["-k", "5", "-K"]),
        ]);
        let expected = restored(&images[0]);
        for (name, image) in [
            ("xxh64", with_sums(&by_blocks, 0x30, 3, true)),
            ("xxh64-on", with_sums(&by_blocks, 0x30, 9, false)),
            ("xxh3", with_sums(&by_blocks, 0x31, 256, true)),
            ("v1", of_version_1(&by_blocks, 4)),
            ("v1-long", of_version_1(&by_blocks, 8)),
        ] {
            images.push(write(dir.path(), name, &image));
        }
        for image in images {
            let disk = opened(&image).unwrap();
            assert_eq!((disk.format(), disk.contents().len()), ("partclone", 1), "{}", image.display());
            let mut theirs = without_unused(expected.clone(), &*disk);
            if kind.0 == "mkntfs" {
                // The copy of the boot sector, which no image of partclone has.
                let at = source.len() - 512;
                put(&mut theirs, at, &source[at..]);
            }
            let ours = bytes_of(&*disk).unwrap();
            assert_eq!(difference(&ours, &theirs), "", "{}, {}", kind.0, image.display());
            assert_eq!(difference(&ours, &without_unused(source.clone(), &*disk)), "");
            let unused: u64 = disk.unused().iter().map(|range| range.end - range.start).sum();
            assert!(unused > disk.bytes() / 3, "{unused} of {}", disk.bytes());
        }
    }
}

#[test]
fn an_image_of_partclone_is_read_where_it_is_packed_and_backwards_too() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = volume(dir.path(), VOLUMES[0]) else { return };
    let image = saved("partclone.extfs", &path, "image", &[]);
    let plain = opened(&image).unwrap();
    let expected = bytes_of(&*plain).unwrap();
    for program in ["gzip", "xz", "zstd", "bzip2", "lz4"] {
        let Some(_) = tool(program) else { continue };
        let packed = dir.path().join(program);
        let paths = [image.to_str().unwrap(), packed.to_str().unwrap()];
        run("sh", ["-c", &format!("{program} -c < {} > {}", paths[0], paths[1])]);
        let disk = opened(&packed).unwrap();
        assert_eq!(disk.format(), "partclone");
        assert_eq!(difference(&bytes_of(&*disk).unwrap(), &expected), "", "{program}");
        let mut piece = [0; 5000];
        for at in [40_000, 1000, 0, expected.len() - 5000] {
            disk.read_at(at as u64, &mut piece).unwrap();
            assert_eq!(difference(&piece, &expected[at..at + 5000]), "", "{program} at {at}");
        }
        let info = describe(&packed).unwrap().unwrap();
        assert_eq!((info.format.as_str(), info.disk_bytes), ("partclone", Some(disk.bytes())));
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!names.into_iter().any(|name| name.to_string_lossy().contains("unpacked")), "nothing is unpacked");
    }
}

#[test]
fn an_image_of_partclone_that_is_cut_or_flipped_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let kind = ("mkfs.vfat", "partclone.fat", 1, &["-F", "12"][..]);
    let Some(path) = volume(dir.path(), kind) else { return };
    let image = std::fs::read(saved(kind.1, &path, "image", &["-k", "1"])).unwrap();
    let image = with_sums(&image, 0x31, 16, true);
    let expected = bytes_of(&*opened(&write(dir.path(), "whole", &image)).unwrap()).unwrap();
    let read = |name: &str, bytes: &[u8]| {
        open_as(&write(dir.path(), name, bytes), "partclone")
            .map_err(io::Error::other)
            .and_then(|disk| bytes_of(&*disk))
    };
    assert_eq!(difference(&read("same", &image).unwrap(), &expected), "");
    for len in (0..image.len()).step_by(512).chain([1, 109, 111, image.len() - 1]) {
        let error = read("cut", &image[..len]).unwrap_err().to_string();
        assert!(error.contains("partclone") && error.contains("cut short"), "{len}: {error}");
    }
    for at in (0..380).chain((380..image.len()).step_by(1021)) {
        let mut flipped = image.clone();
        flipped[at] ^= if at % 2 == 0 { 1 } else { 0x80 };
        assert!(read("flipped", &flipped).is_err(), "byte {at}");
    }
    let behind = read("behind", &[&image[..], b"more"].concat()).unwrap_err().to_string();
    assert!(behind.contains("end"), "{behind}");
}

#[test]
fn what_is_not_read_of_partclone_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let kind = ("mkfs.vfat", "partclone.fat", 1, &["-F", "12"][..]);
    let Some(path) = volume(dir.path(), kind) else { return };
    let image = std::fs::read(saved(kind.1, &path, "image", &["-k", "1"])).unwrap();
    let changed = |at: usize, bytes: &[u8]| {
        let mut image = image.clone();
        put(&mut image, at, bytes);
        seal(&mut image);
        opened(&write(dir.path(), "changed", &image)).map(drop).unwrap_err().to_string()
    };
    assert!(changed(34, &[0xC0, 0xDE]).contains("byte order"));
    assert!(changed(94, &[32, 0]).contains("32 bits"));
    assert!(changed(30, b"0003").contains("another version"));
    assert!(changed(96, &[0x40]).contains("checksums of another kind"));
    assert!(changed(105, &[8]).contains("a map of used blocks of another kind"));
    assert!(changed(60, &(u64::MAX >> 1).to_le_bytes()).contains("size"));
    assert!(changed(52, &(u64::MAX >> 1).to_le_bytes()).contains("size"));
    assert!(changed(84, &[0; 4]).contains("block size"));
    assert!(changed(100, &[0; 4]).contains("blocks of a checksum"));
    assert!(changed(76, &[0, 0]).contains("map of used blocks"));
    let raw = write(dir.path(), "raw", &disk(8));
    let table = write(dir.path(), "table", b"/dev/sda1 : start=8, size=8, type=83\n");
    let asked = Asked { table: Some(&table), ..Asked::of(dir.path()) };
    assert!(open(&raw, &asked).unwrap_err().to_string().contains("no image of a partition"));
}

#[test]
fn a_wrong_count_of_used_blocks_and_bits_behind_the_last_block_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    if tools(&["partclone.imager"]).is_none() {
        return;
    }
    // Three blocks more than a multiple of eight.
    let path = write(dir.path(), "volume", &disk(2051));
    let image = std::fs::read(saved("partclone.imager", &path, "image", &[])).unwrap();
    let expected = bytes_of(&*opened(&write(dir.path(), "whole", &image)).unwrap()).unwrap();
    let blocks = usize::try_from(crate::le::u64_at(&image, 60).unwrap()).unwrap();
    assert_ne!(blocks % 8, 0);
    let map_end = 110 + blocks.div_ceil(8);
    for (count, padding) in [(0, 0x00), (1, 0xFF), (u64::MAX >> 1, 0xFF), (u64::MAX, 0x55)] {
        let mut image = image.clone();
        put(&mut image, 68, &count.to_le_bytes());
        let kept = (1 << (blocks % 8)) - 1;
        image[map_end - 1] = image[map_end - 1] & kept | padding & !kept;
        let sum = !crc32fast::hash(&image[110..map_end]);
        put(&mut image, map_end, &sum.to_le_bytes());
        seal(&mut image);
        let disk = opened(&write(dir.path(), "changed", &image)).unwrap();
        assert_eq!(difference(&bytes_of(&*disk).unwrap(), &expected), "", "{count}, {padding:#x}");
    }
}

/// A table with two partitions, of which the second is as large as `volume`.
fn table(folder: &Path, label: &str, volume: &Path) -> (PathBuf, Vec<u8>) {
    let sectors = volume.metadata().unwrap().len() / 512;
    let disk = folder.join(format!("{label}.disk"));
    std::fs::File::create(&disk).unwrap().set_len(24 * MIB).unwrap();
    let script = format!("label: {label}\nstart=2048, size=18000\nstart=20480, size={sectors}\n");
    run_with("sfdisk", ["-q", disk.to_str().unwrap()], &script);
    let text = folder.join(format!("{label}.sf"));
    std::fs::write(&text, run("sfdisk", ["-d", disk.to_str().unwrap()])).unwrap();
    (text, std::fs::read(disk).unwrap())
}

#[test]
fn with_a_partition_table_an_image_of_partclone_is_in_its_partition() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = volume(dir.path(), VOLUMES[0]) else { return };
    let (Some(_), Some(_)) = (tool("sfdisk"), tool("sgdisk")) else { return };
    let image = saved("partclone.extfs", &path, "image", &[]);
    let alone = bytes_of(&*opened(&image).unwrap()).unwrap();
    for label in ["dos", "gpt"] {
        let (text, mut expected) = table(dir.path(), label, &path);
        let mut tables = vec![text];
        if label == "gpt" {
            let backup = dir.path().join("backup");
            let disk = dir.path().join("gpt.disk");
            run("sgdisk", [&format!("--backup={}", backup.display()), disk.to_str().unwrap()]);
            tables.push(backup);
            tables.push(write(dir.path(), "first", &expected[..34 * 512]));
        }
        put(&mut expected, 20480 * 512, &alone);
        for table in &tables {
            let disk = open(&image, &Asked { table: Some(table), ..Asked::of(dir.path()) }).unwrap();
            let mut ours = bytes_of(&*disk).unwrap();
            // Of an MBR nothing tells the size of the disk, and the backup GPT is made anew.
            let partition = usize::try_from(path.metadata().unwrap().len()).unwrap();
            let len = if label == "gpt" { 24 << 20 } else { 20480 * 512 + partition };
            assert_eq!(ours.len(), len);
            let end = if label == "gpt" { len - 33 * 512 } else { len };
            if label == "dos" {
                // Places in cylinders are not kept.
                ours[446..510].copy_from_slice(&expected[446..510]);
            }
            assert_eq!(difference(&ours[..end], &expected[..end]), "", "{}", table.display());
            assert!(disk.notes().iter().any(|note| note.contains("partition 1")), "{:?}", disk.notes());
            assert!(disk.files().contains(table));
        }
    }
    let (text, _) = table(dir.path(), "gpt", &path);
    let asked = |partition| open(&image, &Asked { table: Some(&text), partition, ..Asked::of(dir.path()) });
    assert!(asked(Some(2)).is_ok());
    assert!(asked(Some(1)).is_ok(), "there is room");
    assert!(asked(Some(3)).unwrap_err().to_string().contains("no partition 3"));
    let small = write(dir.path(), "small", b"/dev/sda1 : start=8, size=8, type=83\n");
    let error = open(&image, &Asked { table: Some(&small), ..Asked::of(dir.path()) }).unwrap_err().to_string();
    assert!(error.contains("has none with so much room"), "{error}");
    let two = "/dev/sda1 : start=2048, size=99999, type=83\n/dev/sda2 : start=204800, size=99999, type=83\n";
    let two = write(dir.path(), "two", two.as_bytes());
    let error = open(&image, &Asked { table: Some(&two), ..Asked::of(dir.path()) }).unwrap_err().to_string();
    assert!(error.contains("1, 2") && error.contains("--partition"), "{error}");
}
