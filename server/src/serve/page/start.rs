//! Starting a deployment: choose, see what is lost, type the count.

use super::machines::{Row, disks, rows};
use super::words::size;
use super::{Answer, Shared, done, page as whole, visitor};
use crate::serve::api::Api;
use crate::serve::commands;
use crate::serve::fields::Fields;
use crate::serve::images::list;
use crate::serve::problem::Problem;
use crate::serve::role::{Role, secret};
use crate::serve::starting::{StartRequest, in_zone, own_zone};
use crate::serve::store::Who;
use crate::serve::waves::Waves;
use crate::serve::wishes::Request;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use maud::{Markup, html};
use serde_json::{Value, json};
use slidecast_proto::reason::{Free, Then, Verify};
use std::sync::Arc;

/// Wishes of which each has a few words to choose from.
const CHOICES: [(&str, &str, &[&str], &str); 3] = [
    ("verify", "Read back", Verify::WORDS, "full"),
    ("free", "Space that the image says nothing of", Free::WORDS, "keep"),
    ("then", "Afterwards", Then::WORDS, "hold"),
];

pub(super) async fn choose(State(api): Shared, uri: Uri, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Operator).await?;
    let fields = Fields::read(query.unwrap_or_default().as_bytes());
    let mut chosen = fields.numbers("machine")?;
    if let [group] = fields.numbers("group")?[..] {
        let groups = api.database.call(|store| store.groups()).await?;
        chosen.extend(groups.into_iter().filter(|each| each.id == group).flat_map(|each| each.machines));
    }
    let images = list(&api).await?;
    let machines = rows(&api).await?;
    let may = |row: &&Row| row.machine.state == "accepted" && row.machine.deployment.is_none();
    let (may, not): (Vec<&Row>, Vec<&Row>) = machines.iter().partition(may);
    let left_out: Vec<String> =
        not.iter().filter(|row| chosen.contains(&row.machine.id)).map(|row| row.title()).collect();
    let body = html! {
        div.head { h1 { "New deployment" } p.count { "Step 1 of 2: choose" } }
        @if !left_out.is_empty() {
            p.alert role="alert" { "Left out, because they are not accepted or in a deployment: " (left_out.join(", ")) "." }
        }
        form.stack method="get" action="/deployments/confirm" {
            label { "Image"
                select name="image" required {
                    @for image in images.iter().filter(|image| image.layers.is_ok()) {
                        option value=(image.name) selected[image.name == fields.get("image")] { (image.name) }
                    }
                }
            }
            fieldset {
                legend { "Machines" }
                @if may.is_empty() { p { "No machine is accepted and free. " a href="/machines" { "Machines" } } }
                label.check { input type="checkbox" data-all; span { "all" } }
                div.choices {
                    @for row in &may {
                        label.check {
                            input type="checkbox" name="machine" value=(row.machine.id) checked[chosen.contains(&row.machine.id)];
                            span { (row.title()) " " span.faint { (row.machine.address) } " " (row.dot()) }
                        }
                    }
                }
            }
            (beginning())
            (options())
            button type="submit" { "Show what is lost" }
        }
    };
    Ok(whole(&who, "/deployments", "New deployment", false, body))
}

/// When it begins.
fn beginning() -> Markup {
    html! {
        fieldset {
            legend { "Begin" }
            label.check { input type="radio" name="when" value="ready" checked; span { "when the machines are ready" } }
            label.check { input type="radio" name="when" value="now"; span { "now, with those that are connected" } }
            label.check { input type="radio" name="when" value="at"; span { "at a time:" } }
            div.stack {
                label { "Time" input type="datetime-local" name="at"; }
                label { "Time zone" input name="zone" value=(own_zone()) autocomplete="off"; }
                label { "How many must be ready: a number, or a part such as 80 % (empty: all, or all that are connected)"
                    input name="wait_for" autocomplete="off"; }
            }
        }
    }
}

