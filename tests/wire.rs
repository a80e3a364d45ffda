//! The exact requests behind every dangerous act, and behind the status: method, path, query, content type and body, as they leave the
//! client. A canned service below `kube::Client` answers reads from a handful of objects and writes down what is sent.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::{Request, Response};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::client::Body;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqledge_operator::api::SqlEdgeInstance;
use sqledge_operator::cluster::Cluster;
use sqledge_operator::context::{Context, Memory};
use sqledge_operator::controller;
use sqledge_operator::desired::{self, Rendering};
use sqledge_operator::driver_class::DriverClass;
use sqledge_operator::events::{Events, Publisher};
use sqledge_operator::heartbeats::Heartbeats;
use sqledge_operator::instance::Instance;
use sqledge_operator::leader::Leadership;
use sqledge_operator::lease::Record;
use sqledge_operator::login::{Attempt, Door, Target};
use sqledge_operator::logins::Logins;
use sqledge_operator::metrics::Metrics;
use sqledge_operator::settings::{Identity, Settings, Switch, Timing};
use sqledge_operator::watch::{Caches, Synced};
use tokio::sync::watch;

const INSTANCE: &str = "/apis/sqledge.io/v1alpha1/namespaces/shop/sqledgeinstances/orders";
const CLAIM: &str = "/api/v1/namespaces/shop/persistentvolumeclaims/orders-data";
const PODS: &str = "/api/v1/namespaces/shop/pods";
const NODE: &str = "/api/v1/nodes/n1";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
const WRITER: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/orders-writer";
const ACCOUNT: &str = "/api/v1/namespaces/shop/serviceaccounts/orders-guard";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles/orders-guard";
const BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings/orders-guard";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/orders";
const ATTACHMENT: &str = "/apis/storage.k8s.io/v1/volumeattachments/csi-1";
const VOLUME: &str = "kubernetes.io/csi/disk.storage.test^handle-1";
const IMAGE: &str = "registry.example/operator:1";

/// A request as it left the client.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    content_type: String,
    body: Value,
}

impl Sent {
    fn new(method: &str, path: &str, query: &[(&str, &str)], content_type: &str, body: Value) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            content_type: content_type.to_owned(),
            body,
        }
    }
}

/// A cluster that is nothing but these objects, by path.
#[derive(Clone, Default)]
struct Canned {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    sent: Arc<Mutex<Vec<Sent>>>,
    /// Paths of what was read, in this order.
    read: Arc<Mutex<Vec<String>>>,
    /// Writes change the objects; else they are only written down.
    obeys: bool,
}

impl Canned {
    fn put(&self, path: &str, object: Value) {
        self.objects
            .lock()
            .expect("no panic inside")
            .insert(path.to_owned(), object);
    }

    fn reads(&self) -> Vec<String> {
        std::mem::take(&mut *self.read.lock().expect("no panic inside"))
    }

    /// Carries out a write: patches and deletions, and of server-side apply the status.
    fn obey(&self, method: &http::Method, path: &str, content_type: &str, body: &Value) {
        let mut objects = self.objects.lock().expect("no panic inside");
        if method == http::Method::DELETE {
            objects.remove(path);
            return;
        }
        let Some(object) = objects.get_mut(path.trim_end_matches("/status")) else {
            return;
        };
        if content_type == JSON_PATCH {
            let operations: json_patch::Patch = serde_json::from_value(body.clone()).expect("a patch");
            json_patch::patch(object, &operations).expect("a patch that fits");
        } else {
            object["status"] = body["status"].clone();
        }
        let version: u64 = object["metadata"]["resourceVersion"]
            .as_str()
            .map_or(0, |v| v.parse().expect("a number"));
        object["metadata"]["resourceVersion"] = (version + 100).to_string().into();
    }

    fn remove(&self, path: &str) {
        self.objects.lock().expect("no panic inside").remove(path);
    }

