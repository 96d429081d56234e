//! `slidecast serve`: a standing server. A front end of [`crate::service`] with an API over HTTP and a database.
//!
//! Three threads besides those of the service: the service's own event loop (this is the main thread), the database
//! ([`database`]), and HTTP. What was accepted is in the database before it is answered; when the server starts again, it goes on with
//! every deployment that is not over.

mod access;
mod api;
mod attempts;
mod booting;
mod cleaning;
mod commands;
mod database;
mod etag;
mod export;
mod fields;
mod first;
mod front;
mod groups;
mod guard;
mod hooks;
mod http;
mod images;
mod keeper;
mod limits;
mod live;
mod metrics;
mod notify;
mod openapi;
mod page;
mod password;
mod power;
mod problem;
mod redfish;
pub mod role;
mod routes;
mod schema;
mod start;
mod starting;
pub mod store;
mod stream;
mod subnet;
#[cfg(test)]
mod tests;
mod tls;
mod waiting;
mod waking;
mod waves;
mod webhook;
mod wishes;

use crate::boot::BootedMachines;
use crate::cli::{Serve, TokenNew};
use crate::clock::Clock;
use crate::complain;
use crate::deploy::signals::Signals;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, one_line};
use crate::key;
use crate::nic::Nics;
use crate::service::{Command, Handle, Service, ServiceConfig, ServiceError, Sockets, Start};
use crate::store::STORES;
use api::Api;
use database::Database;
use front::Recorder;
use http::{Limits, listen, serve_http};
use live::Live;
use nix::fcntl::Flock;
use power::{HOOKS, Power};
use role::{Role, hash_of};
use slidecast_proto::approval::Approval;
use slidecast_proto::hex;
use slidecast_proto::noise::SecretKey;
use slidecast_proto::units::DeploymentId;
use start::{Place, Run, start_of};
use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use store::{Store, Which};
use stream::Bulletin;
pub(crate) use tls::fingerprint;
use tls::{Files, Tls};
use tokio::sync::{Notify, Semaphore};

/// Why the server could not start.
#[derive(Debug)]
pub enum ServeError {
    /// The image folder is none.
    Images {
        /// The folder.
        path: PathBuf,
    },
    /// There is no certificate to encrypt with.
    Tls(Box<dyn std::error::Error + Send + Sync>),
    /// A token is to be limited to groups, and its role is not.
    GroupOfToken {
        /// The role.
        role: Role,
    },
    /// Another server uses the state folder.
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The state folder can't be kept for this server.
    Lock {
        /// The file that is locked.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The link for the first sign-in can't be kept.
    First {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address can't be listened on.
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Images { path } => write!(f, "--images {}: this is no folder", path.display()),
            Self::Tls(error) => error.fmt(f),
            Self::GroupOfToken { role } => {
                write!(f, "--group: only the role operator is limited to groups, and this token has the role {role}")
            }
            Self::Busy { path } => write!(
                f,
                "--state {}: another `slidecast serve` uses this folder; stop that one, or give each its own",
                path.display()
            ),
            Self::Lock { path, .. } => write!(f, "locking {}", path.display()),
            Self::First { path, .. } => write!(f, "writing the link for the first sign-in to {}", path.display()),
            Self::Listen { address, .. } => write!(f, "listening for HTTP on {address}"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } | Self::First { source, .. } | Self::Lock { source, .. } => Some(source),
            Self::Tls(error) => error.source(),
            _ => None,
        }
    }
}

/// `slidecast token new`: makes a token, keeps its hash, and gives it.
///
/// # Errors
/// The database can't be used.
pub fn new_token(args: &TokenNew) -> Result<String, Failure> {
    let state = key::state_folder(args.state.as_deref())?;
    let mut store = Store::open(&state).map_err(Failure::not_done)?;
    let token = role::secret().map_err(ServiceError::system("drawing random bytes"))?;
    let ends = args.days.map(|days| store::now() + i64::from(days) * 86_400);
    if args.role != Role::Operator && !args.group.is_empty() {
        return Err(Failure::usage(ServeError::GroupOfToken { role: args.role }));
    }
    let groups = args.group.iter().map(|name| store.group_number(name)).collect::<Result<Vec<_>, _>>();
    let groups = groups.map_err(Failure::not_done)?;
    store.add_token(&hash_of(&token), args.role, ends, &groups, "command line").map_err(Failure::not_done)?;
    Ok(token)
}

