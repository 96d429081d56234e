//! The deduplication index: which stored grain has a given hash, and how often each is used.
//!
//! Grains are numbered through all indexed layers, the own layer last. The memory is at most [`GRAIN_BYTES`] for each.

/// What one grain costs at most, in bytes: its hash, its count, its share of the table while that is being doubled.
pub(super) const GRAIN_BYTES: u64 = 36;
/// The most memory the index may take, in bytes.
pub(super) const INDEX_BYTES: u64 = 2 << 30;
/// The most places one grain may have; then it is stored again.
const MAX_PLACES: u16 = 4096;

/// The beginning of the BLAKE3 hash of a grain.
pub(super) type GrainHash = [u8; 16];

/// Grains by their hash.
#[derive(Debug)]
pub(super) struct Index {
    hashes: Vec<GrainHash>,
    places: Vec<u16>,
    /// The number of a grain plus one; 0 is free. Open addressing, linear probing.
    table: Vec<u32>,
    filled: usize,
    limit: usize,
}

impl Index {
    /// An empty index that will know at most `grains` grains.
    pub(super) fn new(grains: u64) -> Self {
        let limit = usize::try_from(grains.min(INDEX_BYTES / GRAIN_BYTES)).unwrap_or(0);
        Self {
            hashes: Vec::with_capacity(limit),
            places: Vec::with_capacity(limit),
            table: vec![0; 1 << 12],
            filled: 0,
            limit,
        }
    }

    /// How many grains it knows.
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The hash of grain `id`, if there is one.
    pub(super) fn hash(&self, id: usize) -> Option<&GrainHash> {
        self.hashes.get(id)
    }

    /// The hashes of the grains from `first` on.
    pub(super) fn hashes_from(&self, first: usize) -> &[GrainHash] {
        &self.hashes[first..]
    }

    fn slot(&self, hash: &GrainHash) -> usize {
        let mask = self.table.len() - 1;
        let word = u64::from_le_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]);
        // BLAKE3 needs no further mixing.
        let mut at = usize::try_from(word & mask as u64).unwrap_or(0);
        while self.table[at] != 0 && self.hashes[self.table[at] as usize - 1] != *hash {
            at = (at + 1) & mask;
        }
        at
    }

    /// A grain with that hash.
    pub(super) fn find(&self, hash: &GrainHash) -> Option<usize> {
        (self.table[self.slot(hash)] as usize).checked_sub(1)
    }

    /// Adds the next grain, and lets it be found from now on if `findable` and while there is room.
    pub(super) fn push(&mut self, hash: GrainHash, findable: bool) {
        let id = self.hashes.len();
        self.hashes.push(hash);
        self.places.push(0);
        if !findable || id >= self.limit {
            return;
        }
        if self.filled * 4 >= self.table.len() * 3 {
            self.double();
        }
        let slot = self.slot(&hash);
        self.filled += usize::from(self.table[slot] == 0);
        self.table[slot] = u32::try_from(id + 1).unwrap_or(0);
    }

    fn double(&mut self) {
        let old = core::mem::take(&mut self.table);
        self.table = vec![0; old.len() * 2];
        for entry in old.into_iter().filter(|entry| *entry != 0) {
            let slot = self.slot(&self.hashes[entry as usize - 1]);
            self.table[slot] = entry;
        }
    }

    /// Where several grains have one hash, lets one be found that is in use.
    pub(super) fn prefer_used(&mut self) {
        for id in (0..self.hashes.len().min(self.limit)).filter(|id| self.places[*id] > 0) {
            let slot = self.slot(&self.hashes[id]);
            let found = self.table[slot] as usize;
            if found > 0 && self.places[found - 1] == 0 {
                self.table[slot] = u32::try_from(id + 1).unwrap_or(0);
            }
        }
    }

    /// Whether grain `id` may have one more place.
    pub(super) fn has_room(&self, id: usize) -> bool {
        self.places[id] < MAX_PLACES
    }

    /// Counts one more place of grain `id`.
    pub(super) fn add_place(&mut self, id: usize) {
        self.places[id] = self.places[id].saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(no: u64) -> GrainHash {
        *blake3::hash(&no.to_le_bytes()).as_bytes().first_chunk().unwrap()
    }

    #[test]
    fn grains_are_found_by_their_hash() {
        let mut index = Index::new(10_000);
        (0..10_000).for_each(|no| index.push(hash(no), true));
        assert!((0..10_000).all(|no| index.find(&hash(no)) == usize::try_from(no).ok()));
        assert_eq!(index.find(&hash(10_000)), None);
    }

    #[test]
    fn a_newer_copy_takes_the_place_of_an_older_one() {
        let mut index = Index::new(10);
        index.push(hash(1), true);
        index.push(hash(1), true);
        assert_eq!(index.find(&hash(1)), Some(1));
        index.push(hash(1), false);
        assert_eq!(index.find(&hash(1)), Some(1));
    }

    #[test]
    fn a_grain_in_use_is_preferred() {
        let mut index = Index::new(10);
        index.push(hash(1), true);
        index.push(hash(1), false);
        index.add_place(1);
        index.prefer_used();
        assert_eq!(index.find(&hash(1)), Some(1));
    }

    #[test]
    fn a_full_index_still_numbers_grains() {
        let mut index = Index::new(1);
        index.push(hash(1), true);
        index.push(hash(2), true);
        assert_eq!((index.len(), index.find(&hash(2))), (2, None));
    }

    #[test]
    fn a_grain_has_room_for_4096_places() {
        let mut index = Index::new(1);
        index.push(hash(1), true);
        (0..4095).for_each(|_| index.add_place(0));
        assert!(index.has_room(0));
        index.add_place(0);
        assert!(!index.has_room(0));
    }
}
