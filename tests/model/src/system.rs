//! The model as one system: all steps of all parts, time, and what is asked of every state.

use sqledge_operator::rules::{Rule, Rules};

use crate::checker::System;
use crate::guards::Guards;
use crate::scenario::{Fault, Scenario, Start};
use crate::sight::{Decisions, has, look};
use crate::world::{
    Api, Attachment, Broken, Cell, Claim, Hold, Lease, Link, NodeId, Pod, PodId, Power, Stage, View, World, nodes, pods,
};

/// What happened, for reading a counterexample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Time.
    Tick,
    /// An operator looked and decided.
    Decides(u8, crate::world::Act),
    /// It wrote (a part of) it; or the API server refused.
    Writes(u8, crate::world::Act),
    /// It forgot what it was about to do.
    Forgets(u8),
    /// The Lease is made again.
    MakesLease,
    ReplicaSet(PodId),
    Binds(PodId, NodeId),
    Attaches(NodeId),
    BeginsDetach(NodeId),
    Detaches(NodeId),
    StatusIsClean(NodeId),
    Learns(PodId),
    LearnsEnd(PodId),
    ReportsInUse(PodId),
    Mounts(PodId),
    Starts(PodId),
    Kills(PodId),
    Unmounts(PodId),
    ReportsClean(NodeId),
    WritesStatus(NodeId),
    CatchesUp(NodeId),
    Removes(PodId),
    GuardWakes(PodId),
    GuardReads(PodId),
    ApiTakes(PodId),
    GuardIsAnswered(PodId),
    GuardIsNotAnswered(PodId),
    KillTakesEffect(PodId),
    EngineEnds(PodId),
    EngineIsFoundHung(PodId),
    Word(PodId),
    Happens(Fault),
}

/// A scenario under a set of rules.
pub struct Model {
    pub scenario: Scenario,
    pub rules: Rules,
    pub guards: Guards,
    pub decisions: Decisions,
    /// Where it begins, and what an etcd that is set back goes back to.
    pub start: World,
}

/// Next states, with the step there and whether it is a fault.
pub type Next = Vec<(Step, bool, World)>;

impl Model {
    /// The model of a scenario.
    pub fn new(scenario: Scenario, rules: Rules) -> Self {
        let mut model = Self {
            scenario,
            rules,
            guards: Guards::new(rules, scenario.tick, scenario.horizon()),
            decisions: Decisions::new(scenario, rules),
            start: World::default(),
        };
        model.start = model.begin();
        model
    }

    fn begin(&self) -> World {
        let mut world = World {
            faults_left: self.scenario.budget,
            ..World::default()
        };
        world.api = Api {
            objects: 0b11,
            schedulable: 0b11,
            lease: Lease {
                there: self.scenario.guarded,
                ..Lease::default()
            },
            ..Api::default()
        };
        if self.scenario.start == Start::Fresh {
            return world;
        }
        // a pod that has everything but its container
        *world.pod_mut(0) = Pod {
            there: true,
            ours: self.scenario.start == Start::Running,
            node: Some(0),
            ..Pod::default()
        };
        world.api.attachments[0] = Attachment::Attached;
        world.api.in_use = 1;
        world.api.status_attached = 1;
        world.node_mut(0).access = true;
        world.node_mut(0).stage = Stage::Good;
        *world.cell_mut(0) = Cell {
            view: View::Wanted,
            mounted: true,
            ..Cell::default()
        };
        if self.scenario.start == Start::Foreign {
            world.start_engine(0);
            return world;
        }
        world.api.claim = Claim {
            holder: Some((0, Some(0))),
            ..Claim::default()
        };
        world.api.lease.hold = Hold::Named(0);
        self.start_container(&mut world, 0);
        // until it has won the Lease, started its engine and has nothing more to do for now
        loop {
            let mut next = Vec::new();
            self.guard_steps(&world, 0, &mut next);
            let Some((_, _, after)) = next.into_iter().next() else {
                break;
            };
            world = after;
        }
        world
    }

