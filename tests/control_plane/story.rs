//! Stories: a world, something that happens in it, and how it must end.

use futures::StreamExt as _;
use serde_json::{Value, json};
use sqledge_operator::driver_class::DriverClass;
use sqledge_operator::lease;
use sqledge_operator::settings::Switch;

use std::collections::{BTreeMap, BTreeSet};

use crate::chance::Chance;
use crate::mirror::{name, text, uid};
use crate::operator::{Operator, Setup};
use crate::outcome;
use crate::physics::{Detach, Machine};
use crate::settle::{Weather, assert_at_rest, begin, settle};
use crate::wire::{Fault, Sent};
use crate::world::{INSTANCE, Make, World};

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The instance is created; all others happen to one that is Ready.
    Created,
    PodDeleted,
    /// Its object is gone at once, its engine runs until the kubelet notices.
    PodForceDeleted,
    /// The node of the pod becomes this.
    Node(Machine),
    /// The same, and the pod is force-deleted by somebody at the same moment.
    NodeAndPod(Machine),
    /// The same, and a human says that the node is dead, as it is.
    NodeConfirmed(Machine),
    /// The node loses power and its object is removed.
    NodeRemoved,
    DeletionPolicy,
    Image,
    Cordoned,
    /// Somebody deletes the Lease.
    LeaseDeleted,
    /// The user wants a guard from now on, or none.
    Guard(&'static str),
}

/// A story.
#[derive(Clone, Debug)]
pub struct Story {
    pub name: &'static str,
    pub event: Event,
    pub make: Make,
    pub setup: Setup,
    /// Whether the instance is Ready in the end.
    pub ends_ready: bool,
}

/// How it ended.
pub struct End {
    pub outcome: BTreeMap<String, Value>,
    pub calls: usize,
    /// The calls of the story that were writes, counted from 1.
    write_calls: Vec<usize>,
    pub writes: usize,
    /// The acts that the operator told of.
    pub acts: BTreeSet<String>,
    pub ready: Option<(String, String)>,
    pub violations: Vec<String>,
    pub story: String,
    /// Number of the node that the engine runs on.
    pub node: Option<String>,
    pub evidence: Vec<String>,
}

impl Story {
    pub fn new(name: &'static str, event: Event) -> Self {
        Self {
            name,
            event,
            make: Make::default(),
            setup: Setup::default(),
            ends_ready: true,
        }
    }

    /// On a storage about which nothing is known, and which lies.
    fn on_unknown_storage(mut self) -> Self {
        self.make.detach = Detach::Lies;
        self.setup.class = None;
        self
    }

    /// With a claim that several pods of one node may mount.
    fn with_read_write_once(mut self) -> Self {
        self.make.spec["storage"] = json!({"storageClassName": "disk", "accessModes": ["ReadWriteOnce"]});
        self
    }

    /// With these failover settings.
    fn with(mut self, failover: Value) -> Self {
        self.make.spec["failover"] = failover;
        self
    }

    /// With the engine as the first process of its container.
    fn without_guard(self) -> Self {
        self.with(json!({"guard": "Disabled"}))
    }

    /// With a volume that stays on the lost node's list of those in use.
    fn without_fast_detach(mut self) -> Self {
        self.setup.fast_detach = Switch::Disabled;
        self
    }

    fn that_holds(mut self) -> Self {
        self.ends_ready = false;
        self
    }

    /// Creation, pinned restart, node loss, change of the deletion policy.
    pub fn main_ones() -> Vec<Self> {
        vec![
            Self::new("creation", Event::Created),
            Self::new("pod deleted", Event::PodDeleted),
            Self::new("node off, storage revokes", Event::Node(Machine::OFF)),
            Self::new("deletion policy changed", Event::DeletionPolicy),
        ]
    }

