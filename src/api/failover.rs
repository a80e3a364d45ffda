//! `spec.failover`: who watches over the engine, how soon a node that falls silent is noticed, and what counts as proof
//! that its engine can write no more.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use crate::driver_class::DriverClass;

/// Seconds between two renewals of the Lease, where the resource names none.
pub(crate) const RENEW_SECONDS: i32 = 2;
/// Seconds without a renewal after which the guard stops the engine, where the resource names none.
pub(crate) const STOP_AFTER_SECONDS: i32 = 10;
/// Seconds without a renewal after which the operator takes over, where the resource names none.
pub(crate) const TAKEOVER_AFTER_SECONDS: i32 = 15;

/// How a failure is noticed and what proves that the old engine can write no more.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = schema::takeover_outlasts_the_stop(),
    validation = schema::several_renewals_fit_before_the_stop(),
    validation = schema::a_lease_proves_only_what_a_renewing_guard_promises(),
    validation = schema::a_lease_proves_nothing_about_an_engine_that_continues(),
    validation = schema::only_a_guard_renews(),
    validation = schema::only_a_renewing_guard_can_stop()
)]
pub struct FailoverSpec {
    /// Whether a guard runs as the first process of the engine's container. It starts the engine only while the instance's
    /// Lease is its own, restarts a dead or hung engine in place, and stops it in order. Default: Enabled. A change restarts
    /// the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::enumeration::<Guard>")]
    pub guard: Option<Guard>,

    /// What proves that the engine of a dead node can write no more. `Storage`: its guard acknowledged an orderly stop,
    /// or its volume was taken away by a driver of class Revoke or Quorum. `Lease`: that, or the guard's Lease ran out,
    /// by when the guard has stopped the engine; a lease cannot bind a machine that was paused and wakes up later.
    /// `Manual`: only the node's own word, its end, or a human's word. Default: Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::enumeration::<Proof>")]
    pub proof: Option<Proof>,

    /// When the guard renews the Lease all the time, at the price of one API write each `renewSeconds`. `Auto`: where a
    /// detach alone does not prove enough. `Always`: a node that is cut off is noticed within `takeoverAfterSeconds`,
    /// and the instance moves even while the engine still answers there. `Never`. Default: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::enumeration::<LeaseRenewal>")]
    pub lease: Option<LeaseRenewal>,

    /// Seconds between two renewals; at most a third of `stopAfterSeconds`. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60))]
    pub renew_seconds: Option<i32>,

    /// Seconds without a renewal after which the guard stops the engine. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 3, max = 600))]
    pub stop_after_seconds: Option<i32>,

    /// Seconds without a renewal after which the operator takes over. It must outlast `stopAfterSeconds`, two clocks of
    /// which one is 2 % slower, and 2 seconds: 99 times this is at least 101 times `stopAfterSeconds` and 200 more.
    /// Default: 15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 6, max = 900))]
    pub takeover_after_seconds: Option<i32>,

    /// What a renewing guard does when it cannot reach the API server for `stopAfterSeconds`: `Stop` the engine, or
    /// `Continue`. `Auto`: Continue where the driver's class is Revoke or Quorum and the proof is not Lease, else Stop.
    /// Default: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::enumeration::<OnApiLoss>")]
    pub on_api_loss: Option<OnApiLoss>,

    /// What a detach by this volume's driver proves, in place of what the operator's settings say: Revoke, Quorum, Busy,
    /// `NeedsFence`, Local or Unknown. A wrong Revoke can cost data. Default: the operator's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::enumeration::<DriverClass>")]
    pub driver_class: Option<DriverClass>,
}

/// Whether a guard runs as the first process of the engine's container.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guard {
    /// The guard starts, watches and stops the engine.
    #[default]
    Enabled,
    /// The engine is the first process itself.
    Disabled,
}

/// What proves that an old engine can write no more, beside what is always accepted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// The storage took the volume away from the node.
    #[default]
    Storage,
    /// Also that the guard's Lease ran out and was sealed.
    Lease,
    /// Nothing but the node's own word, its end, or a human's word.
    Manual,
}

/// When the guard renews its Lease.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaseRenewal {
    /// Where the class of the volume's driver needs it.
    #[default]
    Auto,
    /// All the time.
    Always,
    /// The Lease is won once for each start of the container, and not renewed.
    Never,
}

/// What a renewing guard does without the API server.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnApiLoss {
    /// By the class of the volume's driver.
    #[default]
    Auto,
    /// It stops the engine.
    Stop,
    /// It leaves the engine running.
    Continue,
}