    /// All objects of a kind, by the path of its list.
    fn under(&self, list: &str) -> Vec<Value> {
        let objects = self.objects.lock().expect("no panic inside");
        let prefix = format!("{list}/");
        let direct = |path: &&String| path.strip_prefix(&prefix).is_some_and(|name| !name.contains('/'));
        objects
            .keys()
            .filter(direct)
            .map(|path| objects[path].clone())
            .collect()
    }

    fn cache<K>(&self, list: &str) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
    {
        let (store, mut writer) = reflector::store();
        writer.apply_watcher_event(&Event::Init);
        for object in self.under(list) {
            writer.apply_watcher_event(&Event::InitApply(serde_json::from_value(object).expect("an object")));
        }
        writer.apply_watcher_event(&Event::InitDone);
        store
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await.expect("a body");
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let path = parts.uri.path();
        let stored = self.objects.lock().expect("no panic inside").get(path).cloned();
        if parts.method == http::Method::GET {
            self.read.lock().expect("no panic inside").push(path.to_owned());
            let list = matches!(
                path.rsplit('/').next(),
                Some("pods" | "leases" | "volumeattachments" | "storageclasses")
            );
            return Ok(match stored {
                Some(object) => response(200, &object),
                None if list => response(
                    200,
                    &json!({"metadata": {"resourceVersion": "1"}, "items": self.under(path)}),
                ),
                None => response(
                    404,
                    &json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}),
                ),
            });
        }
        let header = parts.headers.get("content-type").and_then(|value| value.to_str().ok());
        let query = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        self.sent.lock().expect("no panic inside").push(Sent {
            method: parts.method.to_string(),
            path: path.to_owned(),
            // no value of ours needs more than this one to be decoded
            query: query.map(|(k, v)| (k.to_owned(), v.replace("%2F", "/"))).collect(),
            content_type: header.unwrap_or_default().to_owned(),
            body: body.clone(),
        });
        if self.obeys {
            self.obey(&parts.method, path, header.unwrap_or_default(), &body);
        }
        let object = path.trim_end_matches("/status");
        let stored = self.objects.lock().expect("no panic inside").get(object).cloned();
        Ok(response(200, &stored.unwrap_or(body)))
    }
}

fn response(code: u16, body: &Value) -> Response<Body> {
    Response::builder()
        .status(code)
        .body(Body::from(body.to_string().into_bytes()))
        .expect("a response")
}

/// How the engine takes a login.
#[derive(Clone, Copy)]
enum Engine {
    Answers,
    Refuses,
    Hangs,
}

impl Door for Engine {
    fn login(&self, _: Target) -> BoxFuture<'_, Attempt> {
        let attempt = match self {
            Self::Answers => Attempt::Succeeded {
                version: "16.0.1000.6".into(),
            },
            Self::Refuses => Attempt::NoAnswer("no answer within 2 s".into()),
            Self::Hangs => return Box::pin(std::future::pending()),
        };
        Box::pin(std::future::ready(attempt))
    }
}

/// Metadata as the API server stores it.
fn meta(name: &str, uid: &str, version: &str, more: &Value) -> Value {
    let mut meta =
        json!({"name": name, "uid": uid, "resourceVersion": version, "creationTimestamp": "2026-01-01T00:00:00Z"});
    for (key, value) in more.as_object().expect("an object") {
        meta[key] = value.clone();
    }
    meta
}

