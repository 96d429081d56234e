//! `slidecast deploy`: an embedded server for one deployment, from the first seek to the report.

mod answer;
mod boot;
mod checker;
mod event_loop;
mod gate;
mod holding;
mod link;
mod log_limit;
pub(crate) mod signals;
mod state;
mod writer;

use crate::approve::{self, ApproveBy, Heard};
use crate::cli::{Deploy, ProgressStyle};
use crate::clock::Clock;
use crate::complain;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, one_line};
use crate::feed::FeedContext;
use crate::key::{self, KeyFileError};
use crate::nic::Nics;
use crate::output::{Output, OutputError};
use crate::progress::Progress;
use crate::report::Report;
use crate::shown::shown;
use crate::view::{Facts, Tracker};
use answer::Answerer;
use checker::Checker;
use event_loop::{DISCOVERY, EventLoop, LISTENER, Parts, SIGNALS, WAKE};
use gate::Gate;
use mio::net::TcpListener;
use mio::{Interest, Poll, Waker};
use signals::Signals;
use slidecast_image::{Image, Resolved};
use slidecast_proto::approval::Approval;
use slidecast_proto::control::Prepare;
use slidecast_proto::deployment::{Deployment, DeploymentConfig, NodeRecord, Stage, Standing};
use slidecast_proto::discovery::{Offer, Responder};
use slidecast_proto::feed::FeedEvent;
use slidecast_proto::noise::SecretKey;
use slidecast_proto::plan::{Plan, PlanLimits};
use slidecast_proto::reason::EndState;
use slidecast_proto::units::{BlockNo, DeploymentId, NodeId, Time};
use state::{Asked, Found, Keeper, Keys, StateError, Unfinished};
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, SystemTime};

/// News that may wait before those who bring it do.
const NEWS: usize = 256;

/// What threads tell the event loop.
#[derive(Debug)]
enum News {
    /// Of the feed with this serial number.
    Feed(u64, FeedEvent),
    /// A block was checked in the image file; what is wrong with it, if anything is.
    Checked(BlockNo, Option<String>),
    /// The state of the deployment was kept, or could not be.
    Kept,
    /// A line about machines that boot from the network.
    Boot(String),
    /// Somebody has typed something.
    Heard(Heard),
}

/// Why a deployment could not begin.
#[derive(Debug)]
pub enum DeployError {
    /// Another program has the port.
    PortInUse {
        /// `TCP` or `UDP`.
        what: &'static str,
        /// The port.
        port: u16,
    },
    /// The system refused.
    System {
        /// What was being done.
        operation: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl fmt::Display for DeployError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortInUse { what, port } => {
                write!(f, "{what} port {port} is in use: is another deployment running? --port chooses another one")
            }
            Self::System { operation, .. } => f.write_str(operation),
        }
    }
}

impl Error for DeployError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::PortInUse { .. } => None,
            Self::System { source, .. } => Some(source),
        }
    }
}

impl From<DeployError> for Failure {
    fn from(error: DeployError) -> Self {
        Self::not_done(error)
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Precious { .. } => Self::usage(error),
            OutputError::Io { .. } => Self::not_done(error),
        }
    }
}

/// An error of the system while doing `operation`.
fn system(operation: &'static str) -> impl FnOnce(io::Error) -> DeployError {
    move |source| DeployError::System { operation, source }
}

