//! What people and programs order, whichever way it comes.

use super::api::Api;
use super::parse_id;
use super::problem::Problem;
use super::start::{image_path, resolve, start_of};
use super::store::{DeploymentRow, NewDeployment, Stopped, StoreError, Which, Who};
use super::wishes::Request;
use crate::service::Command;
use axum::http::StatusCode;
use slidecast_proto::units::DeploymentId;
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
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| Problem::system(format!("drawing random bytes: {error}")))?;
    let id = DeploymentId(id).to_string();
    let (row_key, text, who) = (key.clone(), id.clone(), who.clone());
    let kept = api.database.call(move |store| {
        let wishes = serde_json::to_string(&request).expect("a request has only texts, numbers and lists");
        let key = row_key.as_deref();
        let (image, machines) = (&request.image, &request.machines);
        store.add_deployment(&NewDeployment { id: &text, image, wishes: &wishes, machines, key }, &who)
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

/// Gives a deployment to the service, unless it waits for somebody, is over, or was given already.
pub(super) async fn begin(api: &Arc<Api>, id: &str) -> Result<(), Problem> {
    let asked = id.to_owned();
    let Some((row, hardware)) = api.database.call(move |store| store.release(&asked)).await? else { return Ok(()) };
    let shared = api.clone();
    blocking(move || {
        match start_of(&row, hardware, &shared.place, false) {
            Ok(start) => {
                shared.live.lock().on_start(&start);
                shared.handle.tell(Command::Start(Box::new(start)));
            }
            Err(why) => {
                shared.database.post("keeping the end of a deployment", move |store| store.end(&row.id, 1, None, &why));
            }
        }
        Ok(())
    })
    .await?;
    // Whoever wanted it stopped while it was made ready has told the service before it knew of it.
    let asked = id.to_owned();
    if api.database.call(move |store| store.is_to_stop(&asked)).await? {
        tell_to_stop(api, id).await?;
    }
    Ok(())
}

async fn tell_to_stop(api: &Arc<Api>, id: &str) -> Result<(), Problem> {
    let (handle, id) = (api.handle.clone(), parse_id(id));
    blocking(move || {
        id.into_iter().for_each(|id| handle.tell(Command::Stop(id)));
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
        Stopped::Released => tell_to_stop(api, id).await,
        Stopped::Over | Stopped::Nothing => Ok(()),
    }
}

/// The deployment with this id.
pub(super) async fn find(api: &Api, id: &str) -> Result<DeploymentRow, Problem> {
    let asked = id.to_owned();
    let mut rows = api.database.call(move |store| store.deployments(Which::One(&asked))).await?;
    rows.pop().ok_or_else(|| Problem::not_found(format!("there is no deployment {id:?}")))
}
