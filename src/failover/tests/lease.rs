//! Instances under a guard: what the Lease adds to detection, order and proof.

use super::*;
use crate::lease::{self, After, Hold, Orders, Promise, Seal};
use crate::scene::LeaseFacts;

pub(super) const L: Duration = Duration::from_secs(15);

fn lease(hold: Hold, promise: Option<Promise>, unchanged: Duration) -> LeaseFacts {
    LeaseFacts {
        judged: judged("books-writer"),
        record: lease::Record {
            hold,
            epoch: 3,
            promise,
            orders: Orders::default(),
        },
        unchanged,
    }
}

pub(super) fn taken(pod: &str) -> Hold {
    Hold::Taken {
        pod: format!("uid-{pod}"),
        start: "1".into(),
    }
}

pub(super) fn sealed(pod: &str, after: After) -> Hold {
    Hold::Sealed(Some(Seal {
        pod: format!("uid-{pod}"),
        after,
    }))
}

/// One that also promises to stop by itself.
pub(super) const PROMISE: Option<Promise> = Some(Promise {
    takeover_after: L,
    stops_after: Some(Duration::from_secs(10)),
});

/// One that renews and goes on without the API.
const LENIENT: Option<Promise> = Some(Promise {
    takeover_after: L,
    stops_after: None,
});

impl Scene {
    pub(super) fn lease(mut self, hold: Hold, promise: Option<Promise>, unchanged: Duration) -> Self {
        self.lease = Some(lease(hold, promise, unchanged));
        self
    }
    pub(super) fn proof(mut self, proof: Proof) -> Self {
        self.policy.proof = proof;
        self
    }
    fn always(mut self) -> Self {
        self.policy.moves_while_it_answers = true;
        self
    }
}

pub(super) fn guarded(pod: PodFacts) -> PodFacts {
    PodFacts { guarded: true, ..pod }
}

pub(super) fn running_on_n1() -> Scene {
    scene()
        .held_by("old", Some("n1"))
        .with(guarded(running("old", "n1")))
        .attached("n1")
        .in_use_on("n1")
}

fn silent_n1() -> Scene {
    dead_node().with(guarded(running("old", "n1")))
}

fn evicted() -> Scene {
    dead_node().with(guarded(gated("new"))).login(Login::NotTried)
}

pub(super) fn seal(pod: &str, after: After) -> Act {
    Act::Seal {
        lease: judged("books-writer"),
        seal: Seal {
            pod: format!("uid-{pod}"),
            after,
        },
    }
}

#[test]
fn a_lease_that_is_renewed_keeps_a_silent_node() {
    let renewed = silent_n1().lease(taken("old"), PROMISE, Duration::from_secs(14));
    let verdict = assert_no_act(&renewed, State::Suspect, "NodeSilentLeaseRenewed");
    assert_eq!(verdict.recheck, Duration::from_secs(1));
    // whoever says so
    let mut confirmed = renewed.clone();
    confirmed.confirmed_dead = Some("uid-old".into());
    assert_no_act(&confirmed, State::Suspect, "NodeSilentLeaseRenewed");
    // and also when somebody deleted the pod
    let gone = evicted().lease(taken("old"), PROMISE, Duration::from_secs(14));
    assert_no_act(&gone, State::Suspect, "NodeSilentLeaseRenewed");
}

#[test]
fn the_lease_is_sealed_before_the_pod_is_evicted() {
    let silent = silent_n1();
    for (hold, promise, after) in [
        (taken("old"), PROMISE, After::Expiry),
        (taken("old"), LENIENT, After::Nothing),
        (taken("old"), None, After::Nothing),
        (Hold::Named("uid-old".into()), None, After::Nothing),
        (Hold::Stopped("uid-old".into()), None, After::Stop),
    ] {
        let sealing = silent.clone().lease(hold.clone(), promise, L);
        let verdict = decide(&sealing);
        assert_eq!(
            (verdict.state, verdict.act),
            (State::Sealing, Some(seal("old", after))),
            "{hold}"
        );
        let sealed = silent.clone().lease(sealed("old", after), None, Duration::ZERO);
        assert_eq!(act(&sealed), Act::Evict { pod: judged("old") });
    }
}

#[test]
fn a_sealed_lease_goes_on_even_where_the_node_is_back() {
    let back = running_on_n1().lease(sealed("old", After::Expiry), None, Duration::ZERO);
    assert_eq!(act(&back), Act::Evict { pod: judged("old") });
}

