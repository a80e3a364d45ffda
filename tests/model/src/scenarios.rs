//! The scenarios. Each is small enough to be explored to its end.

use std::time::Duration;

use sqledge_operator::driver_class::DriverClass;
use sqledge_operator::lease::OnApiLoss;
use sqledge_operator::scene::Proof;

use crate::scenario::Fault::{
    AnnotateLease, Cordon, Cut, CutFromApi, Delete, DeleteAttachment, DeleteByForce, DeleteLease, DeleteNode, Fill,
    ForeignPodGoes, GuardHeals, GuardIsCut, Hang, HangForGood, Heal, KubeletStarts, KubeletStops, LeaderChanges,
    MachineGoes, OpenByHand, OperatorIsBlind, Pause, PowerOff, PowerOn, Reorder, Restore, Taint, Terminate, Wake,
};
use crate::scenario::{Scenario, Start};

const BASE: Scenario = Scenario::BASE;

/// What befalls the node of the database, whatever it is: off and on, paused and woken, cut and healed, without its kubelet.
pub const NODE: Scenario = Scenario {
    name: "node",
    faults: &[
        PowerOff(0),
        PowerOn(0),
        Pause(0),
        Wake(0),
        Cut(0),
        CutFromApi(0),
        Heal(0),
        KubeletStops(0),
        KubeletStarts(0),
    ],
    ..BASE
};

/// The same before two operators that know nothing of each other.
pub const OPERATORS: Scenario = Scenario {
    name: "operators",
    operators: 2,
    faults: &[PowerOff(0), PowerOn(0), Pause(0), Wake(0)],
    ..NODE
};

/// And with hands.
pub const RIVALS: Scenario = Scenario {
    name: "rivals",
    operators: 2,
    faults: &[Delete, DeleteByForce, PowerOff(0)],
    budget: 1,
    ..NODE
};

/// A second node fails, too, while the first may come back.
pub const NODES: Scenario = Scenario {
    name: "nodes",
    faults: &[PowerOff(0), Pause(0), Wake(0), PowerOff(1), Cut(1)],
    budget: 3,
    ..BASE
};

/// What hands do to pods, gate and Lease.
pub const HANDS: Scenario = Scenario {
    name: "hands",
    faults: &[
        Delete,
        DeleteByForce,
        Cordon(0),
        OpenByHand,
        DeleteLease,
        AnnotateLease,
        Terminate,
    ],
    ..BASE
};

/// A guard that renews and stops by itself, and the operator is told to believe that. No pause: against that it is no proof.
pub const LEASE: Scenario = Scenario {
    name: "lease",
    class: DriverClass::Unknown,
    proof: Proof::Lease,
    on_api_loss: OnApiLoss::Stop,
    renewal: Some((2, 4)),
    tick: Duration::from_secs(1),
    silent: 2,
    faults: &[
        PowerOff(0),
        PowerOn(0),
        Cut(0),
        Heal(0),
        KubeletStops(0),
        GuardIsCut(0),
        GuardHeals(0),
    ],
    ..BASE
};

/// Answers of the API server are late, or get lost with the way to it. Millions of states to the end.
pub const SLOW: Scenario = Scenario {
    name: "slow answers",
    slow_answers: true,
    faults: &[Cut(0), KubeletStops(0)],
    budget: 1,
    ..LEASE
};

/// The same without any fault.
pub const LATE: Scenario = Scenario {
    name: "late answers",
    faults: &[],
    budget: 0,
    ..SLOW
};

/// Positive control: a driver that is declared to revoke and does not.
pub const LYING: Scenario = Scenario {
    name: "lying driver",
    lying: true,
    faults: &[Pause(0), Wake(0)],
    ..BASE
};

/// Positive control: a machine that sleeps keeps no promise.
pub const ASLEEP: Scenario = Scenario {
    name: "asleep",
    faults: &[Pause(0), Wake(0)],
    ..LEASE
};

/// Positive control: the guard may take as long to stop as the operator waits.
pub const TIGHT: Scenario = Scenario {
    name: "tight",
    renewal: Some((3, 4)),
    faults: &[Cut(0)],
    budget: 1,
    ..LEASE
};

/// Positive control: acts land whatever has changed since they were decided.
pub const CARELESS: Scenario = Scenario {
    name: "careless",
    preconditions: false,
    faults: &[Cut(0), Heal(0)],
    ..LEASE
};

/// Positive control: what a kubelet writes first after a silence is believed, although it may not know yet that its list was shortened.
pub const HASTY: Scenario = Scenario {
    name: "hasty",
    hasty: true,
    guarded: false,
    exclusive: false,
    ..NODES
};

