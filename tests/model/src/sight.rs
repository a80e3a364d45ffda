//! What the operator sees: the model's state in the words of a `Scene`, the real decision on it, and that decision back in the model's words.
//! Every distinct sight is decided once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use sqledge_operator::cluster::Judged;
use sqledge_operator::failover::{self, Act as Ordered, Placement, State};
use sqledge_operator::lease::{self, Promise, Record, Seal};
use sqledge_operator::rules::Rules;
use sqledge_operator::scene;
use sqledge_operator::settings::Timing;

use crate::checker::Table;
use crate::scenario::{Scenario, node_name, pod_name};
use crate::world::{Act, Api, Attachment, Boot, Hold, NodeId, PodId, World, nodes, pods};

const UNIQUE: &str = "volume";
const PATIENCE: Duration = Duration::from_secs(3600);

/// Everything that a decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sight {
    /// The objects.
    pub api: Api,
    /// Nodes whose Lease is stale, and those that renewed since the release.
    pub silent: u8,
    pub heard: u8,
    pub reported: u8,
    /// Nodes that have settled.
    pub settled: u8,
    pub lease_expired: bool,
    /// The database answered the operator's login.
    pub login: Option<bool>,
    /// Pods for which the scheduler finds no place.
    pub homeless: u8,
    /// The targeted detach has taken long enough.
    pub overdue: bool,
}

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub act: Option<Act>,
    /// Held, with a reason that only a proof or a human ends.
    pub held: bool,
    pub reason: &'static str,
}

/// The operator's decisions so far.
pub struct Decisions {
    scenario: Scenario,
    rules: Rules,
    known: RefCell<Table<Sight, Decision>>,
}

impl Decisions {
    /// None yet.
    pub fn new(scenario: Scenario, rules: Rules) -> Self {
        Self {
            scenario,
            rules,
            known: RefCell::default(),
        }
    }

    /// The decision on what is seen.
    pub fn on(&self, sight: &Sight) -> Decision {
        if let Some(known) = self.known.borrow().get(sight) {
            return *known;
        }
        let scene = self.scene(sight);
        let verdict = failover::decide(&scene, self.rules);
        let lost = scene.lost_nodes();
        let decision = Decision {
            act: verdict.act.as_ref().map(|act| ordered(act, &lost)),
            held: verdict.state == State::Blocked,
            reason: verdict.reason,
        };
        self.known.borrow_mut().insert(*sight, decision);
        decision
    }

    fn scene(&self, sight: &Sight) -> scene::Scene {
        let Sight { api, .. } = sight;
        let claim = scene::Claim {
            name: "data".into(),
            exists: true,
            exclusive: self.scenario.exclusive,
            holder: api.claim.holder.map(|(pod, node)| scene::Holder {
                pod: pod_name(pod).into(),
                node: node.map(|node| node_name(node).into()),
            }),
            holder_node_is_provided: self.scenario.provided,
            holder_stopped: false,
            avoid: names(api.claim.avoid),
            boots: nodes()
                .filter_map(|node| {
                    let noted = match api.claim.boots[usize::from(node)] {
                        Boot::Unknown => return None,
                        Boot::Unused => String::new(),
                        Boot::Number(number) => number.to_string(),
                    };
                    Some((node_name(node).to_owned(), noted))
                })
                .collect(),
            pin_refused: api.claim.refused.map(|node| node_name(node).into()),
        };
        let attached = |node: &NodeId| api.attachments[usize::from(*node)] != Attachment::None;
        scene::Scene {
            claim,
            volume: Some(scene::Volume {
                name: "pv".into(),
                driver: Some("disk.example.com".into()),
                attachable: true,
                class: self.scenario.class,
                unique_name: Some(UNIQUE.into()),
            }),
            pods: pods().filter_map(|pod| self.pod(sight, pod)).collect(),
            attachments: nodes()
                .filter(attached)
                .map(|node| scene::Attachment {
                    judged: judged(node_name(node)),
                    node: node_name(node).into(),
                    deleting: api.attachments[usize::from(node)] == Attachment::Detaching,
                    detach_error: None,
                })
                .collect(),
            nodes: nodes()
                .filter(|node| has(api.objects, *node))
                .map(|node| (node_name(node).to_owned(), self.node(sight, node)))
                .collect(),
            login: match sight.login {
                None => scene::Login::NotTried,
                Some(true) => scene::Login::Succeeded,
                Some(false) => scene::Login::Failed("no answer".into()),
            },
            confirmed_dead: api.word.map(|pod| pod_name(pod).into()),
            fast_detach: true,
            detaching_for: sight.overdue.then_some(PATIENCE),
            lease: self.lease(sight),
            policy: scene::Policy {
                proof: self.scenario.proof,
                moves_while_it_answers: self.scenario.always,
            },
            timing: Timing::default(),
        }
    }

