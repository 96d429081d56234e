//! The service itself, without a front end: several deployments of several images behind one port, with agents that receive them.
#![expect(clippy::unwrap_used, reason = "what fails in a test should stop it")]

use crate::support::{Agent, free_port, make_image};
use slidecast_image::Image;
use slidecast_proto::approval::{Approval, Identity};
use slidecast_proto::control::{Prepare, ToAgent};
use slidecast_proto::deployment::DeploymentConfig;
use slidecast_proto::fleet::Wanted;
use slidecast_proto::noise::{PublicKey, SecretKey};
use slidecast_proto::plan::PlanLimits;
use slidecast_proto::reason::{Free, Reason, Then, Verify};
use slidecast_proto::units::DeploymentId;
use slidecast_server::clock::Clock;
use slidecast_server::nic::{CardSpeed, Nics};
use slidecast_server::service::{Command, Event, Finished, Front, Handle, Service, ServiceConfig, Sockets, Start};
use slidecast_server::view::Facts;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

/// How long anything may take.
const LONG: Duration = Duration::from_secs(60);

/// A front end that passes all events on.
struct Recorder(Sender<Event>);

impl Front for Recorder {
    fn on_event(&mut self, event: Event) -> Option<Command> {
        let _ = self.0.send(event);
        None
    }
}

/// A service that runs in a thread.
struct Running {
    port: u16,
    public: PublicKey,
    handle: Handle,
    events: Receiver<Event>,
    thread: JoinHandle<()>,
}

impl Running {
    /// On a card that several deployments have room on.
    fn start() -> Self {
        Self::on_card(10_000)
    }

    /// On a card of this speed in Mbit/s; the links of the agents have 1000.
    fn on_card(mbits: u32) -> Self {
        let port = free_port();
        let secret = SecretKey::generate().unwrap();
        let public = secret.public();
        let service = Service::new(ServiceConfig {
            sockets: Sockets::listen(port).unwrap(),
            id: DeploymentId([9; 16]),
            secret: Some(secret),
            nics: Nics::of_this_machine(&["lo".to_owned()], &[CardSpeed { name: "lo".to_owned(), mbits }]).unwrap(),
            clock: Clock::start(),
            approval: Approval::everybody(),
        })
        .unwrap();
        let (handle, (sender, events)) = (service.handle(), channel());
        let thread = spawn(move || drop(service.run(&mut Recorder(sender)).unwrap()));
        Self { port, public, handle, events, thread }
    }

    /// Waits for an event that `wanted` takes.
    fn wait<T>(&self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.events.recv_timeout(LONG).unwrap()) {
                return found;
            }
        }
    }

    fn wait_until_over(&self, id: u8) -> Box<Finished> {
        self.wait(|event| match event {
            Event::Over(finished) if finished.id == DeploymentId([id; 16]) => Some(finished),
            _ => None,
        })
    }

    /// Waits until this machine is there and idle.
    fn wait_until_idle(&self, machine: u8) {
        self.wait(|event| match event {
            Event::Machine(view) => {
                (view.hello.cards[0].mac == mac(machine) && view.deployment.is_none()).then_some(())
            }
            _ => None,
        });
    }

    fn agent(&self, machine: u8) -> Agent {
        Agent::connect_as(self.port, Some(self.public), mac(machine)).unwrap()
    }

    /// Starts a deployment to one machine.
    fn deploy(&self, image: &Path, id: u8, machine: u8) {
        let image = Arc::new(Image::open(image).unwrap().resolve().unwrap());
        let header = image.header();
        let prepare = Prepare {
            deployment: DeploymentId([id; 16]),
            root: image.root(),
            image: "x.slide".to_owned(),
            disk_bytes: header.disk_bytes,
            sector: header.sector,
            block: header.block,
            grain: header.grain,
            selector: String::new(),
            verify: Verify::Full,
            free: Free::Keep,
            then: Then::Hold,
            fresh: false,
        };
        let config = DeploymentConfig {
            prepare,
            blocks: header.blocks,
            secret: [id; 32],
            wait_for: 1,
            timeout: None,
            join_window: None,
            cards: Vec::new(),
            limits: PlanLimits::default(),
            version: "test".to_owned(),
        };
        let facts = Facts {
            image: "x.slide".to_owned(),
            disk_bytes: header.disk_bytes,
            raw_bytes: header.raw_bytes,
            stored_bytes: image.stored_bytes(),
            blocks: header.blocks,
            deployment: DeploymentId([id; 16]).to_string(),
            key: None,
            port: self.port,
            wait_for: 1,
            timeout: None,
        };
        let wanted = Wanted::Machines([Identity::Mac(mac(machine))].into());
        let start = Start { image, facts: Arc::new(facts), config, wanted, state_file: None, resume: None };
        self.handle.tell(Command::Start(Box::new(start)));
    }

    fn stop(&self, id: u8) {
        self.handle.tell(Command::Stop(DeploymentId([id; 16])));
    }

    fn close(self) {
        self.handle.tell(Command::Close);
        self.thread.join().unwrap();
    }
}

