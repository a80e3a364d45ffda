//! The failover decision: who may have the volume next, and what proves it. Pure: [`Scene`] in, [`Verdict`] out.
//!
//! A replacement runs only behind an opened gate, and a gate is opened only with one of these proofs about the *recorded holder*
//! (the record stands on the claim; a pod object that is gone proves nothing):
//!
//! | evidence | what it says | source of the rule |
//! |---|---|---|
//! | `FirstStart` | nobody was ever let at the volume, nobody mounts the claim, nothing is attached | |
//! | `PinnedRestart` | the holder's node lives and gets the pod back; with `ReadWriteOncePod` its kubelet mounts for one pod at a time | KEP-2485 |
//! | `PodStopped` | for volumes that are never attached, about which E0 can say nothing: the kubelet itself reported every container as ended | |
//! | E0 `NodeReleased` | after the holder was gone its node renewed its Lease and no longer lists the volume as in use | kubelet reports a volume in use before it mounts it |
//! | E3 `StorageRevoked` | the attachment of the silent node is gone, on a driver whose detach revokes | CSI `ControllerUnpublishVolume` |
//! | E4 `NodeGone` | the Node object of a cloud provider's machine (it had a `spec.providerID`) was removed and the attachment is gone | cloud controllers remove only nodes that no longer exist |
//! | E5 `ConfirmedDead` | a human said so (annotation with the pod's UID, or the out-of-service taint) and the attachment is gone; not while the node's Lease is renewed or the database answers, but for volumes that are never attached | KEP-2268 |
//!
//! The order is: delete the pod, then detach, then open. Never the attachment before the pod: the attach-detach controller would
//! attach it to the dead node again (Longhorn #5937). A silent node starts a search for proof, it is none.

mod admission;
mod placement;
mod release;
mod verdict;

use std::time::Duration;

use crate::scene::{Holder, Login, PodFacts, Pulse, Scene};

use admission::admit;
pub use placement::UNSCHEDULABLE;
use placement::{is_fenced_by, unplaced};
use release::{gone_for_good, held, is_confirmed, word};
pub use verdict::{Act, Evidence, Placement, State, Verdict};
use verdict::{SOON, STEADY, acting, waiting};

/// A share of silent nodes from which on nothing is fenced: more likely we are the ones who are cut off.
const BRAKE_NODES: usize = 2;
const BRAKE_PERCENT: usize = 30;

/// Takes the decision.
pub fn decide(scene: &Scene) -> Verdict {
    let mut running = scene.pods.iter().filter(|p| p.ours && !p.gated && !p.finished);
    if let Some(pod) = running.next() {
        if let Some(other) = running.next() {
            let message = format!(
                "pods {} and {} both passed the gate of claim {}; nothing is done until the one that should not run is deleted",
                pod.judged.name, other.judged.name, scene.claim.name
            );
            return waiting(State::Blocked, "TwoPods", message, SOON);
        }
        return watch_holder(scene, pod);
    }
    match scene
        .pods
        .iter()
        .find(|p| p.ours && p.gated && !p.deleting && !p.finished)
    {
        Some(candidate) => admit(scene, candidate),
        None => waiting(
            State::Waiting,
            "NoPod",
            "waiting for the Deployment to create the pod".into(),
            STEADY,
        ),
    }
}

