//! Other users of a disk: mounts, swap, mappings and RAID on it or on its partitions, and loop devices.

use super::Roots;
use super::asking::Wait;
use super::loops::Loop;
use super::same::gravest;
use slidecast_proto::control::Held;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

/// How deep mappings may stand on each other (a volume on a RAID on a partition ...).
const DEPTH: u32 = 8;

/// What is mounted, swapped on and looped, read once for all disks.
pub(super) struct Users {
    block: PathBuf,
    mounts: Vec<Mount>,
    /// Kernel names of swap devices.
    swaps: Vec<String>,
    loops: Vec<Loop>,
}

struct Mount {
    /// `major:minor` of the device, or an anonymous number (btrfs and others).
    dev: String,
    /// The kernel name of the source, if it is a device node.
    source: Option<String>,
    point: String,
}

impl Users {
    pub(super) fn read(roots: &Roots, wait: Wait) -> Self {
        let mounts = fs::read_to_string(roots.proc.join("self/mountinfo")).unwrap_or_default();
        let swaps = fs::read_to_string(roots.proc.join("swaps")).unwrap_or_default();
        let block = roots.sys.join("block");
        Self {
            mounts: mounts.lines().filter_map(|line| Mount::parse(line, &roots.dev)).collect(),
            swaps: swaps
                .lines()
                .skip(1)
                .filter_map(|line| kernel_name(line.split_whitespace().next()?, &roots.dev))
                .collect(),
            loops: Loop::all(roots, wait),
            block,
        }
    }

    /// Why the disk at `dir` may not be written, the gravest reason first.
    pub(super) fn of(&self, dir: &Path, name: &str) -> Held {
        let mut found = vec![];
        self.look_whole(dir, name, DEPTH, &mut found);
        let this = self.loops.iter().find(|this| this.name == name);
        if this.is_some_and(|this| !this.answers) {
            found.push(Held::InUse("the file behind it does not answer".to_owned()));
        }
        for other in this.into_iter().flat_map(|this| self.loops.iter().filter(|other| other.overlaps(this))) {
            if this.is_some_and(|this| !this.is_same_as(other)) {
                found.push(Held::InUse(format!("some of its bytes are behind {}, too", other.name)));
            }
        }
        gravest(found)
    }

    pub(super) fn loops(&self) -> &[Loop] {
        &self.loops
    }

    #[cfg(test)]
    pub(super) fn loops_mut(&mut self) -> &mut [Loop] {
        &mut self.loops
    }

    /// The loop device that shows the file whose true path is `path`, for people.
    pub(super) fn behind_loop(&self, path: &Path, meta: &Metadata) -> Option<String> {
        let found = self.loops.iter().find(|found| found.shows(path, meta))?;
        Some(format!("it is behind {}", found.name))
    }

    /// Collects the uses of a device that may have partitions.
    fn look_whole(&self, dir: &Path, name: &str, depth: u32, found: &mut Vec<Held>) {
        self.look(dir, name, depth, found);
        let partitions = children(dir).into_iter().filter(|child| dir.join(child).join("partition").exists());
        for partition in partitions {
            self.look(&dir.join(&partition), &partition, depth, found);
        }
    }

    /// Collects the uses of one device (a disk, a partition or a mapping) and of what stands on it.
    fn look(&self, dir: &Path, name: &str, depth: u32, found: &mut Vec<Held>) {
        let dev = fs::read_to_string(dir.join("dev")).unwrap_or_default();
        for mount in &self.mounts {
            if mount.dev == dev.trim() || mount.source.as_deref() == Some(name) {
                found.push(if mount.point == "/" {
                    Held::BootMedium(format!("{name} is mounted on /"))
                } else {
                    Held::Mounted(format!("{name} is mounted on {}", mount.point))
                });
            }
        }
        if self.swaps.iter().any(|swap| swap == name) {
            found.push(Held::InUse(format!("{name} is used for swap")));
        }
        for holder in children(&dir.join("holders")) {
            let above = self.block.join(&holder);
            let title = fs::read_to_string(above.join("dm/name")).unwrap_or_default();
            let title = if title.is_empty() { String::new() } else { format!(" ({})", super::clean(&title)) };
            found.push(Held::InUse(format!("{name} is part of {holder}{title}")));
            if depth > 0 {
                self.look(&above, &holder, depth - 1, found);
            }
        }
        for over in self.loops.iter().filter(|over| over.shows_device(dev.trim())) {
            found.push(Held::InUse(format!("{name} is behind {}", over.name)));
            if depth > 0 {
                self.look_whole(&self.block.join(&over.name), &over.name, depth - 1, found);
            }
        }
    }
}

