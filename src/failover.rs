//! The failover decision: who may have the volume next, and what proves it. Pure: [`Scene`] in, [`Verdict`] out.
//!
//! A replacement runs only behind an opened gate, and a gate is opened only with one of these proofs about the *recorded holder*
//! (the record stands on the claim; a pod object that is gone proves nothing):
//!
//! | evidence | what it says | source of the rule |
//! |---|---|---|
//! | `FirstStart` | nobody was ever let at the volume, nobody mounts the claim, nothing is attached | |
//! | `PinnedRestart` | the holder's node lives and gets the pod back; with `ReadWriteOncePod` its kubelet mounts for one pod at a time | KEP-2485 |
//! | E1 `GuardStopped` | the guard acknowledged that its engine ended in order and the volume is flushed, its Lease is sealed, the attachment is gone; it says nothing about other nodes than the holder's | |
//! | E2 `LeaseExpired` | only with `proof: Lease`: the guard had promised to stop, did not renew, its Lease is sealed, the attachment is gone; nothing about other nodes either | |
//! | `PodStopped` | for volumes that are never attached, about which E0 can say nothing: the kubelet itself reported every container as ended | |
//! | E0 `NodeReleased` | after the holder was gone its node renewed its Lease and no longer lists the volume as in use; of a node that was lost only once that list is its kubelet's own word again (without the volume for 180 s, or started again) | kubelet reports a volume in use before it mounts it; it sends only what differs from the Node in its cache (`tryUpdateNodeStatus`) |
//! | E3 `StorageRevoked` | the attachment of the silent node is gone, on a driver whose detach revokes | CSI `ControllerUnpublishVolume` |
//! | E4 `NodeGone` | the Node object of a cloud provider's machine (it had a `spec.providerID`) was removed and the attachment is gone | cloud controllers remove only nodes that no longer exist |
//! | E5 `ConfirmedDead` | a human said so (annotation with the pod's UID, or the out-of-service taint) and the attachment is gone; not while the node's Lease is renewed or the database answers, but for volumes that are never attached | KEP-2268 |
//!
//! The order is: seal the Lease (so that no container of the old pod wins it meanwhile), delete the pod, detach, write the record, name the pod
//! in the Lease, open its gate. Never the attachment before the pod: the attach-detach controller would attach it to the dead node again
//! (Longhorn #5937). A silent node or an expired Lease starts a search for proof, it is none.
//!
//! Each clause asks [`Rules`] whether it is in force; production passes all of them.

mod admission;
mod placement;
mod release;
mod verdict;

use std::time::Duration;

use crate::rules::{Rule, Rules};
use crate::scene::{Holder, LeaseFacts, Login, NodeFacts, PodFacts, Pulse, Right, Scene};

use admission::admit;
pub use placement::UNSCHEDULABLE;
use placement::{is_fenced_by, unplaced};
use release::{gone_for_good, held, is_confirmed, lease_proves, revokes, seal, word};
pub use verdict::{Act, Evidence, Placement, State, Verdict};
use verdict::{SOON, STEADY, acting, waiting};

/// A share of silent nodes from which on nothing is fenced: more likely we are the ones who are cut off.
const BRAKE_NODES: usize = 2;
const BRAKE_PERCENT: usize = 30;

/// Takes the decision.
pub fn decide(scene: &Scene, rules: Rules) -> Verdict {
    let mut running = scene.pods.iter().filter(|p| p.ours && !p.gated && !p.finished);
    let candidate = || {
        let waits = |p: &&PodFacts| p.ours && p.gated && !p.deleting && !p.finished;
        scene.pods.iter().find(waits)
    };
    match (running.next(), running.next(), candidate()) {
        (Some(_), None, Some(candidate)) if !rules.has(Rule::OneAtATime) => admit(scene, rules, candidate),
        (Some(pod), None, _) => watch_holder(scene, rules, pod),
        (Some(pod), Some(other), _) => {
            let message = format!(
                "pods {} and {} both passed the gate of claim {}; nothing is done until the one that should not run is deleted",
                pod.judged.name, other.judged.name, scene.claim.name
            );
            waiting(State::Blocked, "TwoPods", message, SOON)
        }
        (None, _, Some(candidate)) => admit(scene, rules, candidate),
        (None, _, None) => waiting(
            State::Waiting,
            "NoPod",
            "waiting for the Deployment to create the pod".into(),
            STEADY,
        ),
    }
}

