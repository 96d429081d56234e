//! What a deployment leaves in the state folder while it runs, so that a server that was killed can go on: one small file for each
//! port, replaced as a whole, gone at the end.
//!
//! The same command given again goes on by itself when it is given in time; any other command is a new deployment. A lock
//! beside the file keeps two live deployments apart.

use super::writer::{Store, Writer};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use slidecast_proto::approval::Boot;
use slidecast_proto::control::{HOLD, Prepare, Ready};
use slidecast_proto::deployment::{Place, Saved, SavedEnd, SavedNode};
use slidecast_proto::noise::PublicKey;
use slidecast_proto::plan::CardId;
use slidecast_proto::units::{DeploymentId, NodeId};
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The form of the file.
const VERSION: u32 = 1;
/// What a state that is being written is called until it is whole, with the port and a `-` behind; older versions had no port there.
const UNFINISHED: &str = ".deploy";
/// A file without a port may be in use by an older version until it is this old: each is there for less than a second.
const DEAD_AFTER: Duration = Duration::from_secs(3600);
/// The longest state file that is read, in bytes.
const LONGEST: u64 = 256 << 20;

/// The keys that the agents of each run have proven to have.
pub(super) type Keys = HashMap<[u8; 16], Option<PublicKey>>;

/// Why there is nothing to go on with, or no way to keep anything.
#[derive(Debug)]
pub(super) enum StateError {
    /// The system refused.
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    /// No deployment was left unfinished.
    Nothing { path: PathBuf },
    /// A running deployment keeps its state there.
    Busy { path: PathBuf },
    /// The file is not a state that this version wrote.
    Malformed { path: PathBuf, what: String },
    /// The saved deployment differs in what was asked for.
    Other { image: String, what: &'static str },
    /// Its agents have given up.
    Old { image: String, seconds: u64 },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { operation, path, .. } => write!(f, "{operation} {}", path.display()),
            Self::Nothing { path } => write!(f, "nothing to resume: there is no {}", path.display()),
            Self::Busy { path } => write!(f, "a running deployment uses {} already", path.display()),
            Self::Malformed { path, what } => {
                write!(f, "{} is not a valid deployment state file: {what}", path.display())
            }
            Self::Other { image, what } => {
                write!(f, "cannot resume: the saved deployment of {image} used a different {what}")
            }
            Self::Old { image, seconds } => write!(
                f,
                "the unfinished deployment of {image} was left {seconds} s ago, and agents keep their state for {} s: \
                 without --resume their disks are compared",
                HOLD.as_secs()
            ),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// What the operator asked for: a command that asks for the same goes on with the deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    root: String,
    target: String,
    verify: String,
    free: String,
    then: String,
    fresh: bool,
    insecure: bool,
}

impl Asked {
    pub(super) fn of(prepare: &Prepare, insecure: bool) -> Self {
        Self {
            root: prepare.root.to_string(),
            target: prepare.selector.clone(),
            verify: prepare.verify.to_string(),
            free: prepare.free.to_string(),
            then: prepare.then.to_string(),
            fresh: prepare.fresh,
            insecure,
        }
    }

    /// What is not the same, in words of the command line.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let pairs = [
            (self.root != other.root, "image"),
            (self.target != other.target, "--target"),
            (self.verify != other.verify, "--verify"),
            (self.free != other.free, "--free"),
            (self.then != other.then, "--then"),
            (self.fresh != other.fresh, "--fresh"),
            (self.insecure != other.insecure, "--insecure"),
        ];
        pairs.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    version: u32,
    image: String,
    asked: Asked,
    deployment: String,
    /// When the server was alive, in seconds since 1970.
    alive: u64,
    egress_bytes: u64,
    elapsed_us: u64,
    pass: u32,
    last_id: u32,
    nodes: Vec<NodeContents>,
}

#[derive(Debug, Serialize, Deserialize)]
struct NodeContents {
    id: u32,
    boot: String,
    key: Option<String>,
    hostname: String,
    card: String,
    address: IpAddr,
    chain: u16,
    position: u16,
    target: String,
    describe: String,
    bytes: u64,
    rotational: bool,
    direct: bool,
    comparable: bool,
    ring: u64,
    repairs: u32,
    moved: bool,
    late: bool,
    /// A code that was typed let it in.
    #[serde(default)]
    approved: bool,
    end: Option<EndContents>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EndContents {
    state: String,
    reason: String,
    detail: String,
    verified: String,
    blocks_written: u32,
    blocks_kept: u32,
    last_look: String,
    last_look_blocks: u32,
    after_us: u64,
}

/// A deployment that another run of the server left.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) deployment: DeploymentId,
    pub(super) saved: Saved,
    pub(super) keys: Keys,
    /// Runs of agents that a typed code let in.
    pub(super) approved: Vec<Boot>,
    pub(super) egress: u64,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing that this command could go on with.
    Nothing,
    /// The same, which is to go on if its agents come back.
    Unfinished(Box<Unfinished>),
    /// Another one, which this command puts an end to.
    Superseded(StateError),
}

