//! Nodes that lose power. What the operator did is read from the audit log, what nodes wrote from the storage host's log.

use e2e::{
    Result,
    error::{Error, ensure},
    harness::Stage,
    instance::FAST,
    lab::UNLISTED_CLASS,
    operator, until,
    wait::Seen,
};
use jiff::Timestamp;

use testbed::Peers;

use crate::{
    lost::Lost,
    survival::{self, CALM, Watched},
};

pub fn a_node_that_loses_power_costs_no_row_and_comes_back_without_a_fight(stage: &Stage) -> Result<()> {
    let mut lost = Lost::without_power(stage, Watched::create(stage, "powerless", "")?)?;
    lost.await_elsewhere(stage, 180)?;
    let outage = lost.comes_back_in_peace(stage, |node| Ok(node.power_on()?))?;
    ensure(outage < CALM, || {
        format!(
            "clients could not write for {outage:.1} s when node {} came back",
            lost.node
        )
    })?;
    lost.watched.check()
}

/// What was lost is left again by the note of the claim alone: a node that came back may be the only one left, and is wanted at once.
pub fn long_each_node_may_lose_power_in_turn_and_the_last_failover_is_as_fast_as_the_first(
    stage: &Stage,
) -> Result<()> {
    let mut watched = Watched::create(stage, "hunted", "")?;
    let first = watched.instance.node()?;
    let nodes = stage.lab.bed().nodes();
    let others = nodes.iter().map(|node| node.id().to_string());
    // over both of the others, and from then on wherever it finds a place: each node has been lost by then
    let others = others.filter(|node| *node != first).map(Some);
    for next in others.chain([None, None]).collect::<Vec<_>>() {
        if let Some(next) = &next {
            stage.lab.only_node(next)?;
        }
        let lost = Lost::without_power(stage, watched)?;
        lost.await_elsewhere(stage, 90)?;
        stage.lab.open_all_nodes()?;
        stage.lab.bed().node(&lost.node)?.power_on()?;
        until(90, &format!("node {} is Ready again", lost.node), || {
            Ok(stage.lab.node_ready(&lost.node)? == "True")
        })?;
        operator::await_rollout(stage.lab)?;
        watched = lost.watched;
    }
    watched.check()
}

/// Two nodes are often all there are. A machine that has started again runs nothing of before, and gets the database at once.
pub fn long_a_node_that_was_lost_may_have_its_database_again(stage: &Stage) -> Result<()> {
    let lost = Lost::without_power(stage, Watched::create(stage, "homesick", "")?)?;
    lost.await_elsewhere(stage, 180)?;
    lost.comes_back_in_peace(stage, |node| Ok(node.power_on()?))?;
    gets_it_again(stage, lost, 60)
}

/// One that was only cut off must be heard of for three minutes first: its kubelet may not know yet that the volume was taken off its list.
pub fn long_a_node_that_was_cut_off_may_have_its_database_again_without_starting_again(stage: &Stage) -> Result<()> {
    let lost = Lost::facing(Watched::create(stage, "estranged", "")?)?;
    stage.lab.bed().partition(&lost.node, &[Peers::All])?;
    lost.await_elsewhere(stage, 180)?;
    lost.comes_back_in_peace(stage, |_| Ok(stage.lab.bed().heal(None)?))?;
    gets_it_again(stage, lost, 260)
}

/// The node that was lost is the only one that the next pod may go to.
fn gets_it_again(stage: &Stage, mut lost: Lost, limit: u64) -> Result<()> {
    let asked = Timestamp::now();
    survival::bring_to(stage, &lost.watched, &lost.node, limit)?;
    let outage = lost.watched.outage(asked, 60)?;
    stage.note(&format!("clients could not write for {outage:.1} s"));
    lost.watched.check()
}

/// `kubectl taint`, as a human or a remediation does it who knows that the node is off, and forgets it there.
pub fn long_a_node_tainted_out_of_service_is_left_on_any_storage_and_may_come_back_with_the_taint(
    stage: &Stage,
) -> Result<()> {
    let spec = format!("storage:\n  storageClassName: {UNLISTED_CLASS}");
    let mut lost = Lost::without_power(stage, Watched::create(stage, "tainted", &spec)?)?;
    let held = |ready: &e2e::instance::Condition| ready.reason == "DriverClassUnknown";
    lost.watched.instance.await_condition("Ready", 120, held)?;
    let taint = "node.kubernetes.io/out-of-service";
    stage
        .lab
        .kubectl(&["taint", "node", &lost.node, &format!("{taint}=nodeshutdown:NoExecute")])?;
    lost.await_elsewhere(stage, 120)?;
    lost.check_evidence("ConfirmedDead")?;
    let outage = lost.comes_back_in_peace(stage, |node| Ok(node.power_on()?))?;
    stage
        .lab
        .kubectl(&["taint", "node", &lost.node, &format!("{taint}-")])?;
    operator::await_rollout(stage.lab)?;
    ensure(outage < CALM, || {
        format!(
            "clients could not write for {outage:.1} s when node {} came back with the taint",
            lost.node
        )
    })?;
    lost.watched.check()
}

