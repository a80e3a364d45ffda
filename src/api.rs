//! The API: what a user may write (`spec`) and what the operator answers (`status`).
//!
//! Plain data and the schema rules that the API server enforces; no I/O, no decisions. `instance` turns a resource into
//! something the operator can work with. Defaults are applied there, not in the schema: a default in the schema would be
//! written into the stored `spec`, and every `GitOps` tool would show it as a difference for ever.
//! A field that feeds a Kubernetes field carries that field's name and type.

mod failover;
mod schema;
mod status;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, LocalObjectReference, PodSecurityContext, ResourceRequirements, SecurityContext, Toleration,
    TopologySpreadConstraint,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use failover::{FailoverSpec, Guard, LeaseRenewal, OnApiLoss, Proof};
pub(crate) use failover::{RENEW_SECONDS, STOP_AFTER_SECONDS, TAKEOVER_AFTER_SECONDS};
pub(crate) use schema::RESERVED_ENV;
pub use status::{FailoverPhase, FailoverRecord, SqlEdgeInstanceStatus};

/// Annotation by which a human says that a pod's node is dead; its value is the UID of that pod, so that an annotation
/// left over from an earlier failure confirms nothing. It is ignored while the node's Lease is renewed or the database answers;
/// only for a volume that is never attached it says, on a live node too, that the pod has stopped.
pub const CONFIRM_NODE_DEAD: &str = "sqledge.io/confirm-node-dead";

/// One database engine in one pod, on one volume, behind one address.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "sqledge.io",
    version = "v1alpha1",
    kind = "SqlEdgeInstance",
    plural = "sqledgeinstances",
    shortname = "sqledge",
    shortname = "sei",
    category = "databases",
    namespaced,
    status = "SqlEdgeInstanceStatus",
    derive = "PartialEq",
    doc = "One database engine (Azure SQL Edge or SQL Server) in one pod, on one volume, behind one address.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.node"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.engineVersion"),
    printcolumn(name = "Last failover", type_ = "date", json_path = ".status.lastFailover.endedAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = schema::name_is_a_service_name(),
    validation = schema::storage_class_is_fixed_once_bound(),
    validation = schema::access_modes_are_fixed_once_bound(),
    validation = schema::existing_claim_is_fixed_once_bound(),
    validation = schema::size_only_grows_once_bound()
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = schema::load_balancer_class_is_fixed())]
pub struct SqlEdgeInstanceSpec {
    /// Must be `true`: you accept the licence terms of the engine image. The operator starts no engine without it.
    #[x_kube(validation = schema::eula_is_accepted())]
    pub accept_eula: bool,

    /// The engine image, for example one of Azure SQL Edge or SQL Server. There is no default: Azure SQL Edge is retired,
    /// and which engine is right (and licensed) is your choice.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = schema::image_has_no_white_space())]
    pub image: String,

    /// Edition or product key, handed to the engine as `MSSQL_PID`. Which values exist depends on the image. Without it the
    /// engine's own default applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub edition: Option<String>,

    /// Whether the SQL Server Agent runs. Default: Disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::enumeration::<Agent>")]
    pub agent: Option<Agent>,

    /// Server collation, for example `SQL_Latin1_General_CP1_CI_AS`. The engine reads it when it first fills the volume;
    /// later changes have no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub collation: Option<String>,

    /// Language id, for example 1033. The engine reads it when it first fills the volume; later changes have no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub lcid: Option<i32>,

    /// Time zone of the engine, for example `Europe/Berlin`. Default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub time_zone: Option<String>,

    /// Secret that holds the password of `sa`. Without it the operator makes one and keeps it in the Secret `NAME-sa`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sa_password_secret_ref: Option<SecretKeyReference>,

    /// The volume that holds the databases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,

    /// The address clients connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSpec>,

