//! Times, waves, and what is ordered again.

use super::super::store::{Began, LeftOut, PATIENCE, now};
use super::*;

/// Machines of a deployment have ended so.
fn end(store: &mut Store, id: &str, how: &[(&str, &str)]) {
    let nodes: Vec<_> = how.iter().map(|(mac, words)| (Some((*mac).to_owned()), format!("pc: {words}"))).collect();
    store.on_nodes(id, &nodes).unwrap();
    store.end(id, 3, None, "").unwrap();
}

#[test]
fn a_deployment_with_a_time_is_due_then_and_not_before_and_the_time_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let (a, b) = (accepted(&mut store, "a"), accepted(&mut store, "b"));
    let (only_a, only_b) = (&[a], &[b]);
    let later = NewDeployment { start: Some((now() + 3600, "Europe/Berlin")), ..plain("1", only_a) };
    store.add_deployments(&[later], &anna()).unwrap();
    drop(store);
    let mut store = Store::open(dir.path()).unwrap();
    assert!(store.release("1").unwrap().is_none() && store.due().unwrap().is_empty());
    let row = store.deployments(Which::Active).unwrap().remove(0);
    assert_eq!((row.word(), row.start_zone.as_str()), ("scheduled", "Europe/Berlin"));
    let next = store.next_start().unwrap().unwrap();
    assert!((3500..=3600).contains(&next), "{next}");
    // It keeps its machines, and the server came back within the grace of the other one.
    assert!(matches!(add(&mut store, "2", &[a], None), Err(StoreError::InUse { .. })));
    let just_now = NewDeployment { start: Some((now() - 60, "UTC")), ..plain("3", only_b) };
    store.add_deployments(&[just_now], &anna()).unwrap();
    store.call_off().unwrap();
    assert_eq!(store.due().unwrap(), ["3"]);
    // Somebody does not want to wait.
    assert!(!store.hurry("1", &anna()).unwrap(), "the service does not have it");
    assert!(store.release("1").unwrap().is_some());
}

#[test]
fn a_start_that_was_missed_by_more_than_the_grace_is_told_and_does_not_happen() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let machine = accepted(&mut store, "a");
    let machines = &[machine];
    let missed = NewDeployment { start: Some((now() - 901, "UTC")), ..plain("1", machines) };
    store.add_deployments(&[missed], &anna()).unwrap();
    assert!(store.release("1").unwrap().is_none(), "also before anybody has looked");
    store.call_off().unwrap();
    assert!(store.due().unwrap().is_empty());
    let row = store.deployments(Which::One("1")).unwrap().remove(0);
    assert_eq!((row.word(), row.exit_code), ("over", Some(1)));
    assert!(row.detail.contains("was not running then"), "{}", row.detail);
    assert!(store.events(0).unwrap().iter().any(|event| event.kind == "deployment-missed"));
    add(&mut store, "2", &[machine], None).unwrap();
}

#[test]
fn a_clock_that_is_set_back_begins_nothing_early_and_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let machine = accepted(&mut store, "a");
    // As it looks after the clock was set back by an hour: released, and its time is to come.
    let machines = &[machine];
    let later = NewDeployment { start: Some((now() + 3600, "UTC")), ..plain("1", machines) };
    store.add_deployments(&[later], &anna()).unwrap();
    store.hurry("1", &anna()).unwrap();
    assert!(store.release("1").unwrap().is_some());
    assert!(store.due().unwrap().is_empty() && store.release("1").unwrap().is_none());
    store.call_off().unwrap();
    assert_eq!(store.deployments(Which::One("1")).unwrap()[0].word(), "waiting");
}

fn waves<'a>(ids: [&'a str; 3], machines: [&'a [i64]; 3], most: u32) -> Vec<NewDeployment<'a>> {
    let wave = |at: usize| (u32::try_from(at + 1).unwrap(), 3, most);
    (0..3).map(|at| NewDeployment { wave: wave(at), ..plain(ids[at], machines[at]) }).collect()
}

#[test]
fn a_wave_begins_when_the_one_before_it_is_over_and_too_many_failures_call_the_rest_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|mac| accepted(&mut store, mac));
    store.add_deployments(&waves(["1", "2", "3"], [&[a], &[b, c], &[d]], 0), &anna()).unwrap();
    assert_eq!(store.due().unwrap(), ["1"]);
    assert!(store.release("2").unwrap().is_none());
    store.release("1").unwrap().unwrap();
    assert_eq!(store.deployments(Which::One("2")).unwrap()[0].word(), "queued");
    end(&mut store, "1", &[("a", "done")]);
    store.call_off().unwrap();
    assert_eq!(store.due().unwrap(), ["2"]);
    store.release("2").unwrap().unwrap();
    end(&mut store, "2", &[("b", "done"), ("c", "failed (disk-write): Input/output error")]);
    assert_eq!(store.deployments(Which::One("2")).unwrap()[0].failed, Some(1));
    store.call_off().unwrap();
    let row = store.deployments(Which::One("3")).unwrap().remove(0);
    assert_eq!((row.word(), row.exit_code), ("over", Some(1)));
    assert!(row.detail.contains("1 machines did not get the image"), "{}", row.detail);
    assert_eq!(store.failed_machines("2").unwrap(), [c]);
    assert_eq!(store.failed_machines("3").unwrap(), [d]);
    assert!(matches!(store.failed_machines("1"), Err(StoreError::NothingFailed { .. })));
}

