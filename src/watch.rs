//! The watch caches, and what makes an instance be looked at: an event says "look at this instance", nothing more.
//! I/O only; decides nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use futures::channel::mpsc;
use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Resource, ResourceExt as _};
use tokio::sync::watch;

use crate::api::SqlEdgeInstance;
use crate::heartbeats::Heartbeats;
use crate::observe::renewal_key;
use crate::readable::{Readable, UnreadableInstances, readable};
use crate::world::is_stopped;

/// Namespace of the nodes' heartbeats.
pub const NODE_LEASES: &str = "kube-node-lease";
/// Label by which our children are found.
const OURS: &str = "app.kubernetes.io/managed-by=sqledge-operator";
/// Label that names the instance.
const INSTANCE: &str = "app.kubernetes.io/instance";
/// A dead connection is noticed this long (plus 5 s) after its last event; shorter than the client's read timeout.
const WATCH_SECONDS: u32 = 50;

/// In-memory copies of what an ordinary pass reads.
#[derive(Clone)]
pub struct Caches {
    /// All instances, those that cannot be read any more as they were before.
    pub instances: Store<SqlEdgeInstance>,
    /// Which those are, and those that never could.
    pub unreadable: UnreadableInstances,
    /// Our Deployments.
    pub deployments: Store<Deployment>,
    /// Our Services.
    pub services: Store<Service>,
    /// Our claims, and existing ones that an instance has adopted.
    pub claims: Store<PersistentVolumeClaim>,
    /// Our pods.
    pub pods: Store<Pod>,
    /// All nodes, without what the operator does not read.
    pub nodes: Store<Node>,
    /// All attachments.
    pub attachments: Store<VolumeAttachment>,
    /// Accounts of our guards.
    pub accounts: Store<ServiceAccount>,
    /// Roles of our guards.
    pub roles: Store<Role>,
    /// Bindings of our guards.
    pub bindings: Store<RoleBinding>,
    /// Leases of our instances.
    pub leases: Store<Lease>,
    /// How complete they are.
    pub synced: Synced,
}

/// How many of the watches have delivered their first complete list.
#[derive(Clone)]
pub struct Synced(Arc<watch::Sender<usize>>);

/// Eleven caches and the nodes' heartbeats.
const WATCHES: usize = 12;

impl Synced {
    /// Of caches that somebody else fills: tests decide what a pass sees, and how late.
    pub fn already() -> Self {
        Self(Arc::new(watch::Sender::new(WATCHES)))
    }

    fn not_yet() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Caches {
    /// Resolves when every cache holds its first complete list. Not by the stores' own futures: those wake only one waiter, and the
    /// applier is one already.
    pub async fn ready(&self) {
        let mut synced = self.synced.0.subscribe();
        // the sender lives as long as these caches
        let _ = synced.wait_for(|synced| *synced >= WATCHES).await;
    }
}

/// "Look at this instance".
pub type Triggers = BoxStream<'static, ObjectRef<SqlEdgeInstance>>;

/// Starts to watch one namespace, or all. The stream drives the caches: whoever holds them must poll it. Each change of `again` says that the API
/// server, which could not be reached, can be.
pub fn start(
    client: &Client,
    namespace: Option<&str>,
    heartbeats: Arc<Heartbeats>,
    renewals: Arc<Heartbeats>,
    again: &watch::Receiver<u64>,
) -> (Caches, Triggers) {
    let ours = || config().labels(OURS);
    let synced = Synced::not_yet();
    let unreadable = UnreadableInstances::default();
    let (tell, told) = mpsc::unbounded();
    let follow = unreadable.clone();
    let resources = watcher(api(client, namespace), config()).inspect(move |event| {
        if let Some(instance) = follow.follow(event) {
            // nobody listens once the operator stops
            let _ = tell.unbounded_send(instance);
        }
    });
    let (instances, instance_events) = reflect::<SqlEdgeInstance>(resources, |_| {}, &synced);
    let (deployments, deployment_events) =
        reflect::<Deployment>(watcher(api(client, namespace), ours()), |_| {}, &synced);
    let (services, service_events) = reflect::<Service>(watcher(api(client, namespace), ours()), |_| {}, &synced);
    let (claims, claim_events) =
        reflect::<PersistentVolumeClaim>(watcher(api(client, namespace), ours()), |_| {}, &synced);
    let (pods, pod_events) = reflect::<Pod>(watcher(api(client, namespace), ours()), |_| {}, &synced);
    let (nodes, node_events) = reflect::<Node>(watcher(Api::all(client.clone()), config()), prune_node, &synced);
    let (attachments, attachment_events) =
        reflect::<VolumeAttachment>(watcher(Api::all(client.clone()), config()), |_| {}, &synced);
    let (accounts, account_events) =
        reflect::<ServiceAccount>(watcher(api(client, namespace), ours()), |_| {}, &synced);
    let (roles, role_events) = reflect::<Role>(watcher(api(client, namespace), ours()), |_| {}, &synced);
    let (bindings, binding_events) = reflect::<RoleBinding>(watcher(api(client, namespace), ours()), |_| {}, &synced);
    // not the Leases of the whole cluster: only those with our label reach us
    let (leases, lease_events) = reflect::<Lease>(watcher(api(client, namespace), ours()), |_| {}, &synced);

    let stopped = heartbeats.clone();
    let on_node = instances.clone();
    let on_volume = instances.clone();
    let triggers = stream::select_all([
        instance_events.map(|i| vec![ObjectRef::from_obj(&i)]).boxed(),
        told.map(|instance| vec![instance]).boxed(),
        deployment_events.map(|o| by_label(&o)).boxed(),
        service_events.map(|o| by_label(&o)).boxed(),
        claim_events.map(|o| by_label(&o)).boxed(),
        pod_events
            .map(move |pod| {
                // seen here because the object goes in the next moment; the event of its deletion still carries it
                if is_stopped(&pod) {
                    stopped.stopped(&pod.uid().unwrap_or_default());
                }
                by_label(&pod)
            })
            .boxed(),
        node_events
            .map(move |node| unsettled_or_on(&on_node, &node.name_any()))
            .boxed(),
        attachment_events
            .map(move |attachment| of_volume(&on_volume, &attachment))
            .boxed(),
        account_events.map(|o| by_label(&o)).boxed(),
        role_events.map(|o| by_label(&o)).boxed(),
        binding_events.map(|o| by_label(&o)).boxed(),
        more_than_renewals(noted(lease_events, renewals))
            .map(|o| by_label(&o))
            .boxed(),
        follow_heartbeats(client, heartbeats, again, &synced)
            .map(|()| Vec::new())
            .boxed(),
    ])
    .flat_map(stream::iter)
    .boxed();
    let caches = Caches {
        instances,
        unreadable,
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
        synced,
    };
    (caches, triggers)
}

fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

fn api<K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>>(
    client: &Client,
    namespace: Option<&str>,
) -> Api<K> {
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// A stream that is begun anew at each change of `again`, whatever has become of it.
fn started_again<T: 'static>(
    start: impl Fn() -> BoxStream<'static, T> + Send + 'static,
    again: watch::Receiver<u64>,
) -> impl Stream<Item = T> + Send + 'static {
    stream::unfold((start(), start, again), |(mut events, start, mut again)| async move {
        loop {
            tokio::select! {
                // not when its sender is gone, which is at the end
                Ok(()) = again.changed() => events = start(),
                event = events.next() => return event.map(|event| (event, (events, start, again))),
            }
        }
    })
}

