//! What the failover decision is taken on: plain facts about one volume, the pods that want it and the nodes that may still hold it.
//! Pure data; `observe` fills it, `failover` reads it. Durations come from the operator's monotonic clock and never from
//! comparing the clocks of two machines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cluster::Judged;
use crate::driver_class::DriverClass;
use crate::lease::{self, After, Hold};
use crate::rules::{Rule, Rules};
use crate::settings::Timing;

/// Everything that bears on "may the volume change hands".
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// The claim and the durable record on it.
    pub claim: Claim,
    /// The volume behind the claim, once bound.
    pub volume: Option<Volume>,
    /// Every pod of the namespace that mentions the claim, ours or not.
    pub pods: Vec<PodFacts>,
    /// Attachments of the volume, to any node.
    pub attachments: Vec<Attachment>,
    /// All nodes by name.
    pub nodes: BTreeMap<String, NodeFacts>,
    /// The operator's own login at the running pod.
    pub login: Login,
    /// `sqledge.io/confirm-node-dead` of the resource: a pod UID.
    pub confirmed_dead: Option<String>,
    /// Whether the operator may shrink `volumesInUse` of a dead node.
    pub fast_detach: bool,
    /// For how long the targeted detach of this failover has been under way, by the record in the status.
    pub detaching_for: Option<Duration>,
    /// The instance's Lease; `None` where there is no guard (or none yet).
    pub lease: Option<LeaseFacts>,
    /// What the resource asks of a failover.
    pub policy: Policy,
    /// The figures of the rules.
    pub timing: Timing,
}

/// The instance's Lease as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFacts {
    /// Identity, as judged.
    pub judged: Judged,
    /// What it says.
    pub record: lease::Record,
    /// For how long it has been seen unchanged.
    pub unchanged: Duration,
}

/// What the resource asks of a failover (`spec.failover`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What counts as a proof.
    pub proof: Proof,
    /// `lease: Always`: an instance whose Lease has expired is moved although its database answers the operator.
    pub moves_while_it_answers: bool,
}

/// What counts as a proof that an old instance can write no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// All but `LeaseExpired` (the table in [`crate::failover`]).
    #[default]
    Storage,
    /// `LeaseExpired`, too: a guard that had promised to stop and did not renew. It says nothing about a machine that was paused and wakes.
    Lease,
    /// `NodeReleased`, `NodeGone` and `ConfirmedDead` only.
    Manual,
}

/// What the Lease says about the pod of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// There is no Lease.
    NoLease,
    /// Its guard may take it and has not.
    NotTaken,
    /// Its guard has it and owes no renewals: nothing follows from silence.
    Unpromised,
    /// Its guard has it and renewed it in time; so long remains until that would not be true any more.
    Renewed(Duration),
    /// Its guard has it, owed a renewal and did not write it.
    Expired {
        /// It had promised to stop by itself.
        stopped: bool,
    },
    /// Its guard acknowledged an orderly stop.
    Stopped,
    /// It was taken from this pod.
    Sealed(After),
    /// It is for no pod, or for another one.
    Others,
}

/// The claim and what it says about who was last let at the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent facts, each read by its name
pub struct Claim {
    /// Name, for messages.
    pub name: String,
    /// Whether there is such a claim; without it nothing can be recorded.
    pub exists: bool,
    /// `ReadWriteOncePod`: one pod at a time, enforced by scheduler and kubelet.
    pub exclusive: bool,
    /// The last pod that was let at the volume.
    pub holder: Option<Holder>,
    /// The holder's node is a machine of a cloud provider: then its Node object goes only when the machine is gone.
    pub holder_node_is_provided: bool,
    /// The kubelet reported every container of the holder as ended, before the pod's object went.
    pub holder_stopped: bool,
    /// Nodes that were lost, up to the holder's record: see [`Scene::lost_nodes`].
    pub avoid: Vec<String>,
    /// Their boot IDs when they were lost ([`NodeFacts::boot`]), as far as they are known; empty for one that did not have the volume, so that nothing
    /// was taken off its list.
    pub boots: BTreeMap<String, String>,
    /// A node that a pinned pod could not be placed on; it is not tried again for this holder.
    pub pin_refused: Option<String>,
}

/// The durable record of the pod that may have the volume mounted; kept on the claim, so that it outlives pod, resource and operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// UID of the pod whose gate was opened.
    pub pod: String,
    /// The node it runs on or is pinned to; `None` until it is bound.
    pub node: Option<String>,
}

/// The volume behind the claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Name of the `PersistentVolume`.
    pub name: String,
    /// CSI driver, if it is a CSI volume.
    pub driver: Option<String>,
    /// Whether it is attached to nodes at all: only then do `volumesInUse` and attachments say anything about it.
    pub attachable: bool,
    /// What the driver's detach proves.
    pub class: DriverClass,
    /// Its name in `status.volumesInUse` and `status.volumesAttached`.
    pub unique_name: Option<String>,
}

