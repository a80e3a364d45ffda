//! No pod has the volume and one wants it: whether its gate may open. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::placement::{avoiding, can_go_back, hostname, refuse_pin};
use super::release::{is_detached, released, seal, strongest};
use super::verdict::{Act, Evidence, Placement, SOON, STEADY, State, Verdict, acting, waiting};
use crate::rules::{Rule, Rules};
use crate::scene::{Holder, LeaseFacts, PodFacts, Pulse, Right, Scene};

pub(super) fn admit(scene: &Scene, rules: Rules, candidate: &PodFacts) -> Verdict {
    let claim = &scene.claim.name;
    if !scene.claim.exists {
        return waiting(
            State::Waiting,
            "ClaimMissing",
            format!("there is no claim {claim}"),
            STEADY,
        );
    }
    if candidate.guarded && scene.lease.is_none() {
        let message = format!(
            "waiting for the Lease of claim {claim}, without which pod {} starts nothing",
            candidate.judged.name
        );
        return waiting(State::Waiting, "LeaseMissing", message, SOON);
    }
    let rival = scene.pods.iter().find(|p| !p.ours && !p.finished && !p.gated);
    if let Some(rival) = rival.filter(|_| rules.has(Rule::NoRival)) {
        let message = format!(
            "claim {claim} is mounted by pod {}, which is not ours; delete that pod",
            rival.judged.name
        );
        return waiting(State::Blocked, "ClaimInUse", message, STEADY);
    }
    if let Some(verdict) = used_beside_the_record(scene, rules, candidate) {
        return verdict;
    }
    let Some(holder) = &scene.claim.holder else {
        let attachment = scene.attachments.first().filter(|_| rules.has(Rule::NothingAttached));
        return match attachment {
            None => open(scene, rules, candidate, Evidence::FirstStart),
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
        let Some(node) = holder.node.as_ref().filter(|_| rules.has(Rule::PinIsKept)) else {
            // the record says that nobody had the volume; whoever took it since gives it back first
            let since = scene.attachments.iter().map(|attachment| attachment.node.as_str());
            let since = since.filter(|_| rules.has(Rule::NoUseBeside));
            return match since
                .map(|node| released(scene, rules, holder, node))
                .find_map(Result::err)
            {
                Some(verdict) => *verdict,
                None => opening(scene, rules, candidate, avoiding(scene, rules)),
            };
        };
        // a record with a node rests on the pin: it opens this gate for that node, or not at all
        return match hostname(scene, node).filter(|_| can_go_back(scene, rules, candidate, node)) {
            Some(host) => opening(scene, rules, candidate, Placement::Pinned(host)),
            None => refuse_pin(candidate, node),
        };
    }
    if let (Some(node), Right::Expired { .. }) = (&holder.node, scene.right(&holder.pod, rules))
        && let Some(verdict) = seal(scene, rules, holder, node)
    {
        return verdict;
    }
    if let Some(node) = holder
        .node
        .as_deref()
        .filter(|node| can_go_back(scene, rules, candidate, node))
    {
        return record(scene, rules, candidate, Some(node), Evidence::PinnedRestart);
    }
    match proven(scene, rules, holder) {
        // whoever has stopped might start again
        Ok(Some(Evidence::GuardStopped)) => seal(scene, rules, holder, holder.node.as_deref().unwrap_or("(not known)"))
            .unwrap_or_else(|| open(scene, rules, candidate, Evidence::GuardStopped)),
        Ok(Some(evidence)) => open(scene, rules, candidate, evidence),
        Ok(None) => waiting(
            State::Waiting,
            "NoNodes",
            "no node is known to the operator yet".into(),
            STEADY,
        ),
        Err(verdict) => *verdict,
    }
}

/// A node that says it uses the volume although the record names another one, or none, gives it back first: after a restore of etcd the record
/// may be older than the world, and only the kubelets tell what really is.
fn used_beside_the_record(scene: &Scene, rules: Rules, candidate: &PodFacts) -> Option<Verdict> {
    if !rules.has(Rule::NoUseBeside) {
        return None;
    }
    let nobody = Holder {
        pod: candidate.judged.uid.clone(),
        node: None,
    };
    let holder = scene.claim.holder.as_ref().unwrap_or(&nobody);
    // this candidate's record rests on the proof about the nodes that it calls lost: their lists stay as they were until they are heard of again
    let is_proven = |node: &String| holder.pod == candidate.judged.uid && stays_lost(scene, rules, node);
    let mut others = scene
        .nodes
        .keys()
        .filter(|node| holder.node.as_ref() != Some(*node) && !is_proven(node));
    others
        .find_map(|node| scene.in_use(node).then(|| released(scene, rules, holder, node).err())?)
        .map(|verdict| *verdict)
}

/// The proof that nobody writes any more, over all nodes where somebody might.
fn proven(scene: &Scene, rules: Rules, holder: &Holder) -> Result<Option<Evidence>, Box<Verdict>> {
    let candidates: BTreeSet<&str> = match &holder.node {
        // a volume that is attached to yet another node was used there by somebody we do not know of
        Some(node) if rules.has(Rule::ThirdNodes) => scene
            .attachments
            .iter()
            .map(|a| a.node.as_str())
            .chain([node.as_str()])
            .collect(),
        Some(node) => [node.as_str()].into(),
        // opened, but gone before anybody saw where it was bound: it may be on any node that its gate did not keep it off
        None if rules.has(Rule::UnseenIsAnywhere) => scene
            .nodes
            .keys()
            .map(String::as_str)
            .filter(|node| !is_still_lost(scene, rules, node))
            .chain(orphaned_attachments(scene))
            .collect(),
        None => return Ok(Some(Evidence::NodeReleased)),
    };
    let mut evidence = None;
    for node in candidates {
        evidence = Some(strongest(evidence, released(scene, rules, holder, node)?));
    }
    Ok(evidence)
}

/// A node that the record without a node calls lost. That record rests on the proof about whoever had the volume there, the pod of the record was
/// kept off it, and what was called lost since was so with a proof. Nothing has changed while it is silent, does not list the volume, and has no
/// attachment: the same proof need not be given (by a human, perhaps) once more.
fn is_still_lost(scene: &Scene, rules: Rules, node: &str) -> bool {
    stays_lost(scene, rules, node) && !(scene.in_use(node) && rules.has(Rule::LostIsUnused))
}

/// Lost, not heard of since, and without an attachment.
fn stays_lost(scene: &Scene, rules: Rules, node: &str) -> bool {
    let is_back = scene.pulse(node) == Pulse::Alive && rules.has(Rule::StillLost);
    let is_attached = !is_detached(scene, rules, node) && rules.has(Rule::LostIsDetached);
    scene.claim.has_lost(node) && !is_back && !is_attached
}

fn orphaned_attachments(scene: &Scene) -> impl Iterator<Item = &str> {
    scene
        .attachments
        .iter()
        .map(|a| a.node.as_str())
        .filter(|node| !scene.nodes.contains_key(*node))
}

/// First the record, then (in the next pass, from the record) the gate: a crash between the two leaves a record that is too careful.
fn record(scene: &Scene, rules: Rules, candidate: &PodFacts, node: Option<&str>, evidence: Evidence) -> Verdict {
    if !rules.has(Rule::RecordBeforeGate) {
        let pin = node.and_then(|node| hostname(scene, node)).map(Placement::Pinned);
        return opening(scene, rules, candidate, pin.unwrap_or_else(|| avoiding(scene, rules)));
    }
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

fn open(scene: &Scene, rules: Rules, candidate: &PodFacts, evidence: Evidence) -> Verdict {
    record(scene, rules, candidate, None, evidence)
}

fn opening(scene: &Scene, rules: Rules, candidate: &PodFacts, placement: Placement) -> Verdict {
    let message = format!(
        "opening the gate of pod {} for claim {}",
        candidate.judged.name, scene.claim.name
    );
    let unnamed = |lease: &&LeaseFacts| lease.record.pod() != Some(&candidate.judged.uid);
    let lease = scene.lease.as_ref().filter(unnamed);
    let act = Act::OpenGate {
        pod: candidate.judged.clone(),
        placement,
        name: lease
            .filter(|_| rules.has(Rule::NameBeforeGate))
            .map(|lease| lease.judged.clone()),
    };
    acting(State::Opening, "Opening", message, act)
}
