//! Which machines boot their own disk although the network would boot them.

use super::{Store, StoreError};

/// The hardware addresses of accepted machines that no deployment which has begun to call its machines still wants: that of a later
/// wave wants them from the first wave on, and one that has written its image to a machine does not any more.
const OWN_DISK: &str = "SELECT mac FROM cards JOIN machines ON machines.id = cards.machine
    WHERE machines.state = 'accepted' AND forgotten IS NULL AND NOT EXISTS
        (SELECT 1 FROM targets JOIN deployments ON deployments.id = targets.deployment
         WHERE targets.machine = machines.id AND targets.active = 1
         AND (released = 1 OR EXISTS
             (SELECT 1 FROM deployments AS first WHERE first.id = deployments.series AND first.released = 1))
         AND NOT EXISTS (SELECT 1 FROM events WHERE events.deployment = deployments.id AND events.machine = machines.id
                         AND kind = 'node' AND (text LIKE '%: done' OR text LIKE '%: written')))";

impl Store {
    /// The hardware addresses of machines that boot their own disk: they are accepted and have nothing to do here.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn own_disk(&self) -> Result<Vec<String>, StoreError> {
        let failed = self.failed();
        let mut query = self.connection.prepare_cached(OWN_DISK).map_err(&failed)?;
        query.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(&failed)
    }
}
