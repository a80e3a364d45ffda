//! What makes a node suspect, and what keeps its database where it is.

use super::*;

#[test]
fn where_a_pod_runs_is_recorded_before_anything_else() {
    assert_eq!(
        act(&scene().with(running("old", "n1")).held_by("old", None)),
        recorded("old", Some("n1"))
    );
    // even when the node is silent already: afterwards it could be forgotten
    assert_eq!(
        act(&dead_node().held_by("old", None).with(running("old", "n1"))),
        recorded("old", Some("n1"))
    );
    // and where somebody opened a gate by hand
    assert_eq!(
        act(&scene().with(running("other", "n2")).held_by("old", Some("n1"))),
        recorded("other", Some("n2"))
    );
}

#[test]
fn a_running_pod_on_a_healthy_node_is_left_alone() {
    let healthy = scene().with(running("old", "n1")).held_by("old", Some("n1"));
    for login in [
        Login::Succeeded,
        Login::WrongPassword,
        Login::NotYet("recovering".into()),
        Login::Failed("x".into()),
        Login::NotTried,
    ] {
        assert_no_act(&healthy.clone().login(login), State::Running, "PodRunning");
    }
}

#[test]
fn a_silent_node_whose_database_answers_is_left_alone() {
    for login in [
        Login::Succeeded,
        Login::WrongPassword,
        Login::NotYet("recovering".into()),
    ] {
        let answering = dead_node().with(running("old", "n1")).login(login);
        assert_no_act(&answering, State::Suspect, "NodeSilentDatabaseAnswers");
    }
    assert_no_act(
        &dead_node().with(running("old", "n1")).login(Login::NotTried),
        State::Suspect,
        "NodeSilent",
    );
}

#[test]
fn a_dead_nodes_pod_is_evicted_only_where_a_detach_is_proof() {
    use DriverClass::{Busy, Local, NeedsFence, Quorum, Revoke, Unknown};
    for class in [Revoke, Quorum] {
        assert_eq!(
            act(&dead_node().with(running("old", "n1")).class(class)),
            Act::Evict { pod: judged("old") }
        );
    }
    for (class, reason) in [
        (Busy, "DetachMayBeRefused"),
        (NeedsFence, "FenceMissing"),
        (Local, "NoFailoverPossible"),
        (Unknown, "DriverClassUnknown"),
    ] {
        assert_no_act(
            &dead_node().with(running("old", "n1")).class(class),
            State::Blocked,
            reason,
        );
        assert_no_act(&after_eviction().class(class), State::Blocked, reason);
    }
}

#[test]
fn a_pod_that_is_being_deleted_on_a_dead_node_is_evicted_and_on_a_live_one_awaited() {
    let deleting = PodFacts {
        deleting: true,
        ..running("old", "n1")
    };
    assert_eq!(
        act(&dead_node().with(deleting.clone()).with(gated("new"))),
        Act::Evict { pod: judged("old") }
    );
    let alive = scene().held_by("old", Some("n1")).with(deleting).with(gated("new"));
    assert_no_act(&alive, State::Stopping, "Stopping");
    assert_no_act(
        &alive.clone().attached("n1").node("n1", |n| n.schedulable = false),
        State::Stopping,
        "Stopping",
    );
    // taking its object away would cut its grace period to the kubelet's two seconds
    assert_no_act(&alive.attached("n1").in_use_on("n1"), State::Stopping, "Stopping");
}

#[test]
fn a_node_is_silent_by_its_lease_and_only_as_a_fallback_by_its_condition() {
    let pulse = |change: fn(&mut NodeFacts)| scene().node("n1", change).pulse("n1");
    assert_eq!(pulse(|_| {}), Pulse::Alive);
    assert_eq!(
        pulse(|n| n.lease_unchanged = Some(Duration::from_secs(15))),
        Pulse::Silent
    );
    assert_eq!(
        pulse(|n| n.ready = NodeReady::False),
        Pulse::Alive,
        "the kubelet itself says so, so it lives"
    );
    assert_eq!(
        pulse(|n| n.ready = NodeReady::Unknown),
        Pulse::Alive,
        "renewals that we saw outweigh an old condition"
    );
    let fresh_operator = |n: &mut NodeFacts| {
        n.lease_renewed = false;
        n.ready = NodeReady::Unknown;
    };
    assert_eq!(pulse(fresh_operator), Pulse::Silent);
    let no_lease = |n: &mut NodeFacts| {
        n.lease_unchanged = None;
        n.ready = NodeReady::Unknown;
    };
    assert_eq!(pulse(no_lease), Pulse::Silent);
    assert_eq!(scene().without_node("n1").pulse("n1"), Pulse::Gone);
}

