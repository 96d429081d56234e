//! What people and programs order, whichever way it comes.

use super::api::Api;
use super::problem::Problem;
use super::start::{Asking, image_path, resolve};
use super::store::{StoreError, Which, Who};
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

/// Keeps and starts a deployment.
pub(super) async fn deploy(api: &Arc<Api>, request: Request, key: Option<String>, who: &Who) -> Result<Made, Problem> {
    let wishes = request.wishes()?;
    let (images, name) = (api.place.images.clone(), request.image.clone());
    let image = blocking(move || resolve(&image_path(&images, &name)?)).await?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| Problem::system(format!("drawing random bytes: {error}")))?;
    let id = DeploymentId(id);
    let (row, row_key, text, who) = (request.clone(), key.clone(), id.to_string(), who.name.clone());
    let kept = api.database.call(move |store| {
        let wishes = serde_json::to_string(&row).expect("a request has only texts, numbers and lists");
        store.add_deployment(&text, &row.image, &wishes, &row.machines, row_key.as_deref(), &who)
    });
    let machines = match kept.await {
        Ok(machines) => machines,
        // The same request may have come twice at once.
        Err(error @ StoreError::Database { .. }) => match known(api, key).await? {
            Some(id) => return Ok(Made { id, new: false }),
            None => return Err(error.into()),
        },
        Err(error) => return Err(error.into()),
    };
    let asking = Asking { id, name: request.image, image, wishes, machines };
    let shared = api.clone();
    blocking(move || {
        match asking.start(&shared.place, false) {
            Ok(start) => {
                shared.live.lock().on_start(&start);
                shared.handle.tell(Command::Start(Box::new(start)));
            }
            Err(why) => {
                let id = id.to_string();
                shared.database.post("keeping the end of a deployment", move |store| store.end(&id, 1, None, &why));
            }
        }
        Ok(())
    })
    .await?;
    Ok(Made { id: id.to_string(), new: true })
}

/// Stops a deployment; one that is over is stopped already.
pub(super) async fn stop(api: &Arc<Api>, id: &str, who: &Who) -> Result<(), Problem> {
    let (asked, by) = (id.to_owned(), who.name.clone());
    if api.database.call(move |store| store.stop(&asked, &by)).await? {
        let (handle, id) = (api.handle.clone(), id.to_owned());
        return blocking(move || {
            super::parse_id(&id).into_iter().for_each(|id| handle.tell(Command::Stop(id)));
            Ok(())
        })
        .await;
    }
    let asked = id.to_owned();
    match api.database.call(move |store| store.deployments(Which::One(&asked))).await?.is_empty() {
        true => Err(Problem::not_found(format!("there is no deployment {id:?}"))),
        false => Ok(()),
    }
}
