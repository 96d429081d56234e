use super::role::Role;
use super::store::{MAX_REMOVED, NewDeployment, Seen, Stopped, Store, StoreError, Which, Who, now};
use super::wishes::Request;
use serde_json::json;

mod groups;
mod schedule;

fn seen(hardware: &[&str]) -> Seen {
    Seen {
        name: "pc".to_owned(),
        hardware: hardware.iter().map(|mac| (*mac).to_owned()).collect(),
        address: "10.0.0.1".to_owned(),
        interface: "eth0".to_owned(),
        disks: json!([]),
    }
}

fn who(name: &str, role: Role, groups: &[i64]) -> Who {
    Who { name: name.to_owned(), user: None, role, groups: groups.to_vec() }
}

fn anna() -> Who {
    who("anna", Role::Admin, &[])
}

/// Asks for a deployment as this person; gives the hardware addresses of its machines once it is released.
fn add_as(
    store: &mut Store,
    id: &str,
    machines: &[i64],
    key: Option<&str>,
    who: &Who,
) -> Result<Vec<String>, StoreError> {
    let new = NewDeployment { key, ..plain(id, machines) };
    store.add_deployments(&[new], who)?;
    Ok(store.release(id)?.map(|(_, hardware)| hardware).unwrap_or_default())
}

/// A deployment that waits for nothing.
fn plain<'a>(id: &'a str, machines: &'a [i64]) -> NewDeployment<'a> {
    NewDeployment {
        id,
        image: "x.slide",
        wishes: "{}",
        machines,
        key: None,
        start: None,
        grace: 900,
        patience: None,
        wave: (1, 1, 0),
    }
}

fn add(store: &mut Store, id: &str, machines: &[i64], key: Option<&str>) -> Result<Vec<String>, StoreError> {
    add_as(store, id, machines, key, &anna())
}

fn accepted(store: &mut Store, mac: &str) -> i64 {
    let machine = store.on_machine(&seen(&[mac])).unwrap();
    store.accept(machine, "anna").unwrap();
    machine
}

#[test]
fn a_machine_is_known_by_any_of_its_cards() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let first = store.on_machine(&seen(&["a", "b"])).unwrap();
    assert_eq!(store.on_machine(&seen(&["b", "c"])).unwrap(), first);
    assert_ne!(store.on_machine(&seen(&["d"])).unwrap(), first);
    assert_eq!(store.machines().unwrap()[0].hardware, ["a", "b", "c"]);
    assert!(matches!(store.accept(99, "anna"), Err(StoreError::NoMachine { machine: 99 })));
}

#[test]
fn a_machine_is_in_one_active_deployment_at_most_and_free_after_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let machine = accepted(&mut store, "a");
    let new = store.on_machine(&seen(&["b"])).unwrap();
    let refused = add(&mut store, "0", &[new], None);
    assert!(matches!(refused, Err(StoreError::NotAccepted { .. })));
    assert_eq!(add(&mut store, "1", &[machine], Some("key")).unwrap(), ["a"]);
    assert!(matches!(add(&mut store, "2", &[machine], None), Err(StoreError::InUse { .. })));
    assert_eq!(store.deployments(Which::All).unwrap().len(), 1, "what was refused left nothing");
    store.end("1", 0, Some(&json!({ "nodes": [] })), "").unwrap();
    assert_eq!(add(&mut store, "2", &[machine], None).unwrap(), ["a"]);
    assert_eq!(store.by_idempotency_key("key").unwrap().as_deref(), Some("1"));
}

