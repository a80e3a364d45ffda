//! What must hold after every single write, whoever made it and whatever failed.
//!
//! A pod *could write* the volume if its gate was ever opened and nothing that has really happened keeps it from writing:
//! - its object is there, not finished and not gated: the scheduler, a kubelet or the attach-detach controller may give it the volume at
//!   any moment, also on a node that is off (it may come back) or silent;
//! - its object is gone, but its container runs on a node that the storage lets write.
//!
//! A pod under a guard may have an engine only by the Lease: what that adds is in `rights`.
//!
//! Pods are counted by what keeps them apart: with `ReadWriteOncePod` the kubelet of one node runs one pod of a claim after the other, so
//! pods that are bound or pinned to the same node are one writer; everything else is one writer a pod.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sqledge_operator::desired::VOLUME_FENCE;

use crate::mirror::{Key, is_deleting, name, text, uid};
use crate::physics::Detach;
use crate::rights;
use crate::world::State;

/// One write that the API server has carried out.
pub struct Write<'a> {
    pub actor: &'static str,
    pub method: &'a str,
    pub key: &'a Key,
    pub before: Option<&'a Value>,
    pub after: Option<&'a Value>,
}

pub fn is_gated(pod: &Value) -> bool {
    let gates = pod.pointer("/spec/schedulingGates").and_then(Value::as_array);
    gates.is_some_and(|gates| gates.iter().any(|gate| text(gate, "/name") == VOLUME_FENCE))
}

pub fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

pub fn mentions(pod: &Value, claim: &str) -> bool {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    volumes.is_some_and(|volumes| {
        volumes
            .iter()
            .any(|volume| text(volume, "/persistentVolumeClaim/claimName") == claim)
    })
}

/// The node a pod is bound to.
pub fn node_of(pod: &Value) -> &str {
    text(pod, "/spec/nodeName")
}

/// The node a pod is bound or pinned to.
fn place_of(pod: &Value) -> &str {
    match node_of(pod) {
        "" => text(pod, "/spec/nodeSelector/kubernetes.io~1hostname"),
        node => node,
    }
}

/// All that could write, each with the pods that are meant.
pub fn writers(state: &State) -> BTreeMap<String, BTreeSet<String>> {
    let exclusive = state.is_exclusive();
    let slot = |node: &str, pod: &str| match node {
        node if exclusive && !node.is_empty() => format!("node {node}"),
        _ => format!("pod {pod}"),
    };
    let mut writers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut present = BTreeSet::new();
    for pod in state.mirror.all("pods").filter(|pod| mentions(pod, &state.claim)) {
        if is_gated(pod) || is_finished(pod) {
            continue;
        }
        present.insert(uid(pod).to_owned());
        writers
            .entry(slot(place_of(pod), uid(pod)))
            .or_default()
            .insert(name(pod).to_owned());
    }
    for (pod, container) in state.physics.writing().filter(|(pod, _)| !present.contains(*pod)) {
        writers
            .entry(slot(&container.node, pod))
            .or_default()
            .insert(format!("{pod}, whose object is gone"));
    }
    writers
}

/// What is broken at this moment.
pub fn standing(state: &State) -> Vec<String> {
    let mut broken = Vec::new();
    let writers = writers(state);
    if writers.len() > state.brought_back {
        broken.push(format!("{} pods could write the volume: {writers:?}", writers.len()));
    }
    let writing: Vec<_> = state.physics.writing().collect();
    if writing.len() > 1 {
        broken.push(format!("two engines write at once: {writing:?}"));
    }
    broken
}

/// What a write has broken.
pub fn after(state: &State, write: &Write) -> Vec<String> {
    let mut broken = standing(state);
    broken.extend(rights::after(state, write));
    if write.actor != "cluster" {
        broken.extend(forbidden(state, write));
    }
    broken
}

