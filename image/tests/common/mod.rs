//! Disks made up for the tests.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, reason = "helpers of tests; not every test uses each")]

pub mod forge;

use slidecast_image::{CreateOptions, CreateReport, ExportOptions, ExportReport, ImageError, create, export};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder with disks and images, gone after the test.
#[derive(Debug)]
pub struct Bench {
    folder: TempDir,
}

/// Bytes that do not repeat and pack badly, from a seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for eight in out.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        eight.copy_from_slice(&state.to_le_bytes()[..eight.len()]);
    }
    out
}

/// Bytes that pack well.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    noise(seed, len).into_iter().map(|byte| b"abcdefgh"[usize::from(byte % 8)]).collect()
}

/// Writes an image out the usual way.
pub fn exported(image: &Path, to: &Path) -> Result<ExportReport, ImageError> {
    export(&ExportOptions { image: image.into(), to: to.into(), verify: None }, |_| ())
}

impl Bench {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A disk of `bytes` with that content in it, otherwise a hole.
    pub fn disk(&self, name: &str, bytes: u64, content: &[(u64, Vec<u8>)]) -> PathBuf {
        let path = self.path(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(bytes).unwrap();
        content.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
        path
    }

    pub fn base(&self, source: &Path, name: &str) -> CreateReport {
        create(&CreateOptions::new(source, &self.path(name)), |_| ()).unwrap()
    }

    pub fn child(&self, source: &Path, parent: &str, name: &str) -> Result<CreateReport, ImageError> {
        let options = CreateOptions { parent: Some(self.path(parent)), ..CreateOptions::new(source, &self.path(name)) };
        create(&options, |_| ())
    }

    /// The image `name` written out.
    pub fn exported(&self, name: &str) -> Vec<u8> {
        let to = self.path("exported.img");
        exported(&self.path(name), &to).unwrap();
        std::fs::read(to).unwrap()
    }

    /// Whether the image, written out, is the disk.
    pub fn is_equal(&self, name: &str, disk: &Path) -> bool {
        self.exported(name) == std::fs::read(disk).unwrap()
    }

    /// The names of all files in the folder.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}
