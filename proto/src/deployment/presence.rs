//! Whether a node is there: one state, with what is known in it.

use super::timers::{SUSPECT_AFTER, TCP_RECOVERY};
use crate::units::Time;
use core::time::Duration;

/// A complaint of a neighbour that hears nothing of a node, nor of its kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suspicion {
    /// How long nothing must be heard here for it to be believed.
    pub(super) quiet: Duration,
    /// What the neighbour said.
    pub(super) said: String,
}

/// What is heard of a node over its control link, and what its neighbours say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contact {
    heard: Time,
    /// When a neighbour last said that its link with it is gone, and what it said.
    pub(super) blamed: Option<(Time, String)>,
    pub(super) suspected: Option<Suspicion>,
}

/// Whether a node is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Its control link stands.
    Here(Contact),
    /// Its control link is gone, and may come back.
    Gone { since: Time, last: Contact },
    /// It counts as lost; it may come back.
    Lost {
        since: Time,
        heard: Time,
        /// It fell silent without a closed connection: until then it may be heard again.
        again: Option<Time>,
    },
    /// Another run of the server knew it, and it has not called this one yet.
    Expected { since: Time },
    /// It was expected and has called; it has not said yet whether it kept its state.
    Called {
        at: Time,
        contact: Contact,
        /// Since when its control link is gone again.
        gone: Option<Time>,
    },
}

/// What it means that something was heard of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// For how long nothing was heard before.
    pub(super) silence: Duration,
    /// It was not there before: it must be told where it left off.
    pub(super) is_back: bool,
}

impl Contact {
    pub(super) fn new(now: Time) -> Self {
        Self { heard: now, blamed: None, suspected: None }
    }
}

impl Presence {
    /// A node that has just called.
    pub(super) fn new(now: Time) -> Self {
        Self::Here(Contact::new(now))
    }

    /// Whether its control link stands.
    pub(super) fn is_connected(&self) -> bool {
        matches!(self, Self::Here(_) | Self::Called { gone: None, .. })
    }

    /// Whether it has still to say, after the server was started again, what it holds.
    pub(super) fn is_returning(&self) -> bool {
        matches!(self, Self::Expected { .. } | Self::Called { .. })
    }

    /// When it was heard last.
    pub(super) fn heard(&self) -> Time {
        match self {
            Self::Here(contact) | Self::Gone { last: contact, .. } | Self::Called { contact, .. } => contact.heard,
            Self::Lost { heard, .. } => *heard,
            Self::Expected { since } => *since,
        }
    }

    /// Since when it has no control link.
    pub(super) fn gone(&self) -> Option<Time> {
        match self {
            Self::Here(_) => None,
            Self::Gone { since, .. } | Self::Lost { since, .. } | Self::Expected { since } => Some(*since),
            Self::Called { gone, .. } => *gone,
        }
    }

    /// Until when a node that fell silent may be heard again.
    pub(super) fn heard_again_until(&self) -> Option<Time> {
        if let Self::Lost { again, .. } = self { *again } else { None }
    }

    pub(super) fn contact(&self) -> Option<&Contact> {
        match self {
            Self::Here(contact) | Self::Gone { last: contact, .. } | Self::Called { contact, .. } => Some(contact),
            Self::Lost { .. } | Self::Expected { .. } => None,
        }
    }

    /// A neighbour says that its link with the node is gone.
    pub(super) fn blame(&mut self, said: String, now: Time) {
        if let Some(contact) = self.contact_mut() {
            contact.blamed = Some((now, said));
        }
    }

    /// A neighbour hears nothing of it.
    pub(super) fn suspect(&mut self, quiet: Duration, said: String) {
        if let Some(contact) = self.contact_mut() {
            contact.suspected = Some(Suspicion { quiet, said });
        }
    }

    fn contact_mut(&mut self) -> Option<&mut Contact> {
        match self {
            Self::Here(contact) | Self::Gone { last: contact, .. } | Self::Called { contact, .. } => Some(contact),
            Self::Lost { .. } | Self::Expected { .. } => None,
        }
    }

    /// What its neighbours say stays known when its control link comes back.
    fn take_contact(&self, now: Time) -> Contact {
        self.contact().map_or(Contact::new(now), |contact| Contact { heard: now, ..contact.clone() })
    }

    /// Its agent has said hello. One that is expected has to say first whether it kept its state.
    pub(super) fn on_call(&mut self, now: Time) {
        let contact = self.take_contact(now);
        *self = match self {
            Self::Here(_) | Self::Gone { .. } | Self::Lost { .. } => Self::Here(contact),
            Self::Expected { .. } | Self::Called { .. } => Self::Called { at: now, contact, gone: None },
        };
    }