#[test]
fn an_expired_lease_makes_a_healthy_node_suspect_for_this_instance() {
    let expired = running_on_n1().lease(taken("old"), PROMISE, L);
    assert_no_act(
        &expired.clone().login(Login::Succeeded),
        State::Suspect,
        "LeaseExpiredDatabaseAnswers",
    );
    assert_no_act(&expired.clone().login(Login::NotTried), State::Suspect, "LeaseExpired");
    let silent = expired.clone().login(Login::Failed("no answer".into()));
    assert_eq!(act(&silent), seal("old", After::Expiry));
    assert_eq!(
        act(&expired.always().login(Login::Succeeded)),
        seal("old", After::Expiry)
    );
    assert_no_act(&silent.silent("n2").silent("n3"), State::Blocked, "TooManyNodesSilent");
    let unpromised = running_on_n1().lease(taken("old"), None, L * 100);
    assert_no_act(
        &unpromised.login(Login::Failed("no answer".into())),
        State::Running,
        "PodRunning",
    );
}

#[test]
fn the_next_look_is_when_the_lease_would_expire() {
    let healthy = running_on_n1().lease(taken("old"), PROMISE, Duration::from_millis(14_500));
    assert_eq!(decide(&healthy).recheck, Duration::from_millis(500));
}

#[test]
fn a_pod_past_its_gate_that_the_lease_is_not_for_is_replaced_and_the_record_kept() {
    let by_hand = scene()
        .held_by("old", Some("n1"))
        .with(guarded(running("other", "n2")))
        .lease(taken("old"), None, Duration::ZERO);
    assert_eq!(act(&by_hand), Act::Evict { pod: judged("other") });
    let mut held = by_hand.clone();
    held.pods[0].deleting = true;
    held.pods[0].has_finalizers = true;
    assert_no_act(&held, State::Blocked, "FinalizerHolds");
    let mut without_guard = by_hand;
    without_guard.pods[0].guarded = false;
    assert_eq!(act(&without_guard), recorded("other", Some("n2")));
}

#[test]
fn a_pod_that_stops_in_order_is_hurried_only_once_its_guard_says_that_the_engine_has_ended() {
    let deleting = |hold, promise| {
        let mut scene = running_on_n1().lease(hold, promise, Duration::ZERO);
        scene.pods[0].deleting = true;
        scene
    };
    assert_no_act(&deleting(taken("old"), PROMISE), State::Stopping, "Stopping");
    assert_no_act(&deleting(taken("old"), None), State::Stopping, "Stopping");
    let mut stopped = deleting(Hold::Stopped("uid-old".into()), None);
    assert_eq!(act(&stopped), Act::Evict { pod: judged("old") });
    // where the successor cannot come to this node, nothing is gained by waiting for it
    let drained = stopped.clone().node("n1", |n| n.schedulable = false);
    let Act::Seal { seal, .. } = act(&drained) else {
        panic!("the guard is not let go: {:?}", decide(&drained));
    };
    assert_eq!((seal.pod.as_str(), seal.after), ("uid-old", After::Stop));
    let mut lost = stopped.clone();
    lost.claim.avoid = vec!["n1".into()];
    assert!(matches!(act(&lost), Act::Seal { .. }), "{:?}", decide(&lost));
    stopped.pods[0].has_finalizers = true;
    assert_no_act(&stopped, State::Stopping, "Stopping");
}

#[test]
fn after_a_seal_no_pod_is_pinned_to_the_node_that_the_volume_is_being_taken_from() {
    let gone = |renewed| {
        scene()
            .held_by("old", Some("n1"))
            .with(guarded(gated("new")))
            .attached("n1")
            .in_use_on("n1")
            .lease(sealed("old", After::Expiry), None, Duration::ZERO)
            .node("n1", |n| n.renewed_since_release = renewed)
    };
    assert_no_act(&gone(false), State::Releasing, "NodeReleasing");
    assert_no_act(&gone(true), State::Releasing, "NodeReleasing");
    // one whose Lease has expired is sealed first
    let expired = gone(true).lease(taken("old"), PROMISE, L);
    assert_eq!(act(&expired), seal("old", After::Expiry));
}

