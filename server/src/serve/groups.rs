//! The API of groups, of rules that accept machines, and of notes.

use super::api::{Answer, Shared, machine_number};
use super::guard::json as read_json;
use super::page::good_name;
use super::power::{restart, wake};
use super::problem::Problem;
use super::redfish;
use super::role::Role;
use super::routes::Body::{Empty, Json as Object};
use super::routes::{Route, Verb};
use super::store::Board;
use super::subnet::Subnet;
use crate::remote::parse_fingerprint;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, patch, post, put};
use serde::Deserialize;
use serde_json::json;

/// The longest address, name or password of a board, in bytes.
const LONGEST_TEXT: usize = 500;
/// The longest note, in characters.
pub(super) const MAX_NOTE: usize = 2000;

/// The rows of the table of the API.
pub(super) fn routes() -> Vec<Route> {
    use Role::{Admin, Operator, Viewer};
    use Verb::{Delete, Get, Patch, Post, Put};
    let row = Route::new;
    vec![
        row(Patch, "/v1/machines/{id}", Operator, "Write a note about a machine", patch(change_machine))
            .takes("MachineChange")
            .gives(&[(204, Empty)]),
        row(Post, "/v1/machines/{id}/wake", Operator, "Wake a machine", post(wake_machine))
            .gives(&[(202, Object("Woken"))]),
        row(
            Post,
            "/v1/machines/{id}/restart",
            Operator,
            "Restart a machine from the network, by its management board",
            post(restart_machine),
        )
        .gives(&[(202, Empty)]),
        row(Put, "/v1/machines/{id}/board", Admin, "Name the management board of a machine", put(set_board))
            .takes("BoardRequest")
            .gives(&[(204, Empty)]),
        row(Delete, "/v1/machines/{id}/board", Admin, "Forget the management board of a machine", delete(remove_board))
            .gives(&[(204, Empty)]),
        row(Post, "/v1/groups/{id}/wake", Operator, "Wake the accepted machines of a group", post(wake_group))
            .gives(&[(202, Object("Woken"))]),
        row(Get, "/v1/groups", Viewer, "All groups", get(groups)).gives(&[(200, Object("Groups"))]),
        row(Post, "/v1/groups", Admin, "Make a group", post(new_group))
            .takes("GroupRequest")
            .gives(&[(201, Object("MadeNumber"))]),
        row(Patch, "/v1/groups/{id}", Admin, "Change a group, or its machines", patch(change_group))
            .takes("GroupChange")
            .gives(&[(204, Empty)]),
        row(Delete, "/v1/groups/{id}", Admin, "Remove a group and its rules", delete(remove_group))
            .gives(&[(204, Empty)]),
        row(Post, "/v1/groups/{id}/accept", Admin, "Let all new machines of a group take part", post(accept_group))
            .gives(&[(200, Object("Accepted"))]),
        row(Get, "/v1/rules", Viewer, "Subnets from which machines are accepted by themselves", get(rules))
            .gives(&[(200, Object("Rules"))]),
        row(Post, "/v1/rules", Admin, "Accept machines that call from a subnet", post(new_rule))
            .takes("RuleRequest")
            .gives(&[(201, Object("MadeNumber"))]),
        row(Delete, "/v1/rules/{id}", Admin, "Remove a rule", delete(remove_rule)).gives(&[(204, Empty)]),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineChange {
    note: String,
}

/// The management board of a machine.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBoard {
    pub(super) url: String,
    pub(super) user: String,
    pub(super) password: String,
    #[serde(default)]
    pub(super) fingerprint: String,
}

impl NewBoard {
    /// What is kept of it, if it makes sense.
    pub(super) fn board(self) -> Result<Board, Problem> {
        redfish::check(&self.url).map_err(|why| Problem::bad(format!("url: {why}")))?;
        let fingerprint = match self.fingerprint.trim() {
            "" => String::new(),
            text => parse_fingerprint(text).map_err(|why| Problem::bad(format!("fingerprint: {why}")))?,
        };
        let texts = [&self.url, &self.user, &self.password];
        if self.user.is_empty() || self.user.contains(':') || texts.iter().any(|text| text.len() > LONGEST_TEXT) {
            let most = format!("user: expected a name without a colon, and at most {LONGEST_TEXT} characters of each");
            return Err(Problem::bad(most));
        }
        Ok(Board { url: self.url, user: self.user, password: self.password, fingerprint })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGroup {
    name: String,
    #[serde(default)]
    protected: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupChange {
    name: Option<String>,
    protected: Option<bool>,
    #[serde(default)]
    add: Vec<i64>,
    #[serde(default)]
    remove: Vec<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRule {
    subnet: String,
    group: Option<i64>,
}

/// A name for a group, if it is one.
pub(super) fn group_name(name: &str) -> Result<String, Problem> {
    let name = name.trim();
    match good_name(name) {
        true => Ok(name.to_owned()),
        false => Err(Problem::bad("name: expected 1 to 64 characters, none of them a control character")),
    }
}

/// A note, if it is not too long.
pub(super) fn note(text: &str) -> Result<String, Problem> {
    match text.chars().count() <= MAX_NOTE {
        true => Ok(text.trim().to_owned()),
        false => Err(Problem::bad(format!("note: expected at most {MAX_NOTE} characters"))),
    }
}

/// A subnet, if it is one.
pub(super) fn subnet(text: &str) -> Result<Subnet, Problem> {
    text.parse().map_err(|error| Problem::bad(format!("subnet: {error}")))
}

fn number(what: &str, id: &str) -> Result<i64, Problem> {
    id.parse().map_err(|_| Problem::not_found(format!("there is no {what} {id:?}")))
}

fn made(path: &str, id: i64) -> Response {
    (StatusCode::CREATED, [(header::LOCATION, format!("{path}/{id}"))], Json(json!({ "id": id }))).into_response()
}

async fn change_machine(State(api): Shared, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let who = api.authorize(&headers, Role::Operator).await?;
    let (id, change) = (machine_number(&id)?, read_json::<MachineChange>(&body)?);
    let note = note(&change.note)?;
    api.database.call(move |store| store.set_note(id, &note, &who)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn wake_machine(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Operator).await?;
    let called = wake(&api, vec![machine_number(&id)?], &who).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "called": called }))).into_response())
}

async fn restart_machine(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Operator).await?;
    restart(&api, machine_number(&id)?, &who).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn set_board(State(api): Shared, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let who = api.authorize(&headers, Role::Admin).await?;
    let (id, board) = (machine_number(&id)?, read_json::<NewBoard>(&body)?.board()?);
    api.database.call(move |store| store.set_board(id, Some(&board), &who.name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn remove_board(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Admin).await?;
    let id = machine_number(&id)?;
    api.database.call(move |store| store.set_board(id, None, &who.name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn wake_group(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Operator).await?;
    let id = number("group", &id)?;
    let called = wake(&api, api.database.call(move |store| store.accepted_of(id)).await?, &who).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "called": called }))).into_response())
}

