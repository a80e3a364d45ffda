//! An instance as the operator understands it: the resource with defaults applied and every value checked.
//!
//! Pure, no I/O. Parsing happens once, at the beginning of a pass; nothing later validates. What the schema cannot check,
//! or what was stored before a rule existed, ends here as an [`Invalid`] that names the field.

mod environment;
mod failover;
mod names;
mod password;
mod quantity;
mod service;
mod storage;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, LocalObjectReference, PodSecurityContext, ResourceRequirements, SecurityContext, Toleration,
    TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt as _};

pub use self::failover::Failover;
use self::names::is_service_name;
use self::password::Password;
pub use self::quantity::exceeds;
use self::service::ServiceSettings;
use self::storage::Storage;
use crate::api::{
    AccessMode, Agent, CONFIRM_NODE_DEAD, DeletionPolicy, ExternalTrafficPolicy, Guard, ServiceType, SqlEdgeInstance,
    SqlEdgeInstanceSpec,
};

/// Port the engine listens on in its container, whatever port the Service has.
pub const ENGINE_PORT: i32 = 1433;

const DEFAULT_GRACE_PERIOD_SECONDS: i64 = 60;

/// Why a resource cannot be acted on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// The field, as a path such as `spec.storage.size`.
    pub field: String,
    /// One sentence that names the field and the next step.
    pub message: String,
}

impl Invalid {
    /// A message is a sentence that begins with the field's path.
    fn new(field: impl Into<String>, rest: impl AsRef<str>) -> Self {
        let field = field.into();
        let message = format!("{field} {}", rest.as_ref());
        Self { field, message }
    }
}

/// One instance, ready to be worked with: every default applied, every quantity in the form the API server stores.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Name of the resource, and of its Deployment and Service.
    pub name: String,
    /// Namespace of the resource and of all its children.
    pub namespace: String,
    /// UID of the resource: what our children are recognised by.
    pub uid: String,
    /// Generation that was parsed.
    pub generation: i64,

    /// Engine image.
    pub image: String,
    /// Edition or product key.
    pub edition: Option<String>,
    /// Whether the agent runs.
    pub agent: Agent,
    /// Server collation.
    pub collation: Option<String>,
    /// Language id.
    pub lcid: Option<i32>,
    /// Time zone.
    pub time_zone: Option<String>,

    /// Claim that holds the data.
    pub claim_name: String,
    /// Whether the operator makes (and sizes) the claim; an existing claim is the user's.
    pub claim_is_ours: bool,
    /// Access mode of a claim that the operator makes. What an existing claim has must be read from it.
    pub access_mode: AccessMode,
    /// Storage class of a claim that the operator makes; none is the cluster's default.
    pub storage_class: Option<String>,
    /// Size of a claim that the operator makes; none for an existing claim.
    pub size: Option<Quantity>,

    /// Secret that holds the password of `sa`.
    pub secret_name: String,
    /// Key in that Secret, where the user named one.
    pub secret_key: Option<String>,
    /// Whether the operator makes the Secret.
    pub secret_is_ours: bool,

    /// Name of the Service.
    pub service_name: String,
    /// Type of the Service.
    pub service_type: ServiceType,
    /// Port of the Service.
    pub port: i32,
    /// Annotations of the Service.
    pub service_annotations: BTreeMap<String, String>,
    /// Class of the load balancer.
    pub load_balancer_class: Option<String>,
    /// Ranges that may connect.
    pub load_balancer_source_ranges: Vec<String>,
    /// External traffic policy, where the user chose one.
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,

    /// Resources of the engine's container.
    pub resources: Option<ResourceRequirements>,
    /// What the engine is told about memory, from the container's limit.
    pub memory_limit_mb: Option<i64>,
    /// Labels a node must have, as the user wrote them.
    pub node_selector: BTreeMap<String, String>,
    /// Affinity of the pod.
    pub affinity: Option<Affinity>,
    /// Tolerations as the user wrote them.
    pub tolerations: Vec<Toleration>,
    /// Topology spread constraints of the pod.
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Priority class of the pod.
    pub priority_class_name: Option<String>,
    /// Secrets for pulling the images.
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Security context of the pod, where the user replaced the default.
    pub pod_security_context: Option<PodSecurityContext>,
    /// Security context of the engine's container.
    pub security_context: Option<SecurityContext>,
    /// The user's environment variables.
    pub env: Vec<EnvVar>,
    /// How long the engine may take to stop.
    pub termination_grace_period_seconds: i64,

    /// How a failure is noticed and proven.
    pub failover: Failover,
    /// What becomes of the data when the resource is deleted.
    pub deletion_policy: DeletionPolicy,
    /// UID of the pod whose node a human declared dead.
    pub confirm_node_dead: Option<String>,
}

