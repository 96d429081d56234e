//! Which callers get a place: bounds on connections whose other end has proven nothing yet. Whatever such callers do, they hold a
//! few sockets for a few seconds, and a caller that is expected still gets in.

use crate::units::Time;
use std::net::IpAddr;

/// How many callers there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// In all.
    pub places: usize,
    /// From one address.
    pub per_address: usize,
    /// Of all, places that only callers from the expected address may take.
    pub reserved: usize,
    /// What happens to a caller from an address that has all its places: it takes the oldest of them, or is told to come later.
    pub newest_wins: bool,
}

/// A caller that has a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it calls from.
    pub address: IpAddr,
    /// When it came.
    pub since: Time,
    /// How far it got; those that said nothing have 0.
    pub stage: u8,
}

/// What happens to a new caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may come in.
    Enter,
    /// It may come in once the caller at this index has been put out.
    Replace(usize),
    /// It is told to come back later.
    Busy,
}

impl Door {
    /// Decides about a caller from `address`, given the callers that are here. `expected` is the address from which one is
    /// awaited, if that is known.
    #[must_use]
    pub fn admit(&self, address: IpAddr, expected: Option<IpAddr>, here: &[Place]) -> Admission {
        let favoured = |address: IpAddr| expected == Some(address);
        let oldest = |of: &dyn Fn(&Place) -> bool| {
            let with = here.iter().enumerate().filter(|(_, place)| of(place));
            with.min_by_key(|(_, place)| (place.stage, place.since)).map(|(at, _)| at)
        };
        let same = here.iter().filter(|place| place.address == address).count();
        let most = if favoured(address) { self.per_address.max(self.reserved) } else { self.per_address };
        // Our own machine, where many agents may run, is held to the whole only.
        if same >= most && !address.is_loopback() {
            let own = if self.newest_wins { oldest(&|place| place.address == address) } else { None };
            return own.map_or(Admission::Busy, Admission::Replace);
        }
        let others = here.iter().filter(|place| !favoured(place.address)).count();
        let full = here.len() >= self.places || (!favoured(address) && others >= self.places - self.reserved);
        if !full {
            return Admission::Enter;
        }
        let out = oldest(&|place| !favoured(place.address)).or_else(|| oldest(&|_| true));
        out.map_or(Admission::Busy, Admission::Replace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOOR: Door = Door { places: 8, per_address: 2, reserved: 3, newest_wins: false };

    fn from(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn place(last: u8, since: u64, stage: u8) -> Place {
        Place { address: from(last), since: Time(since), stage }
    }

    #[test]
    fn one_address_has_its_few_places_and_takes_none_of_others() {
        let here = [place(1, 1, 0), place(1, 2, 0), place(2, 3, 0)];
        assert_eq!(DOOR.admit(from(1), None, &here), Admission::Busy);
        assert_eq!(DOOR.admit(from(2), None, &here), Admission::Enter);
        let newest = Door { newest_wins: true, ..DOOR };
        assert_eq!(newest.admit(from(1), None, &here), Admission::Replace(0));
    }

    #[test]
    fn the_own_machine_may_call_as_often_as_there_is_room() {
        let own = IpAddr::from([127, 0, 0, 1]);
        let here = [Place { address: own, since: Time(1), stage: 0 }; 4];
        assert_eq!(DOOR.admit(own, None, &here), Admission::Enter);
    }

    #[test]
    fn where_all_is_full_the_one_that_got_least_far_goes() {
        let door = Door { reserved: 0, ..DOOR };
        let mut here: Vec<_> = (0..8).map(|last| place(last, 100 + u64::from(last), 1)).collect();
        assert_eq!(door.admit(from(200), None, &here), Admission::Replace(0), "the oldest of equals");
        here[5].stage = 0;
        assert_eq!(door.admit(from(200), None, &here), Admission::Replace(5));
    }

    #[test]
    fn a_crowd_of_addresses_leaves_room_for_the_one_that_is_expected() {
        let expected = Some(from(250));
        let mut here = Vec::new();
        for last in 0..100 {
            match DOOR.admit(from(last), expected, &here) {
                Admission::Enter => here.push(place(last, u64::from(last), 0)),
                Admission::Replace(at) => here[at] = place(last, u64::from(last), 0),
                Admission::Busy => panic!("there is always somebody to replace"),
            }
        }
        assert_eq!(here.len(), 5);
        assert_eq!(DOOR.admit(from(250), expected, &here), Admission::Enter);
        here.push(place(250, 7, 0));
        for last in 100..200 {
            let Admission::Replace(at) = DOOR.admit(from(last), expected, &here) else { panic!() };
            assert_ne!(here[at].address, from(250), "the expected caller is never put out by others");
            here[at] = place(last, u64::from(last), 0);
        }
    }
}