#[test]
fn a_database_that_was_opened_again_has_everything_and_a_deployment_that_is_over_does_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let machine = accepted(&mut store, "a");
    add(&mut store, "1", &[machine], None).unwrap();
    store.on_started("1", &[]).unwrap();
    assert_eq!(store.stop("1", &anna()).unwrap(), Stopped::Released);
    store.add_token("hash", Role::Operator, None, &[], "anna").unwrap();
    drop(store);
    let mut store = Store::open(dir.path()).unwrap();
    let row = store.deployments(Which::Active).unwrap().remove(0);
    assert!(row.started && row.stop && row.machines == [machine]);
    assert_eq!(store.of_token("hash").unwrap().unwrap().role, Role::Operator);
    assert_eq!(store.of_token("other").unwrap(), None);
    store.end("1", 3, None, "why").unwrap();
    store.end("1", 0, None, "").unwrap();
    let row = store.deployments(Which::One("1")).unwrap().remove(0);
    assert_eq!((row.exit_code, row.detail.as_str()), (Some(3), "why"));
    assert_eq!(store.stop("1", &anna()).unwrap(), Stopped::Nothing);
    let kinds: Vec<String> = store.events(0).unwrap().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds[..3], ["machine-new", "machine-accepted", "deployment-accepted"]);
}

#[test]
fn a_database_of_a_later_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let path = dir.path().join("slidecast.db");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{} has version 99", path.display())), "{error}");
    std::fs::write(&path, "no database at all, but a text of some length").unwrap();
    let error = crate::failure::one_line(&Store::open(dir.path()).unwrap_err());
    assert!(error.contains("restore a copy") && error.contains("not a database"), "{error}");
}

#[test]
fn a_database_that_another_program_has_locked_is_waited_for_and_then_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let other = rusqlite::Connection::open(dir.path().join("slidecast.db")).unwrap();
    other.pragma_update(None, "locking_mode", "EXCLUSIVE").unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = crate::failure::one_line(&Store::open(dir.path()).unwrap_err());
    assert!(error.contains("another program has locked it") && error.lines().count() == 1, "{error}");
    drop(other);
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_database_that_is_damaged_inside_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let path = dir.path().join("slidecast.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // The page with the table of tables.
    bytes[100..4096].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    let error = crate::failure::one_line(&Store::open(dir.path()).unwrap_err());
    assert!(error.contains("restore a copy of it"), "{error}");
}

#[test]
fn a_request_that_makes_no_sense_is_refused_with_the_key_that_is_wrong() {
    let wrong = |body: serde_json::Value| {
        let request: Request = serde_json::from_value(body).unwrap();
        request.wishes().unwrap_err().to_string()
    };
    let with = |key: &str, value: serde_json::Value| {
        let mut body = json!({ "image": "x.slide", "machines": [1, 2] });
        body[key] = value;
        body
    };
    for (key, value) in [
        ("machines", json!([])),
        ("machines", json!([1, 1])),
        ("wait_for", json!(0)),
        ("wait_for", json!(3)),
        ("verify", json!("some")),
        ("target", json!("serial=")),
        ("timeout", json!("soon")),
    ] {
        let said = wrong(with(key, value));
        assert!(said.starts_with(&format!("{key}: ")), "{said}");
    }
    let request: Request = serde_json::from_value(with("fresh", json!(true))).unwrap();
    let wishes = request.wishes().unwrap();
    assert_eq!((wishes.wait_for, wishes.fresh, wishes.selector.as_str()), (2, true, ""));
}

#[test]
fn a_database_of_version_1_is_brought_up_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let old = rusqlite::Connection::open(dir.path().join("slidecast.db")).unwrap();
    old.execute_batch(include_str!("schema.sql")).unwrap();
    old.execute_batch(
        "INSERT INTO tokens (hash, role, created) VALUES ('h', 'admin', 1);
         INSERT INTO events (at, kind, text) VALUES (1, 'line', 'kept');",
    )
    .unwrap();
    drop(old);
    let store = Store::open(dir.path()).unwrap();
    let who = store.of_token("h").unwrap().unwrap();
    assert_eq!((who.role, who.limits(), store.events(0).unwrap().len()), (Role::Admin, None, 1));
    drop(store);
    assert!(Store::open(dir.path()).unwrap().users().unwrap().is_empty());
}

