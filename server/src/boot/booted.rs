//! Machines that have booted and were written, or have nothing to do here. They are sent on to their own disk when they boot from the network
//! again: whoever is to restart when it is done would otherwise come back as an agent for ever.

use super::event::Mac;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The most machines that are remembered.
const MOST: usize = 1 << 16;

/// The cards of machines that have booted.
#[derive(Debug, Default)]
pub struct BootedMachines {
    cards: Mutex<HashSet<Mac>>,
}

impl BootedMachines {
    /// The machine with these cards has booted.
    pub fn add(&self, cards: impl IntoIterator<Item = [u8; 6]>) {
        let mut known = self.cards.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST.saturating_sub(known.len());
        known.extend(cards.into_iter().filter(|mac| *mac != [0; 6]).map(Mac).take(room));
    }

    /// The machines with these cards have, and no others.
    pub fn replace(&self, cards: impl IntoIterator<Item = [u8; 6]>) {
        let cards = cards.into_iter().filter(|mac| *mac != [0; 6]).map(Mac).take(MOST).collect();
        *self.cards.lock().unwrap_or_else(PoisonError::into_inner) = cards;
    }

    /// Whether the machine with this card has booted.
    pub(super) fn has(&self, card: Mac) -> bool {
        self.cards.lock().unwrap_or_else(PoisonError::into_inner).contains(&card)
    }

    /// Whether no machine is.
    pub(super) fn is_empty(&self) -> bool {
        self.cards.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_each_of_its_cards() {
        let booted = BootedMachines::default();
        assert!(booted.is_empty());
        // Cards without an address of their own, such as tunnels, say nothing about a machine.
        booted.add([[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [0; 6]]);
        assert!(booted.has(Mac([2, 0, 0, 0, 0, 1])) && booted.has(Mac([2, 0, 0, 0, 0, 2])));
        assert!(!booted.has(Mac([0; 6])) && !booted.has(Mac([2, 0, 0, 0, 0, 3])));
        booted.replace([[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3], [0; 6]]);
        assert!(
            booted.has(Mac([2, 0, 0, 0, 0, 3])) && !booted.has(Mac([2, 0, 0, 0, 0, 1])) && !booted.has(Mac([0; 6]))
        );
    }

    #[test]
    fn memory_is_bounded() {
        let booted = BootedMachines::default();
        for high in 0..=255 {
            booted.add((0..=255).flat_map(|a| [[2, 0, 0, 0, high, a], [2, 0, 0, 1, high, a]]));
        }
        assert_eq!(booted.cards.lock().unwrap().len(), MOST);
    }
}
