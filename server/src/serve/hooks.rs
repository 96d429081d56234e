//! The webhooks in the API: made, listed and removed by administrators.

use super::api::Shared;
use super::guard::json as read_json;
use super::problem::Problem;
use super::role::{Role, secret};
use super::store::Who;
use super::webhook;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::json;

/// The most kinds that one webhook names, and the longest name of one.
const MAX_KINDS: usize = 64;
const LONGEST_URL: usize = 2000;

/// The body of `POST /v1/webhooks`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    pub(super) url: String,
    #[serde(default)]
    pub(super) kinds: Vec<String>,
}

/// Keeps a webhook; gives its number and its secret, which is not shown again.
pub(super) async fn make(api: &super::api::Api, wanted: Wanted, who: &Who) -> Result<(i64, String), Problem> {
    if wanted.url.len() > LONGEST_URL {
        return Err(Problem::bad(format!("url: expected at most {LONGEST_URL} characters")));
    }
    webhook::parse(&wanted.url).map_err(|why| Problem::bad(format!("url: {why}")))?;
    let good = |kind: &String| {
        !kind.is_empty()
            && kind.len() <= MAX_KINDS
            && kind.bytes().all(|sign| sign.is_ascii_lowercase() || sign == b'-')
    };
    if wanted.kinds.len() > MAX_KINDS || !wanted.kinds.iter().all(good) {
        return Err(Problem::bad(format!(
            "kinds: expected at most {MAX_KINDS} kinds of events, such as deployment-over"
        )));
    }
    let secret = secret().map_err(|error| Problem::system(format!("drawing random bytes: {error}")))?;
    let (kept, name) = (secret.clone(), who.name.clone());
    let id = api.database.call(move |store| store.add_webhook(&wanted.url, &wanted.kinds, &kept, &name)).await?;
    Ok((id, secret))
}

pub(super) async fn list(State(api): Shared, headers: HeaderMap) -> Result<Response, Problem> {
    api.authorize(&headers, Role::Admin).await?;
    let hooks = api.database.call(|store| store.webhooks()).await?;
    Ok(Json(json!({ "webhooks": hooks })).into_response())
}

pub(super) async fn add(State(api): Shared, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let who = api.authorize(&headers, Role::Admin).await?;
    let (id, secret) = make(&api, read_json(&body)?, &who).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "secret": secret }))).into_response())
}

pub(super) async fn remove(
    State(api): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let who = api.authorize(&headers, Role::Admin).await?;
    let missing = || Problem::not_found(format!("there is no webhook {id:?}"));
    let number: i64 = id.parse().map_err(|_| missing())?;
    match api.database.call(move |store| store.remove_webhook(number, &who.name)).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(missing()),
    }
}
