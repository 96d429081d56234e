//! All deployments: what runs, what waits, what is over.

use super::words::{moment, state};
use super::{Answer, Shared, page as whole, visitor};
use crate::serve::api::Api;
use crate::serve::role::Role;
use crate::serve::store::{DeploymentRow, Which};
use crate::serve::waiting::standing;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use maud::{Markup, html};

/// The most that are shown.
const MAX_ROWS: usize = 200;

pub(super) async fn page(State(api): Shared, uri: Uri, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Viewer).await?;
    let rows = api.database.call(|store| store.deployments(Which::All)).await?;
    let (active, over): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.state == "active");
    let body = html! {
        div.head {
            h1 { "Deployments" }
            @if who.role >= Role::Operator { a.button href="/deployments/new" { "New deployment…" } }
        }
        h2 { "Now" }
        (table(&api, "active", &active))
        h2 { "Over" }
        (table(&api, "over", &over))
    };
    Ok(whole(&who, "/deployments", "Deployments", true, body))
}

fn table(api: &Api, id: &str, rows: &[DeploymentRow]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(format!("Deployments, {id}")) {
            table.rows {
                thead { tr { th scope="col" { "State" } th scope="col" { "Image" } th scope="col" { "Machines" } th scope="col" { "Ordered" } th scope="col" { "Ended" } } }
                tbody id=(id) data-live {
                    @for row in rows.iter().take(MAX_ROWS) {
                        tr id=(format!("deployment-{}", row.id)) {
                            @let (word, why) = standing(api, row);
                            td { (row_state(row, word)) }
                            th scope="row" {
                                a href=(format!("/deployments/{}", row.id)) { (row.image) }
                                @if row.waves > 1 { " " span.faint { "wave " (row.wave) " of " (row.waves) } }
                                @if !why.is_empty() { " " span.faint { (why) } }
                            }
                            td.number { (row.machines.len()) }
                            td { (moment(row.created)) }
                            td { @if let Some(ended) = row.ended { (moment(ended)) } @else { span.faint { "–" } } }
                        }
                    }
                    @if rows.is_empty() { tr id=(format!("no-{id}")) { td.faint colspan="5" { "None." } } }
                }
            }
        }
    }
}

/// The state of a deployment, and how it ended.
pub(super) fn row_state(row: &DeploymentRow, word: &str) -> Markup {
    match (word, row.exit_code) {
        (word, _) if row.state == "active" && row.stop => state("wait", &format!("{word}, stopping")),
        ("unconfirmed", _) => state("new", "needs a second person"),
        ("scheduled" | "queued", _) => state("wait", word),
        ("running", _) => state("busy", "running"),
        ("waiting", _) => state("wait", "waiting"),
        (_, Some(0)) => state("good", "done"),
        (_, Some(1)) => state("bad", "not started"),
        (_, _) if row.stop => state("away", "stopped"),
        _ => state("bad", "some failed"),
    }
}
