//! The status of an instance. Pure and byte-stable: the same world gives the same bytes, and only a difference is written.

mod conditions;
mod record;
mod volume;

pub use record::DETACHING;

use crate::api::SqlEdgeInstanceStatus;
use crate::error::Error;
use crate::failover::{State, Verdict};
use crate::health::{self, Finding};
use crate::instance::{Instance, Invalid};
use crate::plan::{Plan, Step};
use crate::world::{World, claim_phase, is_gated};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;

use conditions::{Conditions, FALSE, TRUE, UNKNOWN};

/// Condition: whether the database has room to write.
pub const HAS_SPACE: &str = "VolumeHasSpace";
/// Condition: whether the volume is to be larger than it is.
pub const RESIZING: &str = "VolumeResizing";

/// The status of a world that was judged and acted on.
pub fn of(world: &World, plan: &Plan, verdict: &Verdict, failed: Option<&Error>) -> SqlEdgeInstanceStatus {
    let previous = world.resource.status.clone().unwrap_or_default();
    let serving = health::is_serving(world, verdict);
    let finding = if serving {
        Finding {
            reason: "LoginSucceeded",
            message: "the operator's login succeeded on this instance's own data".into(),
        }
    } else {
        health::explain(world, plan, verdict)
    };
    let address = world.service.as_ref().and_then(address);
    let generation = world.instance.generation;
    let mut conditions = Conditions::new(&previous.conditions, generation, world.now);
    conditions.set(
        "Ready",
        if serving { TRUE } else { FALSE },
        finding.reason,
        &finding.message,
    );
    let stuck = (!serving && finding.needs_a_human(verdict)).then_some(&finding);
    // what was refused is tried again every few minutes, and that must not show as a beginning and an end each time
    let is_left = |step: &Step| !matches!(step, Step::GrowClaim { .. }) || world.expansion_refused.is_none();
    let changing = plan.steps.iter().any(is_left);
    progress(
        &mut conditions,
        plan,
        changing,
        stuck,
        failed,
        (!serving).then_some(&finding),
    );
    volume_bound(&mut conditions, world);
    match volume::has_space(world) {
        Some(said) => conditions.set(HAS_SPACE, said.0, said.1, &said.2),
        None if conditions.keep(HAS_SPACE) => {}
        None => {
            let said = volume::has_unknown_space();
            conditions.set(HAS_SPACE, said.0, said.1, &said.2);
        }
    }
    let resizing = volume::resizing(world);
    conditions.set(RESIZING, resizing.0, resizing.1, &resizing.2);
    address_assigned(&mut conditions, world, address.as_deref());
    let reachable = conditions::reachable(&world.scene.login);
    conditions.set("DatabaseReachable", reachable.0, reachable.1, &reachable.2);
    let guarded = conditions::guarded(world);
    conditions.set("Guarded", guarded.0, guarded.1, &guarded.2);
    let records = record::advance(world, verdict, serving, &previous);
    match &records.current {
        Some(record) => {
            let message = format!("{}; {}", record.reason, finding.message);
            conditions.set("FailoverInProgress", TRUE, finding.reason, &message);
        }
        // it serves, so that nothing else says that its node does not
        None if verdict.state == State::Suspect => {
            conditions.set("FailoverInProgress", FALSE, verdict.reason, &verdict.message);
        }
        None => conditions.set("FailoverInProgress", FALSE, "NoFailover", "no failover is under way"),
    }
    let pod = world.current_pod().filter(|pod| !is_gated(pod));
    SqlEdgeInstanceStatus {
        observed_generation: Some(generation),
        waiting_for: if !serving {
            Some(finding.message)
        } else if let Some(problem) = &plan.problem {
            Some(problem.message.clone())
        } else if address.is_none() {
            Some(no_address(&world.instance))
        } else {
            None
        },
        conditions: conditions.finish(),
        address,
        port: Some(world.instance.port),
        node: pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone()),
        pod_name: pod.and_then(|pod| pod.metadata.name.clone()),
        volume_claim: Some(world.instance.claim_name.clone()),
        volume: world
            .claim
            .as_ref()
            .and_then(|claim| claim.spec.as_ref()?.volume_name.clone()),
        secret: Some(world.instance.secret_name.clone()),
        engine_version: world.engine_version.clone(),
        failover: records.current,
        last_failover: records.last,
    }
}

