//! Faults that leave the node alive.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Stdio},
};

use e2e::{
    Result,
    engines::Role,
    error::{Error, ensure},
    harness::Stage,
    until,
    wait::Seen,
};
use jiff::Timestamp;
use testbed::process::Signal;

use crate::survival::{Watched, phases};

/// Deletes the pod in some way, and waits for another one; yields what the old engine said to its end.
fn replace(stage: &Stage, name: &str, spec: &str, words: &[&str]) -> Result<String> {
    let mut watched = Watched::create(stage, name, spec)?;
    let old = watched.instance.pod_name()?;
    let last_words = LastWords::of(stage, &old)?;
    let fault = Timestamp::now();
    stage.lab.kubectl(
        &[
            &["delete", "pod", &old, "--namespace", &stage.namespace, "--wait=false"],
            words,
        ]
        .concat(),
    )?;
    watched.instance.await_ready_without(&old, 60)?;
    let outage = watched.outage(fault, 60)?;
    let record = until(10, "the failover is recorded with its proof", || {
        let last = watched.instance.resource()?["status"]["lastFailover"].clone();
        let proven = last["evidence"].as_array().is_some_and(|evidence| !evidence.is_empty());
        Ok(if proven {
            Seen::There(last)
        } else {
            Seen::NotYet(last.to_string())
        })
    })?;
    stage.note(&format!(
        "clients could not write for {outage:.1} s: {}",
        phases(&record)
    ));
    watched.check()?;
    last_words.read()
}

/// An engine's log, followed until its container ends: the file itself goes with the pod.
struct LastWords {
    child: Child,
    output: BufReader<ChildStdout>,
    first: String,
}

