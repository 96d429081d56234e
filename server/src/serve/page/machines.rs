//! All machines: what each is, holds and does, and which may take part.

use super::words::{moment, size, state};
use super::{Answer, Shared, done, page as whole, visitor};
use crate::serve::api::Api;
use crate::serve::fields::Fields;
use crate::serve::live::Here;
use crate::serve::power::wake;
use crate::serve::problem::Problem;
use crate::serve::role::Role;
use crate::serve::store::{Group, Machine, StoreError};
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Uri};
use maud::{Markup, html};

/// The most rows of a page; a filter finds the others.
const MAX_ROWS: usize = 1000;

/// A machine, and whether it is connected.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) machine: Machine,
    pub(super) connected: bool,
    /// The agents that say that they are this machine, if there are several.
    pub(super) claimants: Vec<Here>,
}

impl Row {
    /// A class for the dot, and the word.
    fn state(&self) -> (&'static str, &'static str) {
        if !self.claimants.is_empty() {
            return ("bad", "held: claimed by several");
        }
        match (self.machine.state.as_str(), &self.machine.deployment, self.connected) {
            ("new", _, true) => ("new", "new"),
            ("new", _, false) => ("new", "new, away"),
            (_, Some(_), true) => ("busy", "at work"),
            (_, Some(_), false) => ("wait", "expected"),
            (_, None, true) => ("good", "ready"),
            (_, None, false) => ("away", "away"),
        }
    }

    pub(super) fn dot(&self) -> Markup {
        let (kind, word) = self.state();
        state(kind, word)
    }

    pub(super) fn title(&self) -> String {
        match self.machine.name.as_str() {
            "" => format!("machine {}", self.machine.id),
            name => name.to_owned(),
        }
    }

    /// Whether all words of the filter are found in what is known of it.
    fn fits(&self, filter: &str) -> bool {
        let machine = &self.machine;
        let text = format!(
            "{} {} {} {} {} {} {} {} {}",
            self.title(),
            machine.address,
            machine.interface,
            machine.hardware.join(" "),
            machine.disks,
            machine.holds.as_deref().unwrap_or_default(),
            machine.groups.join(" "),
            machine.note,
            self.state().1
        );
        let text = text.to_lowercase();
        filter.to_lowercase().split_whitespace().all(|word| text.contains(word))
    }
}

/// All machines, by name and number.
pub(super) async fn rows(api: &Api) -> Result<Vec<Row>, StoreError> {
    let machines = api.database.call(|store| store.machines()).await?;
    let mut rows: Vec<Row> = {
        let now = api.live.lock();
        let connected = now.connected();
        let row = |machine: Machine| Row {
            connected: machine.hardware.iter().any(|mac| connected.contains(mac)),
            claimants: now.claimants(&machine.hardware),
            machine,
        };
        machines.into_iter().map(row).collect()
    };
    rows.sort_by(|a, b| (&a.machine.name, a.machine.id).cmp(&(&b.machine.name, b.machine.id)));
    Ok(rows)
}

pub(super) async fn page(State(api): Shared, uri: Uri, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Viewer).await?;
    let fields = Fields::read(query.unwrap_or_default().as_bytes());
    let filter = fields.get("filter");
    let all = rows(&api).await?;
    let new = all.iter().filter(|row| row.machine.state == "new").count();
    let shown: Vec<&Row> = all.iter().filter(|row| row.fits(filter)).collect();
    let admin = who.role >= Role::Admin;
    let groups = if admin { api.database.call(|store| store.groups()).await? } else { Vec::new() };
    let body = html! {
        div.head {
            h1 { "Machines" }
            p.count id="count" role="status" data-live {
                (all.len()) " known, " (all.iter().filter(|row| row.connected).count()) " connected"
                @if new > 0 { ", " b { (new) " new" } }
            }
        }
        form.filter method="get" role="search" {
            label.sr for="filter" { "Filter" }
            input id="filter" type="search" name="filter" value=(filter) placeholder="Filter: name, group, address, disk, image, state" data-filter;
            button.quiet type="submit" { "Filter" }
            span.key aria-hidden="true" { "/" }
        }
        form method="post" action="/machines" {
            input type="hidden" name="filter" value=(filter);
            div.scroll tabindex="0" role="region" aria-label="Machines" {
                (table(&shown))
            }
            @if shown.len() > MAX_ROWS { p.hint { "Only the first " (MAX_ROWS) " are shown: filter for the others." } }
            (actions(admin, who.role >= Role::Operator, new))
            @if !groups.is_empty() { (join_form(&groups)) }
        }
    };
    Ok(whole(&who, "/machines", "Machines", true, body))
}

