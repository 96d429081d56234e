//! The images: each below the one that it is an increment of.

use super::words::size;
use super::{Answer, Shared, page as whole, visitor};
use crate::serve::images::{ImageRow, list};
use crate::serve::role::Role;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use maud::{Markup, html};

/// The deepest tree that is drawn as one; longer chains of layers go on at the same depth.
const MAX_DEPTH: usize = 12;

pub(super) async fn page(State(api): Shared, uri: Uri, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Viewer).await?;
    let images = list(&api).await?;
    let operator = who.role >= Role::Operator;
    let is_there = |name: &str| images.iter().any(|image| image.name == name);
    let roots = images.iter().filter(|image| parent(image).is_none_or(|parent| !is_there(parent)));
    let roots: Vec<&ImageRow> = roots.collect();
    let body = html! {
        div.head {
            h1 { "Images" }
            p.count { (images.len()) " in " span.mono { (api.place.images.display()) } }
        }
        @if images.is_empty() {
            p { "No image yet. Put files that end in .slide into the folder; " span.mono { "slidecast image create" } " makes them." }
        }
        ul.tree { @for root in roots { (branch(&images, root, operator, 0)) } }
    };
    Ok(whole(&who, "/images", "Images", false, body))
}

fn parent(image: &ImageRow) -> Option<&str> {
    image.layers.as_ref().ok().and_then(|layers| layers.parent.as_deref())
}

fn branch(images: &[ImageRow], image: &ImageRow, operator: bool, depth: usize) -> Markup {
    let children: Vec<&ImageRow> = images.iter().filter(|child| parent(child) == Some(&image.name)).collect();
    let below = html! { @for child in &children { (branch(images, child, operator, depth + 1)) } };
    html! {
        li {
            div.image {
                b { (image.name) }
                @match &image.layers {
                    Ok(layers) => {
                        span.faint {
                            (size(image.file_bytes)) " stored · " (size(layers.raw_bytes)) " written to each machine · disk of " (size(layers.disk_bytes))
                        }
                        @if operator {
                            a href=(deploy(&image.name)) aria-label=(format!("Deploy {}", image.name)) { "Deploy…" }
                        }
                    },
                    Err(why) => span.alert { (why) },
                }
            }
            @if depth < MAX_DEPTH && !children.is_empty() { ul { (below) } }
        }
        @if depth >= MAX_DEPTH { (below) }
    }
}

fn deploy(name: &str) -> String {
    let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    format!("/deployments/new?image={name}")
}
