//! Nodes that are silent and live on: cut off, or asleep. And an API server that is silent to everybody.

use e2e::{
    Result,
    error::{Error, ensure},
    harness::Stage,
    instance::FAST,
    lab::UNLISTED_CLASS,
    operator, until,
    volume::last_write,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use testbed::{Node, Peers, layout::hardware_address};

use crate::{lost::Lost, survival::Watched};

/// That of `FAST`.
const STOPS_AFTER: SignedDuration = SignedDuration::from_secs(5);
/// What the guard may take for the kill.
const KILL_BUDGET: SignedDuration = SignedDuration::from_secs(2);

/// The node that answers for the database's address, by what its clients have learnt.
fn announcer(stage: &Stage, watched: &Watched) -> Result<String> {
    let address = watched.instance.address()?;
    let bed = stage.lab.bed();
    let seen = bed.exec("client", &["ip", "neigh", "show", &address])?;
    let answers = |node: &Node| seen.contains(&hardware_address(node.id().address()));
    bed.nodes()
        .iter()
        .find(|node| answers(node))
        .map(|node| node.id().to_string())
        .ok_or_else(|| Error::Broken(format!("nobody answers for {address}: {seen}")))
}

/// Two databases on one node that answers for the address of neither: a node that is cut off from the API server alone would go on leading their
/// clients to where they were.
fn side_by_side<'a>(stage: &Stage<'a>, one: (&str, &str), other: (&str, &str)) -> Result<(Lost<'a>, Lost<'a>)> {
    let (first, second) = (stage.instance(one.0), stage.instance(other.0));
    first.apply(one.1)?;
    second.create(other.1)?;
    first.await_ready(90)?;
    let (one, other) = (Watched::of(first)?, Watched::of(second)?);
    let answering = [announcer(stage, &one)?, announcer(stage, &other)?];
    let nodes = stage.lab.bed().nodes();
    let quiet = nodes.iter().map(|node| node.id().to_string());
    let quiet = quiet
        .into_iter()
        .find(|node| !answering.contains(node))
        .ok_or_else(|| Error::Broken(format!("there are two nodes too few beside {answering:?}")))?;
    stage.lab.only_node(&quiet)?;
    let mut moved = Vec::new();
    for watched in [&one, &other] {
        if watched.instance.node()? != quiet {
            let pod = watched.instance.pod_name()?;
            let namespace = format!("--namespace={}", stage.namespace);
            stage
                .lab
                .kubectl(&["delete", "pod", &pod, &namespace, "--wait=false"])?;
            moved.push((watched, pod));
        }
    }
    for (watched, pod) in moved {
        watched.instance.await_ready_without(&pod, 90)?;
        watched.clients.await_rows_after(Timestamp::now(), 30)?;
    }
    stage.lab.open_all_nodes()?;
    Ok((Lost::facing(one)?, Lost::facing(other)?))
}

/// When the guard of a pod says it has killed its engine, after a fault.
fn killed(lost: &Lost, cut: Timestamp) -> Result<Timestamp> {
    let said = lost
        .watched
        .instance
        .said_on_node(&lost.node, &lost.pod, &lost.pod_uid)?;
    let lines = said.lines().filter(|line| line.contains("killed the engine: Lease"));
    lines
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .find(|killed| *killed >= cut)
        .ok_or_else(|| Error::Broken(format!("the guard did not kill its engine; it said:\n{said}")))
}

/// Fails unless the engine of a pod was killed in time by its own guard; yields when.
fn check_killed_in_time(stage: &Stage, lost: &Lost, cut: Timestamp) -> Result<Timestamp> {
    let killed = killed(lost, cut)?;
    stage.note(&format!(
        "the guard of {} killed its engine {:.1} s after the cut",
        lost.pod,
        killed.duration_since(cut).as_secs_f64()
    ));
    ensure(killed <= cut + STOPS_AFTER + KILL_BUDGET, || {
        format!("cut off at {cut}, the guard killed its engine only at {killed}")
    })?;
    Ok(killed)
}

/// Fails unless the engine of a lost pod was killed in time by its own guard, and wrote nothing from then on.
fn check_killed_by_itself(stage: &Stage, lost: &Lost, cut: Timestamp) -> Result<()> {
    let killed = check_killed_in_time(stage, lost, cut)?;
    let written = last_write(stage.lab, lost.watched.volume(), &lost.node)?;
    ensure(written <= killed + KILL_BUDGET, || {
        format!("the engine was killed at {killed}, and its node still wrote at {written}")
    })
}