    /// Something was heard of it over its control link.
    pub(super) fn on_heard(&mut self, now: Time) -> Heard {
        let heard = Heard { silence: now.since(self.heard()), is_back: !self.is_connected() };
        if let Self::Here(contact) = self {
            (contact.heard, contact.suspected) = (now, None);
            return heard;
        }
        let contact = Contact { suspected: None, ..self.take_contact(now) };
        *self = match self {
            Self::Here(_) | Self::Gone { .. } | Self::Lost { .. } => Self::Here(contact),
            Self::Expected { .. } => Self::Called { at: now, contact, gone: None },
            Self::Called { at, .. } => Self::Called { at: *at, contact, gone: None },
        };
        heard
    }

    /// It has said whether it kept its state, or has had the time to.
    pub(super) fn end_return(&mut self) {
        let (contact, gone) = match self {
            Self::Here(_) | Self::Gone { .. } | Self::Lost { .. } => return,
            Self::Expected { since } => (Contact::new(*since), Some(*since)),
            Self::Called { contact, gone, .. } => (contact.clone(), *gone),
        };
        *self = match gone {
            None => Self::Here(contact),
            Some(since) => Self::Gone { since, last: contact },
        };
    }

    /// Its control link is gone; gives whether it stood.
    pub(super) fn on_gone(&mut self, now: Time) -> bool {
        match self {
            Self::Here(contact) => *self = Self::Gone { since: now, last: contact.clone() },
            Self::Called { gone: gone @ None, .. } => *gone = Some(now),
            _ => return false,
        }
        true
    }

    /// It counts as lost. Gives the first sign of that: its silence, or the end of its control link.
    pub(super) fn lose(&mut self, now: Time) -> Time {
        let (heard, since) = (self.heard(), self.gone().unwrap_or(now));
        let again = self.is_connected().then(|| heard.after(TCP_RECOVERY));
        match self {
            Self::Here(_) | Self::Gone { .. } | Self::Lost { .. } => *self = Self::Lost { since, heard, again },
            Self::Called { contact, gone, .. } => {
                *gone = Some(since);
                *contact = Contact::new(heard);
            }
            Self::Expected { .. } => {}
        }
        if now.since(heard) >= SUSPECT_AFTER { heard } else { since }
    }

    /// It did not come back after the server was started again.
    pub(super) fn give_up_return(&mut self) {
        if let Self::Expected { since } = self {
            *self = Self::Lost { since: *since, heard: *since, again: None };
        }
    }

    /// Nothing that was due while the server stood still counts against the node.
    pub(super) fn forgive(&mut self, pause: Duration, now: Time) {
        match self {
            Self::Here(contact) => contact.heard = now,
            Self::Gone { since, last } => (*since, last.heard) = (now, now),
            Self::Lost { since, heard, again } => {
                (*since, *heard) = (now, now);
                *again = again.map(|until| until.after(pause));
            }
            Self::Expected { since } => *since = now,
            Self::Called { at, contact, gone } => {
                (*at, contact.heard) = (now, now);
                *gone = gone.map(|_| now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_node_that_fell_silent_may_be_heard_again_and_one_that_hung_up_not() {
        let (mut silent, mut closed) = (Presence::new(Time(0)), Presence::new(Time(0)));
        let now = Time(0).after(SECOND * 2);
        assert_eq!(silent.lose(now), Time(0), "its silence was the first sign");
        assert_eq!(silent.heard_again_until(), Some(Time(0).after(TCP_RECOVERY)));
        assert!(closed.on_gone(now) && !closed.on_gone(now));
        closed.lose(now);
        assert_eq!(closed.heard_again_until(), None);
        assert_eq!(silent.on_heard(now), Heard { silence: SECOND * 2, is_back: true });
        assert!(silent.is_connected());
    }

    #[test]
    fn what_neighbours_say_is_known_until_the_node_is_heard() {
        let mut presence = Presence::new(Time(0));
        presence.suspect(SECOND, "silent".into());
        presence.on_gone(Time(1));
        presence.on_call(Time(2));
        assert!(presence.contact().unwrap().suspected.is_some(), "a connection alone says nothing of the node");
        presence.on_heard(Time(3));
        assert_eq!(presence.contact().unwrap().suspected, None);
    }

    #[test]
    fn an_expected_node_returns_when_it_has_said_what_it_holds() {
        let mut presence = Presence::Expected { since: Time(0) };
        presence.on_call(Time(1));
        assert!(presence.is_connected() && presence.is_returning());
        presence.lose(Time(2));
        assert!(!presence.is_connected() && presence.is_returning(), "nobody's word makes it lost before");
        presence.end_return();
        assert!(matches!(presence, Presence::Gone { since: Time(2), .. }));
    }
}
