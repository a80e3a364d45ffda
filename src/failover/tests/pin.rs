//! The pinned restart: back to the node whose kubelet is the fence.

use super::*;

#[test]
fn a_pod_that_is_gone_from_a_live_node_goes_back_to_it_at_once() {
    let deleted = scene()
        .held_by("old", Some("n1"))
        .with(gated("new"))
        .attached("n1")
        .in_use_on("n1");
    let verdict = decide(&deleted);
    assert_eq!(
        (verdict.act, verdict.evidence),
        (Some(recorded("new", Some("n1"))), Some(Evidence::PinnedRestart))
    );
    let next = deleted.held_by("new", Some("n1"));
    assert_eq!(
        act(&next),
        Act::OpenGate {
            pod: judged("new"),
            placement: Placement::Pinned("n1".into()),
            name: None,
        }
    );
}

#[test]
fn there_is_no_way_back_to_a_node_that_may_not_fence_or_take_the_pod() {
    let deleted = || {
        scene()
            .held_by("old", Some("n1"))
            .with(gated("new"))
            .in_use_on("n1")
            .attached("n1")
    };
    let mut shared = deleted();
    shared.claim.exclusive = false;
    assert_no_act(&shared, State::Releasing, "NodeReleasing");
    assert_no_act(
        &deleted().node("n1", |n| n.schedulable = false),
        State::Releasing,
        "NodeReleasing",
    );
    assert_no_act(
        &deleted().node("n1", |n| n.ready = NodeReady::False),
        State::Releasing,
        "NodeReleasing",
    );
    let mut refused = deleted();
    refused.claim.pin_refused = Some("n1".into());
    assert_no_act(&refused, State::Releasing, "NodeReleasing");
    let mut elsewhere = deleted();
    elsewhere.pods[0].node_selector.insert("disk".into(), "fast".into());
    assert_no_act(&elsewhere, State::Releasing, "NodeReleasing");
}

// a volume that is being detached is given back to the node it is taken from, whose kubelet still has the dead device staged
#[test]
fn there_is_no_way_back_to_a_node_that_the_volume_is_being_taken_from() {
    let mut awake = scene()
        .held_by("old", Some("n1"))
        .with(gated("new"))
        .attached("n1")
        .in_use_on("n1");
    awake.attachments[0].deleting = true;
    let act = decide(&awake).act;
    assert!(!matches!(act, Some(Act::Record(_))), "{act:?}");
}

// a pinned record whose node cannot be pinned to any more opens the gate for every node, without proof
#[test]
fn a_record_that_rests_on_a_pin_opens_no_gate_anywhere_else() {
    let pinned = || scene().held_by("new", Some("n1")).with(gated("new")).attached("n1");
    let unlabelled = pinned().node("n1", |n| n.labels.clear());
    for scene in [pinned().without_node("n1").class(DriverClass::Unknown), unlabelled] {
        let act = decide(&scene).act;
        assert!(
            !matches!(
                act,
                Some(Act::OpenGate {
                    placement: Placement::Avoiding(_),
                    ..
                })
            ),
            "{act:?}"
        );
    }
}

#[test]
fn a_pinned_pod_that_cannot_be_placed_is_replaced_by_one_that_may_go_elsewhere() {
    let waiting = |change: fn(&mut PodFacts)| {
        let mut pinned = PodFacts {
            pinned: true,
            ..pod("new")
        };
        change(&mut pinned);
        scene().held_by("new", Some("n1")).with(pinned)
    };
    let refuse = Act::RefusePin {
        pod: judged("new"),
        node: "n1".into(),
    };
    assert_no_act(&waiting(|_| {}), State::Scheduling, "Scheduling");
    let unschedulable = |pod: &mut PodFacts| {
        pod.unschedulable = Some("0/3 nodes are available".into());
        pod.unschedulable_for = Duration::from_secs(4);
    };
    assert_no_act(&waiting(unschedulable), State::Scheduling, "Unschedulable");
    let for_long = |pod: &mut PodFacts| {
        pod.unschedulable = Some("0/3 nodes are available".into());
        pod.unschedulable_for = Duration::from_secs(5);
    };
    assert_eq!(act(&waiting(for_long)), refuse);
    assert_eq!(act(&waiting(|_| {}).silent("n1")), refuse);
}

// found by the model: taken off the list by the operator while the node was silent, the volume was detached under the pod that went back
#[test]
fn there_is_no_way_back_to_a_node_that_does_not_list_the_volume() {
    let unlisted = scene().held_by("old", Some("n1")).with(gated("new")).attached("n1");
    assert_no_act(&unlisted, State::Releasing, "NodeReleasing");
}

// without a guard: the node was silent, the operator began to take the volume from it, and it listed the volume again before the detach
#[test]
fn there_is_no_way_back_to_a_node_that_was_written_down_as_lost() {
    let deleted = || {
        scene()
            .held_by("old", Some("n1"))
            .with(gated("new"))
            .attached("n1")
            .in_use_on("n1")
    };
    let lost = |mut scene: Scene, node: &str| {
        scene.claim.avoid = vec![node.into()];
        scene
    };
    assert_no_act(&lost(deleted(), "n1"), State::Releasing, "NodeReleasing");
    assert_eq!(act(&lost(deleted(), "n2")), recorded("new", Some("n1")));
    // nor for the one that the record names already: another that is not pinned follows it
    let named = lost(deleted().held_by("new", Some("n1")), "n1");
    let refused = Act::RefusePin {
        pod: judged("new"),
        node: "n1".into(),
    };
    assert_eq!(act(&named), refused);
}
