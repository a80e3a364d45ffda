//! Kubelets, guards, scheduler, `ReplicaSet` and attach-detach controller. A kubelet reports a volume in use before it mounts it, mounts only what
//! is attached, and with `ReadWriteOncePod` for one pod at a time.

use sqledge_operator::driver_class::DriverClass;
use sqledge_operator::guard::rules::{Action, Change, Input, Seen};
use sqledge_operator::lease::{Promise, Whose};

use crate::sight::{has, look};
use crate::system::{Model, Next, Step};
use crate::world::{
    Attachment, Broken, Cell, Engine, Hold, Link, Net, NodeId, Object, Pod, PodId, Power, Stage, View, World, nodes,
    pods,
};

impl Model {
    /// Scheduler, `ReplicaSet`, attach-detach controller and storage driver.
    pub fn control_plane_steps(&self, world: &World, next: &mut Next) {
        let mut push = |step, after| next.push((step, false, after));
        if world.wants_pod()
            && let Some(pod) = pods().find(|pod| world.is_forgotten(*pod))
        {
            let mut after = *world;
            *after.pod_mut(pod) = Pod {
                there: true,
                ours: true,
                gated: true,
                ..Pod::default()
            };
            after.cells[usize::from(pod)] = Cell::default();
            push(Step::ReplicaSet(pod), after);
        }
        for pod in pods() {
            let object = *world.pod(pod);
            let waits = object.there && !object.gated && !object.deleting && object.node.is_none();
            for node in nodes().filter(|node| waits && world.fits(pod, *node, &self.scenario)) {
                let mut after = *world;
                after.pod_mut(pod).node = Some(node);
                after.touch(Object::Pod(pod), None);
                push(Step::Binds(pod, node), after);
            }
        }
        for node in nodes() {
            let users = || pods().filter(|pod| world.pod(*pod).there && world.pod(*pod).node == Some(node));
            let elsewhere = !self.scenario.many
                && nodes().any(|other| other != node && world.attachment(other) != Attachment::None);
            let bit = 1 << node;
            let mut after = *world;
            let attachment = &mut after.api.attachments[usize::from(node)];
            match world.attachment(node) {
                Attachment::None if users().next().is_some() && !elsewhere && has(world.api.objects, node) => {
                    *attachment = Attachment::Attached;
                    after.api.status_attached |= bit;
                    after.node_mut(node).access = true;
                    after.touch(Object::Attachment(node), None);
                    push(Step::Attaches(node), after);
                }
                Attachment::None if users().next().is_none() && has(world.api.status_attached, node) => {
                    after.api.status_attached &= !bit;
                    after.touch(Object::Node(node), None);
                    push(Step::StatusIsClean(node), after);
                }
                Attachment::Attached
                    if users().next().is_none()
                        && (!has(world.api.in_use, node)
                            || has(world.api.out_of_service, node)
                            || self.is_forced(world, node)) =>
                {
                    *attachment = Attachment::Detaching;
                    after.api.status_attached &= !bit;
                    after.touch(Object::Attachment(node), None);
                    push(Step::BeginsDetach(node), after);
                }
                Attachment::Detaching if self.detaches(world, node) => {
                    *attachment = Attachment::None;
                    let machine = after.node_mut(node);
                    if self.scenario.revokes() || machine.stage == Stage::None {
                        machine.access = false;
                    }
                    if self.scenario.revokes() && machine.stage == Stage::Good {
                        machine.stage = Stage::Stale;
                    }
                    after.touch(Object::Attachment(node), None);
                    push(Step::Detaches(node), after);
                }
                Attachment::None | Attachment::Attached | Attachment::Detaching => {}
            }
        }
    }