    /// Resources of the engine's container. With a memory limit the engine is told to use 80 % of it at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare::<ResourceRequirements>")]
    #[x_kube(
        validation = schema::limits_are_quantities(),
        validation = schema::requests_are_quantities()
    )]
    pub resources: Option<ResourceRequirements>,

    /// Labels a node must have. `kubernetes.io/arch: amd64` is added unless this names another architecture.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Affinity of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare::<Affinity>")]
    pub affinity: Option<Affinity>,

    /// Tolerations of the pod, beside the two that the operator adds (an unreachable or unready node evicts nothing: the
    /// operator decides about that).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bare::<Vec<Toleration>>", length(max = 64))]
    #[x_kube(validation = schema::node_failure_is_tolerated_without_limit())]
    pub tolerations: Vec<Toleration>,

    /// Topology spread constraints of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bare::<Vec<TopologySpreadConstraint>>", length(max = 16))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// Priority class of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// Secrets for pulling the images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bare::<Vec<LocalObjectReference>>", length(max = 32))]
    #[x_kube(validation = schema::pull_secrets_have_names())]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// Security context of the pod. It replaces the default as a whole: user and fsGroup 10001, non-root, the runtime's
    /// seccomp profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare::<PodSecurityContext>")]
    pub pod_security_context: Option<PodSecurityContext>,

    /// Security context of the engine's container. Default: none. `allowPrivilegeEscalation: false`, and dropping all
    /// capabilities without adding `NET_BIND_SERVICE`, keep several releases of the engine from starting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare::<SecurityContext>")]
    pub security_context: Option<SecurityContext>,

    /// More environment variables for the engine. Those that belong to a field of this resource are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bare::<Vec<EnvVar>>", length(max = 128))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = schema::env_leaves_our_variables_alone()
    )]
    pub env: Vec<EnvVar>,

    /// How long the engine may take to write everything out and stop. Default: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub termination_grace_period_seconds: Option<i64>,

    /// How a failure is noticed and what proves that the old engine can write no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverSpec>,

    /// What becomes of the volume claim and the generated password when this resource is deleted. Default: Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::enumeration::<DeletionPolicy>")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// Whether the SQL Server Agent runs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Agent {
    /// The agent runs.
    Enabled,
    /// The agent does not run.
    #[default]
    Disabled,
}

/// What becomes of the data when the resource is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// Volume claim and password stay; a new resource of the same name takes them up again.
    #[default]
    Retain,
    /// Volume claim and password go with the resource.
    Delete,
}

/// A key of a Secret in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Key of the password. Default: `MSSQL_SA_PASSWORD`, or `SA_PASSWORD` where the Secret has only that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// The volume that holds the databases: a claim that the operator makes, or one that exists.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = schema::an_existing_claim_stands_alone())]
pub struct StorageSpec {
    /// Size of the volume. Default: 8Gi. Once the volume exists it may only grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare::<Quantity>")]
    #[x_kube(validation = schema::size_is_a_quantity())]
    pub size: Option<Quantity>,

    /// Storage class of the claim. Default: the cluster's default class. Fixed once the volume exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,

    /// Access modes of the claim: exactly one. Default: `ReadWriteOncePod`, with which the kubelet itself keeps a second
    /// pod off the volume. Fixed once the volume exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::access_modes")]
    #[x_kube(validation = schema::exactly_one_access_mode())]
    pub access_modes: Option<Vec<AccessMode>>,

    /// Name of a claim that exists, in place of one that the operator makes. The operator adopts the data on it and never
    /// deletes it. Fixed once its volume is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub existing_claim: Option<String>,
}

/// How many may mount a volume. `ReadOnlyMany` is missing because a database writes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessMode {
    /// One pod; the kubelet enforces it.
    #[default]
    ReadWriteOncePod,
    /// One node.
    ReadWriteOnce,
    /// Any number of nodes; nothing but the operator's gate keeps a second writer off.
    ReadWriteMany,
}

impl AccessMode {
    /// The name Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOncePod => "ReadWriteOncePod",
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteMany => "ReadWriteMany",
        }
    }
}

/// The address clients connect to.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = schema::only_a_load_balancer_has_a_class(),
    validation = schema::only_a_load_balancer_has_source_ranges(),
    validation = schema::a_cluster_ip_has_no_external_traffic_policy()
)]
pub struct ServiceSpec {
    /// Type of the Service. Default: `LoadBalancer`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::enumeration::<ServiceType>")]
    pub type_: Option<ServiceType>,

    /// Port clients connect to. Default: 1433. The engine itself always listens on 1433 in its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<i32>,

    /// Annotations of the Service, for the load balancer's controller.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,

    /// Which load balancer is to serve this Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub load_balancer_class: Option<String>,

    /// From where clients may connect, as CIDR ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    #[x_kube(validation = schema::source_ranges_are_cidrs())]
    pub load_balancer_source_ranges: Vec<String>,

    /// `Local` keeps the clients' source addresses; only the database's node then answers. Default: Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::enumeration::<ExternalTrafficPolicy>")]
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
}

/// Type of the Service. `ExternalName` is missing because there is nothing outside the cluster to name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// An address from a load balancer.
    #[default]
    LoadBalancer,
    /// A port on every node.
    NodePort,
    /// An address inside the cluster only.
    ClusterIP,
}

impl ServiceType {
    /// The name Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
            Self::ClusterIP => "ClusterIP",
        }
    }
}

/// Which nodes pass traffic from outside on to the pod.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExternalTrafficPolicy {
    /// Every node.
    #[default]
    Cluster,
    /// Only the node of the pod.
    Local,
}

impl ExternalTrafficPolicy {
    /// The name Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        }
    }
}

/// The definition that makes the API server know us, as `sqledge-operator crd` prints it.
pub fn crd() -> CustomResourceDefinition {
    SqlEdgeInstance::crd()
}
