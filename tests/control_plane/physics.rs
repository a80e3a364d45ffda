//! What is really so, whatever the API says: which machines have power, which containers run, which node the storage lets write.
//! Pure data; the rest of the cluster changes it, the invariants and the door read it.

use std::collections::{BTreeMap, BTreeSet};

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// It has power; without, nothing runs on it.
    pub power: bool,
    /// Its kubelet reaches the API server.
    pub api: bool,
    /// The operator reaches its pods.
    pub reachable: bool,
}

impl Machine {
    /// As a machine should be.
    pub const WELL: Self = Self {
        power: true,
        api: true,
        reachable: true,
    };
    /// Without power.
    pub const OFF: Self = Self {
        power: false,
        api: false,
        reachable: false,
    };
    /// Cut off from everything, with everything on it alive.
    pub const CUT: Self = Self {
        power: true,
        api: false,
        reachable: false,
    };
    /// Only its kubelet is cut off; clients and operator reach its pods.
    pub const DEAF: Self = Self {
        power: true,
        api: false,
        reachable: true,
    };
    /// Well, but for the operator, which does not reach its pods.
    pub const HIDDEN: Self = Self {
        power: true,
        api: true,
        reachable: false,
    };

    /// Whether its Lease is renewed.
    pub fn beats(self) -> bool {
        self.power && self.api
    }
}

/// A running engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub node: String,
    pub address: String,
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
#[derive(Clone, Debug)]
pub struct Physics {
    pub machines: BTreeMap<String, Machine>,
    /// By UID of the pod.
    pub containers: BTreeMap<String, Container>,
    /// Nodes that the storage lets write.
    pub exports: BTreeSet<String>,
    pub detach: Detach,
    /// Pods, by UID, whose kubelet has stopped and unmounted them, or that never had a node.
    pub ended: BTreeSet<String>,
    /// Containers that end only when the test says so: an engine may take its time to stop.
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
            .filter(|(_, container)| self.exports.contains(&container.node))
    }
}