/// Runs the server until a signal ends it. Deployments that run go on when it is started again.
///
/// # Errors
/// It could not start.
pub fn run(args: &Serve) -> Result<ExitCode, Failure> {
    let nics = Nics::of_this_machine(&args.interface, &args.card_speed).map_err(Failure::usage)?;
    if !STORES.is_folder(&args.images).map_err(Failure::usage)? {
        return Err(Failure::usage(ServeError::Images { path: args.images.clone() }));
    }
    crate::store::keep(&args.kept)?;
    limits::raise_open_files();
    let state = key::state_folder(args.state.as_deref())?;
    // Before anything is changed there.
    let _alone = keep_alone(&state).map_err(Failure::not_done)?;
    let mut store = Store::open(&state).map_err(Failure::not_done)?;
    let tls = encryption(args, &state).map_err(Failure::not_done)?;
    let first = first::link(&mut store, &state, &base(args.http, tls.is_some())).map_err(Failure::not_done)?;
    let secret = secret_key(args, &state)?;
    let sockets = Sockets::listen(args.port)?;
    let http = listen(args.http).map_err(Failure::not_done)?;
    let key = secret.as_ref().map(|secret| secret.public().to_string());
    let place = Place { state, images: args.images.clone(), port: args.port, key };
    let mut again = again(store, &place).map_err(Failure::not_done)?;
    let elapsed = again.starts.iter().filter_map(|start| start.resume.as_ref());
    let elapsed = elapsed.map(|resume| resume.unfinished.saved.elapsed).max().unwrap_or_default();
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(io::Error::other).map_err(ServiceError::system("drawing random bytes"))?;
    let mut service = Service::new(ServiceConfig {
        sockets,
        id: DeploymentId(id),
        secret: secret.clone(),
        nics: nics.clone(),
        // It reaches back to the beginning of every deployment that goes on.
        clock: Clock::start_after(elapsed),
        approval: Approval::everybody(),
    })?;
    match &secret {
        Some(secret) => complain(&key::describe(&secret.public())),
        None => complain("insecure: no key is used, anybody may pose as this server"),
    }
    let starting = || ServiceError::system("starting a thread");
    // What boots goes on until this function ends.
    let own_disk: Arc<BootedMachines> = Arc::default();
    booting::look(&again.store, &own_disk).map_err(Failure::not_done)?;
    let public = secret.as_ref().map(SecretKey::public);
    let _boot = booting::start(args, public.as_ref(), &own_disk)?;
    let live = Live::default();
    for start in again.starts.drain(..) {
        live.lock().on_start(&start);
        service.start(start).map_err(starting())?;
    }
    let (database, thread) = Database::start(again.store).map_err(starting())?;
    let handle = service.handle();
    again.stops.into_iter().for_each(|id| handle.tell(Command::Stop(id)));
    let api = Api {
        database: database.clone(),
        live: live.clone(),
        handle: handle.clone(),
        place,
        power: Power { nics, hook: args.power_hook.clone(), places: Semaphore::new(HOOKS) },
        bulletin: Bulletin::default(),
        attempts: Mutex::default(),
        listed: Mutex::default(),
        tls: tls.clone(),
        keep_events: args.keep_events,
        own_disk: args.boot.map(|_| own_disk),
        released: Notify::new(),
    };
    if let Some(tls) = &tls {
        complain(&format!("certificate, SHA-256 fingerprint: {}", tls.fingerprint()));
    }
    if let Some(link) = first {
        complain(&format!("first sign-in, works once: {}/welcome/{link}", base(args.http, tls.is_some())));
    }
    let server = serve_http(http, api, Limits::default()).map_err(starting())?;
    let signals = Signals::take().map_err(ServiceError::system("taking over signals"))?;
    signals.watch(move || stop(&handle)).map_err(starting())?;
    complain(&format!("serving {}://{}", scheme(tls.is_some()), args.http));
    notify::tell(notify::READY);
    let ended = service.run(&mut Recorder::new(database, live)).map_err(ServiceError::system("waiting for events"));
    drop(server);
    // What was accepted is in the database before the program ends.
    drop(thread.join());
    ended.map(|_| ExitCode::Done).map_err(Failure::from)
}

