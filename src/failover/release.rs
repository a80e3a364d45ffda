//! What proves that a node can no longer write, and how the volume is taken from it. Pure.

use std::time::Duration;

use super::brake;
use super::verdict::{Act, Evidence, SOON, STEADY, State, Verdict, acting, waiting};
use crate::api::CONFIRM_NODE_DEAD;
use crate::driver_class::DriverClass;
use crate::scene::{Attachment, Holder, Pulse, Scene};

/// How a human gives their word.
pub(super) fn word(scene: &Scene, holder: &Holder, node: &str) -> String {
    let other = match &scene.confirmed_dead {
        Some(pod) if *pod != holder.pod => " (the one that stands there names another pod)",
        _ => "",
    };
    format!(
        "set the annotation {CONFIRM_NODE_DEAD}={} once node {node} is certainly off{other}",
        holder.pod
    )
}

/// The search for proof ends here without a human: say what is missing.
pub(super) fn held(scene: &Scene, node: &str, holder: &Holder) -> Verdict {
    let class = scene.driver_class();
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
    let word = word(scene, holder, node);
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
        DriverClass::Unknown if !scene.is_attachable() => (
            "DriverClassUnknown",
            format!(
                "node {node} is silent and its volume is never attached to nodes, so nothing can be taken from it; {word}"
            ),
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

/// Whether that node can no longer write, and if not, what is done or waited for.
pub(super) fn released(scene: &Scene, holder: &Holder, node: &str) -> Result<Evidence, Box<Verdict>> {
    let pulse = scene.pulse(node);
    // a node that renews its Lease is not dead, whoever says so
    if pulse == Pulse::Alive {
        return node_released(scene, node);
    }
    let confirmed = is_confirmed(scene, holder, node);
    let proof = match (confirmed, pulse, scene.driver_class().detach_is_proof()) {
        (true, _, _) => Evidence::ConfirmedDead,
        (false, Pulse::Gone, _) if gone_for_good(scene, node) => Evidence::NodeGone,
        (false, _, true) => Evidence::StorageRevoked,
        (false, _, false) => return Err(Box::new(held(scene, node, holder))),
    };
    if !confirmed && let Some(verdict) = brake(scene, holder, node) {
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
pub(super) fn gone_for_good(scene: &Scene, node: &str) -> bool {
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
        "taking the volume of claim {} from dead node {node}; after {} s without progress its attachment is deleted{}",
        scene.claim.name,
        scene.timing.detach_fallback.as_secs(),
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

pub(super) fn is_confirmed(scene: &Scene, holder: &Holder, node: &str) -> bool {
    scene.confirmed_dead.as_ref() == Some(&holder.pod) || scene.nodes.get(node).is_some_and(|n| n.out_of_service)
}

/// Over several nodes the proof that names a dead one says most.
pub(super) fn strongest(one: Option<Evidence>, other: Evidence) -> Evidence {
    match one {
        Some(one) if one != Evidence::NodeReleased => one,
        _ => other,
    }
}
