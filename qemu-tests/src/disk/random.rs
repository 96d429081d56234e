//! Random bytes that are the same in every run.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::{LabError, Result};

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    /// `len` bytes that do not compress.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = (0..len.div_ceil(8)).flat_map(|_| self.word().to_le_bytes());
        words.take(len).collect()
    }

    /// Words of a small vocabulary, about `len` bytes: compresses by three or four, as text does.
    pub fn text(&mut self, len: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(len + 16);
        while text.len() < len {
            let word = self.below(4096) * self.below(4096) / 4096;
            let gap = if self.below(9) == 0 { '\n' } else { ' ' };
            text.extend(format!("{:x}{gap}", word * 0x1357).bytes());
        }
        text
    }
}

/// Writes a file of `bytes` random bytes: a disk on which nothing can be saved.
///
/// # Errors
/// When it cannot be written.
pub fn write_file(path: &Path, bytes: u64, seed: u64) -> Result<()> {
    let file = File::create(path).map_err(LabError::io("creating", path))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let mut random = Random::new(seed);
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left.min(1 << 16)).unwrap_or(1 << 16);
        file.write_all(&random.bytes(len)).map_err(LabError::io("writing", path))?;
        left -= len as u64;
    }
    file.flush().map_err(LabError::io("writing", path))
}
