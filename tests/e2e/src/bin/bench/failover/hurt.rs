//! The faults, done to a database that serves.

use std::collections::BTreeSet;

use e2e::{Lab, Result};
use testbed::Peers;

use crate::subject::{Serving, Subject};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL to all processes of the engine.
    EngineKilled,
    /// SIGSTOP to the process that serves.
    EngineHung,
    /// `kubectl delete pod`.
    PodDeleted,
    /// `kubectl drain`.
    Drain,
    /// All that runs on the node ends at once.
    NodePowerOff,
    /// The node is cut from API server, storage, clients and other nodes.
    NodePartitioned,
    /// All processes of the node stop where they are.
    NodePaused,
}

impl Fault {
    /// All, in the order in which they are measured.
    pub const ALL: [Self; 7] = [
        Self::EngineKilled,
        Self::EngineHung,
        Self::PodDeleted,
        Self::Drain,
        Self::NodePowerOff,
        Self::NodePartitioned,
        Self::NodePaused,
    ];

    /// As it stands in the result.
    pub fn name(self) -> &'static str {
        match self {
            Self::EngineKilled => "engine-killed",
            Self::EngineHung => "engine-hung",
            Self::PodDeleted => "pod-deleted",
            Self::Drain => "drain",
            Self::NodePowerOff => "node-power-off",
            Self::NodePartitioned => "node-partitioned",
            Self::NodePaused => "node-paused",
        }
    }

    /// Whether the guard puts it right within the container.
    pub fn is_of_the_engine(self) -> bool {
        matches!(self, Self::EngineKilled | Self::EngineHung)
    }

    /// Whether it is done to a node, and so to everything on it.
    pub fn is_of_a_node(self) -> bool {
        match self {
            Self::EngineKilled | Self::EngineHung | Self::PodDeleted => false,
            Self::Drain | Self::NodePowerOff | Self::NodePartitioned | Self::NodePaused => true,
        }
    }

    /// Whether the machine goes on, or may, without having started again when it is back.
    pub fn leaves_the_machine_on(self) -> bool {
        matches!(self, Self::NodePartitioned | Self::NodePaused)
    }

    /// Does it to one database, or to its node.
    pub fn hurt(self, subject: &Subject, serving: &Serving) -> Result<()> {
        match self {
            Self::EngineKilled => subject.kill_engine(serving),
            Self::EngineHung => subject.hang_engine(serving),
            Self::PodDeleted => subject.delete_pod(serving),
            Self::Drain | Self::NodePowerOff | Self::NodePartitioned | Self::NodePaused => {
                self.hurt_node(subject.lab, &serving.node)
            }
        }
    }

    /// Does it to a node; what is not done to nodes does nothing.
    pub fn hurt_node(self, lab: &Lab, node: &str) -> Result<()> {
        let bed = lab.bed();
        match self {
            Self::EngineKilled | Self::EngineHung | Self::PodDeleted => {}
            Self::Drain => {
                let limits = [
                    "--ignore-daemonsets",
                    "--delete-emptydir-data",
                    "--force",
                    "--timeout=120s",
                ];
                lab.kubectl(&[&["drain", node], &limits[..]].concat())?;
            }
            Self::NodePowerOff => bed.node(node)?.power_off()?,
            Self::NodePartitioned => {
                bed.partition(node, &[Peers::Api, Peers::Storage, Peers::Clients, Peers::Nodes])?;
            }
            Self::NodePaused => bed.node(node)?.pause()?,
        }
        Ok(())
    }
}

/// The nodes of several databases.
pub fn nodes(serving: &[Serving]) -> BTreeSet<&str> {
    serving.iter().map(|it| it.node.as_str()).collect()
}
