//! What proves that a node can no longer write, and how the volume is taken from it. Pure.

use std::time::Duration;

use super::brake;
use super::verdict::{Act, Evidence, SOON, STEADY, State, Verdict, acting, waiting};
use crate::api::CONFIRM_NODE_DEAD;
use crate::driver_class::DriverClass;
use crate::lease::{After, Hold, Seal};
use crate::rules::{Rule, Rules};
use crate::scene::{Attachment, Holder, Proof, Pulse, Right, Scene};

/// How a human gives their word, and when.
pub(super) fn word(scene: &Scene, holder: &Holder, when: &str) -> String {
    let other = match &scene.confirmed_dead {
        Some(pod) if *pod != holder.pod => " (the one that stands there names another pod)",
        _ => "",
    };
    format!(
        "set the annotation {CONFIRM_NODE_DEAD}={} once {when}{other}",
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
    let off = if class == DriverClass::NeedsFence {
        "fenced or off"
    } else {
        "off"
    };
    let word = word(scene, holder, &format!("node {node} is certainly {off}"));
    let (reason, message) = match class {
        DriverClass::Local => (
            "NoFailoverPossible",
            format!("node {node} is silent and the volume lives on it; it comes back with the node"),
        ),
        _ if scene.policy.proof == Proof::Manual => (
            "WaitsForWord",
            format!("node {node} is silent and spec.failover.proof is Manual; {word}"),
        ),
        _ if scene.policy.proof == Proof::Lease => (
            "NothingPromised",
            format!("node {node} is silent and its database had not promised to stop by itself; {word}"),
        ),
        DriverClass::NeedsFence => (
            "FenceMissing",
            format!(
                "node {node} is silent and driver {driver} proves nothing without a network fence; fence the node or \
                 power it off, and {word}"
            ),
        ),
        DriverClass::Busy => (
            "DetachMayBeRefused",
            format!("node {node} is silent and driver {driver} refuses to detach a mounted volume; {word}"),
        ),
        _ if !scene.is_attachable() => (
            "DriverClassUnknown",
            format!(
                "node {node} is silent and its volume is never attached to nodes, so nothing can be taken from it; {word}"
            ),
        ),
        DriverClass::Unknown => (
            "DriverClassUnknown",
            format!(
                "node {node} is silent and nothing is known about what a detach by driver {driver} proves; declare it in \
                 spec.failover.driverClass or in the operator's setting driverClasses, or {word}"
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
pub(super) fn released(scene: &Scene, rules: Rules, holder: &Holder, node: &str) -> Result<Evidence, Box<Verdict>> {
    let pulse = scene.pulse(node);
    let right = scene.right(&holder.pod, rules);
    let of_lease = lease_proves(scene, rules, right).filter(|_| lease_speaks_of(scene, rules, holder, node));
    let stopped = of_lease == Some(Evidence::GuardStopped);
    if stopped && (is_detached(scene, rules, node) || !rules.has(Rule::StoppedIsDetached)) {
        return Ok(Evidence::GuardStopped);
    }
    // a node that renews its Lease is not dead, whoever says so
    let alive =
        pulse == Pulse::Alive && !was_given_up(scene, rules, right, node) && rules.has(Rule::AliveReleasesItself);
    if alive && (rules.has(Rule::WordAgainstLife) || !is_confirmed(scene, rules, holder, node)) {
        return node_released(scene, rules, holder, node, of_lease);
    }
    if let Right::Renewed(left) = right
        && rules.has(Rule::RenewalCounts)
    {
        let message = format!(
            "node {node} is silent, but the last pod still renews its Lease; waiting until it has not done so for its time"
        );
        return Err(Box::new(waiting(
            State::Suspect,
            "NodeSilentLeaseRenewed",
            message,
            left.min(STEADY),
        )));
    }
    let confirmed = is_confirmed(scene, rules, holder, node);
    let proof = if confirmed {
        Evidence::ConfirmedDead
    } else if gone_for_good(scene, rules, node) {
        Evidence::NodeGone
    } else if stopped {
        Evidence::GuardStopped
    } else if revokes(scene, rules) {
        Evidence::StorageRevoked
    } else if let Some(evidence) = of_lease {
        evidence
    } else {
        return Err(Box::new(held(scene, node, holder)));
    };
    if !confirmed && let Some(verdict) = brake(scene, rules, holder, node) {
        return Err(Box::new(verdict));
    }
    if let Some(verdict) = seal(scene, rules, holder, node) {
        return Err(Box::new(verdict));
    }
    let attachment = scene.attachment(node).filter(|_| rules.has(Rule::OldIsDetached));
    // the seal says the same, until somebody deletes the Lease: a node that comes back is not believed by halves
    if attachment.is_some() && !scene.is_marked(node) {
        let message = format!("writing down that node {node} is lost before the volume is taken from it");
        let act = Act::Lose { node: node.to_owned() };
        // the clock of the fallback begins with the detach itself
        return Err(Box::new(acting(State::Evicting, "NodeDead", message, act)));
    }
    match attachment {
        Some(attachment) => Err(Box::new(detach(scene, rules, node, attachment))),
        None if scene.attached_by_status(node) && rules.has(Rule::StatusIsDetached) => {
            let message =
                format!("the attachment to node {node} is gone; waiting for the node's volumesAttached to say so too");
            Err(Box::new(waiting(State::Detaching, "Detaching", message, SOON)))
        }
        None => Ok(proof),
    }
}

/// E3: a detach from a node proves something, whatever state the node is in. What is never attached cannot be detached.
pub(super) fn revokes(scene: &Scene, rules: Rules) -> bool {
    scene.is_attachable()
        && scene.policy.proof != Proof::Manual
        && (scene.driver_class().detach_is_proof() || !rules.has(Rule::ClassIsProof))
}

/// With the holder's Lease its node was written down as lost, and has given no sign of life since.
fn was_given_up(scene: &Scene, rules: Rules, right: Right, node: &str) -> bool {
    let (Some(lease), Some(facts)) = (&scene.lease, scene.nodes.get(node)) else {
        return false;
    };
    // a sealed Lease is as old as its seal
    let renewed = facts
        .lease_unchanged
        .is_none_or(|unchanged| unchanged < lease.unchanged);
    let lost = scene.claim.has_lost(node);
    let may_be = matches!(right, Right::Sealed(_)) && revokes(scene, rules) && scene.fast_detach;
    let is_back = renewed || facts.renewed_since_release || facts.reported_since_release;
    lost && may_be && !(is_back && rules.has(Rule::HeardIsBack))
}

pub(super) fn is_detached(scene: &Scene, rules: Rules, node: &str) -> bool {
    scene.attachment(node).is_none() && !(scene.attached_by_status(node) && rules.has(Rule::StatusIsDetached))
}

/// E1 and E2 speak of the pod of record, and so of the node that it is on and of no other that has the volume, too. Where nobody saw it placed,
/// that may be any node, but for one that lists the volume: the record may be older than that.
fn lease_speaks_of(scene: &Scene, rules: Rules, holder: &Holder, node: &str) -> bool {
    match &holder.node {
        _ if !rules.has(Rule::SealNamesTheHolder) => true,
        Some(of_record) => of_record == node,
        None => !scene.in_use(node),
    }
}

/// E1, or E2 once the Lease is sealed: what the Lease proves about the pod of record.
pub(super) fn lease_proves(scene: &Scene, rules: Rules, right: Right) -> Option<Evidence> {
    if scene.policy.proof != Proof::Manual && matches!(right, Right::Stopped | Right::Sealed(After::Stop)) {
        return Some(Evidence::GuardStopped);
    }
    lease_may_prove(scene, rules, right).then_some(Evidence::LeaseExpired)
}

/// E2: the holder has ended by itself, or will have when its Lease is sealed.
fn lease_may_prove(scene: &Scene, rules: Rules, right: Right) -> bool {
    (scene.policy.proof == Proof::Lease || !rules.has(Rule::LeaseIsOptIn))
        && match right {
            Right::Expired { stopped } => stopped || !rules.has(Rule::PromisedToStop),
            Right::Sealed(After::Expiry) => true,
            Right::Sealed(After::Nothing) => !rules.has(Rule::PromisedToStop),
            Right::NoLease
            | Right::NotTaken
            | Right::Unpromised
            | Right::Renewed(_)
            | Right::Stopped
            | Right::Sealed(After::Stop)
            | Right::Others => false,
        }
}

/// The Lease is taken from the holder before anything is, so that no container of its pod (on a node that comes back, say) wins it while
/// its volume is being taken away.
pub(super) fn seal(scene: &Scene, rules: Rules, holder: &Holder, node: &str) -> Option<Verdict> {
    let lease = scene.lease.as_ref().filter(|_| rules.has(Rule::SealFirst))?;
    // behind its gate a pod starts nothing, and its turn may have come already
    if scene.pods.iter().any(|pod| pod.gated && pod.judged.uid == holder.pod) {
        return None;
    }
    let after = match scene.right(&holder.pod, rules) {
        Right::NoLease | Right::Sealed(_) => return None,
        // nobody of ours can take it
        Right::Others if matches!(lease.record.hold, Hold::Sealed(_)) => return None,
        Right::Stopped => After::Stop,
        Right::Expired { stopped: true } => After::Expiry,
        Right::Expired { stopped: false } | Right::NotTaken | Right::Unpromised | Right::Renewed(_) | Right::Others => {
            After::Nothing
        }
    };
    let (reason, message) = match after {
        After::Expiry => (
            "LeaseExpired",
            format!(
                "the Lease of the database on node {node} has expired; sealing it so that no container of the old pod starts an engine"
            ),
        ),
        After::Stop => (
            "Stopped",
            format!(
                "the database on node {node} has stopped in order; sealing its Lease so that it does not start again"
            ),
        ),
        After::Nothing => (
            "NodeDead",
            format!(
                "the volume is being taken from node {node}; sealing the Lease so that no container of the old pod starts an engine"
            ),
        ),
    };
    let act = Act::Seal {
        lease: lease.judged.clone(),
        seal: Seal {
            pod: holder.pod.clone(),
            after,
        },
    };
    Some(acting(State::Sealing, reason, message, act))
}

/// E4. A Node object that somebody deleted by hand says nothing about the machine; one that a cloud provider's controller removed does.
pub(super) fn gone_for_good(scene: &Scene, rules: Rules, node: &str) -> bool {
    let is_holders = scene.claim.holder.as_ref().and_then(|h| h.node.as_deref()) == Some(node);
    let provided = scene.claim.holder_node_is_provided || !rules.has(Rule::GoneIsProvided);
    scene.pulse(node) == Pulse::Gone && is_holders && provided
}

/// E0, and then the ordinary detach, so that the next kubelet does not run into a Multi-Attach back-off.
fn node_released(
    scene: &Scene,
    rules: Rules,
    holder: &Holder,
    node: &str,
    of_lease: Option<Evidence>,
) -> Result<Evidence, Box<Verdict>> {
    let claim = &scene.claim.name;
    let facts = scene.nodes.get(node);
    if !scene.is_attachable() {
        // such a volume is never listed as in use, so the node's silence about it says nothing
        return match (not_attachable(scene, node), of_lease) {
            (Err(_), Some(evidence)) => {
                seal(scene, rules, holder, node).map_or(Ok(evidence), |seal| Err(Box::new(seal)))
            }
            (word, _) => word,
        };
    }
    // taken away while the node was lost, it stays so, and the next pod is kept off the node until that has settled
    if scene.claim.has_lost(node) && revokes(scene, rules) && !scene.in_use(node) && is_detached(scene, rules, node) {
        return Ok(Evidence::StorageRevoked);
    }
    let renewed = facts.is_some_and(|n| n.renewed_since_release) || !rules.has(Rule::RenewedSince);
    if scene.in_use(node) && rules.has(Rule::NotInUse) || !renewed {
        let message =
            format!("waiting for node {node} to report that it has unmounted the volume of claim {claim} (every 10 s)");
        return Err(Box::new(waiting(State::Releasing, "NodeReleasing", message, SOON)));
    }
    // the operator may have taken the volume off that list itself
    let own_word = !scene.claim.has_lost(node) || scene.has_settled(node) || !rules.has(Rule::SettledSince);
    if !own_word {
        let message = format!(
            "node {node} was lost and is back; waiting until it was heard of for {} s without the volume of claim {claim}, or has started again",
            scene.timing.node_settled.as_secs()
        );
        return Err(Box::new(waiting(State::Releasing, "NodeReleasing", message, SOON)));
    }
    if let Some(attachment) = scene.attachment(node).filter(|_| rules.has(Rule::ReleasedIsDetached)) {
        let message = format!(
            "waiting for the volume of claim {claim} to be detached from node {node}{}",
            refusal(attachment)
        );
        return Err(Box::new(waiting(State::Releasing, "Detaching", message, SOON)));
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

fn detach(scene: &Scene, rules: Rules, node: &str, attachment: &Attachment) -> Verdict {
    let unique_name = scene.volume.as_ref().and_then(|v| v.unique_name.clone());
    let facts = scene.nodes.get(node);
    let claim = &scene.claim.name;
    let refusal = refusal(attachment);
    if attachment.deleting {
        let message = format!("waiting for the driver to take the volume of claim {claim} from node {node}{refusal}");
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
    // a kubelet that writes is back, and what it listed last must stay its own word
    let is_back = facts.is_some_and(|facts| facts.reported_since_release) && rules.has(Rule::SettledSince);
    if overdue {
        let message = format!("deleting the attachment of claim {claim}'s volume to node {node}{refusal}");
        let act = Act::DeleteAttachment {
            attachment: attachment.judged.clone(),
        };
        return acting(State::Detaching, "Detaching", message, act);
    }
    let message = format!(
        "taking the volume of claim {claim} from node {node}; after {} s without progress its attachment is deleted{refusal}",
        patience.as_secs()
    );
    if let Some((node, index, unique_name)) = listed.filter(|_| scene.fast_detach && !is_back) {
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
    waiting(State::Detaching, "Detaching", message, SOON)
}

pub(super) fn is_confirmed(scene: &Scene, rules: Rules, holder: &Holder, node: &str) -> bool {
    let named = |pod: &String| *pod == holder.pod || !rules.has(Rule::WordNamesThePod);
    scene.confirmed_dead.as_ref().is_some_and(named) || scene.nodes.get(node).is_some_and(|n| n.out_of_service)
}

/// Over several nodes the proof that names a dead one says most.
pub(super) fn strongest(one: Option<Evidence>, other: Evidence) -> Evidence {
    match one {
        Some(one) if one != Evidence::NodeReleased => one,
        _ => other,
    }
}
