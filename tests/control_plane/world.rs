//! One small world: a namespace, three nodes, one instance on one volume; what the API says about it, and what is really so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use http::Request;
use kube::Client;
use serde_json::{Value, json};
use sqledge_operator::rules::Rules;

use crate::invariant::{self, Write};
use crate::mirror::{Key, Mirror, text, uid};
use crate::physics::{Detach, Machine, Physics};
use crate::process;
use crate::rights;
use crate::server;
use crate::wire::{Fault, Sent, Wire};

/// The name of every world's instance; not the product's, so that a swapped name shows.
pub const INSTANCE: &str = "orders";
/// The driver behind every world's volume.
pub const DRIVER: &str = "disk.storage.test";

/// Kinds of which a world has objects outside its namespace; they carry its label.
pub const CLUSTER_WIDE: [&str; 4] = [
    "/api/v1/nodes",
    "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
    "/apis/storage.k8s.io/v1/volumeattachments",
    "/api/v1/persistentvolumes",
];

/// Everything that is known about a world.
pub struct State {
    pub id: String,
    pub claim: String,
    pub mirror: Mirror,
    pub physics: Physics,
    /// Pods, by UID, whose gate was ever opened, with the node they were bound to.
    pub let_go: BTreeMap<String, Option<String>>,
    /// Those of them, by UID, whose engine runs under a guard.
    pub guarded: BTreeSet<String>,
    /// The rules that the guards follow; a test of the checks takes one away.
    pub guard_rules: Rules,
    /// How many pods could write when etcd was set back, which brings back pods that others have followed; it may only become fewer.
    pub brought_back: usize,
    /// What was written, in order.
    pub trace: Vec<String>,
    /// What was broken, with the write that broke it.
    pub violations: Vec<String>,
}

impl State {
    /// Whether the claim is for one pod only.
    pub fn is_exclusive(&self) -> bool {
        let claim = self.mirror.get("persistentvolumeclaims", &self.claim);
        claim.is_some_and(|claim| claim["spec"]["accessModes"] == json!(["ReadWriteOncePod"]))
    }

    /// The volume's handle at the storage.
    pub fn handle(&self) -> String {
        format!("volume-{}", self.id)
    }

    /// The volume's name in `volumesInUse` and `volumesAttached`.
    pub fn unique_name(&self) -> String {
        format!("kubernetes.io/csi/{DRIVER}^{}", self.handle())
    }

    /// Notes a write that was carried out, and checks what it has done.
    pub fn wrote(&mut self, actor: &'static str, method: &str, key: &Key, object: Option<&Value>) {
        let before = self.mirror.get(&key.plural, &key.name).cloned();
        self.mirror.note(key.clone(), object.cloned());
        if key.plural == "pods" {
            self.follow_pod(before.as_ref(), object);
        }
        let broken = invariant::after(
            self,
            &Write {
                actor,
                method,
                key,
                before: before.as_ref(),
                after: object,
            },
        );
        for what in broken {
            self.broken(&format!("{actor} {method} {}/{}", key.plural, key.name), &what);
        }
        self.brought_back = self.brought_back.min(invariant::writers(self).len()).max(1);
    }

    fn follow_pod(&mut self, before: Option<&Value>, after: Option<&Value>) {
        match (before, after) {
            (_, Some(pod)) if invariant::mentions(pod, &self.claim) && !invariant::is_gated(pod) => {
                let node = Some(invariant::node_of(pod)).filter(|node| !node.is_empty());
                self.let_go.insert(uid(pod).to_owned(), node.map(str::to_owned));
                if rights::is_guarded(pod) {
                    self.guarded.insert(uid(pod).to_owned());
                }
            }
            // a pod that never had a node never ran
            (Some(pod), None) if invariant::node_of(pod).is_empty() => {
                self.physics.ended.insert(uid(pod).to_owned());
            }
            _ => {}
        }
    }

    /// Checks after something has happened outside the API.
    pub fn happened(&mut self, what: &str) {
        self.trace.push(what.to_owned());
        for broken in invariant::standing(self) {
            self.broken(what, &broken);
        }
    }

    /// Something must never be, and is.
    pub fn broken(&mut self, by: &str, what: &str) {
        // one is enough to read; the same state would be reported after every later write
        if self.violations.len() < 3 {
            self.violations.push(format!("after {by}: {what}"));
        }
    }

