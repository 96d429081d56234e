//! From a request, or a row of the database, to a deployment that the service starts.

use super::parse_id;
use super::problem::Problem;
use super::store::DeploymentRow;
use super::wishes::{Request, Wishes};
use crate::failure::one_line;
use crate::service::{Found, RequestFingerprint, Resume, Start, StateFile};
use crate::store::{self, STORES};
use crate::view::Facts;
use axum::http::StatusCode;
use slidecast_image::Resolved;
use slidecast_proto::approval::{Identity, parse_list};
use slidecast_proto::control::Prepare;
use slidecast_proto::deployment::DeploymentConfig;
use slidecast_proto::fleet::Wanted;
use slidecast_proto::plan::PlanLimits;
use slidecast_proto::units::DeploymentId;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// What does not change from one deployment to the next.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) state: PathBuf,
    pub(super) images: PathBuf,
    pub(super) port: u16,
    pub(super) key: Option<String>,
}

/// The file, or the address, of the image with this name. A name is that of a file in the folder and leads nowhere else.
pub(super) fn image_path(images: &Path, name: &str) -> Result<PathBuf, Problem> {
    let plain = !name.starts_with('.') && !name.contains(['/', '\\', '\0']) && name.ends_with(".slide");
    let path = plain.then(|| STORES.inside(images, name));
    // Whether an object is there shows when it is opened.
    let path = path.filter(|path| store::is_remote(path) || path.is_file());
    path.ok_or_else(|| Problem::not_found(format!("there is no image {name:?} in the image folder")))
}

/// Opens an image and puts its layers together. Takes its time.
pub(super) fn resolve(path: &Path) -> Result<Arc<Resolved>, Problem> {
    let resolved = store::open(path).and_then(|image| image.resolve());
    resolved
        .map(Arc::new)
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "image-refused", one_line(&error)))
}

/// A deployment as it is to be started.
#[derive(Debug)]
struct Asking {
    id: DeploymentId,
    name: String,
    image: Arc<Resolved>,
    wishes: Wishes,
    /// Hardware addresses.
    machines: Vec<String>,
}

impl Asking {
    fn prepare(&self) -> Prepare {
        let (header, wishes) = (self.image.header(), &self.wishes);
        Prepare {
            deployment: self.id,
            root: self.image.root(),
            image: self.name.clone(),
            disk_bytes: header.disk_bytes,
            sector: header.sector,
            block: header.block,
            grain: header.grain,
            selector: wishes.selector.clone(),
            verify: wishes.verify,
            free: wishes.free,
            then: wishes.then,
            fresh: wishes.fresh,
        }
    }

    /// What the service starts. With `again` an earlier run of the server may have left its state.
    fn start(self, place: &Place, again: bool) -> Result<Start, String> {
        let prepare = self.prepare();
        let fingerprint = RequestFingerprint::of(&prepare, place.key.is_none());
        let name = self.id.to_string();
        let mut state_file =
            StateFile::open(&place.state, &name, self.name.clone(), fingerprint).map_err(|error| one_line(&error))?;
        let mut resume = None;
        if again {
            match state_file.find(false, SystemTime::now()).map_err(|error| one_line(&error))? {
                Found::Nothing => {}
                Found::Unfinished(unfinished) => resume = Some(Resume { unfinished, at_once: false }),
                Found::Superseded(why) => return Err(one_line(&why)),
            }
        }
        state_file.begin(self.id);
        let header = self.image.header();
        let facts = Facts {
            image: self.name.clone(),
            disk_bytes: header.disk_bytes,
            raw_bytes: header.raw_bytes,
            stored_bytes: self.image.stored_bytes(),
            blocks: header.blocks,
            deployment: name,
            key: place.key.clone(),
            port: place.port,
            wait_for: self.wishes.wait_for,
            timeout: self.wishes.timeout,
        };
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| format!("drawing random bytes: {error}"))?;
        let config = DeploymentConfig {
            prepare,
            blocks: header.blocks,
            secret,
            wait_for: self.wishes.wait_for,
            timeout: self.wishes.timeout,
            join_window: self.wishes.join_window,
            cards: Vec::new(),
            limits: PlanLimits::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let machines = self.machines.iter().filter_map(|mac| parse_list(mac.as_bytes()).ok()).flatten();
        let wanted = Wanted::Machines(machines.filter(|identity| matches!(identity, Identity::Mac(_))).collect());
        Ok(Start { image: self.image, facts: Arc::new(facts), config, wanted, state_file: Some(state_file), resume })
    }
}

/// Whether a deployment is given to a service for the first time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Run {
    /// It is, and so many of its machines are connected.
    First {
        /// The machines.
        connected: u32,
    },
    /// An earlier run of the server had it, and may have begun it.
    Again,
}

/// The deployment of a row, as the service starts it.
pub(super) fn start_of(row: &DeploymentRow, hardware: Vec<String>, place: &Place, run: Run) -> Result<Start, String> {
    let id = parse_id(&row.id).ok_or("its id is none")?;
    let request: Request = serde_json::from_str(&row.wishes).map_err(|error| error.to_string())?;
    let mut wishes = request.wishes().map_err(|problem| problem.to_string())?;
    let again = matches!(run, Run::Again);
    if let Run::First { connected } = run
        && wishes.with_connected
    {
        wishes.wait_for = connected.max(1);
    }
    let image = image_path(&place.images, &row.image).and_then(|path| resolve(&path));
    let image = image.map_err(|problem| problem.to_string())?;
    let start = Asking { id, name: row.image.clone(), image, wishes, machines: hardware }.start(place, again)?;
    if row.started && start.resume.is_none() {
        return Err(
            "the server ended before it noted how this deployment ended; its machines show it on their consoles"
                .to_owned(),
        );
    }
    Ok(start)
}
