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

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::api::CONFIRM_NODE_DEAD;
use crate::cluster::Judged;
use crate::driver_class::DriverClass;
use crate::scene::{Attachment, Holder, Login, NodeReady, PodFacts, Pulse, Scene};

/// Where the instance stands between "a pod has the volume" and "the next pod has it".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A pod has the volume and nothing speaks against it.
    Held,
    /// The holder's node is silent, but a rule forbids to act yet.
    Suspect,
    /// The holder is being deleted and its node is alive: it stops in order.
    Stopping,
    /// The volume may not change hands; only a proof that is missing, or a human, ends this.
    Blocked,
    /// The holder's pod object is being removed because its node is dead.
    Evicting,
    /// The pod is gone; the volume is being taken from the old node.
    Detaching,
    /// The proof is there; the gate of the next pod is being opened.
    Opening,
    /// The gate is open and the pod waits for a node.
    Scheduling,
    /// There is no pod to decide about.
    Waiting,
}

/// What was decided and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The state, for the status and its phases.
    pub state: State,
    /// Condition reason, event reason and metric label.
    pub reason: &'static str,
    /// One sentence: what it waits for and until when.
    pub message: String,
    /// When to look again if nothing happens before.
    pub recheck: Duration,
    /// The one irreversible act, if any.
    pub act: Option<Act>,
    /// The proof that an opening rests on.
    pub evidence: Option<Evidence>,
}

/// The irreversible acts. Each carries what it was judged on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Write down who holds the volume, before that can be forgotten.
    Record(Holder),
    /// Write down that a pinned pod could not be placed, and delete that pod, which never ran.
    RefusePin { pod: Judged, node: String },
    /// Delete the pod of a dead node without grace.
    Evict { pod: Judged },
    /// Take our entry, at that index, out of `status.volumesInUse` of the dead node.
    ShrinkVolumesInUse {
        node: Judged,
        index: usize,
        unique_name: String,
    },
    /// The fallback: delete the attachment to the dead node.
    DeleteAttachment { attachment: Judged },
    /// Let the pod at the volume: pinned to a host name, or kept off nodes.
    OpenGate { pod: Judged, placement: Placement },
}

/// Where a pod may go when its gate opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Back to the node that had the volume (value of its `kubernetes.io/hostname` label).
    Pinned(String),
    /// Anywhere but on these silent nodes, which the scheduler may not have been told about yet.
    Avoiding(Vec<String>),
}

/// The proof behind an opened gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Nobody was ever let at the volume.
    FirstStart,
    /// The pod goes back to the node whose kubelet fences it.
    PinnedRestart,
    /// The kubelet reported every container of the holder as ended.
    PodStopped,
    /// E0
    NodeReleased,
    /// E3
    StorageRevoked,
    /// E4
    NodeGone,
    /// E5
    ConfirmedDead,
}

impl Act {
    /// Whether everything it is judged on must be read again first. Only writing down where the pod of record runs needs it not: it carries its
    /// own compare-and-swap and changes nothing that a proof rests on.
    pub fn needs_quorum(&self, current: Option<&Holder>) -> bool {
        match self {
            Self::Record(holder) => current.is_none_or(|current| current.pod != holder.pod),
            Self::OpenGate { .. }
            | Self::RefusePin { .. }
            | Self::Evict { .. }
            | Self::ShrinkVolumesInUse { .. }
            | Self::DeleteAttachment { .. } => true,
        }
    }

    /// As it stands in events and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Record(_) => "Record",
            Self::RefusePin { .. } => "RefusePin",
            Self::Evict { .. } => "Evict",
            Self::ShrinkVolumesInUse { .. } => "ShrinkVolumesInUse",
            Self::DeleteAttachment { .. } => "DeleteAttachment",
            Self::OpenGate { .. } => "OpenGate",
        }
    }
}

impl Evidence {
    /// As it stands in the status and in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstStart => "FirstStart",
            Self::PinnedRestart => "PinnedRestart",
            Self::PodStopped => "PodStopped",
            Self::NodeReleased => "NodeReleased",
            Self::StorageRevoked => "StorageRevoked",
            Self::NodeGone => "NodeGone",
            Self::ConfirmedDead => "ConfirmedDead",
        }
    }
}

/// A share of silent nodes from which on nothing is fenced: more likely we are the ones who are cut off.
const BRAKE_NODES: usize = 2;
const BRAKE_PERCENT: usize = 30;

