//! What proves that a node can write no more, and how the volume is taken from it.

use super::*;

#[test]
fn after_the_eviction_our_entry_and_no_other_leaves_volumes_in_use() {
    let expected = Act::ShrinkVolumesInUse {
        node: samples::node("n1").judged,
        index: 1,
        unique_name: UNIQUE.into(),
    };
    assert_eq!(act(&after_eviction()), expected);
}

#[test]
fn the_attachment_is_deleted_only_as_a_fallback() {
    let mut slow = after_eviction().node("n1", |n| n.volumes_in_use.clear());
    slow.detaching_for = Some(Duration::from_secs(9));
    assert_no_act(&slow, State::Detaching, "Detaching");
    slow.detaching_for = Some(Duration::from_secs(10));
    assert_eq!(
        act(&slow),
        Act::DeleteAttachment {
            attachment: judged("va-n1")
        }
    );
    let mut switched_off = after_eviction();
    switched_off.fast_detach = false;
    assert_eq!(
        act(&switched_off),
        Act::DeleteAttachment {
            attachment: judged("va-n1")
        }
    );
    slow.attachments[0].deleting = true;
    assert_no_act(&slow, State::Detaching, "Detaching");
}

// where the entry cannot be taken off (refused by a policy, or put back), the fallback never comes
#[test]
fn the_fallback_also_comes_where_the_entry_stays() {
    let mut refused = after_eviction();
    refused.detaching_for = Some(Duration::from_secs(60));
    assert_eq!(
        act(&refused),
        Act::DeleteAttachment {
            attachment: judged("va-n1")
        }
    );
}

#[test]
fn the_gate_stays_shut_until_attachment_and_volumes_attached_are_both_gone() {
    let mut detaching = after_eviction().node("n1", |n| n.volumes_in_use.clear());
    detaching.attachments[0].deleting = true;
    detaching.attachments[0].detach_error = Some("array is busy".into());
    let verdict = assert_no_act(&detaching, State::Detaching, "Detaching");
    assert!(verdict.message.contains("array is busy"), "{}", verdict.message);
    detaching.attachments.clear();
    let status_lags = detaching
        .clone()
        .node("n1", |n| n.volumes_attached = vec![UNIQUE.into()]);
    assert_no_act(&status_lags, State::Detaching, "Detaching");
    let verdict = decide(&detaching);
    assert_eq!(
        (verdict.act, verdict.evidence),
        (Some(recorded("new", None)), Some(Evidence::StorageRevoked))
    );
}

#[test]
fn an_attachment_is_never_touched_while_a_pod_of_ours_is_there() {
    let act = decide(&dead_node().with(running("old", "n1")).with(gated("new"))).act;
    assert_eq!(act, Some(Act::Evict { pod: judged("old") }));
}

#[test]
fn a_live_node_has_released_only_after_a_renewal_without_the_volume_and_a_detach() {
    let moving = || {
        scene()
            .held_by("old", Some("n1"))
            .with(gated("new"))
            .node("n1", |n| n.schedulable = false)
    };
    let renewed = |n: &mut NodeFacts| n.renewed_since_release = true;
    assert_no_act(&moving(), State::Releasing, "NodeReleasing");
    assert_no_act(
        &moving().in_use_on("n1").node("n1", renewed),
        State::Releasing,
        "NodeReleasing",
    );
    assert_no_act(
        &moving().attached("n1").node("n1", renewed),
        State::Releasing,
        "Detaching",
    );
    let verdict = decide(&moving().node("n1", renewed));
    assert_eq!(
        (verdict.act, verdict.evidence),
        (Some(recorded("new", None)), Some(Evidence::NodeReleased))
    );
}

// a node that came (back) after the release was noted can never be "renewed since", so the gate stays shut for ever
#[test]
fn a_node_that_appears_after_the_release_can_renew_too() {
    let beats = crate::heartbeats::Heartbeats::default();
    beats.released("pod", [("n2".to_owned(), "1".to_owned())]);
    beats.saw("n1", "7");
    assert!(
        !beats.renewed_since_release("pod", "n1"),
        "the first sight is no renewal"
    );
    beats.saw("n1", "8");
    assert!(beats.renewed_since_release("pod", "n1"));
}

#[test]
fn a_node_that_was_removed_is_proof_once_its_attachment_is_gone() {
    let gone = || dead_node().without_node("n1").class(DriverClass::Unknown);
    assert_eq!(
        act(&gone().with(running("old", "n1"))),
        Act::Evict { pod: judged("old") }
    );
    let mut evicted = gone().with(gated("new"));
    evicted.claim.avoid = vec!["n1".into()];
    assert_eq!(
        act(&evicted),
        Act::DeleteAttachment {
            attachment: judged("va-n1")
        }
    );
    let mut free = gone().with(gated("new"));
    free.attachments.clear();
    let verdict = decide(&free);
    assert_eq!(
        (verdict.act, verdict.evidence),
        (Some(recorded("new", None)), Some(Evidence::NodeGone))
    );
}

#[test]
fn a_node_object_that_somebody_deleted_by_hand_proves_nothing() {
    let mut by_hand = dead_node()
        .without_node("n1")
        .class(DriverClass::Unknown)
        .with(running("old", "n1"));
    by_hand.claim.holder_node_is_provided = false;
    assert_no_act(&by_hand, State::Blocked, "DriverClassUnknown");
    let mut evicted = dead_node()
        .without_node("n1")
        .class(DriverClass::Unknown)
        .with(gated("new"));
    evicted.claim.holder_node_is_provided = false;
    assert_no_act(&evicted, State::Blocked, "DriverClassUnknown");
}

