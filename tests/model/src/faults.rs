//! What may go wrong, and what careless hands do. Each takes one of the scenario's faults; getting well again is one, too, because nothing may
//! rely on it.

use sqledge_operator::guard::rules::Input;

use crate::scenario::Fault;
use crate::sight::has;
use crate::system::{Model, Next, Step};
use crate::world::{Attachment, Cell, Engine, Link, NodeId, Object, PodId, Power, Stage, View, World, nodes, pods};

impl Model {
    /// Every fault that can happen now, and the word of a human.
    pub fn fault_steps(&self, world: &World, next: &mut Next) {
        if self.scenario.human
            && let Some((holder, Some(node))) = world.api.claim.holder
            && world.node(node).power == Power::Off
            && world.api.word != Some(holder)
        {
            let mut after = *world;
            after.api.word = Some(holder);
            next.push((Step::Word(holder), true, after));
        }
        if world.faults_left == 0 {
            return;
        }
        for &fault in self.scenario.faults {
            let pods: Vec<Option<PodId>> = match fault {
                Fault::Delete
                | Fault::DeleteByForce
                | Fault::OpenByHand
                | Fault::Terminate
                | Fault::Hang
                | Fault::HangForGood
                | Fault::ForeignPodGoes => pods().map(Some).collect(),
                _ => vec![None],
            };
            for pod in pods {
                let mut after = *world;
                after.faults_left -= 1;
                let happens = match pod {
                    Some(pod) => self.befalls_pod(&mut after, fault, pod),
                    None => self.befalls_cluster(&mut after, fault),
                };
                if happens {
                    next.push((Step::Happens(fault), true, after));
                }
            }
        }
    }

    fn befalls_pod(&self, world: &mut World, fault: Fault, pod: PodId) -> bool {
        let object = *world.pod(pod);
        let engine = world.cell(pod).engine;
        let runs = world.cell(pod).guard != 0 && world.cell(pod).kill == 0;
        match fault {
            Fault::Delete
                if object.there && object.ours && !object.gated && !object.deleting && object.node.is_some() =>
            {
                world.pod_mut(pod).deleting = true;
                world.touch(Object::Pod(pod), None);
            }
            Fault::DeleteByForce if object.there && object.ours => world.remove_pod(pod),
            Fault::ForeignPodGoes if object.there && !object.ours => world.remove_pod(pod),
            Fault::OpenByHand if object.there && object.gated => {
                world.pod_mut(pod).gated = false;
                world.touch(Object::Pod(pod), None);
            }
            Fault::Terminate if runs => self.guard(world, pod, Input::Terminate),
            Fault::Hang if runs && engine == Engine::On => world.cell_mut(pod).engine = Engine::Hung,
            Fault::HangForGood if runs && engine == Engine::On => world.cell_mut(pod).engine = Engine::Undead,
            _ => return false,
        }
        true
    }

