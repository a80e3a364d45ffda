//! A database whose node fails, and what has to become of it.

use e2e::{
    Result, engines,
    error::ensure,
    harness::Stage,
    until,
    volume::{self, Fencing},
    wait::Seen,
};
use jiff::Timestamp;
use serde_json::Value;
use testbed::Node;

use crate::survival::{Watched, phases};

/// A database, and where it was before its node failed.
pub struct Lost<'a> {
    pub watched: Watched<'a>,
    pub node: String,
    pub pod: String,
    pub pod_uid: String,
    pub at: Timestamp,
}

impl<'a> Lost<'a> {
    /// Before the fault, which has to follow.
    pub fn facing(watched: Watched<'a>) -> Result<Self> {
        let (node, pod) = (watched.instance.node()?, watched.instance.pod_name()?);
        let pod_uid = watched.instance.pod()?["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Ok(Self {
            watched,
            node,
            pod,
            pod_uid,
            at: Timestamp::now(),
        })
    }

    /// Takes its node's power away.
    pub fn without_power(stage: &Stage<'a>, watched: Watched<'a>) -> Result<Self> {
        let lost = Self::facing(watched)?;
        stage.lab.bed().node(&lost.node)?.power_off()?;
        Ok(lost)
    }

    /// Waits until the database serves on another node; everything must have been done in the right order.
    pub fn await_elsewhere(&self, stage: &Stage, limit: u64) -> Result<Fencing> {
        let instance = &self.watched.instance;
        instance.await_ready_without(&self.pod, limit)?;
        let outage = self.watched.outage(self.at, 60)?;
        let now = instance.node()?;
        ensure(now != self.node, || {
            format!("the status names node {now}, which was lost")
        })?;
        let record = instance.resource()?["status"]["lastFailover"].clone();
        stage.note(&format!(
            "clients of {} could not write for {outage:.1} s; {} -> {now} on {}: {}",
            instance.name(),
            self.node,
            record["evidence"],
            phases(&record)
        ));
        let pod = instance.pod()?;
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
        let fencing = volume::fencing(
            stage.lab,
            (&self.pod, &self.pod_uid),
            (text("name"), text("uid")),
            &self.node,
            self.watched.volume(),
        )?;
        fencing.check_order()?;
        Ok(fencing)
    }

    /// Fails unless the failover was recorded with this proof.
    pub fn check_evidence(&self, proof: &str) -> Result<()> {
        let evidence = self.watched.instance.resource()?["status"]["lastFailover"]["evidence"].clone();
        ensure(evidence[0] == proof, || {
            format!("the record says {evidence} and not {proof}")
        })
    }

    /// Gives the node back; nothing may come of it for the database. Yields for how long clients could not write.
    pub fn comes_back_in_peace(&self, stage: &Stage, give_back: impl FnOnce(&Node) -> Result<()>) -> Result<f64> {
        let (container, back) = (self.watched.container()?, Timestamp::now());
        give_back(&stage.lab.bed().node(&self.node)?)?;
        until(90, &format!("node {} is Ready again", self.node), || {
            Ok(stage.lab.node_ready(&self.node)? == "True")
        })?;
        // ten seconds at least, in which a fight would show; after a partition the second one takes longer
        let renewed = || -> Result<Value> {
            let lease = stage.lab.get("lease", "kube-node-lease", &self.node)?;
            Ok(lease.map_or(Value::Null, |lease| lease["spec"]["renewTime"].clone()))
        };
        for _ in 0..2 {
            let before = renewed()?;
            until(60, &format!("node {} renews its Lease", self.node), || {
                Ok(renewed()? != before)
            })?;
        }
        self.watched.check_container(&container)?;
        let testbed = stage.lab.bed().layout().name();
        until(120, "nothing of the old pod is left on the node that came back", || {
            let left = engines::running(testbed).into_iter();
            let left: Vec<_> = left.filter(|program| program.pod == self.pod_uid).collect();
            Ok(if left.is_empty() {
                Seen::There(())
            } else {
                Seen::NotYet(format!("{left:?}"))
            })
        })?;
        self.watched.outage(back, 30)
    }
}