/// Keeps the state of one deployment.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    port: u16,
    image: String,
    asked: Asked,
    deployment: DeploymentId,
    writer: Option<Writer<Contents>>,
    /// Let go of last, when the writer has ended.
    _lock: Flock<File>,
}

impl Keeper {
    /// Takes the place for the deployment on `port` in `folder`.
    pub(super) fn open(folder: &Path, port: u16, image: String, asked: Asked) -> Result<Self, StateError> {
        let io = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { operation, path, source }
        };
        fs::create_dir_all(folder).map_err(io("creating", folder))?;
        let path = folder.join(format!("deploy-{port}.json"));
        let lock_path = folder.join(format!("deploy-{port}.lock"));
        let lock = File::options().create(true).write(true).truncate(false).open(&lock_path);
        let lock = Flock::lock(lock.map_err(io("opening", &lock_path))?, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => StateError::Busy { path: path.clone() },
            errno => StateError::Io { operation: "locking", path: lock_path.clone(), source: errno.into() },
        })?;
        collect(folder, port, SystemTime::now());
        let deployment = DeploymentId([0; 16]);
        Ok(Self { path, port, _lock: lock, image, asked, deployment, writer: None })
    }

    /// Looks for a deployment to go on with. Only with `resume` it is an error that there is none.
    pub(super) fn find(&self, resume: bool, now: SystemTime) -> Result<Found, StateError> {
        match self.read(now) {
            Ok(unfinished) => Ok(Found::Unfinished(Box::new(unfinished))),
            Err(error) if resume => Err(error),
            Err(StateError::Nothing { .. }) => Ok(Found::Nothing),
            Err(error) => Ok(Found::Superseded(error)),
        }
    }

    /// From now on the state is that of this deployment.
    pub(super) fn begin(&mut self, deployment: DeploymentId) {
        self.deployment = deployment;
    }

    fn read(&self, now: SystemTime) -> Result<Unfinished, StateError> {
        let failed = |source| StateError::Io { operation: "reading", path: self.path.clone(), source };
        let malformed = |what: String| StateError::Malformed { path: self.path.clone(), what };
        let bytes = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StateError::Nothing { path: self.path.clone() });
            }
            Err(error) => return Err(failed(error)),
            Ok(meta) if meta.len() > LONGEST => return Err(malformed("it is too long".to_owned())),
            Ok(_) => fs::read(&self.path).map_err(failed)?,
        };
        let contents: Contents = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        if contents.version != VERSION {
            return Err(malformed(format!("it has form {}, not {VERSION}", contents.version)));
        }
        if let Some(what) = contents.asked.difference(&self.asked) {
            return Err(StateError::Other { image: contents.image, what });
        }
        let seconds = unix(now).saturating_sub(contents.alive);
        if seconds > HOLD.as_secs() {
            return Err(StateError::Old { image: contents.image, seconds });
        }
        contents.unpack().ok_or_else(|| malformed("a field has no meaning".to_owned()))
    }

    /// Starts the thread that writes. `tell` is called whenever a state was kept.
    pub(super) fn start(&mut self, tell: impl Fn() + Send + 'static) {
        match Writer::start(StateFile { path: self.path.clone(), port: self.port, wrote: false }, tell) {
            Ok(writer) => self.writer = Some(writer),
            Err(error) => log::warn!("this deployment can't be resumed: starting a thread: {error}"),
        }
    }

    /// Has the file replaced. With `sync` it is to survive a power cut. Gives a number for [`Self::is_kept`].
    pub(super) fn keep(
        &mut self,
        saved: &Saved,
        keys: &Keys,
        was_typed: impl Fn(&Boot) -> bool,
        egress: u64,
        sync: bool,
    ) -> Option<u64> {
        let contents = Contents {
            version: VERSION,
            image: self.image.clone(),
            asked: self.asked.clone(),
            deployment: self.deployment.to_string(),
            alive: unix(SystemTime::now()),
            egress_bytes: egress,
            elapsed_us: micros(saved.elapsed),
            pass: saved.pass,
            last_id: saved.last_id,
            nodes: saved.nodes.iter().map(|node| NodeContents::of(node, keys, was_typed(&node.boot))).collect(),
        };
        self.writer.as_ref().map(|writer| writer.keep(contents, sync))
    }

    /// Whether the state with this number, or a newer one, is kept.
    pub(super) fn is_kept(&self, number: u64) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.is_kept(number))
    }

    /// The deployment is over. The file is gone when this is dropped.
    pub(super) fn remove(&mut self) {
        self.writer.iter().for_each(Writer::remove);
    }
}

/// The file.
struct StateFile {
    path: PathBuf,
    port: u16,
    /// Something was written: it is ours to remove.
    wrote: bool,
}

