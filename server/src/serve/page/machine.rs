//! One machine: what it is, and what has happened to it.

use super::machines::{disks, rows};
use super::words::{exact, kind, moment};
use super::{Answer, Shared, done, page as whole, visitor};
use crate::serve::fields::Fields;
use crate::serve::groups::{MAX_NOTE, NewBoard, note as read_note};
use crate::serve::power;
use crate::serve::problem::Problem;
use crate::serve::role::Role;
use crate::serve::store::{About, Board, EventRow, Store};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use maud::{Markup, html};

pub(super) async fn page(State(api): Shared, Path(id): Path<String>, uri: Uri, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Viewer).await?;
    let number = id.parse().unwrap_or(-1);
    let row = rows(&api).await?.into_iter().find(|row| row.machine.id == number);
    let row =
        row.ok_or_else(|| Problem::not_found(format!("There is no machine {id:?}; it may have been forgotten.")))?;
    let job = move |store: &mut Store| Ok((store.history(About::Machine(number))?, store.board(number)?));
    let (history, board) = api.database.call(job).await?;
    let machine = &row.machine;
    let body = html! {
        div.head {
            h1 { (row.title()) }
            p id="state" role="status" data-live { (row.dot()) }
        }
        div id="conflict" data-live {
            @if !row.claimants.is_empty() {
                div.alert {
                    p {
                        "Several machines are connected that say that they are this one, by their hardware addresses. No deployment begins with any of them. \
                         Switch off those that are not meant, give them another address, or unplug a network card that they pass around."
                    }
                    ul { @for here in &row.claimants { li { (here.words()) ", " span.mono { (here.hardware.join(", ")) } } } }
                }
            }
        }
        dl.facts id="facts" data-live {
            dt { "Address" } dd { span.mono { (machine.address) } " through " (machine.interface) }
            dt { "Hardware" } dd.mono { (machine.hardware.join(", ")) }
            dt { "Disks" } dd { (disks(machine)) }
            dt { "Holds" } dd {
                @match (&machine.holds, machine.holds_since) {
                    (Some(image), Some(since)) => { (image) ", written " (exact(since)) },
                    _ => "nothing that this server has written",
                }
            }
            dt { "Groups" } dd {
                @if machine.groups.is_empty() { "none" } @else { (machine.groups.join(", ")) }
            }
            @if let Some(board) = &board { dt { "Management board" } dd.mono { (board.url) } }
            @if !machine.note.is_empty() { dt { "Note" } dd { (machine.note) } }
            dt { "First seen" } dd { (exact(machine.first_seen)) }
            dt { "Last seen" } dd { (moment(machine.last_seen)) }
            @if let Some(deployment) = &machine.deployment {
                dt { "Now in" } dd { a href=(format!("/deployments/{deployment}")) { "this deployment" } }
            }
        }
        @if who.role >= Role::Operator {
            details {
                summary { "Note…" }
                form.stack method="post" action=(format!("/machines/{}/note", machine.id)) {
                    label { "What others should know of this machine"
                        textarea name="note" rows="3" maxlength=(MAX_NOTE) { (machine.note) } }
                    button type="submit" { "Keep the note" }
                }
            }
        }
        @if board.is_some() && machine.state == "accepted" && who.role >= Role::Operator { (restart_form(machine.id)) }
        @if who.role >= Role::Admin { (board_form(machine.id, board.as_ref())) }
        h2 { "What has happened" }
        (events(&history, true))
    };
    Ok(whole(&who, "/machines", &row.title(), true, body))
}

fn restart_form(id: i64) -> Markup {
    html! {
        details.stop {
            summary { "Restart from the network…" }
            form.stack method="post" action=(format!("/machines/{id}/restart")) {
                p { "Its management board cuts off whatever it does now, and has it boot from the network once." }
                button.danger type="submit" { "Restart" }
            }
        }
    }
}

fn board_form(id: i64, board: Option<&Board>) -> Markup {
    let known = |part: fn(&Board) -> &str| board.map(part).unwrap_or_default();
    html! {
        details {
            summary { "Management board…" }
            form.stack method="post" action=(format!("/machines/{id}/board")) {
                label { "Address (Redfish)" input name="url" type="url" required placeholder="https://10.0.9.7" value=(known(|board| &board.url)) autocomplete="off"; }
                label { "User" input name="user" required value=(known(|board| &board.user)) autocomplete="off"; }
                label { "Password" input name="password" type="password" required autocomplete="new-password"; }
                label { "Fingerprint of its certificate (SHA-256); empty if an authority that this server trusts has signed it"
                    input name="fingerprint" value=(known(|board| &board.fingerprint)) autocomplete="off"; }
                div.actions {
                    button type="submit" name="do" value="set" { "Keep" }
                    @if board.is_some() { button.quiet.danger type="submit" name="do" value="remove" formnovalidate { "Remove the board" } }
                }
            }
        }
    }
}

pub(super) async fn board(
    State(api): Shared,
    Path(id): Path<i64>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    let fields = Fields::read(&body);
    let text = |name: &str| fields.get(name).to_owned();
    let board = match fields.get("do") {
        "remove" => None,
        _ => {
            let (user, password) = (text("user"), fields.exact("password").to_owned());
            Some(NewBoard { url: text("url"), user, password, fingerprint: text("fingerprint") }.board()?)
        }
    };
    api.database.call(move |store| store.set_board(id, board.as_ref(), &who.name)).await?;
    Ok(done(&format!("/machines/{id}")))
}

pub(super) async fn restart(State(api): Shared, Path(id): Path<i64>, uri: Uri, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Operator).await?;
    power::restart(&api, id, &who).await?;
    Ok(done(&format!("/machines/{id}")))
}

pub(super) async fn note(State(api): Shared, Path(id): Path<i64>, uri: Uri, headers: HeaderMap, body: Bytes) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Operator).await?;
    let note = read_note(Fields::read(&body).get("note"))?;
    api.database.call(move |store| store.set_note(id, &note, &who)).await?;
    Ok(done(&format!("/machines/{id}")))
}

/// Events, the newest first; with `link`, each leads to its deployment.
pub(super) fn events(history: &[EventRow], link: bool) -> Markup {
    html! {
        ol.log id="log" data-live {
            @for event in history {
                li id=(format!("event-{}", event.id)) {
                    (exact(event.at)) " "
                    b { (kind(&event.kind)) }
                    @if !event.text.is_empty() { ": " (event.text) }
                    @if !event.who.is_empty() { " " span.faint { "by " (event.who) } }
                    @if let Some(deployment) = event.deployment.as_ref().filter(|_| link) {
                        " " a href=(format!("/deployments/{deployment}")) aria-label=(format!("deployment of event {}", event.id)) { "deployment" }
                    }
                }
            }
            @if history.is_empty() { li.faint { "Nothing yet." } }
        }
    }
}