pub fn a_node_cut_from_the_api_server_keeps_its_database_unless_its_lease_is_renewed(stage: &Stage) -> Result<()> {
    let renewed = format!("{FAST}\n  onApiLoss: Stop");
    let (mut stays, mut moves) = side_by_side(stage, ("stays", ""), ("moves", &renewed))?;
    let (container, engine) = (stays.watched.container()?, stays.watched.engine()?);
    let (node, cut) = (stays.node.clone(), Timestamp::now());
    stage.lab.bed().partition(&node, &[Peers::Api])?;
    moves.await_elsewhere(stage, 90)?;
    moves.check_evidence("StorageRevoked")?;
    check_killed_by_itself(stage, &moves, cut)?;
    until(90, &format!("node {node} is called silent by the cluster, too"), || {
        Ok(stage.lab.node_ready(&node)? == "Unknown")
    })?;
    // and what follows from that would follow within these rows
    let rows = stays.watched.clients.acknowledged()?;
    until(60, "200 more rows", || {
        Ok(stays.watched.clients.acknowledged()? >= rows + 200)
    })?;
    let outage = moves.comes_back_in_peace(stage, |_| Ok(stage.lab.bed().heal(None)?))?;
    stage.note(&format!("healed, with {outage:.1} s without a row"));
    stays.watched.check_untouched(cut, &container, &engine)?;
    stays.watched.check()?;
    moves.watched.check()
}

pub fn a_node_cut_from_everybody_loses_its_databases_and_writes_nothing_when_it_is_back(stage: &Stage) -> Result<()> {
    let leased = format!("storage:\n  storageClassName: {UNLISTED_CLASS}\n{FAST}\n  proof: Lease");
    let (mut plain, mut leased) = side_by_side(stage, ("plain", ""), ("leased", &leased))?;
    let (node, cut) = (plain.node.clone(), Timestamp::now());
    stage.lab.bed().partition(&node, &[Peers::All])?;
    for (lost, proof) in [(&leased, "LeaseExpired"), (&plain, "StorageRevoked")] {
        lost.await_elsewhere(stage, 90)?;
        lost.check_evidence(proof)?;
    }
    check_killed_by_itself(stage, &leased, cut)?;
    let outage = plain.comes_back_in_peace(stage, |_| Ok(stage.lab.bed().heal(None)?))?;
    stage.note(&format!("healed, with {outage:.1} s without a row"));
    plain.watched.check()?;
    leased.watched.check()
}

pub fn a_node_asleep_beyond_every_timeout_writes_nothing_when_it_wakes(stage: &Stage) -> Result<()> {
    let (mut plain, mut renewed) = side_by_side(stage, ("plain", ""), ("renewed", FAST))?;
    let node = plain.node.clone();
    stage.lab.bed().node(&node)?.pause()?;
    for lost in [&renewed, &plain] {
        lost.await_elsewhere(stage, 90)?;
        lost.check_evidence("StorageRevoked")?;
    }
    let outage = plain.comes_back_in_peace(stage, |node| Ok(node.resume()?))?;
    stage.note(&format!("awake again, with {outage:.1} s without a row"));
    // how much it tries depends on what its page cache held; the control with storage that lies shows that it does
    for lost in [&plain, &renewed] {
        let found = e2e::volume::findings(stage.lab, lost.watched.volume())?;
        stage.note(&format!("{} writes refused", found.refused));
    }
    plain.watched.check()?;
    renewed.watched.check()
}

pub fn an_api_server_away_for_a_minute_stops_only_a_database_that_promised_to_stop(stage: &Stage) -> Result<()> {
    away_for(stage, 1)
}

pub fn long_an_api_server_away_for_ten_minutes_stops_only_a_database_that_promised_to_stop(
    stage: &Stage,
) -> Result<()> {
    away_for(stage, 10)
}

