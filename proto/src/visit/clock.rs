//! When a control link is to be kept alive, and when it counts as dead.

use crate::bug::{self, Bug};
use crate::units::Time;
use core::fmt;
use core::time::Duration;

/// The longest that an agent keeps quiet.
const BEAT: Duration = Duration::from_millis(250);
/// Silence after which the server counts as gone.
const SILENT: Duration = Duration::from_secs(4);
/// The longest that connecting and the handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(5);

/// Why a control link counts as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// Nothing was heard for so long.
    Silent(Duration),
    /// The server did not get through the handshake in time.
    Handshake,
}

impl fmt::Display for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(span) => write!(f, "silent for {:.1} s", span.as_secs_f32()),
            Self::Handshake => write!(f, "no complete handshake within {} s", HANDSHAKE.as_secs()),
        }
    }
}

/// The time on one control link, from the agent's end.
#[derive(Clone, Copy, Debug)]
pub struct ControlClock {
    opened: Time,
    heard: Time,
    /// Nothing before the hello: whatever else came first, the server would hang up.
    said: Option<Time>,
}

impl ControlClock {
    /// A connection is being made.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self { opened: now, heard: now, said: None }
    }

    /// When the connection was begun.
    #[must_use]
    pub fn opened(&self) -> Time {
        self.opened
    }

    /// Something came.
    pub fn on_heard(&mut self, now: Time) {
        self.heard = now;
    }

    /// The hello is on its way. From here on the link is kept alive.
    pub fn on_greeted(&mut self, now: Time) {
        self.said = Some(now);
    }

    /// Something went out. The bytes of the handshake do not count.
    pub fn on_said(&mut self, now: Time) {
        self.said = self.said.map(|_| now);
    }

    /// Whether the link is alive; `open`: the server has proven itself. Gives whether a heartbeat is due.
    ///
    /// # Errors
    /// [`Quiet`]: the link is to be given up.
    pub fn check(&self, open: bool, now: Time) -> Result<bool, Quiet> {
        if !open {
            return if now.since(self.opened) >= HANDSHAKE { Err(Quiet::Handshake) } else { Ok(false) };
        }
        let silence = now.since(self.heard);
        if silence >= SILENT && !bug::is(Bug::ServerSilenceUnseen) {
            return Err(Quiet::Silent(silence));
        }
        Ok(self.said.is_some_and(|said| now.since(said) >= BEAT))
    }

    /// When to [`Self::check`] at the latest.
    #[must_use]
    pub fn deadline(&self, open: bool) -> Time {
        if !open {
            return self.opened.after(HANDSHAKE);
        }
        let silent = self.heard.after(SILENT);
        self.said.map_or(silent, |said| said.after(BEAT).min(silent))
    }
}
