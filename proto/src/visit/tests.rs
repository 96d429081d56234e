use super::*;
use crate::approval::Commitment;
use crate::control::{LinkClass, LinkSpec, Welcome};
use crate::deployment::tests;
use crate::units::{Epoch, LinkKey};

const T0: Time = Time(1_000_000);
const PATIENCE: Duration = Duration::from_secs(120);
const FIRST: DeploymentId = DeploymentId([1; 16]);
const SECOND: DeploymentId = DeploymentId([2; 16]);

/// A run of which only the orders count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fake {
    deployment: Option<DeploymentId>,
    joined: bool,
    ended: Option<EndState>,
    back: u32,
    messages: VecDeque<ToServer>,
}

impl Task for Fake {
    fn deployment(&self) -> DeploymentId {
        self.deployment.unwrap()
    }
    fn is_joined(&self) -> bool {
        self.joined
    }
    fn ended(&self) -> Option<EndState> {
        self.ended
    }
    fn on_join(&mut self, _: &Join, _: Time) {
        self.joined = true;
    }
    fn on_server_back(&mut self) {
        self.back += 1;
    }
    fn fail(&mut self, reason: Reason, detail: &str) {
        self.ended = Some(EndState::Failed);
        self.messages.push_back(word(&format!("{reason}: {detail}")));
    }
    fn poll_message(&mut self) -> Option<ToServer> {
        self.messages.pop_front()
    }
}

/// Something that a run says.
fn word(text: &str) -> ToServer {
    ToServer::Log(crate::control::LogLine { level: 3, text: text.to_owned() })
}

fn prepare(deployment: DeploymentId, then: Then) -> Prepare {
    Prepare { deployment, then, ..tests::prepare() }
}

fn ready(deployment: DeploymentId) -> Ready {
    let (target, describe) = ("/dev/a".to_owned(), String::new());
    Ready { deployment, target, describe, bytes: 1, rotational: false, direct: true, comparable: false, ring: 1 }
}

fn join(deployment: DeploymentId) -> ToAgent {
    let upstream = LinkSpec {
        node: NodeId::SERVER,
        address: "10.0.0.1:1".parse().unwrap(),
        key: LinkKey([0; 32]),
        class: LinkClass::Paced,
    };
    let (epoch, pass, chain, position, chain_len) = (Epoch(1), 1, 0, 1, 1);
    ToAgent::Join(Join { deployment, epoch, pass, chain, position, chain_len, upstream, downstream: None })
}

fn finish(deployment: DeploymentId, then: Then) -> ToAgent {
    ToAgent::Finish(Finish { deployment, then })
}

fn abort(deployment: DeploymentId) -> ToAgent {
    ToAgent::Abort(Abort { deployment, reason: Reason::Aborted, detail: String::new() })
}

const CONFIG: VisitConfig = VisitConfig { patience: PATIENCE, once: false, owns_machine: false, attended: false };

fn acts(visit: &mut Visit<Fake>) -> Vec<VisitAct<Fake>> {
    std::iter::from_fn(|| visit.poll()).collect()
}

/// A visit in which the hello was said.
fn greeted(config: VisitConfig) -> Visit<Fake> {
    let mut visit = Visit::new(config);
    visit.on_open(Some([0; 32]), Some(Share([0; 16])));
    assert_eq!(acts(&mut visit), [VisitAct::Greet]);
    visit
}

fn fake(deployment: DeploymentId) -> Fake {
    Fake { deployment: Some(deployment), ..Fake::default() }
}

/// A visit with a run that has a place.
fn running(config: VisitConfig, then: Then) -> Visit<Fake> {
    let mut visit = greeted(config);
    visit.on_order(ToAgent::Prepare(prepare(FIRST, then)), T0);
    visit.on_prepared(FIRST, Ok((fake(FIRST), ready(FIRST))));
    visit.on_order(join(FIRST), T0);
    let said = acts(&mut visit);
    assert!(matches!(said[..], [VisitAct::Prepare { .. }, VisitAct::Say(ToServer::Ready(_))]), "{said:?}");
    visit
}

fn after(seconds: u64) -> Time {
    T0.after(Duration::from_secs(seconds))
}

#[test]
fn an_order_that_ends_another_deployment_changes_nothing() {
    for order in [finish(SECOND, Then::Reboot), abort(SECOND), join(SECOND)] {
        let config = VisitConfig { once: true, owns_machine: true, ..CONFIG };
        let mut visit = running(config, Then::Hold);
        visit.on_order(order, T0);
        let strange = acts(&mut visit);
        assert!(matches!(strange[..], [] | [VisitAct::NotPrepared(SECOND)]), "{strange:?}");
        assert!(visit.task().is_some_and(Fake::is_joined));
    }
}