fn away_for(stage: &Stage, minutes: i64) -> Result<()> {
    // renewing or not, where the storage revokes a guard goes on; where nothing else would be a proof it has promised to stop
    let mut unaware = Watched::create(stage, "unaware", "")?;
    let mut renewed = Watched::create(stage, "renewed", FAST)?;
    let promised = format!("storage:\n  storageClassName: {UNLISTED_CLASS}\n{FAST}");
    let mut promised = Lost::facing(Watched::create(stage, "promised", &promised)?)?;
    let before = [
        (unaware.container()?, unaware.engine()?),
        (renewed.container()?, renewed.engine()?),
    ];
    let gone = Timestamp::now();
    stage.lab.bed().stop_api()?;
    let back = gone + SignedDuration::from_mins(minutes);
    until(
        minutes.unsigned_abs() * 60 + 30,
        "the time without an API server is over",
        || Ok(Timestamp::now() >= back),
    )?;
    // read from its node, before an operator could replace the pod
    check_killed_in_time(stage, &promised, gone)?;
    stage.lab.bed().start_api()?;
    unaware
        .instance
        .apply("service:\n  annotations:\n    example.com/version: later")?;
    until(90, "the operator serves again", || {
        let service = unaware.instance.child("service", "unaware")?;
        Ok(service["metadata"]["annotations"]["example.com/version"] == "later")
    })?;
    // longer than a node's Lease may be silent: nothing is made of the silence of all of them
    let rows = unaware.clients.acknowledged()?;
    until(
        90,
        "400 more rows",
        || Ok(unaware.clients.acknowledged()? >= rows + 400),
    )?;
    for (watched, (container, engine)) in [&unaware, &renewed].into_iter().zip(&before) {
        watched.check_untouched(gone, container, engine)?;
    }
    let outage = promised.watched.outage(gone, 90)?;
    stage.note(&format!("the one that stopped was back after {outage:.1} s"));
    unaware.check()?;
    renewed.check()?;
    promised.watched.check()
}

pub fn long_a_node_without_its_kubelet_its_container_runtime_or_both_keeps_its_databases(stage: &Stage) -> Result<()> {
    let (mut plain, mut renewed) = side_by_side(stage, ("plain", ""), ("renewed", FAST))?;
    let mut before = Vec::new();
    for lost in [&plain, &renewed] {
        before.push((lost.watched.container()?, lost.watched.engine()?));
    }
    let name = plain.node.clone();
    let node = stage.lab.bed().node(&name)?;
    // a kubelet without its runtime says so itself
    for (services, called) in [
        (&["kubelet"][..], "Unknown"),
        (&["containerd"], "False"),
        (&["containerd", "kubelet"], "Unknown"),
    ] {
        let fault = Timestamp::now();
        for service in services {
            node.stop_service(service)?;
        }
        until(
            90,
            &format!("node {name} without {services:?} is called {called}"),
            || Ok(stage.lab.node_ready(&name)? == called),
        )?;
        for service in services {
            node.start_service(service)?;
        }
        until(90, &format!("node {name} is Ready again"), || {
            Ok(stage.lab.node_ready(&name)? == "True")
        })?;
        for (lost, (container, engine)) in [&plain, &renewed].into_iter().zip(&before) {
            lost.watched.check_untouched(fault, container, engine)?;
        }
    }
    plain.watched.check()?;
    renewed.watched.check()
}

pub fn two_of_three_nodes_silent_at_once_freeze_everything_until_one_is_back(stage: &Stage) -> Result<()> {
    // somebody must be left to hold the brake
    let seat = operator::pods(stage.lab)?
        .into_iter()
        .map(|(_, node)| node)
        .next()
        .ok_or_else(|| Error::Broken("the operator has no pod".to_owned()))?;
    let nodes = stage.lab.bed().nodes();
    let others: Vec<_> = nodes.iter().filter(|node| node.id().to_string() != seat).collect();
    let [home, other] = others[..] else {
        return Err(Error::Broken("the testbed has not three nodes".to_owned()));
    };
    stage.lab.only_node(&home.id().to_string())?;
    let watched = Watched::create(stage, "frozen", "")?;
    stage.lab.open_all_nodes()?;
    let mut lost = Lost::facing(watched)?;
    // kubelets renew every 10 s, each at its own time: of two nodes lost at once the first to be noticed is given up as the only one
    other.pause()?;
    let renewed = || -> Result<Value> {
        let lease = stage.lab.get("lease", "kube-node-lease", &lost.node)?;
        Ok(lease.map_or(Value::Null, |lease| lease["spec"]["renewTime"].clone()))
    };
    let before = renewed()?;
    until(
        30,
        "the second node to be lost has renewed its Lease after the first was",
        || Ok(renewed()? != before),
    )?;
    home.pause()?;
    let instance = &lost.watched.instance;
    let said = instance.await_condition("Ready", 120, |ready| ready.reason == "TooManyNodesSilent")?;
    ensure(said.message.contains("2 of 3"), || {
        format!("the message does not say how many are silent: {}", said.message)
    })?;
    // on the side of the control plane nothing has happened to the pod
    instance.child("pod", &lost.pod)?;
    other.resume()?;
    lost.await_elsewhere(stage, 120)?;
    lost.check_evidence("StorageRevoked")?;
    home.resume()?;
    lost.watched.check()
}