    fn befalls_cluster(&self, world: &mut World, fault: Fault) -> bool {
        let machine = |world: &World, node: NodeId| *world.node(node);
        match fault {
            Fault::PowerOff(node) if machine(world, node).power != Power::Off => world.power_off(node),
            Fault::PowerOn(node) if machine(world, node).power == Power::Off => world.start_machine(node),
            Fault::Pause(node) if machine(world, node).power == Power::Up => {
                world.node_mut(node).power = Power::Paused;
                world.node_mut(node).deaf = true;
            }
            Fault::Wake(node) if machine(world, node).power == Power::Paused => world.node_mut(node).power = Power::Up,
            Fault::Cut(node) if machine(world, node).link == Link::Full => {
                world.node_mut(node).link = Link::Dark;
                world.node_mut(node).deaf = true;
            }
            Fault::CutFromApi(node) if machine(world, node).link == Link::Full => {
                world.node_mut(node).link = Link::NoApi;
                world.node_mut(node).deaf = true;
            }
            Fault::Heal(node) if machine(world, node).link != Link::Full => world.node_mut(node).link = Link::Full,
            Fault::KubeletStops(node) if !machine(world, node).kubelet_stopped => {
                world.node_mut(node).kubelet_stopped = true;
            }
            Fault::KubeletStarts(node) if machine(world, node).kubelet_stopped => {
                world.node_mut(node).kubelet_stopped = false;
                world.node_mut(node).deaf = false;
                world.node_mut(node).behind = false;
            }
            Fault::GuardIsCut(node) if !machine(world, node).guard_cut => world.node_mut(node).guard_cut = true,
            Fault::GuardHeals(node) if machine(world, node).guard_cut => world.node_mut(node).guard_cut = false,
            Fault::Fill(node) if !machine(world, node).full => world.node_mut(node).full = true,
            Fault::Cordon(node) if has(world.api.schedulable, node) => {
                world.api.schedulable &= !(1 << node);
                world.touch(Object::Node(node), None);
            }
            // whoever deletes a Node has not just seen a pod placed there: the operator has written down where it is
            Fault::DeleteNode(node) if has(world.api.objects, node) && world.placement_is_recorded() => {
                world.remove_node(node);
            }
            Fault::MachineGoes(node) if has(world.api.objects, node) => {
                world.power_off(node);
                world.remove_node(node);
            }
            Fault::Taint(node) if machine(world, node).power == Power::Off && !has(world.api.out_of_service, node) => {
                world.api.out_of_service |= 1 << node;
                world.touch(Object::Node(node), None);
            }
            Fault::DeleteAttachment(node) if world.attachment(node) == Attachment::Attached => {
                world.api.attachments[usize::from(node)] = Attachment::Detaching;
                world.touch(Object::Attachment(node), None);
            }
            Fault::DeleteLease if world.api.lease.there => {
                world.api.lease = crate::world::Lease::default();
                world.lease_age = 0;
                world.touch(Object::Lease, None);
            }
            Fault::AnnotateLease if world.api.lease.there => {
                world.lease_age = 0;
                world.touch(Object::Lease, None);
            }
            Fault::Reorder if world.api.lease.there => {
                world.api.lease.reordered = !world.api.lease.reordered;
                world.lease_age = 0;
                world.touch(Object::Lease, None);
            }
            Fault::OperatorIsBlind if !world.blind => world.blind = true,
            Fault::LeaderChanges
                if world
                    .nodes
                    .iter()
                    .any(|node| node.heard || node.reported || node.settled) =>
            {
                for node in nodes() {
                    world.node_mut(node).heard = false;
                    world.node_mut(node).reported = false;
                    world.node_mut(node).settled = false;
                }
            }
            Fault::Restore => {
                world.api = self.start.api;
                world.lease_age = 0;
                for object in [Object::Claim, Object::Lease] {
                    world.touch(object, None);
                }
                for pod in pods() {
                    world.touch(Object::Pod(pod), None);
                }
                for node in nodes() {
                    world.touch(Object::Node(node), None);
                    world.touch(Object::Attachment(node), None);
                }
            }
            _ => return false,
        }
        true
    }
}

impl World {
    fn placement_is_recorded(&self) -> bool {
        let noted = |pod: PodId| self.api.claim.holder == Some((pod, self.pod(pod).node));
        pods().all(|pod| self.pod(pod).node.is_none() || noted(pod))
    }

    fn remove_node(&mut self, node: NodeId) {
        self.api.objects &= !(1 << node);
        self.touch(Object::Node(node), None);
        // the garbage collector of pods
        for pod in pods()
            .filter(|pod| self.pod(*pod).node == Some(node))
            .collect::<Vec<_>>()
        {
            self.remove_pod(pod);
        }
    }

    fn start_machine(&mut self, node: NodeId) {
        let machine = self.node_mut(node);
        machine.power = Power::Up;
        machine.boot += 1;
        machine.deaf = false;
        machine.behind = false;
    }

    fn power_off(&mut self, node: NodeId) {
        self.node_mut(node).power = Power::Off;
        self.node_mut(node).stage = Stage::None;
        if self.attachment(node) == Attachment::None {
            self.node_mut(node).access = false;
        }
        for pod in pods() {
            if self.cell(pod).view != View::Unknown && self.cell(pod).at == node {
                let start = self.cell(pod).start;
                *self.cell_mut(pod) = Cell {
                    start,
                    ..Cell::default()
                };
            }
        }
    }
}
