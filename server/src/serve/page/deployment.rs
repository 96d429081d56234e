//! One deployment, while it runs and afterwards.

use super::chain::{Node, chains};
use super::deployments::row_state;
use super::machine::events;
use super::machines::rows;
use super::words::{advice, clock, size};
use super::{Answer, Shared, done, page as whole, visitor};
use crate::serve::commands;
use crate::serve::fields::Fields;
use crate::serve::problem::Problem;
use crate::serve::role::Role;
use crate::serve::store::{About, DeploymentRow, LeftOut, Who};
use crate::serve::waiting::standing;
use crate::view::{Facts, Snapshot};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use maud::{Markup, html};
use std::sync::Arc;

/// What is shown of a deployment, from its snapshot or from its report.
#[derive(Debug, Default)]
struct View {
    nodes: Vec<Node>,
    /// The card and the numbers of its nodes, the head first.
    chains: Vec<(String, Vec<u64>)>,
    seconds: Option<f64>,
    egress: u64,
    stored: u64,
    raw: u64,
}

impl View {
    fn of(row: &DeploymentRow, now: Option<(Box<Snapshot>, Option<Arc<Facts>>)>) -> Self {
        if let Some(report) = &row.report {
            let list = |key: &str| report[key].as_array().map(Vec::as_slice).unwrap_or_default();
            let number = |key: &str| report[key].as_u64().unwrap_or_default();
            return Self {
                nodes: list("nodes").iter().map(|node| Node::of_report(node, number("raw_bytes"))).collect(),
                chains: list("chains").iter().map(super::chain::of_report).collect(),
                seconds: report["seconds"].as_f64().filter(|seconds| *seconds > 0.0),
                egress: number("egress_bytes"),
                stored: number("stored_bytes"),
                raw: number("raw_bytes"),
            };
        }
        let Some((snapshot, facts)) = now else { return Self::default() };
        let blocks = facts.as_ref().map_or(0, |facts| facts.blocks);
        Self {
            nodes: snapshot.nodes.iter().map(|node| Node::of_view(node, blocks)).collect(),
            chains: super::chain::of_snapshot(&snapshot),
            seconds: snapshot.ran.map(|ran| ran.as_secs_f64()),
            egress: snapshot.egress_bytes,
            stored: facts.as_ref().map_or(0, |facts| facts.stored_bytes),
            raw: facts.as_ref().map_or(0, |facts| facts.raw_bytes),
        }
    }

    fn count(&self, state: &str) -> usize {
        self.nodes.iter().filter(|node| node.state == state).count()
    }
}

pub(super) async fn page(State(api): Shared, Path(id): Path<String>, uri: Uri, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Viewer).await?;
    let row = commands::find(&api, &id).await?;
    let history = api.database.call(move |store| store.history(About::Deployment(&id))).await?;
    let now = {
        let live = api.live.lock();
        live.snapshots.get(&row.id).map(|snapshot| (snapshot.clone(), live.facts.get(&row.id).cloned()))
    };
    let view = View::of(&row, now);
    let (word, why) = standing(&api, &row);
    let away: Vec<_> = match word {
        "waiting" => {
            let rows = rows(&api).await?.into_iter();
            rows.filter(|each| row.machines.contains(&each.machine.id) && !each.connected)
                .map(|each| each.title())
                .collect()
        }
        _ => Vec::new(),
    };
    let body = html! {
        div.head {
            h1 { (row.image) @if row.waves > 1 { " " span.faint { "wave " (row.wave) " of " (row.waves) } } }
            p id="state" role="status" data-live {
                (row_state(&row, word)) " " (view.count("done") + view.count("written")) " of " (row.machines.len()) " done"
                @if view.count("failed") > 0 { ", " b.bad { (view.count("failed")) " failed" } }
            }
        }
        div id="figures" data-live { (figures(&row, &view)) }
        div id="chains" data-live {
            @if !row.detail.is_empty() { p.alert { (row.detail) } }
            @if !why.is_empty() { p.notice { (why) } }
            @if !row.left_out.is_empty() {
                p.notice { "It began without: " (row.left_out.iter().map(LeftOut::words).collect::<Vec<_>>().join(", ")) }
            }
            @if !away.is_empty() { p.notice { "Waiting for: " (away.join(", ")) } }
            (chains(&view.chains, &view.nodes))
        }
        div id="failures" data-live { (failures(&view)) }
        @if row.word() == "unconfirmed" { (confirm_form(&row, &who)) }
        @if matches!(word, "scheduled" | "waiting") && who.role >= Role::Operator { (hurry_form(&row, word)) }
        @if row.state == "over" && row.failed.is_some_and(|failed| failed > 0) && who.role >= Role::Operator {
            (again_form(&row))
        }
        @if row.state == "active" && who.role >= Role::Operator { (stop_form(&row)) }
        h2 { "Log" }
        (events(&history, false))
    };
    Ok(whole(&who, "/deployments", &row.image, row.state == "active", body))
}

