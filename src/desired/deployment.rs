//! The Deployment: one replica of the pod that runs the engine.
//!
//! A Deployment and no `StatefulSet`: the pod of a `StatefulSet` on a dead node blocks its own replacement, while a
//! `ReplicaSet` replaces it at once. The scheduling gate makes that safe.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, EmptyDirVolumeSource, KeyToPath, PersistentVolumeClaimVolumeSource, PodSchedulingGate,
    PodSecurityContext, PodSpec, PodTemplateSpec, ProjectedVolumeSource, SeccompProfile, ServiceAccountTokenProjection,
    Toleration, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::container::{DATA_VOLUME, GUARD_VOLUME, HEARTBEAT_VOLUME, TOKEN_VOLUME, engine, volume_check};
use super::{TEMPLATE_BUILDER, TEMPLATE_INPUTS, VOLUME_FENCE, inputs::template_inputs, owned};
use crate::instance::Instance;

/// User and group of the engine in every image since 2019.
const ENGINE_USER: i64 = 10_001;

/// A day. The kubelet replaces the token after 80 % of that; a guard whose kubelet has died keeps a valid one for five hours
/// at least, and a database that goes on serving on such a node need not stop for want of a token. It is bound to the pod.
const TOKEN_SECONDS: i64 = 86_400;

const ARCHITECTURE: &str = "kubernetes.io/arch";

/// What the template needs beside the instance.
#[derive(Clone, Copy, Debug)]
pub struct Rendering<'a> {
    /// Image of the operator, which holds the guard.
    pub operator_image: &'a str,
    /// What the marker file on the volume must say.
    pub volume_id: &'a str,
    /// Key of the password in the Secret.
    pub secret_key: &'a str,
}

/// The Deployment, with what it was made from in its annotations.
pub fn deployment(instance: &Instance, rendering: &Rendering) -> Deployment {
    let inputs = template_inputs(instance, rendering.volume_id, rendering.secret_key);
    Deployment {
        metadata: ObjectMeta {
            annotations: Some(
                [
                    (TEMPLATE_INPUTS.to_owned(), inputs),
                    (TEMPLATE_BUILDER.to_owned(), rendering.operator_image.to_owned()),
                ]
                .into(),
            ),
            ..owned(instance, &instance.name)
        },
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            // the old pod first; that alone is not "at most one", hence the gate
            strategy: Some(DeploymentStrategy {
                type_: Some("Recreate".to_owned()),
                rolling_update: None,
            }),
            revision_history_limit: Some(1),
            // "no deadline": a gate may rightly stay shut for hours, and the instance's status says why
            progress_deadline_seconds: Some(i32::MAX),
            selector: LabelSelector {
                match_labels: Some(instance.selector()),
                match_expressions: None,
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(instance.labels()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(instance, rendering)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn pod(instance: &Instance, rendering: &Rendering) -> PodSpec {
    PodSpec {
        // the engine's @@SERVERNAME is its host name, and a client may depend on it
        hostname: Some(instance.name.clone()),
        scheduling_gates: Some(vec![PodSchedulingGate {
            name: VOLUME_FENCE.to_owned(),
        }]),
        node_selector: Some(node_selector(instance)),
        affinity: instance.affinity.clone(),
        tolerations: Some(tolerations(instance)),
        topology_spread_constraints: some(&instance.topology_spread_constraints),
        priority_class_name: instance.priority_class_name.clone(),
        image_pull_secrets: some(&instance.image_pull_secrets),
        security_context: Some(instance.pod_security_context.clone().unwrap_or_else(security_context)),
        service_account_name: instance.is_guarded().then(|| instance.guard_name()),
        // The database talks to clients, not to the API server; the guard's token is a volume of its container alone. Nor does
        // it need a list of the namespace's Services.
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        // the guard has to be process 1 of its container; said, so that an edit is put right
        share_process_namespace: Some(false),
        termination_grace_period_seconds: Some(instance.termination_grace_period_seconds),
        init_containers: Some(vec![volume_check(instance, rendering)]),
        containers: vec![engine(instance, rendering)],
        volumes: Some(volumes(instance)),
        ..PodSpec::default()
    }
}

fn volumes(instance: &Instance) -> Vec<Volume> {
    let mut volumes = vec![
        Volume {
            name: DATA_VOLUME.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: instance.claim_name.clone(),
                read_only: None,
            }),
            ..Volume::default()
        },
        // one program; the limit only keeps a mistake from filling the node's disk
        empty_dir(GUARD_VOLUME, None, "64Mi"),
    ];
    if instance.is_guarded() {
        volumes.push(empty_dir(HEARTBEAT_VOLUME, Some("Memory"), "1Mi"));
        volumes.push(token());
    }
    volumes
}

fn empty_dir(name: &str, medium: Option<&str>, limit: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(limit.to_owned())),
            medium: medium.map(str::to_owned),
        }),
        ..Volume::default()
    }
}

/// What the guard needs to speak with the API server: a token that is worthless once the pod is gone, and the authority.
fn token() -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            path: "token".to_owned(),
            expiration_seconds: Some(TOKEN_SECONDS),
            audience: None,
        }),
        ..VolumeProjection::default()
    };
    let authority = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: "kube-root-ca.crt".to_owned(),
            items: Some(vec![KeyToPath {
                key: "ca.crt".to_owned(),
                path: "ca.crt".to_owned(),
                mode: None,
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: TOKEN_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![token, authority]),
            default_mode: None,
        }),
        ..Volume::default()
    }
}

/// The vendor builds no image for ARM any more; on a mixed cluster the pod would otherwise end up in `exec format error`.
fn node_selector(instance: &Instance) -> BTreeMap<String, String> {
    let mut labels = instance.node_selector.clone();
    labels
        .entry(ARCHITECTURE.to_owned())
        .or_insert_with(|| "amd64".to_owned());
    labels
}

/// The user's tolerations, and ours for a failed node, without a time limit: evicting a database from a node that may still
/// run it is the operator's decision, because it must be fenced first.
fn tolerations(instance: &Instance) -> Vec<Toleration> {
    let ours = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"].map(|key| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    });
    let mut tolerations = instance.tolerations.clone();
    tolerations.extend(
        ours.into_iter()
            .filter(|toleration| !instance.tolerations.contains(toleration)),
    );
    tolerations
}

/// The engine's own user by number, because `runAsNonRoot` cannot judge a name, and its group on the volume. The primary
/// group is left to the image: it was 0 before SQL Server 2022 CU11 and is 10001 since. `OnRootMismatch` keeps the kubelet
/// from walking through a large volume at each start.
fn security_context() -> PodSecurityContext {
    PodSecurityContext {
        run_as_user: Some(ENGINE_USER),
        run_as_non_root: Some(true),
        fs_group: Some(ENGINE_USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

/// An empty list is left out: the API server drops it, and a later comparison would find a difference.
fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}