    fn pod(&self, sight: &Sight, pod: PodId) -> Option<scene::PodFacts> {
        let object = sight.api.pods[usize::from(pod)];
        object.there.then(|| scene::PodFacts {
            judged: judged(pod_name(pod)),
            ours: object.ours,
            gated: object.gated,
            guarded: self.scenario.guarded && object.ours,
            node: object.node.map(|node| node_name(node).into()),
            deleting: object.deleting,
            finished: false,
            pinned: object.pin.is_some(),
            unschedulable: has(sight.homeless, pod).then(|| "no node fits".into()),
            unschedulable_for: PATIENCE,
            has_finalizers: false,
            avoids: names(object.avoids),
            node_selector: BTreeMap::new(),
        })
    }

    fn node(&self, sight: &Sight, node: NodeId) -> scene::NodeFacts {
        let silent = has(sight.silent, node);
        let unchanged = if silent {
            PATIENCE
        } else if self.scenario.rarely_heard && sight.lease_expired {
            PATIENCE.saturating_sub(Duration::from_millis(1))
        } else {
            Duration::ZERO
        };
        let listed = |mask: u8| {
            if has(mask, node) {
                vec![UNIQUE.to_owned()]
            } else {
                Vec::new()
            }
        };
        scene::NodeFacts {
            judged: judged(node_name(node)),
            lease_unchanged: Some(unchanged),
            lease_renewed: true,
            renewed_since_release: has(sight.heard, node),
            reported_since_release: has(sight.reported, node),
            boot: Some(sight.api.boots[usize::from(node)].to_string()),
            unlisted_for: if has(sight.settled, node) {
                PATIENCE
            } else {
                Duration::ZERO
            },
            ready: if silent {
                scene::NodeReady::Unknown
            } else {
                scene::NodeReady::True
            },
            schedulable: has(sight.api.schedulable, node) && !has(sight.api.out_of_service, node),
            out_of_service: has(sight.api.out_of_service, node),
            is_provided: self.scenario.provided,
            labels: [("kubernetes.io/hostname".to_owned(), node_name(node).to_owned())].into(),
            volumes_in_use: listed(sight.api.in_use),
            volumes_attached: listed(sight.api.status_attached),
        }
    }

    fn lease(&self, sight: &Sight) -> Option<scene::LeaseFacts> {
        let lease = sight.api.lease;
        if !self.scenario.guarded || !lease.there {
            return None;
        }
        let name = |pod: PodId| pod_name(pod).to_owned();
        let hold = match lease.hold {
            Hold::Free => lease::Hold::Sealed(None),
            Hold::Sealed(pod, after) => lease::Hold::Sealed(Some(Seal { pod: name(pod), after })),
            Hold::Named(pod) => lease::Hold::Named(name(pod)),
            Hold::Taken(pod, start) => lease::Hold::Taken {
                pod: name(pod),
                start: start.to_string(),
            },
            Hold::Stopped(pod) => lease::Hold::Stopped(name(pod)),
        };
        Some(scene::LeaseFacts {
            judged: judged("lease"),
            record: Record {
                hold,
                epoch: 0,
                promise: (lease.promised > 0).then_some(Promise {
                    takeover_after: PATIENCE,
                    stops_after: lease.stops.then_some(Duration::from_secs(1)),
                }),
                orders: self.scenario.orders(lease.reordered),
            },
            unchanged: if sight.lease_expired { PATIENCE } else { Duration::ZERO },
        })
    }
}

