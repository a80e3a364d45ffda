//! One replica of the operator, driven pass by pass: its caches show what the test lets them show, its client speaks through the fault
//! layer, and its login is answered by the machines of the world.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::runtime::controller::Action;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use sqledge_operator::api::SqlEdgeInstance;
use sqledge_operator::cluster::Cluster;
use sqledge_operator::context::{Context, Memory};
use sqledge_operator::controller;
use sqledge_operator::driver_class::DriverClass;
use sqledge_operator::error::Error;
use sqledge_operator::events::{Events, Publisher};
use sqledge_operator::heartbeats::Heartbeats;
use sqledge_operator::leader::Leadership;
use sqledge_operator::login::{Attempt, Change, Door, Target};
use sqledge_operator::logins::Logins;
use sqledge_operator::metrics::Metrics;
use sqledge_operator::readable::UnreadableInstances;
use sqledge_operator::settings::{Identity, Settings, Switch, Timing};
use sqledge_operator::space::{Space, Told};
use sqledge_operator::watch::{Caches, NODE_LEASES, Synced};

use crate::chance::Chance;
use crate::mirror::{Mirror, name, text};
use crate::wire::{Fault, Wire};
use crate::world::{DRIVER, INSTANCE, State, World};

/// Longer than any time after which the operator looks again or calls a Lease stale.
const LONG: Duration = Duration::from_secs(400);

/// How an operator is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What its settings say about the driver.
    pub class: Option<DriverClass>,
    pub fast_detach: Switch,
    pub image: String,
    /// Time for one call.
    pub call: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            class: Some(DriverClass::Revoke),
            fast_detach: Switch::Enabled,
            image: "registry.example/operator:1".to_owned(),
            call: Duration::from_secs(20),
        }
    }
}

/// How far each cache lags behind, in writes of the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    pub instances: usize,
    pub deployments: usize,
    pub services: usize,
    pub claims: usize,
    pub pods: usize,
    pub nodes: usize,
    pub attachments: usize,
    pub guards: usize,
    pub leases: usize,
}

/// How a pass ended.
#[derive(Debug)]
pub enum Passed {
    /// It looks again after this time, if it does at all.
    Again(Option<Duration>),
    Failed(Error),
    Crashed,
    /// Its cache does not show the instance.
    NothingToSee,
}

struct Writers {
    instances: Writer<SqlEdgeInstance>,
    deployments: Writer<Deployment>,
    services: Writer<Service>,
    claims: Writer<PersistentVolumeClaim>,
    pods: Writer<Pod>,
    nodes: Writer<Node>,
    attachments: Writer<VolumeAttachment>,
    accounts: Writer<ServiceAccount>,
    roles: Writer<Role>,
    bindings: Writer<RoleBinding>,
    leases: Writer<Lease>,
}

/// The API server's objects on their way into the caches of one replica.
struct Watched<'a> {
    mirror: &'a Mirror,
    /// By kind, how many of its changes the cache has seen: parsing is dear, and most of the time nothing is new.
    shown: &'a mut BTreeMap<&'static str, usize>,
}

impl Watched<'_> {
    fn deliver(mut self, writers: &mut Writers, lag: &Lag, context: &Context) {
        self.fill(&mut writers.instances, "sqledgeinstances", lag.instances, |_| true);
        self.fill(&mut writers.deployments, "deployments", lag.deployments, is_ours);
        self.fill(&mut writers.services, "services", lag.services, is_ours);
        self.fill(&mut writers.claims, "persistentvolumeclaims", lag.claims, is_ours);
        self.fill(&mut writers.pods, "pods", lag.pods, is_ours);
        self.fill(&mut writers.nodes, "nodes", lag.nodes, |_| true);
        self.fill(&mut writers.attachments, "volumeattachments", lag.attachments, |_| true);
        self.fill(&mut writers.accounts, "serviceaccounts", lag.guards, is_ours);
        self.fill(&mut writers.roles, "roles", lag.guards, is_ours);
        self.fill(&mut writers.bindings, "rolebindings", lag.guards, is_ours);
        if let Some(moment) = self.news("leases", lag.leases) {
            self.show(&mut writers.leases, "leases", moment, is_ours);
            for lease in self.mirror.list_as_of("leases", moment) {
                let (namespace, version) = (
                    text(lease, "/metadata/namespace"),
                    text(lease, "/metadata/resourceVersion"),
                );
                if namespace == NODE_LEASES {
                    context.heartbeats.saw(name(lease), version);
                } else {
                    context.renewals.saw(&format!("{namespace}/{}", name(lease)), version);
                }
            }
        }
    }

    /// The moment to show of a kind, unless it looks as it did.
    fn news(&mut self, plural: &'static str, behind: usize) -> Option<usize> {
        let moment = self.mirror.moment().saturating_sub(behind);
        let changes = self.mirror.changes(plural, moment);
        (self.shown.insert(plural, changes) != Some(changes)).then_some(moment)
    }

    fn fill<K>(&mut self, writer: &mut Writer<K>, plural: &'static str, behind: usize, shows: impl Fn(&K) -> bool)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
    {
        if let Some(moment) = self.news(plural, behind) {
            self.show(writer, plural, moment, shows);
        }
    }

    fn show<K>(&self, writer: &mut Writer<K>, plural: &str, moment: usize, shows: impl Fn(&K) -> bool)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
    {
        writer.apply_watcher_event(&Event::Init);
        for object in self.mirror.list_as_of(plural, moment) {
            let object = K::deserialize(object).expect("the API server's own object parses");
            if shows(&object) {
                writer.apply_watcher_event(&Event::InitApply(object));
            }
        }
        writer.apply_watcher_event(&Event::InitDone);
    }
}