/// Runs a deployment from beginning to end.
///
/// # Errors
/// It could not begin: nothing was started and no agent was told of anything.
pub fn run(args: &Deploy) -> Result<ExitCode, Failure> {
    let nics = Nics::of_this_machine(&args.interface, &args.card_speed).map_err(Failure::usage)?;
    let rules = approve::rules(&args.approve, args.insecure)?;
    // Also while the image can't be opened the report's place is looked at: it may be a disk.
    let report = args.report.as_deref().map(|path| report_to(args, path, &[])).transpose()?;
    // What would be refused anyway is refused before a key is made for it, and where somebody finds a port open the key
    // is there. Putting a large image together takes a while; whether the ports are free shows before.
    let image = Image::open(&args.file)?;
    if let Some(path) = &args.report {
        report_to(args, path, &image.layers().map(|layer| layer.path).collect::<Vec<_>>())?;
    }
    let secret = secret_key(args)?;
    let public = secret.as_ref().map(SecretKey::public);
    let (listener, id) = (listen(args.port)?, random()?);
    let seeks = Answerer::listen(args.port);
    let seeks = seeks.map_err(|error| in_use("UDP", args.port, "listening for seeks", error))?;
    let image = Arc::new(image.resolve()?);
    let (mut keeper, unfinished) = left_behind(args, &image, DeploymentId(id))?;
    let deployment_id = unfinished.as_ref().map_or(DeploymentId(id), |unfinished| unfinished.deployment);
    let offer = Offer { server: public, port: args.port, deployment: deployment_id };
    let answerer =
        Answerer::new(seeks, Responder::new(offer, secret.clone())).map_err(system("opening a socket for offers"))?;

    match &public {
        Some(public) => complain(&key::describe(public)),
        None => complain("insecure: no key is used, anybody may pose as this server"),
    }
    let facts = Arc::new(facts(args, &image, deployment_id, public.map(|key| key.to_string())));
    // Where a deployment goes on, its time does, too.
    let clock = Clock::start_after(unfinished.as_ref().map_or(Duration::ZERO, |unfinished| unfinished.saved.elapsed));
    let poll = Poll::new().map_err(system("starting the event loop"))?;
    let waker = Waker::new(poll.registry(), WAKE).map_err(system("starting the event loop"))?;
    let (tell, news) = news(waker);
    let (tell_feed, context_image) = (tell.clone(), image.clone());
    let context = Arc::new(FeedContext {
        shape: Arc::new(image.header().shape()),
        image: context_image,
        clock,
        egress: AtomicU64::new(0),
        tell: Box::new(move |serial, event| tell_feed(News::Feed(serial, event))),
    });
    let tell_kept = tell.clone();
    keeper.iter_mut().for_each(|keeper| {
        let tell = tell_kept.clone();
        keeper.start(move || tell(News::Kept));
    });
    let config = DeploymentConfig {
        prepare: prepare(args, &image, deployment_id),
        blocks: image.header().blocks,
        secret: random()?,
        wait_for: args.wait_for,
        timeout: args.timeout,
        join_window: args.join_window,
        cards: nics.plan_cards(),
        limits: PlanLimits::default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    // What boots goes on until this function ends, after whoever takes its news has gone: nobody waits for anybody then.
    let through = Arc::default();
    let boot = boot::start(args, public.as_ref(), &through, tell.clone())?;
    let began = clock.now();
    let mut deployment = Deployment::new(config, began);
    let (mut keys, mut earlier_egress, mut last_id) = (Keys::new(), 0, 0);
    let hears_codes = rules.as_ref().is_some_and(|rules| rules.codes);
    let mut approval = rules.map_or_else(Approval::everybody, |rules| Approval::by(rules, args.wait_for as usize));
    if let Some(unfinished) = unfinished {
        for boot in unfinished.approved {
            approval.expect_back(boot, unfinished.keys.get(&boot).copied().flatten());
        }
        (keys, earlier_egress, last_id) = (unfinished.keys, unfinished.egress, unfinished.saved.last_id);
        deployment.expect_back(unfinished.saved, args.resume, began);
    }
    if hears_codes {
        let tell = tell.clone();
        approve::hear_codes(move |heard| tell(News::Heard(heard))).map_err(system("starting a thread"))?;
    }
    let mut parts = Parts {
        listener,
        answerer,
        signals: Signals::take().map_err(system("taking over signals"))?,
        news,
        checker: Checker::start(image, tell).map_err(system("starting a thread"))?,
        nics,
        secret,
        context,
        progress: Progress::start(style(args.progress, hears_codes), facts.clone())
            .map_err(system("starting a thread"))?,
        deployment,
        id: deployment_id,
        last_id,
        gate: Gate::new(approval, began),
        plan: Plan::default(),
        turned_away: None,
        keys,
        keeper,
        earlier_egress,
        through,
        poll,
    };
    boot.iter().for_each(|server| parts.progress.line(server.describe()));
    register(&mut parts).map_err(system("starting the event loop"))?;
    let parts = EventLoop::new(parts, began).run().map_err(system("waiting for events"))?;
    end(parts, &facts, began, report)
}

/// What somebody types and a table that is drawn over itself would get in each other's way.
fn style(asked: ProgressStyle, hears_codes: bool) -> ProgressStyle {
    match asked {
        ProgressStyle::Auto if hears_codes => ProgressStyle::Plain,
        asked => asked,
    }
}

/// The place of the report, if it may be written.
fn report_to(args: &Deploy, path: &Path, layers: &[PathBuf]) -> Result<Output, OutputError> {
    let state = key::state_folder(args.state.as_deref()).ok();
    let layers = layers.iter().map(|layer| (layer.as_path(), "a layer of the image"));
    let key = args.key_file.as_deref().map(|key| (key, "the server's key"));
    let lists = args.approve.iter().filter_map(|by| match by {
        ApproveBy::List(path) => Some((path.as_path(), "a list of machines")),
        ApproveBy::Code => None,
    });
    let precious = layers.chain(lists).chain(key).chain([(args.file.as_path(), "the image")]).collect::<Vec<_>>();
    Output::check(path, state.as_deref(), &precious)
}

/// The keeper of this deployment's state, and what another run of the server left to go on with.
fn left_behind(
    args: &Deploy,
    image: &Resolved,
    id: DeploymentId,
) -> Result<(Option<Keeper>, Option<Box<Unfinished>>), Failure> {
    let asked = Asked::of(&prepare(args, image, id), args.insecure);
    let folder = match key::state_folder(args.state.as_deref()) {
        Err(error) if args.resume => return Err(error.into()),
        Err(_) => return Ok((None, None)),
        Ok(folder) => folder,
    };
    let mut keeper = match Keeper::open(&folder, args.port, args.file.display().to_string(), asked) {
        Err(error) if args.resume => return Err(Failure::not_done(error)),
        Err(StateError::Busy { .. }) => return Ok((None, None)),
        Err(error) => {
            log::warn!("this deployment can't be resumed: {}", one_line(&error));
            return Ok((None, None));
        }
        Ok(keeper) => keeper,
    };
    let unfinished = match keeper.find(args.resume, SystemTime::now()).map_err(Failure::not_done)? {
        Found::Nothing => None,
        Found::Unfinished(unfinished) => Some(unfinished),
        Found::Superseded(why) => {
            complain(&format!("a new deployment: {}", one_line(&why)));
            None
        }
    };
    keeper.begin(unfinished.as_ref().map_or(id, |unfinished| unfinished.deployment));
    Ok((Some(keeper), unfinished))
}

fn secret_key(args: &Deploy) -> Result<Option<SecretKey>, KeyFileError> {
    if args.insecure {
        return Ok(None);
    }
    if let Some(path) = &args.key_file {
        return key::read(path).map(Some);
    }
    let state = key::state_folder(args.state.as_deref())?;
    let (secret, new) = key::of_state_folder(&state)?;
    if new {
        complain(&format!("a new key was made in {}", state.display()));
    }
    Ok(Some(secret))
}

fn random<const N: usize>() -> Result<[u8; N], DeployError> {
    let mut bytes = [0; N];
    let filled = getrandom::fill(&mut bytes).map_err(io::Error::other);
    filled.map_err(system("drawing random bytes"))?;
    Ok(bytes)
}

fn in_use(what: &'static str, port: u16, operation: &'static str, error: io::Error) -> DeployError {
    match error.kind() {
        io::ErrorKind::AddrInUse => DeployError::PortInUse { what, port },
        _ => system(operation)(error),
    }
}

/// Listens for control links on both families, or on IPv4 alone where there is no IPv6.
fn listen(port: u16) -> Result<TcpListener, DeployError> {
    let both = std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
    let listener = match both {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        }
        both => both,
    };
    let listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map(TcpListener::from_std).map_err(|error| in_use("TCP", port, "listening for agents", error))
}