/// The operator orders other times, while the guard may be cut off.
pub const ORDERS: Scenario = Scenario {
    name: "new orders",
    other_renewal: Some((4, 6)),
    faults: &[Reorder, Cut(0), Heal(0)],
    ..LEASE
};

/// Somebody annotates the Lease of a guard that renews.
pub const NOTES: Scenario = Scenario {
    name: "notes",
    faults: &[AnnotateLease, DeleteLease, Delete],
    ..LEASE
};

/// Somebody deletes the Lease, and with it the seal, while the volume is taken from a node that sleeps and wakes.
pub const UNSEALED: Scenario = Scenario {
    name: "unsealed",
    exclusive: false,
    faults: &[Pause(0), Wake(0), DeleteLease],
    budget: 3,
    ..BASE
};

/// `lease: Always` on a driver that revokes: the guard goes on without the API server.
pub const ALWAYS: Scenario = Scenario {
    name: "always",
    class: DriverClass::Revoke,
    proof: Proof::Storage,
    always: true,
    on_api_loss: OnApiLoss::Continue,
    faults: &[CutFromApi(0), Cut(0), Heal(0), Pause(0), Wake(0), KubeletStops(0)],
    ..LEASE
};

/// The same before an operator that cannot tell from a node's own Lease whether only its guard is silent: it does not wait for the node.
pub const GIVEN_UP: Scenario = Scenario {
    name: "given up",
    rarely_heard: true,
    faults: &[
        GuardIsCut(0),
        GuardHeals(0),
        Cut(0),
        Heal(0),
        Pause(0),
        Wake(0),
        LeaderChanges,
    ],
    budget: 3,
    ..ALWAYS
};

/// The same where somebody deletes the Lease, and with it the seal, and the next pod may share the volume's node.
pub const GIVEN_UP_UNSEALED: Scenario = Scenario {
    name: "given up, unsealed",
    exclusive: false,
    faults: &[GuardIsCut(0), Cut(0), Heal(0), Pause(0), Wake(0), DeleteLease],
    ..GIVEN_UP
};

/// The same before two operators that know nothing of each other: one writes down, the other takes back.
pub const GIVEN_UP_TWICE: Scenario = Scenario {
    name: "given up, two operators",
    operators: 2,
    faults: &[GuardIsCut(0), GuardHeals(0), Pause(0), Wake(0)],
    budget: 2,
    ..GIVEN_UP
};

/// The same where the word of the Lease counts as a proof, although the guard goes on without the API server.
pub const LENIENT: Scenario = Scenario {
    name: "lenient",
    on_api_loss: OnApiLoss::Continue,
    faults: &[Cut(0), Heal(0)],
    ..LEASE
};

/// The class proves nothing and the user did not ask for more.
pub const HELD: Scenario = Scenario {
    name: "held",
    proof: Proof::Storage,
    faults: &[Pause(0), Wake(0), Cut(0), Heal(0), PowerOff(0)],
    ..LEASE
};

/// The engine hangs, also for good.
pub const HANGS: Scenario = Scenario {
    name: "hangs",
    class: DriverClass::Revoke,
    proof: Proof::Storage,
    tick: Duration::from_secs(10),
    faults: &[Hang, HangForGood],
    ..LEASE
};

/// Without a guard, the claim for one pod at a time.
pub const PLAIN: Scenario = Scenario {
    name: "plain",
    guarded: false,
    faults: &[
        PowerOff(0),
        PowerOn(0),
        Pause(0),
        Wake(0),
        Cut(0),
        Heal(0),
        Delete,
        DeleteByForce,
    ],
    ..BASE
};

/// Without a guard, and two pods of one node may mount at once; the driver's class is not known.
pub const SHARED: Scenario = Scenario {
    name: "shared",
    guarded: false,
    exclusive: false,
    class: DriverClass::Unknown,
    faults: &[Pause(0), Wake(0), Cordon(0), Delete, DeleteByForce, DeleteAttachment(0)],
    ..BASE
};

/// A node sleeps and wakes, and another operator goes on with what the first one has begun.
pub const LEADERS: Scenario = Scenario {
    name: "leaders",
    guarded: false,
    exclusive: false,
    faults: &[Pause(0), Wake(0), LeaderChanges],
    budget: 5,
    ..BASE
};

/// From the very beginning, with impatient hands.
pub const FRESH: Scenario = Scenario {
    name: "fresh",
    start: Start::Fresh,
    faults: &[DeleteByForce, Pause(0), Wake(0)],
    ..SHARED
};