/// An instance with all its children, a volume on node n1, and no pod yet.
fn cluster(holder: &Value) -> Canned {
    let canned = Canned::default();
    let resource = json!({
        "apiVersion": "sqledge.io/v1alpha1", "kind": "SqlEdgeInstance",
        "metadata": meta("orders", "uid-orders", "10", &json!({"namespace": "shop", "generation": 1})),
        "spec": {"acceptEula": true, "image": "registry.example/engine:1", "storage": {"storageClassName": "disk"}},
    });
    let typed: SqlEdgeInstance = serde_json::from_value(resource.clone()).expect("a resource");
    let instance = Instance::parse(&typed).expect("valid");
    canned.put(INSTANCE, resource);

    let rendering = Rendering {
        operator_image: IMAGE,
        volume_id: "volume-1",
        secret_key: "MSSQL_SA_PASSWORD",
    };
    let stored = |object: Value, uid: &str| {
        let mut object = object;
        object["metadata"]["uid"] = uid.into();
        object["metadata"]["resourceVersion"] = "20".into();
        object
    };
    let deployment = serde_json::to_value(desired::deployment(&instance, &rendering)).expect("JSON");
    canned.put(DEPLOYMENT, stored(deployment, "uid-deployment"));
    let orders = desired::orders(&instance.failover, DriverClass::Revoke);
    let lease = desired::lease(&instance, &Record::anew(None, 0, orders));
    for (path, object) in [
        (ACCOUNT, serde_json::to_value(desired::service_account(&instance))),
        (ROLE, serde_json::to_value(desired::role(&instance))),
        (BINDING, serde_json::to_value(desired::role_binding(&instance))),
        (WRITER, serde_json::to_value(lease)),
    ] {
        canned.put(path, stored(object.expect("JSON"), "uid-of-the-guards"));
    }
    let service: Service = desired::service(&instance);
    let mut service = stored(serde_json::to_value(service).expect("JSON"), "uid-service");
    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}});
    canned.put("/api/v1/namespaces/shop/services/orders", service);
    let mut claim = serde_json::to_value(desired::claim(&instance, "volume-1").expect("ours")).expect("JSON");
    for (key, value) in holder.as_object().expect("an object") {
        claim["metadata"]["annotations"][key] = value.clone();
    }
    claim["spec"]["volumeName"] = "pv-1".into();
    claim["status"] = json!({"phase": "Bound"});
    canned.put(CLAIM, {
        let mut claim = stored(claim, "uid-claim");
        claim["metadata"]["resourceVersion"] = "30".into();
        claim
    });
    let secret = json!({"metadata": meta("orders-sa", "uid-secret", "21",
        &json!({"namespace": "shop", "labels": {"app.kubernetes.io/managed-by": "sqledge-operator"}})),
        "data": {"MSSQL_SA_PASSWORD": "Q29ycmVjdC1Ib3JzZS03"}});
    canned.put("/api/v1/namespaces/shop/secrets/orders-sa", secret);
    canned.put(
        "/api/v1/persistentvolumes/pv-1",
        json!({"metadata": meta("pv-1", "uid-pv", "22", &json!({})),
            "spec": {"csi": {"driver": "disk.storage.test", "volumeHandle": "handle-1"}}}),
    );
    canned.put(
        "/apis/storage.k8s.io/v1/csidrivers/disk.storage.test",
        json!({"metadata": meta("disk.storage.test", "uid-driver", "23", &json!({})), "spec": {"attachRequired": true}}),
    );
    canned.put(
        NODE,
        json!({"metadata": meta("n1", "uid-n1", "40", &json!({"labels": {"kubernetes.io/hostname": "host-1", "kubernetes.io/arch": "amd64"}})),
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "volumesInUse": ["another", VOLUME],
                "volumesAttached": [{"name": VOLUME, "devicePath": ""}]}}),
    );
    canned.put(
        LEASE,
        json!({"metadata": meta("n1", "uid-lease", "41", &json!({"namespace": "kube-node-lease"}))}),
    );
    canned.put(
        ATTACHMENT,
        json!({"metadata": meta("csi-1", "uid-csi-1", "50", &json!({})), "spec": {"attacher": "disk.storage.test", "nodeName": "n1",
            "source": {"persistentVolumeName": "pv-1"}}, "status": {"attached": true}}),
    );
    canned
}

/// A pod from the Deployment's template: gated, or running on n1.
fn pod(canned: &Canned, name: &str, gated: bool) {
    let deployment = canned.under("/apis/apps/v1/namespaces/shop/deployments").remove(0);
    let template = &deployment["spec"]["template"];
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-1", "uid": "uid-set", "controller": true});
    let metadata = meta(
        name,
        &format!("uid-{name}"),
        "60",
        &json!({"namespace": "shop", "labels": template["metadata"]["labels"], "ownerReferences": [owner]}),
    );
    let mut pod = json!({"metadata": metadata, "spec": template["spec"], "status": {"phase": "Pending"}});
    if !gated {
        pod["spec"]["schedulingGates"] = Value::Null;
        pod["spec"]["nodeName"] = "n1".into();
        let status = json!({"name": "engine", "ready": true, "restartCount": 0, "image": "", "imageID": "", "containerID": "test://1",
            "state": {"running": {}}});
        pod["status"] = json!({"phase": "Running", "podIP": "192.0.2.20", "containerStatuses": [status]});
    }
    let _: Pod = serde_json::from_value(pod.clone()).expect("a pod");
    canned.put(&format!("{PODS}/{name}"), pod);
}

