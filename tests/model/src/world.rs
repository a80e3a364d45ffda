//! The state of the modelled cluster: what the API server stores, what the machines do, what is under way. Plain data of a few bytes, because
//! there are millions of them; the steps are in `steps`, the words in which the operator sees it in `sight`.

use sqledge_operator::lease::After;

/// A pod, by number. A number is used again when nothing remembers the pod.
pub type PodId = u8;
/// A node, by number.
pub type NodeId = u8;

/// So many pods may be remembered at once.
pub const PODS: usize = 4;
/// Nodes.
pub const NODES: usize = 2;

/// Object of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools)]
pub struct Pod {
    pub there: bool,
    pub ours: bool,
    pub gated: bool,
    pub deleting: bool,
    pub node: Option<NodeId>,
    pub pin: Option<NodeId>,
    pub avoids: u8,
}

/// A `VolumeAttachment`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Attachment {
    #[default]
    None,
    Attached,
    Detaching,
}

/// Who has the Lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Hold {
    #[default]
    Free,
    Sealed(PodId, After),
    Named(PodId),
    Taken(PodId, u8),
    Stopped(PodId),
}

/// The Lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lease {
    pub there: bool,
    pub hold: Hold,
    /// Ticks after which it is expired, by its holder's word; 0 if it promised nothing.
    pub promised: u8,
    pub stops: bool,
    /// Orders are the second set of the scenario.
    pub reordered: bool,
}

/// What is noted of how a lost node's machine had started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Boot {
    #[default]
    Unknown,
    /// It was lost without the volume.
    Unused,
    Number(u8),
}

/// The record on the claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claim {
    pub holder: Option<(PodId, Option<NodeId>)>,
    pub avoid: u8,
    /// How their machines had started.
    pub boots: [Boot; NODES],
    pub refused: Option<NodeId>,
}

/// What the API server stores; sets of nodes are masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Api {
    pub pods: [Pod; PODS],
    pub attachments: [Attachment; NODES],
    pub in_use: u8,
    pub status_attached: u8,
    pub objects: u8,
    pub schedulable: u8,
    /// How the machines have started, by their Node objects.
    pub boots: [u8; NODES],
    pub lease: Lease,
    pub claim: Claim,
    /// `confirm-node-dead`.
    pub word: Option<PodId>,
    /// The taint `node.kubernetes.io/out-of-service`.
    pub out_of_service: u8,
}

/// What a kubelet wants of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum View {
    #[default]
    Unknown,
    Wanted,
    Ending,
}

/// The engine's processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    #[default]
    Off,
    On,
    /// Does not answer until it is killed.
    Hung,
    /// Does not answer and cannot be killed but with its container.
    Undead,
}

/// The guard's request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Net {
    #[default]
    Idle,
    Reading,
    Sent,
    Applied,
    Refused,
}

/// A pod on its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools)]
pub struct Cell {
    pub at: NodeId,
    pub view: View,
    pub mounted: bool,
    /// Number of the guard's state, 0 for none.
    pub guard: u32,
    pub engine: Engine,
    /// Another engine has started since this one did.
    pub outdated: bool,
    /// It was told to stop.
    pub stopping: bool,
    pub net: Net,
    /// The Lease is still what the guard read last.
    pub fresh: bool,
    /// A kill is on its way: 1 in this tick, 2 since the last one.
    pub kill: u8,
    /// Counts container starts.
    pub start: u8,
}

/// The machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Power {
    #[default]
    Up,
    Off,
    /// All processes stand still; the machine keeps its memory and its device.
    Paused,
}

/// What the machine reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Link {
    #[default]
    Full,
    /// Not the API server; clients and the operator's login get through.
    NoApi,
    /// Nothing but the storage.
    Dark,
}

/// The device of the volume on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stage {
    #[default]
    None,
    Good,
    /// It was taken away while staged: an engine on it gets errors, even if the volume is attached again.
    Stale,
}

/// A node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools)]
pub struct Node {
    pub power: Power,
    pub link: Link,
    pub kubelet_stopped: bool,
    /// Only the guard is cut from the API server.
    pub guard_cut: bool,
    /// The scheduler finds no room.
    pub full: bool,
    pub stage: Stage,
    /// The storage accepts its writes.
    pub access: bool,
    /// Ticks since its own Lease was renewed.
    pub age: u8,
    /// Renewed since the pod of record was gone.
    pub heard: bool,
    /// Its status was written since then.
    pub reported: bool,
    /// Counts its starts.
    pub boot: u8,
    /// The watches of its kubelet hear nothing: after a silence they may be dead connections.
    pub deaf: bool,
    /// Its kubelet has not heard yet that the volume was taken off its list.
    pub behind: bool,
    /// The operator has heard it without a break for as long as that may take, and seen it on the claim's list and its own list without the volume.
    pub settled: bool,
}

/// What an operator is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    Record(PodId, Option<NodeId>, u8),
    RefusePin(PodId, NodeId),
    Evict(PodId),
    Shrink(NodeId),
    DeleteAttachment(NodeId),
    Seal(PodId, After),
    Lose(NodeId),
    Open {
        pod: PodId,
        pin: Option<NodeId>,
        avoids: u8,
        name: bool,
    },
}

/// An operator between its look and its act. What it looked at may have changed since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Operator {
    pub act: Option<Act>,
    /// The first write of an act of two is done.
    pub half: bool,
    /// The first object, and the second, have changed since they were judged.
    pub stale: [bool; 2],
    /// What is to be noted of the lost nodes, as it was at the look.
    pub boots: [Boot; NODES],
}

/// What must never be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Broken {
    #[default]
    No,
    /// Two writers; an acknowledged commit is lost only under the writes of another engine.
    TwoWriters,
    /// A database that served was moved or killed without need.
    Needless,
}

