//! What `deploy` makes of the events of its service: a screen, a stop in order, and the end after its only deployment.

use super::signals::Signals;
use crate::boot::BootedMachines;
use crate::progress::Progress;
use crate::service::{Command, Event, Finished, Front};
use slidecast_proto::deployment::Stage;
use std::sync::Arc;

/// The front end of a service with one deployment.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) progress: Progress,
    /// Machines that need not boot the agent again.
    booted: Arc<BootedMachines>,
    /// Of the last agent that was not let in: where it is and why.
    pub(super) turned_away: Option<String>,
    /// How it ended.
    pub(super) finished: Option<Box<Finished>>,
}

impl Screen {
    pub(super) fn new(progress: Progress, booted: Arc<BootedMachines>) -> Self {
        Self { progress, booted, turned_away: None, finished: None }
    }

    /// The operator stops it: another signal ends the program at once.
    fn on_stopping(&self, stage: Stage) {
        let (code, line) = match stage {
            Stage::Waiting => (1, "stopping; no disk was touched"),
            _ => (3, "stopping; agents are told, disks that are being written stay marked"),
        };
        if let Err(error) = Signals::end_at_once(code) {
            log::warn!("a second signal will not end the program at once: {error}");
        }
        self.progress.line(line.to_owned());
    }
}

impl Front for Screen {
    fn on_event(&mut self, event: Event) -> Option<Command> {
        match event {
            Event::Line(_, line) => self.progress.line(line),
            Event::TurnedAway(line) => {
                self.progress.line(line.clone());
                self.turned_away = Some(line);
            }
            Event::Unapproved(view) => self.progress.unapproved(view),
            Event::Snapshot(_, snapshot) => self.progress.show(snapshot),
            Event::Stopping(_, stage) => self.on_stopping(stage),
            Event::HasImage(_, macs) => self.booted.add(macs),
            Event::Over(finished) => {
                self.finished = Some(finished);
                return Some(Command::Close);
            }
            // The only deployment is started before anything runs, and takes every agent.
            Event::Machine(_)
            | Event::MachineGone(_)
            | Event::Contested(_)
            | Event::Settled(_)
            | Event::NotStarted(..) => {}
        }
        None
    }
}
