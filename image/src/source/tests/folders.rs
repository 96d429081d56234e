//! Folders as Clonezilla and FOG make them: with the programs that these call, and the names that these give.

use super::partclone::{VOLUMES, put, saved, tools, volume, without_unused};
use super::*;
use crate::testing::{run, run_with};

const MIB: usize = 1 << 20;
const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// Number, first byte and file of a partition.
type Partition = (u32, usize, PathBuf);

/// A disk of 40 MiB with an ext4, a FAT, a swap and an NTFS, the last two of them logical on an MBR, and what is not in partitions.
pub(super) struct Machine {
    dir: tempfile::TempDir,
    disk: PathBuf,
    bytes: Vec<u8>,
    partitions: Vec<Partition>,
    /// Number, kind and image of each partition but the swap.
    images: Vec<(u32, &'static str, PathBuf)>,
}

pub(super) const SCRIPTS: [(&str, &str); 2] = [
    (
        "dos",
        "label: dos\nlabel-id: 0x12345678\nstart=2048, size=12294, type=83, bootable\nstart=16384, size=18438, type=e\n\
         start=36864, size=43008, type=5\nstart=38912, size=4096, type=82\nstart=45056, size=10246, type=7\n",
    ),
    (
        "gpt",
        "label: gpt\nstart=2048, size=12294, name=\"root, the first\", attrs=\"LegacyBIOSBootable\"\n\
         start=16384, size=18438\nstart=38912, size=4096, type=S\nstart=45056, size=10246\n",
    ),
];

impl Machine {
    pub(super) fn new((label, script): (&str, &str)) -> Option<Self> {
        tools(&["sfdisk", "sgdisk", "mkswap", "zstd", "xz", "bzip2", "lz4", "split", "partclone.restore"])?;
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        std::fs::write(&disk, vec![0x5A; 40 * MIB]).unwrap();
        let shown = disk.to_str().unwrap();
        run_with("sfdisk", ["-q", "--wipe", "always", shown], script);
        let numbers = if label == "dos" { [1, 2, 5, 6] } else { [1, 2, 3, 4] };
        let swap = dir.path().join("swap");
        std::fs::write(&swap, vec![0x5A; 2 * MIB]).unwrap();
        run("mkswap", ["-q", "-U", UUID, "-L", "memory", swap.to_str().unwrap()]);
        let [ext, fat, ntfs] = [0, 1, 2].map(|index| volume(dir.path(), VOLUMES[index]));
        let files = [(2048, ext?), (16384, fat?), (38912, swap), (45056, ntfs?)];
        let mut bytes = std::fs::read(&disk).unwrap();
        let mut partitions = Vec::new();
        for (number, (sector, file)) in numbers.into_iter().zip(files) {
            put(&mut bytes, sector * 512, &std::fs::read(&file).unwrap());
            partitions.push((number, sector * 512, file));
        }
        std::fs::write(&disk, &bytes).unwrap();
        let images = images(&partitions);
        Some(Self { dir, disk, bytes, partitions, images })
    }

