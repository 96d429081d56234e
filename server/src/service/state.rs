//! What a deployment leaves in the state folder while it runs, so that a server that was killed can go on: one small file for each
//! (`deploy` names it by its port, `serve` by the deployment's id), replaced as a whole, gone at the end.
//!
//! The same command given again goes on by itself when it is given in time; any other command is a new deployment. A lock
//! beside the file keeps two live deployments apart.

mod contents;

use super::writer::{Store, Writer};
use contents::{Contents, NodeContents, micros};
use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};
use slidecast_proto::approval::Boot;
use slidecast_proto::control::{HOLD, Prepare};
use slidecast_proto::deployment::Saved;
use slidecast_proto::noise::PublicKey;
use slidecast_proto::units::DeploymentId;
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The form of the file.
const VERSION: u32 = 1;
/// What a state that is being written is called until it is whole, with the name and a `-` behind; older versions had none there.
const UNFINISHED: &str = ".deploy";
/// A file without a name may be in use by an older version until it is this old: each is there for less than a second.
const DEAD_AFTER: Duration = Duration::from_secs(3600);
/// The longest state file that is read, in bytes.
const MAX_FILE: u64 = 256 << 20;

/// The keys that the agents of each run have proven to have.
pub type Keys = HashMap<[u8; 16], Option<PublicKey>>;

/// Why there is nothing to go on with, or no way to keep anything.
#[derive(Debug)]
pub enum StateError {
    /// The system refused.
    Io {
        /// What was being done.
        operation: &'static str,
        /// To this file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// No deployment was left unfinished.
    Nothing {
        /// Where its state would be.
        path: PathBuf,
    },
    /// A running deployment keeps its state there.
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a state that this version wrote.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The saved deployment differs in what was asked for.
    Other {
        /// Its image.
        image: String,
        /// The flag that differs.
        what: &'static str,
    },
    /// Its agents have given up.
    Old {
        /// Its image.
        image: String,
        /// How long ago the server ended.
        seconds: u64,
    },
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
pub struct RequestFingerprint {
    root: String,
    target: String,
    verify: String,
    free: String,
    then: String,
    fresh: bool,
    insecure: bool,
}

impl RequestFingerprint {
    /// What these orders for agents ask for.
    #[must_use]
    pub fn of(prepare: &Prepare, insecure: bool) -> Self {
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

/// A deployment that another run of the server left.
#[derive(Debug)]
pub struct Unfinished {
    /// Its id.
    pub deployment: DeploymentId,
    /// Its nodes.
    pub saved: Saved,
    /// The keys of its agents.
    pub keys: Keys,
    /// Runs of agents that a typed code let in.
    pub approved: Vec<Boot>,
    /// Bytes that the server had sent.
    pub egress: u64,
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// Nothing that this command could go on with.
    Nothing,
    /// The same, which is to go on if its agents come back.
    Unfinished(Box<Unfinished>),
    /// Another one, which this command puts an end to.
    Superseded(StateError),
}

/// Keeps the state of one deployment.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    name: String,
    image: String,
    fingerprint: RequestFingerprint,
    deployment: DeploymentId,
    writer: Option<Writer<Contents>>,
    /// Let go of last, when the writer has ended.
    _lock: Flock<File>,
}

impl StateFile {
    /// Takes the place for the deployment with this name in `folder`.
    ///
    /// # Errors
    /// [`StateError`]: it is taken, or the system refuses.
    pub fn open(folder: &Path, name: &str, image: String, fingerprint: RequestFingerprint) -> Result<Self, StateError> {
        let io = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { operation, path, source }
        };
        fs::create_dir_all(folder).map_err(io("creating", folder))?;
        let path = folder.join(format!("deploy-{name}.json"));
        let lock_path = folder.join(format!("deploy-{name}.lock"));
        let lock = crate::lock::take(&lock_path).map_err(io("locking", &lock_path))?;
        let lock = lock.ok_or_else(|| StateError::Busy { path: path.clone() })?;
        collect(folder, name, SystemTime::now());
        let deployment = DeploymentId([0; 16]);
        Ok(Self { path, name: name.to_owned(), _lock: lock, image, fingerprint, deployment, writer: None })
    }

    /// Looks for a deployment to go on with. Only with `resume` it is an error that there is none.
    ///
    /// # Errors
    /// [`StateError`]: why there is nothing to go on with.
    pub fn find(&self, resume: bool, now: SystemTime) -> Result<Found, StateError> {
        match self.read(now) {
            Ok(unfinished) => Ok(Found::Unfinished(Box::new(unfinished))),
            Err(error) if resume => Err(error),
            Err(StateError::Nothing { .. }) => Ok(Found::Nothing),
            Err(error) => Ok(Found::Superseded(error)),
        }
    }

    /// From now on the state is that of this deployment.
    pub fn begin(&mut self, deployment: DeploymentId) {
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
            Ok(meta) if meta.len() > MAX_FILE => return Err(malformed("it is too long".to_owned())),
            Ok(_) => fs::read(&self.path).map_err(failed)?,
        };
        let contents: Contents = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        if contents.version != VERSION {
            return Err(malformed(format!("it has form {}, not {VERSION}", contents.version)));
        }
        if let Some(what) = contents.fingerprint.difference(&self.fingerprint) {
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
        match Writer::start(OnDisk { path: self.path.clone(), name: self.name.clone(), wrote: false }, tell) {
            Ok(writer) => self.writer = Some(writer),
            Err(error) => log::warn!("this deployment can't be resumed: starting a thread: {error}"),
        }
    }

    /// Has the file replaced by the state with this number. With `sync` it is to survive a power cut.
    pub(super) fn keep(
        &mut self,
        number: u64,
        saved: &Saved,
        key_of: impl Fn(&Boot) -> Option<PublicKey>,
        was_typed: impl Fn(&Boot) -> bool,
        egress: u64,
        sync: bool,
    ) {
        let contents = Contents {
            version: VERSION,
            image: self.image.clone(),
            fingerprint: self.fingerprint.clone(),
            deployment: self.deployment.to_string(),
            alive: unix(SystemTime::now()),
            egress_bytes: egress,
            elapsed_us: micros(saved.elapsed),
            pass: saved.pass,
            last_id: saved.last_id,
            nodes: saved
                .nodes
                .iter()
                .map(|node| NodeContents::of(node, key_of(&node.boot), was_typed(&node.boot)))
                .collect(),
        };
        if let Some(writer) = &self.writer {
            writer.keep(number, contents, sync);
        }
    }

    /// The number of the newest state that is kept; the highest of all where none can be.
    pub(super) fn kept(&self) -> u64 {
        self.writer.as_ref().map_or(u64::MAX, Writer::kept)
    }

    /// The deployment is over. The file is gone when this is dropped.
    pub(super) fn remove(&mut self) {
        self.writer.iter().for_each(Writer::remove);
    }
}

/// The file itself, for the thread that writes it.
struct OnDisk {
    path: PathBuf,
    name: String,
    /// Something was written: it is ours to remove.
    wrote: bool,
}

impl Store<Contents> for OnDisk {
    fn replace(&mut self, contents: &Contents, sync: bool) -> io::Result<()> {
        self.wrote = true;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(&format!("{UNFINISHED}-{}-", self.name)).tempfile_in(folder)?;
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

/// Removes what killed servers left half-written. The caller has the lock of `name`: no other server writes files of that name.
fn collect(folder: &Path, name: &str, now: SystemTime) {
    let ours = format!("{UNFINISHED}-{name}-");
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

#[cfg(test)]
mod tests;
