//! A Clonezilla folder of a disk with a volume group, saved with the programs that Clonezilla calls, and what LVM2 says of the disk that is made of it.

use super::partclone::{saved, tools};
use super::*;
use crate::testing::{LoopDevice, run, run_with};

const MIB: u64 = 1 << 20;
const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";
/// Where the physical volume lies on the disk.
const START: u64 = 2 * MIB;
const SIZE: u64 = 120 * MIB;

/// A disk with a group in its only partition, and the partition as a file of its own.
pub(super) struct Group {
    dir: tempfile::TempDir,
    disk: PathBuf,
    device: LoopDevice,
}

fn lvm(device: &LoopDevice, dir: &Path, command: &str) -> String {
    let (name, locks) = (device.path(), dir.display());
    let config = format!(
        "devices {{ filter=[\"a|^{name}$|\",\"r|.*|\"] use_devicesfile=0 obtain_device_list_from_udev=0 }} \
         activation {{ udev_sync=0 udev_rules=0 }} backup {{ backup=0 archive=0 }} global {{ locking_dir=\"{locks}\" event_activation=0 }}"
    );
    let said = run("lvm", command.split_whitespace().chain(["--driverloaded", "n", "--config", &config]));
    // Warnings about open files and the missing device-mapper are no answer.
    let is_answer = |line: &&str| !line.contains("WARNING") && !line.contains("leaked on lvm");
    said.lines().filter(is_answer).collect::<Vec<_>>().join("\n")
}

impl Group {
    /// `root` in two pieces with `data` between them, a `swap`, and a free end.
    pub(super) fn new() -> Option<Self> {
        tools(&["lvm", "sfdisk", "mke2fs", "mkswap", "mkntfs", "partclone.extfs", "gzip", "zstd"])?;
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        std::fs::write(&disk, vec![0x5A; usize::try_from(START + SIZE + MIB).unwrap()]).unwrap();
        let script = format!("label: gpt\nstart={}, size={}, type=lvm\n", START / 512, SIZE / 512);
        run_with("sfdisk", ["-q", "--wipe", "always", disk.to_str().unwrap()], &script);
        let part = dir.path().join("part");
        std::fs::write(&part, vec![0x5A; usize::try_from(SIZE).unwrap()]).unwrap();
        let device = LoopDevice::new(&part, 512)?;
        let group = Self { dir, disk, device };
        for command in [
            &format!("pvcreate -q -y {}", group.device.path()),
            &format!("vgcreate -q --setautoactivation n my-vg {}", group.device.path()),
            "lvcreate -q -y -an -Wn -Zn -l 3 -n root my-vg",
            "lvcreate -q -y -an -Wn -Zn -l 4 -n data.old my-vg",
            "lvcreate -q -y -an -Wn -Zn -l 2 -n swap my-vg",
            "lvcreate -q -y -an -Wn -Zn -l 3 -n win my-vg",
            "lvextend -q -l +4 my-vg/root",
        ] {
            group.lvm(command);
        }
        Some(group)
    }

    fn lvm(&self, command: &str) -> String {
        lvm(&self.device, self.dir.path(), command)
    }

    fn file(&self, name: &str, bytes: u64, fill: u8) -> PathBuf {
        write(self.dir.path(), name, &vec![fill; usize::try_from(bytes).unwrap()])
    }
}

/// Where the bytes of a volume lie on its physical volume, by the word of LVM2.
fn places(device: &LoopDevice, dir: &Path, volume: &str) -> Vec<Range<u64>> {
    let said = lvm(device, dir, &format!("lvs --noheadings --sort seg_start -o seg_pe_ranges my-vg/{volume}"));
    let number = |text: &str| text.parse::<u64>().unwrap();
    let ranges =
        said.lines().filter_map(|line| line.trim().strip_prefix(device.path())?.strip_prefix(':')?.split_once('-'));
    ranges.map(|(first, last)| MIB + number(first) * 4 * MIB..MIB + (number(last) + 1) * 4 * MIB).collect()
}

fn inside(content: &[u8], places: &[Range<u64>]) -> Vec<u8> {
    let range = |place: &Range<u64>| usize::try_from(place.start).unwrap()..usize::try_from(place.end).unwrap();
    places.iter().flat_map(|place| content[range(place)].to_vec()).collect()
}

