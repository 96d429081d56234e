use super::machine::{Approval, ApprovalEvent, Caller, Entry, HeldId, Rules, Typed};
use super::{Applicant, Code, Identity, Share};
use crate::control::{Card, Disk, Held as DiskHeld, Hello, ToAgent, ToServer};
use crate::noise::PublicKey;
use crate::plan::CardId;
use crate::units::Time;
use core::time::Duration;

const NOBODY: &dyn Fn(&[u8; 16]) -> bool = &|_| false;
const EVERYBODY: &dyn Fn(&[u8; 16]) -> bool = &|_| true;

fn at(millis: u64) -> Time {
    Time(1).after(Duration::from_millis(millis))
}

/// Run `run` of an agent on the machine with this last byte in its hardware address, called from an address of its own.
fn caller(machine: u8, run: u8) -> Caller {
    let card = Card { name: "eth0".into(), mac: [2, 0, 0, 0, 0, machine], addresses: vec![], mbits: 0, up: true };
    let disk = Disk {
        path: "/dev/sda".into(),
        model: String::new(),
        serial: format!(" S{machine} "),
        wwn: String::new(),
        transport: "sata".into(),
        bytes: 1,
        logical_sector: 512,
        physical_sector: 512,
        rotational: false,
        removable: false,
        read_only: false,
        held: DiskHeld::No,
        file: false,
        other_paths: vec![],
    };
    let hello = Hello {
        agent_version: String::new(),
        hostname: format!("pc{machine}"),
        boot: [run; 16],
        ram_bytes: 0,
        cards: vec![card],
        disks: vec![disk],
        link_port: 1,
        target: String::new(),
    };
    let (key, card) = (Some(PublicKey([run; 32])), CardId("eth0".into()));
    Caller { hello, key, handshake: [run; 32], address: [10, 0, machine, 1].into(), card }
}

fn list(list: &[Identity]) -> Approval {
    Approval::by(Rules { list: list.to_vec(), codes: false }, 2)
}

fn codes() -> Approval {
    Approval::by(Rules { list: Vec::new(), codes: true }, 2)
}

fn mac(machine: u8) -> Identity {
    Identity::Mac([2, 0, 0, 0, 0, machine])
}

fn hello(approval: &mut Approval, caller: Caller, now: Time) -> Entry {
    let share = Share(caller.hello.boot);
    approval.on_hello(caller, share, NOBODY, now)
}

fn held(approval: &mut Approval, caller: Caller, now: Time) -> HeldId {
    match hello(approval, caller, now) {
        Entry::Held(id) => id,
        other => panic!("{other:?}"),
    }
}

fn events(approval: &mut Approval) -> Vec<ApprovalEvent> {
    std::iter::from_fn(|| approval.poll_event()).collect()
}

/// Plays the agent's part; gives the code on its screen.
fn show_code(approval: &mut Approval, id: HeldId, handshake: [u8; 32], now: Time) -> Code {
    let commitment = events(approval).into_iter().find_map(|event| match event {
        ApprovalEvent::Send(to, ToAgent::NotApproved(said)) if to == id => said.commitment,
        _ => None,
    });
    let share = Share([99; 16]);
    let applicant = Applicant::new(handshake, commitment.unwrap(), share);
    approval.on_message(id, &ToServer::ApprovalShare(share), now);
    let said = events(approval).into_iter().find_map(|event| match event {
        ApprovalEvent::Send(to, ToAgent::ApprovalShare(share)) if to == id => Some(share),
        _ => None,
    });
    applicant.on_share(said.unwrap()).unwrap()
}

#[test]
fn without_rules_everybody_is_let_in() {
    let mut approval = Approval::everybody();
    let entry = hello(&mut approval, caller(1, 1), at(0));
    assert_eq!(entry, Entry::Approved(Box::new(caller(1, 1))));
    assert_eq!((approval.deadline(), events(&mut approval)), (None, vec![]));
}