    /// All.
    pub fn all() -> Vec<Self> {
        let mut all = Self::main_ones();
        let slow = Self::new("node off, no fast detach", Event::Node(Machine::OFF)).without_fast_detach();
        let mut busy = Self::new("node cut, driver busy", Event::Node(Machine::CUT)).that_holds();
        busy.make.detach = Detach::Refuses;
        busy.setup.class = Some(DriverClass::Busy);
        let mut removed = Self::new("node removed, class unknown", Event::NodeRemoved).on_unknown_storage();
        removed.make.provided = true;
        all.extend([
            slow,
            busy,
            Self::new("pod force-deleted", Event::PodForceDeleted),
            Self::new("pod deleted, ReadWriteOnce", Event::PodDeleted).with_read_write_once(),
            Self::new("pod force-deleted, ReadWriteOnce", Event::PodForceDeleted).with_read_write_once(),
            Self::new("node cut, storage revokes", Event::Node(Machine::CUT)),
            Self::new("node cut, storage revokes, ReadWriteOnce", Event::Node(Machine::CUT)).with_read_write_once(),
            Self::new("node cut and pod force-deleted", Event::NodeAndPod(Machine::CUT)),
            Self::new("node off and pod force-deleted", Event::NodeAndPod(Machine::OFF)),
            Self::new("node deaf, database answers", Event::Node(Machine::DEAF)),
            Self::new("image changed", Event::Image),
            Self::new("node cordoned and pod deleted", Event::Cordoned),
            Self::new("node off, class unknown", Event::Node(Machine::OFF))
                .on_unknown_storage()
                .that_holds(),
            Self::new("node cut, class unknown", Event::Node(Machine::CUT))
                .on_unknown_storage()
                .that_holds(),
            Self::new(
                "node cut and pod force-deleted, class unknown",
                Event::NodeAndPod(Machine::CUT),
            )
            .on_unknown_storage()
            .that_holds(),
            Self::new("node off, class unknown, confirmed", Event::NodeConfirmed(Machine::OFF)).on_unknown_storage(),
            Self::new(
                "node off, class unknown, confirmed, no fast detach",
                Event::NodeConfirmed(Machine::OFF),
            )
            .on_unknown_storage()
            .without_fast_detach(),
            removed,
            Self::new("node object deleted by hand, class unknown", Event::NodeRemoved)
                .on_unknown_storage()
                .that_holds(),
            Self::new("pod deleted, class unknown", Event::PodDeleted).on_unknown_storage(),
        ]);
        all.extend(Self::of_guards());
        all.extend(Self::without_guards());
        all
    }

    /// What only a guard and its Lease make possible.
    fn of_guards() -> Vec<Self> {
        let always = || json!({"lease": "Always"});
        vec![
            Self::new("left alone, storage revokes", Event::Node(Machine::LEFT_ALONE)),
            Self::new("left alone, Lease renewed", Event::Node(Machine::LEFT_ALONE))
                .with(always())
                .that_holds(),
            Self::new("node deaf, Lease renewed", Event::Node(Machine::DEAF)).with(always()),
            Self::new("node cut, Lease renewed", Event::Node(Machine::CUT)).with(always()),
            Self::new("pod force-deleted, Lease renewed", Event::PodForceDeleted).with(always()),
            Self::new("node deaf, class unknown", Event::Node(Machine::DEAF))
                .on_unknown_storage()
                .that_holds(),
            Self::new("node cut, class unknown, proof Lease", Event::Node(Machine::CUT))
                .on_unknown_storage()
                .with(json!({"proof": "Lease"})),
            Self::new(
                "node cut, class unknown, proof Lease, no fast detach",
                Event::Node(Machine::CUT),
            )
            .on_unknown_storage()
            .without_fast_detach()
            .with(json!({"proof": "Lease"})),
            Self::new("Lease deleted", Event::LeaseDeleted),
            Self::new("Lease deleted, Lease renewed", Event::LeaseDeleted).with(always()),
            Self::new("guard switched off", Event::Guard("Disabled")),
            Self::new("guard switched on", Event::Guard("Enabled")).without_guard(),
        ]
    }

    fn without_guards() -> Vec<Self> {
        vec![
            Self::new("pod deleted, no guard", Event::PodDeleted).without_guard(),
            Self::new("node off, no guard", Event::Node(Machine::OFF)).without_guard(),
            Self::new("node cut, no guard, ReadWriteOnce", Event::Node(Machine::CUT))
                .without_guard()
                .with_read_write_once(),
            Self::new("pod force-deleted, no guard, ReadWriteOnce", Event::PodForceDeleted)
                .without_guard()
                .with_read_write_once(),
            Self::new(
                "node cut and pod force-deleted, no guard",
                Event::NodeAndPod(Machine::CUT),
            )
            .without_guard(),
            Self::new("node cut, class unknown, no guard", Event::Node(Machine::CUT))
                .on_unknown_storage()
                .without_guard()
                .that_holds(),
        ]
    }

    /// Plays it, with a fault and weather of choice after the beginning.
    pub async fn play(&self, seed: u64, fault: Fault, weather: &mut impl Weather) -> End {
        let mut chance = Chance::new(seed);
        let world = World::new(&self.make).await;
        let mut operator = Operator::new(&world, &self.setup, Fault::None);
        if self.event != Event::Created {
            world.create_instance(&self.make.spec).await;
            begin(&world, &mut operator, &mut chance).await;
        }
        operator.wire.arm(fault);
        self.happen(&world).await;
        settle(&world, &mut operator, &mut chance, weather).await;
        let (calls, writes) = operator.wire.counts();
        let sent = operator.wire.sent();
        let acts = sent
            .iter()
            .filter(|sent| sent.method == "POST" && sent.path.ends_with("/events"));
        let acts = acts.map(|sent| text(&sent.body, "/reason").to_owned()).collect();
        let write_calls = (1..=calls).filter(|call| sent.get(call - 1).is_some_and(Sent::is_write));
        let about = format!("{} (seed {seed}, {fault:?})", self.name);
        assert_at_rest(&world, &mut operator, &about).await;
        let mut end = End::of(&world, calls, writes);
        end.write_calls = write_calls.collect();
        end.acts = acts;
        world.end().await;
        end
    }

