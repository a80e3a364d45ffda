//! The world of one instance at one moment: everything the pure modules may look at. Pure data; `observe` makes it.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::Timestamp;

use crate::api::SqlEdgeInstance;
use crate::desired::{ENGINE_CONTAINER, VOLUME_FENCE, VOLUME_ID};
use crate::instance::Instance;
use crate::scene::Scene;
use crate::space::Told;

/// Annotation on the claim: UID of the pod that was last let at the volume.
pub const HOLDER_POD: &str = "sqledge.io/holder-pod";
/// Annotation on the claim: node of that pod.
pub const HOLDER_NODE: &str = "sqledge.io/holder-node";
/// Annotation on the claim: whether that node is a machine of a cloud provider (has a `spec.providerID`); read when its Node object
/// is gone and can tell no more.
pub const HOLDER_NODE_PROVIDED: &str = "sqledge.io/holder-node-provided";
/// Annotation on the claim: nodes, separated by commas, that gave no sign of life when the holder was let at the volume. An old engine may
/// still run there, so the holder must not be placed there, whoever opens its gate and whatever that operator remembers.
pub const AVOID_NODES: &str = "sqledge.io/avoid-nodes";
/// Annotation on the claim: `HOLDER;NODE=BOOT,…`, the boot IDs of lost nodes when they were lost. It counts only while the
/// holder is that one: an operator that does not know this annotation leaves it behind.
pub const AVOID_BOOTS: &str = "sqledge.io/avoid-boots";
/// Annotation on the claim: node that a pinned pod could not be placed on.
pub const PIN_REFUSED: &str = "sqledge.io/pin-refused";
/// Annotation on the claim: the highest epoch of the instance's Lease that the operator has written.
pub const EPOCH: &str = "sqledge.io/epoch";

/// One instance and what is around it.
#[derive(Clone, Debug)]
pub struct World {
    /// When it was looked at; the only time anything pure may know.
    pub now: Timestamp,
    /// The resource as stored.
    pub resource: Arc<SqlEdgeInstance>,
    /// The resource as understood.
    pub instance: Instance,
    /// The claim.
    pub claim: Option<PersistentVolumeClaim>,
    /// Whether the storage class that the claim asks for exists; only looked up while the claim is unbound.
    pub storage_class: StorageClassFacts,
    /// Another resource that uses the claim.
    pub claim_rival: Option<String>,
    /// The password Secret.
    pub secret: SecretFacts,
    /// Whether the engine is to be given the password of the Secret.
    pub password_change: PasswordChange,
    /// The Service.
    pub service: Option<Service>,
    /// The Deployment.
    pub deployment: Option<Deployment>,
    /// What the guard needs; nothing of it is looked up where no guard is wanted.
    pub guard: GuardObjects,
    /// Our pods, oldest first.
    pub pods: Vec<Pod>,
    /// What the failover decision reads.
    pub scene: Scene,
    /// Version that the engine reported at the last login.
    pub engine_version: Option<String>,
    /// Databases that the engine, by its own word, cannot use: name and state.
    pub broken_databases: Vec<String>,
    /// What the engine said at the last login about the space on its volume.
    pub space: Told,
    /// The API server's words, if it refused lately to let the claim grow to the wanted size.
    pub expansion_refused: Option<String>,
}

/// What a guard needs of the API server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuardObjects {
    /// Its account.
    pub account: Option<ServiceAccount>,
    /// Its role.
    pub role: Option<Role>,
    /// The binding of the two.
    pub binding: Option<RoleBinding>,
    /// The Lease that decides which pod's engine may write.
    pub lease: Option<Lease>,
}

/// What is known about the claim's storage class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageClassFacts {
    /// Not looked up: the claim is bound or names no class.
    NotLookedUp,
    /// There is one.
    Exists,
    /// There is none of that name.
    Missing(String),
    /// The claim names no class and the cluster has no default.
    NoDefault,
}

/// Whether the engine is to be given the password of the Secret in place of the one it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PasswordChange {
    /// It has it, or nobody knows which one it has.
    #[default]
    None,
    /// It refuses the one of the Secret and is known to have had another one.
    Due,
    /// It would not take it; its own words.
    Refused(String),
}

/// What is known about the password Secret. Never holds the password in a form that can be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFacts {
    /// There is no such Secret.
    Missing,
    /// It exists, but has none of the keys.
    NoKey {
        /// The key or keys that were looked for.
        wanted: String,
    },
    /// The engine would refuse this password.
    Weak {
        /// The rule that it breaks.
        why: String,
    },
    /// It exists under our name, but is not ours.
    Foreign,
    /// Usable.
    Usable {
        /// The key that holds the password.
        key: String,
        /// Whether it is deleted with the resource.
        owned: bool,
    },
}

impl World {
    /// The pod that has passed the gate, or else the newest one.
    pub fn current_pod(&self) -> Option<&Pod> {
        let passed = |pod: &&Pod| !is_gated(pod) && !is_finished(pod);
        self.pods.iter().rev().find(passed).or_else(|| {
            self.pods
                .iter()
                .rev()
                .find(|pod| pod.metadata.deletion_timestamp.is_none())
        })
    }

    /// The claim's record of the volume's identity.
    pub fn volume_id(&self) -> Option<&str> {
        annotation(self.claim.as_ref()?, VOLUME_ID)
    }

    /// Whether a pod was ever let at the volume: then it has data, and a new password would not fit it.
    pub fn volume_was_used(&self) -> bool {
        self.claim
            .as_ref()
            .is_some_and(|claim| annotation(claim, HOLDER_POD).is_some())
    }
}

/// An annotation of an object.
pub fn annotation<'a, K: kube::Resource>(object: &'a K, key: &str) -> Option<&'a str> {
    object.meta().annotations.as_ref()?.get(key).map(String::as_str)
}

/// Phase of a claim, once it has one.
pub fn claim_phase(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.phase.as_deref()
}

/// The storage that a claim requests.
pub fn requested_storage(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    let resources = claim.spec.as_ref()?.resources.as_ref()?;
    resources.requests.as_ref()?.get("storage")
}

/// Whether our gate is still shut.
pub fn is_gated(pod: &Pod) -> bool {
    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.scheduling_gates.as_deref())
        .unwrap_or_default();
    gates.iter().any(|gate| gate.name == VOLUME_FENCE)
}

/// Whether the pod's phase is final.
pub fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The engine container's status.
pub fn engine_status(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status
        .as_ref()?
        .container_statuses
        .as_ref()?
        .iter()
        .find(|status| status.name == ENGINE_CONTAINER)
}

/// Whether the kubelet has reported every container as ended.
pub fn is_stopped(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let engines = status.container_statuses.as_deref().unwrap_or_default();
    let all = engines
        .iter()
        .chain(status.init_container_statuses.as_deref().unwrap_or_default());
    let ended = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.terminated.is_some());
    let spec = pod.spec.as_ref().map_or(usize::MAX, |spec| spec.containers.len());
    // a container that waits may be started any moment, unless the pod is being deleted
    pod.metadata.deletion_timestamp.is_some() && engines.len() == spec && all.into_iter().all(ended)
}

#[cfg(test)]
pub mod samples;