/// A replica.
pub struct Operator {
    pub wire: Arc<Wire>,
    pub context: Arc<Context>,
    state: Arc<Mutex<State>>,
    setup: Setup,
    writers: Writers,
    shown: BTreeMap<&'static str, usize>,
    publisher: tokio::sync::Mutex<Publisher>,
}

impl Operator {
    pub fn new(world: &World, setup: &Setup, fault: Fault) -> Self {
        Self::replica(world, setup, fault, "operator")
    }

    /// One of several.
    pub fn replica(world: &World, setup: &Setup, fault: Fault, actor: &'static str) -> Self {
        let wire = Wire::new(world.client.clone(), actor, world.state.clone(), fault);
        let (context, writers, publisher) = fresh(&wire, &world.state, setup);
        Self {
            wire,
            context,
            state: world.state.clone(),
            setup: setup.clone(),
            writers,
            shown: BTreeMap::new(),
            publisher: publisher.into(),
        }
    }

    /// The process ended and another one took over: nothing is remembered.
    pub fn restart(&mut self) {
        let publisher;
        (self.context, self.writers, publisher) = fresh(&self.wire, &self.state, &self.setup);
        self.shown.clear();
        self.publisher = publisher.into();
    }

    /// The same with another image or other settings.
    pub fn restart_as(&mut self, setup: &Setup) {
        self.setup = setup.clone();
        self.restart();
    }

    /// So much time goes by that every remembered result is old, and every Lease that is not renewed stale.
    pub fn age(&self) {
        self.context.heartbeats.age(LONG);
        self.context.renewals.age(LONG);
        self.context.memory.age(LONG);
        self.context.logins.age(LONG);
    }

    /// The watches deliver, but not more than this.
    pub fn look(&mut self, lag: &Lag) {
        let state = self.state.lock().expect("no panic inside");
        let watched = Watched {
            mirror: &state.mirror,
            shown: &mut self.shown,
        };
        watched.deliver(&mut self.writers, lag, &self.context);
    }

    /// The watch of Leases delivers what one node has renewed last, and no cache anything else.
    pub fn hear(&self, node: &str) {
        let state = self.state.lock().expect("no panic inside");
        let lease = state.mirror.get("leases", node);
        let version = lease.map(|lease| text(lease, "/metadata/resourceVersion"));
        self.context.heartbeats.saw(node, version.unwrap_or_default());
    }

    /// A turn: a pass, and as long as one has acted and the others are slow, the next one.
    pub async fn turn(&mut self, lag: &Lag, chance: &mut Chance) -> Passed {
        loop {
            self.look(lag);
            let passed = self.pass().await;
            let acted = matches!(passed, Passed::Again(Some(after)) if after < Duration::from_millis(100));
            if !acted || chance.percent(40) {
                return passed;
            }
        }
    }

    /// One pass on what the caches show, and the events that it handed in: beside the pass they would come in any order.
    pub async fn pass(&self) -> Passed {
        let state = self.context.caches.instances.state();
        let Some(instance) = state.iter().find(|instance| instance.name_any() == INSTANCE) else {
            return Passed::NothingToSee;
        };
        let pass = async {
            let result = Box::pin(controller::pass(instance.clone(), self.context.clone())).await;
            self.publisher.lock().await.drain().await;
            result
        };
        tokio::select! {
            biased;
            () = self.wire.crashed.notified() => Passed::Crashed,
            result = pass => match result {
                Ok(action) => Passed::Again(requeue(&action)),
                Err(error) => Passed::Failed(error),
            },
        }
    }
}

