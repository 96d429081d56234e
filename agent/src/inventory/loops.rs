//! What is behind each loop device: which file or device, and which bytes of it.
//!
//! A file is known by its device and inode number, not by its name: a hard link, a bind mount or a path from another root is
//! the same file. The kernel says both numbers for a loop device (`LOOP_GET_STATUS64`); where the device can't be asked, the path
//! that sysfs gives is looked at.

use super::asking::{Answer, Question, Wait, ask};
use super::{Roots, dev_number, kernel_numbers, number};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

/// A loop device that has something behind it.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) name: String,
    /// The path behind it, as sysfs has it: relative to the root of whoever set it up, and perhaps gone since.
    path: PathBuf,
    /// Whether the file behind it answered.
    pub(super) answers: bool,
    file: Option<FileId>,
    /// `major:minor` of the device behind it, if it is one.
    device: Option<String>,
    /// Which bytes of it are shown.
    start: u64,
    bytes: u64,
}

impl Loop {
    /// The loop devices that are set up.
    pub(super) fn all(roots: &Roots, wait: Wait) -> Vec<Self> {
        let names = super::held::children(&roots.sys.join("block"));
        let names = names.into_iter().filter(|name| name.starts_with("loop"));
        let mut loops: Vec<Self> = names.filter_map(|name| Self::read(roots, name)).collect();
        let question = |this: &Self| Question {
            path: roots.dev.join(&this.name),
            behind: Some((roots.sys.join("block").join(&this.name), this.path.clone())),
        };
        let questions: Vec<_> = loops.iter().map(question).collect();
        for (this, answer) in loops.iter_mut().zip(ask(wait, &questions)) {
            this.hear(answer);
        }
        loops
    }

    /// What sysfs says of one, which nothing can keep waiting.
    fn read(roots: &Roots, name: String) -> Option<Self> {
        let dir = roots.sys.join("block").join(&name);
        let path = fs::read_to_string(dir.join("loop/backing_file")).ok()?;
        let path = PathBuf::from(path.trim_end_matches('\n'));
        let start = number(&dir.join("loop/offset")).unwrap_or(0);
        let bytes = number::<u64>(&dir.join("size")).unwrap_or(0).saturating_mul(512);
        Some(Self { name, path, answers: false, file: None, device: None, start, bytes })
    }

    fn hear(&mut self, answer: Option<Answer>) {
        self.answers = answer.is_some();
        let Some(Answer { meta, status, .. }) = answer else { return };
        (self.file, self.device) = match (status, meta) {
            (Some(status), _) => {
                let device = (status.rdevice != 0).then(|| dev_number(status.rdevice));
                (Some(FileId { device: status.device, inode: status.inode }), device)
            }
            (None, Some(meta)) => (Some(FileId::of(&meta)), kernel_numbers(&meta)),
            (None, None) => (None, None),
        };
    }

    /// Whether this is what it shows.
    pub(super) fn shows(&self, path: &Path, meta: &Metadata) -> bool {
        self.file == Some(FileId::of(meta)) || (self.file.is_none() && self.path == path)
    }

    /// Whether it shows the device with this `major:minor`, or a part of it.
    pub(super) fn shows_device(&self, dev: &str) -> bool {
        self.device.as_deref() == Some(dev)
    }

    /// Whether some byte of the same file or device is behind both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.has_same_behind(other) && self.start < other.end() && other.start < self.end()
    }

    /// What makes two loop devices one disk: the same bytes of the same file.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.has_same_behind(other) && (self.start, self.bytes) == (other.start, other.bytes)
    }

    fn has_same_behind(&self, other: &Self) -> bool {
        match (&self.device, &other.device) {
            (Some(device), Some(others)) => device == others,
            (None, None) if self.file.is_some() || other.file.is_some() => self.file == other.file,
            (None, None) => self.path == other.path,
            _ => false,
        }
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes)
    }
}