    /// After a reboot nothing is mounted, and the kubelet says so.
    pub fn node_steps(&self, world: &World, node: NodeId, next: &mut Next) {
        let machine = world.node(node);
        let sees = machine.power == Power::Up && !machine.kubelet_stopped && machine.link == Link::Full;
        let mut after = *world;
        after.unlist(node);
        if sees && after != *world {
            next.push((Step::ReportsClean(node), false, after));
        }
        let mut after = *world;
        after.node_mut(node).deaf = false;
        after.node_mut(node).behind = false;
        if sees && after != *world {
            next.push((Step::CatchesUp(node), false, after));
        }
        // the periodic status also lists again what somebody took off, once the kubelet has heard of that: it sends what differs from what it knows
        let mut after = *world;
        after.node_mut(node).reported |= world.holder_is_gone();
        after.api.boots[usize::from(node)] = machine.boot;
        if machine.stage != Stage::None && !machine.behind {
            after.api.in_use |= 1 << node;
        }
        let settles = !machine.deaf || self.scenario.hasty;
        after.node_mut(node).settled = settles
            && has(world.api.claim.avoid, node)
            && !has(after.api.in_use, node)
            && machine.age < self.scenario.silent;
        if sees && after != *world {
            after.touch(Object::Node(node), None);
            next.push((Step::WritesStatus(node), false, after));
        }
    }

    /// The forced detach is only for a node that is not ready, and comes after six minutes: what the operators want to do is done by then.
    fn is_forced(&self, world: &World, node: NodeId) -> bool {
        let is_ready = world.node(node).age < self.scenario.silent && has(world.api.objects, node);
        let is_idle = || self.decisions.on(&look(world, &self.scenario, false)).act.is_none();
        !is_ready && world.operators.iter().all(|operator| operator.act.is_none()) && is_idle()
    }

    /// A busy driver refuses while the volume is mounted.
    fn detaches(&self, world: &World, node: NodeId) -> bool {
        self.scenario.class != DriverClass::Busy || world.node(node).stage == Stage::None
    }

    /// The kubelet of the node that the pod is (or is to be) on.
    pub fn kubelet_steps(&self, world: &World, pod: PodId, next: &mut Next) {
        let cell = *world.cell(pod);
        let at = if cell.view == View::Unknown {
            world.pod(pod).node
        } else {
            Some(cell.at)
        };
        let Some(at) = at else { return };
        let node = world.node(at);
        if node.power != Power::Up {
            return;
        }
        let runs = world.runs(pod);
        if cell.engine == Engine::On && cell.stopping {
            let mut after = *world;
            after.cell_mut(pod).engine = Engine::Off;
            after.cell_mut(pod).stopping = false;
            if cell.guard != 0 {
                self.guard(&mut after, pod, Input::Exited);
            }
            next.push((Step::EngineEnds(pod), false, after));
        }
        if node.kubelet_stopped {
            return;
        }
        let sees = node.link == Link::Full;
        let mut push = |step, change: &dyn Fn(&mut World)| {
            let mut after = *world;
            change(&mut after);
            next.push((step, false, after));
        };
        match cell.view {
            View::Unknown if sees && world.is_wanted(pod, at) => push(Step::Learns(pod), &|after| {
                after.cell_mut(pod).view = View::Wanted;
                after.cell_mut(pod).at = at;
                // it renews its node's Lease before it looks at its pods
                after.node_mut(at).age = 0;
            }),
            View::Unknown if sees && world.pod(pod).there && world.pod(pod).deleting => {
                push(Step::Removes(pod), &|after| after.remove_pod(pod));
            }
            View::Wanted => {
                if sees && !world.is_wanted(pod, at) {
                    push(Step::LearnsEnd(pod), &|after| {
                        after.cell_mut(pod).view = View::Ending;
                        if cell.guard != 0 {
                            self.guard(after, pod, Input::Terminate);
                        } else if cell.engine == Engine::On {
                            after.cell_mut(pod).stopping = true;
                        }
                    });
                }
                // to a kubelet that is behind it is listed already
                if sees && !has(world.api.in_use, at) && !cell.mounted && !node.behind {
                    push(Step::ReportsInUse(pod), &|after| after.list(at));
                }
                let alone = || !pods().any(|other| world.cell(other).mounted && world.cell(other).at == at);
                if sees
                    && !cell.mounted
                    && (has(world.api.in_use, at) || node.behind)
                    && world.attachment(at) == Attachment::Attached
                    && node.access
                    && (!self.scenario.exclusive || alone())
                {
                    push(Step::Mounts(pod), &|after| {
                        after.cell_mut(pod).mounted = true;
                        let stage = &mut after.node_mut(at).stage;
                        if *stage == Stage::None {
                            *stage = Stage::Good;
                        }
                    });
                }
                if cell.mounted && !runs {
                    push(Step::Starts(pod), &|after| self.start_container(after, pod));
                }
            }
            View::Ending if runs => push(Step::Kills(pod), &|after| after.end_container(pod)),
            View::Ending if cell.mounted => push(Step::Unmounts(pod), &|after| {
                after.cell_mut(pod).mounted = false;
                // a device that the next pod of the node waits for stays staged, whatever became of it
                let wants = |other: &Cell| other.at == at && (other.mounted || other.view == View::Wanted);
                if !after.cells.iter().any(wants) {
                    after.unstage(at);
                }
            }),
            View::Ending if sees => push(Step::Removes(pod), &|after| {
                after.cells[usize::from(pod)] = Cell::default();
                if after.pod(pod).there {
                    after.remove_pod(pod);
                }
                after.unlist(at);
            }),
            View::Unknown | View::Ending => {}
        }
    }

