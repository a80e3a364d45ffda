//! What the operator answers: conditions, where the database is, and a record of each failover.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// What the operator knows about an instance. Every field can be rebuilt from the cluster's objects, except the record of
/// the last failover.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SqlEdgeInstanceStatus {
    /// The generation of the resource that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions: `Ready`, `Reconciling` and `Stalled` as kstatus reads them, and the operator's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bare::<Vec<Condition>>")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// Address clients connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,

    /// Port clients connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,

    /// Node the database runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,

    /// Pod the database runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,

    /// Claim that holds the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim: Option<String>,

    /// `PersistentVolume` that the claim is bound to. From here on the storage settings are fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub volume: Option<String>,

    /// Secret that holds the password of `sa`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,

    /// Version the engine reported at the last login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,

    /// What the operator waits for, and until when, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,

    /// The failover in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverRecord>,

    /// The last failover that came to an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<FailoverRecord>,
}

/// One failover: why, from where to where, on what evidence, and how long each part took.
///
/// Times carry microseconds, because the parts of a failover are shorter than a second. They are cut to microseconds
/// when written: truncate before comparing a record with the stored one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailoverRecord {
    /// What was found wrong.
    pub reason: String,

    /// UID of the pod that was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_pod_uid: Option<String>,

    /// Node the database ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_node: Option<String>,

    /// Node the database runs on since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_node: Option<String>,

    /// What proved that the old pod could write no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,

    /// When it began. For a node that fell silent that is its last heartbeat: the fault itself came later, by up to the
    /// 10 s between two heartbeats.
    #[schemars(schema_with = "schema::bare::<MicroTime>")]
    pub started_at: MicroTime,

    /// When a login succeeded again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare::<MicroTime>")]
    pub ended_at: Option<MicroTime>,

    /// From beginning to end; longer than what clients saw by as much as `startedAt` is earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_milliseconds: Option<i64>,

    /// The parts, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<FailoverPhase>,
}

/// One part of a failover.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailoverPhase {
    /// Name of the part, as in the metric `sqledge_failover_phase_seconds`.
    pub name: String,

    /// When it began.
    #[schemars(schema_with = "schema::bare::<MicroTime>")]
    pub started_at: MicroTime,

    /// How long it took; absent while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<i64>,
}