#[test]
fn a_machine_that_was_forgotten_is_new_when_it_calls_and_one_at_work_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let machine = accepted(&mut store, "a");
    add(&mut store, "1", &[machine], None).unwrap();
    assert!(matches!(store.forget(machine, "anna"), Err(StoreError::InUse { .. })));
    store.end("1", 0, None, "").unwrap();
    store.forget(machine, "anna").unwrap();
    assert!(store.machines().unwrap().is_empty());
    let again = store.on_machine(&seen(&["a"])).unwrap();
    assert_ne!(again, machine);
    assert_eq!(store.machines().unwrap()[0].state, "new");
    assert!(matches!(store.forget(machine, "anna"), Err(StoreError::NoMachine { .. })));
}

#[test]
fn a_link_works_once_and_what_was_ordered_is_kept_with_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.invite("first", "", Role::Admin, i64::MAX, "").unwrap();
    store.invite("late", "carl", Role::Viewer, 1, "anna").unwrap();
    assert!(matches!(store.join("late", "carl", "p"), Err(StoreError::NoInvitation)));
    let anna = store.join("first", "Anna", "p").unwrap();
    assert!(matches!(store.join("first", "Ben", "p"), Err(StoreError::NoInvitation)));
    store.add_session("session", &anna, i64::MAX).unwrap();
    assert_eq!(store.of_session("session").unwrap().unwrap().name, "Anna");
    // Names are the same in capitals: nobody can pose as another.
    store.invite("second", "", Role::Viewer, i64::MAX, "").unwrap();
    assert!(matches!(store.join("second", "ANNA", "p"), Err(StoreError::NameTaken { .. })));
    assert!(matches!(store.remove_user(anna.id, "Anna"), Err(StoreError::LastAdmin)));
    assert!(matches!(store.set_role(anna.id, Role::Viewer, "Anna"), Err(StoreError::LastAdmin)));
    // A link for a name that is there gives it a new password and ends its sessions.
    store.invite("reset", "anna", Role::Admin, i64::MAX, "Anna").unwrap();
    assert_eq!(store.join("reset", "", "q").unwrap().password, "q");
    assert_eq!(store.of_session("session").unwrap(), None);
    let commands = store.history(super::store::About::Commands).unwrap();
    assert!(commands.iter().any(|event| event.kind == "user-invited" && event.who == "Anna"), "{commands:?}");
}

#[test]
fn a_token_or_a_session_that_has_ended_is_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.add_token("over", Role::Admin, Some(1), &[], "anna").unwrap();
    store.add_token("now", Role::Admin, Some(i64::MAX), &[], "anna").unwrap();
    assert_eq!((store.of_token("over").unwrap(), store.of_token("now").unwrap().is_some()), (None, true));
    store.remove_token("now", "anna").unwrap();
    assert_eq!(store.of_token("now").unwrap(), None);
    store.invite("i", "anna", Role::Admin, i64::MAX, "").unwrap();
    let anna = store.join("i", "", "p").unwrap();
    store.add_session("s", &anna, 1).unwrap();
    assert_eq!(store.of_session("s").unwrap(), None);
}

#[test]
fn a_new_password_ends_all_sessions_but_the_one_it_was_given_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.invite("a", "anna", Role::Admin, i64::MAX, "").unwrap();
    store.invite("b", "ben", Role::Viewer, i64::MAX, "").unwrap();
    let (anna, ben) = (store.join("a", "", "p").unwrap(), store.join("b", "", "p").unwrap());
    for (session, user) in [("here", &anna), ("elsewhere", &anna), ("ben's", &ben)] {
        store.add_session(session, user, i64::MAX).unwrap();
    }
    store.set_password(&anna, "q", "here").unwrap();
    let lives = ["here", "elsewhere", "ben's"].map(|session| store.of_session(session).unwrap().is_some());
    assert_eq!((lives, store.user("anna").unwrap().unwrap().password), ([true, false, true], "q".to_owned()));
}

