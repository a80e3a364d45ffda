//! A volume without space, and the way out of it.

use std::collections::BTreeSet;

use e2e::{
    Error, Result, error::ensure, harness::Stage, instance::condition, lab::GROWING_CLASS, operator, until, wait::Seen,
    watch::Watch,
};
use jiff::Timestamp;
use testbed::AuditEvent;

use crate::survival::Watched;

/// Room for an engine with its databases, and little to fill.
const SMALL: &str = "320Mi";
const LARGE: &str = "640Mi";
/// So many inserts that were refused are no chance.
const REFUSALS: usize = 40;

/// Fills the volume from the node's side, beside the data, until not even root finds a block.
fn fill(stage: &Stage, watched: &Watched, path: &str) -> Result<()> {
    let node = stage.lab.bed().node(&watched.instance.node()?)?;
    let script = format!(
        "test -d {path}/data && ! dd if=/dev/zero of={path}/filler bs=4k status=none 2>{path}.said; cat {path}.said; rm {path}.said"
    );
    let said = node.exec(&["sh", "-c", &script])?;
    ensure(said.contains("No space left"), || {
        format!("the volume at {path} did not get full: {said}")
    })
}

/// Where the volume is mounted on its node.
fn mounted(watched: &Watched) -> Result<String> {
    let pod = watched.instance.pod()?;
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    Ok(format!(
        "/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~csi/{}/mount",
        watched.volume()
    ))
}

/// Size of the file system there, in MiB.
fn mebibytes(stage: &Stage, watched: &Watched, path: &str) -> Result<u64> {
    let node = stage.lab.bed().node(&watched.instance.node()?)?;
    let said = node.exec(&["stat", "--file-system", "--format=%b %S", path])?;
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [blocks, size] = numbers[..] else {
        return Err(Error::Broken(format!("`stat` of {path} said {said}")));
    };
    Ok((blocks * size) >> 20)
}

/// Waits until clients have met error 9002 often enough.
fn await_refusals(watched: &Watched, since: Timestamp) -> Result<()> {
    until(120, "clients are told that the volume is full", || {
        let log = watched.clients.log()?;
        let after = log.attempts.iter().filter(|attempt| attempt.started.wall > since);
        let refused = after.filter(|a| a.error.as_deref().is_some_and(|error| error.contains("is full")));
        let count = refused.count();
        Ok(if count >= REFUSALS {
            Seen::There(())
        } else {
            Seen::NotYet(format!("{count} inserts were refused"))
        })
    })
}

/// What the operator asked of the API server about an object, and how each was answered.
fn asked(log: &[AuditEvent], verb: &str, resource: &str, subresource: &str, name: &str) -> Vec<u16> {
    let about = |event: &&AuditEvent| {
        event.user.username == operator::USER
            && event.verb == verb
            && event.stage == "ResponseComplete"
            && event
                .object_ref
                .as_ref()
                .is_some_and(|o| o.resource == resource && o.subresource == subresource && o.name == name)
    };
    let codes = log
        .iter()
        .filter(about)
        .filter_map(|event| event.response_status.as_ref());
    codes.map(|status| status.code).collect()
}