fn news(waker: Waker) -> (impl Fn(News) + Clone + Send + Sync, Receiver<News>) {
    let (sender, receiver) = sync_channel(NEWS);
    let waker = Arc::new(waker);
    let tell = move |news| {
        // At the very end nobody listens any more.
        if sender.send(news).is_ok() {
            let _ = waker.wake();
        }
    };
    (tell, receiver)
}

fn facts(args: &Deploy, image: &Resolved, deployment: DeploymentId, key: Option<String>) -> Facts {
    let header = image.header();
    Facts {
        image: args.file.display().to_string(),
        disk_bytes: header.disk_bytes,
        raw_bytes: header.raw_bytes,
        stored_bytes: image.stored_bytes(),
        blocks: header.blocks,
        deployment: deployment.to_string(),
        key,
        port: args.port,
        wait_for: args.wait_for,
        timeout: args.timeout,
    }
}

fn prepare(args: &Deploy, image: &Resolved, deployment: DeploymentId) -> Prepare {
    let header = image.header();
    let name = args.file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Prepare {
        deployment,
        root: image.root(),
        image: name,
        disk_bytes: header.disk_bytes,
        sector: header.sector,
        block: header.block,
        grain: header.grain,
        selector: args.target.to_string(),
        verify: args.verify,
        free: args.free,
        then: args.then,
        fresh: args.fresh,
    }
}

