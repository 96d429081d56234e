//! A sample disk's second state: what a week of use does to a system, without mounting it.
//!
//! `debugfs` rewrites, removes and adds files in a copy of the disk, so that blocks are freed and allocated by rules that
//! are not ours, and `e2fsck` checks the result.

use std::fs;
use std::path::{Path, PathBuf};

use super::Layout;
use super::random::Random;
use crate::error::{LabError, Result};
use crate::tool;

/// How much is changed.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// Bytes of files to be rewritten, each in part.
    pub rewrite: u64,
    /// Bytes of files to be removed.
    pub remove: u64,
    /// Bytes of new files.
    pub add: u64,
}

impl Change {
    /// About 2 % of `used` bytes.
    pub fn of(used: u64) -> Self {
        Self { rewrite: used / 100, remove: used / 200, add: used / 200 }
    }

    /// Writes to `second` what the disk `first` has become. `root` is the tree that its root file system was made of,
    /// `scratch` a folder for new content.
    ///
    /// # Errors
    /// When a tool is missing or fails.
    pub fn make(&self, layout: &Layout, first: &Path, second: &Path, root: &Path, scratch: &Path) -> Result<()> {
        let sparse = [Path::new("--sparse=always"), Path::new("--reflink=auto"), first, second];
        tool::run("cp", sparse)?;
        fs::create_dir_all(scratch).map_err(LabError::io("creating", scratch))?;
        let script = self.script(root, scratch)?;
        // debugfs reports what fails but exits 0: its words are the verdict.
        let mut command = std::process::Command::new("sh");
        command.args(["-c", r#"debugfs -w -f - "$0" 2>&1 >/dev/null"#, &layout.root_device(second)]);
        let said = tool::finish(command, Some(&script))?;
        if let Some(complaint) = said.lines().find(|line| !line.starts_with("debugfs 1")) {
            let command = format!("debugfs -w -f - {}", layout.root_device(second));
            return Err(LabError::Tool { command, code: Some(0), stderr: complaint.to_owned() });
        }
        fs::remove_dir_all(scratch).map_err(LabError::io("removing", scratch))?;
        layout.check(second)
    }

    /// The `debugfs` commands.
    fn script(&self, root: &Path, scratch: &Path) -> Result<String> {
        let mut random = Random::new(2);
        let mut files = regular_files(root)?;
        // A shuffle, so that the changes are spread over the disk.
        for i in (1..files.len()).rev() {
            files.swap(i, usize::try_from(random.below(i as u64 + 1)).unwrap_or(0));
        }
        let mut files = files.into_iter();
        let mut script = String::new();
        let name = |number: usize| scratch.join(format!("new{number}"));
        let mut number = 0;
        let mut left = self.rewrite;
        for (path, len) in files.by_ref() {
            if left < len {
                continue;
            }
            let mut content = fs::read(root.join(&path)).map_err(LabError::io("reading", root.join(&path)))?;
            // An eighth of the file changes, as when a program is built again with a small fix.
            for _ in 0..content.len().div_ceil(8 * 4096) {
                let at = usize::try_from(random.below(content.len() as u64)).unwrap_or(0);
                let end = (at + 4096).min(content.len());
                content[at..end].copy_from_slice(&random.bytes(end - at));
            }
            let new = name(number);
            number += 1;
            fs::write(&new, content).map_err(LabError::io("writing", &new))?;
            let inside = Path::new("/").join(&path);
            script += &format!("rm \"{0}\"\nwrite {1} \"{0}\"\n", inside.display(), new.display());
            left -= len;
            if left < 4096 {
                break;
            }
        }
        let mut left = self.remove;
        for (path, len) in files {
            if left >= len {
                script += &format!("rm \"{}\"\n", Path::new("/").join(path).display());
                left -= len;
            }
            if left < 4096 {
                break;
            }
        }
        script += "mkdir /srv/new\n";
        let mut left = self.add;
        while left > 4096 {
            let len = (64 * 1024 + random.below(1 << 20)).min(left);
            let bytes = usize::try_from(len).unwrap_or(4096);
            let content = if random.below(3) == 0 { random.bytes(bytes) } else { random.text(bytes) };
            let new = name(number);
            fs::write(&new, content).map_err(LabError::io("writing", &new))?;
            script += &format!("write {} /srv/new/file{number}\n", new.display());
            number += 1;
            left -= len;
        }
        Ok(script)
    }
}

/// The regular files of a tree with one name each, sorted by path, with their sizes; none that `debugfs` cannot name.
fn regular_files(root: &Path) -> Result<Vec<(PathBuf, u64)>> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(LabError::io("listing", &folder))? {
            let path = entry.map_err(LabError::io("listing", &folder))?.path();
            let meta = fs::symlink_metadata(&path).map_err(LabError::io("looking at", &path))?;
            if meta.is_dir() {
                folders.push(path);
            } else if meta.is_file() && meta.nlink() == 1 && meta.len() >= 4096 {
                let inside = path.strip_prefix(root).unwrap_or(&path).to_owned();
                if inside.to_str().is_some_and(|text| !text.contains(['"', '\\', '\n'])) {
                    found.push((inside, meta.len()));
                }
            }
        }
    }
    found.sort();
    Ok(found)
}