/// With layer 2 another node has to answer for the address first; the controller is not asked for an address that is given already.
pub fn long_a_dead_node_that_answered_for_the_address_and_ran_the_balancers_controller_costs_only_time(
    stage: &Stage,
) -> Result<()> {
    let watched = Watched::create(stage, "announced", "")?;
    let node = until(300, "the database is where its address is announced", || {
        let node = watched.announcer()?;
        if watched.instance.node()? == node {
            return Ok(Seen::There(node));
        }
        survival::bring_to(stage, &watched, &node, 120)?;
        Ok(Seen::NotYet(format!("it was brought to node {node}")))
    })?;
    stage.lab.only_node(&node)?;
    let balancer = "--namespace=metallb-system";
    stage
        .lab
        .kubectl(&["rollout", "restart", "deployment/controller", balancer])?;
    stage
        .lab
        .kubectl(&["rollout", "status", "deployment/controller", balancer, "--timeout=120s"])?;
    stage.lab.open_all_nodes()?;
    let mut lost = Lost::without_power(stage, watched)?;
    ensure(lost.node == node, || format!("the database is on node {}", lost.node))?;
    lost.await_elsewhere(stage, 300)?;
    let now = lost.watched.announcer()?;
    ensure(now != node, || {
        format!("node {node}, which is off, still answers for the address")
    })?;
    let outage = lost.comes_back_in_peace(stage, |node| Ok(node.power_on()?))?;
    stage.note(&format!(
        "with its power back, clients could not write for {outage:.1} s"
    ));
    stage
        .lab
        .kubectl(&["rollout", "status", "deployment/controller", balancer, "--timeout=120s"])?;
    lost.watched.check()
}

/// The node's own Lease is renewed every 10 s, the database's every second: its silence is noticed sooner, and where the driver proves nothing
/// it is the proof.
pub fn a_dead_node_is_given_up_on_the_word_of_the_databases_lease(stage: &Stage) -> Result<()> {
    let spec = format!("storage:\n  storageClassName: {UNLISTED_CLASS}\n{FAST}\n  proof: Lease");
    let mut lost = Lost::without_power(stage, Watched::create(stage, "leased", &spec)?)?;
    let fencing = lost.await_elsewhere(stage, 120)?;
    let noticed = between(&lost.at.to_string(), &fencing.pod_deleted)?;
    stage.note(&format!("the old pod was given up {noticed:.1} s after the fault"));
    // 15 s is what the silence of the node itself takes at least
    ensure(noticed < 12.0, || {
        format!("the old pod was given up only {noticed:.1} s after the fault")
    })?;
    lost.check_evidence("LeaseExpired")?;
    lost.watched.check()
}

pub fn an_unknown_driver_holds_until_a_human_confirms(stage: &Stage) -> Result<()> {
    let spec = format!("storage:\n  storageClassName: {UNLISTED_CLASS}");
    let mut lost = Lost::without_power(stage, Watched::create(stage, "unlisted", &spec)?)?;
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
    instance.await_condition("Ready", 30, |ready| {
        ready.reason == "DriverClassUnknown" && ready.message.contains("names another pod")
    })?;
    attached("upon a word about another pod")?;
    instance.annotate("sqledge.io/confirm-node-dead", &lost.pod_uid)?;
    lost.await_elsewhere(stage, 120)?;
    lost.check_evidence("ConfirmedDead")?;
    lost.watched.check()
}

pub fn a_detach_that_fails_and_then_takes_its_time_keeps_the_gate_shut(stage: &Stage) -> Result<()> {
    detach_held_back(stage, 20)
}

pub fn long_a_detach_held_back_for_three_minutes_keeps_the_gate_shut(stage: &Stage) -> Result<()> {
    detach_held_back(stage, 180)
}

fn detach_held_back(stage: &Stage, seconds: u16) -> Result<()> {
    let watched = Watched::create(stage, "slow", "")?;
    stage.lab.bed().storage(&["mode", watched.volume(), "fail"])?;
    let mut lost = Lost::without_power(stage, watched)?;
    let said = lost.watched.instance.await_condition("FailoverInProgress", 120, |it| {
        it.status == "True" && it.reason == "Detaching" && it.message.contains("the driver answers: ")
    })?;
    for words in [&format!("from node {}", lost.node), "mode fail is set"] {
        ensure(said.message.contains(words), || {
            format!("the status does not say \"{words}\": {}", said.message)
        })?;
    }
    let healed = Timestamp::now();
    stage
        .lab
        .bed()
        .storage(&["mode", lost.watched.volume(), &format!("slow:{seconds}")])?;
    let fencing = lost.await_elsewhere(stage, 180 + u64::from(seconds))?;
    let held = between(&healed.to_string(), &fencing.attachment_gone)?;
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
    let mut lost = Lost::without_power(stage, watched)?;
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
    let mut lost = Lost::without_power(stage, watched)?;
    // what a cloud controller does once the machine is gone
    stage.lab.kubectl(&["delete", "node", node])?;
    lost.await_elsewhere(stage, 120)?;
    lost.check_evidence("NodeGone")?;
    lost.watched.check()
}
