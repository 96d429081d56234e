//! Why a deployment waits, in words.

use super::api::Api;
use super::starting::in_zone;
use super::store::DeploymentRow;

/// The word for the state of a deployment, and what it waits for; nothing if that is its machines, or nothing.
pub(super) fn standing(api: &Api, row: &DeploymentRow) -> (&'static str, String) {
    match row.word() {
        "unconfirmed" => {
            ("unconfirmed", format!("waits for a second person to confirm what {} asked for", row.asked_by))
        }
        "scheduled" => {
            ("scheduled", format!("begins at {}", in_zone(row.start_at.unwrap_or_default(), &row.start_zone)))
        }
        "queued" => ("queued", format!("waits for the end of wave {}", row.wave - 1)),
        "waiting" => {
            let now = api.live.lock();
            match now.snapshots.get(&row.id).and_then(|snapshot| snapshot.waits.as_ref()) {
                Some(waits) => ("queued", waits.to_string()),
                None => ("waiting", String::new()),
            }
        }
        word => (word, String::new()),
    }
}
