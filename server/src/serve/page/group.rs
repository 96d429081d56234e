//! One group: its machines, and what may be done with them.

use super::machines::{Row, rows};
use super::{Answer, Shared, done, page as whole, visitor};
use crate::serve::fields::Fields;
use crate::serve::groups::group_name;
use crate::serve::power::wake;
use crate::serve::problem::Problem;
use crate::serve::role::Role;
use crate::serve::store::Group;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use maud::{Markup, html};

pub(super) async fn page(State(api): Shared, Path(id): Path<String>, uri: Uri, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Viewer).await?;
    let groups = api.database.call(|store| store.groups()).await?;
    let group = groups.into_iter().find(|group| group.id.to_string() == id);
    let group =
        group.ok_or_else(|| Problem::not_found(format!("There is no group {id:?}; it may have been removed.")))?;
    let (members, others): (Vec<Row>, Vec<Row>) =
        rows(&api).await?.into_iter().partition(|row| group.machines.contains(&row.machine.id));
    let new = members.iter().filter(|row| row.machine.state == "new").count();
    let admin = who.role >= Role::Admin;
    let body = html! {
        div.head {
            h1 { (group.name) }
            p.count id="count" role="status" data-live {
                (members.len()) @if members.len() == 1 { " machine" } @else { " machines" }
                @if group.protected { ", " b { "protected" } }
            }
        }
        form method="post" action=(format!("/groups/{}", group.id)) {
            div.scroll tabindex="0" role="region" aria-label="Machines of the group" {
                table.rows {
                    thead { tr { th scope="col" { @if admin { input type="checkbox" data-all aria-label="Select all"; } } th scope="col" { "State" } th scope="col" { "Name" } th scope="col" { "Address" } th scope="col" { "Holds" } } }
                    tbody id="machines" data-live {
                        @for row in &members { (member(row, admin)) }
                        @if members.is_empty() { tr id="none" { td.faint colspan="5" { "No machine yet." } } }
                    }
                }
            }
            div.actions id="actions" data-live {
                @if who.role >= Role::Operator && members.len() > new {
                    a.button href=(format!("/deployments/new?group={}", group.id)) { "Deploy to this group…" }
                }
                @if who.role >= Role::Operator && members.len() > new {
                    button.quiet type="submit" name="do" value="wake" { "Wake the group" }
                }
                @if admin && new > 0 {
                    button.quiet type="submit" name="do" value="accept" { "Accept all new (" (new) ")" }
                }
                @if admin && !members.is_empty() {
                    button.quiet type="submit" name="do" value="leave" { "Take selected out" }
                }
            }
        }
        @if admin { (settings(&group, &others)) }
    };
    Ok(whole(&who, "/groups", &group.name, true, body))
}

fn member(row: &Row, admin: bool) -> Markup {
    html! {
        tr id=(format!("machine-{}", row.machine.id)) {
            td { @if admin { input type="checkbox" name="machine" value=(row.machine.id) aria-label=(format!("Select {}", row.title())); } }
            td { (row.dot()) }
            th scope="row" { a href=(format!("/machines/{}", row.machine.id)) { (row.title()) } }
            td.mono { (row.machine.address) }
            td { @if let Some(image) = &row.machine.holds { (image) } @else { span.faint { "–" } } }
        }
    }
}

fn settings(group: &Group, others: &[Row]) -> Markup {
    html! {
        @if !others.is_empty() {
            details {
                summary { "Add machines…" }
                form.stack method="post" action=(format!("/groups/{}", group.id)) {
                    fieldset {
                        legend { "Machines that are not in this group" }
                        div.choices {
                            @for row in others {
                                label.check {
                                    input type="checkbox" name="machine" value=(row.machine.id);
                                    span { (row.title()) " " span.faint { (row.machine.address) } " " (row.dot()) }
                                }
                            }
                        }
                    }
                    button type="submit" name="do" value="join" { "Add selected" }
                }
            }
        }
        details {
            summary { "Name and protection…" }
            form.stack method="post" action=(format!("/groups/{}", group.id)) {
                label { "Name" input name="name" value=(group.name) required maxlength="64" autocomplete="off"; }
                label.check {
                    input type="checkbox" name="protected" value="yes" checked[group.protected];
                    span { "Protected: a deployment of its machines needs a second person" }
                }
                button type="submit" name="do" value="set" { "Save" }
            }
        }
        details.stop {
            summary { "Remove this group…" }
            form.stack method="post" action=(format!("/groups/{}", group.id)) {
                p { "Its rules go with it. Its machines stay, in no group or in others." }
                button.danger type="submit" name="do" value="remove" { "Remove the group" }
            }
        }
    }
}

pub(super) async fn change(
    State(api): Shared,
    Path(id): Path<i64>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let fields = Fields::read(&body);
    let least = if fields.get("do") == "wake" { Role::Operator } else { Role::Admin };
    let visitor = visitor(&api, &headers, &uri, least).await?;
    let who = visitor.name.clone();
    let chosen = fields.numbers("machine")?;
    match fields.get("do") {
        "join" => api.database.call(move |store| store.set_members(id, &chosen, &[], &who)).await?,
        "leave" => api.database.call(move |store| store.set_members(id, &[], &chosen, &who)).await?,
        "wake" => {
            let machines = api.database.call(move |store| store.accepted_of(id)).await?;
            wake(&api, machines, &visitor).await?;
        }
        "accept" => api.database.call(move |store| store.accept_group(id, &who)).await.map(drop)?,
        "set" => {
            let (name, protected) = (group_name(fields.get("name"))?, fields.get("protected") == "yes");
            api.database.call(move |store| store.set_group(id, Some(&name), Some(protected), &who)).await?;
        }
        "remove" => {
            api.database.call(move |store| store.remove_group(id, &who)).await?;
            return Ok(done("/groups"));
        }
        _ => return Err(Problem::bad("do: expected join, leave, accept, wake, set or remove").into()),
    }
    Ok(done(&format!("/groups/{id}")))
}
