//! What is to be done about the guard's account, role, binding and Lease. Pure.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde_json::json;

use super::{Plan, Step, may_apply};
use crate::cluster::Judged;
use crate::desired;
use crate::drift;
use crate::instance::Instance;
use crate::lease::{Orders, Record};
use crate::scene::Pulse;
use crate::world::{EPOCH, GuardObjects, World, annotation, is_finished, is_gated};

/// What the guard needs stands before the pod that needs it: a pod without its account is not even created.
pub(super) fn plan(world: &World, plan: &mut Plan) {
    let instance = &world.instance;
    let GuardObjects {
        account,
        role,
        binding,
        lease,
    } = &world.guard;
    child(
        plan,
        instance,
        account.as_ref(),
        desired::service_account(instance),
        Step::ApplyServiceAccount,
    );
    child(plan, instance, role.as_ref(), desired::role(instance), Step::ApplyRole);
    child(
        plan,
        instance,
        binding.as_ref(),
        desired::role_binding(instance),
        Step::ApplyRoleBinding,
    );
    if instance.is_guarded() && may_apply(plan, instance, lease.as_ref(), &instance.lease_name()) {
        plan.steps.extend(match lease {
            None => desired::lease(instance, &beginning(world))
                .map(Box::new)
                .map(Step::CreateLease),
            Some(lease) => lease_patch(world, lease),
        });
    }
}

/// Applies a wanted child that is not there or does not say what it should.
fn child<K: Resource<DynamicType = ()> + Serialize>(
    plan: &mut Plan,
    instance: &Instance,
    stored: Option<&K>,
    wanted: Option<K>,
    step: fn(Box<K>) -> Step,
) {
    let Some(wanted) = wanted else { return };
    let name = wanted.meta().name.clone().unwrap_or_default();
    if may_apply(plan, instance, stored, &name) && stored.is_none_or(|stored| !drift::is_stated(&wanted, stored)) {
        plan.steps.push(step(Box::new(wanted)));
    }
}

/// A Lease that somebody deleted, or that went with an earlier resource of this name, begins anew for the pod that is at the volume by the
/// record on the claim, so that its guard can take it again. On a live node also for one that is stopping: whoever reads that the Lease is not
/// for it ends its engine at once. One that was never let in is named by the failover decision or not at all.
fn beginning(world: &World) -> Record {
    let holder = world.scene.claim.holder.as_ref().map(|holder| holder.pod.as_str());
    let is_on_live_node = |pod: &Pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        node.is_some_and(|node| world.scene.pulse(node) == Pulse::Alive)
    };
    let runs = |pod: &&Pod| {
        !is_gated(pod)
            && !is_finished(pod)
            && (pod.metadata.deletion_timestamp.is_none() || is_on_live_node(pod))
            && pod.metadata.uid.as_deref() == holder
    };
    let holder = holder.filter(|_| world.pods.iter().any(|pod| runs(&pod)));
    let epoch = world
        .claim
        .as_ref()
        .and_then(|claim| annotation(claim, EPOCH)?.parse().ok());
    Record::anew(
        holder,
        epoch.unwrap_or_default(),
        wanted_orders(world).unwrap_or_default(),
    )
}

/// Unknown until the claim has a volume; until then nothing needs them.
fn wanted_orders(world: &World) -> Option<Orders> {
    let volume = world.scene.volume.as_ref()?;
    Some(desired::orders(&world.instance.failover, volume.class))
}

fn lease_patch(world: &World, lease: &Lease) -> Option<Step> {
    let mut wanted = lease.clone();
    if let Some(orders) = wanted_orders(world).filter(|orders| Record::of(lease).orders != *orders) {
        orders.write(&mut wanted);
    }
    let mut operations = Vec::new();
    if wanted.annotations() != lease.annotations() {
        operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": wanted.annotations()}));
    }
    if !world.instance.has_labelled(lease.labels()) {
        let mut labels = lease.labels().clone();
        labels.extend(world.instance.labels());
        operations.push(json!({"op": "add", "path": "/metadata/labels", "value": labels}));
    }
    let lease = Judged::of(lease).filter(|_| !operations.is_empty())?;
    Some(Step::PatchLease { lease, operations })
}