/// The status of a resource that cannot be understood; what runs is left running and what was known stays known.
pub fn of_invalid(
    previous: &SqlEdgeInstanceStatus,
    generation: i64,
    invalid: &Invalid,
    now: Timestamp,
) -> SqlEdgeInstanceStatus {
    let mut conditions = Conditions::new(&previous.conditions, generation, now);
    conditions.keep_all();
    let was_ready = previous
        .conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == TRUE);
    if !was_ready {
        conditions.set("Ready", FALSE, "InvalidSpec", &invalid.message);
    }
    let stalled = format!(
        "{}; until then nothing is changed and no failover happens",
        invalid.message
    );
    conditions.set("Stalled", TRUE, "InvalidSpec", &stalled);
    conditions.set("Reconciling", FALSE, "InvalidSpec", &invalid.message);
    SqlEdgeInstanceStatus {
        observed_generation: Some(generation),
        waiting_for: Some(invalid.message.clone()),
        conditions: conditions.finish(),
        ..previous.clone()
    }
}

/// `Stalled` and `Reconciling`. kstatus reads a resource as failed by the first and as in progress by the second, and asks the second first: never
/// are both True.
fn progress(
    conditions: &mut Conditions,
    plan: &Plan,
    changing: bool,
    stuck: Option<&Finding>,
    failed: Option<&Error>,
    not_serving: Option<&Finding>,
) {
    let lasting = plan.problem.as_ref().filter(|problem| !problem.passes);
    let stalled = match (lasting, stuck, failed) {
        (Some(problem), _, _) => Some((problem.reason, problem.message.clone())),
        (None, Some(stuck), _) => Some((stuck.reason, stuck.message.clone())),
        // anything else passes by itself
        (None, None, Some(error)) if matches!(error.reason(), "Forbidden" | "Invalid") && !error.is_moved() => {
            Some((error.reason(), error.to_string()))
        }
        (None, None, _) => None,
    };
    if let Some((reason, message)) = stalled {
        conditions.set("Stalled", TRUE, reason, &message);
        conditions.set("Reconciling", FALSE, reason, &message);
        if reason == "NameConflict" {
            conditions.set("NameConflict", TRUE, reason, &message);
        }
        return;
    }
    conditions.set("Stalled", FALSE, "Progressing", "nothing stands in the way");
    match (not_serving, &plan.problem) {
        (Some(finding), _) => conditions.set("Reconciling", TRUE, finding.reason, &finding.message),
        (None, Some(problem)) => conditions.set("Reconciling", TRUE, problem.reason, &problem.message),
        (None, None) if changing => {
            conditions.set(
                "Reconciling",
                TRUE,
                "Applying",
                "objects of the instance are being changed to what its spec says",
            );
        }
        (None, None) => conditions.set(
            "Reconciling",
            FALSE,
            "Settled",
            "nothing is left that the operator could do",
        ),
    }
}

fn volume_bound(conditions: &mut Conditions, world: &World) {
    let name = &world.instance.claim_name;
    match world.claim.as_ref().map(claim_phase) {
        Some(Some("Bound")) => conditions.set("VolumeBound", TRUE, "Bound", &format!("claim {name} is bound")),
        Some(Some("Lost")) => {
            let message = format!(
                "the volume of claim {name} is gone; bring its PersistentVolume back, or restore a backup into a new instance: a new claim would be an empty database"
            );
            conditions.set("VolumeBound", FALSE, "Lost", &message);
        }
        Some(_) => conditions.set(
            "VolumeBound",
            FALSE,
            "Pending",
            &format!("claim {name} has no volume yet"),
        ),
        None => conditions.set(
            "VolumeBound",
            FALSE,
            "NoClaim",
            &format!("there is no claim {name} yet"),
        ),
    }
}

fn address_assigned(conditions: &mut Conditions, world: &World, address: Option<&str>) {
    match address {
        Some(address) => conditions.set(
            "AddressAssigned",
            TRUE,
            "Assigned",
            &format!("clients connect to {address}"),
        ),
        None if world.service.is_none() => {
            conditions.set("AddressAssigned", UNKNOWN, "NoService", "the Service is not there yet");
        }
        None => conditions.set("AddressAssigned", FALSE, "NoLoadBalancer", &no_address(&world.instance)),
    }
}

fn no_address(instance: &Instance) -> String {
    format!(
        "Service {} has no address yet; it comes from the cluster's load balancer: check that one is installed, serves \
         spec.service.loadBalancerClass and has free addresses, or set spec.service.type",
        instance.service_name
    )
}

/// Where clients connect: the load balancer's address, else the one inside the cluster where that is what was asked for.
fn address(service: &Service) -> Option<String> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("LoadBalancer") {
        let ingress = service
            .status
            .as_ref()?
            .load_balancer
            .as_ref()?
            .ingress
            .as_ref()?
            .first()?;
        return ingress.ip.clone().or_else(|| ingress.hostname.clone());
    }
    spec.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")
}

#[cfg(test)]
mod tests;
