//! The webhooks on the settings page.

use super::words::moment;
use super::{Answer, Shared, done, page as whole, visitor};
use crate::serve::fields::Fields;
use crate::serve::hooks::{Wanted, make};
use crate::serve::role::Role;
use crate::serve::store::WebhookRow;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use maud::{Markup, html};

pub(super) fn list(hooks: &[WebhookRow]) -> Markup {
    html! {
        h2 { "Webhooks" }
        div.scroll tabindex="0" role="region" aria-label="Webhooks" {
            table.rows {
                thead { tr { th scope="col" { "Address" } th scope="col" { "Events" } th scope="col" { "Made" } th scope="col" { "State" } th scope="col" { "Remove" } } }
                tbody {
                    @for hook in hooks {
                        tr {
                            th.mono scope="row" { (hook.url) }
                            td { @if hook.kinds.is_empty() { "all" } @else { (hook.kinds.join(", ")) } }
                            td { (moment(hook.created)) }
                            td {
                                @if hook.problem.is_empty() { "told up to event " (hook.taken) }
                                @else { (hook.problem) " (" (hook.failures) " times; tried again by itself)" }
                            }
                            td {
                                form.inline method="post" action="/settings/webhooks/remove" {
                                    input type="hidden" name="id" value=(hook.id);
                                    button.quiet.danger type="submit" aria-label=(format!("Remove the webhook to {}", hook.url)) { "Remove" }
                                }
                            }
                        }
                    }
                    @if hooks.is_empty() { tr { td.faint colspan="5" { "None." } } }
                }
            }
        }
        form.stack method="post" action="/settings/webhooks" {
            label { "Address that is told of events" input name="url" type="url" required maxlength="2000" placeholder="https://"; }
            label { "Kinds of events, with spaces between them; all if it is empty" input name="kinds" placeholder="deployment-over"; }
            button type="submit" { "Make a webhook" }
        }
    }
}

pub(super) async fn add(State(api): Shared, uri: Uri, headers: HeaderMap, body: Bytes) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    let fields = Fields::read(&body);
    let kinds = fields.get("kinds").split([' ', ',']).filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
    let (id, secret) = make(&api, Wanted { url: fields.get("url").to_owned(), kinds }, &who).await?;
    let body = html! {
        div.head { h1 { "Webhook " (id) } }
        p { "Its bodies are signed with this secret, which is not shown again; the receiver needs it to know that they come from this server." }
        p.secret id="secret" { (secret) }
        p { a href="/settings" { "Back to the settings" } }
    };
    Ok(whole(&who, "/settings", "A new webhook", false, body))
}

pub(super) async fn remove(State(api): Shared, uri: Uri, headers: HeaderMap, body: Bytes) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    let id = Fields::read(&body).numbers("id")?.first().copied().unwrap_or_default();
    api.database.call(move |store| store.remove_webhook(id, &who.name)).await?;
    Ok(done("/settings"))
}
