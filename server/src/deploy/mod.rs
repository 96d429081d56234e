//! `slidecast deploy`: a front end of [`crate::service`] with one deployment that takes every agent, from the first seek to the report.

mod boot;
mod ending;
mod front;
pub(crate) mod signals;

use crate::approve::{self, ApproveBy};
use crate::cli::{Deploy, ProgressStyle};
use crate::clock::Clock;
use crate::complain;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, one_line};
use crate::key::{self, KeyFileError};
use crate::nic::Nics;
use crate::output::{Output, OutputError};
use crate::progress::{Lines, Progress};
use crate::service::{
    Command, Found, RequestFingerprint, Resume, Service, ServiceConfig, ServiceError, Sockets, Start, StateError,
    StateFile, Unfinished,
};
use crate::store;
use crate::view::Facts;
use front::Screen;
use signals::Signals;
use slidecast_image::Resolved;
use slidecast_proto::approval::{Approval, Rules};
use slidecast_proto::control::Prepare;
use slidecast_proto::deployment::DeploymentConfig;
use slidecast_proto::fleet::Wanted;
use slidecast_proto::noise::SecretKey;
use slidecast_proto::plan::PlanLimits;
use slidecast_proto::units::DeploymentId;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
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
    store::keep(&args.kept)?;
    let image = store::open(&args.file)?;
    if let Some(path) = &args.report {
        report_to(args, path, &image.layers().map(|layer| layer.path).collect::<Vec<_>>())?;
    }
    let secret = secret_key(args)?;
    let sockets = Sockets::listen(args.port)?;
    let id = DeploymentId(random()?);
    let image = Arc::new(image.resolve()?);
    let (state_file, unfinished) = left_behind(args, &image, id)?;
    let id = unfinished.as_ref().map_or(id, |unfinished| unfinished.deployment);
    let hears_codes = rules.as_ref().is_some_and(|rules| rules.codes);
    let mut service = Service::new(ServiceConfig {
        sockets,
        id,
        secret: secret.clone(),
        nics,
        // Where a deployment goes on, its time does, too.
        clock: Clock::start_after(unfinished.as_ref().map_or(Duration::ZERO, |unfinished| unfinished.saved.elapsed)),
        approval: approval(rules, args.wait_for),
    })?;
    let public = secret.as_ref().map(SecretKey::public);
    match &public {
        Some(public) => complain(&key::describe(public)),
        None => complain("insecure: no key is used, anybody may pose as this server"),
    }
    let facts = Arc::new(facts(args, &image, id, public.map(|key| key.to_string())));
    let (booted, lines) = (Arc::default(), Lines::default());
    // What boots goes on until this function ends.
    let boot = boot::start(args, public.as_ref(), &booted, lines.clone())?;
    let starting = || ServiceError::system("starting a thread");
    let resume = unfinished.map(|unfinished| Resume { unfinished, at_once: args.resume });
    let config = config(args, prepare(args, &image, id), image.header().blocks)?;
    let start = Start { image, facts: facts.clone(), config, wanted: Wanted::Everyone, state_file, resume };
    service.start(start).map_err(starting())?;
    if hears_codes {
        let handle = service.handle();
        approve::hear_codes(move |heard| handle.tell(Command::Heard(heard))).map_err(starting())?;
    }
    let handle = service.handle();
    let signals = Signals::take().map_err(ServiceError::system("taking over signals"))?;
    signals.watch(move || handle.tell(Command::Stop(id))).map_err(starting())?;
    let progress = Progress::start(style(args.progress, hears_codes), facts, lines).map_err(starting())?;
    boot.iter().for_each(|server| progress.line(server.describe()));
    let mut screen = Screen::new(progress, booted);
    let closed = service.run(&mut screen).map_err(ServiceError::system("waiting for events"))?;
    Ok(ending::end(screen, &closed, report))
}

/// Who is let in.
fn approval(rules: Option<Rules>, wait_for: u32) -> Approval {
    rules.map_or_else(Approval::everybody, |rules| Approval::by(rules, wait_for as usize))
}

fn config(args: &Deploy, prepare: Prepare, blocks: u32) -> Result<DeploymentConfig, ServiceError> {
    Ok(DeploymentConfig {
        prepare,
        blocks,
        secret: random()?,
        wait_for: args.wait_for,
        timeout: args.timeout,
        join_window: args.join_window,
        // The service knows its cards.
        cards: Vec::new(),
        limits: PlanLimits::default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
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

/// The state_file of this deployment's state, and what another run of the server left to go on with.
fn left_behind(
    args: &Deploy,
    image: &Resolved,
    id: DeploymentId,
) -> Result<(Option<StateFile>, Option<Box<Unfinished>>), Failure> {
    let fingerprint = RequestFingerprint::of(&prepare(args, image, id), args.insecure);
    let folder = match key::state_folder(args.state.as_deref()) {
        Err(error) if args.resume => return Err(error.into()),
        Err(_) => return Ok((None, None)),
        Ok(folder) => folder,
    };
    let mut state_file =
        match StateFile::open(&folder, &args.port.to_string(), args.file.display().to_string(), fingerprint) {
            Err(error) if args.resume => return Err(Failure::not_done(error)),
            Err(StateError::Busy { .. }) => return Ok((None, None)),
            Err(error) => {
                log::warn!("this deployment can't be resumed: {}", one_line(&error));
                return Ok((None, None));
            }
            Ok(state_file) => state_file,
        };
    let unfinished = match state_file.find(args.resume, SystemTime::now()).map_err(Failure::not_done)? {
        Found::Nothing => None,
        Found::Unfinished(unfinished) => Some(unfinished),
        Found::Superseded(why) => {
            complain(&format!("a new deployment: {}", one_line(&why)));
            None
        }
    };
    state_file.begin(unfinished.as_ref().map_or(id, |unfinished| unfinished.deployment));
    Ok((Some(state_file), unfinished))
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

fn random<const N: usize>() -> Result<[u8; N], ServiceError> {
    let mut bytes = [0; N];
    let filled = getrandom::fill(&mut bytes).map_err(io::Error::other);
    filled.map_err(ServiceError::system("drawing random bytes"))?;
    Ok(bytes)
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