fn watch_holder(scene: &Scene, rules: Rules, pod: &PodFacts) -> Verdict {
    let name = &pod.judged.name;
    let right = scene.right(&pod.judged.uid, rules);
    if pod.guarded && matches!(right, Right::Sealed(_) | Right::Others) && rules.has(Rule::UnnamedGoes) {
        return unnamed(scene, rules, pod);
    }
    let Some(node) = &pod.node else {
        return unplaced(scene, rules, pod);
    };
    let holder = Holder {
        pod: pod.judged.uid.clone(),
        node: Some(node.clone()),
    };
    if !scene.claim.exists {
        let message = format!(
            "claim {} is gone while pod {name} runs, and nothing can be recorded",
            scene.claim.name
        );
        return waiting(State::Running, "ClaimMissing", message, STEADY);
    }
    if scene.claim.holder.as_ref() != Some(&holder) {
        let message = format!(
            "recording that pod {name} on node {node} holds claim {}",
            scene.claim.name
        );
        return acting(State::Running, "Recording", message, Act::Record(holder));
    }
    let alive = scene.pulse(node) == Pulse::Alive;
    let expired = matches!(right, Right::Expired { .. });
    if alive && !expired {
        return healthy(scene, rules, pod, node, right);
    }
    if let Right::Renewed(left) = right
        && rules.has(Rule::RenewalCounts)
    {
        let message = format!("node {node} is silent, but the database on it renews its Lease; it stays where it is");
        return waiting(State::Suspect, "NodeSilentLeaseRenewed", message, left.min(STEADY));
    }
    let confirmed = !alive && is_confirmed(scene, rules, &holder, node);
    if let Some(verdict) = asked(scene, rules, node, expired, confirmed) {
        return verdict;
    }
    if let Some(verdict) = brake(scene, rules, &holder, node).filter(|_| !confirmed) {
        return verdict;
    }
    let provable = confirmed
        || alive
        || gone_for_good(scene, rules, node)
        || revokes(scene, rules)
        || lease_proves(scene, rules, right).is_some();
    if !provable {
        return held(scene, node, &holder);
    }
    if pod.deleting && pod.has_finalizers {
        let message =
            format!("node {node} is dead or was given up, but a finalizer keeps its pod {name}; remove the finalizer");
        return waiting(State::Blocked, "FinalizerHolds", message, STEADY);
    }
    let given_up = alive && is_given_up(scene, rules, node);
    if given_up && let Some(verdict) = unheard(scene, rules, node) {
        return verdict;
    }
    if given_up && !scene.claim.has_lost(node) {
        let message = format!(
            "the Lease of the database on node {node} has expired, and nothing was heard of that node since; writing it down as lost"
        );
        return acting(
            State::Suspect,
            "LeaseExpired",
            message,
            Act::Lose { node: node.clone() },
        );
    }
    if let Some(verdict) = seal(scene, rules, &holder, node) {
        return verdict;
    }
    let state = if alive { "was given up" } else { "is dead" };
    let message = format!("node {node} {state}; deleting its pod {name} so that the volume can be taken from it");
    evict(scene, rules, (State::Evicting, "NodeDead", message), pod)
}