    /// The kubelet starts the pod's container.
    pub fn start_container(&self, world: &mut World, pod: PodId) {
        if self.scenario.guarded {
            let cell = world.cell_mut(pod);
            cell.guard = self.guards.fresh();
            cell.start = (cell.start + 1) % 4;
        } else {
            world.start_engine(pod);
        }
    }

    /// What a guard may meet next.
    pub fn guard_steps(&self, world: &World, pod: PodId, next: &mut Next) {
        let cell = *world.cell(pod);
        let node = world.node(cell.at);
        if cell.guard == 0 || node.power == Power::Paused {
            return;
        }
        let mut push = |step, change: &dyn Fn(&mut World)| {
            let mut after = *world;
            change(&mut after);
            next.push((step, false, after));
        };
        if cell.kill > 0 {
            push(Step::KillTakesEffect(pod), &|after| after.end_container(pod));
            return;
        }
        if self.guards.is_due(cell.guard) {
            push(Step::GuardWakes(pod), &|after| self.guard(after, pod, Input::Tick));
        }
        if cell.engine == Engine::Hung || cell.engine == Engine::Undead {
            push(Step::EngineIsFoundHung(pod), &|after| {
                for _ in 0..sqledge_operator::guard::rules::PROBES {
                    self.guard(after, pod, Input::Silent);
                }
            });
        }
        let reaches = node.link == Link::Full && !node.guard_cut;
        match cell.net {
            Net::Reading if reaches && world.api.lease.there => push(Step::GuardReads(pod), &|after| {
                let seen = self.seen(after, pod);
                after.cell_mut(pod).net = Net::Idle;
                after.cell_mut(pod).fresh = true;
                self.guard(after, pod, Input::Read(seen));
            }),
            Net::Sent if reaches => push(Step::ApiTakes(pod), &|after| {
                self.write(after, pod);
                if !self.scenario.slow_answers {
                    self.answer(after, pod);
                }
            }),
            Net::Applied | Net::Refused if reaches => {
                push(Step::GuardIsAnswered(pod), &|after| self.answer(after, pod));
            }
            Net::Idle | Net::Reading | Net::Sent | Net::Applied | Net::Refused => {}
        }
        let lost = !reaches || cell.net == Net::Reading && !world.api.lease.there;
        if cell.net != Net::Idle && lost {
            push(Step::GuardIsNotAnswered(pod), &|after| {
                after.cell_mut(pod).net = Net::Idle;
                self.guard(after, pod, Input::Away);
            });
        }
    }

    /// Something that cannot wait for the next tick.
    pub fn is_late(&self, world: &World, pod: PodId) -> bool {
        let cell = world.cell(pod);
        cell.kill == 0
            && (self.guards.is_due(cell.guard)
                || cell.net != Net::Idle && (!self.scenario.slow_answers || self.guards.waits_long(cell.guard))
                || cell.engine == Engine::Hung)
    }

    fn seen(&self, world: &World, pod: PodId) -> Seen {
        let lease = world.api.lease;
        let whose = match lease.hold {
            Hold::Taken(holder, start) if holder == pod && start == world.cell(pod).start => Whose::Mine,
            Hold::Taken(holder, _) if holder == pod => Whose::OtherStart,
            Hold::Named(holder) | Hold::Stopped(holder) if holder == pod => Whose::Free,
            Hold::Free | Hold::Sealed(..) | Hold::Named(_) | Hold::Taken(..) | Hold::Stopped(_) => Whose::Others,
        };
        Seen {
            whose,
            epoch: 0,
            orders: self.scenario.orders(lease.reordered),
        }
    }

