//! Filling a file system as years of use do: files are written, grow, and are deleted again between others.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use slidecast_lab::disk::random::Random;
use slidecast_lab::{LabError, Result, tool};

/// Larger files are left out, so that no single one makes up a file system.
const LARGEST: u64 = 64 << 20;
/// After so many files what was written for a short time only is deleted again.
const ROUND: u64 = 400;

/// Files to fill file systems with, each given once.
#[derive(Debug)]
pub(super) struct Files {
    /// Folders that were not looked into; files of the last one.
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
    random: Random,
}

impl Files {
    /// Those below `folder`, in the order of their names.
    pub(super) fn below(folder: &Path) -> Self {
        Self { folders: vec![folder.to_owned()], files: Vec::new(), random: Random::new(17) }
    }

    fn next_file(&mut self) -> Option<PathBuf> {
        loop {
            if let Some(file) = self.files.pop() {
                return Some(file);
            }
            let folder = self.folders.pop()?;
            let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
            for entry in entries {
                match entry.metadata() {
                    Ok(meta) if meta.is_dir() => self.folders.push(entry.path()),
                    Ok(meta) if meta.is_file() && (1..=LARGEST).contains(&meta.len()) => self.files.push(entry.path()),
                    _ => {}
                }
            }
        }
    }

    /// The content of the next file: a real one, or text, or in one of four cases noise.
    fn next_content(&mut self) -> Vec<u8> {
        while let Some(path) = self.next_file() {
            if let Ok(content) = fs::read(path) {
                return content;
            }
        }
        let len = usize::try_from(1 + self.random.below(self.random.clone().below(1 << 20) + 4096)).unwrap_or(4096);
        if self.random.below(4) == 0 { self.random.bytes(len) } else { self.random.text(len) }
    }

    /// Writes files of `bytes` bytes in all below `at`, as a system that is used does: every second file has a neighbour that is deleted
    /// later, and every eighth is written in two goes with others between them.
    pub(super) fn fill(&mut self, at: &Path, bytes: u64) -> Result<()> {
        let (mut written, mut number) = (0, 0_u64);
        let (mut short_lived, mut unfinished) = (Vec::new(), Vec::new());
        while written < bytes {
            let content = self.next_content();
            let path = place(at, number, "")?;
            let now = if number % 8 == 0 { content.len() / 2 } else { content.len() };
            fs::write(&path, &content[..now]).map_err(LabError::io("writing", &path))?;
            if now < content.len() {
                unfinished.push((path, content[now..].to_vec()));
            }
            written += content.len() as u64;
            if number % 2 == 0 {
                let path = place(at, number, ".tmp")?;
                let len = usize::try_from(1 + self.random.below(96 << 10)).unwrap_or(1);
                fs::write(&path, self.random.bytes(len)).map_err(LabError::io("writing", &path))?;
                short_lived.push(path);
            }
            number += 1;
            if number % ROUND == 0 {
                settle(&mut unfinished, &mut short_lived)?;
            }
        }
        settle(&mut unfinished, &mut short_lived)
    }
}

fn place(at: &Path, number: u64, end: &str) -> Result<PathBuf> {
    let folder = at.join(format!("folder{}", number / 200));
    if !folder.exists() {
        fs::create_dir(&folder).map_err(LabError::io("creating", &folder))?;
    }
    Ok(folder.join(format!("file{number}{end}")))
}

/// Writes the rest of files and deletes what is not needed any more, with everything on the disk before and between.
fn settle(unfinished: &mut Vec<(PathBuf, Vec<u8>)>, short_lived: &mut Vec<PathBuf>) -> Result<()> {
    tool::run("sync", [] as [&str; 0])?;
    for (path, rest) in unfinished.drain(..) {
        let append = File::options().append(true).open(&path).and_then(|mut file| file.write_all(&rest));
        append.map_err(LabError::io("writing", &path))?;
    }
    tool::run("sync", [] as [&str; 0])?;
    for path in short_lived.drain(..) {
        fs::remove_file(&path).map_err(LabError::io("removing", &path))?;
    }
    Ok(())
}
