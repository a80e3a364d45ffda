//! No pod has the volume and one wants it: whether its gate may open. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::placement::{avoiding, can_go_back, hostname, refuse_pin};
use super::release::{released, strongest};
use super::verdict::{Act, Evidence, Placement, SOON, STEADY, State, Verdict, acting, waiting};
use crate::scene::{Holder, PodFacts, Scene};

pub(super) fn admit(scene: &Scene, candidate: &PodFacts) -> Verdict {
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
    if let Some(verdict) = used_beside_the_record(scene, candidate) {
        return verdict;
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
            // the record says that nobody had the volume; whoever took it since gives it back first
            let since = scene.attachments.iter().map(|attachment| attachment.node.as_str());
            return match since.map(|node| released(scene, holder, node)).find_map(Result::err) {
                Some(verdict) => *verdict,
                None => opening(scene, candidate, avoiding(scene)),
            };
        };
        // a record with a node rests on the pin: it opens this gate for that node, or not at all
        return match hostname(scene, node).filter(|_| can_go_back(scene, candidate, node)) {
            Some(host) => opening(scene, candidate, Placement::Pinned(host)),
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

/// A node that says it uses the volume although the record names another one, or none, gives it back first: after a restore of etcd the record
/// may be older than the world, and only the kubelets tell what really is.
fn used_beside_the_record(scene: &Scene, candidate: &PodFacts) -> Option<Verdict> {
    let nobody = Holder {
        pod: candidate.judged.uid.clone(),
        node: None,
    };
    let holder = scene.claim.holder.as_ref().unwrap_or(&nobody);
    let mut others = scene.nodes.keys().filter(|node| holder.node.as_ref() != Some(*node));
    others
        .find_map(|node| scene.in_use(node).then(|| released(scene, holder, node).err())?)
        .map(|verdict| *verdict)
}

fn orphaned_attachments(scene: &Scene) -> impl Iterator<Item = &str> {
    scene
        .attachments
        .iter()
        .map(|a| a.node.as_str())
        .filter(|node| !scene.nodes.contains_key(*node))
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

fn opening(scene: &Scene, candidate: &PodFacts, placement: Placement) -> Verdict {
    let message = format!(
        "opening the gate of pod {} for claim {}",
        candidate.judged.name, scene.claim.name
    );
    let act = Act::OpenGate {
        pod: candidate.judged.clone(),
        placement,
    };
    acting(State::Opening, "Opening", message, act)
}