/// What an operator sees of a world right now.
pub fn look(world: &World, scenario: &Scenario, overdue: bool) -> Sight {
    let mask = |is: &dyn Fn(NodeId) -> bool| nodes().filter(|node| is(*node)).fold(0, |mask, node| mask | 1 << node);
    let running = pods().find(|pod| {
        let pod = world.pod(*pod);
        pod.there && pod.ours && !pod.gated
    });
    Sight {
        api: world.api,
        silent: mask(&|node| world.blind || world.node(node).age >= scenario.silent),
        heard: mask(&|node| world.node(node).heard),
        reported: mask(&|node| world.node(node).reported),
        settled: mask(&|node| world.node(node).settled),
        lease_expired: world.lease_is_expired(),
        login: running.and_then(|pod| world.pod(pod).node.map(|_| !world.blind && world.serves(pod))),
        homeless: pods()
            .filter(|pod| {
                let object = world.pod(*pod);
                object.there
                    && !object.gated
                    && object.node.is_none()
                    && !nodes().any(|node| world.fits(*pod, node, scenario))
            })
            .fold(0, |mask, pod| mask | 1 << pod),
        overdue,
    }
}

impl World {
    /// Unchanged for as long as it promises.
    pub fn lease_is_expired(&self) -> bool {
        let promised = self.api.lease.promised;
        promised > 0 && self.lease_age >= promised
    }

    /// Whether the scheduler would put the pod there. It takes silent nodes, too: our pods tolerate them.
    pub fn fits(&self, pod: PodId, node: NodeId, scenario: &Scenario) -> bool {
        let object = self.pod(pod);
        let users = pods().filter(|other| *other != pod);
        let used = |other: PodId| self.pod(other).there && self.pod(other).node.is_some();
        has(self.api.objects, node)
            && has(self.api.schedulable, node)
            && !has(self.api.out_of_service, node)
            && !self.node(node).full
            && object.pin.is_none_or(|pin| pin == node)
            && !has(object.avoids, node)
            && !(scenario.exclusive && users.into_iter().any(used))
    }
}

fn ordered(act: &Ordered, lost: &[String]) -> Act {
    match act {
        Ordered::Record(holder) => {
            let node = holder.node.as_deref().map(node_id);
            let avoid = if node.is_none() { mask(lost) } else { 0 };
            Act::Record(pod_id(&holder.pod), node, avoid)
        }
        Ordered::RefusePin { pod, node } => Act::RefusePin(pod_id(&pod.uid), node_id(node)),
        Ordered::Evict { pod } => Act::Evict(pod_id(&pod.uid)),
        Ordered::Stop { .. } => unreachable!("the volumes of the model are attached"),
        Ordered::ShrinkVolumesInUse { node, .. } => Act::Shrink(node_id(&node.name)),
        Ordered::DeleteAttachment { attachment } => Act::DeleteAttachment(node_id(&attachment.name)),
        Ordered::Seal { seal, .. } => Act::Seal(pod_id(&seal.pod), seal.after),
        Ordered::Lose { node } => Act::Lose(node_id(node)),
        Ordered::OpenGate { pod, placement, name } => {
            let (pin, avoids) = match placement {
                Placement::Pinned(node) => (Some(node_id(node)), 0),
                Placement::Avoiding(nodes) => (None, mask(nodes)),
            };
            Act::Open {
                pod: pod_id(&pod.uid),
                pin,
                avoids,
                name: name.is_some(),
            }
        }
    }
}

/// Whether a set has a member.
pub fn has(mask: u8, member: u8) -> bool {
    mask & 1 << member != 0
}

fn names(mask: u8) -> Vec<String> {
    nodes()
        .filter(|node| has(mask, *node))
        .map(|node| node_name(node).to_owned())
        .collect()
}

fn mask(names: &[String]) -> u8 {
    names.iter().fold(0, |mask, name| mask | 1 << node_id(name))
}

fn pod_id(name: &str) -> PodId {
    pods().find(|pod| pod_name(*pod) == name).expect("a pod of the model")
}

fn node_id(name: &str) -> NodeId {
    nodes()
        .find(|node| node_name(*node) == name)
        .expect("a node of the model")
}

fn judged(name: &str) -> Judged {
    Judged {
        namespace: String::new(),
        name: name.into(),
        uid: name.into(),
        resource_version: String::new(),
    }
}
