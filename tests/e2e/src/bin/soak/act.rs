//! Doing a fault, and taking its cause away again.

use std::{
    collections::BTreeSet,
    process::{Child, Stdio},
};

use e2e::{
    Error, Lab, Result,
    engines::{self, Role},
    operator,
};
use serde_json::json;
use testbed::{Peers, process::Signal};

use crate::{
    fleet::{Member, Pod},
    kind::{Kind, Reach},
    plan::Planned,
};

/// How a detach is held back.
const SLOW: &str = "slow:15";

/// A fault that was done.
pub struct Begun {
    /// To what, in words.
    pub what: String,
    /// The databases it hits, by their place in the fleet.
    pub hit: Vec<usize>,
    /// The nodes it keeps busy.
    pub nodes: Vec<String>,
    /// What ends its cause.
    pub undo: Undo,
}

/// What ends the cause of a fault.
pub enum Undo {
    /// There is nothing to end.
    Nothing,
    /// Nodes get their power back.
    PowerOn(Vec<String>),
    /// The same, and the storage detaches at once again.
    PowerOnAndDetach(String, Vec<String>),
    /// The network is whole again.
    Heal(String),
    /// A node goes on.
    Resume(String),
    /// A service of a node runs again.
    Service(String, &'static str),
    /// A node takes pods again; the drain should have ended.
    Uncordon(String, Child),
    /// The API server is there again.
    Api,
}

/// What came of trying to begin a fault.
pub enum Start {
    /// It began.
    Begun(Begun),
    /// It makes no sense in the present state; why.
    NotApplicable(String),
}

/// Does a fault. Nodes that are `busy` with another one are left alone.
pub fn begin(lab: &Lab, planned: Planned, fleet: &[Member], busy: &BTreeSet<String>) -> Result<Start> {
    let member = &fleet[planned.instance];
    let kind = planned.kind;
    let outcome = match kind.reach() {
        Reach::Instance => hurt_instance(lab, planned, member).map(|()| Begun {
            what: member.name().to_owned(),
            hit: vec![planned.instance],
            nodes: Vec::new(),
            undo: Undo::Nothing,
        }),
        Reach::Node => node_of(member, busy).and_then(|node| hurt_node(lab, planned, fleet, &node)),
        Reach::TwoNodes => node_of(member, busy).and_then(|node| {
            let other = other_node(lab, &node, busy)?;
            for name in [&node, &other] {
                lab.bed().node(name)?.power_off()?;
            }
            Ok(Begun {
                what: format!("nodes {node} and {other}"),
                hit: on_nodes(fleet, &[&node, &other]),
                nodes: vec![node.clone(), other.clone()],
                undo: Undo::PowerOn(vec![node, other]),
            })
        }),
        Reach::Control => hurt_control(lab, kind).map(|what| Begun {
            what,
            hit: Vec::new(),
            nodes: Vec::new(),
            undo: Undo::Nothing,
        }),
        Reach::Api => lab.bed().stop_api().map_err(Error::from).map(|()| Begun {
            what: "the API server".to_owned(),
            hit: Vec::new(),
            nodes: Vec::new(),
            undo: Undo::Api,
        }),
    };
    match outcome {
        Ok(begun) => Ok(Start::Begun(begun)),
        // a file of ours that cannot be written is our own trouble; everything else is the state of a cluster that is being hurt
        Err(error @ Error::File { .. }) => Err(error),
        Err(error) => Ok(Start::NotApplicable(error.to_string())),
    }
}

/// The pod that stands for a database now.
fn pod_of<'m>(member: &'m Member) -> Result<&'m Pod> {
    let pods = &member.state.pods;
    let found = member
        .state
        .serving_pod()
        .or_else(|| pods.iter().find(|pod| !pod.deleting));
    found.ok_or_else(|| Error::Broken(format!("{} has no pod now", member.name())))
}

fn node_of(member: &Member, busy: &BTreeSet<String>) -> Result<String> {
    let node = pod_of(member)?.node.clone();
    if node.is_empty() {
        return Err(Error::Broken(format!("{} is on no node now", member.name())));
    }
    idle(node, busy)
}

fn other_node(lab: &Lab, node: &str, busy: &BTreeSet<String>) -> Result<String> {
    let names: Vec<String> = lab.bed().nodes().iter().map(|node| node.id().to_string()).collect();
    let at = names.iter().position(|name| name == node).unwrap_or_default();
    idle(names[(at + 1) % names.len()].clone(), busy)
}

fn idle(node: String, busy: &BTreeSet<String>) -> Result<String> {
    if busy.contains(&node) {
        return Err(Error::Broken(format!("node {node} is busy with another fault")));
    }
    Ok(node)
}

