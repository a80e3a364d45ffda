//! What is to be done about an instance's children. Pure: [`World`] in, [`Plan`] out.
//!
//! Every step is idempotent: a crash after any of them is made good by the next pass. What must not be done twice, or is
//! dangerous, is no step; it is the one [`crate::failover::Act`] of a pass.

mod guard;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Resource, ResourceExt as _};
use serde_json::{Value, json};

use crate::api::{DeletionPolicy, SqlEdgeInstance};
use crate::cluster::Judged;
use crate::desired::{self, INSTANCE_UID, Rendering, TEMPLATE_BUILDER, TEMPLATE_INPUTS, VOLUME_ID};
use crate::drift;
use crate::instance::Instance;
use crate::settings::Identity;
use crate::world::{
    PasswordChange, SecretFacts, StorageClassFacts, World, annotation, claim_phase, is_finished, is_gated,
    requested_storage,
};

/// What to do, and what stands in the way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// The first thing that a user must put right.
    pub problem: Option<Problem>,
}

/// One idempotent write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make a password and keep it.
    CreateSecret,
    /// Make the claim, with an identity for its volume.
    CreateClaim,
    /// JSON patch of the claim: adopt it, or change who deletes it.
    PatchClaim {
        /// The claim as judged.
        claim: Judged,
        /// What to change.
        operations: Vec<Value>,
    },
    /// Raise what the claim requests. A step of its own, because it may be refused for reasons that concern nothing else.
    GrowClaim {
        /// The claim as judged.
        claim: Judged,
        /// The size it is to have.
        size: Quantity,
    },
    /// Delete a claim that never got a volume, so that it can be made as it is wanted now: the rest of its spec cannot be changed.
    DeleteUnboundClaim {
        /// The claim as judged.
        claim: Judged,
    },
    /// Change who deletes the Secret.
    OwnSecret {
        /// Whether the resource is to own it.
        owned: bool,
    },
    /// Give the engine the password of the Secret.
    ChangePassword,
    /// Apply the Service.
    ApplyService(Box<Service>),
    /// Apply the guard's account.
    ApplyServiceAccount(Box<ServiceAccount>),
    /// Apply the guard's role.
    ApplyRole(Box<Role>),
    /// Apply the binding of the two.
    ApplyRoleBinding(Box<RoleBinding>),
    /// Make the Lease where there is none.
    CreateLease(Box<Lease>),
    /// JSON patch of the Lease: the orders to the guard, or a label that was taken away. Who holds it is never touched here.
    PatchLease {
        /// The Lease as judged.
        lease: Judged,
        /// What to change.
        operations: Vec<Value>,
    },
    /// Apply the Deployment.
    ApplyDeployment(Box<Deployment>),
    /// Only put the number of replicas right, and leave a template that an older operator made alone.
    ScaleToOne {
        /// The Deployment as judged.
        deployment: Judged,
    },
}

/// Something that keeps a child from being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Condition reason and event reason.
    pub reason: &'static str,
    /// One sentence that names the object or field and the next step.
    pub message: String,
    /// It goes away by itself; anything else only a user can put right.
    pub passes: bool,
}

/// Makes the plan.
pub fn plan(world: &World, identity: &Identity) -> Plan {
    let mut plan = Plan::default();
    secret(world, &mut plan);
    claim(world, &mut plan);
    service(world, &mut plan);
    guard::plan(world, &mut plan);
    deployment(world, identity, &mut plan);
    // whatever becomes of that one, the others are done
    plan.steps.sort_by_key(|step| matches!(step, Step::GrowClaim { .. }));
    plan
}

impl Plan {
    fn problem(&mut self, reason: &'static str, message: String) {
        self.problem.get_or_insert(Problem {
            reason,
            message,
            passes: false,
        });
    }

    fn passing(&mut self, reason: &'static str, message: String) {
        self.problem.get_or_insert(Problem {
            reason,
            message,
            passes: true,
        });
    }
}

