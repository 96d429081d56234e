//! Who may use this server.

use super::sign::good_name;
use super::words::{exact, kind, moment};
use super::{Answer, Shared, done, page as whole, visitor};
use crate::serve::fields::Fields;
use crate::serve::first::LINK_LASTS;
use crate::serve::problem::Problem;
use crate::serve::role::{Role, hash_of, secret};
use crate::serve::store::{About, now};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri, header};
use maud::{Markup, html};

pub(super) async fn page(State(api): Shared, uri: Uri, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    let users = api.database.call(|store| store.users()).await?;
    let commands = api.database.call(|store| store.history(About::Commands)).await?;
    let body = html! {
        div.head { h1 { "Users" } p.count { (users.len()) } }
        div.scroll tabindex="0" role="region" aria-label="Users" {
            table.rows {
                thead { tr { th scope="col" { "Name" } th scope="col" { "Role" } th scope="col" { "Groups" } th scope="col" { "Since" } th scope="col" { "Remove" } } }
                tbody {
                    @for user in &users {
                        tr {
                            th scope="row" { (user.name) @if Some(user.id) == who.user { " " span.faint { "you" } } }
                            td {
                                form.inline method="post" action=(format!("/users/{}/role", user.id)) {
                                    select name="role" aria-label=(format!("Role of {}", user.name)) {
                                        @for role in Role::WORDS { option value=(role) selected[*role == user.role.as_str()] { (role) } }
                                    }
                                    button.quiet type="submit" aria-label=(format!("Set the role of {}", user.name)) { "Set" }
                                }
                            }
                            td {
                                @if user.role == Role::Operator {
                                    a href=(format!("/users/{}/groups", user.id)) aria-label=(format!("Groups of {}", user.name)) {
                                        @match user.groups.len() { 0 => "all", 1 => "1 group", count => { (count) " groups" } }
                                    }
                                } @else { span.faint { "–" } }
                            }
                            td { (moment(user.created)) }
                            td {
                                @if Some(user.id) != who.user {
                                    form.inline method="post" action=(format!("/users/{}/remove", user.id)) {
                                        button.quiet.danger type="submit" aria-label=(format!("Remove {}", user.name)) { "Remove" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        h2 { "Invite somebody, or let a user choose a new password" }
        form.stack method="post" action="/users" {
            label { "Name" input name="name" required maxlength="64" autocomplete="off"; }
            (role_choice())
            button type="submit" { "Make a link" }
        }
        h2 { "What was ordered" }
        ol.log {
            @for event in &commands {
                li {
                    (exact(event.at)) " " b { (event.who) } ": " (kind(&event.kind))
                    @if !event.text.is_empty() { " – " (event.text) }
                    @if let Some(machine) = event.machine {
                        " " a href=(format!("/machines/{machine}")) { "machine " (machine) }
                    }
                }
            }
        }
    };
    Ok(whole(&who, "/users", "Users", false, body))
}

/// A field for a role.
pub(super) fn role_choice() -> Markup {
    html! {
        label { "Role"
            select name="role" {
                option value="viewer" { "viewer: looks" }
                option value="operator" selected { "operator: starts and stops deployments, too" }
                option value="admin" { "admin: accepts machines and decides about users, too" }
            }
        }
    }
}

pub(super) async fn invite(State(api): Shared, uri: Uri, headers: HeaderMap, body: Bytes) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    let fields = Fields::read(&body);
    let (name, role) = (fields.get("name").to_owned(), fields.word::<Role>("role")?);
    if !good_name(&name) {
        return Err(Problem::bad("name: expected 1 to 64 characters, none of them a control character").into());
    }
    let secret = secret().map_err(|error| Problem::system(format!("drawing random bytes: {error}")))?;
    let (hash, invited, by) = (hash_of(&secret), name.clone(), who.name.clone());
    api.database.call(move |store| store.invite(&hash, &invited, role, now() + LINK_LASTS, &by)).await?;
    // The browser's own name for this server: it may be behind a proxy.
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme =
        text(header::HeaderName::from_static("x-forwarded-proto")).filter(|proto| *proto == "https").unwrap_or("http");
    let link = format!("{scheme}://{}/welcome/{secret}", text(header::HOST).unwrap_or_default());
    let body = html! {
        div.head { h1 { "A link for " (name) } }
        p { "It works once, within 7 days. Give it to nobody else: it is not shown again." }
        p.secret id="secret" { (link) }
        p { a href="/users" { "Back to the users" } }
    };
    Ok(whole(&who, "/users", "A link", false, body))
}

pub(super) async fn set_role(
    State(api): Shared,
    Path(id): Path<i64>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    let role = Fields::read(&body).word::<Role>("role")?;
    api.database.call(move |store| store.set_role(id, role, &who.name)).await?;
    Ok(done("/users"))
}

pub(super) async fn remove(State(api): Shared, Path(id): Path<i64>, uri: Uri, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    api.database.call(move |store| store.remove_user(id, &who.name)).await?;
    Ok(done("/users"))
}

/// Which groups an operator may use.
pub(super) async fn choose_groups(State(api): Shared, Path(id): Path<i64>, uri: Uri, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    let (users, groups) = api.database.call(|store| Ok((store.users()?, store.groups()?))).await?;
    let user = users.into_iter().find(|user| user.id == id);
    let user = user.ok_or_else(|| Problem::not_found(format!("There is no user {id}.")))?;
    let body = html! {
        div.head { h1 { "Groups of " (user.name) } }
        p { "An operator starts and stops deployments of machines in these groups. With none chosen: of all machines." }
        form.stack method="post" action=(format!("/users/{id}/groups")) {
            fieldset {
                legend { "Groups" }
                @if groups.is_empty() { p { "There is no group yet. " a href="/groups" { "Groups" } } }
                @for group in &groups {
                    label.check {
                        input type="checkbox" name="group" value=(group.id) checked[user.groups.contains(&group.id)];
                        span { (group.name) }
                    }
                }
            }
            button type="submit" { "Save" }
        }
    };
    Ok(whole(&who, "/users", &format!("Groups of {}", user.name), false, body))
}

pub(super) async fn set_groups(
    State(api): Shared,
    Path(id): Path<i64>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    let groups = Fields::read(&body).numbers("group")?;
    api.database.call(move |store| store.set_user_groups(id, &groups, &who.name)).await?;
    Ok(done("/users"))
}