/// A pod that mentions the claim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent facts, each read by its name
pub struct PodFacts {
    /// Identity, as judged.
    pub judged: Judged,
    /// Made from our Deployment's template.
    pub ours: bool,
    /// Our scheduling gate is still shut: the pod never ran.
    pub gated: bool,
    /// Its engine runs under a guard, which does not start it without the Lease.
    pub guarded: bool,
    /// The node it is bound to.
    pub node: Option<String>,
    /// A deletion has been asked for.
    pub deleting: bool,
    /// Phase Succeeded or Failed.
    pub finished: bool,
    /// The host name our pin asks for.
    pub pinned: bool,
    /// What the scheduler says if it finds no node.
    pub unschedulable: Option<String>,
    /// For how long it has been saying so.
    pub unschedulable_for: Duration,
    /// Something else keeps the object after its deletion.
    pub has_finalizers: bool,
    /// The nodes that it was kept off when its gate was opened.
    pub avoids: Vec<String>,
    /// `nodeSelector` of the pod.
    pub node_selector: BTreeMap<String, String>,
}

/// A `VolumeAttachment` of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Identity, as judged.
    pub judged: Judged,
    /// The node it names.
    pub node: String,
    /// A detach is under way.
    pub deleting: bool,
    /// What the driver last said to a detach.
    pub detach_error: Option<String>,
}

/// A node as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent facts, each read by its name
pub struct NodeFacts {
    /// Identity, as judged.
    pub judged: Judged,
    /// For how long the node's own Lease has been seen unchanged; `None` if it has no Lease.
    pub lease_unchanged: Option<Duration>,
    /// The operator has seen the Lease change at least once since it started.
    pub lease_renewed: bool,
    /// The Lease was renewed at least once after the holder's pod object was seen gone.
    pub renewed_since_release: bool,
    /// Its kubelet has written its status after the holder's pod object was seen gone: it is back, and nothing is taken off its list any more. That
    /// what was taken off is listed again it does not say; see [`Scene::has_settled`].
    pub reported_since_release: bool,
    /// Boot ID (`status.nodeInfo.bootID`): another one after each start of the machine.
    pub boot: Option<String>,
    /// For how long the operator has heard this node without a break, seen it on the claim's list of lost nodes, and seen its own list without the
    /// volume.
    pub unlisted_for: Duration,
    /// Condition Ready.
    pub ready: NodeReady,
    /// Neither cordoned nor tainted against new pods.
    pub schedulable: bool,
    /// `node.kubernetes.io/out-of-service`: a human or a remediation says that it is off.
    pub out_of_service: bool,
    /// It has a `spec.providerID`.
    pub is_provided: bool,
    /// Labels, to judge whether a pod fits.
    pub labels: BTreeMap<String, String>,
    /// `status.volumesInUse`, in order.
    pub volumes_in_use: Vec<String>,
    /// `status.volumesAttached`.
    pub volumes_attached: Vec<String>,
}

/// Condition Ready of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeReady {
    /// The kubelet says so.
    True,
    /// The kubelet says it is not.
    False,
    /// The control plane has not heard from the kubelet for its grace period.
    Unknown,
}

/// The operator's own login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Nothing to log in to, or not tried.
    NotTried,
    /// Succeeded.
    Succeeded,
    /// The engine lives, and the password is not the one on this volume.
    WrongPassword,
    /// The engine lives, but lets nobody in yet; its own words.
    NotYet(String),
    /// No answer.
    Failed(String),
}

impl Claim {
    /// Whether the node is one of those that were lost.
    pub fn has_lost(&self, node: &str) -> bool {
        self.avoid.iter().any(|lost| lost == node)
    }
}

impl Scene {
    /// The state of a node's heartbeat.
    pub fn pulse(&self, node: &str) -> Pulse {
        let Some(facts) = self.nodes.get(node) else {
            return Pulse::Gone;
        };
        match facts.lease_unchanged {
            Some(unchanged) if unchanged >= self.timing.node_lease_stale => Pulse::Silent,
            // a renewal seen with our own eyes outweighs a condition that the control plane has not corrected yet
            Some(_) if facts.lease_renewed => Pulse::Alive,
            _ if facts.ready == NodeReady::Unknown => Pulse::Silent,
            _ => Pulse::Alive,
        }
    }

