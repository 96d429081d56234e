//! Looking at grains: are they eight bytes repeated, and if not, what is their hash?

use super::index::GrainHash;

/// What a grain of the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// Eight bytes repeated.
    Fill(u64),
    /// Anything else.
    Data(GrainHash),
}

/// What each grain of `chunk` is; the chunk is a whole number of grains.
pub(super) fn look(chunk: &[u8], grain: usize, found: &mut Vec<Grain>) {
    found.extend(chunk.chunks_exact(grain).map(|bytes| match fill_pattern(bytes) {
        Some(pattern) => Grain::Fill(pattern),
        None => Grain::Data(grain_hash(bytes)),
    }));
}

/// The eight bytes that `bytes`, a multiple of 128, are a repetition of.
fn fill_pattern(bytes: &[u8]) -> Option<u64> {
    let pattern = u64::from_le_bytes(*bytes.first_chunk()?);
    let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let differs = |line: &[u8]| line.chunks_exact(8).fold(0, |sum, eight| sum | (word(eight) ^ pattern)) != 0;
    (!bytes.chunks_exact(128).any(differs)).then_some(pattern)
}

/// The hash that stands for a grain.
pub(super) fn grain_hash(bytes: &[u8]) -> GrainHash {
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_are_told_from_data() {
        let mut bytes = vec![0; 4 * 4096];
        bytes[4096..8192].as_chunks_mut().0.fill(7u64.to_le_bytes());
        bytes[2 * 4096 - 1 + 4096] = 1;
        bytes[3 * 4096 + 8] = 1;
        let mut found = Vec::new();
        look(&bytes, 4096, &mut found);
        assert_eq!(found[..2], [Grain::Fill(0), Grain::Fill(7)]);
        assert_eq!(found[2], Grain::Data(grain_hash(&bytes[8192..12288])));
        assert!(matches!(found[3], Grain::Data(_)));
    }
}
