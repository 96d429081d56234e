//! The API: `/v1`, JSON, a bearer token on everything but `/v1/health`. `docs/API.md` describes it.

use super::database::Database;
use super::guard::{guard, json as read_json};
use super::http::Limits;
use super::live::Live;
use super::problem::Problem;
use super::role::{Role, hash_of};
use super::start::{Asking, Place, image_path, resolve};
use super::store::{DeploymentRow, StoreError, Which};
use super::stream::{self, Bulletin};
use super::wishes::Request;
use crate::progress::node_json;
use crate::service::{Command, Handle};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use slidecast_proto::units::DeploymentId;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 200;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) database: Database,
    pub(super) live: Live,
    pub(super) handle: Handle,
    pub(super) place: Place,
    pub(super) bulletin: Bulletin,
}

type Shared = State<Arc<Api>>;
type Answer = Result<Response, Problem>;

pub(super) fn router(api: Arc<Api>, limits: Limits) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/machines", get(machines))
        .route("/v1/machines/{id}/accept", post(accept))
        .route("/v1/images", get(images))
        .route("/v1/deployments", get(deployments).post(deploy))
        .route("/v1/deployments/{id}", get(deployment))
        .route("/v1/deployments/{id}/stop", post(stop))
        .route("/v1/events", get(events))
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "this path has no such method")
        })
        .layer(axum::middleware::from_fn_with_state(limits, guard))
        .with_state(api)
}

impl Api {
    /// Refuses a request whose token has a lower role than this one.
    async fn authorize(&self, headers: &HeaderMap, least: Role) -> Result<(), Problem> {
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let unknown = || {
            let detail = "a valid token is needed: Authorization: Bearer TOKEN (slidecast token new makes one)";
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
        };
        let hash = hash_of(token.ok_or_else(unknown)?.trim());
        let role = self.database.call(move |store| store.role_of(&hash)).await?.ok_or_else(unknown)?;
        if role < least {
            let detail = format!("this needs the role {least}, and the token has the role {role}");
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
        }
        Ok(())
    }
}

async fn health() -> Response {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })).into_response()
}

async fn machines(State(api): Shared, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let machines = api.database.call(|store| store.machines()).await?;
    let connected: HashSet<String> = api.live.lock().machines.values().flatten().cloned().collect();
    let all = machines.into_iter().map(|machine| {
        let is_connected = machine.hardware.iter().any(|mac| connected.contains(mac));
        let mut object = json!(machine);
        object["connected"] = is_connected.into();
        object
    });
    Ok(Json(json!({ "machines": all.collect::<Vec<_>>() })).into_response())
}

async fn accept(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Admin).await?;
    let id: i64 = id.parse().map_err(|_| Problem::not_found(format!("there is no machine {id:?}")))?;
    api.database.call(move |store| store.accept(id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn images(State(api): Shared, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let folder = api.place.images.clone();
    let listed = blocking(move || {
        let entries = std::fs::read_dir(&folder);
        let entries = entries.map_err(|error| {
            let detail = format!("reading the image folder {}: {error}", folder.display());
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "images", detail)
        })?;
        let mut images: Vec<(String, u64)> = entries
            .flatten()
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?)))
            .filter(|(name, meta)| meta.is_file() && name.ends_with(".slide") && !name.starts_with('.'))
            .map(|(name, meta)| (name, meta.len()))
            .collect();
        images.sort();
        Ok(images)
    });
    let images = listed.await?.into_iter().map(|(name, bytes)| json!({ "name": name, "file_bytes": bytes }));
    Ok(Json(json!({ "images": images.collect::<Vec<_>>() })).into_response())
}

/// Does something that waits for a disk on another thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("the request ended early: {error}")))
    })
}