#[test]
fn two_silent_nodes_of_three_are_our_own_fault_until_proven_otherwise() {
    let two = dead_node().silent("n2");
    assert_no_act(
        &two.clone().with(running("old", "n1")),
        State::Blocked,
        "TooManyNodesSilent",
    );
    assert_no_act(&two.with(gated("new")), State::Blocked, "TooManyNodesSilent");
}

#[test]
fn the_brake_wants_two_nodes_and_thirty_percent() {
    let mut large = dead_node().silent("n2").with(running("old", "n1"));
    for i in 4..=6 {
        large.nodes.extend([node(&format!("n{i}"))]);
    }
    assert_no_act(&large, State::Blocked, "TooManyNodesSilent");
    large.nodes.extend([node("n7")]);
    assert_eq!(act(&large), Act::Evict { pod: judged("old") }, "2 of 7 are below 30 %");
}

#[test]
fn with_two_pods_past_the_gate_nothing_is_done() {
    let two = scene()
        .held_by("old", Some("n1"))
        .with(running("old", "n1"))
        .with(running("new", "n2"));
    assert_no_act(&two, State::Blocked, "TwoPods");
}

#[test]
fn the_next_look_comes_when_suspicion_begins_and_then_when_the_lease_is_stale() {
    let failed = || Login::Failed("no answer".into());
    let table = [
        // unchanged for, login, next look after (in milliseconds)
        (0, Login::Succeeded, 5_000),
        // an engine that starts is Ready when it lets the operator in
        (0, failed(), 1_000),
        (0, Login::NotYet("recovering".into()), 1_000),
        (0, Login::NotTried, 5_000),
        (0, Login::WrongPassword, 5_000),
        (5_000, Login::Succeeded, 5_000),
        (9_000, Login::Succeeded, 1_600),
        (9_000, failed(), 1_000),
        (10_599, Login::Succeeded, 10),
        (10_600, Login::Succeeded, 1_000),
        (10_600, Login::NotTried, 1_000),
        (10_600, failed(), 1_000),
        (14_600, failed(), 400),
        (14_600, Login::Succeeded, 400),
        (14_999, failed(), 10),
    ];
    for (unchanged, login, next) in table {
        let scene = scene()
            .held_by("old", Some("n1"))
            .with(running("old", "n1"))
            .node("n1", |n| n.lease_unchanged = Some(Duration::from_millis(unchanged)))
            .login(login.clone());
        assert_eq!(
            decide(&scene).recheck,
            Duration::from_millis(next),
            "unchanged for {unchanged} ms, {login:?}"
        );
    }
}

#[test]
fn a_finalizer_on_a_dead_nodes_pod_is_named_and_not_fought() {
    let held = PodFacts {
        deleting: true,
        has_finalizers: true,
        ..running("old", "n1")
    };
    assert_no_act(&dead_node().with(held), State::Blocked, "FinalizerHolds");
}

#[test]
fn a_pod_whose_claim_is_gone_is_left_alone_because_nothing_could_be_recorded() {
    let mut gone = scene().held_by("old", None).with(running("old", "n1"));
    gone.claim.exists = false;
    gone.claim.holder = None;
    assert_no_act(&gone, State::Running, "ClaimMissing");
}

#[test]
fn a_volume_that_is_never_attached_is_not_taken_from_anybody_whatever_its_driver_is_declared() {
    let mut declared = scene().held_by("old", Some("n1")).with(gated("new")).silent("n1");
    declared.volume.as_mut().expect("a volume").attachable = false;
    assert_no_act(&declared, State::Blocked, "DriverClassUnknown");
}