/// All of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct World {
    pub api: Api,
    pub cells: [Cell; PODS],
    pub nodes: [Node; NODES],
    pub operators: [Operator; 2],
    /// Ticks for which the Lease is unchanged.
    pub lease_age: u8,
    pub faults_left: u8,
    /// The operator hears of nobody.
    pub blind: bool,
    pub broken: Broken,
}

/// An object that acts are judged on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Claim,
    Lease,
    Pod(PodId),
    Node(NodeId),
    Attachment(NodeId),
}

/// All pods.
pub fn pods() -> impl Iterator<Item = PodId> {
    (0..PODS).map(|pod| u8::try_from(pod).expect("a few"))
}

/// All nodes.
pub fn nodes() -> impl Iterator<Item = NodeId> {
    (0..NODES).map(|node| u8::try_from(node).expect("a few"))
}

impl Act {
    /// What its writes are judged on, in order.
    pub fn objects(self) -> [Option<Object>; 2] {
        match self {
            Self::Record(..) | Self::Lose(_) => [Some(Object::Claim), None],
            Self::RefusePin(pod, _) => [Some(Object::Claim), Some(Object::Pod(pod))],
            Self::Evict(pod) => [Some(Object::Pod(pod)), None],
            Self::Shrink(node) => [Some(Object::Node(node)), None],
            Self::DeleteAttachment(node) => [Some(Object::Attachment(node)), None],
            Self::Seal(..) => [Some(Object::Lease), None],
            Self::Open { pod, name, .. } => [name.then_some(Object::Lease), Some(Object::Pod(pod))],
        }
    }
}

impl World {
    /// Notes a change of an object. `writer` is the guard that wrote it, if one did.
    pub fn touch(&mut self, object: Object, writer: Option<PodId>) {
        for operator in &mut self.operators {
            let Some(act) = operator.act else { continue };
            for (stale, judged) in operator.stale.iter_mut().zip(act.objects()) {
                *stale |= judged == Some(object);
            }
        }
        if object == Object::Lease {
            for pod in pods() {
                self.cells[usize::from(pod)].fresh = writer == Some(pod);
            }
        }
    }

    pub fn pod(&self, pod: PodId) -> &Pod {
        &self.api.pods[usize::from(pod)]
    }
    pub fn pod_mut(&mut self, pod: PodId) -> &mut Pod {
        &mut self.api.pods[usize::from(pod)]
    }
    pub fn cell(&self, pod: PodId) -> &Cell {
        &self.cells[usize::from(pod)]
    }
    pub fn cell_mut(&mut self, pod: PodId) -> &mut Cell {
        &mut self.cells[usize::from(pod)]
    }
    pub fn node(&self, node: NodeId) -> &Node {
        &self.nodes[usize::from(node)]
    }
    pub fn node_mut(&mut self, node: NodeId) -> &mut Node {
        &mut self.nodes[usize::from(node)]
    }
    pub fn attachment(&self, node: NodeId) -> Attachment {
        self.api.attachments[usize::from(node)]
    }

    /// Whether a container of the pod runs.
    pub fn runs(&self, pod: PodId) -> bool {
        let cell = self.cell(pod);
        cell.guard != 0 || cell.engine != Engine::Off
    }

    /// Whether the storage takes what this engine writes, now.
    pub fn can_write(&self, pod: PodId) -> bool {
        let cell = self.cell(pod);
        let node = self.node(cell.at);
        cell.engine == Engine::On && cell.mounted && node.power == Power::Up && node.access
    }

    /// Whether it does its work for clients that reach it.
    pub fn serves(&self, pod: PodId) -> bool {
        let node = self.node(self.cell(pod).at);
        self.can_write(pod) && node.stage == Stage::Good && node.link != Link::Dark
    }

    /// An engine that can write although another one has started since.
    pub fn has_two_writers(&self) -> bool {
        pods().any(|pod| self.cell(pod).outdated && self.can_write(pod))
    }

    /// An engine begins to run.
    pub fn start_engine(&mut self, pod: PodId) {
        let cell = self.cell_mut(pod);
        cell.engine = Engine::On;
        cell.outdated = false;
        cell.stopping = false;
        if self.can_write(pod) {
            for other in pods().filter(|other| *other != pod) {
                let other = self.cell_mut(other);
                other.outdated |= other.engine != Engine::Off;
            }
        }
    }

    /// A container is no more.
    pub fn end_container(&mut self, pod: PodId) {
        let cell = self.cell_mut(pod);
        *cell = Cell {
            at: cell.at,
            view: cell.view,
            mounted: cell.mounted,
            start: cell.start,
            ..Cell::default()
        };
    }

    /// Whether nothing remembers the pod of that number.
    pub fn is_forgotten(&self, pod: PodId) -> bool {
        let named = match self.api.lease.hold {
            Hold::Free => None,
            Hold::Sealed(pod, _) | Hold::Named(pod) | Hold::Taken(pod, _) | Hold::Stopped(pod) => Some(pod),
        };
        let cell = self.cell(pod);
        let wanted = |operator: &Operator| {
            let about = |act: Act| match act {
                Act::Record(p, ..)
                | Act::RefusePin(p, _)
                | Act::Evict(p)
                | Act::Seal(p, _)
                | Act::Open { pod: p, .. } => p == pod,
                Act::Shrink(_) | Act::DeleteAttachment(_) | Act::Lose(_) => false,
            };
            operator.act.is_some_and(about)
        };
        !self.pod(pod).there
            && cell.view == View::Unknown
            && !cell.mounted
            && !self.runs(pod)
            && named != Some(pod)
            && self.api.claim.holder.is_none_or(|(holder, _)| holder != pod)
            && self.api.word != Some(pod)
            && !self.operators.iter().any(wanted)
    }
}