/// How a pass meets the cluster.
struct Meeting {
    node_silent: bool,
    engine: Engine,
    fast_detach: Switch,
}

impl Default for Meeting {
    fn default() -> Self {
        Self {
            node_silent: false,
            engine: Engine::Answers,
            fast_detach: Switch::Enabled,
        }
    }
}

/// Two passes, with time between them, as an operator that has just started; what they write apart from events and status.
async fn acts(canned: &Canned, meeting: Meeting) -> Vec<Sent> {
    let mut sent = passes(canned, meeting).await;
    sent.retain(|sent| !sent.path.contains("/events") && !sent.path.starts_with(&format!("{INSTANCE}/")));
    // the canned world does not change, so the second pass sends the same again
    sent.dedup();
    sent
}

async fn passes(canned: &Canned, meeting: Meeting) -> Vec<Sent> {
    let (context, mut publisher) = operator(canned, &meeting);
    for _ in 0..2 {
        pass(&context, &meeting).await;
        publisher.drain().await;
    }
    std::mem::take(&mut *canned.sent.lock().expect("no panic inside"))
}

/// So much time goes by between two passes.
const LONG: Duration = Duration::from_secs(60);

/// A pass, some time after the last one.
async fn pass(context: &Arc<Context>, meeting: &Meeting) {
    let instance = context.caches.instances.state().remove(0);
    if meeting.node_silent {
        context.heartbeats.age(LONG);
    }
    context.memory.age(LONG);
    context.logins.age(LONG);
    controller::pass(instance, context.clone()).await.expect("a pass");
}

/// An operator that has just started, with caches that show what is.
fn operator(canned: &Canned, meeting: &Meeting) -> (Arc<Context>, Publisher) {
    let (context, publisher, _) = replica(canned, meeting);
    (context, publisher)
}

/// The same, and what says whether it leads.
fn replica(canned: &Canned, meeting: &Meeting) -> (Arc<Context>, Publisher, watch::Sender<Option<Instant>>) {
    let service = {
        let canned = canned.clone();
        tower::service_fn(move |request| canned.clone().answer(request))
    };
    let client = Client::new(service, "default");
    let heartbeats = Arc::new(Heartbeats::default());
    heartbeats.saw("n1", "40");
    heartbeats.saw("n1", "41");
    let metrics = Arc::new(Metrics::default());
    let reporter = Reporter {
        controller: "sqledge-operator".into(),
        instance: Some("operator-0".into()),
    };
    let (events, publisher) = Events::new(Recorder::new(client.clone(), reporter), LONG, metrics.clone());
    let (leads, leadership) = Leadership::always();
    let context = Context {
        cluster: Cluster::new(client.clone(), LONG),
        caches: Caches {
            instances: canned.cache("/apis/sqledge.io/v1alpha1/namespaces/shop/sqledgeinstances"),
            deployments: canned.cache("/apis/apps/v1/namespaces/shop/deployments"),
            services: canned.cache("/api/v1/namespaces/shop/services"),
            claims: canned.cache("/api/v1/namespaces/shop/persistentvolumeclaims"),
            pods: canned.cache(PODS),
            nodes: canned.cache("/api/v1/nodes"),
            attachments: canned.cache("/apis/storage.k8s.io/v1/volumeattachments"),
            accounts: canned.cache("/api/v1/namespaces/shop/serviceaccounts"),
            roles: canned.cache("/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles"),
            bindings: canned.cache("/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings"),
            leases: canned.cache("/apis/coordination.k8s.io/v1/namespaces/shop/leases"),
            synced: Synced::already(),
        },
        heartbeats,
        logins: Logins::new(Arc::new(meeting.engine), LONG).0,
        settings: Settings {
            driver_classes: BTreeMap::from([("disk.storage.test".to_owned(), DriverClass::Revoke)]),
            fast_detach: meeting.fast_detach,
            ..Settings::default()
        },
        identity: Identity {
            pod_name: "operator-0".into(),
            namespace: "operators".into(),
            image: IMAGE.into(),
        },
        timing: Timing::default(),
        leadership,
        metrics,
        events,
        memory: Memory::default(),
    };
    (Arc::new(context), publisher, leads)
}