fn options() -> Markup {
    html! {
        details {
            summary { "More" }
            div.stack {
                label { "Disk, if machines have several (such as serial=S4EVNX0R or path=/dev/nvme0n1)"
                    input name="target" autocomplete="off"; }
                label { "Waves, such as 1,5,rest: one machine first, then five, then the others (empty: all at once)"
                    input name="waves" autocomplete="off"; }
                label { "Machines that may fail before the next wave is called off"
                    input name="max_failed" inputmode="numeric" pattern="[0-9]*" placeholder="0" autocomplete="off"; }
                @for (key, title, words, default) in CHOICES {
                    label { (title)
                        select name=(key) { @for word in words { option value=(word) selected[*word == default] { (word) } } }
                    }
                }
                label.check { input type="checkbox" name="wake" value="yes"; span { "Wake machines that are not connected when it begins" } }
                label.check { input type="checkbox" name="fresh" value="yes"; span { "Write everything, also what is there already" } }
            }
        }
    }
}

/// The request that a form stands for.
fn request(fields: &Fields) -> Result<Request, Problem> {
    let mut body = json!({
        "image": fields.get("image"),
        "machines": fields.numbers("machine")?,
        "target": fields.get("target"),
        "fresh": fields.get("fresh") == "yes",
        "wake": fields.get("wake") == "yes",
    });
    for (key, ..) in CHOICES {
        if !fields.get(key).is_empty() {
            body[key] = fields.get(key).into();
        }
    }
    let text = |key: &str| Some(fields.get(key)).filter(|text| !text.is_empty());
    let count = |text: &str| text.parse::<u32>().map_or_else(|_| Value::from(text), Value::from);
    body["wait_for"] = text("wait_for").map_or(Value::Null, count);
    if let Some(when @ ("now" | "at")) = text("when") {
        body["start"] = json!({ "when": when });
        if when == "at" {
            (body["start"]["at"], body["start"]["zone"]) = (text("at").into(), text("zone").into());
        }
    }
    if let Some(waves) = text("waves") {
        body["waves"] = waves.into();
        if text("max_failed").is_some() {
            body["max_failed"] = fields.word::<u32>("max_failed")?.into();
        }
    }
    // With waves the times and counts of each are checked when it is cut.
    let request: Request = serde_json::from_value(body).map_err(|error| Problem::bad(error.to_string()))?;
    request.wishes()?;
    Ok(request)
}

pub(super) async fn confirm(State(api): Shared, uri: Uri, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Operator).await?;
    confirmation(&api, &who, &Fields::read(query.unwrap_or_default().as_bytes()), None).await
}

async fn confirmation(api: &Arc<Api>, who: &Who, fields: &Fields, wrong: Option<&str>) -> Answer {
    let request = request(fields)?;
    let images = list(api).await?;
    let image = images.into_iter().find(|image| image.name == request.image);
    let image = image.ok_or_else(|| Problem::not_found(format!("there is no image {:?}", request.image)))?;
    let machines: Vec<Row> =
        rows(api).await?.into_iter().filter(|row| request.machines.contains(&row.machine.id)).collect();
    if machines.len() != request.machines.len() {
        return Err(Problem::not_found("a machine that was chosen is not known any more; choose again").into());
    }
    let kept = serde_json::to_value(&request).map_err(|error| Problem::bad(error.to_string()))?;
    let target = kept["target"].as_str().unwrap_or_default();
    let count = machines.len();
    // Pressing the button twice starts one deployment.
    let key = match fields.get("key") {
        "" => secret().map_err(|error| Problem::system(format!("drawing random bytes: {error}")))?,
        key => key.to_owned(),
    };
    let body = html! {
        div.head { h1 { "Start this deployment?" } p.count { "Step 2 of 2: confirm" } }
        @if let Some(wrong) = wrong { p.alert role="alert" { (wrong) } }
        p.lead {
            "The disk of " b { (count) @if count == 1 { " machine" } @else { " machines" } } " is overwritten with " b { (request.image) }
            @if let Ok(layers) = &image.layers { " (" (size(layers.raw_bytes)) " each)" }
            ". " b { "Everything on it is lost." }
        }
        (schedule(&request)?)
        p {
            @if target.is_empty() { "Of each machine its only disk is taken; one with several takes no part, unless its agent was told which disk to give." }
            @else { "Of each machine the disk is taken that is " span.mono { (target) } "." }
        }
        div.scroll tabindex="0" role="region" aria-label="Machines" {
            table.rows {
                thead { tr { th scope="col" { "Machine" } th scope="col" { "State" } th scope="col" { "Disks" } th scope="col" { "Holds now" } } }
                tbody {
                    @for row in &machines {
                        tr {
                            th scope="row" { (row.title()) " " span.faint { (row.machine.address) } }
                            td { (row.dot()) }
                            td { (disks(&row.machine)) }
                            td { (row.machine.holds.as_deref().unwrap_or("not known")) }
                        }
                    }
                }
            }
        }
        form.stack method="post" action="/deployments" {
            (hidden(&kept))
            input type="hidden" name="key" value=(key);
            label { "How many machines are overwritten? Type the number."
                input name="count" inputmode="numeric" autocomplete="off" required autofocus; }
            div.actions {
                button.danger type="submit" { "Overwrite and start" }
                a.button.quiet href="/deployments" { "Cancel" }
            }
        }
    };
    Ok(whole(who, "/deployments", "Start this deployment?", false, body))
}

