//! What the Lease adds to the invariants: an engine under a guard runs by its word alone, and it changes hands in one order.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize as _;
use serde_json::Value;
use sqledge_operator::desired::has_guard;
use sqledge_operator::lease::{self, Hold, Record};

use crate::guards::Keeper;
use crate::invariant::{Write, is_gated};
use crate::mirror::{text, uid};
use crate::world::{INSTANCE, State};

/// Whether the engine of a pod runs under a guard.
pub fn is_guarded(pod: &Value) -> bool {
    Pod::deserialize(pod).is_ok_and(|pod| has_guard(&pod))
}

/// What a Lease says.
pub fn record(lease: &Value) -> Record {
    Record::of(&Lease::deserialize(lease).expect("the API server's own object parses"))
}

fn is_its_own(state: &State, keeper: &Keeper) -> bool {
    keeper.won.is_some() && state.lease().map(|lease| lease.hold) == keeper.won
}

/// G1, at the moment in which a guard starts its engine.
pub fn started_without_the_lease(state: &State, pod: &str) -> Option<String> {
    let container = state.physics.containers.get(pod)?;
    let keeper = container.keeper.as_ref().filter(|_| container.engine)?;
    let lease = state.lease().map(|lease| lease.hold.to_string());
    (!is_its_own(state, keeper)).then(|| format!("an engine of pod {pod} was started by the Lease {lease:?}"))
}

/// G3, after enough time has gone by for every guard that reaches the API server and does not hang to have read the Lease.
pub fn disobedience(state: &State) -> Vec<String> {
    let lease = state.lease();
    let containers = state.physics.containers.iter();
    let runs = containers.filter(|(pod, container)| {
        container.engine
            && state.physics.machine(&container.node).reaches_api()
            && !state.physics.slow_to_end.contains(*pod)
    });
    let keepers = runs.filter_map(|(pod, container)| Some((pod, container.keeper.as_ref()?)));
    keepers
        .filter(|(_, keeper)| lease.is_some() && !is_its_own(state, keeper))
        .map(|(pod, _)| format!("pod {pod} has an engine although the Lease is {lease:?}"))
        .collect()
}

/// What a write has broken that changed the Lease.
pub fn after(state: &State, write: &Write) -> Vec<String> {
    let mut broken = Vec::new();
    if write.key.plural != "leases" || write.key.name != lease::name(INSTANCE) {
        return broken;
    }
    let Some(after) = write.after else { return broken };
    let now = record(after);
    let claim = state.mirror.get("persistentvolumeclaims", &state.claim);
    let noted = |key: &str| {
        claim.map_or("", |claim| {
            text(claim, &format!("/metadata/annotations/sqledge.io~1{key}"))
        })
    };
    match write.before.filter(|before| uid(before) == uid(after)).map(record) {
        Some(before) => {
            if now.epoch < before.epoch {
                broken.push(format!("the epoch fell from {} to {}", before.epoch, now.epoch));
            }
            let changes = before.hold != now.hold && !matches!(now.hold, Hold::Stopped(_));
            if changes && now.epoch == before.epoch {
                broken.push(format!("{} became {} in the same epoch", before.hold, now.hold));
            }
        }
        None if noted("epoch").parse().is_ok_and(|noted: i32| now.epoch <= noted) => {
            broken.push(format!(
                "a Lease began at epoch {}, and {} was noted",
                now.epoch,
                noted("epoch")
            ));
        }
        None => {}
    }
    if write.actor == "cluster" {
        return broken;
    }
    match &now.hold {
        Hold::Named(pod) if noted("holder-pod") != pod => {
            broken.push(format!(
                "pod {pod} was named, and the record is of {:?}",
                noted("holder-pod")
            ));
        }
        Hold::Taken { .. } | Hold::Stopped(_)
            if write.before.map(record).is_none_or(|before| before.hold != now.hold) =>
        {
            broken.push(format!("the Lease was made {} by somebody else than a guard", now.hold));
        }
        _ => {}
    }
    broken
}

/// A gate that opens for a pod with a guard, while the Lease is not for it.
pub fn opened_without_a_name(state: &State, opened: &Value) -> Option<String> {
    let lease = state.lease().map(|lease| lease.hold);
    let named = lease == Some(Hold::Named(uid(opened).to_owned()));
    (is_guarded(opened) && !named).then(|| {
        format!(
            "the gate of pod {} was opened while the Lease is {lease:?}",
            uid(opened)
        )
    })
}

/// The volume is taken from a node while a pod that was let go there may still start an engine.
pub fn not_sealed(state: &State, node: &str) -> Option<String> {
    let lease = state.lease()?;
    let pod = lease.pod()?;
    let is_there = state
        .let_go
        .get(pod)
        .is_some_and(|there| there.as_deref() == Some(node));
    (is_there && !state.physics.ended.contains(pod)).then(|| {
        format!(
            "the volume was taken from node {node} while the Lease is {}",
            lease.hold
        )
    })
}

/// A pod under a guard whose engine does not run, and to which the Lease does not come any more: it is not for it, and its gate was open.
pub fn has_ended_for_good(state: &State, pod: &str) -> bool {
    let waits = |stored: &Value| uid(stored) == pod && is_gated(stored);
    state.guarded.contains(pod)
        && !state.physics.runs(pod)
        && state.lease().is_some_and(|lease| lease.pod() != Some(pod))
        && !state.mirror.all("pods").any(waits)
}
