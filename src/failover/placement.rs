//! Where the next pod may go, and what becomes of one that finds no place. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::verdict::{Act, Placement, STEADY, State, Verdict, acting, waiting};
use crate::rules::{Rule, Rules};
use crate::scene::{NodeReady, PodFacts, Proof, Pulse, Right, Scene};

/// Reason: the scheduler finds no node for a pod whose gate is open.
pub const UNSCHEDULABLE: &str = "Unschedulable";

/// How long a pinned pod may be called unschedulable before it is let go elsewhere.
const PIN_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn unplaced(scene: &Scene, rules: Rules, pod: &PodFacts) -> Verdict {
    let name = &pod.judged.name;
    let target = scene
        .claim
        .holder
        .as_ref()
        .and_then(|h| h.node.as_ref())
        .filter(|_| pod.pinned && rules.has(Rule::PinLetsGo));
    if let Some(node) = target {
        // a moment's grace: the scheduler may not have seen yet that the old pod is gone
        let stuck =
            pod.unschedulable.is_some() && pod.unschedulable_for >= PIN_PATIENCE && pod_of_record_is(scene, pod);
        if (stuck || scene.pulse(node) != Pulse::Alive) && !pod.deleting {
            return refuse_pin(pod, node);
        }
    }
    let stuck = pod.unschedulable_for >= PIN_PATIENCE && !pod.deleting;
    let back = || pod.avoids.iter().filter(|node| scene.is_back(node));
    // its successor is let in at once, and would be kept off a lost node again unless that has settled by now
    let is_free = |node: &&String| !scene.claim.has_lost(node) || scene.has_settled(node);
    if let Some(node) = back().find(is_free).filter(|_| stuck) {
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
    let lost = if pod.avoids.is_empty() {
        String::new()
    } else {
        let nodes = pod.avoids.join(", ");
        format!(
            "; it is kept off {nodes}, silent or lost when its gate opened; one that had the volume may be used when it has started again or was heard of without \
             the volume for {} s",
            scene.timing.node_settled.as_secs()
        )
    };
    let message = format!(
        "pod {name} waits for the scheduler: {why}; check nodeSelector, affinity, tolerations and resources{lost}"
    );
    let reason = if pod.unschedulable.is_some() {
        UNSCHEDULABLE
    } else {
        "Scheduling"
    };
    waiting(State::Scheduling, reason, message, STEADY)
}

pub(super) fn refuse_pin(pod: &PodFacts, node: &str) -> Verdict {
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

/// The pinned restart: the pod fits the node, and the node's kubelet is the fence.
pub(super) fn can_go_back(scene: &Scene, rules: Rules, candidate: &PodFacts, node: &str) -> bool {
    let fits = |labels: &BTreeMap<String, String>| {
        candidate
            .node_selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    };
    is_fenced_by(scene, rules, node) && scene.nodes.get(node).is_some_and(|facts| fits(&facts.labels))
}

/// With `ReadWriteOncePod` the kubelet of a node mounts for one pod at a time.
pub(super) fn is_fenced_by(scene: &Scene, rules: Rules, node: &str) -> bool {
    let Some(facts) = scene.nodes.get(node) else {
        return false;
    };
    // what is attached and not in use is about to be detached (or the operator took it off the list itself)
    let used = !scene.is_attachable() || scene.in_use(node);
    // under a detach the kubelet may still have the revoked device staged, and would mount that; the same where it was detached already: that
    // takes an unmount first
    let attached = scene.attachments.iter().all(|a| a.node == node && !a.deleting)
        && (!scene.is_attachable() || scene.attachment(node).is_some());
    let alive = scene.pulse(node) == Pulse::Alive && facts.ready == NodeReady::True;
    let holder = scene.claim.holder.as_ref();
    let sealed = holder.is_some_and(|holder| matches!(scene.right(&holder.pod, rules), Right::Sealed(_)));
    // without a Lease that is written on the claim
    let lost = scene.claim.has_lost(node);
    scene.policy.proof != Proof::Manual
        && (scene.claim.exclusive || !rules.has(Rule::PinIsExclusive))
        && (attached && used || !rules.has(Rule::PinWhileAttached))
        && (alive || !rules.has(Rule::PinToTheLiving))
        // after either a detach may be on its way, from an operator that does not lead any more, say
        && !((sealed || lost) && rules.has(Rule::PinUnsealed))
        && (facts.schedulable && !facts.out_of_service || !rules.has(Rule::PinToSchedulable))
        && (scene.claim.pin_refused.as_deref() != Some(node) || !rules.has(Rule::PinOnce))
        && hostname(scene, node).is_some()
}

pub(super) fn hostname(scene: &Scene, node: &str) -> Option<String> {
    scene.nodes.get(node)?.labels.get("kubernetes.io/hostname").cloned()
}

/// Silent nodes, and those that were when the volume was taken from one of them: an operator that has just started knows of none.
pub(super) fn avoiding(scene: &Scene, rules: Rules) -> Placement {
    if !rules.has(Rule::AvoidTheLost) {
        return Placement::Avoiding(Vec::new());
    }
    let silent = scene.silent_nodes().into_iter();
    let recorded = scene.claim.avoid.iter().map(String::as_str);
    let nodes: BTreeSet<&str> = silent.chain(recorded).collect();
    Placement::Avoiding(nodes.into_iter().map(str::to_owned).collect())
}
