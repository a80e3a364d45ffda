//! Volumes that are never attached, under a guard: the kubelet's report, or what the Lease says.

use super::lease::{L, PROMISE, guarded, running_on_n1, seal, sealed, taken};
use super::*;
use crate::lease::After;

/// The volume is one that nodes do not attach, and several pods of a node may mount it.
fn never_attached(mut scene: Scene) -> Scene {
    scene.claim.exclusive = false;
    scene.volume.as_mut().expect("a volume").attachable = false;
    scene.attachments.clear();
    scene.node("n1", |n| n.volumes_in_use.clear())
}

// deleted without grace, the pod took the kubelet's report with it
#[test]
fn on_a_live_node_a_pod_whose_end_only_the_kubelet_can_report_keeps_its_grace() {
    let sealed_from_old = |after, proof, deleting| {
        let mut scene = never_attached(running_on_n1().lease(sealed("old", after), None, Duration::ZERO)).proof(proof);
        scene.pods[0].deleting = deleting;
        scene
    };
    let evicted = Act::Evict { pod: judged("old") };
    for (after, proof) in [
        (After::Nothing, Proof::Storage),
        (After::Nothing, Proof::Lease),
        (After::Expiry, Proof::Storage),
        (After::Stop, Proof::Manual),
    ] {
        let case = |deleting| sealed_from_old(after, proof, deleting);
        assert_eq!(
            act(&case(false)),
            Act::Stop { pod: judged("old") },
            "{after:?} {proof:?}"
        );
        assert_no_act(&case(true), State::Stopping, "Stopping");
        assert_eq!(act(&case(true).silent("n1")), evicted, "nobody will report");
        let attached = running_on_n1()
            .lease(sealed("old", after), None, Duration::ZERO)
            .proof(proof);
        assert_eq!(act(&attached), evicted, "the proof comes from elsewhere");
    }
    for (after, proof) in [(After::Stop, Proof::Storage), (After::Expiry, Proof::Lease)] {
        for deleting in [false, true] {
            assert_eq!(
                act(&sealed_from_old(after, proof, deleting)),
                evicted,
                "{after:?} {proof:?}"
            );
        }
    }
}

#[test]
fn what_the_sealed_lease_proves_counts_for_a_volume_that_is_never_attached() {
    let gone = |hold, promise, unchanged, proof| {
        let gone = scene().held_by("old", Some("n1")).with(guarded(gated("new")));
        never_attached(gone.lease(hold, promise, unchanged)).proof(proof)
    };
    let now = Duration::ZERO;
    let of_seal = |after, proof| gone(sealed("old", after), None, now, proof);
    let evidence = |scene: &Scene| decide(scene).evidence;
    assert_eq!(
        evidence(&of_seal(After::Stop, Proof::Storage)),
        Some(Evidence::GuardStopped)
    );
    assert_eq!(
        evidence(&of_seal(After::Expiry, Proof::Lease)),
        Some(Evidence::LeaseExpired)
    );
    for (after, proof) in [
        (After::Stop, Proof::Manual),
        (After::Expiry, Proof::Storage),
        (After::Nothing, Proof::Lease),
    ] {
        assert_no_act(&of_seal(after, proof), State::Blocked, "ReleaseNotProvable");
    }
    assert_eq!(
        act(&gone(taken("old"), PROMISE, L, Proof::Lease)),
        seal("old", After::Expiry)
    );
    let mut unseen = gone(taken("old"), PROMISE, L, Proof::Lease).held_by("old", None);
    assert_eq!(act(&unseen), seal("old", After::Expiry));
    unseen = unseen.lease(sealed("old", After::Expiry), None, now);
    assert_eq!(evidence(&unseen), Some(Evidence::LeaseExpired));
}
