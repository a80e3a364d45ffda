//! What is modelled in one run: storage, settings, which faults may happen and how many of them.

use std::time::Duration;

use sqledge_operator::driver_class::DriverClass;
use sqledge_operator::lease::{OnApiLoss, Orders, Renewal};
use sqledge_operator::scene::Proof;

use crate::world::{NodeId, PodId};

/// A fault, or what a careless hand does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    PowerOff(NodeId),
    PowerOn(NodeId),
    Pause(NodeId),
    Wake(NodeId),
    /// Cut from everything but the storage.
    Cut(NodeId),
    /// Cut from the API server only.
    CutFromApi(NodeId),
    Heal(NodeId),
    KubeletStops(NodeId),
    KubeletStarts(NodeId),
    /// Only the guard's way to the API server.
    GuardIsCut(NodeId),
    GuardHeals(NodeId),
    Cordon(NodeId),
    /// No room for another pod, which nobody sees but the scheduler.
    Fill(NodeId),
    /// `kubectl delete node`.
    DeleteNode(NodeId),
    /// A cloud provider's machine is deleted, and then its controller deletes the Node object.
    MachineGoes(NodeId),
    /// The taint `node.kubernetes.io/out-of-service` on a node that is off, by a human or a remediation, who forgets it there.
    Taint(NodeId),
    /// `kubectl delete volumeattachment`.
    DeleteAttachment(NodeId),
    /// `kubectl delete pod`.
    Delete,
    /// `kubectl delete pod --force`.
    DeleteByForce,
    /// Somebody else's tool takes the gate away.
    OpenByHand,
    /// SIGTERM by somebody else than the kubelet.
    Terminate,
    /// The engine hangs.
    Hang,
    /// It hangs in the kernel.
    HangForGood,
    DeleteLease,
    AnnotateLease,
    /// The operator's orders change.
    Reorder,
    /// etcd is set back to where the scenario began.
    Restore,
    /// Somebody else's pod ends.
    ForeignPodGoes,
    /// The operator hears of nobody any more, and yet its writes get through.
    OperatorIsBlind,
    /// Another one takes over, which has seen nothing yet of what the nodes wrote.
    LeaderChanges,
}

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The database runs on node a.
    Running,
    /// Nobody was ever let at the volume.
    Fresh,
    /// Somebody else's pod has mounted the claim on node a.
    Foreign,
}

/// One run.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub struct Scenario {
    pub name: &'static str,
    pub class: DriverClass,
    /// Its detach succeeds and revokes nothing, whatever it is declared.
    pub lying: bool,
    /// `ReadWriteOncePod`.
    pub exclusive: bool,
    /// `ReadWriteMany`: attached to several nodes at once.
    pub many: bool,
    pub guarded: bool,
    pub proof: Proof,
    pub always: bool,
    pub on_api_loss: OnApiLoss,
    /// Ticks after which a guard stops, and after which the operator takes over; none: it does not renew.
    pub renewal: Option<(u8, u8)>,
    /// The other orders, for [`Fault::Reorder`].
    pub other_renewal: Option<(u8, u8)>,
    /// What one tick stands for.
    pub tick: Duration,
    /// Ticks after which a node is silent.
    pub silent: u8,
    /// What was heard of a node last is older than the last renewal of its database: kubelets renew less often than guards.
    pub rarely_heard: bool,
    /// A node counts as settled before its kubelet has caught up.
    pub hasty: bool,
    /// The nodes are machines of a cloud provider.
    pub provided: bool,
    pub start: Start,
    pub faults: &'static [Fault],
    pub budget: u8,
    /// A human confirms the death of nodes that are off.
    pub human: bool,
    pub operators: usize,
    /// Acts are refused by the API server when what they were judged on has changed.
    pub preconditions: bool,
    /// Answers to writes may take a tick.
    pub slow_answers: bool,
    /// "Something always happens next" is asked, too; not where the past comes back or hands meddle.
    pub progress: bool,
}

impl Scenario {
    /// A revoking driver, an exclusive claim, a guard that does not renew, one operator, no fault.
    pub const BASE: Self = Self {
        name: "base",
        class: DriverClass::Revoke,
        lying: false,
        exclusive: true,
        many: false,
        guarded: true,
        proof: Proof::Storage,
        always: false,
        on_api_loss: OnApiLoss::Continue,
        renewal: None,
        other_renewal: None,
        tick: Duration::from_secs(30),
        silent: 1,
        rarely_heard: false,
        hasty: false,
        provided: false,
        start: Start::Running,
        faults: &[],
        budget: 2,
        human: false,
        operators: 1,
        preconditions: true,
        slow_answers: false,
        progress: true,
    };

    /// What the operator orders, first or after a change.
    pub fn orders(&self, reordered: bool) -> Orders {
        let times = if reordered { self.other_renewal } else { self.renewal };
        let ticks = |n: u8| self.tick * u32::from(n);
        Orders {
            renewal: times.map(|(stop, takeover)| Renewal {
                every: self.tick,
                stop_after: ticks(stop),
                takeover_after: ticks(takeover),
            }),
            on_api_loss: self.on_api_loss,
        }
    }

    /// The longest time that makes a difference, in ticks.
    pub fn horizon(&self) -> u8 {
        [self.renewal, self.other_renewal]
            .into_iter()
            .flatten()
            .map(|(stop, takeover)| stop.max(takeover))
            .max()
            .unwrap_or(1)
            + 1
    }

    /// Whether a detach really takes the node its access.
    pub fn revokes(&self) -> bool {
        !self.lying && matches!(self.class, DriverClass::Revoke | DriverClass::Quorum)
    }
}

/// For labels: a pod or node as the operator calls it.
pub fn pod_name(pod: PodId) -> &'static str {
    ["p0", "p1", "p2", "p3"][usize::from(pod)]
}

/// The same for nodes.
pub fn node_name(node: NodeId) -> &'static str {
    ["a", "b"][usize::from(node)]
}
