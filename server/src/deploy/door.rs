//! Who may come in: bounds on callers that have not said who they are. Whatever they do, they hold a few sockets for a few
//! seconds and nothing else.

use slidecast_proto::units::Time;
use std::net::IpAddr;
use std::time::Duration;

/// The most strangers at a time.
pub(super) const STRANGERS: usize = 64;
/// The most strangers at a time from one address. Our own machine, where many agents may run, is not held to it.
pub(super) const STRANGERS_PER_ADDRESS: usize = 2;
/// How long a stranger may take to say hello.
pub(super) const HELLO_WITHIN: Duration = Duration::from_secs(3);

/// What happens to a new caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may come in.
    Enter,
    /// It may come in once the one at this index, the longest there, has been put out.
    Replace(usize),
    /// It is told to come back later.
    Busy,
}

/// Decides about a caller from `address`, given where the strangers that are here called from and when.
pub(super) fn admit(address: IpAddr, strangers: &[(IpAddr, Time)]) -> Admission {
    let same = strangers.iter().filter(|(other, _)| *other == address).count();
    if strangers.len() >= STRANGERS {
        let oldest = (0..strangers.len()).min_by_key(|at| strangers[*at].1);
        return oldest.map_or(Admission::Busy, Admission::Replace);
    }
    if same >= STRANGERS_PER_ADDRESS && !address.is_loopback() { Admission::Busy } else { Admission::Enter }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_address_has_two_strangers_at_most() {
        let here = [(from(1), Time(1)), (from(1), Time(2)), (from(2), Time(3))];
        assert_eq!(admit(from(1), &here), Admission::Busy);
        assert_eq!(admit(from(2), &here), Admission::Enter);
    }

    #[test]
    fn the_own_machine_may_call_as_often_as_there_is_room() {
        let own = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(admit(own, &[(own, Time(1)); 20]), Admission::Enter);
    }

    #[test]
    fn a_full_house_puts_out_whoever_has_been_silent_the_longest() {
        let mut here: Vec<_> = (0..64).map(|last| (from(last), Time(100 + u64::from(last)))).collect();
        here[40].1 = Time(1);
        assert_eq!(admit(from(200), &here), Admission::Replace(40));
    }
}