    /// Time passes, unless something that takes less than a tick is still to be done.
    fn tick(&self, world: &World, next: &mut Next) {
        for pod in pods() {
            let cell = world.cell(pod);
            let node = world.node(cell.at);
            if node.power != Power::Up {
                continue;
            }
            if cell.kill == 2 || cell.guard != 0 && self.is_late(world, pod) {
                return;
            }
            let sees = !node.kubelet_stopped && node.link == Link::Full;
            // a kubelet that renews its node's Lease hears of a deletion within a tick
            if sees && cell.view == View::Wanted && !world.is_wanted(pod, cell.at) {
                return;
            }
        }
        let mut after = *world;
        let gone = world.holder_is_gone();
        for node in nodes() {
            let silent = self.scenario.silent;
            let node = after.node_mut(node);
            let renews = node.power == Power::Up && !node.kubelet_stopped && node.link == Link::Full;
            node.age = if renews { 0 } else { (node.age + 1).min(silent) };
            node.heard |= renews && gone;
            node.settled &= node.age < silent;
        }
        if after.api.lease.promised > 0 {
            after.lease_age = (after.lease_age + 1).min(after.api.lease.promised);
        }
        for cell in &mut after.cells {
            cell.guard = self.guards.tick(cell.guard);
            if cell.kill == 1 {
                cell.kill = 2;
            }
        }
        if after != *world {
            next.push((Step::Tick, false, after));
        }
    }
}

impl System for Model {
    type State = World;
    type Step = Step;

    fn start(&self) -> Vec<World> {
        vec![self.start]
    }

    fn next(&self, world: &World, out: &mut Next) {
        self.operator_steps(world, out);
        self.control_plane_steps(world, out);
        for node in nodes() {
            self.node_steps(world, node, out);
        }
        for pod in pods() {
            self.kubelet_steps(world, pod, out);
            self.guard_steps(world, pod, out);
        }
        self.tick(world, out);
        self.fault_steps(world, out);
        for (_, _, after) in out {
            if after.broken == Broken::No && after.has_two_writers() {
                after.broken = Broken::TwoWriters;
            }
        }
    }

    fn is_broken(&self, world: &World) -> Option<&'static str> {
        match world.broken {
            Broken::No => None,
            Broken::TwoWriters => Some("never two writers"),
            Broken::Needless => Some("nothing is moved or killed without need"),
        }
    }

    /// It serves, and no engine of an earlier pod runs on where it could be stopped; or it is held with a reason.
    fn is_good(&self, world: &World) -> bool {
        if !self.scenario.progress {
            return true;
        }
        let Some((holder, Some(_))) = world.api.claim.holder else {
            return self.is_held(world);
        };
        let object = world.pod(holder);
        let straggles = |pod: PodId| {
            let node = world.node(world.cell(pod).at);
            pod != holder
                && world.cell(pod).engine != crate::world::Engine::Off
                && node.power == Power::Up
                && node.link == Link::Full
        };
        // a guard that cannot reach the API server starts nothing, and nobody else can know why
        let cut = world.node(world.cell(holder).at).guard_cut && world.cell(holder).guard != 0;
        let served = cut || object.there && !object.gated && !object.deleting && world.serves(holder);
        served && !pods().any(straggles) || self.is_held(world)
    }
}

impl Model {
    fn is_held(&self, world: &World) -> bool {
        let held = |overdue| self.decisions.on(&look(world, &self.scenario, overdue)).held;
        held(false) && held(true) || world.is_out_of_numbers() || !world.has_a_home()
    }

    /// Whether a rule is in force.
    pub fn has(&self, rule: Rule) -> bool {
        self.rules.has(rule)
    }
}

impl World {
    /// No pod can be made within the bounds of the model, although the `ReplicaSet` would, because a machine that nobody reaches remembers one.
    fn is_out_of_numbers(&self) -> bool {
        let lost = |cell: &Cell| {
            let node = self.node(cell.at);
            cell.view != View::Unknown && (node.power != Power::Up || node.kubelet_stopped || node.link != Link::Full)
        };
        self.wants_pod() && !pods().any(|pod| self.is_forgotten(pod)) && self.cells.iter().any(lost)
    }

    /// There is a node that could run a database.
    fn has_a_home(&self) -> bool {
        nodes().any(|number| {
            let node = self.node(number);
            let works = node.power == Power::Up && !node.kubelet_stopped && node.link == Link::Full && !node.guard_cut;
            let takes = self.api.schedulable & self.api.objects & !self.api.out_of_service;
            works && !node.full && has(takes, number)
        })
    }
}