impl Instance {
    /// Checks a resource and applies the defaults.
    pub fn parse(resource: &SqlEdgeInstance) -> Result<Self, Invalid> {
        // exhaustive, so that a new field cannot be forgotten here
        let SqlEdgeInstanceSpec {
            accept_eula: _,
            image,
            edition,
            agent,
            collation,
            lcid,
            time_zone,
            sa_password_secret_ref,
            storage,
            service,
            resources,
            node_selector,
            affinity,
            tolerations,
            topology_spread_constraints,
            priority_class_name,
            image_pull_secrets,
            pod_security_context,
            security_context,
            env,
            termination_grace_period_seconds,
            failover,
            deletion_policy,
        } = resource.spec.clone();

        let name = resource.name_any();
        if !is_service_name(&name) {
            return Err(Invalid::new(
                "metadata.name",
                "also names the Service: choose at most 63 lower-case letters, digits and hyphens, beginning with a letter",
            ));
        }
        check(&resource.spec)?;
        let storage = Storage::parse(storage.unwrap_or_default(), &name)?;
        let password = Password::parse(sa_password_secret_ref, &name)?;
        let service = ServiceSettings::parse(service.unwrap_or_default())?;
        let resources = resources.map(quantity::canonical_resources).transpose()?;
        let env = environment::normalised(env);
        let termination_grace_period_seconds = termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_PERIOD_SECONDS);
        Ok(Self {
            namespace: resource.namespace().unwrap_or_default(),
            uid: resource.uid().unwrap_or_default(),
            generation: resource.metadata.generation.unwrap_or_default(),
            image,
            edition,
            agent: agent.unwrap_or_default(),
            collation,
            lcid,
            time_zone,
            claim_name: storage.claim_name,
            claim_is_ours: storage.claim_is_ours,
            access_mode: storage.access_mode,
            storage_class: storage.class,
            size: storage.size,
            secret_name: password.secret_name,
            secret_key: password.key,
            secret_is_ours: password.is_ours,
            service_name: name.clone(),
            service_type: service.type_,
            port: service.port,
            service_annotations: service.annotations,
            load_balancer_class: service.load_balancer_class,
            load_balancer_source_ranges: service.source_ranges,
            external_traffic_policy: service.external_traffic_policy,
            memory_limit_mb: environment::memory_limit_mb(resources.as_ref(), &env)?,
            resources,
            node_selector,
            affinity,
            tolerations,
            topology_spread_constraints,
            priority_class_name,
            image_pull_secrets,
            pod_security_context,
            security_context,
            env,
            termination_grace_period_seconds,
            failover: Failover::parse(&failover.unwrap_or_default())?,
            deletion_policy: deletion_policy.unwrap_or_default(),
            confirm_node_dead: resource.annotations().get(CONFIRM_NODE_DEAD).cloned(),
            name,
        })
    }

    /// Whether a guard is wanted around the engine.
    pub fn is_guarded(&self) -> bool {
        self.failover.guard == Guard::Enabled
    }

    /// Name of the guard's account, role and binding.
    pub fn guard_name(&self) -> String {
        format!("{}-guard", self.name)
    }

    /// Name of the Lease that decides which pod's engine may write.
    pub fn lease_name(&self) -> String {
        crate::lease::name(&self.name)
    }

    /// Whether the wanted size is above what a claim requests: it may grow, never shrink.
    pub fn size_exceeds(&self, requested: &Quantity) -> bool {
        self.size.as_ref().is_some_and(|size| exceeds(size, requested))
    }

    /// The reference by which Kubernetes deletes a child with its instance.
    pub fn owner_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: SqlEdgeInstance::api_version(&()).into_owned(),
            kind: SqlEdgeInstance::kind(&()).into_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }

    /// Whether an object is a child of this very instance, and not of an earlier one of its name.
    pub fn owns<K: Resource>(&self, object: &K) -> bool {
        let mut owners = object.owner_references().iter();
        owners.any(|owner| owner.controller == Some(true) && owner.uid == self.uid)
    }

    /// Labels of every child.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector();
        labels.extend(
            [
                ("app.kubernetes.io/component", "database"),
                ("app.kubernetes.io/managed-by", "sqledge-operator"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        labels
    }

    /// Whether an object with these labels was made for this instance, by name; its UID is another matter.
    pub fn has_labelled(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels().iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The labels by which Deployment and Service find the pod. A Deployment's selector can never change, so this is the
    /// least that tells instances apart.
    pub fn selector(&self) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", "sqledge"),
            ("app.kubernetes.io/instance", &self.name),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }
}

/// What can be said about fields that are taken over as they are.
fn check(spec: &SqlEdgeInstanceSpec) -> Result<(), Invalid> {
    if !spec.accept_eula {
        return Err(Invalid::new(
            "spec.acceptEula",
            "must be true: read the licence terms of the engine image, then set it to true",
        ));
    }
    if spec.image.is_empty() || spec.image.contains(char::is_whitespace) {
        return Err(Invalid::new(
            "spec.image",
            "must be one image reference: write it such as registry/name:tag",
        ));
    }
    for (field, text) in [
        ("spec.edition", &spec.edition),
        ("spec.collation", &spec.collation),
        ("spec.timeZone", &spec.time_zone),
        ("spec.priorityClassName", &spec.priority_class_name),
    ] {
        if text.as_ref().is_some_and(String::is_empty) {
            return Err(Invalid::new(field, "is empty: give it a value or remove it"));
        }
    }
    check_tolerations(&spec.tolerations)?;
    if spec.image_pull_secrets.iter().any(|secret| secret.name.is_empty()) {
        return Err(Invalid::new(
            "spec.imagePullSecrets",
            "needs the name of a Secret in each entry: add the name or remove the entry",
        ));
    }
    environment::check(&spec.env)?;
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 1) {
        return Err(Invalid::new(
            "spec.terminationGracePeriodSeconds",
            "must be at least 1: a database that gets no time to stop needs longer to start",
        ));
    }
    Ok(())
}

/// A toleration with a time limit would evict the pod from a failed node, and a second pod of ours would wait for a proof
/// that nobody asked for; eviction is the operator's.
fn check_tolerations(tolerations: &[Toleration]) -> Result<(), Invalid> {
    let limited = tolerations.iter().position(|toleration| {
        toleration.toleration_seconds.is_some()
            && toleration.key.as_deref().is_none_or(|key| {
                key.is_empty() || key == "node.kubernetes.io/unreachable" || key == "node.kubernetes.io/not-ready"
            })
    });
    match limited {
        None => Ok(()),
        Some(index) => Err(Invalid::new(
            format!("spec.tolerations[{index}].tolerationSeconds"),
            "must not limit how long a failed node is tolerated: remove it, the operator decides when the database moves",
        )),
    }
}

#[cfg(test)]
mod tests;
