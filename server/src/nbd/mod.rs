//! `slidecast image nbd`: the disk of an image as a network block device that can be read, not written.
//!
//! QEMU starts from it, qemu-img converts it to any format, nbd-client or nbdfuse make a device or a file of it, without the image being
//! unpacked first. `wire` has the bytes, `negotiate` the first phase of a connection, `transmission` the second, `listen` sockets
//! and threads.

mod listen;
mod negotiate;
mod transmission;
mod wire;

pub use listen::Listen;

use crate::cli::Nbd;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::say;
use crate::store;
use listen::{Listener, accept};
use negotiate::Export;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use slidecast_image::disk::DiskView;
use slidecast_proto::quantity::Bytes;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// How much memory unpacked blocks may take.
const CACHE_BYTES: usize = 32 << 20;

/// The server could not start.
#[derive(Debug)]
struct CannotServe {
    what: String,
    error: io::Error,
}

impl fmt::Display for CannotServe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for CannotServe {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// A socket on which a byte arrives with each signal that ends the program.
fn signals() -> io::Result<UnixStream> {
    let (receiver, sender) = UnixStream::pair()?;
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    Ok(receiver)
}

/// Serves the image until a signal ends it.
///
/// # Errors
/// [`Failure`] if the image is not good or nobody could connect.
pub fn run(args: &Nbd) -> Result<ExitCode, Failure> {
    let cannot = |what: String| move |error| Failure::not_done(CannotServe { what, error });
    store::keep(&args.kept)?;
    let image = store::open(&args.file)?;
    let view = Arc::new(DiskView::new(image.resolve()?, CACHE_BYTES)?);
    let export = Export { bytes: view.bytes(), description: format!("SlideCast image {}", image.root()) };
    let mut signals = signals().map_err(cannot("taking signals".into()))?;
    let place = match &args.listen {
        Listen::Tcp(address) => address.clone(),
        Listen::Unix(path) => path.display().to_string(),
    };
    let listener = Listener::bind(&args.listen).map_err(cannot(format!("listening at {place}")))?;
    say(&format!("{}: a disk of {} at {listener}", args.file.display(), Bytes(view.bytes())));
    let listener = Arc::new(listener);
    let taking = Arc::clone(&listener);
    let thread = std::thread::Builder::new().name("nbd".into()).spawn(move || accept(&taking, &view, &export));
    thread.map_err(cannot("starting a thread".into()))?;
    // Whatever comes of it, nothing is left to wait for.
    let _ = signals.read(&mut [0]);
    listener.leave();
    Ok(ExitCode::Done)
}
