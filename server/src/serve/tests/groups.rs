//! Groups, rules, and deployments that need a second person.

use super::*;

fn from(mac: &str, address: &str) -> Seen {
    Seen { address: address.to_owned(), ..seen(&[mac]) }
}

#[test]
fn a_machine_is_in_any_number_of_groups_and_a_group_that_goes_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let (a, b) = (accepted(&mut store, "a"), store.on_machine(&seen(&["b"])).unwrap());
    let room = store.add_group("Room 7", false, "anna").unwrap();
    let rack = store.add_group("rack", false, "anna").unwrap();
    assert!(matches!(store.add_group("ROOM 7", false, "anna"), Err(StoreError::GroupTaken { .. })));
    store.set_members(room, &[a, b], &[], "anna").unwrap();
    store.set_members(rack, &[a], &[], "anna").unwrap();
    assert_eq!(store.machines().unwrap()[0].groups, ["rack", "Room 7"]);
    assert_eq!(store.machines_of_group("room 7").unwrap(), [a], "the other is not accepted");
    assert_eq!(store.accept_group(room, "anna").unwrap(), 1);
    assert_eq!(store.machines_of_group("Room 7").unwrap(), [a, b]);
    store.set_group(room, Some("Room 8"), None, "anna").unwrap();
    store.set_members(room, &[], &[b], "anna").unwrap();
    assert_eq!(store.groups().unwrap()[1].machines, [a]);
    store.remove_group(rack, "anna").unwrap();
    assert_eq!(store.machines().unwrap()[0].groups, ["Room 8"]);
    assert!(matches!(store.set_members(room, &[99], &[], "anna"), Err(StoreError::NoMachine { machine: 99 })));
    assert!(matches!(store.remove_group(rack, "anna"), Err(StoreError::NoGroup { .. })));
    store.forget(a, "anna").unwrap();
    assert!(store.groups().unwrap()[0].machines.is_empty());
}

#[test]
fn a_rule_accepts_machines_of_its_subnet_those_that_wait_and_those_that_call_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let waits = store.on_machine(&from("a", "10.1.7.9")).unwrap();
    let room = store.add_group("room", false, "anna").unwrap();
    let rule = store.add_rule("10.1.7.0/24".parse().unwrap(), Some(room), "anna").unwrap();
    assert!(matches!(store.add_rule("10.1.7.0/24".parse().unwrap(), None, "anna"), Err(StoreError::RuleTaken { .. })));
    let later = store.on_machine(&from("b", "10.1.7.10")).unwrap();
    let elsewhere = store.on_machine(&from("c", "10.1.8.10")).unwrap();
    assert_eq!(store.machines_of_group("room").unwrap(), [waits, later]);
    assert_eq!(store.machines().unwrap()[2].state, "new");
    let who = |store: &Store| store.history(super::super::store::About::Machine(later)).unwrap()[0].who.clone();
    assert_eq!(who(&store), "rule 10.1.7.0/24");
    // Somebody has taken it out: it does not come back by calling again.
    store.set_members(room, &[], &[later], "anna").unwrap();
    store.on_machine(&from("b", "10.1.7.10")).unwrap();
    assert_eq!(store.machines_of_group("room").unwrap(), [waits]);
    // A machine that moves there is accepted when it calls from there.
    store.on_machine(&from("c", "10.1.7.11")).unwrap();
    assert_eq!(store.machines_of_group("room").unwrap(), [waits, elsewhere]);
    store.remove_rule(rule, "anna").unwrap();
    store.on_machine(&from("d", "10.1.7.12")).unwrap();
    assert_eq!(store.machines().unwrap()[3].state, "new");
}

#[test]
fn an_operator_with_groups_starts_and_stops_in_those_and_one_without_in_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let (a, b) = (accepted(&mut store, "a"), accepted(&mut store, "b"));
    let room = store.add_group("room", false, "anna").unwrap();
    store.set_members(room, &[a], &[], "anna").unwrap();
    let limited = who("ben", Role::Operator, &[room]);
    let refused = add_as(&mut store, "1", &[a, b], None, &limited).unwrap_err();
    assert!(matches!(refused, StoreError::NotYours { machine } if machine == b));
    assert!(store.deployments(Which::All).unwrap().is_empty(), "what was refused left nothing");
    add_as(&mut store, "1", &[a], None, &limited).unwrap();
    add_as(&mut store, "2", &[b], None, &who("carl", Role::Operator, &[])).unwrap();
    assert!(matches!(store.stop("2", &limited), Err(StoreError::NotYours { .. })));
    assert_eq!(store.stop("1", &limited).unwrap(), Stopped::Released);
    // Notes are given to the program that switches power, so they are limited as well.
    assert!(matches!(store.set_note(b, "bmc=10.0.0.9", &limited), Err(StoreError::NotYours { .. })));
    store.set_note(a, "by the window", &limited).unwrap();
    // An administrator is not limited, whatever is listed.
    assert_eq!(store.stop("2", &who("dora", Role::Admin, &[room])).unwrap(), Stopped::Released);
}