/// How long a pinned pod may be called unschedulable before it is let go elsewhere.
const PIN_PATIENCE: Duration = Duration::from_secs(5);

const SOON: Duration = Duration::from_secs(1);
const STEADY: Duration = Duration::from_secs(5);

/// Takes the decision.
pub fn decide(scene: &Scene) -> Verdict {
    let mut running = scene.pods.iter().filter(|p| p.ours && !p.gated && !p.finished);
    if let Some(pod) = running.next() {
        if let Some(other) = running.next() {
            let message = format!(
                "pods {} and {} both passed the gate of claim {}; nothing is done until one of them is gone",
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

fn waiting(state: State, reason: &'static str, message: String, recheck: Duration) -> Verdict {
    Verdict {
        state,
        reason,
        message,
        recheck,
        act: None,
        evidence: None,
    }
}

fn acting(state: State, reason: &'static str, message: String, act: Act) -> Verdict {
    Verdict {
        state,
        reason,
        message,
        recheck: SOON,
        act: Some(act),
        evidence: None,
    }
}

// ---- a pod has the volume

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
    if let Some(verdict) = brake(scene).filter(|_| !confirmed) {
        return verdict;
    }
    if !confirmed && !gone_for_good(scene, node) && !class_of(scene).detach_is_proof() {
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

fn unplaced(scene: &Scene, pod: &PodFacts) -> Verdict {
    let name = &pod.judged.name;
    let target = scene
        .claim
        .holder
        .as_ref()
        .and_then(|h| h.node.as_ref())
        .filter(|_| pod.pinned);
    if let Some(node) = target {
        // a moment's grace: the scheduler may not have seen yet that the old pod is gone
        let stuck =
            pod.unschedulable.is_some() && pod.unschedulable_for >= PIN_PATIENCE && pod_of_record_is(scene, pod);
        if (stuck || scene.pulse(node) != Pulse::Alive) && !pod.deleting {
            return refuse_pin(pod, node);
        }
    }
    let back = pod.avoids.iter().find(|node| scene.pulse(node) == Pulse::Alive);
    if let Some(node) = back.filter(|_| pod.unschedulable_for >= PIN_PATIENCE && !pod.deleting) {
        let message = format!("node {node} is back, and pod {name} may not go there and nowhere else; it is replaced");
        return acting(
            State::Scheduling,
            "NodeIsBack",
            message,
            Act::Evict {
                pod: pod.judged.clone(),
            },
        );
    }
    let why = pod.unschedulable.as_deref().unwrap_or("no word from it yet");
    let message =
        format!("pod {name} waits for the scheduler: {why}; check nodeSelector, affinity, tolerations and resources");
    let reason = if pod.unschedulable.is_some() {
        "Unschedulable"
    } else {
        "Scheduling"
    };
    waiting(State::Scheduling, reason, message, STEADY)
}

fn refuse_pin(pod: &PodFacts, node: &str) -> Verdict {
    let message = format!(
        "pod {} cannot go back to node {node}; it is replaced by one that may go elsewhere",
        pod.judged.name
    );
    let act = Act::RefusePin {
        pod: pod.judged.clone(),
        node: node.to_owned(),
    };
    acting(State::Scheduling, "PinRefused", message, act)
}

fn pod_of_record_is(scene: &Scene, pod: &PodFacts) -> bool {
    scene.claim.holder.as_ref().is_some_and(|h| h.pod == pod.judged.uid)
}

/// Shortly before a Lease would be called stale, so that the decision is not late by a whole period.
fn look_again(scene: &Scene, node: &str) -> Duration {
    let unchanged = scene
        .nodes
        .get(node)
        .and_then(|n| n.lease_unchanged)
        .unwrap_or_default();
    scene
        .timing
        .node_lease_stale
        .saturating_sub(unchanged)
        .clamp(Duration::from_millis(200), STEADY)
}

fn brake(scene: &Scene) -> Option<Verdict> {
    let silent = scene.silent_nodes();
    let all = scene.nodes.len();
    if silent.len() < BRAKE_NODES || silent.len() * 100 < all * BRAKE_PERCENT {
        return None;
    }
    let message = format!(
        "{} of {all} nodes are silent ({}), which may mean that this operator is cut off; nothing is fenced until fewer are silent or a \
         human sets the annotation sqledge.io/confirm-node-dead",
        silent.len(),
        silent.join(", ")
    );
    Some(waiting(State::Blocked, "TooManyNodesSilent", message, STEADY))
}

fn class_of(scene: &Scene) -> DriverClass {
    scene.volume.as_ref().map_or(DriverClass::Unknown, |v| v.class)
}

/// The search for proof ends here without a human: say what is missing.
fn held(scene: &Scene, node: &str, holder: &Holder) -> Verdict {
    let class = class_of(scene);
    // the word counts for all of them
    let nodes = match &holder.node {
        Some(_) => node.to_owned(),
        None => scene.silent_nodes().join(", "),
    };
    let node = nodes.as_str();
    let driver = scene
        .volume
        .as_ref()
        .and_then(|v| v.driver.as_deref())
        .unwrap_or("(no CSI driver)");
    let word = format!(
        "set the annotation {CONFIRM_NODE_DEAD}={} once node {node} is certainly off",
        holder.pod
    );
    let (reason, message) = match class {
        DriverClass::Local => (
            "NoFailoverPossible",
            format!("node {node} is silent and the volume lives on it; it comes back with the node"),
        ),
        DriverClass::NeedsFence => (
            "FenceMissing",
            format!(
                "node {node} is silent and driver {driver} proves nothing without a network fence; fence the node and {word}"
            ),
        ),
        DriverClass::Busy => (
            "DetachMayBeRefused",
            format!("node {node} is silent and driver {driver} refuses to detach a mounted volume; {word}"),
        ),
        DriverClass::Unknown => (
            "DriverClassUnknown",
            format!(
                "node {node} is silent and nothing is known about what a detach by driver {driver} proves; declare it in the operator's \
                 setting driverClasses, or {word}"
            ),
        ),
        // unreachable by the caller's check; worded so that it would still be true
        DriverClass::Revoke | DriverClass::Quorum => (
            "Detaching",
            format!("node {node} is silent; its volume is being taken from it"),
        ),
    };
    waiting(State::Blocked, reason, message, STEADY)
}

// ---- no pod has the volume, one wants it

fn admit(scene: &Scene, candidate: &PodFacts) -> Verdict {
    let claim = &scene.claim.name;
    if !scene.claim.exists {
        return waiting(
            State::Waiting,
            "ClaimMissing",
            format!("there is no claim {claim}"),
            STEADY,
        );
    }
    if let Some(rival) = scene.pods.iter().find(|p| !p.ours && !p.finished && !p.gated) {
        let message = format!(
            "claim {claim} is mounted by pod {}, which is not ours; delete that pod",
            rival.judged.name
        );
        return waiting(State::Blocked, "ClaimInUse", message, STEADY);
    }
    let Some(holder) = &scene.claim.holder else {
        return match scene.attachments.first() {
            None => open(scene, candidate, Evidence::FirstStart),
            Some(attachment) => {
                let message = format!(
                    "waiting for the volume of claim {claim} to be detached from node {}",
                    attachment.node
                );
                waiting(State::Detaching, "VolumeAttachedElsewhere", message, SOON)
            }
        };
    };
    if holder.pod == candidate.judged.uid {
        let Some(node) = &holder.node else {
            return opening(scene, candidate, avoiding(scene), None);
        };
        // a record with a node rests on the pin: it opens this gate for that node, or not at all
        return match hostname(scene, node).filter(|_| can_go_back(scene, candidate, node)) {
            Some(host) => opening(scene, candidate, Placement::Pinned(host), None),
            None => refuse_pin(candidate, node),
        };
    }
    if let Some(node) = holder
        .node
        .as_deref()
        .filter(|node| can_go_back(scene, candidate, node))
    {
        return record(scene, candidate, Some(node), Evidence::PinnedRestart);
    }
    let candidates: BTreeSet<&str> = match &holder.node {
        // a volume that is attached to yet another node was used there by somebody we do not know of
        Some(node) => scene
            .attachments
            .iter()
            .map(|a| a.node.as_str())
            .chain([node.as_str()])
            .collect(),
        // opened, but gone before anybody saw where it was bound: it may be on any node
        None => scene
            .nodes
            .keys()
            .map(String::as_str)
            .chain(orphaned_attachments(scene))
            .collect(),
    };
    let mut evidence = None;
    for node in candidates {
        match released(scene, holder, node) {
            Ok(found) => evidence = Some(strongest(evidence, found)),
            Err(verdict) => return *verdict,
        }
    }
    match evidence {
        Some(evidence) => open(scene, candidate, evidence),
        None => waiting(
            State::Waiting,
            "NoNodes",
            "no node is known to the operator yet".into(),
            STEADY,
        ),
    }
}

fn orphaned_attachments(scene: &Scene) -> impl Iterator<Item = &str> {
    scene
        .attachments
        .iter()
        .map(|a| a.node.as_str())
        .filter(|node| !scene.nodes.contains_key(*node))
}

/// Over several nodes the proof that names a dead one says most.
fn strongest(one: Option<Evidence>, other: Evidence) -> Evidence {
    match one {
        Some(one) if one != Evidence::NodeReleased => one,
        _ => other,
    }
}

/// Whether that node can no longer write, and if not, what is done or waited for.
fn released(scene: &Scene, holder: &Holder, node: &str) -> Result<Evidence, Box<Verdict>> {
    let pulse = scene.pulse(node);
    // a node that renews its Lease is not dead, whoever says so
    if pulse == Pulse::Alive {
        return node_released(scene, node);
    }
    let confirmed = is_confirmed(scene, holder, node);
    let proof = match (confirmed, pulse, class_of(scene).detach_is_proof()) {
        (true, _, _) => Evidence::ConfirmedDead,
        (false, Pulse::Gone, _) if gone_for_good(scene, node) => Evidence::NodeGone,
        (false, _, true) => Evidence::StorageRevoked,
        (false, _, false) => return Err(Box::new(held(scene, node, holder))),
    };
    if !confirmed && let Some(verdict) = brake(scene) {
        return Err(Box::new(verdict));
    }
    match scene.attachment(node) {
        Some(attachment) => Err(Box::new(detach(scene, node, attachment))),
        None if scene.attached_by_status(node) => {
            let message =
                format!("the attachment to node {node} is gone; waiting for the node's volumesAttached to say so too");
            Err(Box::new(waiting(State::Detaching, "Detaching", message, SOON)))
        }
        None => Ok(proof),
    }
}

/// E4. A Node object that somebody deleted by hand says nothing about the machine; one that a cloud provider's controller removed does.
fn gone_for_good(scene: &Scene, node: &str) -> bool {
    let is_holders = scene.claim.holder.as_ref().and_then(|h| h.node.as_deref()) == Some(node);
    scene.pulse(node) == Pulse::Gone && is_holders && scene.claim.holder_node_is_provided
}

/// E0, and then the ordinary detach, so that the next kubelet does not run into a Multi-Attach back-off.
fn node_released(scene: &Scene, node: &str) -> Result<Evidence, Box<Verdict>> {
    let claim = &scene.claim.name;
    let facts = scene.nodes.get(node);
    if !scene.is_attachable() {
        // such a volume is never listed as in use, so the node's silence about it says nothing
        return not_attachable(scene, node);
    }
    if scene.in_use(node) || !facts.is_some_and(|n| n.renewed_since_release) {
        let message =
            format!("waiting for node {node} to report that it has unmounted the volume of claim {claim} (every 10 s)");
        return Err(Box::new(waiting(State::Detaching, "NodeReleasing", message, SOON)));
    }
    if let Some(attachment) = scene.attachment(node) {
        let message = format!(
            "waiting for the volume of claim {claim} to be detached from node {node}{}",
            refusal(attachment)
        );
        return Err(Box::new(waiting(State::Detaching, "Detaching", message, SOON)));
    }
    Ok(Evidence::NodeReleased)
}

/// Without attachments there is the kubelet's word that every container ended, or that of a human.
fn not_attachable(scene: &Scene, node: &str) -> Result<Evidence, Box<Verdict>> {
    let Some(holder) = &scene.claim.holder else {
        return Ok(Evidence::FirstStart);
    };
    if scene.claim.holder_stopped {
        return Ok(Evidence::PodStopped);
    }
    if scene.confirmed_dead.as_ref() == Some(&holder.pod) {
        return Ok(Evidence::ConfirmedDead);
    }
    let message = format!(
        "the last pod on claim {} is gone, but nothing proves that it has ended: this volume is not attached to nodes; once it certainly runs \
         nowhere (it was on {}), set the annotation {}={}",
        scene.claim.name,
        holder.node.as_deref().unwrap_or(node),
        CONFIRM_NODE_DEAD,
        holder.pod
    );
    Err(Box::new(waiting(State::Blocked, "ReleaseNotProvable", message, STEADY)))
}

fn refusal(attachment: &Attachment) -> String {
    attachment
        .detach_error
        .as_ref()
        .map_or_else(String::new, |e| format!("; the driver answers: {e}"))
}

fn detach(scene: &Scene, node: &str, attachment: &Attachment) -> Verdict {
    let unique_name = scene.volume.as_ref().and_then(|v| v.unique_name.clone());
    let facts = scene.nodes.get(node);
    let message = format!(
        "taking the volume of claim {} from dead node {node}{}",
        scene.claim.name,
        refusal(attachment)
    );
    if attachment.deleting {
        return waiting(State::Detaching, "Detaching", message, SOON);
    }
    let listed = facts.zip(unique_name.as_ref()).and_then(|(facts, unique)| {
        facts
            .volumes_in_use
            .iter()
            .position(|v| v == unique)
            .map(|index| (facts.judged.clone(), index, unique.clone()))
    });
    let patience = if scene.fast_detach && facts.is_some() {
        scene.timing.detach_fallback
    } else {
        Duration::ZERO
    };
    let overdue = patience.is_zero() || scene.detaching_for.is_some_and(|waited| waited >= patience);
    if let Some((node, index, unique_name)) = listed.filter(|_| scene.fast_detach && !overdue) {
        return acting(
            State::Detaching,
            "Detaching",
            message,
            Act::ShrinkVolumesInUse {
                node,
                index,
                unique_name,
            },
        );
    }
    if overdue {
        return acting(
            State::Detaching,
            "Detaching",
            message,
            Act::DeleteAttachment {
                attachment: attachment.judged.clone(),
            },
        );
    }
    waiting(State::Detaching, "Detaching", message, SOON)
}

fn is_confirmed(scene: &Scene, holder: &Holder, node: &str) -> bool {
    scene.confirmed_dead.as_ref() == Some(&holder.pod) || scene.nodes.get(node).is_some_and(|n| n.out_of_service)
}

/// The pinned restart: the pod fits the node, and the node's kubelet is the fence.
fn can_go_back(scene: &Scene, candidate: &PodFacts, node: &str) -> bool {
    let fits = |labels: &BTreeMap<String, String>| {
        candidate
            .node_selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    };
    is_fenced_by(scene, node) && scene.nodes.get(node).is_some_and(|facts| fits(&facts.labels))
}

/// With `ReadWriteOncePod` the kubelet of a node mounts for one pod at a time.
fn is_fenced_by(scene: &Scene, node: &str) -> bool {
    let Some(facts) = scene.nodes.get(node) else {
        return false;
    };
    scene.claim.exclusive
        // under a detach the kubelet may still have the revoked device staged, and would mount that
        && scene.attachments.iter().all(|a| a.node == node && !a.deleting)
        // the same where it was detached already: that takes an unmount first
        && (!scene.is_attachable() || scene.attachment(node).is_some())
        && scene.pulse(node) == Pulse::Alive
        && facts.ready == NodeReady::True
        && facts.schedulable
        && !facts.out_of_service
        && scene.claim.pin_refused.as_deref() != Some(node)
        && hostname(scene, node).is_some()
}

fn hostname(scene: &Scene, node: &str) -> Option<String> {
    scene.nodes.get(node)?.labels.get("kubernetes.io/hostname").cloned()
}

fn avoiding(scene: &Scene) -> Placement {
    Placement::Avoiding(scene.silent_nodes().into_iter().map(str::to_owned).collect())
}

/// First the record, then (in the next pass, from the record) the gate: a crash between the two leaves a record that is too careful.
fn record(scene: &Scene, candidate: &PodFacts, node: Option<&str>, evidence: Evidence) -> Verdict {
    let holder = Holder {
        pod: candidate.judged.uid.clone(),
        node: node.map(str::to_owned),
    };
    let message = format!(
        "letting pod {} at the volume of claim {} ({})",
        candidate.judged.name,
        scene.claim.name,
        evidence.name()
    );
    let verdict = acting(State::Opening, "Opening", message, Act::Record(holder));
    Verdict {
        evidence: Some(evidence),
        recheck: Duration::ZERO,
        ..verdict
    }
}

fn open(scene: &Scene, candidate: &PodFacts, evidence: Evidence) -> Verdict {
    record(scene, candidate, None, evidence)
}

fn opening(scene: &Scene, candidate: &PodFacts, placement: Placement, evidence: Option<Evidence>) -> Verdict {
    let message = format!(
        "opening the gate of pod {} for claim {}",
        candidate.judged.name, scene.claim.name
    );
    let act = Act::OpenGate {
        pod: candidate.judged.clone(),
        placement,
    };
    Verdict {
        evidence,
        ..acting(State::Opening, "Opening", message, act)
    }
}

#[cfg(test)]
mod tests;