fn on_nodes(fleet: &[Member], nodes: &[&str]) -> Vec<usize> {
    let hit = |member: &Member| {
        member
            .state
            .pods
            .iter()
            .any(|pod| nodes.contains(&pod.node.as_str()) && !pod.deleting)
    };
    (0..fleet.len()).filter(|at| hit(&fleet[*at])).collect()
}

fn hurt_instance(lab: &Lab, planned: Planned, member: &Member) -> Result<()> {
    let (name, namespace) = (member.name(), member.instance.namespace());
    let place = format!("--namespace={namespace}");
    let (deployment, lease) = (format!("deployment/{name}"), format!("lease/{name}-writer"));
    let mark = format!("soak.test/fault={}", planned.number);
    let kubectl = |words: &[&str]| {
        lab.kubectl(&[words, &[&place, "--request-timeout=10s"]].concat())
            .map(drop)
    };
    match planned.kind {
        Kind::EngineKilled => signal(lab, member, Role::Engine, Signal::KILL),
        Kind::EngineHung => signal(lab, member, Role::Engine, Signal::STOP),
        Kind::GuardKilled => signal(lab, member, Role::Guard, Signal::KILL),
        Kind::GuardHung => signal(lab, member, Role::Guard, Signal::STOP),
        Kind::EngineShutDown => member.clients.run("SHUTDOWN"),
        Kind::PodDeleted => kubectl(&["delete", "pod", &pod_of(member)?.name, "--wait=false"]),
        Kind::PodForceDeleted => force_delete(lab, member),
        Kind::PodEvicted => {
            let pod = &pod_of(member)?.name;
            let eviction = json!({
                "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace},
            });
            let path = format!("--raw=/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
            lab.bed()
                .kubectl_with_input(&["create", &path, "--filename=-"], &eviction.to_string())?;
            Ok(())
        }
        Kind::ScaledToTwo => kubectl(&["scale", &deployment, "--replicas=2"]),
        Kind::RolloutRestart => kubectl(&["rollout", "restart", &deployment]),
        Kind::Annotated => {
            let pod = format!("pod/{}", pod_of(member)?.name);
            let all = [
                format!("sqledge/{name}"),
                deployment,
                format!("service/{name}"),
                format!("pvc/{name}-data"),
                pod,
            ];
            all.iter()
                .try_for_each(|object| kubectl(&["annotate", "--overwrite", object, &mark]))
        }
        Kind::LeaseAnnotated => kubectl(&["annotate", "--overwrite", &lease, &mark]),
        Kind::LeaseDeleted => kubectl(&["delete", &lease, "--wait=false"]),
        other => Err(Error::Broken(format!("{other} is not done to one database"))),
    }
}

fn force_delete(lab: &Lab, member: &Member) -> Result<()> {
    let place = format!("--namespace={}", member.instance.namespace());
    let pod = &pod_of(member)?.name;
    lab.kubectl(&[
        "delete",
        "pod",
        pod,
        &place,
        "--grace-period=0",
        "--force",
        "--wait=false",
    ])
    .map(drop)
}

/// To the guard, to all of the engine, or (to stop it) to the engine's process that serves.
fn signal(lab: &Lab, member: &Member, role: Role, signal: Signal) -> Result<()> {
    let Pod { name: pod, uid, .. } = pod_of(member)?;
    let found: Vec<_> = engines::running(lab.bed().layout().name())
        .into_iter()
        .filter(|program| program.role == role && program.pod == *uid)
        .collect();
    let chosen = if signal == Signal::STOP && role == Role::Engine {
        found.len().saturating_sub(1)
    } else {
        0
    };
    if found.is_empty() {
        return Err(Error::Broken(format!("pod {pod} runs no {role:?}").to_lowercase()));
    }
    for program in &found[chosen..] {
        program.process.signal(signal);
    }
    Ok(())
}

fn hurt_node(lab: &Lab, planned: Planned, fleet: &[Member], name: &str) -> Result<Begun> {
    let (bed, node) = (lab.bed(), lab.bed().node(name)?);
    let own = name.to_owned();
    let cut = |from: &[Peers]| bed.partition(name, from).map(|()| Undo::Heal(own.clone()));
    let hit = on_nodes(fleet, &[name]);
    let (mut what, mut only) = (format!("node {name}"), None);
    let undo = match planned.kind {
        Kind::NodeDrained => Undo::Uncordon(own, drain(lab, name)?),
        Kind::NodePowerOff | Kind::NodePowerBlip => {
            node.power_off()?;
            Undo::PowerOn(vec![own])
        }
        Kind::NodePowerOffSlowDetach => {
            let volumes: Vec<String> = hit.iter().map(|at| fleet[*at].volume.clone()).collect();
            for volume in &volumes {
                bed.storage(&["mode", volume, SLOW])?;
            }
            node.power_off()?;
            Undo::PowerOnAndDetach(own, volumes)
        }
        Kind::CutFromApi => cut(&[Peers::Api])?,
        Kind::CutFromStorage => cut(&[Peers::Storage])?,
        Kind::CutFromClients => cut(&[Peers::Clients])?,
        Kind::CutFromNodes => cut(&[Peers::Nodes])?,
        Kind::CutFromAll => cut(&[Peers::Api, Peers::Storage, Peers::Clients, Peers::Nodes])?,
        Kind::NodePaused | Kind::NodePausedShortly => {
            node.pause()?;
            Undo::Resume(own)
        }
        Kind::KubeletStopped => {
            node.stop_service("kubelet")?;
            Undo::Service(own, "kubelet")
        }
        Kind::RuntimeStopped => {
            node.stop_service("containerd")?;
            Undo::Service(own, "containerd")
        }
        Kind::ForceDeletedKubeletRestarted | Kind::ForceDeletedRuntimeRestarted => {
            let service = if planned.kind == Kind::ForceDeletedKubeletRestarted {
                "kubelet"
            } else {
                "containerd"
            };
            // before the deletion, so that it surely has not heard of it
            node.stop_service(service)?;
            let member = &fleet[planned.instance];
            what = format!("{}, {service} of node {name}", member.name());
            only = Some(planned.instance);
            if let Err(error) = force_delete(lab, member) {
                node.start_service(service)?;
                return Err(error);
            }
            Undo::Service(own, service)
        }
        other => return Err(Error::Broken(format!("{other} is not done to one node"))),
    };
    Ok(Begun {
        what,
        hit: only.map_or(hit, |only| vec![only]),
        nodes: vec![name.to_owned()],
        undo,
    })
}

/// Begins to drain, as an administrator would.
fn drain(lab: &Lab, node: &str) -> Result<Child> {
    let mut command = lab.bed().command("cp")?;
    command.arg(lab.bed().layout().tool("kubectl"));
    command.args([
        "drain",
        node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--timeout=90s",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(Error::file("start", "kubectl drain"))
}

/// Yields whom it hit.
fn hurt_control(lab: &Lab, kind: Kind) -> Result<String> {
    let kill = |namespace: &str, pod: &str| {
        let place = format!("--namespace={namespace}");
        lab.kubectl(&[
            "delete",
            "pod",
            pod,
            &place,
            "--grace-period=0",
            "--force",
            "--wait=false",
        ])
    };
    match kind {
        Kind::OperatorLeaderKilled => {
            let leader = operator::leader(lab)?;
            kill(operator::NAMESPACE, &leader)?;
            Ok(leader)
        }
        Kind::OperatorKilled => {
            operator::kill_all(lab)?;
            Ok("all replicas".to_owned())
        }
        Kind::AttacherKilled => {
            let lease = lab.get(
                "lease",
                "test-storage",
                "external-attacher-leader-revoking-storage-test",
            )?;
            let holder = lease
                .as_ref()
                .and_then(|lease| lease["spec"]["holderIdentity"].as_str());
            let holder = holder.ok_or_else(|| Error::Broken("no attacher leads now".to_owned()))?;
            kill("test-storage", holder)?;
            Ok(holder.to_owned())
        }
        other => Err(Error::Broken(format!(
            "{other} is not done to a part of the control plane"
        ))),
    }
}

impl Undo {
    /// Ends the cause; yields what is wrong with how it went. May be called again after an error.
    pub fn end(&mut self, lab: &Lab) -> Result<Option<String>> {
        let bed = lab.bed();
        match self {
            Self::Nothing => {}
            Self::PowerOn(nodes) => nodes.iter().try_for_each(|node| power_on(lab, node))?,
            Self::PowerOnAndDetach(node, volumes) => {
                for volume in volumes.iter() {
                    bed.storage(&["mode", volume, "revoke"])?;
                }
                power_on(lab, node)?;
            }
            Self::Heal(node) => bed.heal(Some(node.as_str()))?,
            Self::Resume(node) => bed.node(node)?.resume()?,
            Self::Service(node, service) => bed.node(node)?.start_service(service)?,
            Self::Uncordon(node, drain) => {
                let ended = drain.try_wait().map_err(Error::file("wait for", "kubectl drain"))?;
                if ended.is_none() {
                    let _ = drain.kill();
                    let _ = drain.wait();
                }
                lab.kubectl(&["uncordon", node])?;
                if ended.is_none_or(|status| !status.success()) {
                    return Ok(Some(format!("the drain of node {node} did not come to its end")));
                }
            }
            Self::Api => bed.start_api()?,
        }
        Ok(None)
    }
}

fn power_on(lab: &Lab, node: &str) -> Result<()> {
    let node = lab.bed().node(node)?;
    if node.first_process().is_none() {
        node.power_on()?;
    }
    Ok(())
}