const JSON_PATCH: &str = "application/json-patch+json";
const MANAGER: (&str, &str) = ("fieldManager", "sqledge-operator");

/// What makes a JSON patch a compare-and-swap.
fn judged(uid: &str, version: &str) -> [Value; 2] {
    [
        json!({"op": "test", "path": "/metadata/uid", "value": uid}),
        json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version}),
    ]
}

fn patch(uid: &str, version: &str, operations: &[Value]) -> Value {
    judged(uid, version).iter().chain(operations).cloned().collect()
}

fn deletion(uid: &str, version: &str, grace: Option<u32>) -> Value {
    let mut body = json!({"preconditions": {"uid": uid, "resourceVersion": version}});
    if let Some(seconds) = grace {
        body["gracePeriodSeconds"] = seconds.into();
    }
    body
}

#[tokio::test]
async fn the_holder_is_recorded_on_exactly_the_claim_that_was_judged() {
    let canned = cluster(&json!({}));
    canned.remove(ATTACHMENT);
    pod(&canned, "orders-1-a", true);
    let annotations = json!({"sqledge.io/instance-uid": "uid-orders", "sqledge.io/volume-id": "volume-1",
        "sqledge.io/holder-pod": "uid-orders-1-a"});
    let operation = json!({"op": "add", "path": "/metadata/annotations", "value": annotations});
    let body = patch("uid-claim", "30", &[operation]);
    assert_eq!(
        acts(&canned, Meeting::default()).await,
        [Sent::new("PATCH", CLAIM, &[MANAGER], JSON_PATCH, body)]
    );
}

#[tokio::test]
async fn the_node_of_the_holder_is_recorded_as_soon_as_it_is_known() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a"}));
    pod(&canned, "orders-1-a", false);
    let annotations = json!({"sqledge.io/instance-uid": "uid-orders", "sqledge.io/volume-id": "volume-1",
        "sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"});
    let operation = json!({"op": "add", "path": "/metadata/annotations", "value": annotations});
    let body = patch("uid-claim", "30", &[operation]);
    assert_eq!(
        acts(&canned, Meeting::default()).await,
        [Sent::new("PATCH", CLAIM, &[MANAGER], JSON_PATCH, body)]
    );
}

#[tokio::test]
async fn a_gate_is_opened_and_pinned_in_one_patch_of_exactly_the_pod_that_was_judged() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-b", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-b", true);
    let selector = json!({"kubernetes.io/arch": "amd64", "kubernetes.io/hostname": "host-1"});
    let operations = [
        json!({"op": "add", "path": "/spec/nodeSelector", "value": selector}),
        json!({"op": "add", "path": "/spec/schedulingGates", "value": []}),
    ];
    let body = patch("uid-orders-1-b", "60", &operations);
    let path = format!("{PODS}/orders-1-b");
    assert_eq!(
        acts(&canned, Meeting::default()).await,
        [Sent::new("PATCH", &path, &[MANAGER], JSON_PATCH, body)]
    );
}

#[tokio::test]
async fn a_pod_is_evicted_without_grace_and_only_if_it_is_still_the_one_that_was_judged() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-a", false);
    let meeting = Meeting {
        node_silent: true,
        engine: Engine::Refuses,
        ..Meeting::default()
    };
    let body = deletion("uid-orders-1-a", "60", Some(0));
    let path = format!("{PODS}/orders-1-a");
    assert_eq!(
        acts(&canned, meeting).await,
        [Sent::new("DELETE", &path, &[], "application/json", body)]
    );
}