impl LastWords {
    fn of(stage: &Stage, pod: &str) -> Result<Self> {
        let mut command = stage.lab.bed().command("cp")?;
        command.arg(stage.lab.bed().layout().tool("kubectl"));
        command.args([
            "logs",
            "--follow",
            "--container=engine",
            "--namespace",
            &stage.namespace,
            pod,
        ]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().map_err(Error::file("start", "kubectl"))?;
        let mut output = BufReader::new(child.stdout.take().expect("standard output was asked for"));
        // the pod may be gone a moment after its deletion: the log must be open before
        let mut first = String::new();
        output
            .read_line(&mut first)
            .map_err(Error::file("read", "the engine's log"))?;
        Ok(Self { child, output, first })
    }

    fn read(mut self) -> Result<String> {
        let mut text = std::mem::take(&mut self.first);
        self.output
            .read_to_string(&mut text)
            .map_err(Error::file("read", "the engine's log"))?;
        let _ = self.child.wait();
        Ok(text)
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn a_deleted_pod_is_replaced_after_a_clean_stop(stage: &Stage) -> Result<()> {
    // longer than the two seconds that a kubelet leaves a pod whose object is gone
    let spec = "env:\n- name: STANDIN_STOP_SECONDS\n  value: \"6\"";
    let said = replace(stage, "deleted", spec, &[])?;
    // the stand-in's last line, after its checkpoint
    let clean = said.contains("SQL Server shutdown has been initiated") && !said.contains("checkpoint of database");
    ensure(clean, || {
        format!("the old engine was not stopped cleanly; it said:\n{said}")
    })
}

pub fn a_force_deleted_pod_never_makes_two_writers(stage: &Stage) -> Result<()> {
    replace(stage, "forced", "", &["--grace-period=0", "--force"]).map(drop)
}

pub fn a_deployment_scaled_to_two_is_put_right_and_nothing_is_killed(stage: &Stage) -> Result<()> {
    let mut watched = Watched::create(stage, "scaled", "")?;
    let (container, engine) = (watched.container()?, watched.engine()?);
    let fault = Timestamp::now();
    stage.lab.kubectl(&[
        "scale",
        "deployment",
        "scaled",
        "--replicas=2",
        "--namespace",
        &stage.namespace,
    ])?;
    until(30, "one replica again, and one pod", || {
        let replicas = watched.instance.child("deployment", "scaled")?["spec"]["replicas"].clone();
        let pods = watched.instance.pods()?.len();
        Ok(if replicas == 1 && pods == 1 {
            Seen::There(())
        } else {
            Seen::NotYet(format!("{replicas} replicas, {pods} pods"))
        })
    })?;
    watched.check_untouched(fault, &container, &engine)?;
    watched.check()
}

pub fn a_rollout_restart_keeps_one_writer(stage: &Stage) -> Result<()> {
    let mut watched = Watched::create(stage, "rolled", "")?;
    let fault = Timestamp::now();
    stage.lab.kubectl(&[
        "rollout",
        "restart",
        "deployment/rolled",
        "--namespace",
        &stage.namespace,
    ])?;
    // to restart is what was asked for; the rollout must come to an end and leave one pod
    let namespace = format!("--namespace={}", stage.namespace);
    stage
        .lab
        .kubectl(&["rollout", "status", "deployment/rolled", &namespace, "--timeout=90s"])?;
    until(60, "one pod", || Ok(watched.instance.pods()?.len() == 1))?;
    let outage = watched.outage(fault, 60)?;
    stage.note(&format!("clients could not write for {outage:.1} s"));
    watched.check()
}

/// Hurts the engine, and waits until the guard has started another one in the same container.
fn restart_in_place(
    stage: &Stage,
    name: &str,
    longest_outage: f64,
    hurt: impl FnOnce(&Watched) -> Result<()>,
) -> Result<()> {
    let mut watched = Watched::create(stage, name, "")?;
    let (container, engine) = (watched.container()?, watched.engine()?);
    let fault = Timestamp::now();
    hurt(&watched)?;
    until(60, "both processes of the engine are others", || {
        let now = watched.processes(Role::Engine)?;
        Ok(
            if now.len() == 2 && now.iter().all(|process| !engine.contains(process)) {
                Seen::There(())
            } else {
                Seen::NotYet(format!("{engine:?} before, {now:?} now"))
            },
        )
    })?;
    let outage = watched.outage(fault, 60)?;
    stage.note(&format!("clients could not write for {outage:.1} s"));
    ensure(outage <= longest_outage, || {
        format!("clients could not write for {outage:.1} s, and {longest_outage} s are enough")
    })?;
    watched.check_container(&container)?;
    watched.check()
}

pub fn a_killed_engine_is_restarted_in_place(stage: &Stage) -> Result<()> {
    restart_in_place(stage, "killed", 3.0, |watched| {
        watched.engine()?[0].signal(Signal::KILL);
        Ok(())
    })
}

pub fn a_hung_engine_is_restarted_in_place(stage: &Stage) -> Result<()> {
    // the child holds the port: TCP connections are still accepted, by the kernel
    restart_in_place(stage, "hung", 15.0, |watched| {
        watched.engine()?[1].signal(Signal::STOP);
        Ok(())
    })
}

pub fn an_engine_that_is_shut_down_by_a_client_comes_back(stage: &Stage) -> Result<()> {
    restart_in_place(stage, "shut", 5.0, |watched| watched.clients.run("SHUTDOWN"))
}

pub fn a_drained_node_gives_its_database_away(stage: &Stage) -> Result<()> {
    let mut watched = Watched::create(stage, "drained", "")?;
    let (pod, node) = (watched.instance.pod_name()?, watched.instance.node()?);
    let fault = Timestamp::now();
    stage.lab.kubectl(&[
        "drain",
        &node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--timeout=120s",
    ])?;
    watched.instance.await_ready_without(&pod, 90)?;
    let outage = watched.outage(fault, 60)?;
    let record = watched.instance.resource()?["status"]["lastFailover"].clone();
    stage.note(&format!(
        "clients could not write for {outage:.1} s: {}",
        phases(&record)
    ));
    let now = watched.instance.node()?;
    ensure(now != node, || {
        format!("the database is still on the drained node {node}")
    })?;
    watched.check()
}
