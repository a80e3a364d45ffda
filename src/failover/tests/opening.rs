//! The first start, the record and the gate.

use super::*;

const S: fn(u64) -> Duration = Duration::from_secs;

#[test]
fn a_first_start_is_recorded_and_then_the_gate_opens() {
    let verdict = decide(&scene().with(gated("first")));
    assert_eq!(verdict.act, Some(recorded("first", None)));
    assert_eq!(verdict.evidence, Some(Evidence::FirstStart));
    let next = scene().with(gated("first")).held_by("first", None);
    assert_eq!(
        act(&next),
        Act::OpenGate {
            pod: judged("first"),
            placement: Placement::Avoiding(Vec::new()),
            name: None,
        }
    );
}

#[test]
fn a_first_start_waits_while_the_volume_is_attached_anywhere() {
    assert_no_act(
        &scene().with(gated("first")).attached("n2"),
        State::Detaching,
        "VolumeAttachedElsewhere",
    );
}

#[test]
fn a_claim_mounted_by_a_foreign_pod_keeps_the_gate_shut() {
    let foreign = |change: fn(&mut PodFacts)| {
        let mut pod = PodFacts {
            ours: false,
            ..running("backup", "n2")
        };
        change(&mut pod);
        scene().with(gated("first")).with(pod)
    };
    assert_no_act(&foreign(|_| {}), State::Blocked, "ClaimInUse");
    assert_no_act(&foreign(|pod| pod.node = None), State::Blocked, "ClaimInUse");
    assert_eq!(act(&foreign(|pod| pod.finished = true)), recorded("first", None));
}

#[test]
fn an_operator_that_remembers_nothing_still_keeps_the_next_pod_off_the_node_that_was_lost() {
    // the volume was taken from n1 and the record written; then another operator took over, to which n1 still looks alive
    let mut scene = scene().with(gated("new")).held_by("new", None);
    scene.claim.avoid = vec!["n1".into()];
    let placement = match decide(&scene).act {
        Some(Act::OpenGate { placement, .. }) => placement,
        other => panic!("{other:?}"),
    };
    assert_eq!(placement, Placement::Avoiding(vec!["n1".into()]));
    assert_eq!(after_eviction().lost_nodes(), ["n1"]);
    assert_eq!(
        dead_node().without_node("n1").lost_nodes(),
        ["n1"],
        "its object may come back, and its engine with it"
    );
}

#[test]
fn a_pod_let_in_after_a_node_failure_is_kept_off_the_silent_nodes() {
    let mut proven = after_eviction()
        .held_by("new", None)
        .node("n1", |n| n.volumes_in_use.clear());
    proven.attachments.clear();
    let placement = Placement::Avoiding(vec!["n1".into()]);
    assert_eq!(
        act(&proven),
        Act::OpenGate {
            pod: judged("new"),
            placement,
            name: None,
        }
    );
}

#[test]
fn a_node_that_uses_the_volume_beside_the_record_keeps_every_gate_shut() {
    // a record from an older copy of etcd; or somebody else took the volume after it was written
    let records = [
        scene().with(gated("new")),
        scene().with(gated("new")).held_by("new", None),
        scene()
            .with(gated("new"))
            .held_by("new", Some("n1"))
            .attached("n1")
            .in_use_on("n1"),
        scene()
            .with(gated("new"))
            .held_by("old", Some("n1"))
            .attached("n1")
            .in_use_on("n1"),
    ];
    for record in records {
        assert!(decide(&record).act.is_some(), "{:?}", record.claim.holder);
        let used = record.in_use_on("n2");
        assert_no_act(&used, State::Releasing, "NodeReleasing");
        // a silent one has lost it to a driver that revokes, and to no other
        assert!(decide(&used.clone().silent("n2")).act.is_some());
        let unknown = used.silent("n2").class(DriverClass::Unknown);
        assert_no_act(&unknown, State::Blocked, "DriverClassUnknown");
    }
    let attached = scene().with(gated("new")).held_by("new", None).attached("n2");
    assert_no_act(&attached, State::Releasing, "NodeReleasing");
}

#[test]
fn a_pod_that_no_node_fits_says_which_fields_to_look_at() {
    let mut pending = pod("first");
    pending.unschedulable = Some("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector".into());
    let verdict = assert_no_act(
        &scene().held_by("first", None).with(pending),
        State::Scheduling,
        "Unschedulable",
    );
    assert!(
        verdict.message.contains("nodeSelector") && verdict.message.contains("didn't match"),
        "{}",
        verdict.message
    );
}

#[test]
fn no_gate_opens_while_a_pod_of_ours_may_still_run() {
    // every combination of a pod that has passed the gate with one that waits
    for deleting in [false, true] {
        for silent in [false, true] {
            for class in [DriverClass::Revoke, DriverClass::Unknown] {
                let old = PodFacts {
                    deleting,
                    ..running("old", "n1")
                };
                let mut scene = dead_node().class(class).with(old).with(gated("new"));
                if !silent {
                    scene = scene.node("n1", |n| n.lease_unchanged = Some(Duration::ZERO));
                }
                let act = decide(&scene).act;
                assert!(
                    !matches!(act, Some(Act::OpenGate { .. } | Act::Record(_))),
                    "{deleting} {silent} {class:?}: {act:?}"
                );
            }
        }
    }
}