pub fn a_full_volume_costs_no_row_and_no_restart_and_a_larger_size_gets_it_out(stage: &Stage) -> Result<()> {
    let of_size = |size: &str| format!("storage:\n  storageClassName: {GROWING_CLASS}\n  size: {size}");
    let mut watched = Watched::create(stage, "brimful", &of_size(SMALL))?;
    let (container, engine) = (watched.container()?, watched.engine()?);
    let (path, claim) = (mounted(&watched)?, watched.instance.status("volumeClaim")?);
    let failover = watched.instance.status("lastFailover")?;
    let before = watched
        .instance
        .await_condition("VolumeHasSpace", 60, |said| said.status == "True")?;
    ensure(before.reason == "SpaceLeft", || format!("a new volume has {before:?}"))?;

    // a log that is empty finds no room once the volume is full
    watched.clients.run("USE oracle; CHECKPOINT")?;
    let (full, length) = (Timestamp::now(), stage.lab.bed().audit_log_length()?);
    fill(stage, &watched, &path)?;
    await_refusals(&watched, full)?;
    let told = watched
        .instance
        .await_condition("VolumeHasSpace", 60, |said| said.reason == "VolumeNearlyFull")?;
    let took = Timestamp::now().duration_since(full).as_secs_f64();
    stage.note(&format!("after {took:.1} s: {}", told.message));
    for words in [claim.as_str(), "spec.storage.size", "less than 1 MiB"] {
        ensure(told.status == "False" && told.message.contains(words), || {
            format!("the condition does not say `{words}`: {told:?}")
        })?;
    }
    let namespace = format!("--namespace={}", stage.namespace);
    until(30, "an event tells that the volume is nearly full", || {
        let selector = "--field-selector=reason=VolumeNearlyFull";
        let words = ["get", "events", &namespace, selector, "--output=name"];
        Ok(!stage.lab.kubectl(&words)?.trim().is_empty())
    })?;
    // with the next looks nothing else is made of it
    await_refusals(&watched, Timestamp::now())?;
    watched.check_container(&container)?;
    ensure(watched.engine()? == engine, || "the engine was restarted".to_owned())?;
    let ready = watched.instance.await_condition("Ready", 5, |_| true)?;
    let same = watched.instance.status("lastFailover")? == failover && watched.instance.status("failover")?.is_empty();
    ensure(ready.status == "True" && same, || {
        format!("a full volume is no reason for a failover: {ready:?}")
    })?;
    let log = stage.lab.bed().audit_log_since(length)?;
    let written = asked(&log, "patch", "sqledgeinstances", "status", "brimful").len();
    ensure((1..=4).contains(&written), || {
        format!("the status was written {written} times while the volume was full")
    })?;

    let mut watch = Watch::default();
    watch.follow(stage.lab, &["sqledge", "brimful", &namespace])?;
    let raised = Timestamp::now();
    watched.instance.apply(&of_size(LARGE))?;
    until(180, "the claim has the larger size", || {
        let claim = watched.instance.child("pvc", &claim)?;
        Ok(if claim["status"]["capacity"]["storage"] == LARGE {
            Seen::There(())
        } else {
            Seen::NotYet(claim["status"].to_string())
        })
    })?;
    let size = mebibytes(stage, &watched, &path)?;
    ensure(size > 512, || format!("the file system has {size} MiB of {LARGE}"))?;
    watched.clients.await_rows_after(raised, 60)?;
    let took = Timestamp::now().duration_since(raised).as_secs_f64();
    watched
        .instance
        .await_condition("VolumeResizing", 30, |said| said.reason == "SizeReached")?;
    watched
        .instance
        .await_condition("VolumeHasSpace", 60, |said| said.reason == "SpaceLeft")?;
    let said: BTreeSet<String> = watch
        .changes()
        .filter_map(|change| condition(&change.object, "VolumeResizing"))
        .map(|said| said.reason)
        .collect();
    ensure(said.contains("Resizing"), || {
        format!("while the volume grew the status said only {said:?}")
    })?;
    stage.note(&format!(
        "clients could write {took:.1} s after the size was raised; on the way: {said:?}"
    ));
    watched.check_container(&container)?;
    ensure(watched.engine()? == engine, || "the engine was restarted".to_owned())?;
    let outage = watched.outage(full, 30)?;
    stage.note(&format!("clients could not write for {outage:.1} s"));
    watched.check()
}

pub fn an_expansion_that_the_storage_class_does_not_allow_is_told_and_costs_nothing(stage: &Stage) -> Result<()> {
    let of_size = |size: &str| format!("storage:\n  size: {size}");
    let mut watched = Watched::create(stage, "rigid", &of_size(SMALL))?;
    let (container, engine, began) = (watched.container()?, watched.engine()?, Timestamp::now());
    let length = stage.lab.bed().audit_log_length()?;
    watched.instance.apply(&of_size(LARGE))?;
    let told = watched
        .instance
        .await_condition("VolumeResizing", 60, |said| said.reason == "ExpansionRefused")?;
    stage.note(&told.message);
    for words in ["spec.storage.size", LARGE, SMALL, "rigid-data", "allowVolumeExpansion"] {
        ensure(told.message.contains(words), || {
            format!("the condition does not say `{words}`: {told:?}")
        })?;
    }
    // what else is wanted is done all the same
    let annotated = format!("{}\nservice:\n  annotations: {{e2e.test/asked: later}}", of_size(LARGE));
    watched.instance.apply(&annotated)?;
    until(30, "the Service is as the resource wants it", || {
        let service = watched.instance.child("service", "rigid")?;
        Ok(service["metadata"]["annotations"]["e2e.test/asked"] == "later")
    })?;
    watched.check_untouched(began, &container, &engine)?;
    let log = stage.lab.bed().audit_log_since(length)?;
    let asked = asked(&log, "patch", "persistentvolumeclaims", "", "rigid-data");
    ensure(asked == [403], || {
        format!("the API server was asked to let the claim grow, and answered: {asked:?}")
    })?;
    watched.check()
}