    /// The event.
    pub async fn happen(&self, world: &World) {
        world.lock().trace.push(format!("--- {:?}", self.event));
        let pod = world.lock().pods().into_iter().next();
        let node = world.node(1);
        let pod_path = pod.as_ref().map(|pod| world.pod_path(name(pod))).unwrap_or_default();
        match self.event {
            Event::Created => world.create_instance(&self.make.spec).await,
            Event::PodDeleted => world.delete(&pod_path, None).await,
            Event::PodForceDeleted => world.delete(&pod_path, Some(0)).await,
            Event::Node(machine) => world.change_machine(&node, machine),
            Event::NodeAndPod(machine) => {
                world.change_machine(&node, machine);
                world.delete(&pod_path, Some(0)).await;
            }
            Event::NodeConfirmed(machine) => {
                world.change_machine(&node, machine);
                world.lock().physics.confirmed.insert(node);
                let confirmation = pod.as_ref().map(|pod| uid(pod).to_owned());
                let annotations = json!({"sqledge.io/confirm-node-dead": confirmation});
                world
                    .edit_instance(json!({"metadata": {"annotations": annotations}}))
                    .await;
            }
            Event::NodeRemoved => {
                world.change_machine(&node, Machine::OFF);
                if self.make.provided {
                    // only a provider's controller knows what it says by removing a node
                    world.lock().physics.confirmed.insert(node.clone());
                }
                world.delete(&format!("/api/v1/nodes/{node}"), None).await;
                let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
                world.delete(&format!("{leases}/{node}"), None).await;
            }
            Event::DeletionPolicy => world.edit_instance(json!({"spec": {"deletionPolicy": "Delete"}})).await,
            Event::Image => {
                world
                    .edit_instance(json!({"spec": {"image": "registry.example/engine:2"}}))
                    .await;
            }
            Event::LeaseDeleted => {
                let path = world.path("coordination.k8s.io/v1", "leases", &lease::name(INSTANCE));
                world.delete(&path, None).await;
            }
            Event::Guard(guard) => {
                let failover = json!({"failover": {"guard": guard}});
                world.edit_instance(json!({"spec": failover})).await;
            }
            Event::Cordoned => {
                world
                    .merge(
                        &format!("/api/v1/nodes/{node}"),
                        json!({"spec": {"unschedulable": true}}),
                    )
                    .await;
                world.delete(&pod_path, None).await;
            }
        }
    }
}

impl End {
    fn of(world: &World, calls: usize, writes: usize) -> Self {
        let story = world.story();
        let state = world.lock();
        let status = state
            .mirror
            .get("sqledgeinstances", INSTANCE)
            .map(|i| i["status"].clone());
        let evidence = status
            .as_ref()
            .and_then(|status| status["lastFailover"]["evidence"].as_array());
        Self {
            outcome: outcome::of(&state),
            calls,
            write_calls: Vec::new(),
            writes,
            acts: BTreeSet::new(),
            ready: state.condition("Ready"),
            violations: state.violations.clone(),
            evidence: evidence
                .into_iter()
                .flatten()
                .filter_map(|e| e.as_str().map(str::to_owned))
                .collect(),
            node: state
                .serving_pod()
                .map(|pod| crate::invariant::node_of(&pod).replace(&state.id, "")),
            story,
        }
    }

    /// Whether a call of the story was a write.
    pub fn is_write(&self, call: usize) -> bool {
        self.write_calls.contains(&call)
    }

    /// Nothing broken, and the instance as Ready as it should be.
    pub fn assert_good(&self, about: &str, ends_ready: bool) {
        assert!(
            self.violations.is_empty(),
            "{about}: {:#?}\n{}",
            self.violations,
            self.story
        );
        let ready = self.ready.as_ref().is_some_and(|(status, _)| status == "True");
        assert_eq!(ready, ends_ready, "{about}: {:?}\n{}", self.ready, self.story);
    }

    /// The same end as another one.
    pub fn assert_same(&self, about: &str, other: &Self) {
        let differences = outcome::differences(&self.outcome, &other.outcome);
        assert!(differences.is_empty(), "{about}: {differences:#?}\n{}", self.story);
    }
}

/// Several at a time, in any order.
pub async fn at_once<F: Future<Output = ()>>(stories: impl IntoIterator<Item = F>) {
    futures::stream::iter(stories)
        .buffer_unordered(4)
        .collect::<Vec<()>>()
        .await;
}
