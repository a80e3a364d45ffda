//! What is really so, whatever the API says: which machines have power, which containers run, which node the storage lets write.
//! Pure data; the rest of the cluster changes it, the invariants and the door read it.

use std::collections::{BTreeMap, BTreeSet};

use crate::guards::Keeper;

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent facts, each read by its name
pub struct Machine {
    /// It has power; without, nothing runs on it.
    pub power: bool,
    /// What runs on it reaches the API server.
    pub api: bool,
    /// Its kubelet runs.
    pub kubelet: bool,
    /// The operator reaches its pods.
    pub reachable: bool,
}

impl Machine {
    /// As a machine should be.
    pub const WELL: Self = Self {
        power: true,
        api: true,
        kubelet: true,
        reachable: true,
    };
    /// Without power.
    pub const OFF: Self = Self {
        power: false,
        api: false,
        kubelet: false,
        reachable: false,
    };
    /// Cut off from everything, with everything on it alive.
    pub const CUT: Self = Self {
        power: true,
        api: false,
        kubelet: true,
        reachable: false,
    };
    /// Only its way to the API server is cut off; clients and operator reach its pods.
    pub const DEAF: Self = Self {
        power: true,
        api: false,
        kubelet: true,
        reachable: true,
    };
    /// Well, but for the operator, which does not reach its pods.
    pub const HIDDEN: Self = Self {
        power: true,
        api: true,
        kubelet: true,
        reachable: false,
    };

    /// Its kubelet has died and the operator does not reach its pods, which run on.
    pub const LEFT_ALONE: Self = Self {
        power: true,
        api: true,
        kubelet: false,
        reachable: false,
    };

    /// Whether its Lease is renewed.
    pub fn beats(self) -> bool {
        self.reaches_api() && self.kubelet
    }

    /// Whether the guards on it reach the API server.
    pub fn reaches_api(self) -> bool {
        self.power && self.api
    }
}

/// A container of a pod, with the volume mounted.
#[derive(Debug)]
pub struct Container {
    /// As the kubelet calls it.
    pub id: String,
    pub node: String,
    pub address: String,
    /// Its engine runs.
    pub engine: bool,
    /// Process 1, if that is a guard.
    pub keeper: Option<Keeper>,
}

/// What the storage does when it is told to take a volume from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detach {
    /// The node can write no more.
    Revokes,
    /// It says so, and revokes nothing.
    Lies,
    /// It refuses while the node has the volume mounted.
    Refuses,
}

/// Everything physical in a world with one volume.
#[derive(Debug)]
pub struct Physics {
    pub machines: BTreeMap<String, Machine>,
    /// By UID of the pod.
    pub containers: BTreeMap<String, Container>,
    /// Nodes that the storage lets write.
    pub exports: BTreeSet<String>,
    pub detach: Detach,
    /// Pods, by UID, whose kubelet has stopped and unmounted them, or that never had a node.
    pub ended: BTreeSet<String>,
    /// Containers in which nothing happens until the test says so: an engine may take its time to stop, and all of it may hang.
    pub slow_to_end: BTreeSet<String>,
    /// Nodes that a human or the cloud has, truly, called dead.
    pub confirmed: BTreeSet<String>,
}

impl Physics {
    pub fn new(detach: Detach) -> Self {
        Self {
            machines: BTreeMap::new(),
            containers: BTreeMap::new(),
            exports: BTreeSet::new(),
            detach,
            ended: BTreeSet::new(),
            slow_to_end: BTreeSet::new(),
            confirmed: BTreeSet::new(),
        }
    }

    pub fn machine(&self, node: &str) -> Machine {
        self.machines.get(node).copied().unwrap_or(Machine::OFF)
    }

    /// Changes a machine; without power nothing runs on it any more.
    pub fn set_machine(&mut self, node: &str, machine: Machine) {
        self.machines.insert(node.to_owned(), machine);
        if !machine.power {
            self.containers.retain(|_, container| container.node != node);
        }
    }

    /// Containers whose writes reach the volume at this moment.
    pub fn writing(&self) -> impl Iterator<Item = (&String, &Container)> {
        self.containers
            .iter()
            .filter(|(_, container)| container.engine && self.exports.contains(&container.node))
    }

    /// Whether the pod's engine runs.
    pub fn runs(&self, pod: &str) -> bool {
        self.containers.get(pod).is_some_and(|container| container.engine)
    }
}