#[tokio::test]
async fn only_our_entry_of_volumes_in_use_is_taken_and_only_from_the_node_that_was_judged() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-b", true);
    let meeting = Meeting {
        node_silent: true,
        ..Meeting::default()
    };
    let operations = [
        json!({"op": "test", "path": "/status/volumesInUse/1", "value": VOLUME}),
        json!({"op": "remove", "path": "/status/volumesInUse/1"}),
    ];
    let body = patch("uid-n1", "40", &operations);
    let path = format!("{NODE}/status");
    assert_eq!(
        acts(&canned, meeting).await,
        [Sent::new("PATCH", &path, &[MANAGER], JSON_PATCH, body)]
    );
}

#[tokio::test]
async fn without_fast_detach_exactly_the_attachment_that_was_judged_is_deleted() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-b", true);
    let meeting = Meeting {
        node_silent: true,
        fast_detach: Switch::Disabled,
        ..Meeting::default()
    };
    let body = deletion("uid-csi-1", "50", None);
    assert_eq!(
        acts(&canned, meeting).await,
        [Sent::new("DELETE", ATTACHMENT, &[], "application/json", body)]
    );
}

#[tokio::test]
async fn the_status_is_applied_with_force_under_a_manager_of_its_own_and_to_this_uid_only() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-a", false);
    let sent = passes(&canned, Meeting::default()).await;
    let path = format!("{INSTANCE}/status");
    let mut status = sent.into_iter().find(|sent| sent.path == path).expect("a status");
    let conditions = status.body["status"]["conditions"].take();
    status.body["status"]
        .as_object_mut()
        .expect("an object")
        .remove("conditions");
    let body = json!({
        "apiVersion": "sqledge.io/v1alpha1", "kind": "SqlEdgeInstance", "metadata": {"name": "orders", "uid": "uid-orders"},
        "status": {"observedGeneration": 1, "address": "192.0.2.10", "port": 1433, "node": "n1", "podName": "orders-1-a",
            "volumeClaim": "orders-data", "volume": "pv-1", "secret": "orders-sa", "engineVersion": "16.0.1000.6"},
    });
    let query = [("fieldManager", "sqledge-operator/status"), ("force", "true")];
    assert_eq!(
        status,
        Sent::new("PATCH", &path, &query, "application/apply-patch+yaml", body)
    );
    let types: Vec<&str> = conditions
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|condition| condition["type"].as_str())
        .collect();
    assert!(types.is_sorted() && types.contains(&"Ready"), "{types:?}");
}

#[tokio::test]
async fn children_are_applied_with_force_under_our_manager_and_what_holds_data_is_only_created() {
    let canned = cluster(&json!({}));
    for path in [
        DEPLOYMENT,
        "/api/v1/namespaces/shop/services/orders",
        "/api/v1/namespaces/shop/secrets/orders-sa",
        CLAIM,
    ] {
        canned.remove(path);
    }
    let class = json!({"metadata": meta("disk", "uid-class", "5", &json!({})), "provisioner": "disk.storage.test"});
    canned.put("/apis/storage.k8s.io/v1/storageclasses/disk", class);
    let sent = acts(&canned, Meeting::default()).await;
    let seen: Vec<_> = sent
        .iter()
        .take(3)
        .map(|sent| {
            (
                sent.method.as_str(),
                sent.path.as_str(),
                sent.content_type.as_str(),
                sent.query.clone(),
            )
        })
        .collect();
    let query = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let (plain, forced) = (query(&[MANAGER]), query(&[MANAGER, ("force", "true")]));
    assert_eq!(
        seen,
        [
            (
                "POST",
                "/api/v1/namespaces/shop/secrets",
                "application/json",
                plain.clone()
            ),
            (
                "POST",
                "/api/v1/namespaces/shop/persistentvolumeclaims",
                "application/json",
                plain
            ),
            (
                "PATCH",
                "/api/v1/namespaces/shop/services/orders",
                "application/apply-patch+yaml",
                forced
            ),
        ]
    );
}

