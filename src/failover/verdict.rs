//! What a decision is: state, reason, sentence, at most one act, and the proof behind it. Pure data.

use std::time::Duration;

use crate::cluster::Judged;
use crate::lease::Seal;
use crate::scene::Holder;

/// Where the instance stands between "a pod has the volume" and "the next pod has it".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A pod has the volume and nothing speaks against it.
    Running,
    /// The holder's node is silent, but a rule forbids to act yet.
    Suspect,
    /// The holder is being deleted and its node is alive: it stops in order.
    Stopping,
    /// The volume may not change hands; only a proof that is missing, or a human, ends this.
    Blocked,
    /// The Lease is being taken from the holder, so that no container of its pod may start an engine any more.
    Sealing,
    /// The holder's pod object is being removed without grace: its node is dead, or its engine has ended.
    Evicting,
    /// The pod is gone, and its node lives: it unmounts the volume, reports that, and the volume is detached as always.
    Releasing,
    /// The pod is gone; the volume is being taken from the old node.
    Detaching,
    /// The proof is there; the gate of the next pod is being opened.
    Opening,
    /// The gate is open and the pod waits for a node.
    Scheduling,
    /// There is no pod to decide about.
    Waiting,
}

/// What was decided and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The state, for the status and its phases.
    pub state: State,
    /// Condition reason, event reason and metric label.
    pub reason: &'static str,
    /// One sentence: what it waits for and until when.
    pub message: String,
    /// When to look again if nothing happens before.
    pub recheck: Duration,
    /// The one irreversible act, if any.
    pub act: Option<Act>,
    /// The proof that an opening rests on.
    pub evidence: Option<Evidence>,
}

/// The irreversible acts. Each carries what it was judged on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Write down who holds the volume, before that can be forgotten.
    Record(Holder),
    /// Write down that a pinned pod could not be placed, and delete that pod, which never ran.
    RefusePin { pod: Judged, node: String },
    /// Delete the pod without grace: its node is dead, or its engine has ended or may not run any more.
    Evict { pod: Judged },
    /// Delete the pod of a live node with its own grace, so that the kubelet reports its end before the object goes.
    Stop { pod: Judged },
    /// Write down that a node was lost, before the volume is taken from it.
    Lose { node: String },
    /// Take our entry, at that index, out of `status.volumesInUse` of a lost node.
    ShrinkVolumesInUse {
        node: Judged,
        index: usize,
        unique_name: String,
    },
    /// The fallback: delete the attachment to a lost node.
    DeleteAttachment { attachment: Judged },
    /// Take the Lease from its holder.
    Seal { lease: Judged, seal: Seal },
    /// Let the pod at the volume: first the Lease names it, where there is one that does not do so yet, then its gate opens, pinned to a host
    /// name or kept off nodes. A crash between the two leaves a Lease that is for a pod behind its gate, which harms nobody.
    OpenGate {
        pod: Judged,
        placement: Placement,
        name: Option<Judged>,
    },
}

/// Where a pod may go when its gate opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Back to the node that had the volume (value of its `kubernetes.io/hostname` label).
    Pinned(String),
    /// Anywhere but on these silent nodes, which the scheduler may not have been told about yet.
    Avoiding(Vec<String>),
}

/// The proof behind an opened gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Nobody was ever let at the volume.
    FirstStart,
    /// The pod goes back to the node whose kubelet fences it.
    PinnedRestart,
    /// The kubelet reported every container of the holder as ended.
    PodStopped,
    /// The guard acknowledged an orderly stop (E1).
    GuardStopped,
    /// A guard that had promised to stop by itself did not renew its Lease in time (E2).
    LeaseExpired,
    /// The node lives and its kubelet has unmounted the volume (E0).
    NodeReleased,
    /// The storage ended the node's access (E3).
    StorageRevoked,
    /// The machine is gone (E4).
    NodeGone,
    /// A human said that the node is off (E5).
    ConfirmedDead,
}

impl Act {
    /// Whether everything it is judged on must be read again first. Only writing down where the pod of record runs needs it not: it carries its
    /// own compare-and-swap and changes nothing that a proof rests on. Written down once more it takes back that its node was lost, which proofs
    /// do rest on.
    pub fn needs_quorum(&self, current: Option<&Holder>) -> bool {
        match self {
            Self::Record(holder) => {
                current.is_none_or(|current| current.pod != holder.pod || current.node == holder.node)
            }
            Self::OpenGate { .. }
            | Self::RefusePin { .. }
            | Self::Evict { .. }
            | Self::Stop { .. }
            | Self::ShrinkVolumesInUse { .. }
            | Self::DeleteAttachment { .. }
            | Self::Seal { .. }
            | Self::Lose { .. } => true,
        }
    }

    /// As it stands in events and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Record(_) => "Record",
            Self::RefusePin { .. } => "RefusePin",
            Self::Evict { .. } => "Evict",
            Self::Stop { .. } => "Stop",
            Self::ShrinkVolumesInUse { .. } => "ShrinkVolumesInUse",
            Self::DeleteAttachment { .. } => "DeleteAttachment",
            Self::Seal { .. } => "Seal",
            Self::Lose { .. } => "Lose",
            Self::OpenGate { .. } => "OpenGate",
        }
    }
}

impl Evidence {
    /// As it stands in the status and in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstStart => "FirstStart",
            Self::PinnedRestart => "PinnedRestart",
            Self::PodStopped => "PodStopped",
            Self::GuardStopped => "GuardStopped",
            Self::LeaseExpired => "LeaseExpired",
            Self::NodeReleased => "NodeReleased",
            Self::StorageRevoked => "StorageRevoked",
            Self::NodeGone => "NodeGone",
            Self::ConfirmedDead => "ConfirmedDead",
        }
    }
}

/// The next look while something is under way.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// The next look while nothing is expected to happen soon.
pub(super) const STEADY: Duration = Duration::from_secs(5);

pub(super) fn waiting(state: State, reason: &'static str, message: String, recheck: Duration) -> Verdict {
    Verdict {
        state,
        reason,
        message,
        recheck,
        act: None,
        evidence: None,
    }
}

pub(super) fn acting(state: State, reason: &'static str, message: String, act: Act) -> Verdict {
    Verdict {
        state,
        reason,
        message,
        recheck: SOON,
        act: Some(act),
        evidence: None,
    }
}