/// When it begins and in which parts, if not as usual.
fn schedule(request: &Request) -> Result<Markup, Problem> {
    let moment = request.start.as_ref().map(StartRequest::moment).transpose()?.flatten();
    Ok(html! {
        @if let Some(moment) = &moment {
            p.notice { "It begins at " b { (in_zone(moment.at, &moment.zone)) } ", which is " (in_zone(moment.at, "UTC")) "." }
        }
        @if let Some(Waves::Text(waves)) = &request.waves {
            p.notice {
                "In waves: " b { (waves) } ". The next one begins when the one before it is over, unless more than "
                (request.max_failed.unwrap_or_default()) " machines have failed by then."
            }
        }
    })
}

/// What was chosen, as fields of the next form.
fn hidden(kept: &Value) -> Markup {
    let text = |key: &str| kept[key].as_str().unwrap_or_default().to_owned();
    html! {
        @for key in ["image", "target", "verify", "free", "then"] { input type="hidden" name=(key) value=(text(key)); }
        @if kept["wake"] == true { input type="hidden" name="wake" value="yes"; }
        @if kept["fresh"] == true { input type="hidden" name="fresh" value="yes"; }
        @if let Some(count) = kept["wait_for"].as_u64() { input type="hidden" name="wait_for" value=(count); }
        @if let Some(part) = kept["wait_for"].as_str() { input type="hidden" name="wait_for" value=(part); }
        @for key in ["when", "at", "zone"] {
            @if let Some(text) = kept["start"][key].as_str() { input type="hidden" name=(key) value=(text); }
        }
        @if let Some(waves) = kept["waves"].as_str() { input type="hidden" name="waves" value=(waves); }
        @if let Some(failed) = kept["max_failed"].as_u64() { input type="hidden" name="max_failed" value=(failed); }
        @for machine in kept["machines"].as_array().into_iter().flatten() {
            input type="hidden" name="machine" value=(machine);
        }
    }
}

pub(super) async fn start(State(api): Shared, uri: Uri, headers: HeaderMap, body: Bytes) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Operator).await?;
    let fields = Fields::read(&body);
    let request = request(&fields)?;
    if fields.get("count") != request.machines.len().to_string() {
        let wrong = format!("Nothing was started: {:?} is not the number of machines.", fields.get("count"));
        return confirmation(&api, &who, &fields, Some(&wrong)).await;
    }
    let key = Some(fields.get("key").to_owned()).filter(|key| !key.is_empty() && key.len() <= 200);
    if let Some(id) = commands::known(&api, key.clone()).await? {
        return Ok(shown(&id));
    }
    Ok(shown(&commands::deploy(&api, request, key, &who).await?.id))
}

fn shown(id: &str) -> Response {
    done(&format!("/deployments/{id}"))
}
