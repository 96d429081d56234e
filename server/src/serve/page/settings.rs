//! One's own password, tokens, and what this server is.

use super::sign::{chosen, new_password};
use super::users::role_choice;
use super::webhooks;
use super::words::{exact, moment};
use super::{Answer, Shared, done, page as whole, session, visitor};
use crate::serve::commands::blocking;
use crate::serve::fields::Fields;
use crate::serve::password;
use crate::serve::problem::Problem;
use crate::serve::role::{Role, hash_of, secret};
use crate::serve::store::{Group, Token, now, token_name};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use maud::{Markup, html};

const MAX_DAYS: i64 = 3650;

pub(super) async fn page(State(api): Shared, uri: Uri, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Viewer).await?;
    let admin = who.role >= Role::Admin;
    let (tokens, groups) = match admin {
        true => api.database.call(|store| Ok((store.tokens()?, store.groups()?))).await?,
        false => (Vec::new(), Vec::new()),
    };
    let hooks = if admin { api.database.call(|store| store.webhooks()).await? } else { Vec::new() };
    let body = html! {
        div.head { h1 { "Settings" } }
        h2 { "Your password" }
        form.stack method="post" action="/settings/password" {
            input type="hidden" name="username" value=(who.name) autocomplete="username";
            label { "The one you have" input type="password" name="old" autocomplete="current-password" required; }
            (new_password())
            button type="submit" { "Change" }
        }
        @if admin { (token_list(&tokens)) (token_form(&groups)) (webhooks::list(&hooks)) }
        h2 { "This server" }
        dl.facts {
            dt { "Version" } dd { (env!("CARGO_PKG_VERSION")) }
            dt { "Images" } dd.mono { (api.place.images.display()) }
            dt { "State" } dd.mono { (api.place.state.display()) }
            dt { "Port for machines" } dd { (api.place.port) }
            dt { "Events that are about no machine" } dd { "kept for " (api.keep_events) " days" }
            dt { "Certificate" } dd.mono { @if let Some(tls) = &api.tls { "SHA-256 " (tls.fingerprint()) } @else { "none: pages are for this machine alone" } }
            dt { "Server key" } dd.mono { @if let Some(key) = &api.place.key { (key) } @else { "none (--insecure)" } }
        }
    };
    Ok(whole(&who, "/settings", "Settings", false, body))
}

fn token_list(tokens: &[Token]) -> Markup {
    html! {
        h2 { "Tokens for programs" }
        div.scroll tabindex="0" role="region" aria-label="Tokens" {
            table.rows {
                thead { tr { th scope="col" { "Token" } th scope="col" { "Role" } th scope="col" { "Groups" } th scope="col" { "Made" } th scope="col" { "Works until" } th scope="col" { "Remove" } } }
                tbody {
                    @for token in tokens {
                        tr {
                            th.mono scope="row" { (token_name(&token.hash)) }
                            td { (token.role) }
                            td {
                                @match token.role {
                                    Role::Operator if token.groups.is_empty() => "all",
                                    Role::Operator => (token.groups.join(", ")),
                                    _ => span.faint { "–" },
                                }
                            }
                            td { (moment(token.created)) }
                            td {
                                @match token.ends {
                                    None => "it is removed",
                                    Some(ends) if ends <= now() => { "ended " (moment(ends)) },
                                    Some(ends) => (exact(ends)),
                                }
                            }
                            td {
                                form.inline method="post" action="/settings/tokens/remove" {
                                    input type="hidden" name="hash" value=(token.hash);
                                    button.quiet.danger type="submit" aria-label=(format!("Remove {}", token_name(&token.hash))) { "Remove" }
                                }
                            }
                        }
                    }
                    @if tokens.is_empty() { tr { td.faint colspan="6" { "None." } } }
                }
            }
        }
    }
}

fn token_form(groups: &[Group]) -> Markup {
    html! {
        form.stack method="post" action="/settings/tokens" {
            (role_choice())
            @if !groups.is_empty() {
                fieldset {
                    legend { "Groups of an operator’s token (none: all machines)" }
                    @for group in groups {
                        label.check { input type="checkbox" name="group" value=(group.id); span { (group.name) } }
                    }
                }
            }
            label { "Days that it works" input name="days" value="90" inputmode="numeric" required pattern="[0-9]+"; }
            button type="submit" { "Make a token" }
        }
    }
}

pub(super) async fn password(State(api): Shared, uri: Uri, headers: HeaderMap, body: Bytes) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Viewer).await?;
    let fields = Fields::read(&body);
    let new = chosen(&fields)?;
    let asked = who.name.clone();
    let user = api.database.call(move |store| store.user(&asked)).await?.filter(|user| Some(user.id) == who.user);
    let user = user.ok_or_else(|| Problem::bad("only users have passwords"))?;
    let (old, kept) = (fields.exact("old").to_owned(), user.password.clone());
    if !blocking(move || Ok(password::fits(&old, Some(&kept)))).await? {
        return Err(Problem::bad("Nothing was changed: the old password is another one.").into());
    }
    let kept = blocking(move || password::hash(&new)).await?;
    let session = session(&headers);
    api.database.call(move |store| store.set_password(&user, &kept, &session)).await?;
    Ok(done("/settings"))
}

pub(super) async fn new_token(State(api): Shared, uri: Uri, headers: HeaderMap, body: Bytes) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    let fields = Fields::read(&body);
    let (role, days) = (fields.word::<Role>("role")?, fields.word::<i64>("days")?);
    if !(1..=MAX_DAYS).contains(&days) {
        return Err(Problem::bad(format!("days: {days} is not in 1..={MAX_DAYS}")).into());
    }
    let groups = fields.numbers("group")?;
    if role != Role::Operator && !groups.is_empty() {
        return Err(Problem::bad("group: only the role operator is limited to groups").into());
    }
    let token = secret().map_err(|error| Problem::system(format!("drawing random bytes: {error}")))?;
    let (hash, by) = (hash_of(&token), who.name.clone());
    let ends = Some(now() + days * 86_400);
    api.database.call(move |store| store.add_token(&hash, role, ends, &groups, &by)).await?;
    let body = html! {
        div.head { h1 { "A new token" } }
        p { "It is not shown again. Programs send it as " span.mono { "Authorization: Bearer TOKEN" } "." }
        p.secret id="secret" { (token) }
        p { a href="/settings" { "Back to the settings" } }
    };
    Ok(whole(&who, "/settings", "A new token", false, body))
}

pub(super) async fn remove_token(State(api): Shared, uri: Uri, headers: HeaderMap, body: Bytes) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    let hash = Fields::read(&body).get("hash").to_owned();
    api.database.call(move |store| store.remove_token(&hash, &who.name)).await?;
    Ok(done("/settings"))
}