/// A cache and the stream of everything that touched it, deletions included.
fn reflect<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<Readable<K>>>> + Send + 'static,
    prune: fn(&mut K),
    synced: &Synced,
) -> (Store<K>, BoxStream<'static, K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let cache = store.clone();
    let events = events
        .default_backoff()
        .filter_map(move |event| std::future::ready(event.map(|event| readable(&cache, event)).transpose()))
        .modify(move |object| {
            object.managed_fields_mut().clear();
            prune(object);
        })
        .reflect(writer)
        .inspect(count_first_list(synced))
        .touched_objects()
        .filter_map(|result| async move {
            result
                .inspect_err(|error| tracing::warn!(kind = %K::kind(&()), %error, "watch broke; it is started again"))
                .ok()
        })
        .boxed();
    (store, events)
}

/// Counts a watch once, when its first list is complete.
fn count_first_list<K>(synced: &Synced) -> impl FnMut(&watcher::Result<watcher::Event<K>>) + Send + 'static {
    let mut synced = Some(synced.clone());
    move |event| {
        if matches!(event, Ok(watcher::Event::InitDone))
            && let Some(Synced(synced)) = synced.take()
        {
            synced.send_modify(|count| *count += 1);
        }
    }
}

/// A node's list of images is most of its size.
fn prune_node(node: &mut Node) {
    node.metadata.annotations = None;
    if let Some(status) = &mut node.status {
        status.images = None;
        status.capacity = None;
        status.allocatable = None;
        status.addresses = None;
    }
}

fn follow_heartbeats(
    client: &Client,
    heartbeats: Arc<Heartbeats>,
    again: &watch::Receiver<u64>,
    synced: &Synced,
) -> impl Stream<Item = ()> + Send + 'static {
    // that it changes is all that is asked of it
    let api: Api<Readable<Lease>> = Api::namespaced(client.clone(), NODE_LEASES);
    let start = move || watcher(api.clone(), config()).default_backoff().boxed();
    // A connection from before may be dead without a sign for as long as `WATCH_SECONDS`, and whatever was renewed in that time would count as renewed
    // when it is seen. The other watches go on where they were: only they show a pod that ends and is gone.
    started_again(start, again.clone())
        .inspect(count_first_list(synced))
        .map(move |event| match event {
            Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) => {
                heartbeats.saw(&lease.name_any(), &lease.resource_version().unwrap_or_default());
            }
            Ok(watcher::Event::Delete(lease)) => heartbeats.removed(&lease.name_any()),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => tracing::warn!(kind = "Lease", %error, "watch broke; it is started again"),
        })
}

