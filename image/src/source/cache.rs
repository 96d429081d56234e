//! The tables of a container that were read last, so that memory does not grow with the disk.

use super::ImportFault;
use std::sync::{Arc, Mutex, PoisonError};

/// At most so many tables, by their place in the file.
#[derive(Debug)]
pub(super) struct Tables<T> {
    most: usize,
    /// The one used last is the last.
    tables: Mutex<Vec<(u64, Arc<Vec<T>>)>>,
}

impl<T> Tables<T> {
    /// As many tables of `len` entries as `bytes` of memory hold, but at least two.
    pub(super) fn new(bytes: usize, len: usize) -> Self {
        let most = bytes / (len * size_of::<T>()).max(1);
        Self { most: most.clamp(2, 64), tables: Mutex::default() }
    }

    /// The table at `offset`, which `load` reads if it is not here.
    pub(super) fn get(
        &self,
        offset: u64,
        load: impl FnOnce() -> Result<Vec<T>, ImportFault>,
    ) -> Result<Arc<Vec<T>>, ImportFault> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = tables.iter().rposition(|(known, _)| *known == offset) {
            let found = tables.remove(at);
            let table = Arc::clone(&found.1);
            tables.push(found);
            return Ok(table);
        }
        let table = Arc::new(load()?);
        if tables.len() >= self.most {
            tables.remove(0);
        }
        tables.push((offset, Arc::clone(&table)));
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_used_last_stay() {
        let tables = Tables::<u8>::new(2, 1);
        let loaded = |offset: u64| {
            let mut loaded = false;
            tables
                .get(offset, || {
                    loaded = true;
                    Ok(vec![0])
                })
                .unwrap();
            loaded
        };
        assert_eq!([1, 2, 1, 3, 1, 2].map(loaded), [true, true, false, true, false, true]);
    }
}