async fn groups(State(api): Shared, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let groups = api.database.call(|store| store.groups()).await?;
    Ok(Json(json!({ "groups": groups })).into_response())
}

async fn new_group(State(api): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let who = api.authorize(&headers, Role::Admin).await?;
    let group: NewGroup = read_json(&body)?;
    let name = group_name(&group.name)?;
    let id = api.database.call(move |store| store.add_group(&name, group.protected, &who.name)).await?;
    Ok(made("/v1/groups", id))
}

async fn change_group(State(api): Shared, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let who = api.authorize(&headers, Role::Admin).await?;
    let (id, change) = (number("group", &id)?, read_json::<GroupChange>(&body)?);
    let name = change.name.as_deref().map(group_name).transpose()?;
    api.database
        .call(move |store| {
            if name.is_some() || change.protected.is_some() {
                store.set_group(id, name.as_deref(), change.protected, &who.name)?;
            }
            store.set_members(id, &change.add, &change.remove, &who.name)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn remove_group(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Admin).await?;
    let id = number("group", &id)?;
    api.database.call(move |store| store.remove_group(id, &who.name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn accept_group(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Admin).await?;
    let id = number("group", &id)?;
    let accepted = api.database.call(move |store| store.accept_group(id, &who.name)).await?;
    Ok(Json(json!({ "accepted": accepted })).into_response())
}

async fn rules(State(api): Shared, headers: HeaderMap) -> Answer {
    api.authorize(&headers, Role::Viewer).await?;
    let rules = api.database.call(|store| store.rules()).await?.into_iter();
    let rules =
        rules.map(|rule| json!({ "id": rule.id, "subnet": rule.subnet, "group": rule.group.map(|(id, _)| id) }));
    Ok(Json(json!({ "rules": rules.collect::<Vec<_>>() })).into_response())
}

async fn new_rule(State(api): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let who = api.authorize(&headers, Role::Admin).await?;
    let rule: NewRule = read_json(&body)?;
    let subnet = subnet(&rule.subnet)?;
    let id = api.database.call(move |store| store.add_rule(subnet, rule.group, &who.name)).await?;
    Ok(made("/v1/rules", id))
}

async fn remove_rule(State(api): Shared, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let who = api.authorize(&headers, Role::Admin).await?;
    let id = number("rule", &id)?;
    api.database.call(move |store| store.remove_rule(id, &who.name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