#[test]
fn what_a_run_has_to_say_is_said_before_it_is_let_go() {
    let mut visit = running(CONFIG, Then::Hold);
    visit.task_mut().unwrap().messages.push_back(word("last"));
    visit.on_order(finish(FIRST, Then::Poweroff), T0);
    let stop = VisitAct::Stop(Fake { joined: true, ..fake(FIRST) }, Stopped::Finished(Then::Poweroff));
    assert_eq!(acts(&mut visit), [VisitAct::Say(word("last")), stop], "a plain program stays");
}

#[test]
fn an_agent_leaves_after_its_only_deployment_and_a_machine_of_its_own_does_what_it_is_told() {
    for (once, owns_machine, then, leave) in [
        (true, false, Then::Reboot, Some(Leave::Exit(Then::Hold))),
        (false, true, Then::Reboot, Some(Leave::Exit(Then::Reboot))),
        (false, true, Then::Hold, None),
    ] {
        let mut visit = running(VisitConfig { once, owns_machine, ..CONFIG }, then);
        visit.on_order(finish(FIRST, then), T0);
        visit.on_order(ToAgent::Prepare(prepare(SECOND, then)), T0);
        let last = acts(&mut visit).pop();
        let stays = matches!(last, Some(VisitAct::Prepare { .. }));
        assert_eq!((stays, leave.map(VisitAct::Leave)), (leave.is_none(), last.filter(|_| !stays)));
    }
}

#[test]
fn an_abort_before_anything_was_prepared_ends_an_agent_that_is_there_for_one_deployment() {
    let mut visit = greeted(VisitConfig { once: true, ..CONFIG });
    visit.on_order(abort(FIRST), T0);
    assert_eq!(acts(&mut visit), [VisitAct::Leave(Leave::Exit(Then::Hold))]);
}

#[test]
fn a_target_that_was_opened_for_an_order_that_was_taken_back_is_let_go() {
    for order in [finish(FIRST, Then::Hold), abort(FIRST), ToAgent::Prepare(prepare(SECOND, Then::Hold))] {
        let mut visit = greeted(CONFIG);
        visit.on_order(ToAgent::Prepare(prepare(FIRST, Then::Hold)), T0);
        visit.on_order(order, T0);
        acts(&mut visit);
        visit.on_prepared(FIRST, Ok((fake(FIRST), ready(FIRST))));
        assert_eq!(acts(&mut visit), [VisitAct::Stop(fake(FIRST), Stopped::Dropped)]);
        assert!(visit.task().is_none());
    }
}

#[test]
fn a_run_with_a_place_goes_on_without_the_server_calls_it_again_and_is_told_when_it_is_back() {
    let mut visit = running(CONFIG, Then::Hold);
    assert_eq!(visit.on_lost(T0), Loss::GoingOn(PATIENCE));
    visit.task_mut().unwrap().messages.push_back(word("kept"));
    visit.on_time(T0);
    assert_eq!(acts(&mut visit), [], "nothing is said to nobody");
    assert_eq!(visit.deadline(), T0.after(RECONNECT));
    visit.on_time(visit.deadline());
    assert_eq!(acts(&mut visit), [VisitAct::Connect]);
    assert_eq!(visit.on_lost(after(1)), Loss::Again);
    visit.on_time(after(2));
    assert_eq!(acts(&mut visit), [VisitAct::Connect]);
    visit.on_open(None, None);
    assert_eq!(acts(&mut visit), [VisitAct::Greet, VisitAct::Say(word("kept"))]);
    assert_eq!(visit.task().unwrap().back, 1);
    visit.on_time(after(1000));
    assert_eq!(acts(&mut visit), []);
}

#[test]
fn a_node_without_a_place_looks_for_a_server_again_at_once() {
    let mut visit = greeted(CONFIG);
    visit.on_order(ToAgent::Prepare(prepare(FIRST, Then::Hold)), T0);
    acts(&mut visit);
    assert_eq!(visit.on_lost(T0), Loss::Idle);
    visit.on_time(T0);
    assert_eq!(acts(&mut visit), [VisitAct::Leave(Leave::Search)]);
}