fn mac(machine: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, machine]
}

#[test]
fn two_images_go_to_chosen_machines_at_once_and_one_is_stopped_while_the_other_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let images = [make_image(dir.path(), "first", 1), make_image(dir.path(), "second", 2)];
    let service = Running::start();
    let [mut first, mut second, mut third] = [1, 2, 3].map(|machine| {
        let agent = service.agent(machine);
        service.wait_until_idle(machine);
        agent
    });
    let (end, ends) = channel::<()>();
    let third = spawn(move || third.idle(|| ends.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty)));
    service.deploy(&images[0], 1, 1);
    service.deploy(&images[1], 2, 2);
    let ((go, goes), (joined, has_joined)) = (channel::<()>(), channel());
    let first = spawn(move || {
        let (prepare, join) = first.join();
        joined.send(prepare.root).unwrap();
        // Its block stream begins only when the other deployment is over.
        first.idle(|| goes.try_recv().is_err());
        let received = first.receive(&prepare, &join, u32::MAX).unwrap();
        assert_eq!(received.blocks.count(), received.header.blocks);
        first.finish();
        // It is idle again.
        first
    });
    let second_again = second.join();
    assert_ne!(has_joined.recv_timeout(LONG).unwrap(), second_again.0.root, "two images");
    service.stop(2);
    assert_eq!(second.wait_for_abort().reason, Reason::Aborted);
    let stopped = service.wait_until_over(2);
    assert_eq!((stopped.machine.exit_code(), stopped.machine.nodes().count()), (Some(3), 1));
    go.send(()).unwrap();
    let done = service.wait_until_over(1);
    assert_eq!(done.machine.exit_code(), Some(0));
    assert!(done.egress() > 12 << 20);
    assert_eq!(done.report().nodes.len(), 1);
    drop(first.join().unwrap());
    // The machine whose deployment was stopped takes part in another one, on the same control link.
    let second = spawn(move || {
        let (prepare, join) = second.join();
        second.receive(&prepare, &join, u32::MAX).unwrap();
        second.finish();
    });
    service.deploy(&images[0], 3, 2);
    assert_eq!(service.wait_until_over(3).machine.exit_code(), Some(0));
    second.join().unwrap();
    drop(end);
    let heard = third.join().unwrap();
    let of_a_deployment = |order: &&ToAgent| !matches!(order, ToAgent::Welcome(_) | ToAgent::Heartbeat);
    assert_eq!(heard.iter().find(of_a_deployment), None, "no deployment wanted the third machine");
    assert!(heard.contains(&ToAgent::Heartbeat));
    service.close();
}

#[test]
fn a_deployment_waits_for_a_card_that_another_one_fills_says_so_and_begins_when_that_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let image = make_image(dir.path(), "first", 1);
    let service = Running::on_card(1000);
    let [mut first, mut second] = [1, 2].map(|machine| service.agent(machine));
    service.deploy(&image, 1, 1);
    let (_, _) = first.join();
    service.deploy(&image, 2, 2);
    // Its machine is ready, which it must be told for as long as that lasts.
    let second = spawn(move || second.join().0.deployment);
    let waits = service.wait(|event| match event {
        Event::Snapshot(id, snapshot) if id == DeploymentId([2; 16]) => snapshot.waits,
        _ => None,
    });
    assert_eq!((waits.card.0.as_str(), waits.other, waits.runs), ("lo", DeploymentId([1; 16]), true));
    service.stop(1);
    first.wait_for_abort();
    assert_eq!(second.join().unwrap(), DeploymentId([2; 16]));
    service.close();
}

#[test]
fn a_deployment_whose_machines_do_not_come_keeps_no_card_from_another() {
    let dir = tempfile::tempdir().unwrap();
    let image = make_image(dir.path(), "first", 1);
    let service = Running::on_card(1000);
    service.deploy(&image, 1, 9);
    service.deploy(&image, 2, 2);
    let mut second = service.agent(2);
    assert_eq!(second.join().0.deployment, DeploymentId([2; 16]));
    service.close();
}

#[test]
fn a_machine_that_two_deployments_want_goes_to_the_second_one_when_the_first_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let image = make_image(dir.path(), "first", 1);
    let service = Running::start();
    service.deploy(&image, 1, 1);
    service.deploy(&image, 2, 1);
    let mut agent = service.agent(1);
    let (prepare, _) = agent.join();
    assert_eq!(prepare.deployment, DeploymentId([1; 16]));
    service.stop(1);
    agent.wait_for_abort();
    service.wait_until_over(1);
    let (prepare, _) = agent.join();
    assert_eq!(prepare.deployment, DeploymentId([2; 16]));
    service.close();
}