#[test]
fn the_only_group_of_an_operator_is_not_removed_because_that_would_open_all_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.invite("i", "ben", Role::Operator, i64::MAX, "").unwrap();
    let ben = store.join("i", "", "p").unwrap();
    store.add_session("s", &ben, i64::MAX).unwrap();
    let room = store.add_group("room", false, "anna").unwrap();
    store.set_user_groups(ben.id, &[room], "anna").unwrap();
    assert_eq!(store.of_session("s").unwrap().unwrap().limits(), Some(&[room][..]));
    assert!(matches!(store.remove_group(room, "anna"), Err(StoreError::GroupNeeded { .. })));
    store.set_user_groups(ben.id, &[], "anna").unwrap();
    assert_eq!(store.of_session("s").unwrap().unwrap().limits(), None);
    store.remove_group(room, "anna").unwrap();
}

#[test]
fn a_deployment_with_a_protected_machine_begins_when_somebody_else_confirms_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let (a, b) = (accepted(&mut store, "a"), accepted(&mut store, "b"));
    let room = store.add_group("room", true, "anna").unwrap();
    store.set_members(room, &[a], &[], "anna").unwrap();
    assert!(add(&mut store, "1", &[a, b], None).unwrap().is_empty(), "it is not released");
    assert_eq!(store.deployments(Which::Active).unwrap()[0].word(), "unconfirmed");
    assert!(matches!(store.confirm("1", &anna()), Err(StoreError::SamePerson { .. })));
    let stranger = store.add_group("other", false, "anna").unwrap();
    let carl = who("carl", Role::Operator, &[stranger]);
    assert!(matches!(store.confirm("1", &carl), Err(StoreError::NotYours { .. })));
    store.confirm("1", &who("ben", Role::Operator, &[])).unwrap();
    assert!(matches!(store.confirm("1", &who("ben", Role::Operator, &[])), Err(StoreError::NothingToConfirm { .. })));
    let (row, hardware) = store.release("1").unwrap().unwrap();
    assert_eq!((row.word(), hardware.len(), row.confirmed_by.as_deref()), ("waiting", 2, Some("ben")));
    assert!(store.release("1").unwrap().is_none(), "once");
    // Without a protected machine nobody else is asked, and what was not begun is over when it is stopped.
    store.end("1", 0, None, "").unwrap();
    assert_eq!(add(&mut store, "2", &[b], None).unwrap(), ["b"]);
    add(&mut store, "3", &[a], None).unwrap();
    assert_eq!(store.stop("3", &anna()).unwrap(), Stopped::Over);
    let row = store.deployments(Which::One("3")).unwrap().remove(0);
    assert_eq!((row.word(), row.exit_code), ("over", Some(1)));
    assert!(matches!(
        store.confirm("3", &carl),
        Err(StoreError::NotYours { .. } | StoreError::NothingToConfirm { .. })
    ));
}

#[test]
fn a_token_that_is_limited_to_a_group_is_so_after_a_restart_and_holds_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let (a, b) = (accepted(&mut store, "a"), accepted(&mut store, "b"));
    let room = store.add_group("Room 7", false, "anna").unwrap();
    store.set_members(room, &[a], &[], "anna").unwrap();
    let number = store.group_number("room 7").unwrap();
    assert!(matches!(store.group_number("Room 8"), Err(StoreError::NoGroup { .. })));
    assert!(matches!(store.add_token("x", Role::Operator, None, &[9], "anna"), Err(StoreError::NoGroup { .. })));
    assert!(store.of_token("x").unwrap().is_none(), "what was refused left nothing");
    store.add_token("0123456789", Role::Operator, None, &[number], "anna").unwrap();
    drop(store);
    let mut store = Store::open(dir.path()).unwrap();
    let token = store.of_token("0123456789").unwrap().unwrap();
    assert!(matches!(add_as(&mut store, "1", &[b], None, &token), Err(StoreError::NotYours { .. })));
    add_as(&mut store, "1", &[a], None, &token).unwrap();
    assert_eq!(store.tokens().unwrap()[0].groups, ["Room 7"]);
    assert_eq!(store.groups().unwrap()[0].operators, ["token 01234567"]);
    // Without its group it might use all machines.
    let refused = store.remove_group(room, "anna").unwrap_err().to_string();
    assert!(refused.starts_with("token 01234567 is limited to the group Room 7"), "{refused}");
    store.remove_token("0123456789", "anna").unwrap();
    store.remove_group(room, "anna").unwrap();
    let events = store.events(0).unwrap();
    let made = events.iter().find(|event| event.kind == "token-new").unwrap();
    assert_eq!(made.text, "token 01234567: operator, limited to Room 7");
}