async fn deploy(State(api): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    api.authorize(&headers, Role::Operator).await?;
    let key = idempotency_key(&headers)?;
    if let Some(known) = known(&api, key.clone()).await? {
        return Ok(location(StatusCode::OK, &known));
    }
    let request: Request = read_json(&body)?;
    let wishes = request.wishes()?;
    let (images, name) = (api.place.images.clone(), request.image.clone());
    let image = blocking(move || resolve(&image_path(&images, &name)?)).await?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "system", format!("drawing random bytes: {error}"))
    })?;
    let id = DeploymentId(id);
    let (row, row_key, text) = (request.clone(), key.clone(), id.to_string());
    let kept = api.database.call(move |store| {
        let wishes = serde_json::to_string(&row).expect("a request has only texts, numbers and lists");
        store.add_deployment(&text, &row.image, &wishes, &row.machines, row_key.as_deref())
    });
    let machines = match kept.await {
        Ok(machines) => machines,
        // The same request may have come twice at once.
        Err(error @ StoreError::Database { .. }) => match known(&api, key).await? {
            Some(known) => return Ok(location(StatusCode::OK, &known)),
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
    Ok(location(StatusCode::CREATED, &id.to_string()))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_KEY => Ok(Some(key.to_owned())),
        _ => Err(Problem::bad(format!("Idempotency-Key: expected 1 to {MAX_KEY} visible characters"))),
    }
}

/// The deployment that an earlier request with this key has made.
async fn known(api: &Api, key: Option<String>) -> Result<Option<String>, StoreError> {
    let Some(key) = key else { return Ok(None) };
    api.database.call(move |store| store.by_idempotency_key(&key)).await
}

fn location(status: StatusCode, id: &str) -> Response {
    let path = format!("/v1/deployments/{id}");
    (status, [(header::LOCATION, path)], Json(json!({ "id": id }))).into_response()
}

async fn deployments(State(api): Shared, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let rows = api.database.call(|store| store.deployments(Which::All)).await?;
    let all: Vec<Value> = rows.into_iter().map(|row| summary(&row)).collect();
    Ok(Json(json!({ "deployments": all })).into_response())
}

fn summary(row: &DeploymentRow) -> Value {
    let state = match row.state.as_str() {
        "active" if row.started => "running",
        "active" => "waiting",
        _ => "over",
    };
    json!({
        "id": row.id,
        "image": row.image,
        "state": state,
        "stop": row.stop,
        "machines": row.machines,
        "exit_code": row.exit_code,
        "detail": row.detail,
        "created": row.created,
        "ended": row.ended,
    })
}

async fn deployment(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let asked = id.clone();
    let mut rows = api.database.call(move |store| store.deployments(Which::One(&asked))).await?;
    let row = rows.pop().ok_or_else(|| Problem::not_found(format!("there is no deployment {id:?}")))?;
    let mut object = summary(&row);
    match &row.report {
        Some(Value::Object(report)) => {
            for (key, value) in report {
                object[key] = value.clone();
            }
        }
        _ => {
            let now = api.live.lock();
            let nodes = now.snapshots.get(&row.id).map(|snapshot| snapshot.nodes.iter().map(node_json).collect());
            object["nodes"] = Value::Array(nodes.unwrap_or_default());
        }
    }
    Ok(Json(object).into_response())
}

async fn stop(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Operator).await?;
    let asked = id.clone();
    let rows = api.database.call(move |store| store.deployments(Which::One(&asked))).await?;
    if rows.is_empty() {
        return Err(Problem::not_found(format!("there is no deployment {id:?}")));
    }
    let asked = id.clone();
    // A deployment that is over is stopped already.
    if api.database.call(move |store| store.stop(&asked)).await? {
        let (handle, id) = (api.handle.clone(), rows[0].id.clone());
        blocking(move || {
            super::parse_id(&id).into_iter().for_each(|id| handle.tell(Command::Stop(id)));
            Ok(())
        })
        .await?;
    }
    Ok(StatusCode::ACCEPTED.into_response())
}

/// As a list if that is asked for, else as a stream that goes on.
async fn events(State(api): Shared, Query(query): Query<HashMap<String, String>>, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let number = |name: &str, text: &str| {
        text.parse::<i64>().map_err(|_| Problem::bad(format!("{name}: expected the number of an event")))
    };
    let after = query.get("after").map(|after| number("after", after)).transpose()?;
    let accepts = |kind: &str| {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        accept.is_some_and(|accept| accept.contains(kind))
    };
    if !accepts("text/event-stream") && (after.is_some() || accepts("application/json")) {
        let events = api.database.call(move |store| store.events(after.unwrap_or_default())).await?;
        return Ok(Json(json!({ "events": events })).into_response());
    }
    let last = headers.get("last-event-id").map(|id| number("Last-Event-ID", id.to_str().unwrap_or_default()));
    // A browser that calls again says what it has had last; its address is still that of the first call.
    Ok(stream::answer(api, last.transpose()?.or(after)))
}