/// Writes that the operator must never make.
fn forbidden(state: &State, write: &Write) -> Vec<String> {
    let mut broken = Vec::new();
    let plural = write.key.plural.as_str();
    let removed = write.method == "DELETE";
    let before = write.before.cloned().unwrap_or_default();
    match plural {
        "persistentvolumeclaims" if removed && !text(&before, "/spec/volumeName").is_empty() => {
            broken.push(format!("claim {} with a volume was deleted", write.key.name));
        }
        "volumeattachments" if removed => {
            broken.extend(pod_still_there(
                state,
                text(&before, "/spec/nodeName"),
                "the attachment was deleted",
            ));
            broken.extend(rights::not_sealed(state, text(&before, "/spec/nodeName")));
        }
        "nodes" if removed => broken.push(format!("node {} was deleted", write.key.name)),
        "nodes" => {
            broken.extend(pod_still_there(state, &write.key.name, "volumesInUse was changed"));
            broken.extend(rights::not_sealed(state, &write.key.name));
            broken.extend(more_than_our_volume(state, &before, write.after));
        }
        "pods" if removed && !mentions(&before, &state.claim) => {
            broken.push(format!("pod {}, which is not ours, was deleted", write.key.name));
        }
        "pods" => {
            if let Some(after) = write.after.filter(|after| is_gated(&before) && !is_gated(after)) {
                broken.extend(opened_without_proof(state, after));
                broken.extend(rights::opened_without_a_name(state, after));
            }
        }
        _ => {}
    }
    broken
}

/// Only our own entry of `volumesInUse` may go.
fn more_than_our_volume(state: &State, before: &Value, after: Option<&Value>) -> Option<String> {
    let entries = |node: &Value| -> Vec<String> {
        let list = node.pointer("/status/volumesInUse").and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|entry| *entry != state.unique_name())
            .map(str::to_owned)
            .collect()
    };
    let after = after?;
    let same = entries(before) == entries(after) && before["spec"] == after["spec"];
    (!same).then(|| format!("more than our volume was changed on node {}", name(after)))
}

/// Never the attachment before the pod: the attach-detach controller would attach it to the dead node again.
fn pod_still_there(state: &State, node: &str, what: &str) -> Option<String> {
    let pod = state
        .mirror
        .all("pods")
        .find(|pod| node_of(pod) == node && mentions(pod, &state.claim) && !is_finished(pod))?;
    Some(format!("{what} for node {node} while pod {} is still there", name(pod)))
}

/// A gate opens only if every pod that was let at the volume before has really ended, or is fenced, or was truly called dead.
fn opened_without_proof(state: &State, opened: &Value) -> Vec<String> {
    let pinned = place_of(opened);
    let mut broken = Vec::new();
    for (pod, node) in state.let_go.iter().filter(|(pod, _)| pod.as_str() != uid(opened)) {
        if state.physics.ended.contains(pod) {
            continue;
        }
        let node = node.as_deref().unwrap_or_default();
        let same_kubelet = state.is_exclusive() && pinned == node && !node.is_empty();
        let bound_there = state
            .mirror
            .all("pods")
            .any(|pod| node_of(pod) == node && mentions(pod, &state.claim));
        let revoked = state.physics.detach == Detach::Revokes && !state.physics.exports.contains(node) && !bound_there;
        let certainly_dead = state.physics.confirmed.contains(node) && !bound_there;
        if !(same_kubelet || revoked || certainly_dead || rights::has_ended_for_good(state, pod)) {
            broken.push(format!(
                "the gate of pod {} was opened though nothing proves that pod {pod} on node {node} can write no more",
                name(opened)
            ));
        }
    }
    let elsewhere = state
        .mirror
        .all("volumeattachments")
        .find(|attachment| pinned.is_empty() || text(attachment, "/spec/nodeName") != pinned);
    if let Some(attachment) = elsewhere {
        let node = text(attachment, "/spec/nodeName");
        let way = if is_deleting(attachment) {
            "being detached from"
        } else {
            "attached to"
        };
        broken.push(format!(
            "the gate of pod {} was opened while the volume is {way} node {node}",
            name(opened)
        ));
    }
    broken
}
