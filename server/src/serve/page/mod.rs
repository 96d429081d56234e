//! The pages: made by the server, usable without a script. The script only asks for the page again when something has changed, and puts
//! the new parts in the place of the old ones.

mod chain;
mod deployment;
mod deployments;
mod group;
mod groups;
mod images;
mod machine;
mod machines;
mod settings;
mod sign;
mod start;
mod users;
mod webhooks;
mod words;

use super::access::session_of;
use super::api::Api;
use super::problem::Problem;
use super::role::Role;
use super::store::{StoreError, Who};
use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::{DOCTYPE, Markup, html};
use std::sync::Arc;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

type Shared = axum::extract::State<Arc<Api>>;
type Answer = Result<Response, Failed>;

pub(super) use sign::good_name;

pub(super) fn router() -> Router<Arc<Api>> {
    Router::new()
        .route("/", get(|| async { Redirect::to("/machines") }))
        .route("/style.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
        .route("/script.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/sign-in", get(sign::form).post(sign::sign_in))
        .route("/sign-out", post(sign::sign_out))
        .route("/welcome/{secret}", get(sign::welcome).post(sign::join))
        .route("/machines", get(machines::page).post(machines::act))
        .route("/machines/{id}", get(machine::page))
        .route("/machines/{id}/note", post(machine::note))
        .route("/machines/{id}/board", post(machine::board))
        .route("/machines/{id}/restart", post(machine::restart))
        .route("/groups", get(groups::page).post(groups::new_group))
        .route("/groups/rules", post(groups::new_rule))
        .route("/groups/rules/remove", post(groups::remove_rule))
        .route("/groups/{id}", get(group::page).post(group::change))
        .route("/images", get(images::page))
        .route("/deployments", get(deployments::page).post(start::start))
        .route("/deployments/new", get(start::choose))
        .route("/deployments/confirm", get(start::confirm))
        .route("/deployments/{id}", get(deployment::page))
        .route("/deployments/{id}/confirm", post(deployment::confirm))
        .route("/deployments/{id}/start", post(deployment::hurry))
        .route("/deployments/{id}/again", post(deployment::again))
        .route("/deployments/{id}/stop", post(deployment::stop))
        .route("/users", get(users::page).post(users::invite))
        .route("/users/{id}/role", post(users::set_role))
        .route("/users/{id}/groups", get(users::choose_groups).post(users::set_groups))
        .route("/users/{id}/remove", post(users::remove))
        .route("/settings", get(settings::page))
        .route("/settings/password", post(settings::password))
        .route("/settings/tokens", post(settings::new_token))
        .route("/settings/tokens/remove", post(settings::remove_token))
        .route("/settings/webhooks", post(webhooks::add))
        .route("/settings/webhooks/remove", post(webhooks::remove))
}

/// A file that is part of the program. Browsers ask again after a new version.
fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=300")];
    (headers, text).into_response()
}

/// Why a page is not shown.
#[derive(Debug)]
enum Failed {
    /// Nobody is signed in.
    SignIn { to: String },
    /// Something that the person reads.
    Problem(Problem),
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Problem(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn { to } => {
                let to: String = form_urlencoded::byte_serialize(to.as_bytes()).collect();
                Redirect::to(&format!("/sign-in?to={to}")).into_response()
            }
            Self::Problem(problem) => {
                let title = problem.status().canonical_reason().unwrap_or("Error");
                let page = bare(
                    title,
                    html! {
                        h1 { (title) }
                        p.alert role="alert" { (problem) }
                        p { a href="/" { "To the start page" } }
                    },
                );
                (problem.status(), page).into_response()
            }
        }
    }
}

/// Who sees this page: somebody who is signed in and has at least this role.
async fn visitor(api: &Api, headers: &HeaderMap, uri: &Uri, least: Role) -> Result<Who, Failed> {
    let to = || Failed::SignIn { to: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned() };
    let who = api.who(headers).await?.ok_or_else(to)?;
    if who.role < least {
        let detail = format!(
            "This needs the role {least}; {} has the role {}. An administrator can change that.",
            who.name, who.role
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).into());
    }
    Ok(who)
}

/// A page without the navigation.
fn bare(title: &str, body: Markup) -> Html<String> {
    whole(title, html! { main.narrow id="main" { (body) } })
}

fn whole(title: &str, body: Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – SlideCast" }
                link rel="stylesheet" href="/style.css";
                script src="/script.js" defer {}
            }
            body { (body) }
        }
    };
    Html(page.into_string())
}

/// The pages there are, for the navigation.
const PLACES: [(&str, &str, Role); 6] = [
    ("/machines", "Machines", Role::Viewer),
    ("/groups", "Groups", Role::Viewer),
    ("/images", "Images", Role::Viewer),
    ("/deployments", "Deployments", Role::Viewer),
    ("/users", "Users", Role::Admin),
    ("/settings", "Settings", Role::Viewer),
];

/// A page of somebody who is signed in. `live` pages change while they are looked at.
fn page(who: &Who, here: &str, title: &str, live: bool, body: Markup) -> Response {
    let places = PLACES.iter().filter(|(_, _, least)| who.role >= *least);
    let page = whole(
        title,
        html! {
            a.skip href="#main" { "Skip to the content" }
            header.top {
                a.brand href="/machines" { span.mark aria-hidden="true" {} "SlideCast" }
                nav aria-label="Pages" {
                    ul {
                        @for (path, name, _) in places {
                            li { a href=(path) aria-current=[(*path == here).then_some("page")] { (name) } }
                        }
                    }
                }
                div.who {
                    span.pulse data-pulse hidden { "live" }
                    span { (who.name) span.role { (who.role) } }
                    form method="post" action="/sign-out" { button.quiet type="submit" { "Sign out" } }
                }
            }
            main id="main" data-events=[live.then_some("/v1/events")] { (body) }
        },
    );
    page.into_response()
}

/// Goes on to another page after something was done.
fn done(to: &str) -> Response {
    Redirect::to(to).into_response()
}

/// An answer that sets the session's cookie, or removes it.
fn with_cookie(mut response: Response, headers: &HeaderMap, value: &str, seconds: i64) -> Response {
    // Behind a proxy with TLS the browser must never send it in the clear.
    let secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let secure = if secure { "; Secure" } else { "" };
    let cookie =
        format!("{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}", super::access::COOKIE);
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// The hash of the visitor's session.
fn session(headers: &HeaderMap) -> String {
    session_of(headers).unwrap_or_default()
}