impl Store<Contents> for StateFile {
    fn replace(&mut self, contents: &Contents, sync: bool) -> io::Result<()> {
        self.wrote = true;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(&format!("{UNFINISHED}-{}-", self.port)).tempfile_in(folder)?;
        serde_json::to_writer(file.as_file_mut(), contents).map_err(io::Error::from)?;
        file.as_file_mut().flush()?;
        if sync {
            file.as_file().sync_all()?;
        }
        file.persist(&self.path).map_err(|error| error.error)?;
        if sync { File::open(folder)?.sync_all() } else { Ok(()) }
    }

    fn remove(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.wrote) { fs::remove_file(&self.path) } else { Ok(()) }
    }
}

/// Removes what killed servers left half-written. The caller has the lock of `port`: no other server writes files of that name.
fn collect(folder: &Path, port: u16, now: SystemTime) {
    let ours = format!("{UNFINISHED}-{port}-");
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, meta) = (entry.file_name(), entry.metadata());
        let Some(name) = name.to_str() else { continue };
        // As the library for temporary files makes them: six letters or digits.
        let random = |rest: &str| rest.len() == 6 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let old = |modified: SystemTime| now.duration_since(modified).is_ok_and(|age| age >= DEAD_AFTER);
        let is_dead = name.strip_prefix(&ours).is_some_and(random)
            || name.strip_prefix(UNFINISHED).is_some_and(random)
                && meta.as_ref().is_ok_and(|meta| meta.modified().is_ok_and(old));
        if is_dead && meta.is_ok_and(|meta| meta.is_file()) {
            match fs::remove_file(entry.path()) {
                Ok(()) => log::info!("{} removed: a killed server left it", entry.path().display()),
                Err(error) => log::warn!("removing {}: {error}", entry.path().display()),
            }
        }
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let mut bytes = [0; N];
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl Contents {
    fn unpack(self) -> Option<Unfinished> {
        let deployment = DeploymentId(unhex(&self.deployment)?);
        let (mut keys, mut approved) = (Keys::new(), Vec::new());
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for node in self.nodes {
            let key = node.key.as_deref().map(str::parse::<PublicKey>).transpose().ok()?;
            let was_typed = node.approved;
            let node = node.unpack(deployment)?;
            keys.insert(node.boot, key);
            approved.extend(was_typed.then_some(node.boot));
            nodes.push(node);
        }
        let elapsed = Duration::from_micros(self.elapsed_us);
        let saved = Saved { pass: self.pass, last_id: self.last_id, elapsed, nodes };
        Some(Unfinished { deployment, saved, keys, approved, egress: self.egress_bytes })
    }
}

impl NodeContents {
    fn of(node: &SavedNode, keys: &Keys, approved: bool) -> Self {
        let Ready { target, describe, bytes, rotational, direct, comparable, ring, .. } = node.ready.clone();
        Self {
            id: node.id.0,
            boot: hex(&node.boot),
            key: keys.get(&node.boot).copied().flatten().map(|key| key.to_string()),
            hostname: node.hostname.clone(),
            card: node.card.0.clone(),
            address: node.address,
            chain: node.place.chain,
            position: node.place.position,
            target,
            describe,
            bytes,
            rotational,
            direct,
            comparable,
            ring,
            repairs: node.repairs,
            moved: node.moved,
            late: node.late,
            approved,
            end: node.end.as_ref().map(EndContents::of),
        }
    }

    fn unpack(self, deployment: DeploymentId) -> Option<SavedNode> {
        let Self { target, describe, bytes, rotational, direct, comparable, ring, .. } = self;
        Some(SavedNode {
            id: NodeId(self.id),
            boot: unhex(&self.boot)?,
            hostname: self.hostname,
            card: CardId(self.card),
            address: self.address,
            place: Place { chain: self.chain, position: self.position },
            ready: Ready { deployment, target, describe, bytes, rotational, direct, comparable, ring },
            end: match self.end {
                None => None,
                Some(end) => Some(end.unpack()?),
            },
            repairs: self.repairs,
            moved: self.moved,
            late: self.late,
        })
    }
}

impl EndContents {
    fn of(end: &SavedEnd) -> Self {
        Self {
            state: end.state.to_string(),
            reason: end.reason.to_string(),
            detail: end.detail.clone(),
            verified: end.verified.to_string(),
            blocks_written: end.blocks.0,
            blocks_kept: end.blocks.1,
            last_look: end.last_look.0.to_string(),
            last_look_blocks: end.last_look.1,
            after_us: micros(end.after),
        }
    }

    fn unpack(self) -> Option<SavedEnd> {
        Some(SavedEnd {
            state: self.state.parse().ok()?,
            reason: self.reason.parse().ok()?,
            detail: self.detail,
            verified: self.verified.parse().ok()?,
            blocks: (self.blocks_written, self.blocks_kept),
            last_look: (self.last_look.parse().ok()?, self.last_look_blocks),
            after: Duration::from_micros(self.after_us),
        })
    }
}

#[cfg(test)]
mod tests;
