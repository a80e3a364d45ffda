//! Nodes that lose power. What the operator did is read from the audit log, what nodes wrote from the storage host's log.

use std::time::Duration;

use e2e::{
    Result,
    error::{Error, ensure},
    harness::Stage,
    lab::UNLISTED_CLASS,
    operator, until,
    volume::{self, Fencing},
    wait::Seen,
};
use jiff::Timestamp;

use crate::survival::Watched;

/// A database whose node has lost power.
struct Lost<'a> {
    watched: Watched<'a>,
    node: String,
    pod: String,
    pod_uid: String,
    at: Timestamp,
}

impl<'a> Lost<'a> {
    fn of(stage: &Stage<'a>, watched: Watched<'a>) -> Result<Self> {
        let instance = &watched.instance;
        let (node, pod) = (instance.node()?, instance.pod_name()?);
        let pod_uid = instance.pod()?["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let at = Timestamp::now();
        stage.lab.bed().node(&node)?.power_off()?;
        Ok(Self {
            watched,
            node,
            pod,
            pod_uid,
            at,
        })
    }

    /// Waits until the database serves on another node; everything must have been done in the right order.
    fn await_elsewhere(&self, stage: &Stage, limit: u64) -> Result<Fencing> {
        let instance = &self.watched.instance;
        instance.await_ready_without(&self.pod, limit)?;
        let outage = self.watched.outage(self.at, 60)?;
        let now = instance.node()?;
        ensure(now != self.node, || {
            format!("the status names node {now}, which has no power")
        })?;
        let record = instance.resource()?["status"]["lastFailover"].clone();
        stage.note(&format!(
            "clients could not write for {outage:.1} s; {} -> {now} on {}",
            self.node, record["evidence"]
        ));
        let fencing = volume::fencing(
            stage.lab,
            &self.pod,
            &instance.pod_name()?,
            &self.node,
            self.watched.volume(),
        )?;
        fencing.check_order()?;
        Ok(fencing)
    }

    /// Gives the power back; nothing may come of it for the database.
    fn await_node_back(&self, stage: &Stage) -> Result<()> {
        let instance = &self.watched.instance;
        let (pod, back) = (instance.pod()?, Timestamp::now());
        stage.lab.bed().node(&self.node)?.power_on()?;
        until(90, &format!("node {} is Ready again", self.node), || {
            Ok(stage.lab.node_ready(&self.node)? == "True")
        })?;
        // ten seconds' worth of rows, in which a fight would show
        let rows = self.watched.clients.acknowledged()?;
        until(60, "200 more rows", || {
            Ok(self.watched.clients.acknowledged()? >= rows + 200)
        })?;
        let outage = self.watched.outage(back, 30)?;
        ensure(outage < 2.0, || {
            format!(
                "clients could not write for {outage:.1} s when node {} came back",
                self.node
            )
        })?;
        let now = instance.pod()?;
        let same = now["metadata"]["uid"] == pod["metadata"]["uid"]
            && now["status"]["containerStatuses"] == pod["status"]["containerStatuses"];
        ensure(same, || {
            format!("the pod changed when node {} came back: {now}", self.node)
        })
    }
}

pub fn a_node_that_loses_power_costs_no_row_and_comes_back_without_a_fight(stage: &Stage) -> Result<()> {
    let mut lost = Lost::of(stage, Watched::create(stage, "powerless", "")?)?;
    lost.await_elsewhere(stage, 180)?;
    lost.await_node_back(stage)?;
    lost.watched.check()
}

pub fn an_unknown_driver_holds_until_a_human_confirms(stage: &Stage) -> Result<()> {
    let spec = format!("storage:\n  storageClassName: {UNLISTED_CLASS}");
    let mut lost = Lost::of(stage, Watched::create(stage, "unlisted", &spec)?)?;
    let instance = &lost.watched.instance;
    let held = instance.await_condition("Ready", 120, |ready| ready.reason == "DriverClassUnknown")?;
    for word in [
        "unlisted.storage.test",
        "driverClasses",
        "sqledge.io/confirm-node-dead",
        lost.pod_uid.as_str(),
        lost.node.as_str(),
    ] {
        ensure(held.message.contains(word), || {
            format!("the message of a held failover does not name {word}: {}", held.message)
        })?;
    }
    let attached = |what: &str| -> Result<()> {
        instance.child("pod", &lost.pod)?;
        let attachments = stage.lab.kubectl(&[
            "get",
            "volumeattachments",
            "--output=jsonpath={.items[*].spec.source.persistentVolumeName}",
        ])?;
        ensure(attachments.contains(lost.watched.volume()), || {
            format!("the volume was detached {what}")
        })
    };
    attached("without any proof")?;
    // a word about another pod is no word about this one
    instance.annotate("sqledge.io/confirm-node-dead", "00000000-0000-0000-0000-000000000000")?;
    let generation_seen = || {
        instance
            .condition("Ready")
            .map(|ready| ready.is_some_and(|ready| ready.status == "False"))
    };
    let watched_until = std::time::Instant::now() + Duration::from_secs(6);
    until(30, "the operator has had time for a pass over the wrong word", || {
        ensure(generation_seen()?, || {
            "it went on upon a word about another pod".to_owned()
        })?;
        Ok(std::time::Instant::now() >= watched_until)
    })?;
    attached("upon a word about another pod")?;
    instance.annotate("sqledge.io/confirm-node-dead", &lost.pod_uid)?;
    lost.await_elsewhere(stage, 120)?;
    let evidence = lost.watched.instance.resource()?["status"]["lastFailover"]["evidence"].clone();
    ensure(evidence[0] == "ConfirmedDead", || format!("the record says {evidence}"))?;
    lost.watched.check()
}

pub fn a_detach_that_is_held_back_keeps_the_gate_shut(stage: &Stage) -> Result<()> {
    detach_held_back(stage, 20)
}

pub fn long_a_detach_held_back_for_three_minutes_keeps_the_gate_shut(stage: &Stage) -> Result<()> {
    detach_held_back(stage, 180)
}

fn detach_held_back(stage: &Stage, seconds: u16) -> Result<()> {
    let watched = Watched::create(stage, "slow", "")?;
    stage
        .lab
        .bed()
        .storage(&["mode", watched.volume(), &format!("slow:{seconds}")])?;
    let mut lost = Lost::of(stage, watched)?;
    let said = lost.watched.instance.await_condition("FailoverInProgress", 120, |it| {
        it.status == "True" && it.reason == "Detaching"
    })?;
    ensure(said.message.contains(&lost.node), || {
        format!("the status does not say from which node it waits: {}", said.message)
    })?;
    let fencing = lost.await_elsewhere(stage, 180 + u64::from(seconds))?;
    let held = between(&fencing.detach_asked, &fencing.attachment_gone)?;
    let opened = between(&fencing.attachment_gone, &fencing.gate_opened)?;
    stage.note(&format!(
        "the detach took {held:.1} s, and the gate opened {opened:.2} s after its end"
    ));
    ensure(held >= f64::from(seconds) - 1.0, || {
        format!("the detach took only {held:.1} s: it was not held back")
    })?;
    ensure(opened <= 2.0, || {
        format!("the gate opened {opened:.1} s after the end of the detach")
    })?;
    lost.watched.check()
}

/// Seconds between two times of the audit log.
fn between(earlier: &str, later: &str) -> Result<f64> {
    let time = |text: &str| {
        text.parse::<Timestamp>()
            .map_err(Error::malformed("a time of the audit log"))
    };
    (time(later)? - time(earlier)?)
        .total(jiff::Unit::Second)
        .map_err(Error::malformed("a span of time"))
}

pub fn an_operator_killed_in_the_middle_goes_on_without_the_attachers_leader(stage: &Stage) -> Result<()> {
    let node = attacher_leader_node(stage)?;
    stage.note(&format!("the attacher's leader and the database are on node {node}"));
    stage.lab.only_node(&node)?;
    let watched = Watched::create(stage, "beheaded", "")?;
    stage.lab.open_all_nodes()?;
    let mut lost = Lost::of(stage, watched)?;
    ensure(lost.node == node, || format!("the database is on node {}", lost.node))?;
    let old = lost.pod.clone();
    until(120, "the operator has begun: the old pod is gone", || {
        Ok(stage.lab.get("pod", &stage.namespace, &old)?.is_none())
    })?;
    let serving = lost
        .watched
        .instance
        .condition("Ready")?
        .is_some_and(|ready| ready.status == "True");
    ensure(!serving, || {
        "the failover was over before the operator could be killed".to_owned()
    })?;
    operator::kill_all(stage.lab)?;
    lost.await_elsewhere(stage, 240)?;
    operator::await_rollout(stage.lab)?;
    lost.watched.check()
}

fn attacher_leader_node(stage: &Stage) -> Result<String> {
    until(60, "a leader among the attachers", || {
        let lease = stage.lab.get(
            "lease",
            "test-storage",
            "external-attacher-leader-revoking-storage-test",
        )?;
        let holder = lease
            .as_ref()
            .and_then(|lease| lease["spec"]["holderIdentity"].as_str())
            .unwrap_or_default()
            .to_owned();
        let pod = stage.lab.get("pod", "test-storage", &holder)?;
        let node = pod
            .as_ref()
            .and_then(|pod| pod["spec"]["nodeName"].as_str())
            .unwrap_or_default()
            .to_owned();
        Ok(if node.is_empty() {
            Seen::NotYet(format!("holder `{holder}`"))
        } else {
            Seen::There(node)
        })
    })
}

pub fn a_node_object_that_is_removed_frees_the_volume(stage: &Stage) -> Result<()> {
    // only the Node of a cloud provider's machine says something by its absence
    let node = "n2";
    stage.lab.kubectl(&[
        "patch",
        "node",
        node,
        "--patch",
        r#"{"spec":{"providerID":"test:///n2"}}"#,
    ])?;
    stage.lab.only_node(node)?;
    let spec = format!("storage:\n  storageClassName: {UNLISTED_CLASS}");
    let watched = Watched::create(stage, "removed", &spec)?;
    stage.lab.open_all_nodes()?;
    let mut lost = Lost::of(stage, watched)?;
    // what a cloud controller does once the machine is gone
    stage.lab.kubectl(&["delete", "node", node])?;
    lost.await_elsewhere(stage, 120)?;
    let evidence = lost.watched.instance.resource()?["status"]["lastFailover"]["evidence"].clone();
    ensure(evidence[0] == "NodeGone", || format!("the record says {evidence}"))?;
    lost.watched.check()
}
