//! The guard itself and its Lease, on a node that is well: the engine cannot outlive the one, and the other is no way to kill it by accident.

use e2e::{
    Result,
    error::{Error, ensure},
    harness::Stage,
    until,
    wait::Seen,
};
use jiff::Timestamp;
use serde_json::Value;
use testbed::process::Signal;

use crate::survival::Watched;

/// Hurts process 1, and waits until the kubelet has started the container anew in the same pod.
fn restart_by_kubelet(stage: &Stage, name: &str, signal: Signal) -> Result<()> {
    let mut watched = Watched::create(stage, name, "")?;
    let (before, engine, lease) = (watched.container()?, watched.engine()?, holder(&watched)?);
    let fault = Timestamp::now();
    watched.guard()?.signal(signal);
    let now = until(90, "the container was started anew", || {
        let now = watched.container()?;
        Ok(if now["restarts"].as_i64() > before["restarts"].as_i64() {
            Seen::There(now)
        } else {
            Seen::NotYet(now.to_string())
        })
    })?;
    let outage = watched.outage(fault, 60)?;
    stage.note(&format!("clients could not write for {outage:.1} s"));
    ensure(now["pod"] == before["pod"], || {
        format!("the pod was replaced although its node was well: {before} before, {now} now")
    })?;
    ensure(!engine.iter().any(|process| process.is_alive()), || {
        format!("processes of the engine have outlived their guard: {engine:?}")
    })?;
    // the same pod, by another start of its container
    let taken = holder(&watched)?;
    ensure(
        taken.pod == lease.pod && taken.start != lease.start && taken.epoch > lease.epoch,
        || format!("the Lease was not taken anew: {lease:?} before, {taken:?} now"),
    )?;
    watched.check()
}

pub fn a_killed_guard_takes_its_engine_along_and_the_kubelet_starts_both_anew(stage: &Stage) -> Result<()> {
    restart_by_kubelet(stage, "headless", Signal::KILL)
}

pub fn a_guard_that_hangs_is_ended_by_the_kubelet_with_its_engine(stage: &Stage) -> Result<()> {
    restart_by_kubelet(stage, "stunned", Signal::STOP)
}

/// Who has the Lease of an instance.
#[derive(Debug)]
struct Taken {
    uid: String,
    pod: String,
    start: String,
    epoch: i64,
}

/// The Lease, if a guard has it.
fn taken(watched: &Watched) -> Result<Option<Taken>> {
    let lease = watched.instance.child("lease", &lease_name(watched))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let holder = text(&lease["spec"]["holderIdentity"]);
    let uid = watched.instance.pod()?["metadata"]["uid"].clone();
    Ok(holder
        .split_once('/')
        .filter(|(pod, _)| uid == *pod)
        .map(|(pod, start)| Taken {
            uid: text(&lease["metadata"]["uid"]),
            pod: pod.to_owned(),
            start: start.to_owned(),
            epoch: lease["spec"]["leaseTransitions"].as_i64().unwrap_or_default(),
        }))
}

fn holder(watched: &Watched) -> Result<Taken> {
    taken(watched)?.ok_or_else(|| Error::Broken("the Lease is not held by the pod that serves".to_owned()))
}

fn lease_name(watched: &Watched) -> String {
    format!("{}-writer", watched.instance.name())
}

pub fn a_lease_that_is_annotated_or_deleted_kills_nothing_and_comes_back(stage: &Stage) -> Result<()> {
    let mut watched = Watched::create(stage, "unleased", "")?;
    let (container, engine, before) = (watched.container()?, watched.engine()?, holder(&watched)?);
    let (name, namespace) = (lease_name(&watched), format!("--namespace={}", stage.namespace));
    let fault = Timestamp::now();
    stage
        .lab
        .kubectl(&["annotate", "lease", &name, &namespace, "example.com/note=hello"])?;
    stage.lab.kubectl(&["delete", "lease", &name, &namespace])?;
    // a guard that need not renew looks at its Lease every 30 s
    let after = until(
        60,
        "another Lease of that name is held by the same start of the guard",
        || {
            Ok(match taken(&watched)? {
                Some(taken) if taken.uid != before.uid => Seen::There(taken),
                other => Seen::NotYet(format!("{other:?}")),
            })
        },
    )?;
    ensure(after.start == before.start && after.epoch > before.epoch, || {
        format!("the Lease was not taken by the guard that runs, at a later epoch: {before:?} before, {after:?} now")
    })?;
    watched.check_untouched(fault, &container, &engine)?;
    watched.check()
}

pub fn the_engines_account_may_read_and_write_one_lease_and_nothing_else(stage: &Stage) -> Result<()> {
    let instance = stage.instance("confined");
    instance.create("")?;
    let account = instance.pod()?["spec"]["serviceAccountName"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let user = format!("--as=system:serviceaccount:{}:{account}", stage.namespace);
    let namespace = format!("--namespace={}", stage.namespace);
    let may = |words: &[&str]| -> Result<bool> {
        // `no` is exit code 1
        let said = stage
            .lab
            .kubectl(&[&["auth", "can-i", &user, &namespace], words].concat());
        Ok(said.is_ok_and(|said| said.trim() == "yes"))
    };
    let own = "leases/confined-writer";
    for verb in ["get", "update"] {
        ensure(may(&[verb, own])?, || format!("the guard may not {verb} {own}"))?;
    }
    for words in [
        ["delete", own],
        ["patch", own],
        ["get", "leases/another-writer"],
        ["update", "leases/another-writer"],
        ["create", "leases"],
        ["list", "leases"],
        ["list", "pods"],
        ["get", "secrets/confined-sa"],
        ["get", "sqledgeinstances/confined"],
        ["list", "nodes"],
    ] {
        ensure(!may(&words)?, || {
            format!("whoever breaks into the engine may {}", words.join(" "))
        })?;
    }
    Ok(())
}