    /// The pods of the instance that are not on their way out.
    pub fn pods(&self) -> Vec<Value> {
        let ours =
            |pod: &&Value| invariant::mentions(pod, &self.claim) && !pod["metadata"]["ownerReferences"].is_null();
        self.mirror.all("pods").filter(ours).cloned().collect()
    }

    /// The pod whose engine serves, if there is one.
    pub fn serving_pod(&self) -> Option<Value> {
        let runs = |pod: &Value| self.physics.runs(uid(pod));
        self.pods().into_iter().find(runs)
    }

    /// Status of the condition of the instance, and its reason.
    pub fn condition(&self, type_: &str) -> Option<(String, String)> {
        let instance = self.mirror.get("sqledgeinstances", INSTANCE)?;
        let conditions = instance["status"]["conditions"].as_array()?;
        let found = conditions.iter().find(|condition| condition["type"] == type_)?;
        Some((text(found, "/status").to_owned(), text(found, "/reason").to_owned()))
    }
}

/// What a world is made with.
#[derive(Clone, Debug)]
pub struct Make {
    /// What the storage does.
    pub detach: Detach,
    /// The machines are a cloud provider's.
    pub provided: bool,
    /// What the user writes into `spec`, beside what is required.
    pub spec: Value,
}

impl Default for Make {
    fn default() -> Self {
        Self {
            detach: Detach::Revokes,
            provided: false,
            spec: json!({}),
        }
    }
}

/// A world and the hand that plays the rest of the cluster in it.
pub struct World {
    pub state: Arc<Mutex<State>>,
    pub namespace: String,
    pub client: Client,
    pub hand: Arc<Wire>,
    hand_client: Client,
    /// For names that must not repeat.
    counter: AtomicUsize,
}

impl World {
    /// A world with three nodes and no instance yet.
    pub async fn new(make: &Make) -> Self {
        Self::at(server::client().await, make).await
    }