fn secret(world: &World, plan: &mut Plan) {
    let Instance {
        secret_name: name,
        secret_is_ours,
        ..
    } = &world.instance;
    match &world.secret {
        SecretFacts::Usable { owned, .. } => {
            let wanted = world.instance.deletion_policy == DeletionPolicy::Delete;
            if *secret_is_ours && *owned != wanted {
                plan.steps.push(Step::OwnSecret { owned: wanted });
            }
            if world.password_change == PasswordChange::Due {
                plan.steps.push(Step::ChangePassword);
            }
        }
        SecretFacts::Missing if *secret_is_ours && !world.volume_was_used() => plan.steps.push(Step::CreateSecret),
        SecretFacts::Missing if *secret_is_ours => plan.problem(
            "SecretMissing",
            format!(
                "Secret {name} is gone, and a new password would not fit the data on claim {}; create the Secret again with the old password \
                 under the key MSSQL_SA_PASSWORD and the label app.kubernetes.io/managed-by=sqledge-operator",
                world.instance.claim_name
            ),
        ),
        SecretFacts::Missing => plan.problem(
            "SecretMissing",
            format!("Secret {name}, named in spec.saPasswordSecretRef, does not exist; create it or correct the name"),
        ),
        SecretFacts::NoKey { wanted } => plan.problem(
            "SecretKeyMissing",
            format!("Secret {name} has no key {wanted}; add the key or set spec.saPasswordSecretRef.key"),
        ),
        SecretFacts::Weak { why } => plan.problem(
            "PasswordTooWeak",
            format!("the engine would refuse the password in Secret {name} because {why}; change it"),
        ),
        SecretFacts::Foreign => conflict(plan, "Secret", name),
    }
}

fn conflict(plan: &mut Plan, kind: &str, name: &str) {
    plan.problem(
        "NameConflict",
        format!("{kind} {name} exists and is not ours, so it is left alone; rename or delete it, or give the resource another name"),
    );
}

fn claim(world: &World, plan: &mut Plan) {
    let instance = &world.instance;
    let name = &instance.claim_name;
    match &world.storage_class {
        StorageClassFacts::Missing(class) => plan.problem(
            "StorageClassMissing",
            format!("claim {name} asks for storage class {class}, which does not exist; create it or correct spec.storage.storageClassName"),
        ),
        StorageClassFacts::NoDefault => plan.problem(
            "StorageClassMissing",
            format!("claim {name} names no storage class and the cluster has no default; set spec.storage.storageClassName"),
        ),
        StorageClassFacts::Exists | StorageClassFacts::NotLookedUp => {}
    }
    let had_volume = world
        .resource
        .status
        .as_ref()
        .and_then(|status| status.volume.as_deref());
    let Some(claim) = &world.claim else {
        if !instance.claim_is_ours {
            let message = format!(
                "claim {name}, named in spec.storage.existingClaim, does not exist; create it or correct the name"
            );
            return plan.problem("ClaimMissing", message);
        }
        if let Some(volume) = had_volume {
            // a new claim would come up with an empty database that looks healthy
            let message = format!(
                "claim {name} with volume {volume} is gone; bring that claim back (a retained volume can be bound again), or delete this \
                 resource and make it anew to begin with an empty database"
            );
            return plan.problem("ClaimLost", message);
        }
        // a claim of a class that does not exist yet could not be corrected: its class is fixed
        if !matches!(
            world.storage_class,
            StorageClassFacts::Missing(_) | StorageClassFacts::NoDefault
        ) {
            plan.steps.push(Step::CreateClaim);
        }
        return;
    };
    if claim.metadata.deletion_timestamp.is_some() {
        let next = if had_volume.is_some() {
            "bring its volume back under a claim of that name"
        } else if instance.claim_is_ours {
            "a new one is made when it is gone"
        } else {
            "make it anew when it is gone"
        };
        let message = format!("claim {name} is being deleted and nothing can be started on it; {next}");
        if had_volume.is_none() && instance.claim_is_ours {
            plan.passing("ClaimTerminating", message);
        } else {
            plan.problem("ClaimTerminating", message);
        }
        return;
    }
    if let Some(rival) = &world.claim_rival {
        let message =
            format!("claim {name} belongs to SqlEdgeInstance {rival}; name another claim or delete that resource");
        return plan.problem("ClaimInUse", message);
    }
    if instance.claim_is_ours && !instance.has_labelled(claim.labels()) {
        return conflict(plan, "PersistentVolumeClaim", name);
    }
    if let Some(claim) = Judged::of(claim).filter(|_| is_unbound_and_different(instance, claim)) {
        return plan.steps.push(Step::DeleteUnboundClaim { claim });
    }
    let operations = claim_operations(instance, claim);
    let Some(judged) = Judged::of(claim) else { return };
    if !operations.is_empty() {
        // it is another version after that, and the next pass sees whether it is large enough
        plan.steps.push(Step::PatchClaim {
            claim: judged,
            operations,
        });
    } else if let Some(size) = growth(world, claim) {
        plan.steps.push(Step::GrowClaim { claim: judged, size });
    }
}