#[test]
fn a_holder_whose_node_nobody_saw_is_searched_for_on_every_node() {
    let unseen = || scene().held_by("old", None).with(gated("new"));
    let renewed = |n: &mut NodeFacts| n.renewed_since_release = true;
    assert_no_act(&unseen(), State::Releasing, "NodeReleasing");
    let two = unseen().node("n1", renewed).node("n2", renewed);
    assert_no_act(&two, State::Releasing, "NodeReleasing");
    let verdict = decide(&two.clone().node("n3", renewed));
    assert_eq!(
        (verdict.act, verdict.evidence),
        (Some(recorded("new", None)), Some(Evidence::NodeReleased))
    );
    let verdict = decide(&two.clone().silent("n3"));
    assert_eq!(verdict.evidence, Some(Evidence::StorageRevoked));
    assert_no_act(
        &two.silent("n3").class(DriverClass::Unknown),
        State::Blocked,
        "DriverClassUnknown",
    );
}

// the pod let in after a proof by a human never ran, and the same word was asked for again, about the next pod
#[test]
fn a_proof_about_a_lost_node_outlives_a_pod_that_was_kept_off_it_and_never_seen_anywhere() {
    let mut second = scene()
        .class(DriverClass::Unknown)
        .held_by("unseen", None)
        .with(gated("new"))
        .silent("n1")
        .node("n2", |n| n.renewed_since_release = true)
        .node("n3", |n| n.renewed_since_release = true);
    assert_no_act(&second, State::Blocked, "DriverClassUnknown");
    second.claim.avoid = vec!["n1".into()];
    assert_eq!(decide(&second).evidence, Some(Evidence::NodeReleased));
    // what has changed since is asked about again
    let n1 = |change: fn(&mut NodeFacts)| second.clone().node("n1", change);
    let back = n1(|n| n.lease_unchanged = Some(Duration::ZERO));
    assert_no_act(&back, State::Releasing, "NodeReleasing");
    assert_no_act(&second.clone().in_use_on("n1"), State::Blocked, "DriverClassUnknown");
    assert_no_act(&second.clone().attached("n1"), State::Blocked, "DriverClassUnknown");
    let counted = n1(|n| n.volumes_attached = vec![UNIQUE.into()]);
    assert_no_act(&counted, State::Blocked, "DriverClassUnknown");
    // and a node that the pod may have been on needs its own proof
    assert_no_act(&second.silent("n2"), State::Blocked, "DriverClassUnknown");
}

// an attachment to a node other than the holder's is not looked at
#[test]
fn a_volume_that_is_attached_to_another_node_than_the_holders_stays_behind_its_gate() {
    let proven = scene()
        .held_by("old", Some("n1"))
        .with(gated("new"))
        .node("n1", |n| {
            n.renewed_since_release = true;
            n.schedulable = false;
        })
        .attached("n2");
    assert_eq!(decide(&proven).act, None);
    // nor does the pod go back to n1 meanwhile: the pin says nothing about n2
    assert_eq!(decide(&proven.node("n1", |n| n.schedulable = true)).act, None);
}

#[test]
fn a_volume_that_is_never_attached_is_released_only_by_the_kubelets_word_or_a_humans() {
    let mut shared = scene()
        .held_by("old", Some("n1"))
        .with(gated("new"))
        .node("n1", |n| n.renewed_since_release = true);
    shared.claim.exclusive = false;
    shared.volume.as_mut().expect("a volume").attachable = false;
    let verdict = assert_no_act(&shared, State::Blocked, "ReleaseNotProvable");
    assert!(
        verdict.message.contains("confirm-node-dead=uid-old"),
        "{}",
        verdict.message
    );
    let mut stopped = shared.clone();
    stopped.claim.holder_stopped = true;
    assert_eq!(decide(&stopped).evidence, Some(Evidence::PodStopped));
    let mut confirmed = shared.clone();
    confirmed.confirmed_dead = Some("uid-old".into());
    assert_eq!(decide(&confirmed).evidence, Some(Evidence::ConfirmedDead));
    let mut exclusive = shared;
    exclusive.claim.exclusive = true;
    assert_eq!(
        decide(&exclusive).evidence,
        Some(Evidence::PinnedRestart),
        "its kubelet is the fence"
    );
}

// found by the model: the entry was taken off a list that the kubelet had just written, and then read as the kubelet's word
#[test]
fn nothing_is_taken_off_the_list_of_a_kubelet_that_writes_again() {
    let back = after_eviction().node("n1", |n| n.reported_since_release = true);
    assert_no_act(&back, State::Detaching, "Detaching");
}

#[test]
fn a_node_is_written_down_as_lost_before_the_volume_is_taken_from_it() {
    let mut evicted = after_eviction();
    evicted.claim.avoid.clear();
    assert_eq!(act(&evicted), Act::Lose { node: "n1".into() });
    let mut silent_before = after_eviction();
    silent_before.claim.boots = [("n1".to_owned(), String::new())].into();
    assert_eq!(
        act(&silent_before),
        Act::Lose { node: "n1".into() },
        "noted as one without the volume, which it has after all"
    );
    let mut restarted = after_eviction();
    restarted.claim.boots = [("n1".to_owned(), "zeroth".to_owned())].into();
    assert_eq!(
        act(&restarted),
        Act::Lose { node: "n1".into() },
        "noted with an earlier start of its machine"
    );
    evicted.attachments.clear();
    assert_eq!(act(&evicted), recorded("new", None), "there is nothing to take");
}