    /// The same at a control plane that is not the one of all tests.
    pub async fn at(client: Client, make: &Make) -> Self {
        static WORLDS: AtomicUsize = AtomicUsize::new(0);
        let id = format!("w{}", WORLDS.fetch_add(1, Ordering::Relaxed));
        let state = State {
            claim: claim_of(&make.spec),
            id: id.clone(),
            mirror: Mirror::default(),
            physics: Physics::new(make.detach),
            let_go: BTreeMap::new(),
            guarded: BTreeSet::new(),
            guard_rules: Rules::all(),
            brought_back: 1,
            trace: Vec::new(),
            violations: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let hand = Wire::new(client.clone(), "cluster", state.clone(), Fault::None);
        let world = Self {
            state,
            namespace: id.clone(),
            hand_client: hand.client(),
            client,
            hand,
            counter: AtomicUsize::new(0),
        };
        world
            .post("/api/v1/namespaces", json!({"metadata": {"name": id}}))
            .await;
        for number in 1..=3 {
            world.add_node(&world.node(number), make.provided).await;
        }
        world
    }

    /// A node's name; cluster-wide, so it carries the world's.
    pub fn node(&self, number: usize) -> String {
        format!("{}-n{number}", self.namespace)
    }

    /// Creates the instance.
    pub async fn create_instance(&self, spec: &Value) {
        let body = instance(&self.namespace, spec);
        self.post(&self.path("sqledge.io/v1alpha1", "sqledgeinstances", ""), body)
            .await;
    }

    /// Changes the instance as a user would.
    pub async fn edit_instance(&self, patch: Value) {
        self.merge(&self.path("sqledge.io/v1alpha1", "sqledgeinstances", INSTANCE), patch)
            .await;
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic inside")
    }

    /// A number that was not given out in this world before.
    pub fn number(&self) -> usize {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// The path of a kind of this world's namespace, or of one object.
    pub fn path(&self, version: &str, plural: &str, name: &str) -> String {
        let root = if version == "v1" {
            "/api/v1".to_owned()
        } else {
            format!("/apis/{version}")
        };
        let path = format!("{root}/namespaces/{}/{plural}", self.namespace);
        if name.is_empty() {
            path
        } else {
            format!("{path}/{name}")
        }
    }

    pub fn pod_path(&self, name: &str) -> String {
        self.path("v1", "pods", name)
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.send("POST", path, "application/json", body).await
    }

    /// An object, if there is one.
    pub async fn get(&self, path: &str) -> Option<Value> {
        let request = Request::get(path).body(Vec::new()).expect("a request");
        match self.hand_client.request::<Value>(request).await {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("the rest of the cluster cannot read {path}: {error}"),
        }
    }

    pub async fn merge(&self, path: &str, body: Value) -> Value {
        self.send("PATCH", path, "application/merge-patch+json", body).await
    }

    pub async fn json_patch(&self, path: &str, body: Value) -> Value {
        self.send("PATCH", path, "application/json-patch+json", body).await
    }

    /// Deletes at once, or with the object's own grace.
    pub async fn delete(&self, path: &str, grace: Option<u32>) {
        let body = grace.map_or_else(|| json!({}), |seconds| json!({"gracePeriodSeconds": seconds}));
        self.send("DELETE", path, "application/json", body).await;
    }

    pub async fn send(&self, method: &str, path: &str, content_type: &str, body: Value) -> Value {
        self.try_send(method, path, content_type, body)
            .await
            .unwrap_or_else(|error| panic!("the rest of the cluster cannot {method} {path}: {error}"))
    }

    /// The same, where the answer may be a refusal that the test is about.
    pub async fn try_send(&self, method: &str, path: &str, content_type: &str, body: Value) -> kube::Result<Value> {
        process::try_send(&self.hand_client, method, path, content_type, &body).await
    }

    async fn add_node(&self, name: &str, provided: bool) {
        let labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "world": self.namespace});
        let status = json!({"conditions": [ready("True", 0)]});
        let spec = if provided {
            json!({"providerID": format!("test://{name}")})
        } else {
            json!({})
        };
        let node = json!({"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status});
        self.post("/api/v1/nodes", node).await;
        let lease = json!({"metadata": {"name": name, "labels": {"world": self.namespace}},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40}});
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        self.post(leases, lease).await;
        self.lock().physics.set_machine(name, Machine::WELL);
    }

    /// Something happens to a machine.
    pub fn change_machine(&self, node: &str, machine: Machine) {
        let mut state = self.lock();
        state.physics.set_machine(node, machine);
        state.happened(&format!("({node} is now {machine:?})"));
    }

    /// Nothing may have been broken.
    pub fn assert_sound(&self, about: &str) {
        let state = self.lock();
        assert!(
            state.violations.is_empty(),
            "{about}: {:#?}\nwhat happened before:\n{}",
            state.violations,
            state.trace.join("\n")
        );
    }

    /// For a message: what has happened.
    pub fn story(&self) -> String {
        let state = self.lock();
        let instance = state
            .mirror
            .get("sqledgeinstances", INSTANCE)
            .cloned()
            .unwrap_or_default();
        format!("{}\nstatus: {:#}", state.trace.join("\n"), instance["status"])
    }

    /// What finds the cluster-wide objects of this world.
    pub fn selector(&self) -> String {
        format!("labelSelector=world%3D{}", self.namespace)
    }

    /// Takes the cluster-wide objects away, so that the lists of other worlds stay short.
    pub async fn end(self) {
        for path in CLUSTER_WIDE {
            let request = Request::delete(format!("{path}?{}", self.selector()))
                .body(Vec::new())
                .expect("a request");
            self.client.request::<Value>(request).await.expect("deleted");
        }
    }
}

/// What was sent that changes something.
pub fn writes(sent: &[Sent]) -> Vec<String> {
    let writes = sent.iter().filter(|sent| sent.is_write());
    writes
        .map(|sent| format!("{} {} {}", sent.method, sent.path, sent.body))
        .collect()
}

/// A resource with the least a user must write, and more.
pub fn instance(namespace: &str, more: &Value) -> Value {
    let mut spec =
        json!({"acceptEula": true, "image": "registry.example/engine:1", "storage": {"storageClassName": "disk"}});
    for (key, value) in more.as_object().expect("an object") {
        spec[key] = value.clone();
    }
    json!({
        "apiVersion": "sqledge.io/v1alpha1", "kind": "SqlEdgeInstance",
        "metadata": {"name": INSTANCE, "namespace": namespace}, "spec": spec,
    })
}

fn claim_of(spec: &Value) -> String {
    match text(spec, "/storage/existingClaim") {
        "" => format!("{INSTANCE}-data"),
        claim => claim.to_owned(),
    }
}

/// Condition Ready of a node, as its kubelet wrote it at some time.
pub fn ready(status: &str, time: usize) -> Value {
    let heartbeat = format!("2020-01-01T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60);
    json!({"type": "Ready", "status": status, "reason": "Test", "message": "as the test has it",
        "lastHeartbeatTime": heartbeat, "lastTransitionTime": "2020-01-01T00:00:00Z"})
}