/// The size that a claim of ours is to grow to, whatever state the database is in: a volume that is full needs it most when nothing runs on it.
fn growth(world: &World, claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let instance = &world.instance;
    let requested = requested_storage(claim)?;
    let wanted = instance.claim_is_ours && world.expansion_refused.is_none() && instance.size_exceeds(requested);
    instance.size.clone().filter(|_| wanted)
}

/// A claim without a volume holds no data. The class that the API server filled in where none was asked for is no difference.
fn is_unbound_and_different(instance: &Instance, claim: &PersistentVolumeClaim) -> bool {
    let Some(wanted) = desired::claim(instance, "").and_then(|wanted| wanted.spec) else {
        return false;
    };
    let Some(stored) = &claim.spec else { return false };
    stored.volume_name.is_none() && claim_phase(claim) == Some("Pending") && !drift::is_stated(&wanted, stored)
}

fn claim_operations(instance: &Instance, claim: &PersistentVolumeClaim) -> Vec<Value> {
    let mut operations = Vec::new();
    let adopted = annotation(claim, INSTANCE_UID) == Some(&instance.uid)
        && annotation(claim, VOLUME_ID).is_some()
        && instance.has_labelled(claim.labels());
    if !adopted {
        let mut annotations = claim.annotations().clone();
        annotations.insert(INSTANCE_UID.into(), instance.uid.clone());
        // the claim's own UID is as good as any random value, and the same in every attempt
        annotations
            .entry(VOLUME_ID.into())
            .or_insert_with(|| claim.uid().unwrap_or_default());
        let mut labels = claim.labels().clone();
        labels.extend(instance.labels());
        operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": annotations}));
        operations.push(json!({"op": "add", "path": "/metadata/labels", "value": labels}));
    }
    if !instance.claim_is_ours {
        return operations;
    }
    // a reference to a resource that is no more would have the claim collected as garbage
    let wanted: Vec<_> = match instance.deletion_policy {
        DeletionPolicy::Delete => vec![instance.owner_reference()],
        DeletionPolicy::Retain => Vec::new(),
    };
    let owners = claim
        .owner_references()
        .iter()
        .filter(|owner| owner.kind == SqlEdgeInstance::kind(&()));
    if owners.map(|owner| &owner.uid).ne(wanted.iter().map(|owner| &owner.uid)) {
        operations.push(json!({"op": "add", "path": "/metadata/ownerReferences", "value": wanted}));
    }
    operations
}

/// Whether an object of our name is ours.
enum Ownership {
    Ours,
    /// Of a resource of our name that was deleted; the garbage collector is about to remove it.
    Predecessors,
    Foreign,
}