#[tokio::test]
async fn a_second_look_reads_once_what_the_decision_rests_on_in_the_order_that_the_proof_needs() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-b", true);
    let meeting = Meeting {
        node_silent: true,
        ..Meeting::default()
    };
    let (context, _publisher) = operator(&canned, &meeting);
    let leases = LEASE.trim_end_matches("/n1");
    let attachments = ATTACHMENT.trim_end_matches("/csi-1");
    // in the first pass the release begins, with the Leases of all nodes
    for leases in [leases, LEASE] {
        pass(&context, &meeting).await;
        let mut reads = canned.reads();
        // what never changes is read in the first pass, ahead of the second look
        let begins = |path: &String| path == CLAIM || path == WRITER || path == INSTANCE;
        reads.drain(..reads.iter().position(begins).expect("a second look"));
        // what is read at the same time comes in any order
        reads[..3].sort();
        reads[4..6].sort();
        assert_eq!(reads, [CLAIM, WRITER, INSTANCE, PODS, leases, attachments, NODE]);
    }
}

#[tokio::test]
async fn nothing_that_can_be_done_waits_for_a_login_or_an_event() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-a", false);
    let path = format!("{PODS}/orders-1-a");
    let mut stopping = canned.under(PODS).remove(0);
    stopping["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z".into();
    canned.put(&path, stopping);
    let meeting = Meeting {
        engine: Engine::Hangs,
        ..Meeting::default()
    };
    let (context, _nobody_publishes) = operator(&canned, &meeting);
    let in_time = tokio::time::timeout(Duration::from_secs(5), pass(&context, &meeting)).await;
    assert!(in_time.is_ok(), "the pass waits for the engine");
    let sent = canned.sent.lock().expect("no panic inside").clone();
    let deleted = sent
        .iter()
        .any(|sent| (sent.method.as_str(), &sent.path) == ("DELETE", &path));
    assert!(deleted, "{sent:#?}");
}

#[tokio::test]
async fn record_and_gate_follow_each_other_in_one_pass_and_each_status_stands_before_the_next_act() {
    let canned = Canned {
        obeys: true,
        ..cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}))
    };
    // it was Ready, or there would be nothing to fail over from
    let mut resource = canned.objects.lock().expect("no panic inside")[INSTANCE].clone();
    resource["status"] = json!({"engineVersion": "16.0.1000.6"});
    canned.put(INSTANCE, resource);
    pod(&canned, "orders-1-b", true);
    let meeting = Meeting::default();
    let (context, _publisher) = operator(&canned, &meeting);
    pass(&context, &meeting).await;
    let sent = canned.sent.lock().expect("no panic inside").clone();
    let status = format!("{INSTANCE}/status");
    let gate = format!("{PODS}/orders-1-b");
    let paths: Vec<&str> = sent.iter().map(|sent| sent.path.as_str()).collect();
    assert_eq!(paths, [CLAIM, &status, &gate, &status]);
    let record = |sent: &Sent| sent.body["status"]["failover"].clone();
    let (first, last) = (record(&sent[1]), record(&sent[3]));
    assert_eq!(first["reason"], "PodGone", "{first}");
    assert_eq!(first["fromPodUid"], "uid-orders-1-a");
    assert_eq!(first["evidence"], json!(["PinnedRestart"]));
    assert_eq!(first["phases"][0]["name"], "Opening", "{first}");
    assert_eq!(last, first, "the gate opens in the same phase, from the same record");
}

#[tokio::test]
async fn whoever_takes_over_from_a_leader_that_went_with_the_node_has_logged_in_already_and_written_nothing() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    let mut resource = canned.objects.lock().expect("no panic inside")[INSTANCE].clone();
    resource["status"] = json!({"node": "n1"});
    canned.put(INSTANCE, resource);
    pod(&canned, "orders-1-a", false);
    let meeting = Meeting {
        node_silent: true,
        engine: Engine::Refuses,
        ..Meeting::default()
    };
    let (context, _publisher, leads) = replica(&canned, &meeting);
    let now = leads.send_replace(None);
    pass(&context, &meeting).await;
    assert_eq!(*canned.sent.lock().expect("no panic inside"), []);
    leads.send_replace(now);
    let instance = context.caches.instances.state().remove(0);
    controller::pass(instance, context.clone()).await.expect("a pass");
    let sent = canned.sent.lock().expect("no panic inside").clone();
    assert_eq!(
        (sent[0].method.as_str(), sent[0].path.as_str()),
        ("DELETE", format!("{PODS}/orders-1-a").as_str())
    );
}