/// Somebody else's pod has the claim, or had it.
pub const FOREIGN: Scenario = Scenario {
    name: "foreign",
    start: Start::Foreign,
    faults: &[ForeignPodGoes],
    ..SHARED
};

/// A human confirms what is off, and the node comes back.
pub const WORD: Scenario = Scenario {
    name: "word",
    human: true,
    exclusive: true,
    faults: &[PowerOff(0), PowerOn(0), Cut(1), DeleteByForce],
    budget: 3,
    ..SHARED
};

/// The Node object is deleted while the machine goes on.
pub const NO_OBJECT: Scenario = Scenario {
    name: "no object",
    exclusive: true,
    faults: &[KubeletStops(0), DeleteNode(0), DeleteByForce],
    ..SHARED
};

/// A cloud provider's machine is deleted, and nothing is known about the driver.
pub const PROVIDED: Scenario = Scenario {
    name: "provided",
    provided: true,
    guarded: true,
    faults: &[MachineGoes(0), Cut(0), Heal(0), Delete, DeleteByForce],
    ..SHARED
};

/// A node is off and said to be out of service, and gets its power back with the taint still on it.
pub const TAINTED: Scenario = Scenario {
    name: "tainted",
    exclusive: true,
    faults: &[PowerOff(0), PowerOn(0), Taint(0), Pause(0), Wake(0), DeleteByForce],
    budget: 4,
    ..SHARED
};

/// A node that the scheduler finds no room on.
pub const FULL: Scenario = Scenario {
    name: "full",
    faults: &[Fill(0), Delete, DeleteByForce, PowerOff(0), Cordon(0)],
    ..BASE
};

/// Orderly stops that others ask for, on a driver that proves nothing.
pub const STOPS: Scenario = Scenario {
    name: "stops",
    class: DriverClass::Unknown,
    exclusive: false,
    faults: &[Delete, Cordon(0), DeleteAttachment(0), Terminate, DeleteByForce],
    ..BASE
};

/// etcd is set back; there must be one writer, and what is held is held.
pub const RESTORED: Scenario = Scenario {
    name: "restored",
    faults: &[PowerOff(0), PowerOn(0), Pause(0), Wake(0), Delete, Terminate, Restore],
    progress: false,
    ..BASE
};

/// The same without a guard.
pub const RESTORED_PLAIN: Scenario = Scenario {
    name: "restored plain",
    guarded: false,
    class: DriverClass::Unknown,
    faults: &[Cordon(0), Delete, Restore],
    ..RESTORED
};

/// A driver that refuses to detach what is mounted.
pub const BUSY: Scenario = Scenario {
    name: "busy",
    class: DriverClass::Busy,
    ..NODE
};

/// An engine goes on where no kubelet ends it, and the API server can be reached again.
pub const STRAGGLER: Scenario = Scenario {
    name: "straggler",
    faults: &[Cut(0), Heal(0), KubeletStops(0)],
    budget: 3,
    ..BASE
};

/// A claim that several nodes may mount at once.
pub const MANY: Scenario = Scenario {
    name: "many",
    guarded: false,
    exclusive: false,
    many: true,
    faults: &[Pause(0), Wake(0), Delete, DeleteByForce],
    ..BASE
};

/// The operator is the one who is cut off.
pub const BLIND: Scenario = Scenario {
    name: "blind",
    faults: &[OperatorIsBlind, PowerOff(0)],
    progress: false,
    ..BASE
};

/// All that production has to stand.
pub const ALL: &[Scenario] = &[
    NODE,
    OPERATORS,
    RIVALS,
    NODES,
    HANDS,
    LEASE,
    LATE,
    ORDERS,
    NOTES,
    UNSEALED,
    ALWAYS,
    GIVEN_UP,
    GIVEN_UP_UNSEALED,
    GIVEN_UP_TWICE,
    LENIENT,
    HELD,
    HANGS,
    PLAIN,
    SHARED,
    LEADERS,
    FRESH,
    FOREIGN,
    WORD,
    NO_OBJECT,
    PROVIDED,
    TAINTED,
    FULL,
    STOPS,
    RESTORED,
    RESTORED_PLAIN,
    BUSY,
    STRAGGLER,
    MANY,
    BLIND,
];

/// What takes minutes, or gigabytes: more faults, two operators with hands, late answers with faults.
pub const LONG: &[Scenario] = &[
    SLOW,
    Scenario { budget: 3, ..NODE },
    Scenario { budget: 3, ..PLAIN },
    Scenario { budget: 3, ..HANDS },
    Scenario { budget: 3, ..LEASE },
    Scenario { budget: 2, ..RIVALS },
];