/// What Clonezilla saves, with each logical volume in a file.
pub(super) fn folder(group: &Group) -> (PathBuf, PathBuf, PathBuf, PathBuf) {
    let folder = group.dir.path().join("saved");
    std::fs::create_dir(&folder).unwrap();
    let table = run("sfdisk", ["-d", group.disk.to_str().unwrap()]);
    let table = table.replace(&format!("{}", group.disk.display()), "/dev/sda");
    write(&folder, "clonezilla-img", b"");
    write(&folder, "disk", b"sda\n");
    write(&folder, "parts", b"sda1\n");
    write(&folder, "sda-pt.sf", table.as_bytes());
    let uuid = group.lvm("pvs --noheadings -o pv_uuid");
    write(&folder, "lvm_vg_dev.list", format!("my-vg /dev/sda1 {}\n", uuid.trim()).as_bytes());
    let list = ["root", "data.old", "swap", "win"].map(|name| format!("/dev/my-vg/{name}  some file system\n"));
    write(&folder, "lvm_logv.list", list.concat().as_bytes());
    group.lvm(&format!("vgcfgbackup -q -f {} my-vg", folder.join("lvm_my-vg.conf").display()));
    let root = group.file("root", 28 * MIB, 0xA5);
    run("mke2fs", ["-q", "-F", "-t", "ext4", "-d", "/usr/share/doc/mount", root.to_str().unwrap()]);
    let image = saved("partclone.extfs", &root, "root.img", &[]);
    let to = folder.join("my-vg-root.ext4-ptcl-img.gz");
    run("sh", ["-c", &format!("gzip -c {} | split -b 100K - {}.", image.display(), to.display())]);
    let data = write(group.dir.path(), "data", &disk(16 * 2048));
    let to = folder.join("my-vg-data.old.dd-img.zst");
    run("sh", ["-c", &format!("zstd -qc {} > {}", data.display(), to.display())]);
    let win = group.file("win", 12 * MIB, 0xA5);
    run("mkntfs", ["-q", "-F", "-Q", "-p", "0", win.to_str().unwrap()]);
    let image = saved("partclone.ntfs", &win, "win.img", &[]);
    std::fs::copy(image, folder.join("my-vg-win.ntfs-ptcl-img.uncomp")).unwrap();
    write(&folder, "swappt-my-vg-swap.info", format!("UUID=\"{UUID}\"\nLABEL=\"\"\n").as_bytes());
    (folder, root, data, win)
}