#[tokio::test]
async fn what_the_guard_needs_is_applied_and_its_lease_only_created() {
    let canned = cluster(
        &json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1", "sqledge.io/epoch": "6"}),
    );
    pod(&canned, "orders-1-a", false);
    for path in [ACCOUNT, ROLE, BINDING, WRITER] {
        canned.remove(path);
    }
    let sent = acts(&canned, Meeting::default()).await;
    let applied = [MANAGER, ("force", "true")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    for (sent, path) in sent.iter().zip([ACCOUNT, ROLE, BINDING]) {
        assert_eq!((sent.method.as_str(), sent.path.as_str()), ("PATCH", path));
        assert_eq!(
            (&sent.query, sent.content_type.as_str()),
            (&applied, "application/apply-patch+yaml")
        );
        assert_eq!(sent.body["metadata"]["ownerReferences"][0]["uid"], "uid-orders");
    }
    let lease = &sent[3];
    let leases = WRITER.trim_end_matches("/orders-writer");
    assert_eq!((lease.method.as_str(), lease.path.as_str()), ("POST", leases));
    assert_eq!(
        lease.body["spec"],
        json!({"holderIdentity": "for/uid-orders-1-a", "leaseTransitions": 7})
    );
}

#[tokio::test]
async fn orders_reach_the_guard_by_a_patch_of_exactly_the_lease_that_was_judged() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-a", false);
    let mut resource = canned.objects.lock().expect("no panic inside")[INSTANCE].clone();
    resource["spec"]["failover"] = json!({"lease": "Always"});
    canned.put(INSTANCE, resource);
    let orders = json!({"sqledge.io/on-api-loss": "Continue", "sqledge.io/renew": "2/10/15"});
    let operation = json!({"op": "add", "path": "/metadata/annotations", "value": orders});
    let body = patch("uid-of-the-guards", "20", &[operation]);
    assert_eq!(
        acts(&canned, Meeting::default()).await,
        [Sent::new("PATCH", WRITER, &[MANAGER], JSON_PATCH, body)]
    );
}

#[tokio::test]
async fn a_pass_that_changes_the_template_lets_none_of_the_former_ones_pods_in() {
    let canned = cluster(&json!({}));
    canned.remove(ATTACHMENT);
    let mut deployment = canned.under(DEPLOYMENT.trim_end_matches("/orders")).remove(0);
    deployment["metadata"]["annotations"]["sqledge.io/template-builder"] = "registry.example/operator:0".into();
    canned.put(DEPLOYMENT, deployment);
    pod(&canned, "orders-1-a", true);
    let sent = acts(&canned, Meeting::default()).await;
    let writes: Vec<_> = sent
        .iter()
        .map(|sent| (sent.method.as_str(), sent.path.as_str()))
        .collect();
    assert_eq!(writes, [("PATCH", DEPLOYMENT)]);
}

#[tokio::test]
async fn at_rest_nothing_is_asked_of_the_api_server() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-a", false);
    let canned = Canned { obeys: true, ..canned };
    let meeting = Meeting::default();
    let (context, _publisher) = operator(&canned, &meeting);
    let instance = context.caches.instances.state().remove(0);
    for _ in 0..3 {
        controller::pass(instance.clone(), context.clone())
            .await
            .expect("a pass");
    }
    canned.reads();
    canned.sent.lock().expect("no panic inside").clear();
    controller::pass(instance, context.clone()).await.expect("a pass");
    assert_eq!(canned.reads(), [""; 0]);
    assert_eq!(*canned.sent.lock().expect("no panic inside"), []);
}