impl FileId {
    fn of(meta: &Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::disks;
    use super::super::tests::Tree;
    use super::*;
    use slidecast_proto::control::Held;

    /// A tree with loop devices over files of it: name, file, offset.
    fn tree(loops: &[(&str, &str, u64)]) -> Tree {
        let tree = Tree::new();
        for (no, (name, file, offset)) in loops.iter().enumerate() {
            if !tree.path(file).exists() {
                tree.write(file, "some bytes");
            }
            let path = tree.path(file);
            tree.disk(
                name,
                "virtual",
                &format!("7:{no}"),
                &[("loop/backing_file", path.to_str().unwrap()), ("loop/offset", &offset.to_string())],
            );
        }
        tree
    }

    #[test]
    fn a_hard_link_of_a_file_behind_a_loop_device_is_held() {
        let tree = tree(&[("loop0", "a.img", 0)]);
        fs::hard_link(tree.path("a.img"), tree.path("other.img")).unwrap();
        fs::copy(tree.path("a.img"), tree.path("copy.img")).unwrap();
        let held = |name: &str| disks(&tree.roots, Wait::ForAll, Some(&tree.path(name))).pop().unwrap().held;
        assert_eq!(held("other.img"), Held::InUse("it is behind loop0".into()));
        assert_eq!(held("copy.img"), Held::No);
    }

    #[test]
    fn two_loop_devices_over_one_file_are_one_disk() {
        let tree = tree(&[("loop0", "a.img", 0), ("loop1", "a.img", 0), ("loop2", "b.img", 0)]);
        let found = disks(&tree.roots, Wait::ForAll, None);
        let at = |name: &str| tree.roots.dev.join(name).to_str().unwrap().to_owned();
        let paths: Vec<_> = found.iter().map(|disk| (disk.path.clone(), disk.other_paths.clone())).collect();
        assert_eq!(paths, [(at("loop0"), vec![at("loop1")]), (at("loop2"), vec![])]);
        assert!(found.iter().all(|disk| disk.held == Held::No));
    }

    #[test]
    fn what_holds_one_of_two_loop_devices_over_one_file_holds_both() {
        let tree = tree(&[("loop0", "a.img", 0), ("loop1", "a.img", 0)]);
        tree.write("proc/self/mountinfo", "29 27 7:1 / /mnt rw - ext4 /dev/loop1 rw\n");
        let found = disks(&tree.roots, Wait::ForAll, None);
        assert_eq!((found.len(), &found[0].held), (1, &Held::Mounted("loop1 is mounted on /mnt".into())));
    }

    #[test]
    fn loop_devices_that_show_overlapping_bytes_hold_each_other_and_others_do_not() {
        // Each shows 1 MiB.
        let tree = tree(&[("loop0", "a.img", 0), ("loop1", "a.img", 512 << 10), ("loop2", "a.img", 2 << 20)]);
        let found = disks(&tree.roots, Wait::ForAll, None);
        assert_eq!(found[0].held, Held::InUse("some of its bytes are behind loop1, too".into()));
        assert_eq!(found[1].held, Held::InUse("some of its bytes are behind loop0, too".into()));
        assert_eq!(found[2].held, Held::No);
    }

    #[test]
    fn a_disk_behind_a_loop_device_is_held_with_what_stands_on_that() {
        let tree = Tree::new();
        tree.disk("sda", "pci0000:00/ata1/host1", "8:0", &[]);
        tree.write("sys/block/sda/sda1/partition", "1\n");
        tree.write("sys/block/sda/sda1/dev", "8:1\n");
        tree.disk("loop0", "virtual", "7:0", &[("loop/backing_file", "/dev/null")]);
        let mut users = super::super::held::Users::read(&tree.roots, Wait::ForAll);
        users.loops_mut()[0].device = Some("8:1".into());
        let dir = tree.roots.sys.join("block/sda");
        assert_eq!(users.of(&dir, "sda"), Held::InUse("sda1 is behind loop0".into()));
        tree.write("proc/self/mountinfo", "29 27 7:0 / /mnt rw - ext4 /dev/loop0 rw\n");
        let mut users = super::super::held::Users::read(&tree.roots, Wait::ForAll);
        users.loops_mut()[0].device = Some("8:1".into());
        assert_eq!(users.of(&dir, "sda"), Held::Mounted("loop0 is mounted on /mnt".into()));
    }
}
