//! The faults: what each is called, what it takes, and how long it lasts. Pure.

use std::fmt;

use serde::{Serialize, Serializer};

/// A fault of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL to the engine's processes.
    EngineKilled,
    /// SIGSTOP to the process that serves.
    EngineHung,
    /// T-SQL `SHUTDOWN`: exit code 0.
    EngineShutDown,
    /// `kubectl delete pod`.
    PodDeleted,
    /// The same with `--force --grace-period=0`.
    PodForceDeleted,
    /// The same, and the kubelet dies before it hears of it, for a moment.
    ForceDeletedKubeletRestarted,
    /// The same with the container runtime.
    ForceDeletedRuntimeRestarted,
    /// By the eviction interface.
    PodEvicted,
    /// `kubectl scale --replicas=2`.
    ScaledToTwo,
    /// `kubectl rollout restart`.
    RolloutRestart,
    /// `kubectl annotate` of everything that belongs to the instance.
    Annotated,
    /// SIGKILL to the guard.
    GuardKilled,
    /// SIGSTOP to the guard.
    GuardHung,
    /// `kubectl annotate lease`.
    LeaseAnnotated,
    /// `kubectl delete lease`.
    LeaseDeleted,
    /// `kubectl drain`.
    NodeDrained,
    /// All processes vanish; power comes back after the failover.
    NodePowerOff,
    /// The same, and power comes back before anybody acts.
    NodePowerBlip,
    /// The same while the storage takes its time over the detach.
    NodePowerOffSlowDetach,
    /// Cut off from the API server only.
    CutFromApi,
    /// Cut off from storage only, shortly.
    CutFromStorage,
    /// Cut off from the clients only, shortly.
    CutFromClients,
    /// Cut off from other nodes only.
    CutFromNodes,
    /// Cut off from everything, until after the failover.
    CutFromAll,
    /// All processes stopped, until after the failover.
    NodePaused,
    /// All processes stopped for less than a detection.
    NodePausedShortly,
    /// The kubelet is dead for a while.
    KubeletStopped,
    /// The container runtime is dead for a while.
    RuntimeStopped,
    /// Two nodes lose power at once.
    TwoNodesLost,
    /// The operator's leading replica dies.
    OperatorLeaderKilled,
    /// All replicas of the operator die.
    OperatorKilled,
    /// The attacher's leader dies.
    AttacherKilled,
    /// The API server is away for a minute.
    ApiDown,
}

/// What a fault is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One instance; the cluster stays whole.
    Instance,
    /// The node that one instance is on, with all others on it.
    Node,
    /// Two nodes.
    TwoNodes,
    /// Parts of the cluster that are replaced by themselves.
    Control,
    /// The API server.
    Api,
}

/// How long the cause stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It is an instant.
    None,
    /// So many seconds.
    Seconds(u64),
    /// Until all that were hit serve again, at most so many seconds.
    UntilServed(u64),
}

/// One round of faults: every kind once, those that are most telling twice.
pub const ROUND: [Kind; 41] = [
    Kind::EngineKilled,
    Kind::EngineKilled,
    Kind::EngineHung,
    Kind::EngineShutDown,
    Kind::PodDeleted,
    Kind::PodDeleted,
    Kind::PodForceDeleted,
    Kind::PodForceDeleted,
    Kind::ForceDeletedKubeletRestarted,
    Kind::ForceDeletedRuntimeRestarted,
    Kind::PodEvicted,
    Kind::ScaledToTwo,
    Kind::RolloutRestart,
    Kind::Annotated,
    Kind::GuardKilled,
    Kind::GuardKilled,
    Kind::GuardHung,
    Kind::LeaseAnnotated,
    Kind::LeaseDeleted,
    Kind::NodeDrained,
    Kind::NodeDrained,
    Kind::NodePowerOff,
    Kind::NodePowerOff,
    Kind::NodePowerOff,
    Kind::NodePowerBlip,
    Kind::NodePowerOffSlowDetach,
    Kind::CutFromApi,
    Kind::CutFromStorage,
    Kind::CutFromClients,
    Kind::CutFromNodes,
    Kind::CutFromAll,
    Kind::CutFromAll,
    Kind::NodePaused,
    Kind::NodePaused,
    Kind::NodePausedShortly,
    Kind::KubeletStopped,
    Kind::RuntimeStopped,
    Kind::TwoNodesLost,
    Kind::OperatorLeaderKilled,
    Kind::OperatorKilled,
    Kind::AttacherKilled,
];