#[test]
fn so_many_machines_may_fail_over_all_waves_and_a_wave_that_is_stopped_is_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|mac| accepted(&mut store, mac));
    store.add_deployments(&waves(["1", "2", "3"], [&[a], &[b], &[c]], 1), &anna()).unwrap();
    store.release("1").unwrap().unwrap();
    end(&mut store, "1", &[]);
    store.call_off().unwrap();
    assert_eq!(store.due().unwrap(), ["2"], "one may fail");
    store.release("2").unwrap().unwrap();
    assert_eq!(store.stop("2", &anna()).unwrap(), Stopped::Released);
    end(&mut store, "2", &[("b", "done")]);
    store.call_off().unwrap();
    let row = store.deployments(Which::One("3")).unwrap().remove(0);
    assert!(row.word() == "over" && row.detail.contains("was stopped"), "{}", row.detail);
}

#[test]
fn one_second_person_agrees_to_all_waves() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|mac| accepted(&mut store, mac));
    let room = store.add_group("room", true, "anna").unwrap();
    store.set_members(room, &[c], &[], "anna").unwrap();
    store.add_deployments(&waves(["1", "2", "3"], [&[a], &[b], &[c]], 0), &anna()).unwrap();
    assert!(store.due().unwrap().is_empty(), "the last wave has a protected machine");
    store.confirm("1", &who("ben", Role::Operator, &[])).unwrap();
    assert!(store.deployments(Which::Active).unwrap().iter().all(|row| row.confirmed_by.as_deref() == Some("ben")));
    assert_eq!(store.due().unwrap(), ["1"]);
}

#[test]
fn a_second_person_may_use_the_machines_of_all_waves() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|mac| accepted(&mut store, mac));
    let mine = store.add_group("mine", false, "anna").unwrap();
    let room = store.add_group("room", true, "anna").unwrap();
    store.set_members(mine, &[a], &[], "anna").unwrap();
    store.set_members(room, &[c], &[], "anna").unwrap();
    store.add_deployments(&waves(["1", "2", "3"], [&[a], &[b], &[c]], 0), &anna()).unwrap();
    let refused = store.confirm("1", &who("ben", Role::Operator, &[mine]));
    assert!(matches!(refused, Err(StoreError::NotYours { .. })), "{refused:?}");
    assert!(store.due().unwrap().is_empty());
}

#[test]
fn waves_after_one_that_was_missed_do_not_begin_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|mac| accepted(&mut store, mac));
    let machines = [[a], [b], [c]];
    let mut all = waves(["1", "2", "3"], [&machines[0], &machines[1], &machines[2]], 3);
    all[0].start = Some((now() - 901, "UTC"));
    store.add_deployments(&all, &anna()).unwrap();
    store.call_off().unwrap();
    assert!(store.due().unwrap().is_empty());
    for id in ["2", "3"] {
        let row = store.deployments(Which::One(id)).unwrap().remove(0);
        assert!(row.word() == "over" && row.detail.contains("never began"), "{}", row.detail);
    }
}

#[test]
fn what_was_stopped_before_it_began_is_over_also_if_the_server_was_killed_in_between() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let machine = accepted(&mut store, "a");
    let machines = &[machine];
    let later = NewDeployment { start: Some((now() + 3600, "UTC")), ..plain("1", machines) };
    store.add_deployments(&[later], &anna()).unwrap();
    drop(store);
    let database = rusqlite::Connection::open(dir.path().join("slidecast.db")).unwrap();
    database.execute("UPDATE deployments SET stop = 1", []).unwrap();
    drop(database);
    let mut store = Store::open(dir.path()).unwrap();
    store.call_off().unwrap();
    assert_eq!(store.deployments(Which::One("1")).unwrap()[0].word(), "over");
    add(&mut store, "2", &[machine], None).unwrap();
}

#[test]
fn every_deployment_that_is_not_over_goes_on_after_a_restart_however_many_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let ids: Vec<String> = (1..=1001).map(|number| number.to_string()).collect();
    let rows = (1..).zip(&ids).map(|(wave, id)| NewDeployment { wave: (wave, 1001, 0), ..plain(id, &[]) });
    let rows: Vec<_> = rows.collect();
    store.add_deployments(&rows, &anna()).unwrap();
    assert_eq!(store.deployments(Which::Active).unwrap().len(), 1001);
    assert_eq!(store.deployments(Which::All).unwrap().len(), 1000);
}