fn watch_holder(scene: &Scene, pod: &PodFacts) -> Verdict {
    let name = &pod.judged.name;
    let Some(node) = &pod.node else {
        return unplaced(scene, pod);
    };
    let holder = Holder {
        pod: pod.judged.uid.clone(),
        node: Some(node.clone()),
    };
    if scene.claim.holder.as_ref() != Some(&holder) {
        let message = format!(
            "recording that pod {name} on node {node} holds claim {}",
            scene.claim.name
        );
        return acting(State::Held, "Recording", message, Act::Record(holder));
    }
    if scene.pulse(node) == Pulse::Alive {
        if pod.deleting && may_be_replaced_at_once(scene, pod, node) {
            let message = format!("pod {name} is stopping on node {node}, which gets the next pod at once");
            return acting(
                State::Stopping,
                "Stopping",
                message,
                Act::Evict {
                    pod: pod.judged.clone(),
                },
            );
        }
        if pod.deleting {
            let message =
                format!("pod {name} is stopping in order on node {node}; the next pod starts when it is gone");
            return waiting(State::Stopping, "Stopping", message, SOON);
        }
        return waiting(
            State::Held,
            "PodRunning",
            format!("pod {name} runs on node {node}"),
            look_again(scene, node),
        );
    }
    let confirmed = is_confirmed(scene, &holder, node);
    if matches!(scene.login, Login::Succeeded | Login::WrongPassword | Login::NotYet(_)) {
        let message = format!("node {node} is silent, but the database on it answers; it stays where it is");
        return waiting(State::Suspect, "NodeSilentDatabaseAnswers", message, STEADY);
    }
    if scene.login == Login::NotTried && !confirmed {
        let message = format!("node {node} is silent; trying a login before anything is done");
        return waiting(State::Suspect, "NodeSilent", message, SOON);
    }
    if let Some(verdict) = brake(scene, &holder, node).filter(|_| !confirmed) {
        return verdict;
    }
    if !confirmed && !gone_for_good(scene, node) && !scene.driver_class().detach_is_proof() {
        return held(scene, node, &holder);
    }
    if pod.deleting && pod.has_finalizers {
        let message = format!("node {node} is dead, but a finalizer keeps its pod {name}; remove the finalizer");
        return waiting(State::Blocked, "FinalizerHolds", message, STEADY);
    }
    let message = format!("node {node} is dead; deleting its pod {name} so that the volume can be taken from it");
    acting(
        State::Evicting,
        "NodeDead",
        message,
        Act::Evict {
            pod: pod.judged.clone(),
        },
    )
}

/// A pod that stops in order on a node that may have its successor: taking its object away now changes nothing about how it stops (the kubelet
/// has its grace period already), but the scheduler stops counting it as the volume's one pod, and a rollout stops waiting for it. The successor
/// then reaches the kubelet before the device is unmounted, instead of waiting up to 10 s until the volume is reported in use again.
fn may_be_replaced_at_once(scene: &Scene, pod: &PodFacts, node: &str) -> bool {
    !pod.has_finalizers && is_fenced_by(scene, node)
}

/// At the moment from which on the node is suspect, and then at the one when its Lease is stale, so that the decision is late by no period.
fn look_again(scene: &Scene, node: &str) -> Duration {
    let facts = scene.nodes.get(node);
    let unchanged = facts.and_then(|n| n.lease_unchanged).unwrap_or_default();
    let stale = scene.timing.node_lease_stale.saturating_sub(unchanged);
    let until = match scene.timing.suspicion().checked_sub(unchanged) {
        Some(until) if !until.is_zero() => until,
        // only a login that failed lets the stale Lease decide; until then it is tried again
        _ if matches!(scene.login, Login::Failed(_)) => stale,
        _ => stale.min(SOON),
    };
    until.clamp(Duration::from_millis(10), STEADY)
}

fn brake(scene: &Scene, holder: &Holder, node: &str) -> Option<Verdict> {
    let silent = scene.silent_nodes();
    let all = scene.nodes.len();
    if silent.len() < BRAKE_NODES || silent.len() * 100 < all * BRAKE_PERCENT {
        return None;
    }
    let message = format!(
        "{} of {all} nodes are silent ({}), which may mean that this operator is cut off; nothing is fenced until fewer are silent, or {}",
        silent.len(),
        silent.join(", "),
        word(scene, holder, node)
    );
    Some(waiting(State::Blocked, "TooManyNodesSilent", message, STEADY))
}

#[cfg(test)]
mod tests;
