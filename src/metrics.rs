//! Prometheus metrics, with base units in their names and labels from closed sets.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::api::FailoverRecord;
use crate::space::{Space, Told};

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    passes: Family<Outcome, Counter>,
    pass_seconds: Histogram,
    acts: Family<Named, Counter>,
    phase_seconds: Family<Phase, Histogram>,
    failovers: Family<Outcome, Counter>,
    ready: Family<Instance, Gauge>,
    volume_available: Family<Instance, Gauge>,
    volume_capacity: Family<Instance, Gauge>,
    leader: Gauge,
    events_dropped: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Named {
    act: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Phase {
    phase: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Instance {
    namespace: String,
    name: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("sqledge");
        let histogram = || Histogram::new(exponential_buckets(0.05, 2.0, 14));
        let this = Self {
            passes: Family::default(),
            pass_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            acts: Family::default(),
            phase_seconds: Family::new_with_constructor(histogram),
            failovers: Family::default(),
            ready: Family::default(),
            volume_available: Family::default(),
            volume_capacity: Family::default(),
            leader: Gauge::default(),
            events_dropped: Counter::default(),
            registry: Registry::default(),
        };
        registry.register(
            "reconcile",
            "Passes over an instance, by how they ended",
            this.passes.clone(),
        );
        registry.register(
            "reconcile_duration_seconds",
            "Duration of a pass",
            this.pass_seconds.clone(),
        );
        registry.register("acts", "Irreversible acts carried out", this.acts.clone());
        registry.register(
            "failover_phase_seconds",
            "Duration of each phase of finished failovers",
            this.phase_seconds.clone(),
        );
        registry.register("failovers", "Failovers that ended, by reason", this.failovers.clone());
        registry.register(
            "instance_ready",
            "1 while the operator's login succeeds",
            this.ready.clone(),
        );
        registry.register(
            "volume_available_bytes",
            "What the engine may still use of its volume, by its own word at the last login",
            this.volume_available.clone(),
        );
        registry.register(
            "volume_capacity_bytes",
            "Size of the file system on the volume, by the engine's word at the last login",
            this.volume_capacity.clone(),
        );
        registry.register("leader", "1 while this replica may write", this.leader.clone());
        registry.register(
            "events_dropped",
            "Events that were not published because too many waited",
            this.events_dropped.clone(),
        );
        Self { registry, ..this }
    }
}

impl Metrics {
    /// A pass ended.
    pub fn pass(&self, reason: &'static str, took: Duration) {
        self.passes.get_or_create(&Outcome { reason: reason.into() }).inc();
        self.pass_seconds.observe(took.as_secs_f64());
    }

    /// An irreversible act was carried out.
    pub fn act(&self, act: &'static str) {
        self.acts.get_or_create(&Named { act }).inc();
    }

    /// A failover ended.
    pub fn failover(&self, record: &FailoverRecord) {
        self.failovers
            .get_or_create(&Outcome {
                reason: record.reason.clone(),
            })
            .inc();
        for phase in &record.phases {
            if let Some(milliseconds) = phase.milliseconds.and_then(|ms| u64::try_from(ms).ok()) {
                let seconds = Duration::from_millis(milliseconds).as_secs_f64();
                self.phase_seconds
                    .get_or_create(&Phase {
                        phase: phase.name.clone(),
                    })
                    .observe(seconds);
            }
        }
    }

    /// Whether an instance serves.
    pub fn ready(&self, namespace: &str, name: &str, ready: bool) {
        let instance = Instance {
            namespace: namespace.into(),
            name: name.into(),
        };
        self.ready.get_or_create(&instance).set(i64::from(ready));
    }

    /// How much room an instance has; a figure that its engine does not tell any more is not told, and one that is late stands.
    pub fn space(&self, namespace: &str, name: &str, told: Told) {
        let instance = Instance {
            namespace: namespace.into(),
            name: name.into(),
        };
        let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        match told {
            Told::Space(Space { total, available }) => {
                self.volume_available.get_or_create(&instance).set(bytes(available));
                self.volume_capacity.get_or_create(&instance).set(bytes(total));
            }
            Told::Nothing => {
                self.volume_available.remove(&instance);
                self.volume_capacity.remove(&instance);
            }
            Told::NotYet => {}
        }
    }

    /// An instance is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.space(namespace, name, Told::Nothing);
        self.ready.remove(&Instance {
            namespace: namespace.into(),
            name: name.into(),
        });
    }

    /// An event found the queue full.
    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    /// Whether this replica leads.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}
