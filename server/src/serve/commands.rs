//! What people and programs order, whichever way it comes.

use super::api::Api;
use super::live::Here;
use super::parse_id;
use super::power::wake;
use super::problem::Problem;
use super::role::Role;
use super::start::{Run, image_path, resolve, start_of};
use super::starting::{GRACE, StartRequest, in_zone};
use super::store::{DeploymentRow, NewDeployment, PATIENCE, Stopped, StoreError, Which, Who, now};
use super::wishes::Request;
use crate::service::Command;
use axum::http::StatusCode;
use slidecast_proto::units::DeploymentId;
use std::collections::HashSet;
use std::sync::Arc;

/// A deployment that was asked for.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: String,
    /// Nobody had asked for it before with the same key.
    pub(super) new: bool,
}

/// Does something that waits for a disk or takes its time on another thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("the request ended early: {error}")))
    })
}

/// The deployment that an earlier request with this key has made.
pub(super) async fn known(api: &Api, key: Option<String>) -> Result<Option<String>, StoreError> {
    let Some(key) = key else { return Ok(None) };
    api.database.call(move |store| store.by_idempotency_key(&key)).await
}

/// Keeps a deployment, and starts it unless it waits for somebody.
pub(super) async fn deploy(
    api: &Arc<Api>,
    mut request: Request,
    key: Option<String>,
    who: &Who,
) -> Result<Made, Problem> {
    if let Some(group) = request.group.clone() {
        let machines = api.database.call(move |store| store.machines_of_group(&group)).await?;
        request.take_group(machines)?;
    }
    request.wishes()?;
    let (images, name) = (api.place.images.clone(), request.image.clone());
    blocking(move || resolve(&image_path(&images, &name)?)).await?;
    let rows = cut(api, &request).await?;
    let moment = request.start.as_ref().map(StartRequest::moment).transpose()?.flatten();
    if let Some(past) = moment.as_ref().filter(|moment| moment.at.saturating_add(moment.grace) < now()) {
        return Err(Problem::bad(format!("at: {} is past", in_zone(past.at, &past.zone))));
    }
    let (row_key, who, max_failed) = (key.clone(), who.clone(), request.max_failed.unwrap_or_default());
    let id = rows[0].0.clone();
    let kept = api.database.call(move |store| {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let waves: Vec<NewDeployment<'_>> = (1..)
            .zip(&rows)
            .map(|(wave, (id, request, wishes))| NewDeployment {
                id,
                image: &request.image,
                wishes,
                machines: &request.machines,
                key: row_key.as_deref().filter(|_| wave == 1),
                start: moment.as_ref().filter(|_| wave == 1).map(|moment| (moment.at, moment.zone.as_str())),
                grace: moment.as_ref().map_or(GRACE, |moment| moment.grace),
                patience: request.wishes().is_ok_and(|wishes| wishes.with_connected).then_some(PATIENCE),
                wave: (wave, count, max_failed),
            })
            .collect();
        store.add_deployments(&waves, &who)
    });
    match kept.await {
        Ok(()) => {}
        // The same request may have come twice at once.
        Err(error @ StoreError::Database { .. }) => match known(api, key).await? {
            Some(id) => return Ok(Made { id, new: false }),
            None => return Err(error.into()),
        },
        Err(error) => return Err(error.into()),
    }
    begin(api, &id).await?;
    Ok(Made { id, new: true })
}

/// The deployments that a request comes to: itself, or its waves. Each with an id and as it is kept.
async fn cut(api: &Api, request: &Request) -> Result<Vec<(String, Request, String)>, Problem> {
    let waves = match &request.waves {
        None => vec![request.clone()],
        Some(waves) => {
            let machines = api.database.call(|store| store.machines()).await?;
            let here = api.live.lock().connected();
            let here = machines.iter().filter(|machine| machine.hardware.iter().any(|mac| here.contains(mac)));
            let parts = waves.cut(&request.machines, &here.map(|machine| machine.id).collect())?;
            let waves = parts.into_iter().enumerate().map(|(at, part)| request.wave(part, at == 0));
            waves.collect::<Result<Vec<_>, _>>()?
        }
    };
    let keep = |request: Request| {
        request.wishes()?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| Problem::system(format!("drawing random bytes: {error}")))?;
        let wishes = serde_json::to_string(&request).expect("a request has only texts, numbers and lists");
        Ok((DeploymentId(id).to_string(), request, wishes))
    };
    waves.into_iter().map(keep).collect()
}