/// Without grace, but where the only proof to come is the kubelet's report that every container has ended: it stands in the object of the pod, which
/// would be gone before it.
fn evict(
    scene: &Scene,
    rules: Rules,
    (state, reason, message): (State, &'static str, String),
    pod: &PodFacts,
) -> Verdict {
    let judged = pod.judged.clone();
    let lives = pod.node.as_ref().is_some_and(|node| scene.pulse(node) == Pulse::Alive);
    let proven = || lease_proves(scene, rules, scene.right(&judged.uid, rules)).is_some();
    if scene.is_attachable() || !lives || proven() {
        return acting(state, reason, message, Act::Evict { pod: judged });
    }
    if pod.deleting {
        let message = format!("{message}; waiting for its kubelet to report that it has ended");
        return waiting(State::Stopping, "Stopping", message, SOON);
    }
    acting(state, reason, message, Act::Stop { pod: judged })
}

/// What the Lease is not for, or not any more, cannot run an engine: it was let in by somebody else, or a failover has begun. Its successor
/// waits behind the gate for its proof, and the record of the pod that may still write stays what it is.
fn unnamed(scene: &Scene, rules: Rules, pod: &PodFacts) -> Verdict {
    let name = &pod.judged.name;
    if pod.deleting && pod.has_finalizers {
        let message = format!("the Lease is not for pod {name}, but a finalizer keeps it; remove the finalizer");
        return waiting(State::Blocked, "FinalizerHolds", message, STEADY);
    }
    let message = format!(
        "the Lease of claim {} is not for pod {name}; deleting the pod so that one that is let in can follow",
        scene.claim.name
    );
    evict(scene, rules, (State::Evicting, "LeaseIsNotForPod", message), pod)
}

/// The node lives, and nothing says that its database does not.
fn healthy(scene: &Scene, rules: Rules, pod: &PodFacts, node: &str, right: Right) -> Verdict {
    let name = &pod.judged.name;
    if pod.deleting
        && let Some(verdict) = stopped_in_order(scene, rules, pod, node, right)
    {
        return verdict;
    }
    if pod.deleting {
        let message = format!("pod {name} is stopping in order on node {node}; the next pod starts when it is gone");
        return waiting(State::Stopping, "Stopping", message, SOON);
    }
    if let Some(holder) = &scene.claim.holder
        && scene.claim.has_lost(node)
    {
        let message = format!("pod {name} runs on node {node}, which is not lost any more");
        return acting(State::Running, "Recording", message, Act::Record(holder.clone()));
    }
    let mut look = look_again(scene, node);
    // between two attempts to log in: it is Ready when one succeeds
    if matches!(scene.login, Login::Failed(_) | Login::NotYet(_)) {
        look = look.min(SOON);
    }
    if let Right::Renewed(left) = right {
        look = look.min(before_decision(scene, left));
    }
    let message = format!("pod {name} runs on node {node}");
    waiting(State::Running, "PodRunning", message, look)
}

/// Whether a node whose own Lease is still fresh is treated like a silent one: its database has not renewed for its time, and the node has given no
/// sign of life since. A kubelet renews only every 10 s; where the storage revokes, waiting for its next renewal proves nothing more. A node that
/// was heard of two renewals after its database is well: its kubelet ends what hangs there, and says so.
fn is_given_up(scene: &Scene, rules: Rules, node: &str) -> bool {
    let (Some(lease), Some(facts)) = (&scene.lease, scene.nodes.get(node)) else {
        return false;
    };
    // one without a Lease of its own says nothing this way
    let heard_of = facts.lease_unchanged.is_none() || was_heard_of(lease, facts);
    revokes(scene, rules) && scene.fast_detach && !(heard_of && rules.has(Rule::GivenUpIsUnheard))
}

/// Whether a node has renewed its own Lease since the database renewed its for the last time, and not in the moment between that and the fault.
fn was_heard_of(lease: &LeaseFacts, node: &NodeFacts) -> bool {
    let renewal = lease.record.orders.renewal;
    let every = renewal.map_or(Duration::ZERO, |renewal| renewal.every);
    // that a Lease is there is no sign of life, only that it changes
    node.lease_renewed
        && node
            .lease_unchanged
            .is_some_and(|unchanged| unchanged + every * 2 <= lease.unchanged)
}

/// The brake before a node is given up that is not silent yet: others may have been lost together with it, and are not silent yet either. Kubelets
/// renew every 10 s, so that it takes no longer until the living were heard of.
fn unheard(scene: &Scene, rules: Rules, node: &str) -> Option<Verdict> {
    let lease = scene.lease.as_ref()?;
    // one without a Lease of its own says nothing either way
    let may_be_lost = |facts: &&NodeFacts| facts.lease_unchanged.is_some() && !was_heard_of(lease, facts);
    let unheard = scene.nodes.values().filter(may_be_lost).count();
    if !rules.has(Rule::Brake) || !are_too_many(unheard, scene.nodes.len()) {
        return None;
    }
    let message = format!(
        "the Lease of the database on node {node} has expired; waiting for a heartbeat of the other nodes, {unheard} of {} were not heard of since",
        scene.nodes.len()
    );
    Some(waiting(State::Suspect, "LeaseExpired", message, SOON / 4))
}

fn are_too_many(silent: usize, all: usize) -> bool {
    silent >= BRAKE_NODES && silent * 100 >= all * BRAKE_PERCENT
}

/// While the database answers the operator itself, nothing is moved.
fn asked(scene: &Scene, rules: Rules, node: &str, expired: bool, confirmed: bool) -> Option<Verdict> {
    if !rules.has(Rule::LoginCounts) || expired && scene.policy.moves_while_it_answers {
        return None;
    }
    let (reason, not_tried, what) = if expired {
        (
            "LeaseExpiredDatabaseAnswers",
            "LeaseExpired",
            format!("the Lease of the database on node {node} has expired"),
        )
    } else {
        (
            "NodeSilentDatabaseAnswers",
            "NodeSilent",
            format!("node {node} is silent"),
        )
    };
    match scene.login {
        Login::Succeeded | Login::WrongPassword | Login::NotYet(_) => {
            let message = format!("{what}, but the database on it answers; it stays where it is");
            Some(waiting(State::Suspect, reason, message, STEADY))
        }
        Login::NotTried if !confirmed => {
            let message = format!("{what}; trying a login before anything is done");
            Some(waiting(State::Suspect, not_tried, message, SOON))
        }
        Login::NotTried | Login::Failed(_) => None,
    }
}

/// A pod whose guard has acknowledged that its engine ended lingers for its successor. On a node that may have that one, its object is taken away:
/// the scheduler stops counting it as the volume's one pod, and a rollout stops waiting for it; the successor then reaches the kubelet before the
/// device is unmounted, instead of waiting up to 10 s until the volume is reported in use again. Where the successor goes elsewhere, the seal lets
/// the guard go. Before that acknowledgement nothing is hurried: a kubelet leaves two seconds to a pod whose object is gone.
fn stopped_in_order(scene: &Scene, rules: Rules, pod: &PodFacts, node: &str, right: Right) -> Option<Verdict> {
    if pod.has_finalizers || right != Right::Stopped {
        return None;
    }
    if is_fenced_by(scene, rules, node) {
        let message = format!(
            "pod {} has stopped on node {node}, which gets the next pod at once",
            pod.judged.name
        );
        return Some(evict(scene, rules, (State::Stopping, "Stopped", message), pod));
    }
    seal(scene, rules, scene.claim.holder.as_ref()?, node)
}

fn look_again(scene: &Scene, node: &str) -> Duration {
    let facts = scene.nodes.get(node);
    let unchanged = facts.and_then(|n| n.lease_unchanged).unwrap_or_default();
    before_decision(scene, scene.timing.node_lease_stale.saturating_sub(unchanged))
}

/// At the moment from which on silence makes the operator log in, and then at the one when it decides, so that the decision is late by no period.
fn before_decision(scene: &Scene, left: Duration) -> Duration {
    let until = match left.checked_sub(scene.timing.asking()) {
        Some(until) if !until.is_zero() => until,
        // only a login that failed lets silence decide; until then it is tried again
        _ if matches!(scene.login, Login::Failed(_)) => left,
        _ => left.min(SOON),
    };
    until.clamp(Duration::from_millis(10), STEADY)
}

fn brake(scene: &Scene, rules: Rules, holder: &Holder, node: &str) -> Option<Verdict> {
    let silent = scene.silent_nodes();
    let all = scene.nodes.len();
    if !rules.has(Rule::Brake) || !are_too_many(silent.len(), all) {
        return None;
    }
    let message = format!(
        "{} of {all} nodes are silent ({}), which may mean that this operator is cut off; nothing is fenced until fewer are silent, or {}",
        silent.len(),
        silent.join(", "),
        word(scene, holder, &format!("node {node} is certainly off"))
    );
    Some(waiting(State::Blocked, "TooManyNodesSilent", message, STEADY))
}

#[cfg(test)]
mod tests;
