//! The operators. Each looks (a quorum read of everything), decides with the real code, and writes later: whatever happened in between is
//! caught only by the preconditions of its writes. Nobody leads: an old leader that goes on is always included.

use crate::sight::{has, look};
use crate::system::{Model, Next, Step};
use crate::world::{
    Act, Attachment, Boot, Broken, Claim, Hold, NODES, NodeId, Object, Operator, PodId, World, nodes, pods,
};
use sqledge_operator::rules::Rule;

impl Model {
    /// What the operators may do next.
    pub fn operator_steps(&self, world: &World, next: &mut Next) {
        for number in 0..self.scenario.operators {
            let name = u8::try_from(number).expect("two");
            match world.operators[number].act {
                None => self.decide(world, number, name, next),
                Some(act) => {
                    let mut after = *world;
                    self.carry_out(&mut after, number, act);
                    next.push((Step::Writes(name, act), false, after));
                    // a crash in the middle; before the first write nothing has happened yet
                    if world.operators[number].half {
                        let mut after = *world;
                        after.operators[number] = Operator::default();
                        next.push((Step::Forgets(name), false, after));
                    }
                }
            }
        }
        if self.scenario.guarded && !world.api.lease.there {
            let mut after = *world;
            let holder = world.api.claim.holder.map(|(holder, _)| holder);
            let let_in = holder.filter(|pod| world.pod(*pod).there && !world.pod(*pod).gated);
            after.api.lease.there = true;
            after.api.lease.hold = let_in.map_or(Hold::Free, Hold::Named);
            after.api.lease.promised = 0;
            after.api.lease.stops = false;
            after.lease_age = 0;
            after.touch(Object::Lease, None);
            next.push((Step::MakesLease, false, after));
        }
    }

    fn decide(&self, world: &World, number: usize, name: u8, next: &mut Next) {
        let mut before = None;
        for overdue in [false, true] {
            let decision = self.decisions.on(&look(world, &self.scenario, overdue));
            if before == Some(decision.act) {
                continue;
            }
            before = Some(decision.act);
            let Some(act) = decision.act else { continue };
            let mut after = *world;
            after.operators[number] = Operator {
                act: Some(act),
                half: matches!(act, Act::Open { name: false, .. }),
                stale: [false; 2],
                boots: world.boots_noted_by(act),
            };
            if self.is_needless(world, act) {
                after.broken = Broken::Needless;
            }
            next.push((Step::Decides(name, act), false, after));
        }
    }

    /// A database that answers, or whose guard renews, is not moved.
    fn is_needless(&self, world: &World, act: Act) -> bool {
        let (Act::Evict(pod) | Act::Seal(pod, _)) = act else {
            return false;
        };
        let lease = world.api.lease;
        let renewed = lease.promised > 0
            && matches!(lease.hold, Hold::Taken(holder, _) if holder == pod)
            && !world.lease_is_expired();
        let object = world.pod(pod);
        // what follows a seal is decided already
        let sealed = matches!(lease.hold, Hold::Sealed(from, _) if from == pod);
        object.there
            && !object.deleting
            && !sealed
            && world.can_write(pod)
            && (renewed || world.serves(pod) && !self.scenario.always)
    }

