//! A node whose own Lease is fresh, and whose database has not renewed for its time.

use super::lease::{guarded, running_on_n1, seal, sealed, taken};
use super::*;
use crate::lease::{After, OnApiLoss, Orders, Promise, Renewal};

const S: fn(u64) -> Duration = Duration::from_secs;

/// Renewed every second, expired after 8; the node was heard of so many seconds ago.
fn expired(node_unchanged: u64) -> Scene {
    let promise = Promise {
        takeover_after: S(8),
        stops_after: None,
    };
    let mut scene = running_on_n1()
        .lease(taken("old"), Some(promise), S(8))
        .login(Login::Failed("no answer".into()))
        .node("n1", |n| n.lease_unchanged = Some(S(node_unchanged)));
    scene.lease.as_mut().expect("a Lease").record.orders = Orders {
        renewal: Some(Renewal {
            every: S(1),
            stop_after: S(5),
            takeover_after: S(8),
        }),
        on_api_loss: OnApiLoss::Continue,
    };
    scene
}

fn lost(mut scene: Scene) -> Scene {
    scene.claim.avoid = vec!["n1".into()];
    scene.claim.boots = [("n1".to_owned(), "first".to_owned())].into();
    scene
}

/// Written down, sealed and evicted.
fn evicted() -> Scene {
    let scene = scene().held_by("old", Some("n1")).with(guarded(gated("new")));
    let scene = scene.attached("n1").in_use_on("n1");
    lost(scene).lease(sealed("old", After::Nothing), None, Duration::ZERO)
}

#[test]
fn a_node_that_was_not_heard_of_since_its_database_is_written_down_as_lost_before_the_seal() {
    let lose = Act::Lose { node: "n1".into() };
    for (unchanged, first) in [
        // between two renewals of the database: nothing tells it from one that is gone
        (9, &lose),
        (7, &lose),
        (6, &seal("old", After::Nothing)),
        (1, &seal("old", After::Nothing)),
        // it is silent by itself
        (15, &seal("old", After::Nothing)),
    ] {
        assert_eq!(act(&expired(unchanged)), *first, "{unchanged} s");
    }
    assert_eq!(act(&lost(expired(9))), seal("old", After::Nothing));
    // a detach proves nothing there
    assert_eq!(
        act(&expired(9).class(DriverClass::Unknown)),
        seal("old", After::Nothing)
    );
    for never in [
        expired(9).proof(Proof::Manual),
        Scene {
            fast_detach: false,
            ..expired(9)
        },
        // what has no Lease says nothing by not renewing it
        expired(9).node("n1", |n| n.lease_unchanged = None),
    ] {
        assert_eq!(act(&never), seal("old", After::Nothing));
    }
    assert_no_act(
        &expired(9).login(Login::Succeeded),
        State::Suspect,
        "LeaseExpiredDatabaseAnswers",
    );
}

// of two nodes lost at once neither is silent yet
#[test]
fn no_node_is_given_up_while_others_were_not_heard_of_either() {
    let other = |unchanged: u64| expired(9).node("n2", |n| n.lease_unchanged = Some(S(unchanged)));
    let lose = Act::Lose { node: "n1".into() };
    // renewed after the database's last renewal, and perhaps before both were lost
    for unchanged in [8, 7] {
        assert_no_act(&other(unchanged), State::Suspect, "LeaseExpired");
    }
    assert!(
        decide(&other(8)).recheck < S(1),
        "it is looked again as soon as they may have renewed"
    );
    assert_eq!(act(&other(6)), lose);
    // an operator that has just started has seen each Lease once
    let not_seen_to_change = other(3).node("n2", |n| n.lease_renewed = false);
    assert_no_act(&not_seen_to_change, State::Suspect, "LeaseExpired");
    let without_a_lease = other(3).node("n2", |n| n.lease_unchanged = None);
    assert_eq!(act(&without_a_lease), lose);
    // a note that was left by an operator that ended is no reason to pass the brake by
    assert_no_act(&lost(other(8)), State::Suspect, "LeaseExpired");
    assert_eq!(act(&lost(other(6))), seal("old", After::Nothing));
}

#[test]
fn a_node_that_was_written_down_as_lost_and_whose_database_renews_is_lost_no_more() {
    let mut renewed = lost(expired(9));
    renewed.lease.as_mut().expect("a Lease").unchanged = S(1);
    assert_eq!(act(&renewed), recorded("old", Some("n1")));
}

#[test]
fn the_volume_is_taken_from_a_node_that_was_given_up_unless_it_is_heard_of_first() {
    assert!(
        matches!(act(&evicted()), Act::ShrinkVolumesInUse { .. }),
        "{:?}",
        decide(&evicted())
    );
    let mut detached = evicted().node("n1", |n| n.volumes_in_use.clear());
    detached.attachments.clear();
    assert_eq!(decide(&detached).evidence, Some(Evidence::StorageRevoked));
    assert_eq!(act(&detached), recorded("new", None));
    for heard_of in [
        evicted().node("n1", |n| n.renewed_since_release = true),
        evicted().node("n1", |n| n.reported_since_release = true),
        // an operator that was not there when the pod went sees by the seal's age that the node has renewed since
        evicted().lease(sealed("old", After::Nothing), None, S(6)),
        Scene {
            fast_detach: false,
            ..evicted()
        },
        evicted().class(DriverClass::Unknown),
        evicted().proof(Proof::Manual),
    ] {
        assert_no_act(&heard_of, State::Releasing, "NodeReleasing");
    }
    // heard of while the storage took the volume away
    let mut heard_of = detached.clone().node("n1", |n| n.renewed_since_release = true);
    assert_eq!(decide(&heard_of).evidence, Some(Evidence::StorageRevoked));
    assert_eq!(
        heard_of.lost_nodes(),
        ["n1"],
        "the next pod is kept off it until it has settled"
    );
    assert_no_act(
        &heard_of.clone().class(DriverClass::Unknown),
        State::Releasing,
        "NodeReleasing",
    );
    heard_of.claim.avoid.clear();
    assert_eq!(
        decide(&heard_of).evidence,
        Some(Evidence::NodeReleased),
        "nothing was taken off its list"
    );
    let mut not_written_down = evicted();
    not_written_down.claim.avoid.clear();
    assert_no_act(&not_written_down, State::Releasing, "NodeReleasing");
}

#[test]
fn the_next_pod_is_kept_off_a_node_that_was_given_up() {
    let mut recorded = evicted().held_by("new", None).node("n1", |n| n.volumes_in_use.clear());
    recorded.attachments.clear();
    let Act::OpenGate { placement, .. } = act(&recorded) else {
        panic!("{:?}", decide(&recorded));
    };
    assert_eq!(placement, Placement::Avoiding(vec!["n1".into()]));
    assert_eq!(recorded.lost_nodes(), ["n1"]);
}