#[test]
fn a_webhook_has_events_of_other_kinds_behind_it_and_its_path_is_told_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.add_webhook("https://chat.example/in/secret", &["token-new".to_owned()], "s", "anna").unwrap();
    let text = store.events(0).unwrap().into_iter().find(|event| event.kind == "webhook-new").unwrap().text;
    assert_eq!(text, "webhook 1: https://chat.example");
    accepted(&mut store, "a");
    let taken = |store: &Store| store.webhooks().unwrap()[0].taken;
    assert!(taken(&store) < store.newest_event());
    assert!(store.webhooks_due(0).unwrap().is_empty());
    assert_eq!(taken(&store), store.newest_event(), "they are not looked through again");
}

#[test]
fn a_webhook_that_failed_is_tried_after_its_wait_also_when_the_clock_was_set_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let hook = store.add_webhook("http://a.example", &[], "s", "anna").unwrap();
    store.add_event("line", None, "x").unwrap();
    // The third failure waits for 20 s.
    for _ in 0..3 {
        store.on_webhook_failed(hook, 1_000_020, "no").unwrap();
    }
    let due = |store: &mut Store, at: i64| store.webhooks_due(at).unwrap().len();
    assert_eq!((due(&mut store, 1_000_000), due(&mut store, 1_000_019), due(&mut store, 1_000_020)), (0, 0, 1));
    assert_eq!(due(&mut store, 999_999), 1, "no retry is 21 s away after three failures");
    for count in 1..64 {
        store.add_webhook(&format!("http://{count}.example"), &[], "s", "anna").unwrap();
    }
    let refused = store.add_webhook("http://one-more.example", &[], "s", "anna").unwrap_err();
    assert!(refused.to_string().contains("64 webhooks already"), "{refused}");
}

#[test]
fn old_events_go_and_those_of_machines_the_newest_and_reports_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let machine = accepted(&mut store, "a");
    add(&mut store, "1", &[machine], None).unwrap();
    store.end("1", 0, Some(&json!({ "nodes": [] })), "").unwrap();
    // Of long ago: lines of a deployment, and what a machine has seen.
    let old = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
               INSERT INTO events (at, kind, deployment, text) SELECT i, 'line', '1', 'x' FROM n";
    store.connection.execute(old, []).unwrap();
    let node = "INSERT INTO events (at, kind, deployment, machine, text) VALUES (5, 'node', '1', ?1, 'pc: done')";
    store.connection.execute(node, [machine]).unwrap();
    assert_eq!(store.remove_events(now()).unwrap(), 0, "the newest stay, whatever the clock says");
    let new = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9990)
               INSERT INTO events (at, kind, text) SELECT unixepoch (), 'line', 'y' FROM n";
    store.connection.execute(new, []).unwrap();
    let parts: Vec<usize> = (0..3).map(|_| store.remove_events(1_000_000).unwrap()).collect();
    assert!(parts[0] == MAX_REMOVED && parts[1] > 400 && parts[2] == 0, "{parts:?}");
    let count = |which: &str| {
        let select = format!("SELECT count (*) FROM events WHERE {which}");
        store.connection.query_row(&select, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!((count("machine = 1 AND kind = 'node'"), count("text = 'y'")), (1, 9990));
    assert_eq!(store.machines().unwrap()[0].holds.as_deref(), Some("x.slide"));
    assert!(store.deployments(Which::One("1")).unwrap()[0].report.is_some());
    // Whatever a program asks for: the rule is in the database.
    for kept in ["machine = 1", "at > 1000000"] {
        let refused = store.connection.execute(&format!("DELETE FROM events WHERE {kept}"), []);
        assert!(refused.unwrap_err().to_string().contains("are kept"), "{kept}");
    }
}