/// A first signal ends the server in order, a second one at once.
fn stop(handle: &Handle) {
    if let Err(error) = Signals::end_at_once(0) {
        log::warn!("a second signal will not end the program at once: {error}");
    }
    notify::tell(notify::STOPPING);
    handle.tell(Command::Close);
}

/// What requests are encrypted with: nothing on the loopback card, unless a certificate is given.
fn encryption(args: &Serve, state: &Path) -> Result<Option<Arc<Tls>>, ServeError> {
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Tls::of_files(Files { certificate: certificate.clone(), key: key.clone() })?,
        _ if args.http.ip().is_loopback() => return Ok(None),
        _ => Tls::own(state, args.http.ip())?,
    };
    Ok(Some(Arc::new(tls)))
}

fn scheme(encrypted: bool) -> &'static str {
    if encrypted { "https" } else { "http" }
}

/// Where a browser finds the pages: under the name of this machine if they are at all of its addresses.
fn base(http: SocketAddr, encrypted: bool) -> String {
    let named = tls::host_name().filter(|_| http.ip().is_unspecified());
    let place = named.map_or_else(|| http.to_string(), |name| format!("{name}:{}", http.port()));
    format!("{}://{place}", scheme(encrypted))
}

fn secret_key(args: &Serve, state: &Path) -> Result<Option<SecretKey>, Failure> {
    if args.insecure {
        return Ok(None);
    }
    if let Some(path) = &args.key_file {
        return Ok(Some(key::read(path)?));
    }
    let (secret, new) = key::of_state_folder(state)?;
    if new {
        complain(&format!("a new key was made in {}", state.display()));
    }
    Ok(Some(secret))
}

/// Keeps the state folder for this server: two would both go on with its deployments.
fn keep_alone(state: &Path) -> Result<Flock<File>, ServeError> {
    let path = state.join("serve.lock");
    let failed = |source| ServeError::Lock { path: path.clone(), source };
    std::fs::create_dir_all(state).map_err(failed)?;
    let lock = crate::lock::take(&path).map_err(failed)?;
    lock.ok_or_else(|| ServeError::Busy { path: state.to_owned() })
}

/// What a server that is started again goes on with.
struct Again {
    store: Store,
    starts: Vec<Start>,
    /// Those that are to be stopped.
    stops: Vec<DeploymentId>,
}

/// Looks for deployments that are not over. One that can't go on is over now, and its row says why.
fn again(mut store: Store, place: &Place) -> Result<Again, store::StoreError> {
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    // The oldest first, as they were lent their machines.
    for row in store.deployments(Which::Active)?.into_iter().rev() {
        // What was not given to the service yet begins, if it may, as soon as requests are taken.
        if !row.released {
            continue;
        }
        match store
            .hardware_of(&row.id)
            .map_err(|error| one_line(&error))
            .and_then(|hardware| start_of(&row, hardware, place, Run::Again))
        {
            Ok(start) => {
                stops.extend(parse_id(&row.id).filter(|_| row.stop));
                starts.push(start);
            }
            Err(why) => {
                log::error!("deployment {} can't go on: {why}", row.id);
                store.end(&row.id, if row.started { 3 } else { 1 }, None, &why)?;
            }
        }
    }
    Ok(Again { store, starts, stops })
}

/// The id with these digits.
fn parse_id(text: &str) -> Option<DeploymentId> {
    hex::parse(text).map(DeploymentId)
}