/// The numbers: what was sent against what was written is the point of a chain.
fn figures(row: &DeploymentRow, view: &View) -> Markup {
    let written: u64 = view.nodes.iter().map(|node| node.written).sum();
    let left = view.nodes.iter().filter_map(|node| node.left).max();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds for people")]
    let ran = view.seconds.map(|seconds| seconds.max(0.0) as u64);
    let rate = view.nodes.iter().map(|node| node.rate).fold(0.0, f64::max);
    html! {
        dl.figures {
            div { dt { "Time" } dd { @if let Some(ran) = ran { (clock(ran)) } @else { "–" } } }
            div { dt { "Left" } dd { @if let Some(left) = left { "about " (clock(left)) } @else { "–" } } }
            div { dt { "Rate" } dd { @if rate > 0.0 { (format!("{:.1}", rate / 1e6)) " MB/s" } @else { "–" } } }
            div { dt { "Sent by the server" } dd { (size(view.egress)) } }
            div { dt { "Written by all" } dd { (size(written)) } }
            div { dt { "Image, packed" } dd { (size(view.stored)) } }
            div { dt { "Image, on each disk" } dd { (size(view.raw)) } }
            div { dt { "Machines" } dd { (row.machines.len()) } }
        }
    }
}

fn failures(view: &View) -> Markup {
    let failed: Vec<_> = view.nodes.iter().filter(|node| matches!(node.state.as_str(), "failed" | "refused")).collect();
    html! {
        @if !failed.is_empty() {
            h2 { "What failed" }
            ul.failures {
                @for node in failed {
                    @let (who, what) = advice(&node.reason);
                    li {
                        b { (node.title()) } " – " (node.reason)
                        @if !node.detail.is_empty() { ": " (node.detail) }
                        p { b { (who) ":" } " " (what) "." }
                    }
                }
            }
        }
    }
}

/// What the second person sees, and others.
fn confirm_form(row: &DeploymentRow, who: &Who) -> Markup {
    html! {
        div.notice {
            p { (row.asked_by) " asked for this. A machine of it is in a protected group: nothing begins before another operator or administrator agrees." }
            @if who.role >= Role::Operator && who.name != row.asked_by {
                form.stack method="post" action=(format!("/deployments/{}/confirm", row.id)) {
                    p { b { "Everything on the disks of " (row.machines.len()) @if row.machines.len() == 1 { " machine" } @else { " machines" } " is lost." } }
                    label { "How many machines are overwritten? Type the number."
                        input name="count" inputmode="numeric" autocomplete="off" required; }
                    button.danger type="submit" { "Agree and start" }
                }
            }
        }
    }
}

pub(super) async fn confirm(
    State(api): Shared,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Operator).await?;
    let row = commands::find(&api, &id).await?;
    if Fields::read(&body).get("count") != row.machines.len().to_string() {
        return Err(Problem::bad("Nothing was started: this is not the number of machines.").into());
    }
    commands::confirm(&api, &id, &who).await?;
    Ok(done(&format!("/deployments/{id}")))
}

/// A button for those that do not want to wait.
fn hurry_form(row: &DeploymentRow, word: &str) -> Markup {
    html! {
        form.actions method="post" action=(format!("/deployments/{}/start", row.id)) {
            button.quiet type="submit" {
                @if word == "scheduled" { "Begin now instead" } @else { "Begin with the machines that are ready" }
            }
        }
    }
}

/// A button for machines that did not get the image.
fn again_form(row: &DeploymentRow) -> Markup {
    let failed = row.failed.unwrap_or_default();
    html! {
        form.stack method="post" action=(format!("/deployments/{}/again", row.id)) {
            p { (failed) @if failed == 1 { " machine" } @else { " machines" } " did not get the image. Machines take only what they lack." }
            button type="submit" { "Again for those that failed" }
        }
    }
}

pub(super) async fn hurry(State(api): Shared, Path(id): Path<String>, uri: Uri, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Operator).await?;
    commands::hurry(&api, &id, &who).await?;
    Ok(done(&format!("/deployments/{id}")))
}

pub(super) async fn again(State(api): Shared, Path(id): Path<String>, uri: Uri, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Operator).await?;
    let made = commands::again(&api, &id, None, &who).await?;
    Ok(done(&format!("/deployments/{}", made.id)))
}

fn stop_form(row: &DeploymentRow) -> Markup {
    html! {
        details.stop {
            summary { "Stop this deployment…" }
            form.stack method="post" action=(format!("/deployments/{}/stop", row.id)) {
                p { "Machines that are being written do not boot afterwards; another deployment makes them whole." }
                label { "Type the word stop" input name="word" autocomplete="off" required pattern="stop"; }
                button.danger type="submit" { "Stop" }
            }
        }
    }
}

pub(super) async fn stop(
    State(api): Shared,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Operator).await?;
    if Fields::read(&body).get("word") != "stop" {
        return Err(Problem::bad("Nothing was stopped: the word stop was not typed.").into());
    }
    commands::stop(&api, &id, &who).await?;
    Ok(done(&format!("/deployments/{id}")))
}
