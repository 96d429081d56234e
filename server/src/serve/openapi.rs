//! The API in the words of OpenAPI 3.1, made of the table of routes and of the schemas of what they take and give.
//!
//! `docs/openapi.json` is the same text; a test compares them.

use super::api;
use super::routes::{Body, Route};
use super::schema;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// The document, in lines.
pub(super) fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
}

fn document() -> Value {
    let mut paths = Map::new();
    for route in api::routes() {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.verb.key()] = operation(&route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "SlideCast",
            "version": "1",
            "description": "The API of slidecast serve. Keys are only ever added. Errors are RFC 9457 problems; docs/API.md lists their types.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schema::all(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut object = json!({
        "summary": route.about,
        "operationId": operation_id(route),
        "parameters": parameters(route),
        "responses": responses(route),
    });
    match route.role {
        Some(role) => object["x-role"] = role.as_str().into(),
        None => object["security"] = json!([]),
    }
    if let Some(name) = route.takes {
        object["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": reference(name) } } });
    }
    object
}

/// Such as `post_machines_id_accept`.
fn operation_id(route: &Route) -> String {
    let words = route.path.trim_start_matches("/v1").split('/').filter(|word| !word.is_empty());
    let words = words.map(|word| word.replace(|sign: char| !sign.is_ascii_alphanumeric(), ""));
    std::iter::once(route.verb.key().to_owned()).chain(words).collect::<Vec<_>>().join("_")
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.path.split('/').filter_map(|word| word.strip_prefix('{')?.strip_suffix('}'));
    let in_path =
        in_path.map(|name| json!({ "in": "path", "name": name, "required": true, "schema": { "type": "string" } }));
    let others = route.parameters.iter().map(|parameter| {
        json!({
            "in": parameter.place,
            "name": parameter.name,
            "description": parameter.about,
            "schema": { "type": parameter.kind },
        })
    });
    in_path.chain(others).collect()
}

fn responses(route: &Route) -> Value {
    let mut object = Map::new();
    for (status, body) in route.gives {
        let about = StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
        let response = object.entry(status.to_string()).or_insert_with(|| json!({ "description": about }));
        match body {
            Body::Empty => {}
            Body::Json(name) => response["content"]["application/json"] = json!({ "schema": reference(name) }),
            Body::Text(kind) => response["content"][*kind] = json!({ "schema": { "type": "string" } }),
        }
    }
    let problem = json!({
        "description": "What is wrong",
        "content": { "application/problem+json": { "schema": reference("Problem") } },
    });
    object.insert("default".to_owned(), problem);
    Value::Object(object)
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_document_in_the_documentation_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        if std::env::var_os("SLIDECAST_WRITE_OPENAPI").is_some() {
            std::fs::write(path, text()).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        let hint = "docs/openapi.json differs; write it anew with: SLIDECAST_WRITE_OPENAPI=1 cargo test -p slidecast-server --lib openapi";
        assert!(kept == text(), "{hint}");
    }

    #[test]
    fn each_operation_has_a_name_of_its_own_and_every_schema_that_is_named_is_there() {
        let document = document();
        let mut names = HashSet::new();
        for route in api::routes() {
            let object = &document["paths"][route.path][route.verb.key()];
            assert!(names.insert(object["operationId"].to_string()), "{}", route.path);
        }
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(object) => {
                    found.extend(object.get("$ref").and_then(Value::as_str));
                    object.values().for_each(|value| references(value, found));
                }
                Value::Array(list) => list.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}