impl Mount {
    /// One line of mountinfo: id, parent, device, root, point, options, optional fields, "-", type, source, options.
    fn parse(line: &str, dev: &Path) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let number = fields.nth(2)?;
        let point = fields.nth(1)?;
        let source = after.split(' ').nth(1)?;
        Some(Self { dev: number.to_owned(), source: kernel_name(source, dev), point: unescape(point) })
    }
}

/// The kernel's name of a device node: links (by-uuid, mapper) are followed.
fn kernel_name(path: &str, dev: &Path) -> Option<String> {
    let below = unescape(path);
    let node = dev.join(Path::new(&below).strip_prefix("/dev").ok()?);
    let node = fs::canonicalize(&node).unwrap_or(node);
    node.file_name().and_then(OsStr::to_str).map(str::to_owned)
}

/// Undoes the octal escapes of mountinfo and swaps.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

pub(super) fn children(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::super::disks;
    use super::super::tests::Tree;
    use super::*;

    fn tree() -> Tree {
        let tree = Tree::new();
        for (name, dev) in [("sda", "8:0"), ("sdb", "8:16")] {
            tree.disk(name, &format!("pci0000:00/ata1/host1/{name}"), dev, &[]);
        }
        tree.write("sys/block/sda/sda1/partition", "1\n");
        tree.write("sys/block/sda/sda1/dev", "8:1\n");
        tree.write("sys/block/sda/sda2/partition", "2\n");
        tree.write("sys/block/sda/sda2/dev", "8:2\n");
        tree
    }

    fn held(tree: &Tree) -> [Held; 2] {
        let found = disks(&tree.roots, Wait::ForAll, None);
        [found[0].held.clone(), found[1].held.clone()]
    }

    #[test]
    fn a_mounted_partition_holds_its_disk() {
        let tree = tree();
        assert_eq!(held(&tree), [Held::No, Held::No]);
        tree.write("proc/self/mountinfo", "29 27 8:2 / /mnt/my\\040disk rw shared:1 - ext4 /dev/sda2 rw\n");
        assert_eq!(held(&tree), [Held::Mounted("sda2 is mounted on /mnt/my disk".into()), Held::No]);
    }

    #[test]
    fn the_disk_of_the_running_system_is_the_boot_medium() {
        let tree = tree();
        let mounts = "30 27 8:1 / /boot rw - vfat /dev/sda1 rw\n29 27 8:2 / / rw - ext4 /dev/sda2 rw\n";
        tree.write("proc/self/mountinfo", mounts);
        assert_eq!(held(&tree), [Held::BootMedium("sda2 is mounted on /".into()), Held::No]);
    }

    #[test]
    fn a_file_system_with_an_anonymous_number_is_found_by_its_source() {
        let tree = tree();
        tree.write("proc/self/mountinfo", "29 27 0:31 /@ /data rw - btrfs /dev/sdb rw\n");
        assert_eq!(held(&tree), [Held::No, Held::Mounted("sdb is mounted on /data".into())]);
    }

    #[test]
    fn swap_holds_its_disk() {
        let tree = tree();
        tree.write("proc/swaps", "Filename\tType\tSize\n/dev/sda1                partition\t1000\t0\t-2\n");
        assert_eq!(held(&tree), [Held::InUse("sda1 is used for swap".into()), Held::No]);
    }

    #[test]
    fn members_of_volumes_and_arrays_are_held_and_their_mounts_found() {
        let tree = tree();
        tree.write("sys/block/sdb/holders/md0/x", "");
        assert_eq!(held(&tree), [Held::No, Held::InUse("sdb is part of md0".into())]);
        tree.write("sys/block/sda/sda2/holders/dm-0/x", "");
        tree.write("sys/block/dm-0/dm/name", "vg-root\n");
        tree.write("sys/block/dm-0/dev", "253:0\n");
        assert_eq!(held(&tree)[0], Held::InUse("sda2 is part of dm-0 (vg-root)".into()));
        tree.write("proc/self/mountinfo", "29 27 253:0 / / rw - ext4 /dev/mapper/vg-root rw\n");
        assert_eq!(held(&tree)[0], Held::BootMedium("dm-0 is mounted on /".into()));
    }
}