/// Orders what another deployment did not bring to an end, once more.
pub(super) async fn again(api: &Arc<Api>, id: &str, key: Option<String>, who: &Who) -> Result<Made, Problem> {
    let row = find(api, id).await?;
    let machines = api.database.call(move |store| store.failed_machines(&row.id)).await?;
    let row = find(api, id).await?;
    let request: Request = serde_json::from_str(&row.wishes).map_err(|error| Problem::system(error.to_string()))?;
    deploy(api, request.again(machines), key, who).await
}

/// A deployment waits no longer: not for its time, and not for more machines than are ready.
pub(super) async fn hurry(api: &Arc<Api>, id: &str, who: &Who) -> Result<(), Problem> {
    find(api, id).await?;
    let (asked, who) = (id.to_owned(), who.clone());
    if !api.database.call(move |store| store.hurry(&asked, &who)).await? {
        begin(api, id).await?;
    }
    tell_to_begin(api, id).await
}

/// Tells the service that a deployment begins with the machines that are ready, if it does. What is told before the service has the
/// deployment is lost: whoever gives it to the service asks again, and so does the keeper.
pub(super) async fn tell_to_begin(api: &Arc<Api>, id: &str) -> Result<(), Problem> {
    let asked = id.to_owned();
    match api.database.call(move |store| store.is_to_begin(&asked)).await? {
        true => tell(api, id, Command::Begin).await,
        false => Ok(()),
    }
}

/// Gives a deployment to the service, unless it waits for somebody, is over, or was given already.
pub(super) async fn begin(api: &Arc<Api>, id: &str) -> Result<(), Problem> {
    let asked = id.to_owned();
    let Some((row, hardware)) = api.database.call(move |store| store.release(&asked)).await? else { return Ok(()) };
    api.released.notify_one();
    let shared = api.clone();
    let connected = connected(api, &hardware);
    let wakes = serde_json::from_str::<Request>(&row.wishes).is_ok_and(|request| request.wake);
    let (asked_by, machines) = (row.asked_by.clone(), row.machines.clone());
    blocking(move || {
        match start_of(&row, hardware, &shared.place, Run::First { connected }) {
            Ok(start) => {
                shared.live.lock().on_start(&start);
                shared.handle.tell(Command::Start(Box::new(start)));
            }
            Err(why) => {
                shared
                    .database
                    .insist("keeping the end of a deployment", move |store| store.end(&row.id, 1, None, &why));
            }
        }
        Ok(())
    })
    .await?;
    if wakes {
        // Who asked for it was allowed to then.
        let server = Who { name: asked_by, user: None, role: Role::Admin, groups: Vec::new() };
        if let Err(problem) = wake(api, machines, &server).await {
            log::warn!("waking the machines of deployment {id}: {problem}");
        }
    }
    // Whoever wanted it stopped while it was made ready has told the service before it knew of it.
    let asked = id.to_owned();
    if api.database.call(move |store| store.is_to_stop(&asked)).await? {
        tell(api, id, Command::Stop).await?;
    }
    tell_to_begin(api, id).await
}

/// How many agents with these hardware addresses are connected.
fn connected(api: &Api, hardware: &[String]) -> u32 {
    let wanted: HashSet<&String> = hardware.iter().collect();
    let is_wanted = |here: &&Here| here.hardware.iter().any(|mac| wanted.contains(mac));
    let count = api.live.lock().machines.values().filter(is_wanted).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Gives the service a command about a deployment.
async fn tell(api: &Arc<Api>, id: &str, command: fn(DeploymentId) -> Command) -> Result<(), Problem> {
    let (handle, id) = (api.handle.clone(), parse_id(id));
    blocking(move || {
        id.into_iter().for_each(|id| handle.tell(command(id)));
        Ok(())
    })
    .await
}

/// A second person agrees to a deployment: it begins.
pub(super) async fn confirm(api: &Arc<Api>, id: &str, who: &Who) -> Result<(), Problem> {
    find(api, id).await?;
    let (asked, who) = (id.to_owned(), who.clone());
    api.database.call(move |store| store.confirm(&asked, &who)).await?;
    begin(api, id).await
}

/// Stops a deployment; one that is over is stopped already.
pub(super) async fn stop(api: &Arc<Api>, id: &str, who: &Who) -> Result<(), Problem> {
    find(api, id).await?;
    let (asked, who) = (id.to_owned(), who.clone());
    match api.database.call(move |store| store.stop(&asked, &who)).await? {
        Stopped::Released => tell(api, id, Command::Stop).await,
        Stopped::Over | Stopped::Nothing => Ok(()),
    }
}

/// The deployment with this id.
pub(super) async fn find(api: &Api, id: &str) -> Result<DeploymentRow, Problem> {
    let asked = id.to_owned();
    let mut rows = api.database.call(move |store| store.deployments(Which::One(&asked))).await?;
    rows.pop().ok_or_else(|| Problem::not_found(format!("there is no deployment {id:?}")))
}