#[test]
fn a_node_whose_server_stays_away_gives_up_unless_its_disk_is_done() {
    for (ended, then, owns_machine, leave) in [
        (None, Then::Reboot, true, Leave::Search),
        (Some(EndState::Done), Then::Reboot, true, Leave::Exit(Then::Reboot)),
        (Some(EndState::Done), Then::Reboot, false, Leave::Search),
        (Some(EndState::Failed), Then::Reboot, true, Leave::Search),
    ] {
        let mut visit = running(VisitConfig { owns_machine, ..CONFIG }, then);
        visit.task_mut().unwrap().ended = ended;
        visit.on_lost(T0);
        visit.on_time(T0.after(PATIENCE));
        let all = acts(&mut visit);
        assert_eq!(all.last(), Some(&VisitAct::Leave(leave)));
        let gave_up = all.iter().any(|act| matches!(act, VisitAct::GaveUp(Reason::ServerLost, _)));
        assert_eq!(gave_up, ended.is_none());
        assert!(all.iter().any(|act| matches!(act, VisitAct::Stop(_, Stopped::GivenUp))));
    }
}

#[test]
fn an_agent_that_is_stopped_says_why_and_ends() {
    let mut visit = running(CONFIG, Then::Reboot);
    visit.on_stopped();
    visit.on_stopped();
    let all = acts(&mut visit);
    assert!(matches!(
        all[..],
        [
            VisitAct::GaveUp(Reason::Aborted, _),
            VisitAct::Say(_),
            VisitAct::Stop(_, Stopped::GivenUp),
            VisitAct::Leave(Leave::Exit(Then::Hold))
        ]
    ));
}

#[test]
fn where_somebody_is_there_to_ask_an_ambiguous_target_is_asked_for() {
    let refused = Refused { deployment: FIRST, reason: Reason::TargetAmbiguous, detail: String::new() };
    let mut visit = greeted(VisitConfig { attended: true, ..CONFIG });
    let order = prepare(FIRST, Then::Hold);
    visit.on_order(ToAgent::Prepare(order.clone()), T0);
    visit.on_prepared(FIRST, Err(refused.clone()));
    visit.on_picked();
    visit.on_picked();
    let prepare = |picked| VisitAct::Prepare { prepare: order.clone(), picked };
    assert_eq!(acts(&mut visit), [prepare(false), VisitAct::Ask(refused.clone()), prepare(true)]);
    visit.on_prepared(FIRST, Err(refused.clone()));
    visit.on_order(abort(SECOND), T0);
    visit.on_order(abort(FIRST), T0);
    assert_eq!(acts(&mut visit), [VisitAct::Ask(refused.clone()), VisitAct::StopAsking]);
    let mut alone = greeted(VisitConfig { once: true, ..CONFIG });
    alone.on_order(ToAgent::Prepare(order.clone()), T0);
    alone.on_prepared(FIRST, Err(refused.clone()));
    let said = VisitAct::Say(ToServer::Refused(refused));
    assert_eq!(acts(&mut alone), [prepare(false), said, VisitAct::Leave(Leave::Exit(Then::Hold))]);
}

#[test]
fn one_share_is_said_on_one_link_and_a_false_answer_shows_no_code() {
    let mut visit = greeted(CONFIG);
    let commitment = Some(Commitment::to(Share([1; 16]), &[0; 32]));
    let wait = ToAgent::NotApproved(NotApproved { commitment });
    visit.on_order(wait.clone(), T0);
    visit.on_order(wait, T0);
    assert_eq!(acts(&mut visit), [VisitAct::Say(ToServer::ApprovalShare(Share([0; 16])))]);
    visit.on_order(ToAgent::ApprovalShare(Share([2; 16])), T0);
    assert_eq!(acts(&mut visit), [VisitAct::CodeIsFalse]);
    visit.on_order(ToAgent::Welcome(Welcome { node: NodeId(4), server_version: String::new() }), T0);
    assert_eq!(acts(&mut visit), [VisitAct::Approved]);
    assert_eq!(visit.node(), NodeId(4));
}

#[test]
fn a_link_is_kept_alive_and_a_silent_server_is_found_out() {
    let mut clock = ControlClock::new(T0);
    assert_eq!(clock.check(false, clock.deadline(false)), Err(Quiet::Handshake));
    clock.on_heard(after(4));
    clock.on_said(after(4));
    assert_eq!(clock.check(true, after(7)), Ok(false), "a heartbeat is no hello");
    assert_eq!(clock.deadline(true), after(8));
    clock.on_greeted(after(4));
    assert_eq!(clock.check(true, after(4)), Ok(false));
    assert_eq!(clock.check(true, clock.deadline(true)), Ok(true), "a heartbeat is due");
    assert_eq!(clock.check(true, after(8)), Err(Quiet::Silent(Duration::from_secs(4))));
}
