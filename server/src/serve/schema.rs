//! The objects of the API as JSON Schema. Tests compare each with the object that the program makes.

use serde_json::{Map, Value, json};
use slidecast_proto::reason::{Free, Then, Verify};

/// A key: its name, the schema of its value, and what it says.
type Key = (&'static str, Value, &'static str);

fn text() -> Value {
    json!({ "type": "string" })
}

fn number() -> Value {
    json!({ "type": "integer" })
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

/// A value of this type, or null.
fn maybe(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn word(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

fn of(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object whose keys are all there.
fn object(keys: Vec<Key>) -> Value {
    let required: Vec<_> = keys.iter().map(|(name, ..)| *name).collect();
    let mut schema = loose(keys);
    schema["required"] = required.into();
    schema
}

/// An object whose keys may all be missing.
fn loose(keys: Vec<Key>) -> Value {
    let properties: Map<_, _> = keys
        .into_iter()
        .map(|(name, mut schema, about)| {
            // Beside a reference nothing else is read by older tools.
            if !about.is_empty() && schema.get("$ref").is_none() {
                schema["description"] = about.into();
            }
            (name.to_owned(), schema)
        })
        .collect();
    json!({ "type": "object", "properties": properties })
}

/// All of them, by name.
pub(super) fn all() -> Map<String, Value> {
    let schemas = [
        ("Health", health()),
        ("Machine", machine()),
        ("Machines", object(vec![("machines", list(of("Machine")), ""), next("machine")])),
        ("Image", object(vec![("name", text(), ""), ("file_bytes", number(), "")])),
        ("Images", object(vec![("images", list(of("Image")), "")])),
        ("DeploymentRequest", request()),
        ("Made", object(vec![("id", text(), "of the deployment")])),
        ("Deployment", deployment()),
        ("Deployments", object(vec![("deployments", list(of("Deployment")), "the newest first"), next("deployment")])),
        ("Event", event()),
        ("Events", object(vec![("events", list(of("Event")), "the oldest first")])),
        ("Webhook", webhook()),
        ("Webhooks", object(vec![("webhooks", list(of("Webhook")), "")])),
        ("WebhookRequest", webhook_request()),
        ("WebhookMade", object(vec![("id", number(), ""), ("secret", text(), "not shown again")])),
        ("Problem", problem()),
        ("MachineChange", strict(loose(vec![("note", text(), "at most 2,000 characters")]), &["note"])),
        ("Group", group()),
        ("Groups", object(vec![("groups", list(of("Group")), "by name")])),
        ("GroupRequest", strict(loose(vec![("name", text(), ""), ("protected", flag(), PROTECTED)]), &["name"])),
        ("GroupChange", group_change()),
        ("MadeNumber", object(vec![("id", number(), "")])),
        ("Accepted", object(vec![("accepted", number(), "how many of its machines were new")])),
        (
            "BoardRequest",
            strict(
                loose(vec![
                    ("url", text(), "https; with the path of the system if there are several on the board"),
                    ("user", text(), ""),
                    ("password", text(), ""),
                    (
                        "fingerprint",
                        text(),
                        "the SHA-256 of its certificate; without it, that is of an authority that the server's system trusts",
                    ),
                ]),
                &["url", "user", "password"],
            ),
        ),
        ("Woken", object(vec![("called", number(), "how many were not connected, and are called")])),
        ("Rule", rule()),
        ("Rules", object(vec![("rules", list(of("Rule")), "")])),
        (
            "RuleRequest",
            strict(
                loose(vec![("subnet", text(), "such as 10.1.7.0/24"), ("group", maybe("integer"), JOINS)]),
                &["subnet"],
            ),
        ),
    ];
    schemas.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn next(what: &'static str) -> Key {
    let schema = json!({ "type": ["integer", "string", "null"] });
    let about = match what {
        "machine" => "the number after which the next page begins; null on the last page",
        _ => "the id after which the next page begins; null on the last page",
    };
    ("next", schema, about)
}

const PROTECTED: &str = "a deployment of its machines needs a second person";
const JOINS: &str = "the group that machines from there join";

/// A body of a request: these keys must be there, and no others than those of the schema.
fn strict(mut schema: Value, required: &[&str]) -> Value {
    schema["required"] = json!(required);
    schema["additionalProperties"] = false.into();
    schema
}

fn group() -> Value {
    object(vec![
        ("id", number(), ""),
        ("name", text(), ""),
        ("protected", flag(), PROTECTED),
        ("machines", list(number()), ""),
        ("operators", list(text()), "names of users and tokens that are limited to it, and perhaps to others"),
    ])
}

fn group_change() -> Value {
    let keys = vec![
        ("name", maybe("string"), ""),
        ("protected", maybe("boolean"), PROTECTED),
        ("add", list(number()), "machines that join"),
        ("remove", list(number()), "machines that leave"),
    ];
    strict(loose(keys), &[])
}

fn rule() -> Value {
    object(vec![("id", number(), ""), ("subnet", text(), ""), ("group", maybe("integer"), JOINS)])
}

fn health() -> Value {
    object(vec![("status", word(&["ok"]), ""), ("version", text(), "")])
}

fn machine() -> Value {
    object(vec![
        ("id", number(), ""),
        ("name", text(), "the host name"),
        ("state", word(&["new", "accepted"]), ""),
        ("hardware", list(text()), "hardware addresses"),
        ("address", text(), ""),
        ("interface", text(), "of the server"),
        ("disks", list(disk()), ""),
        ("first_seen", number(), "seconds since 1970"),
        ("last_seen", number(), "seconds since 1970"),
        ("connected", flag(), ""),
        (
            "claimed_by",
            list(claimant()),
            "agents that are connected and say that they are this machine, if there are several",
        ),
        ("deployment", maybe("string"), "the active one"),
        ("holds", maybe("string"), "the image that it ended done with last"),
        ("holds_since", maybe("integer"), "seconds since 1970"),
        ("note", text(), "what people have written about it"),
        ("groups", list(text()), "names of its groups"),
    ])
}

fn claimant() -> Value {
    object(vec![
        ("name", text(), "the host name"),
        ("address", text(), ""),
        ("hardware", list(text()), "hardware addresses"),
        ("serials", list(text()), "of its disks"),
    ])
}

fn left_out() -> Value {
    object(vec![("machine", number(), "its number"), ("name", text(), "its host name"), ("why", text(), "for people")])
}

fn disk() -> Value {
    loose(vec![
        ("path", text(), ""),
        ("model", text(), ""),
        ("serial", text(), ""),
        ("bytes", number(), ""),
        ("rotational", flag(), ""),
    ])
}

fn request() -> Value {
    let duration = || json!({ "type": ["string", "null"], "examples": ["10m"] });
    let schema = loose(vec![
        ("image", text(), "the name of a file in the image folder"),
        ("machines", list(number()), "numbers of accepted machines, each once"),
        (
            "group",
            maybe("string"),
            "instead of machines: the name of a group, of which the accepted machines are taken",
        ),
        ("wait_for", count(), "how many must be ready to begin, or which part, such as \"80 %\"; all by default"),
        ("start", start(), ""),
        (
            "waves",
            json!({ "type": ["string", "array", "null"] }),
            "parts one after the other: \"1,5,rest\" or [1, 5, \"rest\"]",
        ),
        ("wake", flag(), "wake the machines that are not connected when it begins"),
        ("max_failed", maybe("integer"), "how many machines may fail before later waves are called off; 0 by default"),
        ("target", text(), "as --target of deploy"),
        ("verify", word(Verify::WORDS), "as --verify of deploy"),
        ("free", word(Free::WORDS), "as --free of deploy"),
        ("then", word(Then::WORDS), "as --then of deploy"),
        ("fresh", flag(), "as --fresh of deploy"),
        ("timeout", duration(), "as --timeout of deploy"),
        ("join_window", duration(), "as --join-window of deploy"),
    ]);
    strict(schema, &["image"])
}

fn count() -> Value {
    json!({ "type": ["integer", "string", "null"] })
}

fn start() -> Value {
    let keys = vec![
        (
            "when",
            word(&["now", "ready", "at"]),
            "now: with the machines that are connected; ready: when enough are ready",
        ),
        ("wait_for", count(), "instead of wait_for outside"),
        ("at", maybe("string"), "local time in zone, such as 2026-12-01T02:00, or with an offset or Z"),
        ("zone", maybe("string"), "such as Europe/Berlin; UTC by default"),
        ("grace", maybe("string"), "how late it may begin if the server was not running; 15m by default"),
    ];
    let mut schema = strict(loose(keys), &["when"]);
    schema["type"] = json!(["object", "null"]);
    schema
}

fn deployment() -> Value {
    let mut schema = object(vec![
        ("id", text(), ""),
        ("image", text(), ""),
        ("machines", list(number()), ""),
        ("state", word(&["unconfirmed", "scheduled", "queued", "waiting", "running", "over"]), ""),
        ("waits", text(), "why it does not begin, if it is not for its machines"),
        ("stop", flag(), "somebody wants it stopped"),
        ("exit_code", maybe("integer"), "as that of deploy; null until it is over"),
        ("detail", text(), "why it could not begin or go on"),
        ("created", number(), "seconds since 1970"),
        ("ended", maybe("integer"), "seconds since 1970"),
        ("asked_by", text(), ""),
        ("needs_second", flag(), "a machine of it is in a protected group"),
        ("confirmed_by", maybe("string"), "the second person"),
        ("start_at", maybe("integer"), "seconds since 1970, if it waits or waited for a time"),
        ("start_zone", text(), "the time zone in which that was named"),
        ("series", maybe("string"), "the first of its waves"),
        ("wave", number(), ""),
        ("waves", number(), ""),
        ("failed", maybe("integer"), "machines that did not get the image; null until it is over"),
        ("left_out", list(left_out()), "machines that had no place in the plan when it began"),
    ]);
    let about = "while it is active: the keys of the node and progress events of --progress json; when it is over: those of the report, \
                 and the other keys of the report are there, too";
    schema["properties"]["nodes"] = json!({ "type": "array", "items": { "type": "object" }, "description": about });
    schema
}

fn event() -> Value {
    object(vec![
        ("id", number(), "later ones have higher numbers"),
        ("at", number(), "seconds since 1970"),
        ("kind", text(), "docs/API.md lists the kinds"),
        ("deployment", maybe("string"), ""),
        ("machine", maybe("integer"), ""),
        ("text", text(), ""),
        ("who", text(), "who ordered it; empty if nobody did"),
    ])
}

fn webhook() -> Value {
    object(vec![
        ("id", number(), ""),
        ("url", text(), ""),
        ("kinds", list(text()), "of events; all if there are none"),
        ("taken", number(), "the last event that was taken"),
        ("failures", number(), "how often in a row the next one was not taken"),
        ("next_try", number(), "seconds since 1970"),
        ("problem", text(), "why it was not taken; empty if all is well"),
        ("created", number(), "seconds since 1970"),
    ])
}

fn webhook_request() -> Value {
    let mut schema =
        loose(vec![("url", text(), "http or https"), ("kinds", list(text()), "of events; all by default")]);
    schema["required"] = json!(["url"]);
    schema["additionalProperties"] = false.into();
    schema
}

fn problem() -> Value {
    object(vec![
        ("type", text(), "urn:slidecast: and a code; docs/API.md lists them"),
        ("title", text(), ""),
        ("status", number(), ""),
        ("detail", text(), "what is wrong, for people"),
    ])
}

/// Whether `value` is an object of the schema with this name, and has no other keys: what is not, in words.
#[cfg(test)]
pub(super) fn differs(name: &str, value: &Value) -> Option<String> {
    let schemas = all();
    let schema = &schemas[name];
    let keys = |value: &Value| {
        value.as_object().map(|object| object.keys().cloned().collect::<std::collections::BTreeSet<_>>())
    };
    let known = keys(&schema["properties"])?;
    let here = keys(value).unwrap_or_default();
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let missing: Vec<_> = required.filter(|key| !here.contains(*key)).collect();
    let unknown: Vec<_> = here.difference(&known).collect();
    let wrong: Vec<_> = here
        .intersection(&known)
        .filter(|key| {
            let kinds = &schema["properties"][key.as_str()]["type"];
            let kind = match &value[key.as_str()] {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(_) => "integer",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            !(kinds.is_null() || kinds == kind || kinds.as_array().is_some_and(|kinds| kinds.contains(&kind.into())))
        })
        .collect();
    let fine = missing.is_empty() && unknown.is_empty() && wrong.is_empty();
    (!fine).then(|| format!("{name}: missing {missing:?}, unknown {unknown:?}, of another type {wrong:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::api::summary;
    use crate::serve::problem::Problem;
    use crate::serve::role::Role;
    use crate::serve::store::{NewDeployment, Seen, Store, Which, Who};
    use crate::serve::wishes::Request;
    use axum::response::IntoResponse;

    #[test]
    fn what_the_program_makes_is_what_the_schemas_say() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let seen = Seen {
            name: "pc".to_owned(),
            hardware: vec!["a".to_owned()],
            address: "10.0.0.1".to_owned(),
            interface: "eth0".to_owned(),
            disks: json!([]),
        };
        let id = store.on_machine(&seen).unwrap();
        store.accept(id, "anna").unwrap();
        let start = json!({ "when": "at", "at": "2026-12-01T02:00", "zone": "UTC", "grace": "1h", "wait_for": "50 %" });
        let request =
            json!({ "image": "a.slide", "machines": [id], "start": start, "waves": "1,rest", "max_failed": 1 });
        let request: Request = serde_json::from_value(request).unwrap();
        let request = json!(request);
        let anna = Who { name: "anna".to_owned(), user: None, role: Role::Admin, groups: Vec::new() };
        let wishes = request.to_string();
        let new = NewDeployment {
            id: "1",
            image: "a.slide",
            wishes: &wishes,
            machines: &[id],
            key: None,
            start: None,
            grace: 0,
            patience: None,
            wave: (1, 1, 0),
        };
        store.add_deployments(&[new], &anna).unwrap();
        store.add_group("room", false, "anna").unwrap();
        let mut machine = json!(store.machines().unwrap()[0]);
        machine["connected"] = true.into();
        machine["claimed_by"] = json!([]);
        let row = store.deployments(Which::All).unwrap().remove(0);
        let event = json!(store.events(0).unwrap()[0]);
        store.add_webhook("http://a/", &[], "secret", "anna").unwrap();
        let webhook = json!(store.webhooks().unwrap()[0]);
        let problem = Problem::bad("no").into_response().into_body();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let problem = runtime.block_on(axum::body::to_bytes(problem, usize::MAX)).unwrap();
        let problem = serde_json::from_slice(&problem).unwrap();
        for (name, value) in [
            ("Machine", machine),
            ("Deployment", summary(&row, &(row.word(), String::new()))),
            ("DeploymentRequest", request),
            ("Event", event),
            ("Webhook", webhook),
            ("Group", json!(store.groups().unwrap()[0])),
            ("Problem", problem),
        ] {
            assert_eq!(differs(name, &value), None, "{value}");
        }
        assert!(differs("Problem", &json!({ "type": 1 })).is_some());
    }
}