fn ownership<K: Resource>(instance: &Instance, object: &K) -> Ownership {
    let owners = object.owner_references();
    let kind = SqlEdgeInstance::kind(&());
    match owners.iter().find(|owner| owner.controller == Some(true)) {
        Some(_) if instance.owns(object) => Ownership::Ours,
        Some(owner) if owner.kind == kind && owner.name == instance.name => Ownership::Predecessors,
        _ => Ownership::Foreign,
    }
}

/// Whether the child may be applied; if not, the plan says why.
fn may_apply<K: Resource<DynamicType = ()>>(
    plan: &mut Plan,
    instance: &Instance,
    stored: Option<&K>,
    name: &str,
) -> bool {
    let Some(stored) = stored else { return true };
    match ownership(instance, stored) {
        Ownership::Ours if stored.meta().deletion_timestamp.is_none() => true,
        Ownership::Ours | Ownership::Predecessors => {
            let message = format!(
                "{} {name} of an earlier resource is being removed; it is made again when it is gone",
                K::kind(&())
            );
            plan.passing("PredecessorTerminating", message);
            false
        }
        Ownership::Foreign => {
            conflict(plan, &K::kind(&()), name);
            false
        }
    }
}

fn service(world: &World, plan: &mut Plan) {
    let instance = &world.instance;
    if !may_apply(plan, instance, world.service.as_ref(), &instance.service_name) {
        return;
    }
    let wanted = desired::service(instance);
    if world
        .service
        .as_ref()
        .is_none_or(|stored| !drift::is_stated(&wanted, stored))
    {
        plan.steps.push(Step::ApplyService(Box::new(wanted)));
    }
}

fn deployment(world: &World, identity: &Identity, plan: &mut Plan) {
    let instance = &world.instance;
    if !may_apply(plan, instance, world.deployment.as_ref(), &instance.name) {
        return;
    }
    // what already runs is left running, but nothing is started or changed on a doubtful footing
    if plan.problem.is_some() {
        return;
    }
    let (SecretFacts::Usable { key, .. }, Some(volume_id)) = (&world.secret, world.volume_id()) else {
        return;
    };
    let rendering = Rendering {
        operator_image: &identity.image,
        volume_id,
        secret_key: key,
    };
    let wanted = desired::deployment(instance, &rendering);
    let Some(stored) = &world.deployment else {
        return plan.steps.push(Step::ApplyDeployment(Box::new(wanted)));
    };
    let same = |key: &str| annotation(stored, key) == annotation(&wanted, key);
    if same(TEMPLATE_INPUTS) && !same(TEMPLATE_BUILDER) && !is_being_replaced(world) {
        // another version of the operator would render it differently; that alone must not restart a database
        let replicas = stored.spec.as_ref().and_then(|spec| spec.replicas);
        if let Some(judged) = Judged::of(stored).filter(|_| replicas != Some(1)) {
            plan.steps.push(Step::ScaleToOne { deployment: judged });
        }
        return;
    }
    if !drift::is_stated(&wanted, stored) {
        plan.steps.push(Step::ApplyDeployment(Box::new(wanted)));
    }
}

/// Whether a new template restarts nothing that would not be started anew in any case: no pod is past the gate and there to
/// stay. A gated pod may go as well, but not the one that the record names: its gate is about to open, and a record of a pod
/// that never ran asks for proof about every node.
fn is_being_replaced(world: &World) -> bool {
    let holder = world.scene.claim.holder.as_ref().map(|holder| holder.pod.as_str());
    world.pods.iter().filter(|pod| !is_finished(pod)).all(|pod| {
        if is_gated(pod) {
            holder.is_none() || pod.metadata.uid.as_deref() != holder
        } else {
            pod.metadata.deletion_timestamp.is_some()
        }
    })
}

#[cfg(test)]
mod tests;