    /// The API server takes or refuses what the guard sent.
    fn write(&self, world: &mut World, pod: PodId) {
        let cell = *world.cell(pod);
        let request = self.guards.get(cell.guard).request;
        let Some(change) = request.and_then(|request| request.change) else {
            return;
        };
        if !world.api.lease.there || !cell.fresh {
            world.cell_mut(pod).net = Net::Refused;
            return;
        }
        let ticks = |promise: Option<Promise>| {
            promise.map_or(0, |promise| {
                let ticks = promise.takeover_after.as_secs() / self.scenario.tick.as_secs();
                u8::try_from(ticks).expect("a few")
            })
        };
        let promise = match change {
            Change::Take { promise, .. } => {
                world.api.lease.hold = Hold::Taken(pod, cell.start);
                world.lease_age = 0;
                promise
            }
            Change::Renew { promise } => {
                self.renewed(world);
                promise
            }
            Change::Stopped => {
                world.api.lease.hold = Hold::Stopped(pod);
                world.lease_age = 0;
                None
            }
        };
        world.api.lease.promised = ticks(promise);
        world.api.lease.stops = promise.is_some_and(|promise| promise.stops_after.is_some());
        world.cell_mut(pod).net = Net::Applied;
        world.touch(Object::Lease, Some(pod));
    }

    fn answer(&self, world: &mut World, pod: PodId) {
        let cell = world.cell_mut(pod);
        let input = if cell.net == Net::Applied {
            Input::Written
        } else {
            Input::Conflict
        };
        cell.net = Net::Idle;
        self.guard(world, pod, input);
    }

    /// The real guard takes a step, and what it wants done is done.
    pub fn guard(&self, world: &mut World, pod: PodId, input: Input) {
        let (number, actions) = self.guards.step(world.cell(pod).guard, input);
        world.cell_mut(pod).guard = number;
        for action in actions {
            match action {
                Action::Read => world.cell_mut(pod).net = Net::Reading,
                Action::Write(_) => world.cell_mut(pod).net = Net::Sent,
                Action::Start => {
                    world.start_engine(pod);
                    if world.serves(pod) {
                        self.guard(world, pod, Input::Answered);
                    }
                }
                Action::KillEngine => {
                    if world.cell(pod).engine != Engine::Undead {
                        world.cell_mut(pod).engine = Engine::Off;
                        self.guard(world, pod, Input::Exited);
                    }
                }
                Action::Forward => world.cell_mut(pod).stopping = true,
                Action::Sync => {}
                Action::KillAll => {
                    let holds = matches!(world.api.lease.hold, Hold::Taken(holder, start)
                        if holder == pod && start == world.cell(pod).start && world.api.lease.there);
                    if input == Input::Conflict && holds {
                        world.broken = Broken::Needless;
                    }
                    let cell = world.cell_mut(pod);
                    cell.kill = 1;
                    cell.net = Net::Idle;
                }
                Action::Exit => world.end_container(pod),
            }
        }
    }
}

impl World {
    /// The pod of record is no more.
    pub fn holder_is_gone(&self) -> bool {
        self.api.claim.holder.is_some_and(|(holder, _)| !self.pod(holder).there)
    }

    fn unstage(&mut self, node: NodeId) {
        let attached = self.attachment(node) != Attachment::None;
        self.node_mut(node).stage = Stage::None;
        self.node_mut(node).access &= attached;
    }

    fn list(&mut self, node: NodeId) {
        self.api.in_use |= 1 << node;
        self.api.boots[usize::from(node)] = self.node(node).boot;
        self.node_mut(node).settled = false;
        self.touch(Object::Node(node), None);
    }

    /// The kubelet takes the volume off its list once no pod on the node wants it.
    fn unlist(&mut self, node: NodeId) {
        let wants = |pod: PodId| {
            let cell = self.cell(pod);
            cell.at == node && (cell.mounted || cell.view != View::Unknown)
        };
        if pods().any(wants) {
            return;
        }
        if self.node(node).stage != Stage::None {
            self.unstage(node);
        }
        if has(self.api.in_use, node) {
            self.api.in_use &= !(1 << node);
            self.api.boots[usize::from(node)] = self.node(node).boot;
            self.touch(Object::Node(node), None);
        }
    }
}