/// Each change of an instance's Lease is noted with the time it was seen.
fn noted(events: BoxStream<'static, Lease>, renewals: Arc<Heartbeats>) -> BoxStream<'static, Lease> {
    events
        .inspect(move |lease| renewals.saw(&renewal_key(lease), &lease.resource_version().unwrap_or_default()))
        .boxed()
}

/// Without the renewals: a guard renews every second or two, and that changes nothing that a pass would do.
fn more_than_renewals(events: BoxStream<'static, Lease>) -> impl Stream<Item = Lease> + Send + 'static {
    let mut seen: HashMap<ObjectRef<Lease>, Lease> = HashMap::new();
    events.filter(move |lease| {
        let key = ObjectRef::from_obj(lease);
        let difference = seen.remove(&key).map(|before| difference(&before, lease));
        // the event of a deletion carries what was seen last
        if difference != Some(Difference::None) {
            seen.insert(key, lease.clone());
        }
        std::future::ready(difference != Some(Difference::Renewed))
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    None,
    /// Only the time of the renewal.
    Renewed,
    More,
}

fn difference(before: &Lease, after: &Lease) -> Difference {
    let without = |lease: &Lease, time: bool| {
        let mut lease = lease.clone();
        lease.metadata.resource_version = None;
        if let Some(spec) = lease.spec.as_mut().filter(|_| time) {
            spec.renew_time = None;
        }
        lease
    };
    if without(before, false) == without(after, false) {
        Difference::None
    } else if without(before, true) == without(after, true) {
        Difference::Renewed
    } else {
        Difference::More
    }
}

fn by_label<K: Resource<DynamicType = ()>>(object: &K) -> Vec<ObjectRef<SqlEdgeInstance>> {
    let labels: Option<&BTreeMap<String, String>> = object.meta().labels.as_ref();
    let name = labels.and_then(|labels| labels.get(INSTANCE));
    let namespace = object.meta().namespace.as_deref();
    name.zip(namespace)
        .map(|(name, namespace)| ObjectRef::new(name).within(namespace))
        .into_iter()
        .collect()
}

/// Instances on that node, and all that are not Ready: for those any node may be the one they wait for.
fn unsettled_or_on(instances: &Store<SqlEdgeInstance>, node: &str) -> Vec<ObjectRef<SqlEdgeInstance>> {
    let concerned = |instance: &Arc<SqlEdgeInstance>| {
        let status = instance.status.as_ref();
        let ready = status.is_some_and(|s| s.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
        !ready || status.and_then(|s| s.node.as_deref()) == Some(node)
    };
    instances
        .state()
        .iter()
        .filter(|i| concerned(i))
        .map(|i| ObjectRef::from_obj(&**i))
        .collect()
}

fn of_volume(instances: &Store<SqlEdgeInstance>, attachment: &VolumeAttachment) -> Vec<ObjectRef<SqlEdgeInstance>> {
    let Some(volume) = attachment.spec.source.persistent_volume_name.as_deref() else {
        return Vec::new();
    };
    let uses =
        |instance: &Arc<SqlEdgeInstance>| instance.status.as_ref().and_then(|s| s.volume.as_deref()) == Some(volume);
    instances
        .state()
        .iter()
        .filter(|i| uses(i))
        .map(|i| ObjectRef::from_obj(&**i))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    fn lease(version: &str, renewed: &str, holder: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": "orders-writer", "namespace": "shop", "resourceVersion": version},
            "spec": {"holderIdentity": holder, "renewTime": renewed},
        }))
        .expect("a Lease")
    }

    #[tokio::test]
    async fn a_watch_is_started_again_when_the_api_server_answers_again_however_silent_it_is() {
        let (tell, again) = watch::channel(0_u64);
        let starts = Arc::new(AtomicUsize::new(0));
        let started = starts.clone();
        // each begins with its number, and then hears nothing any more
        let start = move || {
            let number = started.fetch_add(1, Ordering::Relaxed);
            stream::iter([number]).chain(stream::pending()).boxed()
        };
        let mut events = std::pin::pin!(started_again(start, again));
        assert_eq!(events.next().await, Some(0));
        assert!(futures::poll!(events.next()).is_pending());
        tell.send_modify(|times| *times += 1);
        assert_eq!(events.next().await, Some(1));
        drop(tell);
        assert!(futures::poll!(events.next()).is_pending());
        assert_eq!(starts.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_renewal_is_no_reason_to_look_and_everything_else_is() {
        let (early, late) = ("2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:02.000000Z");
        let events = [
            lease("1", early, "a"),
            lease("2", late, "a"),
            lease("3", early, "a"),
            lease("4", early, "sealed"),
            lease("5", late, "sealed"),
            // it is deleted, and another one of that name is made
            lease("6", late, "sealed"),
            lease("7", late, "sealed"),
        ];
        let told = more_than_renewals(stream::iter(events).boxed())
            .map(|lease| lease.resource_version().unwrap_or_default())
            .collect::<Vec<_>>();
        assert_eq!(futures::executor::block_on(told), ["1", "4", "6", "7"]);
    }
}