    /// What the Lease says about a pod.
    pub fn right(&self, pod: &str, rules: Rules) -> Right {
        let Some(lease) = &self.lease else {
            return Right::NoLease;
        };
        match &lease.record.hold {
            Hold::Sealed(Some(seal)) if seal.pod == pod || !rules.has(Rule::SealNamesTheHolder) => {
                Right::Sealed(seal.after)
            }
            Hold::Named(named) if named == pod => Right::NotTaken,
            Hold::Stopped(stopped) if stopped == pod => Right::Stopped,
            Hold::Taken { pod: holder, .. } if holder == pod => {
                let Some(promise) = lease.record.promise else {
                    return Right::Unpromised;
                };
                let left = promise.takeover_after.saturating_sub(lease.unchanged);
                if left.is_zero() || !rules.has(Rule::WaitForExpiry) {
                    Right::Expired {
                        stopped: promise.stops_after.is_some(),
                    }
                } else {
                    Right::Renewed(left)
                }
            }
            Hold::Sealed(_) | Hold::Named(_) | Hold::Stopped(_) | Hold::Taken { .. } | Hold::Foreign(_) => {
                Right::Others
            }
        }
    }

    /// What a detach of the volume proves.
    pub fn driver_class(&self) -> DriverClass {
        self.volume.as_ref().map_or(DriverClass::Unknown, |v| v.class)
    }

    /// Whether the volume is one that nodes attach; one in the tree that was migrated to CSI shows it by an attachment.
    pub fn is_attachable(&self) -> bool {
        !self.attachments.is_empty() || self.volume.as_ref().is_some_and(|v| v.attachable)
    }

    /// Nodes without a heartbeat.
    pub fn silent_nodes(&self) -> Vec<&str> {
        self.nodes
            .keys()
            .map(String::as_str)
            .filter(|name| self.pulse(name) == Pulse::Silent)
            .collect()
    }

    /// Nodes on which an earlier engine may still run, although it can write no more: a pod that is placed there would give it the volume back.
    /// One that was lost stays lost until it was heard of again without the volume, and for so long that this is its own word, however many pods were
    /// let in meanwhile.
    pub fn lost_nodes(&self) -> Vec<String> {
        let holder = self.claim.holder.as_ref().and_then(|holder| holder.node.as_deref());
        let holder = holder.filter(|node| self.pulse(node) != Pulse::Alive);
        let earlier = self.claim.avoid.iter().map(String::as_str);
        let earlier = earlier.filter(|node| !self.is_back(node) || !self.has_settled(node));
        let lost: BTreeSet<&str> = self.silent_nodes().into_iter().chain(holder).chain(earlier).collect();
        lost.into_iter().map(str::to_owned).collect()
    }

    /// Whether it is written down of a node that it was lost with the volume, and in this start of its machine: only then may the volume be taken off
    /// its list. Where no boot ID was noted, every start counts as that one.
    pub fn is_marked(&self, node: &str) -> bool {
        let now = self.nodes.get(node).and_then(|facts| facts.boot.as_deref());
        let noted = self.claim.boots.get(node).map(String::as_str);
        self.claim.has_lost(node) && noted.is_none_or(|noted| !noted.is_empty() && now == Some(noted))
    }

    /// Whether what a lost node lists as in use is its kubelet's own word, although the operator took the volume off that list. A kubelet sends only what
    /// differs from the Node object in its own cache (Kubernetes 1.34, `tryUpdateNodeStatus`), and that may be the one of before: what it writes first
    /// after a silence leaves our list as it is. Once its cache has caught up it lists what is still mounted within 10 s. A machine that has started
    /// again since runs nothing of before, and from a node that did not have the volume nothing was taken.
    pub fn has_settled(&self, node: &str) -> bool {
        let Some(facts) = self.nodes.get(node) else {
            return false;
        };
        let noted = self.claim.boots.get(node).map(String::as_str);
        let has_restarted = noted.zip(facts.boot.as_deref()).is_some_and(|(then, now)| then != now);
        noted == Some("")
            || has_restarted
            || facts.ready != NodeReady::Unknown && facts.unlisted_for >= self.timing.node_settled
    }

    /// A node that was lost lives, and no earlier engine has the volume there.
    pub fn is_back(&self, node: &str) -> bool {
        self.pulse(node) == Pulse::Alive && !self.in_use(node) && self.attachment(node).is_none()
    }

    /// Whether the node says that the volume is in use.
    pub fn in_use(&self, node: &str) -> bool {
        let Some(unique) = self.volume.as_ref().and_then(|v| v.unique_name.as_ref()) else {
            return false;
        };
        self.nodes.get(node).is_some_and(|n| n.volumes_in_use.contains(unique))
    }

    /// The attachment to that node, if there is one.
    pub fn attachment(&self, node: &str) -> Option<&Attachment> {
        self.attachments.iter().find(|a| a.node == node)
    }

    /// Whether the control plane still counts the volume as attached to that node.
    pub fn attached_by_status(&self, node: &str) -> bool {
        let Some(unique) = self.volume.as_ref().and_then(|v| v.unique_name.as_ref()) else {
            return false;
        };
        self.nodes
            .get(node)
            .is_some_and(|n| n.volumes_attached.contains(unique))
    }
}

/// Whether a node gives signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// Its Lease changes.
    Alive,
    /// Its Lease has not changed for the time that makes it suspect, or the control plane calls it Unknown.
    Silent,
    /// There is no such Node object.
    Gone,
}