#[test]
fn a_listed_machine_is_let_in_by_address_disk_or_key() {
    let key = Identity::Key(PublicKey([9; 32]));
    for identity in [mac(1), Identity::Serial("S1".into()), Identity::Key(PublicKey([1; 32]))] {
        let mut approval = list(std::slice::from_ref(&identity));
        assert!(matches!(hello(&mut approval, caller(1, 1), at(0)), Entry::Approved(_)), "{identity}");
        assert!(matches!(hello(&mut approval, caller(2, 2), at(0)), Entry::Held(_)), "{identity}");
    }
    assert!(matches!(hello(&mut list(&[key]), caller(1, 1), at(0)), Entry::Held(_)));
}

#[test]
fn a_machine_that_is_not_listed_waits_hears_that_and_is_told_of() {
    let mut approval = list(&[mac(1)]);
    let id = held(&mut approval, caller(2, 2), at(0));
    let told = events(&mut approval);
    assert!(
        matches!(&told[0], ApprovalEvent::Send(to, ToAgent::NotApproved(said)) if *to == id && said.commitment.is_none())
    );
    assert_eq!(told[1], ApprovalEvent::Waits(id));
    approval.on_message(id, &ToServer::Heartbeat, at(400));
    approval.on_time(NOBODY, at(500));
    assert_eq!(events(&mut approval), [ApprovalEvent::Send(id, ToAgent::Heartbeat)]);
    let all = approval.unapproved();
    assert_eq!((all.len(), all[0].why.as_str()), (1, "it is not on the list"));
}

#[test]
fn an_entry_lets_in_one_machine_at_a_time() {
    let mut approval = list(&[mac(1)]);
    assert!(matches!(hello(&mut approval, caller(1, 1), at(0)), Entry::Approved(_)));
    // Another machine says the same address.
    let Entry::Held(thief) = approval.on_hello(caller(1, 2), Share([0; 16]), EVERYBODY, at(1)) else { panic!() };
    assert!(approval.get(thief).unwrap().why().contains("02:00:00:00:00:01 is on the list, and another machine"));
    // The first one comes back, which its key proves, whether the server has seen that it was gone or not.
    for here in [EVERYBODY, NOBODY] {
        assert!(matches!(approval.on_hello(caller(1, 1), Share([0; 16]), here, at(2)), Entry::Approved(_)));
    }
    events(&mut approval);
    approval.on_time(EVERYBODY, at(600));
    assert_eq!(events(&mut approval), [ApprovalEvent::Send(thief, ToAgent::Heartbeat)]);
}

#[test]
fn a_machine_whose_agent_was_started_again_is_let_in_when_the_first_run_is_gone() {
    let mut approval = list(&[mac(1)]);
    hello(&mut approval, caller(1, 1), at(0));
    let Entry::Held(id) = approval.on_hello(caller(1, 2), Share([0; 16]), EVERYBODY, at(1)) else { panic!() };
    events(&mut approval);
    approval.on_time(NOBODY, at(600));
    assert_eq!(events(&mut approval), [ApprovalEvent::Approved(id, Box::new(caller(1, 2)))]);
    assert!(approval.unapproved().is_empty());
}

#[test]
fn another_key_is_not_let_in_as_a_run_that_was() {
    let mut approval = list(&[mac(1)]);
    hello(&mut approval, caller(1, 1), at(0));
    let thief = Caller { key: Some(PublicKey([7; 32])), ..caller(1, 1) };
    assert!(matches!(approval.on_hello(thief, Share([0; 16]), EVERYBODY, at(1)), Entry::Held(_)));
}

#[test]
fn the_code_that_is_typed_lets_in_the_machine_that_shows_it() {
    let mut approval = codes();
    let first = held(&mut approval, caller(1, 1), at(0));
    let code = show_code(&mut approval, first, [1; 32], at(1));
    let second = held(&mut approval, caller(2, 2), at(0));
    let other = show_code(&mut approval, second, [2; 32], at(1));
    assert_ne!(code, other);
    assert_eq!(approval.get(first).unwrap().code, Some(code));
    assert_eq!(approval.on_typed(&code.to_string().to_lowercase(), at(2)), Typed::Approved(first));
    assert_eq!(events(&mut approval), [ApprovalEvent::Approved(first, Box::new(caller(1, 1)))]);
    assert_eq!(approval.on_typed(&code.to_string(), at(3)), Typed::Unknown(code), "a code lets in once");
    assert!(matches!(approval.on_typed("hello", at(3)), Typed::Bad(_)));
    assert_eq!(approval.held().map(|(id, _)| id).collect::<Vec<_>>(), [second]);
    // It comes back without a code; another run has to show one.
    assert!(matches!(hello(&mut approval, caller(1, 1), at(4)), Entry::Approved(_)));
    assert!(matches!(hello(&mut approval, caller(1, 3), at(5)), Entry::Held(_)));
}