#[test]
fn a_deployment_with_connected_machines_waits_for_a_minute_at_most_and_a_button_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let [a, b] = ["a", "b"].map(|mac| accepted(&mut store, mac));
    let (only_a, only_b) = (&[a], &[b]);
    let now_start = NewDeployment { patience: Some(PATIENCE), ..plain("1", only_a) };
    store.add_deployments(&[now_start], &anna()).unwrap();
    store.add_deployments(&[plain("2", only_b)], &anna()).unwrap();
    store.release("1").unwrap().unwrap();
    store.release("2").unwrap().unwrap();
    assert!(store.to_begin().unwrap().is_empty(), "its minute is not over");
    assert!((PATIENCE - 5..=PATIENCE).contains(&store.next_start().unwrap().unwrap()));
    assert!(store.hurry("2", &anna()).unwrap(), "the service has it");
    drop(store);
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!(store.to_begin().unwrap(), ["2"]);
    let set = |store: &Store, by: i64| {
        store.connection.execute("UPDATE deployments SET begin_by = ?1 WHERE id = '1'", [by]).unwrap();
    };
    set(&store, now());
    assert_eq!(store.to_begin().unwrap(), ["1", "2"]);
    set(&store, now() + 3600);
    assert!(store.is_to_begin("1").unwrap(), "the clock was set back since");
    store.on_started("1", &[]).unwrap();
    store.stop("2", &anna()).unwrap();
    assert!(store.to_begin().unwrap().is_empty());
}

#[test]
fn a_button_that_was_pressed_before_the_service_had_the_deployment_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let a = accepted(&mut store, "a");
    let machines = &[a];
    let later = NewDeployment { start: Some((now() + 3600, "UTC")), ..plain("1", machines) };
    store.add_deployments(&[later], &anna()).unwrap();
    assert!(!store.hurry("1", &anna()).unwrap());
    assert!(!store.is_to_begin("1").unwrap(), "the service does not have it");
    store.release("1").unwrap().unwrap();
    assert!(store.is_to_begin("1").unwrap());
}

#[test]
fn machines_without_a_place_in_the_plan_are_named_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let machines = ["a", "b", "c", "d"].map(|mac| accepted(&mut store, mac));
    add(&mut store, "1", &machines, None).unwrap();
    let began = |mac: &str, why: Option<&str>| Began { mac: mac.to_owned(), left_out: why.map(str::to_owned) };
    // The second one had left before, and called again.
    let all = [began("a", None), began("b", Some("refused")), began("b", None), began("c", Some("not ready"))];
    store.on_started("1", &all).unwrap();
    store.on_started("1", &[]).unwrap();
    let row = store.deployments(Which::One("1")).unwrap().remove(0);
    let left_out = |machine, why: &str| LeftOut { machine, name: "pc".to_owned(), why: why.to_owned() };
    assert_eq!(row.left_out, [left_out(machines[2], "not ready"), left_out(machines[3], "not connected")]);
    let events = store.events(0).unwrap();
    let started: Vec<_> = events.iter().filter(|event| event.kind == "deployment-started").collect();
    assert_eq!(started.len(), 1);
    assert_eq!(started[0].text, "without pc (not ready), pc (not connected)");
}

#[test]
fn accepted_machines_with_nothing_to_do_boot_their_own_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|mac| accepted(&mut store, mac));
    store.on_machine(&seen(&["new"])).unwrap();
    let own = |store: &Store| {
        let mut macs = store.own_disk().unwrap();
        macs.sort();
        macs
    };
    assert_eq!(own(&store), ["a", "b", "c", "d"]);
    let only_d = &[d];
    let later = NewDeployment { start: Some((now() + 3600, "UTC")), ..plain("later", only_d) };
    store.add_deployments(&[later], &anna()).unwrap();
    store.add_deployments(&waves(["1", "2", "3"], [&[a], &[b], &[c]], 0), &anna()).unwrap();
    assert_eq!(own(&store), ["a", "b", "c", "d"], "nothing has begun");
    store.release("1").unwrap().unwrap();
    assert_eq!(own(&store), ["d"], "the machines of later waves wait for their turn");
    store.on_nodes("1", &[(Some("a".to_owned()), "pc: failed (disk-write): no".to_owned())]).unwrap();
    assert_eq!(own(&store), ["d"], "it may come again");
    store.on_nodes("1", &[(Some("a".to_owned()), "pc: done".to_owned())]).unwrap();
    assert_eq!(own(&store), ["a", "d"]);
    store.end("1", 0, None, "").unwrap();
    store.stop("2", &anna()).unwrap();
    store.call_off().unwrap();
    assert_eq!(own(&store), ["a", "b", "c", "d"]);
    store.forget(d, "anna").unwrap_err();
    store.stop("later", &anna()).unwrap();
    store.forget(d, "anna").unwrap();
    assert_eq!(own(&store), ["a", "b", "c"], "it is to show itself again");
}