/// `Action` does not show its field, but its text does: `Some(1.5s)`.
fn requeue(action: &Action) -> Option<Duration> {
    let text = format!("{action:?}");
    let value = text.split_once("Some(")?.1.split_once(')')?.0;
    let (number, unit) = value.split_at(value.find(char::is_alphabetic)?);
    let scale = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => panic!("an unknown unit in {text}"),
    };
    Some(Duration::from_secs_f64(
        number.parse::<f64>().expect("a number") * scale,
    ))
}

fn fresh(wire: &Arc<Wire>, state: &Arc<Mutex<State>>, setup: &Setup) -> (Arc<Context>, Writers, Publisher) {
    let (instances, instances_writer) = reflector::store();
    let (deployments, deployments_writer) = reflector::store();
    let (services, services_writer) = reflector::store();
    let (claims, claims_writer) = reflector::store();
    let (pods, pods_writer) = reflector::store();
    let (nodes, nodes_writer) = reflector::store();
    let (attachments, attachments_writer) = reflector::store();
    let (accounts, accounts_writer) = reflector::store();
    let (roles, roles_writer) = reflector::store();
    let (bindings, bindings_writer) = reflector::store();
    let (leases, leases_writer) = reflector::store();
    let (_, leadership) = Leadership::always();
    let reporter = Reporter {
        controller: "sqledge-operator".into(),
        instance: Some("operator-0".into()),
    };
    let metrics = Arc::new(Metrics::default());
    let (events, publisher) = Events::new(Recorder::new(wire.client(), reporter), setup.call, metrics.clone());
    let driver_classes = setup.class.map(|class| (DRIVER.to_owned(), class));
    let context = Context {
        cluster: Cluster::new(wire.client(), setup.call),
        caches: Caches {
            instances,
            unreadable: UnreadableInstances::default(),
            deployments,
            services,
            claims,
            pods,
            nodes,
            attachments,
            accounts,
            roles,
            bindings,
            leases,
            synced: Synced::already(),
        },
        heartbeats: Arc::new(Heartbeats::default()),
        renewals: Arc::new(Heartbeats::default()),
        logins: Logins::new(Arc::new(Doors(state.clone())), LONG).0,
        settings: Settings {
            driver_classes: driver_classes.into_iter().collect(),
            fast_detach: setup.fast_detach,
            ..Settings::default()
        },
        identity: Identity {
            pod_name: "operator-0".into(),
            namespace: "default".into(),
            image: setup.image.clone(),
        },
        timing: Timing {
            // only `age` makes a Lease stale, however slow this machine is
            node_lease_stale: Duration::from_secs(300),
            detach_fallback: Duration::from_millis(1),
            call: setup.call,
            ..Timing::default()
        },
        leadership,
        metrics,
        events,
        memory: Memory::default(),
    };
    let writers = Writers {
        instances: instances_writer,
        deployments: deployments_writer,
        services: services_writer,
        claims: claims_writer,
        pods: pods_writer,
        nodes: nodes_writer,
        attachments: attachments_writer,
        accounts: accounts_writer,
        roles: roles_writer,
        bindings: bindings_writer,
        leases: leases_writer,
    };
    (Arc::new(context), writers, publisher)
}

/// The watches of the operator ask for this label.
fn is_ours<K: Resource>(object: &K) -> bool {
    let label = object.labels().get("app.kubernetes.io/managed-by");
    label.is_some_and(|manager| manager == "sqledge-operator")
}

/// The login, answered by the engine that really runs at that address, if it can be reached.
struct Doors(Arc<Mutex<State>>);

impl Door for Doors {
    fn login(&self, target: Target) -> BoxFuture<'_, Attempt> {
        let state = self.0.lock().expect("no panic inside");
        let runs = state.physics.containers.values().any(|container| {
            container.engine && container.address == target.host && state.physics.machine(&container.node).reachable
        });
        let attempt = if runs {
            Attempt::Succeeded {
                version: "16.0.1000.6".into(),
                broken: Vec::new(),
                space: Told::Space(Space {
                    total: 8 << 30,
                    available: 4 << 30,
                }),
            }
        } else {
            Attempt::NoAnswer("no answer within 2 s".into())
        };
        Box::pin(std::future::ready(attempt))
    }

    fn change_password(&self, _: Target, _: String) -> BoxFuture<'_, Change> {
        unreachable!("every password fits")
    }
}