#[test]
fn before_the_share_has_come_there_is_no_code_to_type() {
    let mut approval = codes();
    let id = held(&mut approval, caller(1, 1), at(0));
    assert_eq!(approval.get(id).unwrap().code, None);
    assert!(!events(&mut approval).contains(&ApprovalEvent::Waits(id)));
    assert_eq!(approval.unapproved()[0].why, "it showed no code");
}

#[test]
fn nobody_draws_a_code_twice_on_one_link() {
    let mut approval = codes();
    let id = held(&mut approval, caller(1, 1), at(0));
    show_code(&mut approval, id, [1; 32], at(1));
    approval.on_message(id, &ToServer::ApprovalShare(Share([5; 16])), at(2));
    assert!(matches!(events(&mut approval)[..], [ApprovalEvent::Close(gone, _)] if gone == id));
    let id = held(&mut list(&[mac(9)]), caller(1, 1), at(0));
    let mut approval = list(&[mac(9)]);
    assert_eq!(held(&mut approval, caller(1, 1), at(0)), id);
    events(&mut approval);
    approval.on_message(id, &ToServer::ApprovalShare(Share([5; 16])), at(2));
    assert!(matches!(events(&mut approval)[..], [ApprovalEvent::Close(..)]), "nor where there are no codes");
}

#[test]
fn two_machines_with_one_code_are_both_sent_away() {
    let mut approval = codes();
    // The same handshake hash and the same shares, which does not come about.
    let mut ids = Vec::new();
    for run in [1, 2] {
        let same = Caller { handshake: [1; 32], ..caller(run, run) };
        let Entry::Held(id) = approval.on_hello(same, Share([1; 16]), NOBODY, at(0)) else { panic!() };
        show_code(&mut approval, id, [1; 32], at(1));
        ids.push(id);
    }
    let code = approval.get(ids[0]).unwrap().code.unwrap();
    assert_eq!(approval.on_typed(&code.to_string(), at(2)), Typed::Ambiguous(code, 2));
    assert_eq!(approval.held().count(), 0);
    assert!(events(&mut approval).iter().all(|event| matches!(event, ApprovalEvent::Close(..))));
}

#[test]
fn a_list_and_codes_go_together() {
    let mut approval = Approval::by(Rules { list: vec![mac(1)], codes: true }, 2);
    assert!(matches!(hello(&mut approval, caller(1, 1), at(0)), Entry::Approved(_)));
    let id = held(&mut approval, caller(2, 2), at(0));
    let code = show_code(&mut approval, id, [2; 32], at(1));
    assert_eq!(approval.on_typed(&code.to_string(), at(2)), Typed::Approved(id));
}

#[test]
fn a_run_that_a_code_let_in_is_known_to_a_server_that_was_started_again() {
    let mut approval = codes();
    let run = caller(1, 1);
    approval.expect_back(run.hello.boot, run.key);
    assert!(approval.was_typed(&run.hello.boot));
    assert!(matches!(hello(&mut approval, run.clone(), at(0)), Entry::Approved(_)));
    let thief = Caller { key: Some(PublicKey([7; 32])), ..run.clone() };
    assert!(matches!(hello(&mut approval, thief, at(0)), Entry::Held(_)));
    // The operator wants a list now: codes that were typed before let nobody in.
    let mut approval = list(&[mac(9)]);
    approval.expect_back(run.hello.boot, run.key);
    assert!(matches!(hello(&mut approval, run, at(0)), Entry::Held(_)));
}