fn table(rows: &[&Row]) -> Markup {
    html! {
        table.rows {
            thead {
                tr {
                    th scope="col" { input type="checkbox" data-all aria-label="Select all"; }
                    th scope="col" { "State" }
                    th scope="col" { "Name" }
                    th scope="col" { "Address" }
                    th scope="col" { "Disks" }
                    th scope="col" { "Holds" }
                    th scope="col" { "Last seen" }
                }
            }
            tbody id="machines" data-live {
                @for row in rows.iter().take(MAX_ROWS) {
                    @let machine = &row.machine;
                    tr id=(format!("machine-{}", machine.id)) {
                        td { input type="checkbox" name="machine" value=(machine.id) aria-label=(format!("Select {}", row.title())); }
                        td { (row.dot()) }
                        th scope="row" {
                            a href=(format!("/machines/{}", machine.id)) { (row.title()) }
                            @if !machine.groups.is_empty() { " " span.faint { (machine.groups.join(", ")) } }
                        }
                        td { span.mono { (machine.address) } " " span.faint { (machine.interface) } }
                        td { (disks(machine)) }
                        td {
                            @match (&machine.holds, machine.holds_since) {
                                (Some(image), Some(since)) => { (image) " " span.faint { (moment(since)) } },
                                _ => span.faint { "–" },
                            }
                        }
                        td { (moment(machine.last_seen)) }
                    }
                }
                @if rows.is_empty() {
                    tr id="none" { td colspan="7" {
                        "No machine fits. Machines appear here by themselves when they boot the agent; see docs/BOOT.md."
                    } }
                }
            }
        }
    }
}

/// What stands below the table.
fn actions(admin: bool, operator: bool, new: usize) -> Markup {
    html! {
        div.actions id="actions" data-live {
            @if operator {
                button type="submit" formaction="/deployments/new" formmethod="get" { "Deploy…" }
                button.quiet type="submit" name="do" value="wake" { "Wake selected" }
            }
            @if admin {
                button.quiet type="submit" name="do" value="accept" { "Accept selected" }
                @if new > 0 {
                    button.quiet type="submit" name="do" value="accept-all" { "Accept all new that are shown (" (new) ")" }
                }
                button.quiet.danger type="submit" name="do" value="forget" { "Forget selected" }
            }
        }
    }
}

/// Puts the selected machines into a group. It is part of the form that also leads to a deployment, where `group` means all machines of one.
fn join_form(groups: &[Group]) -> Markup {
    html! {
        div.actions {
            select name="into" aria-label="Group" { @for group in groups { option value=(group.id) { (group.name) } } }
            button.quiet type="submit" name="do" value="join" { "Add selected to the group" }
        }
    }
}

/// A machine's disks in a few words.
pub(super) fn disks(machine: &Machine) -> Markup {
    let disks = machine.disks.as_array().map(Vec::as_slice).unwrap_or_default();
    html! {
        @if disks.is_empty() { span.faint { "none" } }
        @for disk in disks {
            @let text = |key: &str| disk[key].as_str().unwrap_or_default();
            div {
                span.mono { (text("path")) } " " (size(disk["bytes"].as_u64().unwrap_or_default()))
                " " span.faint { (text("model")) @if !text("serial").is_empty() { " " (text("serial")) } }
            }
        }
    }
}

pub(super) async fn act(State(api): Shared, uri: Uri, headers: HeaderMap, body: Bytes) -> Answer {
    let fields = Fields::read(&body);
    let least = if fields.get("do") == "wake" { Role::Operator } else { Role::Admin };
    let who = visitor(&api, &headers, &uri, least).await?;
    let filter = fields.get("filter");
    let chosen = match fields.get("do") {
        "accept-all" => {
            let all = rows(&api).await?;
            all.iter().filter(|row| row.machine.state == "new" && row.fits(filter)).map(|row| row.machine.id).collect()
        }
        _ => fields.numbers("machine")?,
    };
    let name = who.name.clone();
    match fields.get("do") {
        "accept" | "accept-all" => {
            api.database.call(move |store| chosen.into_iter().try_for_each(|id| store.accept(id, &name))).await?;
        }
        "forget" => {
            api.database.call(move |store| chosen.into_iter().try_for_each(|id| store.forget(id, &name))).await?
        }
        "wake" => drop(wake(&api, chosen, &who).await?),
        "join" => {
            let group = fields.word("into")?;
            api.database.call(move |store| store.set_members(group, &chosen, &[], &name)).await?;
        }
        _ => return Err(Problem::bad("do: expected accept, accept-all, forget, wake or join").into()),
    }
    let filter: String = form_urlencoded::byte_serialize(filter.as_bytes()).collect();
    Ok(done(&format!("/machines?filter={filter}")))
}