fn register(parts: &mut Parts) -> io::Result<()> {
    let registry = parts.poll.registry();
    registry.register(&mut parts.listener, LISTENER, Interest::READABLE)?;
    registry.register(parts.answerer.socket(), DISCOVERY, Interest::READABLE)?;
    registry.register(parts.signals.receiver(), SIGNALS, Interest::READABLE)
}

/// Shows how it ended, writes the report and gives the exit code.
fn end(parts: Parts, facts: &Facts, began: Time, report: Option<Output>) -> Result<ExitCode, Failure> {
    let Parts { mut deployment, plan, context, progress, turned_away, gate, last_id, .. } = parts;
    for (id, machine) in (last_id + 1..).map(NodeId).zip(gate.unapproved()) {
        deployment.on_unapproved(id, machine, context.clock.now());
    }
    let egress = context.egress.load(Ordering::Relaxed);
    let code = deployment.exit_code().unwrap_or(ExitCode::NodesFailed as u8);
    progress.end(Tracker::default().snapshot(&deployment, began, egress, context.clock.now()), code);
    if let Some(report) = report
        && let Err(error) = report.write(&Report::of(&deployment, &plan, facts, egress).to_text())
    {
        // The nodes are what counts: the exit code stays theirs.
        complain(&Failure::from(error).to_string());
    }
    if let Some(line) = verdict(&deployment, turned_away.as_deref()) {
        complain(&line);
    }
    Ok(match code {
        0 => ExitCode::Done,
        1 => ExitCode::NotDone,
        _ => ExitCode::NodesFailed,
    })
}

/// What went wrong, in one line. `turned_away` tells of an agent that was not let in.
fn verdict(deployment: &Deployment, turned_away: Option<&str>) -> Option<String> {
    let Stage::Over { started, stopped } = deployment.stage() else { return None };
    let why = deployment.nodes().find_map(|node| match node.standing {
        Standing::Refused { reason, detail } if !started => Some((node, *reason, detail)),
        Standing::Ended(end) if end.state == EndState::Failed => Some((node, end.reason, &end.detail)),
        _ => None,
    });
    let why = why.map(|(node, reason, detail)| format!("{}: {reason}: {}", shown(&node.name()), shown(detail)));
    let why = why.or(turned_away.filter(|_| !started).map(str::to_owned));
    let why = why.map_or(String::new(), |why| format!(": {why}"));
    match (started, stopped) {
        (false, true) => Some("nothing was started: stopped".to_owned()),
        (false, false) => Some(format!("nothing was started: too few nodes were ready in time{why}")),
        (true, stopped) => {
            let placed = || deployment.nodes().filter(|node| node.place.is_some());
            let bad = |node: &NodeRecord<'_>| node.outcome().is_none_or(|end| end.state == EndState::Failed);
            let (all, failed) = (placed().count(), placed().filter(bad).count());
            let stopped = if stopped { "stopped: " } else { "" };
            (failed > 0).then(|| format!("{stopped}{failed} of {all} nodes failed{why}"))
        }
    }
}