    fn folder(&self) -> PathBuf {
        let folder = self.dir.path().join("saved");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    fn text_of_sfdisk(&self) -> String {
        run("sfdisk", ["-d", self.disk.to_str().unwrap()]).replace(&format!("{}", self.disk.display()), "/dev/sda")
    }

    /// Whether what is read out of the folder is this disk, but for what is unused.
    fn is_read(&self, folder: &Path, exact_size: bool) {
        let disk = opened(folder).unwrap();
        let mut ours = bytes_of(&*disk).unwrap();
        let mut theirs = without_unused(self.bytes.clone(), &*disk);
        if exact_size {
            assert_eq!(ours.len(), theirs.len());
        }
        theirs.truncate(ours.len());
        // Places of logical partitions in cylinders differ.
        for (_, start, _) in self.partitions.iter().filter(|(number, ..)| *number > 4) {
            let record = start - MIB..start - MIB + 512;
            let entries = |bytes: &[u8]| -> Vec<_> {
                bytes[record.clone()][446..510].chunks(16).map(|entry| [&entry[4..5], &entry[8..]].concat()).collect()
            };
            if theirs[record.clone()][510] == 0x55 {
                assert_eq!(entries(&ours), entries(&theirs), "boot record at {record:?}");
            }
        }
        for (_, start, _) in self.partitions.iter().filter(|(number, ..)| *number > 4) {
            let record = start - MIB..start - MIB + 512;
            ours[record.clone()].fill(0);
            theirs[record].fill(0);
        }
        assert_eq!(difference(&ours, &theirs), "");
        let unused: u64 = disk.unused().iter().map(|range| range.end - range.start).sum();
        assert!(unused > disk.bytes() / 3, "{unused} of {}", disk.bytes());
        assert_eq!(disk.contents().len(), 4);
        let info = describe(folder).unwrap().unwrap();
        assert_eq!((info.format.as_str(), info.disk_bytes), (disk.format(), Some(disk.bytes())));
    }
}

fn images(partitions: &[Partition]) -> Vec<(u32, &'static str, PathBuf)> {
    let [ext, fat, _, ntfs] = partitions else { panic!("four partitions") };
    let kinds = [(ext, "partclone.extfs", "ext4"), (fat, "partclone.fat", "vfat"), (ntfs, "partclone.ntfs", "ntfs")];
    let save = |(partition, program, kind): (&Partition, &'static str, &'static str)| {
        (partition.0, kind, saved(program, &partition.2, &format!("{kind}.img"), &[]))
    };
    kinds.map(save).to_vec()
}

/// Packs `image` into the folder under `name`, in pieces of `split` bytes where that is not 0.
fn pack(image: &Path, program: &str, folder: &Path, name: &str, split: &str) {
    let to = folder.join(name);
    let (from, to) = (image.display(), to.display());
    let packed = if program.is_empty() { format!("cat {from}") } else { format!("{program} -c < {from}") };
    let ended = if split.is_empty() { format!("cat > {to}") } else { format!("split -b {split} - {to}.") };
    run("sh", ["-c", &format!("{packed} | {ended}")]);
}

pub(super) fn clonezilla(machine: &Machine, program: &str, end: &str, split: &str) -> PathBuf {
    let folder = machine.folder();
    let shown = machine.disk.to_str().unwrap();
    let sectors = machine.bytes.len() / 512;
    write(&folder, "clonezilla-img", b"This image was saved by Clonezilla");
    write(&folder, "disk", b"sda\n");
    write(&folder, "sda-pt.sf", machine.text_of_sfdisk().as_bytes());
    write(
        &folder,
        "sda-pt.parted",
        format!("Model: a disk\nDisk /dev/sda: {sectors}s\nSector size: 512B\n").as_bytes(),
    );
    write(&folder, "sda-mbr", &machine.bytes[..512]);
    if machine.bytes[512..520] == *b"EFI PART" {
        run("sgdisk", [&format!("--backup={}", folder.join("sda-gpt.gdisk").display()), shown]);
        write(&folder, "sda-gpt-1st", &machine.bytes[..34 * 512]);
    } else {
        write(&folder, "sda-hidden-data-after-mbr", &machine.bytes[512..MIB]);
    }
    let mut parts = Vec::new();
    for (number, kind, image) in &machine.images {
        pack(image, program, &folder, &format!("sda{number}.{kind}-ptcl-img{end}"), split);
        parts.push(format!("sda{number}"));
    }
    write(&folder, "parts", (parts.join(" ") + "\n").as_bytes());
    let swap = machine.partitions[2].0;
    write(&folder, &format!("swappt-sda{swap}.info"), format!("UUID=\"{UUID}\"\nLABEL=\"memory\"\n").as_bytes());
    folder
}

#[test]
fn a_folder_of_clonezilla_gives_the_disk_with_every_packer_whole_and_split() {
    for (script, packers) in SCRIPTS.into_iter().zip([
        &[("gzip", ".gz", "300K"), ("zstd", ".zst", ""), ("", "", "1000000")][..],
        &[
            ("zstd", ".zst", "300K"),
            ("xz -0", ".xz", ""),
            ("xz -0 --format=lzma", ".lzma", "300K"),
            ("bzip2", ".bz2", "300K"),
            ("lz4", ".lz4", ""),
            ("", ".uncomp", ""),
            ("lzip -0", ".lzip", "300K"),
        ][..],
    ]) {
        let Some(machine) = Machine::new(script) else { return };
        let has_lzip = tools(&["lzip"]).is_some();
        for (program, end, split) in packers.iter().filter(|(_, end, _)| has_lzip || *end != ".lzip") {
            machine.is_read(&clonezilla(&machine, program, end, split), true);
        }
        let folder = clonezilla(&machine, "zstd", ".zst", "");
        for less in
            ["sda-gpt.gdisk", "sda-gpt-1st", "sda-mbr"].iter().filter(|name| script.0 == "gpt" || **name != "sda-mbr")
        {
            let _ = std::fs::remove_file(folder.join(less));
            machine.is_read(&folder, true);
        }
    }
}

#[test]
fn a_folder_of_clonezilla_that_lacks_something_is_refused_with_the_name_of_it() {
    let Some(machine) = Machine::new(SCRIPTS[0]) else { return };
    let folder = clonezilla(&machine, "gzip", ".gz", "20K");
    let refused = |what: &str| {
        let read = opened(&folder).map_err(io::Error::other).and_then(|disk| bytes_of(&*disk));
        let error = read.map(drop).unwrap_err().to_string();
        assert!(error.contains(what), "{error}, not {what}");
    };
    let at = |name: &str| folder.join(name);
    let aside = |name: &str, what: &str| {
        std::fs::rename(at(name), at("aside")).unwrap();
        refused(what);
        std::fs::rename(at("aside"), at(name)).unwrap();
    };
    aside("sda1.ext4-ptcl-img.gz.ab", "sda1.ext4-ptcl-img.gz.ab");
    aside("sda1.ext4-ptcl-img.gz.aa", "sda1.ext4-ptcl-img.gz.aa");
    let count = std::fs::read_dir(&folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("sda1.ext4"));
    let last = (0..count.count() - 1).fold("aa".to_owned(), |end, _| {
        let bytes = end.as_bytes();
        if bytes[1] == b'z' {
            format!("{}a", char::from(bytes[0] + 1))
        } else {
            format!("{}{}", char::from(bytes[0]), char::from(bytes[1] + 1))
        }
    });
    aside(&format!("sda1.ext4-ptcl-img.gz.{last}"), "cut short");
    aside("sda-pt.sf", "no partition table");
    write(&folder, "sda1.ext4-ptcl-img.gz", b"");
    refused("as a whole and in pieces");
    std::fs::rename(at("sda1.ext4-ptcl-img.gz"), at("sda1.vfat-ptcl-img.gz")).unwrap();
    refused("not the only image");
    std::fs::remove_file(at("sda1.vfat-ptcl-img.gz")).unwrap();
    let all: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in all.iter().filter(|path| path.display().to_string().contains("sda6.ntfs")) {
        std::fs::remove_file(path).unwrap();
    }
    refused("\"sda6\" has no image");
    write(&folder, "sda6.ntfs-img.aa", b"\0ntfsclone-image\x10");
    refused("ntfsclone");
    write(&folder, "sda6.ntfs-img.aa", b"something");
    refused("cannot be right");
    std::fs::remove_file(at("sda6.ntfs-img.aa")).unwrap();
    write(&folder, "sda6.ntfs-ptcl-img.lzo", b"\x89LZO\0\r\n\x1A\n");
    refused("lzop");
    std::fs::remove_file(at("sda6.ntfs-ptcl-img.lzo")).unwrap();
    write(&folder, "lvm_vg_dev.list", b"vg /dev/sda6 abc\n");
    refused("volume group");
    std::fs::remove_file(at("lvm_vg_dev.list")).unwrap();
    // A partition that was never meant to be saved is left out.
    write(&folder, "parts", b"sda1 sda2\n");
    assert!(opened(&folder).unwrap().notes().iter().any(|note| note.contains("sda6 was not saved")));
    // The plain bytes of a partition.
    let ntfs = &machine.partitions[3];
    pack(&ntfs.2, "gzip", &folder, "sda6.dd-img.gz", "");
    let read = bytes_of(&*opened(&folder).unwrap()).unwrap();
    let end = ntfs.1 + 10246 * 512;
    assert_eq!(difference(&read[ntfs.1..end], &machine.bytes[ntfs.1..end]), "");
    std::fs::copy(at("sda-pt.sf"), at("sdb-pt.sf")).unwrap();
    refused("sda, sdb");
    let asked = |disk| open(&folder, &Asked { disk: Some(disk), ..Asked::of(&folder) });
    assert!(asked("sda").is_ok());
    assert!(asked("sdc").unwrap_err().to_string().contains("no disk \"sdc\""));
    let empty = machine.dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(opened(&empty).unwrap_err().to_string().contains("Clonezilla or FOG"));
}

pub(super) fn fog(machine: &Machine, program: &str, split: &str, minimum: bool) -> PathBuf {
    let folder = machine.folder();
    let text = machine.text_of_sfdisk();
    if minimum {
        // What the disk was like before its file systems were made small.
        write(&folder, "d1.partitions", text.replace("size=       10246", "size=       20000").as_bytes());
        write(&folder, "d1.minimum.partitions", text.as_bytes());
    } else {
        write(&folder, "d1.partitions", text.as_bytes());
        write(&folder, "d1.size", format!("1:{}\n", machine.bytes.len()).as_bytes());
    }
    if machine.bytes[512..520] == *b"EFI PART" {
        run("sgdisk", [&format!("--backup={}", folder.join("d1.mbr").display()), machine.disk.to_str().unwrap()]);
    } else {
        write(&folder, "d1.mbr", &machine.bytes[..MIB]);
        write(&folder, "d1p3.ebr", b"");
    }
    for (number, _, image) in &machine.images {
        let name = format!("d1p{number}.img");
        if split.is_empty() {
            pack(image, program, &folder, &name, "");
        } else {
            pack(image, program, &folder, &name, &format!("{split} -d -a 3"));
            std::fs::rename(folder.join(format!("{name}.000")), folder.join(&name)).unwrap();
        }
    }
    let swap = machine.partitions[2].0;
    write(&folder, "d1.original.swapuuids", format!("/dev/sda{swap} {UUID}\n").as_bytes());
    folder
}

#[test]
fn a_folder_of_fog_gives_the_disk_resizable_or_not() {
    for script in SCRIPTS {
        let Some(mut machine) = Machine::new(script) else { return };
        // FOG keeps no label of a swap.
        let label = machine.partitions[2].1 + 1052;
        machine.bytes[label..label + 16].fill(0);
        for (program, split, minimum) in [("gzip", "", false), ("zstd", "20K", false), ("", "200K", true)] {
            let folder = fog(&machine, program, split, minimum);
            machine.is_read(&folder, script.0 == "gpt" || !minimum);
            if !split.is_empty() {
                let asked = Asked { disk: Some("d1"), ..Asked::of(&folder) };
                assert!(open(&folder, &asked).is_ok());
                std::fs::remove_file(folder.join("d1p1.img.001")).unwrap();
                let error = opened(&folder).unwrap_err().to_string();
                assert!(error.contains("d1p1.img.001"), "{error}");
            }
        }
    }
    let Some(machine) = Machine::new(SCRIPTS[0]) else { return };
    let folder = fog(&machine, "gzip", "", false);
    write(&folder, "d1p1.img", b"PaRtImAgE-VoLuMe and so on, up to 32 bytes and more");
    assert!(opened(&folder).unwrap_err().to_string().contains("partimage"));
    write(&folder, "sys.img.000", b"");
    assert!(opened(&folder).unwrap_err().to_string().contains("images of partimage"));
}

#[test]
fn the_boot_loader_in_front_of_an_extended_partition_is_in_the_disk_that_fog_saved() {
    let dir = tempfile::tempdir().unwrap();
    let table = "label: dos\n/dev/sda1 : start=2048, size=8192, type=5\n/dev/sda5 : start=4096, size=2048, type=82\n";
    write(dir.path(), "d1.partitions", table.as_bytes());
    let mut front = vec![0x5A; 2 * MIB];
    front[..512].fill(0);
    write(dir.path(), "d1.mbr", &front);
    let disk = opened(dir.path()).unwrap();
    let mut read = vec![0; 2048 * 512];
    disk.read_at(0, &mut read).unwrap();
    assert!(read[512..].iter().all(|byte| *byte == 0x5A));
    // Where a boot record lies in another partition, one of both would be lost.
    let table = format!("{table}/dev/sda2 : start=2044, size=100, type=83\n");
    write(dir.path(), "d1.partitions", table.as_bytes());
    write(dir.path(), "d1.original.swapuuids", format!("/dev/sda2 {UUID}\n").as_bytes());
    let error = opened(dir.path()).unwrap_err().to_string();
    assert!(error.contains("two things") && !error.contains('\n'), "{error}");
}

#[test]
fn a_partition_that_fog_saved_as_it_is_has_its_bytes_and_its_checksums_are_compared() {
    let Some(machine) = Machine::new(SCRIPTS[1]) else { return };
    if tools(&["partclone.imager"]).is_none() {
        return;
    }
    let folder = fog(&machine, "gzip", "", false);
    let (number, start, volume) = &machine.partitions[3];
    let image = std::fs::read(saved("partclone.imager", volume, "raw.img", &[])).unwrap();
    let name = format!("d1p{number}.img");
    write(&folder, &name, &image);
    let disk = opened(&folder).unwrap();
    assert!(disk.contents().iter().any(|content| content.what == "raw"), "{:?}", disk.contents());
    let end = start + 10246 * 512;
    assert_eq!(difference(&bytes_of(&*disk).unwrap()[*start..end], &machine.bytes[*start..end]), "");
    for at in [image.len() / 2, image.len() - 1] {
        let mut flipped = image.clone();
        flipped[at] ^= 4;
        write(&folder, &name, &flipped);
        let error = bytes_of(&*opened(&folder).unwrap()).unwrap_err().to_string();
        assert!(error.contains(&name) && error.contains("checksum"), "{error}");
    }
}
