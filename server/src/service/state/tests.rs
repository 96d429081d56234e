use super::*;
use crate::failure::one_line;
use slidecast_proto::control::Ready;
use slidecast_proto::deployment::{Place, SavedEnd, SavedNode};
use slidecast_proto::plan::CardId;
use slidecast_proto::reason::{EndState, LookedAt, Reason, Verified};
use slidecast_proto::units::NodeId;

const PORT: &str = "7531";

fn fingerprint() -> RequestFingerprint {
    let word = |word: &str| word.to_owned();
    RequestFingerprint {
        root: word("ab"),
        target: word(""),
        verify: word("full"),
        free: word("keep"),
        then: word("hold"),
        fresh: false,
        insecure: false,
    }
}

fn open(folder: &Path, fingerprint: RequestFingerprint) -> Result<StateFile, StateError> {
    let mut state_file = StateFile::open(folder, PORT, "base.slide".to_owned(), fingerprint)?;
    state_file.begin(DeploymentId([7; 16]));
    state_file.start(|| {});
    Ok(state_file)
}

fn saved() -> Saved {
    let ready = Ready {
        deployment: DeploymentId([7; 16]),
        target: "/dev/sda".to_owned(),
        describe: "disk".to_owned(),
        bytes: 5,
        rotational: false,
        direct: true,
        comparable: true,
        ring: 9,
    };
    let node = SavedNode {
        id: NodeId(1),
        boot: [3; 16],
        hostname: "host".to_owned(),
        card: CardId("eth0".to_owned()),
        address: [10, 0, 0, 1].into(),
        place: Place { chain: 0, position: 1 },
        ready,
        end: None,
        repairs: 1,
        moved: false,
        late: true,
    };
    let end = SavedEnd {
        state: EndState::Done,
        reason: Reason::None,
        detail: String::new(),
        verified: Verified::Direct,
        blocks: (3, 4),
        last_look: (LookedAt::All, 7),
        after: Duration::from_millis(1500),
    };
    let ended = SavedNode { id: NodeId(2), boot: [4; 16], end: Some(end), ..node.clone() };
    Saved { pass: 3, last_id: 4, elapsed: Duration::from_secs(9), nodes: vec![node, ended] }
}

fn wait_until_kept(state_file: &mut StateFile) {
    state_file.keep(2, &saved(), |_| None, |_| false, 78, false);
    while state_file.kept() < 2 {
        std::thread::yield_now();
    }
}

/// Leaves a state as a killed server does.
fn leave(folder: &Path) -> Keys {
    let keys = Keys::from([([3; 16], Some(PublicKey([5; 32]))), ([4; 16], None)]);
    open(folder, fingerprint()).unwrap().keep(
        1,
        &saved(),
        |boot| keys.get(boot).copied().flatten(),
        |boot| *boot == [4; 16],
        77,
        true,
    );
    keys
}

#[test]
fn what_is_kept_comes_back_and_is_gone_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let keys = leave(dir.path());
    let mut state_file = open(dir.path(), fingerprint()).unwrap();
    let Found::Unfinished(found) = state_file.find(false, SystemTime::now()).unwrap() else { panic!("it is there") };
    assert_eq!((found.deployment, found.saved, found.egress), (DeploymentId([7; 16]), saved(), 77));
    assert_eq!((found.keys, found.approved), (keys.clone(), vec![[4; 16]]));
    state_file.remove();
    assert!(matches!(state_file.find(false, SystemTime::now()), Ok(Found::Unfinished(_))), "not before it is ours");
    state_file.keep(1, &saved(), |boot| keys.get(boot).copied().flatten(), |_| false, 78, false);
    wait_until_kept(&mut state_file);
    state_file.remove();
    drop(state_file);
    let state_file = open(dir.path(), fingerprint()).unwrap();
    assert!(matches!(state_file.find(false, SystemTime::now()), Ok(Found::Nothing)));
}

#[test]
fn another_image_or_another_wish_is_another_deployment() {
    let dir = tempfile::tempdir().unwrap();
    leave(dir.path());
    for (other, what) in [
        (RequestFingerprint { root: "cd".to_owned(), ..fingerprint() }, "used a different image"),
        (RequestFingerprint { fresh: true, ..fingerprint() }, "used a different --fresh"),
    ] {
        let state_file = open(dir.path(), other).unwrap();
        let now = SystemTime::now();
        assert!(matches!(state_file.find(false, now), Ok(Found::Superseded(StateError::Other { .. }))));
        let error = state_file.find(true, now).unwrap_err();
        assert!(one_line(&error).ends_with(what), "{error}");
    }
}

#[test]
fn after_two_minutes_there_is_nothing_to_go_on_with() {
    let dir = tempfile::tempdir().unwrap();
    leave(dir.path());
    let state_file = open(dir.path(), fingerprint()).unwrap();
    let later = SystemTime::now() + HOLD + Duration::from_secs(2);
    assert!(matches!(state_file.find(false, later), Ok(Found::Superseded(StateError::Old { .. }))));
    assert!(matches!(state_file.find(true, later), Err(StateError::Old { .. })));
}

#[test]
fn a_file_that_makes_no_sense_is_named_and_stops_nobody_but_resume() {
    let dir = tempfile::tempdir().unwrap();
    leave(dir.path());
    let path = dir.path().join("deploy-7531.json");
    for text in [String::new(), "{}".to_owned(), fs::read_to_string(&path).unwrap().replace("full\",\"free", "x")] {
        fs::write(&path, text).unwrap();
        let state_file = open(dir.path(), fingerprint()).unwrap();
        assert!(matches!(state_file.find(false, SystemTime::now()), Ok(Found::Superseded(_))));
        let error = state_file.find(true, SystemTime::now()).unwrap_err();
        assert!(one_line(&error).contains("deploy-7531.json is not a valid deployment state file"), "{error}");
    }
    fs::remove_file(&path).unwrap();
    let state_file = open(dir.path(), fingerprint()).unwrap();
    assert!(matches!(state_file.find(true, SystemTime::now()), Err(StateError::Nothing { .. })));
}

#[test]
fn what_killed_servers_left_half_written_is_collected_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let make = |name: &str, hours: u64| {
        let modified = SystemTime::now() - Duration::from_secs(hours * 3600);
        File::create(path(name)).unwrap().set_modified(modified).unwrap();
    };
    let dead = [(".deploy-7531-aB3dE6", 0), (".deploy12abCD", 2)];
    // Of a server on another port, of an older version that may run, of somebody else.
    let kept = [
        (".deploy-7532-aB3dE6", 9),
        (".deployaaaaaa", 0),
        (".deploy-7531-note-s", 9),
        (".deployment", 9),
        ("server.key", 9),
    ];
    dead.iter().chain(&kept).for_each(|(name, hours)| make(name, *hours));
    fs::create_dir(path(".deploy-7531-folder")).unwrap();
    let _state_file = open(dir.path(), fingerprint()).unwrap();
    assert!(dead.iter().all(|(name, _)| !path(name).exists()));
    assert!(kept.iter().all(|(name, _)| path(name).exists()));
    assert!(path(".deploy-7531-folder").exists());
}

#[test]
fn two_deployments_that_run_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), fingerprint()).unwrap();
    assert!(matches!(open(dir.path(), fingerprint()), Err(StateError::Busy { .. })));
    drop(first);
    assert!(open(dir.path(), fingerprint()).is_ok());
}