#[test]
fn a_pod_kept_off_a_node_that_is_back_and_the_only_one_that_fits_is_replaced() {
    let kept_off = |seconds| {
        let mut pod = pod("new");
        pod.avoids = vec!["n1".into()];
        pod.unschedulable = Some("0/3 nodes are available".into());
        pod.unschedulable_for = Duration::from_secs(seconds);
        scene().held_by("new", None).with(pod)
    };
    assert_eq!(act(&kept_off(5)), Act::Evict { pod: judged("new") });
    assert_no_act(&kept_off(4), State::Scheduling, "Unschedulable");
    assert_no_act(&kept_off(60).silent("n1"), State::Scheduling, "Unschedulable");
    assert_no_act(&kept_off(60).in_use_on("n1"), State::Scheduling, "Unschedulable");
    let mut lost = kept_off(60);
    lost.claim.avoid = vec!["n1".into()];
    let verdict = assert_no_act(&lost, State::Scheduling, "Unschedulable");
    assert!(verdict.message.contains("kept off n1"), "{}", verdict.message);
    let settled = lost.node("n1", |n| n.unlisted_for = S(180));
    assert_eq!(act(&settled), Act::Evict { pod: judged("new") });
}

// found by the benchmark, where three nodes lost power one after the other: each successor was kept off the same nodes, and replaced after five seconds
#[test]
fn whoever_replaces_a_pod_because_a_node_is_back_lets_the_successor_go_there_at_once() {
    let noted = [None, Some(""), Some("first"), Some("second")];
    for (noted, seconds) in noted.into_iter().flat_map(|noted| [(noted, 0), (noted, 180)]) {
        let mut pod = pod("new");
        pod.avoids = vec!["n1".into()];
        pod.unschedulable = Some("0/3 nodes are available".into());
        pod.unschedulable_for = Duration::from_secs(60);
        // the pod is there, so nothing was released yet, and nothing heard of since
        let mut stuck = scene().held_by("new", None).with(pod).node("n1", |n| {
            n.unlisted_for = S(seconds);
            n.renewed_since_release = false;
            n.reported_since_release = false;
        });
        stuck.claim.avoid = vec!["n1".into()];
        stuck.claim.boots = noted
            .map(|noted| ("n1".to_owned(), noted.to_owned()))
            .into_iter()
            .collect();
        let replaced = matches!(decide(&stuck).act, Some(Act::Evict { .. }));
        assert_eq!(
            replaced,
            !stuck.lost_nodes().contains(&"n1".to_owned()),
            "noted {noted:?}, heard of for {seconds} s"
        );
    }
}

#[test]
fn nothing_is_recorded_on_a_claim_that_is_not_there() {
    let mut missing = scene().with(gated("first"));
    missing.claim.exists = false;
    assert_no_act(&missing, State::Waiting, "ClaimMissing");
}

// found by the model: the volume went from a to b, a woke with the old engine on it, b failed, and the next pod was let onto a
#[test]
fn a_node_that_was_lost_stays_lost_until_it_is_heard_of_without_the_volume() {
    let mut second = scene().held_by("second", Some("n2")).silent("n2").node("n1", |n| {
        n.unlisted_for = S(180);
    });
    second.claim.avoid = vec!["n1".into()];
    assert_eq!(second.lost_nodes(), ["n2"]);
    assert_eq!(second.clone().in_use_on("n1").lost_nodes(), ["n1", "n2"]);
    assert_eq!(second.clone().attached("n1").lost_nodes(), ["n1", "n2"]);
    assert_eq!(second.silent("n1").lost_nodes(), ["n1", "n2"]);
}

// a kubelet sends what differs from its own cache of the Node object, in which the volume may still be listed after we took it off
#[test]
fn a_list_that_the_operator_shortened_counts_only_when_the_kubelet_must_have_seen_that() {
    let mut back = scene().held_by("second", Some("n2"));
    back.claim.avoid = vec!["n1".into()];
    let heard_of = |seconds| back.clone().node("n1", |n| n.unlisted_for = S(seconds));
    assert!(!heard_of(179).has_settled("n1"));
    assert!(heard_of(180).has_settled("n1"));
    let unknown = heard_of(180).node("n1", |n| n.ready = NodeReady::Unknown);
    assert!(!unknown.has_settled("n1"), "its kubelet has not written yet");
    let noted = |boot: &str| {
        let mut noted = back.clone();
        noted.claim.boots = [("n1".to_owned(), boot.to_owned())].into();
        noted
    };
    assert!(!noted("first").has_settled("n1"), "the same start of the machine");
    assert!(noted("zeroth").has_settled("n1"), "nothing of before runs");
    assert!(noted("").has_settled("n1"), "nothing was taken from it");
    assert!(!noted("zeroth").node("n1", |n| n.boot = None).has_settled("n1"));
    assert!(!noted("zeroth").without_node("n1").has_settled("n1"));
}