#[test]
fn a_volume_group_in_a_folder_of_clonezilla_is_made_anew_and_lvm_takes_it() {
    let Some(group) = Group::new() else { return };
    let (folder, root, data, win) = folder(&group);
    let disk = opened(&folder).unwrap();
    assert_eq!(disk.contents()[0].what, "LVM2");
    assert_eq!(disk.notes(), [] as [String; 0]);
    let content = bytes_of(&*disk).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let part = dir.path().join("part");
    let [start, end] = [START, START + SIZE].map(|at| usize::try_from(at).unwrap());
    std::fs::write(&part, &content[start..end]).unwrap();
    let again = LoopDevice::new(&part, 512).unwrap();
    let ask = |command: &str| lvm(&again, dir.path(), command);
    ask(&format!("pvck {}", again.path()));
    ask("vgck my-vg");
    let columns = "pv_uuid,vg_uuid,vg_seqno,pe_start,dev_size,pv_size,pv_mda_size,vg_free_count";
    for command in [
        format!("pvs --noheadings -o {columns}"),
        "lvs --noheadings --segments -o lv_uuid,lv_name,seg_start_pe,seg_size_pe".to_owned(),
    ] {
        assert_eq!(ask(&command), group.lvm(&command));
    }
    let text = |device: &LoopDevice, path: &Path| {
        let to = dir.path().join("text");
        lvm(device, path, &format!("vgcfgbackup -q -f {} my-vg", to.display()));
        let text = std::fs::read_to_string(to).unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.contains("creation_time") && !line.contains("device") && !line.contains("Generated"));
        lines.filter(|line| !line.contains("description")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(text(&again, dir.path()), text(&group.device, group.dir.path()));
    // What is unused of the partition, as places of it.
    let part = &content[start..end];
    let free: Vec<_> = disk.unused().iter().filter(|unused| unused.start >= START).cloned().collect();
    let used = |mut bytes: Vec<u8>, places: &[Range<u64>]| {
        let mut at = 0;
        for place in places {
            for unused in &free {
                let [from, to] =
                    [unused.start - START, (unused.end - START).min(SIZE)].map(|to| to.clamp(place.start, place.end));
                let here = |to: u64| usize::try_from(at + to - place.start).unwrap();
                bytes[here(from)..here(to)].fill(0);
            }
            at += place.end - place.start;
        }
        bytes
    };
    for (name, file) in [("root", &root), ("data.old", &data), ("win", &win)] {
        let places = places(&again, dir.path(), name);
        assert_eq!(places.len(), if name == "root" { 2 } else { 1 });
        let ours = inside(part, &places);
        let theirs = used(std::fs::read(file).unwrap(), &places);
        if name != "data.old" {
            let check = write(dir.path(), "check", &ours);
            let (program, options) = if name == "root" { ("e2fsck", "-fn") } else { ("ntfsfix", "-n") };
            run(program, [options, check.to_str().unwrap()]);
        }
        // Of free space zeros are written where programs look for signatures.
        let is_same = |(ours, theirs): (&u8, &u8)| ours == theirs || (*ours == 0 && *theirs == 0xA5);
        let differs = ours.iter().zip(&theirs).position(|pair| !is_same(pair));
        assert_eq!((ours.len(), differs), (theirs.len(), None), "{name}");
        assert!(free.iter().map(|free| free.end - free.start).sum::<u64>() > 60 * MIB);
    }
    let swap = inside(part, &places(&again, dir.path(), "swap"));
    let theirs = group.file("swap", 8 * MIB, 0);
    run("mkswap", ["-q", "-U", UUID, theirs.to_str().unwrap()]);
    assert_eq!(difference(&swap[..4096], &std::fs::read(theirs).unwrap()[..4096]), "");
    // LVM2 can go on with it.
    ask("lvcreate -q -y -an -Wn -Zn -l 1 -n more my-vg");
    ask("vgck my-vg");
}

#[test]
fn a_volume_group_that_cannot_be_made_anew_is_refused_with_the_reason() {
    let Some(group) = Group::new() else { return };
    let (folder, ..) = folder(&group);
    let text = std::fs::read_to_string(folder.join("lvm_my-vg.conf")).unwrap();
    let refused = |what: &str| {
        let error = opened(&folder).unwrap_err().to_string();
        assert!(error.contains(what) && !error.contains('\n'), "{error}, not {what}");
    };
    let with = |from: &str, to: &str, what: &str| {
        assert!(text.contains(from), "{from} in {text}");
        write(&folder, "lvm_my-vg.conf", text.replacen(from, to, 1).as_bytes());
        refused(what);
    };
    with("type = \"striped\"", "type = \"thin\"", "logical volume");
    with("pe_start = 2048", "pe_start = 8", "first extent");
    with("pe_start = 2048", "pe_start = 18446744073709551615", "first extent");
    with("pe_count = 29", "pe_count = 9223372036854775807", "made anew");
    with("pe_count = 29", "pe_count = 3", "made anew");
    with("dev_size = ", "dev_size = 9", "larger than its partition");
    with("extent_size = 8192", "extent_size = 0", "made anew");
    with("physical_volumes {", "physical_volumes {\npv7 { id = \"x\" }", "several physical volumes");
    with("pe_start = 2048", "pe_start = 2048\nba_start = 100\nba_size = 100", "boot loader");
    with("my-vg {", "other {", "this group");
    with("start_extent = 0", "start_extent = 1", "made anew");
    with("\"pv0\", 3", "\"pv0\", 0", "same extents");
    for cut in (0..text.len()).step_by(97) {
        write(&folder, "lvm_my-vg.conf", &text.as_bytes()[..cut]);
        refused("made anew");
    }
    write(&folder, "lvm_my-vg.conf", &[text.as_bytes(), &b"# x\n".repeat(200_000)].concat());
    refused("has room for");
    std::fs::remove_file(folder.join("lvm_my-vg.conf")).unwrap();
    refused("lvm_my-vg.conf\" is missing");
    write(&folder, "lvm_my-vg.conf", text.as_bytes());
    let win = folder.join("my-vg-win.ntfs-ptcl-img.uncomp");
    let image = std::fs::read(&win).unwrap();
    std::fs::remove_file(&win).unwrap();
    refused("\"/dev/my-vg/win\" has no image");
    let list = std::fs::read_to_string(folder.join("lvm_logv.list")).unwrap();
    write(&folder, "lvm_logv.list", list.replace("/dev/my-vg/win", "/dev/my-vg/won").as_bytes());
    assert_eq!(opened(&folder).unwrap().notes(), ["/dev/my-vg/win was not saved: nothing is written to its place"]);
    std::fs::remove_file(folder.join("swappt-my-vg-swap.info")).unwrap();
    write(&folder, "my-vg-swap.ntfs-ptcl-img", &image);
    refused("so much room");
    write(&folder, "lvm_vg_dev.list", b"/NOT_FOUND /dev/sda1 abc\n");
    refused("in no volume group");
    std::fs::remove_file(folder.join("lvm_vg_dev.list")).unwrap();
    write(&folder, "luks-dev.list", b"/dev/sda1 /dev/mapper/ocs_luks_abc\n");
    refused("LUKS");
}
