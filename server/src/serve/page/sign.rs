//! Signing in and out, and the links that work once.

use super::{Answer, Shared, bare, done, session, with_cookie};
use crate::serve::api::Api;
use crate::serve::attempts::By;
use crate::serve::commands::blocking;
use crate::serve::fields::Fields;
use crate::serve::first;
use crate::serve::http::Peer;
use crate::serve::password;
use crate::serve::problem::Problem;
use crate::serve::role::{hash_of, secret};
use crate::serve::store::{StoreError, User, now};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use std::sync::PoisonError;
use std::time::Instant;

/// How long a session lasts, in seconds.
const SESSION_LASTS: i64 = 12 * 3600;
const LONGEST_NAME: usize = 64;

pub(super) async fn form(RawQuery(query): RawQuery) -> Response {
    let fields = Fields::read(query.unwrap_or_default().as_bytes());
    sign_in_form(StatusCode::OK, fields.get("to"), "", None)
}

fn sign_in_form(status: StatusCode, to: &str, name: &str, wrong: Option<&str>) -> Response {
    let page = bare(
        "Sign in",
        html! {
            h1.brand { span.mark aria-hidden="true" {} "SlideCast" }
            h2 { "Sign in" }
            @if let Some(wrong) = wrong { p.alert role="alert" { (wrong) } }
            form.stack method="post" action="/sign-in" {
                input type="hidden" name="to" value=(to);
                label { "Name" input name="name" value=(name) autocomplete="username" required autofocus maxlength="64"; }
                label { "Password" input type="password" name="password" autocomplete="current-password" required; }
                button type="submit" { "Sign in" }
            }
            p.hint { "No user yet? The server prints a link for the first sign-in when it starts." }
        },
    );
    (status, page).into_response()
}

pub(super) async fn sign_in(
    State(api): Shared,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let fields = Fields::read(&body);
    let (name, typed) = (fields.get("name").to_owned(), fields.exact("password").to_owned());
    let by = [By::Name(name.chars().take(LONGEST_NAME).collect::<String>().to_lowercase()), By::Address(peer)];
    let may = api.attempts.lock().unwrap_or_else(PoisonError::into_inner).on_try(&by, Instant::now());
    if let Err(wait) = may {
        let seconds = wait.as_secs() + 1;
        let why = format!("Too many wrong passwords. Try again in {seconds} seconds.");
        let mut response = sign_in_form(StatusCode::TOO_MANY_REQUESTS, fields.get("to"), &name, Some(&why));
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        return Ok(response);
    }
    let asked = name.clone();
    let user = api.database.call(move |store| store.user(&asked)).await?;
    let kept = user.as_ref().map(|user| user.password.clone());
    let fits = blocking(move || Ok(password::fits(&typed, kept.as_deref()))).await?;
    let Some(user) = user.filter(|_| fits) else {
        log::warn!("a sign-in from {peer} failed");
        return Ok(sign_in_form(
            StatusCode::UNAUTHORIZED,
            fields.get("to"),
            &name,
            Some("This name and password do not belong together."),
        ));
    };
    api.attempts.lock().unwrap_or_else(PoisonError::into_inner).on_success(&by);
    begin_session(&api, &headers, &user, fields.get("to")).await
}

async fn begin_session(api: &Api, headers: &HeaderMap, user: &User, to: &str) -> Answer {
    let secret = secret().map_err(|error| Problem::system(format!("drawing random bytes: {error}")))?;
    let (hash, user) = (hash_of(&secret), user.clone());
    api.database.call(move |store| store.add_session(&hash, &user, now() + SESSION_LASTS)).await?;
    // Only to a page of this server: a browser reads `//` and `/\` as another one.
    let inside = to.starts_with('/') && !to[1..].starts_with(['/', '\\']) && !to.contains(char::is_control);
    Ok(with_cookie(done(if inside { to } else { "/machines" }), headers, &secret, SESSION_LASTS))
}

pub(super) async fn sign_out(State(api): Shared, headers: HeaderMap) -> Answer {
    let hash = session(&headers);
    api.database.call(move |store| store.end_session(&hash)).await?;
    Ok(with_cookie(done("/sign-in"), &headers, "", 0))
}

pub(super) async fn welcome(State(api): Shared, Path(secret): Path<String>) -> Answer {
    let hash = hash_of(&secret);
    let (name, _) = api.database.call(move |store| store.invitation(&hash)).await?;
    Ok(welcome_form(StatusCode::OK, &name, name.is_empty(), None))
}

fn welcome_form(status: StatusCode, name: &str, choose: bool, wrong: Option<&str>) -> Response {
    let page = bare(
        "Welcome",
        html! {
            h1.brand { span.mark aria-hidden="true" {} "SlideCast" }
            h2 { "Welcome" }
            p {
                @if choose { "You are the first: choose a name and a password, and you are the administrator of this server." }
                @else { "Choose a password for " b { (name) } "." }
            }
            @if let Some(wrong) = wrong { p.alert role="alert" { (wrong) } }
            // The address of the form is the link itself.
            form.stack method="post" {
                @if choose {
                    label { "Name" input name="name" value=(name) autocomplete="username" required autofocus maxlength="64"; }
                } @else {
                    input type="hidden" name="name" value=(name) autocomplete="username";
                }
                (new_password())
                button type="submit" { "Sign in" }
            }
        },
    );
    (status, page).into_response()
}

/// The two fields for a new password.
pub(super) fn new_password() -> Markup {
    html! {
        label {
            "Password, at least 10 characters"
            input type="password" name="password" autocomplete="new-password" required minlength="10" maxlength="256";
        }
        label {
            "The same again"
            input type="password" name="again" autocomplete="new-password" required minlength="10" maxlength="256";
        }
    }
}

/// The new password of a form.
pub(super) fn chosen(fields: &Fields) -> Result<String, Problem> {
    let password = fields.exact("password");
    password::check(password)?;
    match password == fields.exact("again") {
        true => Ok(password.to_owned()),
        false => Err(Problem::bad("the two passwords are not the same")),
    }
}

pub(super) async fn join(State(api): Shared, Path(secret): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let (fields, hash) = (Fields::read(&body), hash_of(&secret));
    let asked = hash.clone();
    let (invited, _) = api.database.call(move |store| store.invitation(&asked)).await?;
    let again = |why: &str| welcome_form(StatusCode::BAD_REQUEST, fields.get("name"), invited.is_empty(), Some(why));
    let name = fields.get("name").to_owned();
    if invited.is_empty() && !good_name(&name) {
        return Ok(again("A name has 1 to 64 characters, none of them a control character."));
    }
    let password = match chosen(&fields) {
        Ok(password) => password,
        Err(problem) => return Ok(again(&problem.to_string())),
    };
    let kept = blocking(move || password::hash(&password)).await?;
    let user = match api.database.call(move |store| store.join(&hash, &name, &kept)).await {
        Ok(user) => user,
        Err(error @ StoreError::NameTaken { .. }) => return Ok(again(&error.to_string())),
        Err(error) => return Err(error.into()),
    };
    if invited.is_empty() {
        // It works no more, so it does no harm if it stays.
        let _ = std::fs::remove_file(first::file(&api.place.state));
    }
    begin_session(&api, &headers, &user, "/machines").await
}

/// Whether users may be called so.
pub(in crate::serve) fn good_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST_NAME && crate::shown::shown(name) == name
}