    fn carry_out(&self, world: &mut World, number: usize, act: Act) {
        let Operator { half, stale, boots, .. } = world.operators[number];
        let refused = stale[usize::from(half)] && self.scenario.preconditions;
        world.operators[number] = Operator::default();
        if refused {
            return;
        }
        match act {
            Act::Record(pod, node, avoid) => {
                let claim = &mut world.api.claim;
                let moved = claim.holder.is_none_or(|(holder, _)| holder != pod);
                claim.avoid = claim.avoided_by(node, avoid);
                claim.boots = boots;
                claim.holder = Some((pod, node));
                if node.is_none() {
                    claim.refused = None;
                }
                let avoid = claim.avoid;
                for node in nodes() {
                    let machine = world.node_mut(node);
                    machine.heard &= !moved;
                    machine.reported &= !moved;
                    machine.settled &= has(avoid, node);
                }
                world.touch(Object::Claim, None);
            }
            Act::RefusePin(_, node) if !half => {
                world.api.claim.refused = Some(node);
                world.touch(Object::Claim, None);
                world.operators[number] = Operator {
                    act: Some(act),
                    half: true,
                    stale,
                    ..Operator::default()
                };
            }
            Act::RefusePin(pod, _) | Act::Evict(pod) => world.remove_pod(pod),
            Act::Shrink(node) => {
                world.api.in_use &= !(1 << node);
                world.node_mut(node).behind = world.node(node).deaf;
                world.touch(Object::Node(node), None);
            }
            Act::DeleteAttachment(node) => {
                let attachment = &mut world.api.attachments[usize::from(node)];
                if *attachment == Attachment::Attached {
                    *attachment = Attachment::Detaching;
                    world.touch(Object::Attachment(node), None);
                }
            }
            Act::Lose(node) => {
                let claim = &mut world.api.claim;
                claim.avoid |= 1 << node;
                claim.boots = boots;
                world.touch(Object::Claim, None);
            }
            Act::Seal(pod, after) => Self::give(world, Hold::Sealed(pod, after)),
            Act::Open { pod, name: true, .. } if !half => {
                Self::give(world, Hold::Named(pod));
                world.operators[number] = Operator {
                    act: Some(act),
                    half: true,
                    stale,
                    ..Operator::default()
                };
            }
            Act::Open { pod, pin, avoids, .. } => {
                let object = world.pod_mut(pod);
                if object.there {
                    object.gated = false;
                    object.pin = pin;
                    object.avoids = avoids;
                    world.touch(Object::Pod(pod), None);
                }
            }
        }
    }

    fn give(world: &mut World, hold: Hold) {
        if !world.api.lease.there {
            return;
        }
        world.api.lease.hold = hold;
        world.api.lease.promised = 0;
        world.api.lease.stops = false;
        world.lease_age = 0;
        world.touch(Object::Lease, None);
    }

    /// The Lease was renewed.
    pub fn renewed(&self, world: &mut World) {
        // without it the time runs on from when the Lease was first seen
        if self.has(Rule::ChangesCount) {
            world.lease_age = 0;
        }
    }
}

impl Claim {
    /// What is on the list after a record: a pod that is placed takes only its own node off.
    fn avoided_by(&self, node: Option<NodeId>, avoid: u8) -> u8 {
        node.map_or(avoid, |node| self.avoid & !(1 << node))
    }
}

impl World {
    /// What an act that writes on the claim notes of the lost nodes.
    fn boots_noted_by(&self, act: Act) -> [Boot; NODES] {
        let claim = &self.api.claim;
        let avoid = match act {
            // what the caches show is enough for it, and says nothing about the lost nodes
            Act::Record(_, Some(node), _) => {
                let mut boots = claim.boots;
                boots[usize::from(node)] = Boot::default();
                return boots;
            }
            Act::Record(_, None, avoid) => avoid,
            Act::Lose(node) => claim.avoid | 1 << node,
            _ => 0,
        };
        let mut boots = [Boot::default(); NODES];
        for node in nodes().filter(|node| has(avoid, *node)) {
            let index = usize::from(node);
            let of_record = claim.holder.is_some_and(|(_, at)| at == Some(node));
            boots[index] = if of_record || self.attachment(node) != Attachment::None {
                if has(self.api.objects, node) {
                    Boot::Number(self.api.boots[index])
                } else {
                    Boot::Unknown
                }
            } else if has(claim.avoid, node) {
                claim.boots[index]
            } else if has(self.api.in_use, node) {
                Boot::Unknown
            } else {
                Boot::Unused
            };
        }
        boots
    }

    /// The object of a pod goes.
    pub fn remove_pod(&mut self, pod: PodId) {
        *self.pod_mut(pod) = crate::world::Pod::default();
        self.touch(Object::Pod(pod), None);
    }

    /// Whether the `ReplicaSet` makes a pod.
    pub fn wants_pod(&self) -> bool {
        !pods().any(|pod| {
            let object = self.pod(pod);
            object.there && object.ours && !object.deleting
        })
    }

    /// Whether the kubelet of a node is to run the pod, by the API server.
    pub fn is_wanted(&self, pod: PodId, node: u8) -> bool {
        let object = self.pod(pod);
        object.there && !object.gated && !object.deleting && object.node == Some(node) && has(self.api.objects, node)
    }
}
