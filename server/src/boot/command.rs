//! `slidecast boot-server`: machines boot until somebody stops it.

use super::error::BootError;
use super::event::{BootEvent, Tell};
use super::server::{BootServer, Options};
use crate::cli::BootServer as Args;
use crate::deploy::signals::Signals;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::{complain, say};
use mio::{Events, Interest, Poll, Token, Waker};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

const SIGNALS: Token = Token(0);
const EVENT: Token = Token(1);
/// How many events may be queued before their senders block.
const WAITING: usize = 256;

/// Runs the boot server until it is stopped.
///
/// # Errors
/// It could not start, or dnsmasq does not stay up.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let options = Options {
        interface: args.interface.clone(),
        dir: args.dir.clone(),
        range: args.dhcp,
        http_port: args.http_port,
        uefi: args.uefi,
    };
    let poll = Poll::new().map_err(BootError::system("starting the event loop"))?;
    // Before anything starts, so that an early signal leaves nothing behind.
    let mut signals = Signals::take().map_err(BootError::system("taking over signals"))?;
    let registered = poll.registry().register(signals.receiver(), SIGNALS, Interest::READABLE);
    registered.map_err(BootError::system("starting the event loop"))?;
    let (tell, told) = teller(&poll).map_err(BootError::system("starting the event loop"))?;
    let server = BootServer::start(&options, |_| Vec::new(), Arc::default(), tell)?;
    say(&server.describe());
    let ended = serve(poll, &mut signals, &told).map_err(BootError::system("waiting for events"))?;
    // First, so that senders of events do not wait for a receiver.
    drop(told);
    drop(server);
    Ok(match ended {
        Some(line) => {
            complain(&line);
            ExitCode::NotDone
        }
        None => ExitCode::Done,
    })
}

fn teller(poll: &Poll) -> io::Result<(Tell, Receiver<BootEvent>)> {
    let waker = Waker::new(poll.registry(), EVENT)?;
    let (tell, told) = sync_channel(WAITING);
    let tell = move |event| {
        // At the very end nobody listens any more.
        if tell.send(event).is_ok() {
            let _ = waker.wake();
        }
    };
    Ok((Arc::new(tell), told))
}

/// Prints what happens until a signal comes, or it is over for another reason, which it gives.
fn serve(mut poll: Poll, signals: &mut Signals, told: &Receiver<BootEvent>) -> io::Result<Option<String>> {
    let mut events = Events::with_capacity(16);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        }
        while let Ok(event) = told.try_recv() {
            if matches!(event, BootEvent::Ended(_)) {
                return Ok(Some(event.to_string()));
            }
            say(&event.to_string());
        }
        if signals.came() {
            return Ok(None);
        }
    }
}