impl Kind {
    /// As it stands in the result.
    pub fn name(self) -> &'static str {
        match self {
            Self::EngineKilled => "engine-killed",
            Self::EngineHung => "engine-hung",
            Self::EngineShutDown => "engine-shut-down",
            Self::PodDeleted => "pod-deleted",
            Self::PodForceDeleted => "pod-force-deleted",
            Self::ForceDeletedKubeletRestarted => "pod-force-deleted-kubelet-restarted",
            Self::ForceDeletedRuntimeRestarted => "pod-force-deleted-runtime-restarted",
            Self::PodEvicted => "pod-evicted",
            Self::ScaledToTwo => "scaled-to-two",
            Self::RolloutRestart => "rollout-restart",
            Self::Annotated => "annotated",
            Self::GuardKilled => "guard-killed",
            Self::GuardHung => "guard-hung",
            Self::LeaseAnnotated => "lease-annotated",
            Self::LeaseDeleted => "lease-deleted",
            Self::NodeDrained => "node-drained",
            Self::NodePowerOff => "node-power-off",
            Self::NodePowerBlip => "node-power-blip",
            Self::NodePowerOffSlowDetach => "node-power-off-slow-detach",
            Self::CutFromApi => "cut-from-api",
            Self::CutFromStorage => "cut-from-storage",
            Self::CutFromClients => "cut-from-clients",
            Self::CutFromNodes => "cut-from-nodes",
            Self::CutFromAll => "cut-from-all",
            Self::NodePaused => "node-paused",
            Self::NodePausedShortly => "node-paused-shortly",
            Self::KubeletStopped => "kubelet-stopped",
            Self::RuntimeStopped => "runtime-stopped",
            Self::TwoNodesLost => "two-nodes-lost",
            Self::OperatorLeaderKilled => "operator-leader-killed",
            Self::OperatorKilled => "operator-killed",
            Self::AttacherKilled => "attacher-leader-killed",
            Self::ApiDown => "api-down",
        }
    }

    /// The fault of this name.
    pub fn named(name: &str) -> Option<Self> {
        ROUND
            .into_iter()
            .chain([Self::ApiDown])
            .find(|kind| kind.name() == name)
    }

    /// What it is done to.
    pub fn reach(self) -> Reach {
        match self {
            Self::EngineKilled
            | Self::EngineHung
            | Self::EngineShutDown
            | Self::PodDeleted
            | Self::PodForceDeleted
            | Self::PodEvicted
            | Self::ScaledToTwo
            | Self::RolloutRestart
            | Self::Annotated
            | Self::GuardKilled
            | Self::GuardHung
            | Self::LeaseAnnotated
            | Self::LeaseDeleted => Reach::Instance,
            Self::ForceDeletedKubeletRestarted
            | Self::ForceDeletedRuntimeRestarted
            | Self::NodeDrained
            | Self::NodePowerOff
            | Self::NodePowerBlip
            | Self::NodePowerOffSlowDetach
            | Self::CutFromApi
            | Self::CutFromStorage
            | Self::CutFromClients
            | Self::CutFromNodes
            | Self::CutFromAll
            | Self::NodePaused
            | Self::NodePausedShortly
            | Self::KubeletStopped
            | Self::RuntimeStopped => Reach::Node,
            Self::TwoNodesLost => Reach::TwoNodes,
            Self::OperatorLeaderKilled | Self::OperatorKilled | Self::AttacherKilled => Reach::Control,
            Self::ApiDown => Reach::Api,
        }
    }

    /// Whether every database may stay where it is, in the pod it has.
    pub fn moves_nothing(self) -> bool {
        matches!(
            self,
            Self::Annotated
                | Self::LeaseAnnotated
                | Self::LeaseDeleted
                | Self::ScaledToTwo
                | Self::KubeletStopped
                | Self::EngineKilled
                | Self::EngineHung
                | Self::EngineShutDown
        )
    }

    /// How long its cause stays.
    pub fn hold(self) -> Hold {
        match self {
            // the drain itself takes as long as it takes; the node is opened again afterwards
            Self::NodeDrained | Self::NodePowerOff | Self::CutFromAll | Self::NodePaused => Hold::UntilServed(90),
            Self::NodePowerOffSlowDetach => Hold::UntilServed(120),
            Self::ForceDeletedKubeletRestarted | Self::ForceDeletedRuntimeRestarted => Hold::Seconds(3),
            Self::NodePowerBlip | Self::NodePausedShortly => Hold::Seconds(5),
            // shorter than the storage host's patience with a silent node (30 s): longer, and the volume has to be mounted anew
            Self::CutFromStorage | Self::CutFromClients => Hold::Seconds(12),
            Self::CutFromNodes => Hold::Seconds(25),
            Self::CutFromApi | Self::KubeletStopped | Self::RuntimeStopped => Hold::Seconds(30),
            Self::TwoNodesLost => Hold::Seconds(40),
            Self::ApiDown => Hold::Seconds(60),
            Self::EngineKilled
            | Self::EngineHung
            | Self::EngineShutDown
            | Self::PodDeleted
            | Self::PodForceDeleted
            | Self::PodEvicted
            | Self::ScaledToTwo
            | Self::RolloutRestart
            | Self::Annotated
            | Self::GuardKilled
            | Self::GuardHung
            | Self::LeaseAnnotated
            | Self::LeaseDeleted
            | Self::OperatorLeaderKilled
            | Self::OperatorKilled
            | Self::AttacherKilled => Hold::None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
