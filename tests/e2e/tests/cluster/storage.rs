//! Storage that is away from one node alone.

use e2e::{Result, error::ensure, harness::Stage, until};
use jiff::Timestamp;
use testbed::Peers;

use crate::survival::Watched;

/// The node lives, and so does its engine, which can do nothing: nobody but the engine can tell. What it has lost is its mount, which only a new pod
/// makes anew.
pub fn long_a_node_cut_from_its_storage_keeps_its_database_and_the_status_says_what_is_broken(
    stage: &Stage,
) -> Result<()> {
    let mut watched = Watched::create(stage, "parched", "")?;
    let (instance, container) = (&watched.instance, watched.container()?);
    let (node, pod, cut) = (instance.node()?, instance.pod_name()?, Timestamp::now());
    stage.lab.bed().partition(&node, &[Peers::Storage])?;
    let said = instance.await_condition("Ready", 120, |ready| ready.reason == "DatabaseBroken")?;
    ensure(said.message.contains("oracle"), || {
        format!("the message does not name the database: {}", said.message)
    })?;
    watched.check_container(&container)?;
    stage.lab.bed().heal(None)?;
    let namespace = format!("--namespace={}", stage.namespace);
    stage
        .lab
        .kubectl(&["delete", "pod", &pod, &namespace, "--wait=false"])?;
    instance.await_ready_without(&pod, 90)?;
    let outage = watched.outage(cut, 60)?;
    stage.note(&format!("clients could not write for {outage:.1} s"));
    watched.check()
}

/// The kubelet then knows nothing of the pod but what it finds in its container runtime.
pub fn kubelet_and_container_runtime_restarted_after_a_forced_delete_leave_one_writer(stage: &Stage) -> Result<()> {
    let mut watched = Watched::create(stage, "amnesic", "")?;
    let pod = watched.instance.pod_name()?;
    let node = stage.lab.bed().node(&watched.instance.node()?)?;
    let fault = Timestamp::now();
    node.stop_service("kubelet")?;
    stage.lab.kubectl(&[
        "delete",
        "pod",
        &pod,
        "--namespace",
        &stage.namespace,
        "--grace-period=0",
        "--force",
        "--wait=false",
    ])?;
    until(30, "the pod's object is gone", || {
        Ok(!watched
            .instance
            .pods()?
            .iter()
            .any(|left| left["metadata"]["name"] == pod.as_str()))
    })?;
    node.stop_service("containerd")?;
    for service in ["containerd", "kubelet"] {
        node.start_service(service)?;
    }
    watched.instance.await_ready_without(&pod, 120)?;
    let outage = watched.outage(fault, 60)?;
    stage.note(&format!("clients could not write for {outage:.1} s"));
    watched.check()
}