#[test]
fn whoever_is_silent_or_gone_waits_no_more_and_is_in_the_report() {
    let mut approval = list(&[mac(9)]);
    let silent = held(&mut approval, caller(1, 1), at(0));
    let gone = held(&mut approval, caller(2, 2), at(0));
    approval.on_gone(gone);
    events(&mut approval);
    for millis in (500..=3500).step_by(500) {
        approval.on_time(NOBODY, at(millis));
    }
    let closed = |event: &ApprovalEvent| matches!(event, ApprovalEvent::Close(id, "it is silent") if *id == silent);
    assert!(events(&mut approval).iter().any(closed));
    assert_eq!((approval.held().count(), approval.deadline(), approval.unapproved().len()), (0, None, 2));
    // The same machine again is one machine.
    held(&mut approval, caller(1, 3), at(4000));
    assert_eq!(approval.unapproved().len(), 2);
}

#[test]
fn a_server_that_stood_still_holds_nobodys_silence_against_it() {
    let mut approval = list(&[mac(9)]);
    held(&mut approval, caller(1, 1), at(0));
    approval.on_time(NOBODY, at(60_000));
    assert_eq!(approval.held().count(), 1);
}

#[test]
fn a_run_that_calls_again_waits_once() {
    let mut approval = codes();
    let first = held(&mut approval, caller(1, 1), at(0));
    events(&mut approval);
    held(&mut approval, caller(1, 1), at(1));
    assert_eq!(approval.held().count(), 1);
    assert!(matches!(events(&mut approval)[0], ApprovalEvent::Close(id, _) if id == first));
}

/// A stranger: number `count` of those that call from this address.
fn stranger(count: u16, address: [u8; 4]) -> Caller {
    let mut stranger = caller(0, 0);
    stranger.hello.boot[..2].copy_from_slice(&count.to_le_bytes());
    stranger.hello.cards.clear();
    stranger.key = None;
    Caller { address: address.into(), ..stranger }
}

#[test]
fn one_address_fills_no_table() {
    let mut approval = codes();
    let id = held(&mut approval, caller(1, 1), at(0));
    let code = show_code(&mut approval, id, [1; 32], at(1));
    for count in 1..5000 {
        hello(&mut approval, stranger(count, [10, 9, 9, 9]), at(2));
    }
    events(&mut approval);
    assert_eq!(approval.held().count(), 1 + 8);
    assert!(approval.unapproved().len() <= 1 + 8 + 64);
    assert_eq!(approval.on_typed(&code.to_string(), at(3)), Typed::Approved(id));
}

#[test]
fn a_crowd_of_addresses_fills_no_table_and_pushes_out_nobody_that_just_came() {
    let mut approval = codes();
    let id = held(&mut approval, caller(1, 1), at(0));
    let code = show_code(&mut approval, id, [1; 32], at(1));
    for count in 1..2_000_u16 {
        let [low, high] = count.to_le_bytes();
        hello(&mut approval, stranger(count, [10, 200, high, low]), at(2));
    }
    events(&mut approval);
    assert_eq!(approval.held().count(), 2 * 2 + 256);
    assert!(matches!(hello(&mut approval, caller(2, 2), at(3)), Entry::TurnedAway));
    assert_eq!(approval.on_typed(&code.to_string(), at(4)), Typed::Approved(id));
    // Those that were not approved within a minute make room.
    for (millis, machine) in [(30_000, 3), (61_000, 4)] {
        // One place was free; then one was old.
        held(&mut approval, caller(machine, machine), at(millis));
    }
    let machine = held(&mut approval, caller(5, 5), at(62_000));
    show_code(&mut approval, machine, [5; 32], at(62_001));
}

#[test]
fn whoever_has_most_places_gives_one_to_whoever_has_none() {
    let mut approval = codes();
    for count in 0..260_u16 {
        let [low, _] = (count / 4).to_le_bytes();
        hello(&mut approval, stranger(count, [10, 200, 0, low]), at(0));
    }
    assert_eq!(approval.held().count(), 260);
    assert!(matches!(hello(&mut approval, caller(1, 1), at(1)), Entry::Held(_)));
    assert_eq!(approval.held().count(), 260);
}
