//! Random bytes of the system.

/// Random bytes that were never used before; `None` if the system has none, which ends the link.
pub(crate) fn random_bytes<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Some(bytes),
        Err(error) => {
            log::error!("random bytes: {error}");
            None
        }
    }
}