#[test]
fn the_gate_opens_for_a_pod_that_the_lease_names() {
    let recorded = |hold| {
        scene()
            .held_by("new", None)
            .with(guarded(gated("new")))
            .lease(hold, None, Duration::ZERO)
    };
    let open = |name| Act::OpenGate {
        pod: judged("new"),
        placement: Placement::Avoiding(Vec::new()),
        name,
    };
    assert_eq!(
        act(&recorded(sealed("old", After::Nothing))),
        open(Some(judged("books-writer")))
    );
    assert_eq!(
        act(&recorded(Hold::Foreign("x".into()))),
        open(Some(judged("books-writer")))
    );
    assert_eq!(act(&recorded(Hold::Named("uid-new".into()))), open(None));
    let mut missing = recorded(Hold::Sealed(None));
    missing.lease = None;
    assert_no_act(&missing, State::Waiting, "LeaseMissing");
}

/// The node is alive, cordoned, and reports nothing in use.
fn released(hold: Hold) -> Scene {
    scene()
        .held_by("old", Some("n1"))
        .with(guarded(gated("new")))
        .node("n1", |n| {
            n.renewed_since_release = true;
            n.schedulable = false;
        })
        .lease(hold, None, Duration::ZERO)
}

#[test]
fn who_acknowledged_a_stop_is_kept_from_starting_again_before_the_next_record() {
    assert_eq!(
        act(&released(Hold::Stopped("uid-old".into()))),
        seal("old", After::Stop)
    );
    assert_eq!(act(&released(sealed("old", After::Stop))), recorded("new", None));
    assert_eq!(
        act(&released(taken("old"))),
        recorded("new", None),
        "its kubelet has unmounted"
    );
}

// found by the model: the operator itself had taken the volume off the list while the node was silent
#[test]
fn a_node_that_was_lost_and_lists_nothing_must_have_said_so_itself() {
    let mut lost_before = released(taken("old"));
    lost_before.claim.avoid = vec!["n1".into()];
    assert_eq!(
        decide(&lost_before).evidence,
        Some(Evidence::StorageRevoked),
        "it was taken from it"
    );
    let mut lost_before = lost_before.class(DriverClass::Unknown);
    assert_no_act(&lost_before, State::Releasing, "NodeReleasing");
    for seconds in [0, 179] {
        lost_before = lost_before.node("n1", |n| n.unlisted_for = Duration::from_secs(seconds));
        assert_no_act(&lost_before, State::Releasing, "NodeReleasing");
    }
    let settled = lost_before
        .clone()
        .node("n1", |n| n.unlisted_for = Duration::from_secs(180));
    assert_eq!(decide(&settled).evidence, Some(Evidence::NodeReleased));
    lost_before.claim.boots = [("n1".to_owned(), "zeroth".to_owned())].into();
    assert_eq!(decide(&lost_before).evidence, Some(Evidence::NodeReleased));
}

#[test]
fn an_orderly_stop_is_a_proof_once_the_volume_is_detached() {
    let stopped = || {
        scene()
            .held_by("old", Some("n1"))
            .with(guarded(gated("new")))
            .node("n1", |n| n.schedulable = false)
            .lease(sealed("old", After::Stop), None, Duration::ZERO)
    };
    assert_eq!(decide(&stopped()).evidence, Some(Evidence::GuardStopped));
    assert_no_act(&stopped().attached("n1"), State::Releasing, "NodeReleasing");
    assert_no_act(
        &stopped().node("n1", |n| n.volumes_attached = vec![UNIQUE.into()]),
        State::Releasing,
        "NodeReleasing",
    );
    assert_no_act(&stopped().proof(Proof::Manual), State::Releasing, "NodeReleasing");
    let another = stopped().lease(sealed("older", After::Stop), None, Duration::ZERO);
    assert_no_act(&another, State::Releasing, "NodeReleasing");
    // and where the node died afterwards, of any class
    let dead = stopped().silent("n1").attached("n1").class(DriverClass::Unknown);
    assert_eq!(act(&dead), Act::Lose { node: "n1".into() });
}

