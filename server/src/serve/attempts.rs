//! How often somebody may try to sign in: failures are counted, and too many of them shut the door for a while.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Failures within [`WINDOW`] of one name, after which it has to wait.
const MAX_OF_NAME: u32 = 5;
/// Failures within [`WINDOW`] of one address. Behind a reverse proxy all have the same one.
const MAX_OF_ADDRESS: u32 = 30;
/// For how long failures count.
const WINDOW: Duration = Duration::from_secs(60);
/// The most names and addresses that are remembered.
const MAX_KEYS: usize = 10_000;

/// What failures are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum By {
    /// A name, as it was typed, in small letters.
    Name(String),
    /// Where the request comes from.
    Address(std::net::IpAddr),
}

impl By {
    fn most(&self) -> u32 {
        match self {
            Self::Name(_) => MAX_OF_NAME,
            Self::Address(_) => MAX_OF_ADDRESS,
        }
    }
}

/// The failures of late.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// How many, and since when.
    failures: HashMap<By, (u32, Instant)>,
}

impl Attempts {
    /// Counts a try before it is made, so that many at once are no way around. Gives how long to wait if there were too many.
    pub(super) fn on_try(&mut self, by: &[By], now: Instant) -> Result<(), Duration> {
        self.failures.retain(|_, (_, since)| now.duration_since(*since) < WINDOW);
        for by in by {
            let (failures, since) = self.failures.get(by).copied().unwrap_or((0, now));
            if failures >= by.most() {
                return Err(WINDOW - now.duration_since(since));
            }
        }
        if self.failures.len() + by.len() > MAX_KEYS {
            return Err(WINDOW);
        }
        for by in by {
            self.failures.entry(by.clone()).or_insert((0, now)).0 += 1;
        }
        Ok(())
    }

    /// The last try was right: it was no failure. Failures with other names still count for the address.
    pub(super) fn on_success(&mut self, by: &[By]) {
        for by in by {
            match (by, self.failures.get_mut(by)) {
                (By::Address(_), Some((failures, _))) => *failures = failures.saturating_sub(1),
                _ => {
                    self.failures.remove(by);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_five_failures_a_name_waits_for_a_minute_and_others_do_not() {
        let mut attempts = Attempts::default();
        let (start, address) = (Instant::now(), By::Address([127, 0, 0, 1].into()));
        let of = |name: &str| [By::Name(name.to_owned()), address.clone()];
        for second in 0..5 {
            attempts.on_try(&of("anna"), start + Duration::from_secs(second)).unwrap();
        }
        let wait = attempts.on_try(&of("anna"), start + Duration::from_secs(10)).unwrap_err();
        assert_eq!(wait, Duration::from_secs(50));
        attempts.on_try(&of("ben"), start + Duration::from_secs(10)).unwrap();
        attempts.on_try(&of("anna"), start + Duration::from_secs(60)).unwrap();
        for _ in 0..20 {
            attempts.on_try(&of("ben"), start + Duration::from_secs(60)).unwrap();
            attempts.on_success(&of("ben"));
        }
    }

    #[test]
    fn one_address_can_not_try_name_after_name() {
        let mut attempts = Attempts::default();
        let now = Instant::now();
        let tried = (0..100).filter(|number| {
            attempts.on_try(&[By::Name(number.to_string()), By::Address([10, 0, 0, 1].into())], now).is_ok()
        });
        assert_eq!(tried.count(), 30);
    }
}