// the record is older than the world (etcd was set back): the pod of record stopped, and another one runs on n2
#[test]
fn the_lease_says_nothing_about_a_node_that_uses_the_volume_beside_the_record() {
    for (after, proof) in [(After::Stop, Proof::Storage), (After::Expiry, Proof::Lease)] {
        let record = |node| {
            scene()
                .class(DriverClass::Unknown)
                .held_by("old", node)
                .with(guarded(gated("new")))
                .silent("n1")
                .node("n2", |n| n.renewed_since_release = true)
                .node("n3", |n| n.renewed_since_release = true)
                .lease(sealed("old", after), None, Duration::ZERO)
                .proof(proof)
        };
        for node in [Some("n1"), None] {
            assert_no_act(&record(node).in_use_on("n2"), State::Releasing, "NodeReleasing");
            let silent = record(node).in_use_on("n2").silent("n2");
            assert_eq!(decide(&silent).state, State::Blocked, "{after:?} {node:?}");
        }
        assert_eq!(act(&record(Some("n1")).in_use_on("n1")), recorded("new", None));
        // the attachment to a third node tells of a pod that the Lease does not speak of
        let attached = record(Some("n1")).attached("n2").silent("n2");
        assert_eq!(decide(&attached).state, State::Blocked, "{after:?}");
    }
    let stopped = scene().held_by("old", Some("n1")).with(guarded(gated("new"))).lease(
        Hold::Stopped("uid-old".into()),
        None,
        Duration::ZERO,
    );
    assert_eq!(act(&stopped), seal("old", After::Stop));
    assert_no_act(&stopped.in_use_on("n2"), State::Releasing, "NodeReleasing");
}

#[test]
fn a_node_that_falls_silent_after_an_orderly_stop_needs_no_other_proof() {
    let silent = |hold| {
        silent_n1()
            .class(DriverClass::Unknown)
            .lease(hold, None, Duration::ZERO)
    };
    let stopped = || silent(Hold::Stopped("uid-old".into()));
    assert_eq!(act(&stopped()), seal("old", After::Stop));
    assert_no_act(&stopped().proof(Proof::Manual), State::Blocked, "WaitsForWord");
    assert_no_act(&silent(taken("old")), State::Blocked, "DriverClassUnknown");
    let mut unguarded = silent(sealed("old", After::Stop));
    unguarded.pods[0].guarded = false;
    assert_eq!(act(&unguarded), Act::Evict { pod: judged("old") });
}

#[test]
fn an_expired_lease_is_a_proof_only_where_it_is_asked_for_and_was_promised() {
    let dead = || silent_n1().class(DriverClass::Unknown);
    let expired = || dead().lease(taken("old"), PROMISE, L);
    assert_no_act(&expired(), State::Blocked, "DriverClassUnknown");
    assert_eq!(act(&expired().proof(Proof::Lease)), seal("old", After::Expiry));
    for (hold, promise) in [
        (taken("old"), LENIENT),
        (taken("old"), None),
        (Hold::Named("uid-old".into()), None),
    ] {
        let scene = dead().lease(hold, promise, L).proof(Proof::Lease);
        assert_no_act(&scene, State::Blocked, "NothingPromised");
    }
    let gone = |after| {
        let mut scene = evicted()
            .class(DriverClass::Unknown)
            .lease(sealed("old", after), None, Duration::ZERO);
        scene.attachments.clear();
        scene
    };
    let proven = gone(After::Expiry).proof(Proof::Lease);
    assert_eq!(decide(&proven).evidence, Some(Evidence::LeaseExpired));
    let mut attached = proven.attached("n1").node("n1", |n| n.volumes_in_use.clear());
    // the seal says so, too, but somebody may delete the Lease
    assert_eq!(act(&attached), Act::Lose { node: "n1".into() });
    attached.claim.avoid = vec!["n1".into()];
    assert_no_act(&attached, State::Detaching, "Detaching");
    assert_no_act(
        &gone(After::Nothing).proof(Proof::Lease),
        State::Blocked,
        "NothingPromised",
    );
    assert_no_act(&gone(After::Expiry), State::Blocked, "DriverClassUnknown");
}

#[test]
fn whoever_decides_by_hand_is_asked_for_every_dead_node() {
    for class in [DriverClass::Revoke, DriverClass::Unknown] {
        let dead = silent_n1().class(class).proof(Proof::Manual);
        assert_no_act(
            &dead.clone().lease(taken("old"), PROMISE, L),
            State::Blocked,
            "WaitsForWord",
        );
        let mut confirmed = dead.lease(sealed("old", After::Nothing), None, L);
        confirmed.confirmed_dead = Some("uid-old".into());
        assert_eq!(act(&confirmed), Act::Evict { pod: judged("old") });
    }
    let deleted = scene()
        .held_by("old", Some("n1"))
        .with(gated("new"))
        .attached("n1")
        .in_use_on("n1");
    assert_eq!(decide(&deleted).evidence, Some(Evidence::PinnedRestart));
    assert_no_act(&deleted.proof(Proof::Manual), State::Releasing, "NodeReleasing");
}
