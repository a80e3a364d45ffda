//! The rest of the cluster: what `ReplicaSet` controller, binder, scheduler, attach-detach controller, attacher, kubelets, guards, node controller
//! and load balancer would do, each as one explicit step, so that a test decides when.
//!
//! A step looks at the API's state as it is now (the mirror) and at the machines, makes what writes are due, and nothing when none are.

use serde_json::{Value, json};

use crate::chance::Chance;
use crate::invariant::{is_finished, is_gated, mentions, node_of};
use crate::mirror::{is_deleting, name, text, uid};
use crate::physics::Detach;
use crate::world::{DRIVER, INSTANCE, World, ready};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";
const ATTACHER: &str = "external-attacher/disk-storage-test";

impl World {
    /// Some of the steps, in an order of chance; all of them where those had nothing to do. Whether anything was due.
    pub async fn round(&self, chance: &mut Chance) -> bool {
        let mut steps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        chance.shuffle(&mut steps);
        let some = 3 + chance.below(steps.len() - 2);
        let behind = if chance.percent(20) { chance.below(12) } else { 0 };
        self.steps(&steps[..some], behind).await || self.steps(&steps, 0).await
    }

    async fn steps(&self, steps: &[usize], behind: usize) -> bool {
        let (_, before) = self.hand.counts();
        let mut more = false;
        for step in steps {
            match step {
                0 => self.replicate().await,
                1 => self.bind_claim().await,
                2 => self.schedule().await,
                3 => self.attach().await,
                4 => self.detach(behind).await,
                5 => self.balance().await,
                number @ 6..=8 => self.kubelet(&self.node(number - 5)).await,
                number => more |= self.guards(&self.node(number - 8)).await,
            }
        }
        let (_, after) = self.hand.counts();
        more || after > before
    }

    /// Deployment and `ReplicaSet` controllers, strategy Recreate.
    pub async fn replicate(&self) {
        let (deployment, pods) = {
            let state = self.lock();
            (state.mirror.get("deployments", INSTANCE).cloned(), state.pods())
        };
        let Some(deployment) = deployment.filter(|deployment| !is_deleting(deployment)) else {
            return;
        };
        let template = &deployment["spec"]["template"];
        let set = set_of(template);
        let is_old = |pod: &&Value| text(pod, "/metadata/ownerReferences/0/name") != set;
        if pods.iter().any(|pod| is_old(&pod)) {
            for pod in pods.iter().filter(is_old).filter(|pod| !is_deleting(pod)) {
                self.delete(&self.pod_path(name(pod)), None).await;
            }
            return;
        }
        let active: Vec<&Value> = pods
            .iter()
            .filter(|pod| !is_deleting(pod) && !is_finished(pod))
            .collect();
        let wanted = usize::try_from(deployment["spec"]["replicas"].as_u64().unwrap_or(1)).expect("few");
        for _ in active.len()..wanted {
            let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": format!("uid-of-{set}"),
                "controller": true, "blockOwnerDeletion": true});
            let mut labels = template["metadata"]["labels"].clone();
            labels["pod-template-hash"] = set.replace(&format!("{INSTANCE}-"), "").into();
            let metadata =
                json!({"name": format!("{set}-{}", self.number()), "labels": labels, "ownerReferences": [owner]});
            self.post(
                &self.pod_path(""),
                json!({"metadata": metadata, "spec": template["spec"]}),
            )
            .await;
        }
        // pods that never ran go first
        let mut surplus = active;
        surplus.sort_by_key(|pod| !is_gated(pod));
        for pod in surplus.iter().take(surplus.len().saturating_sub(wanted)) {
            self.delete(&self.pod_path(name(pod)), None).await;
        }
    }

    /// The pods are those of the template as it is now.
    pub async fn adopt_pods(&self) {
        let (deployment, pods) = {
            let state = self.lock();
            (state.mirror.get("deployments", INSTANCE).cloned(), state.pods())
        };
        let set = set_of(&deployment.expect("there")["spec"]["template"]);
        for pod in pods {
            let mut owners = pod["metadata"]["ownerReferences"].clone();
            owners[0]["name"] = set.clone().into();
            let path = self.pod_path(name(&pod));
            self.merge(&path, json!({"metadata": {"ownerReferences": owners}}))
                .await;
        }
    }

    /// Provisioner, binder and the protection of claims.
    pub async fn bind_claim(&self) {
        let (claim, pods, handle) = {
            let state = self.lock();
            let claim = state.mirror.get("persistentvolumeclaims", &state.claim).cloned();
            let used = state.mirror.all("pods").any(|pod| mentions(pod, &state.claim));
            (claim, used, state.handle())
        };
        let Some(claim) = claim else { return };
        let path = self.path("v1", "persistentvolumeclaims", name(&claim));
        if is_deleting(&claim) {
            if !pods && !claim["metadata"]["finalizers"].is_null() {
                self.merge(&path, json!({"metadata": {"finalizers": null}})).await;
            }
            return;
        }
        let class = text(&claim, "/spec/storageClassName");
        if !text(&claim, "/spec/volumeName").is_empty() || !["disk", "other-disk"].contains(&class) {
            return;
        }
        let volume = format!("pv-{}", &uid(&claim)[..13]);
        let storage = claim["spec"]["resources"]["requests"].clone();
        let reference = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": self.namespace,
            "name": name(&claim), "uid": uid(&claim)});
        let spec = json!({"capacity": storage, "accessModes": claim["spec"]["accessModes"], "storageClassName": class,
            "persistentVolumeReclaimPolicy": "Delete", "claimRef": reference,
            "csi": {"driver": DRIVER, "volumeHandle": handle}});
        self.post(
            "/api/v1/persistentvolumes",
            json!({"metadata": {"name": volume, "labels": {"world": self.namespace}}, "spec": spec}),
        )
        .await;
        self.merge(&path, json!({"spec": {"volumeName": volume}})).await;
        let status = json!({"phase": "Bound", "accessModes": claim["spec"]["accessModes"], "capacity": storage});
        self.merge(&format!("{path}/status"), json!({"status": status})).await;
    }

    /// The scheduler: the first node by name that fits.
    pub async fn schedule(&self) {
        let (waiting, nodes, bound) = {
            let state = self.lock();
            let open =
                |pod: &&Value| pod["spec"]["schedulingGates"].is_null() && node_of(pod).is_empty() && !is_deleting(pod);
            let waiting: Vec<Value> = state.mirror.all("pods").filter(open).cloned().collect();
            let nodes: Vec<Value> = state.mirror.all("nodes").cloned().collect();
            let taken = |pod: &Value| mentions(pod, &state.claim) && !node_of(pod).is_empty() && !is_finished(pod);
            (
                waiting,
                nodes,
                state.is_exclusive() && state.mirror.all("pods").any(taken),
            )
        };
        for pod in waiting {
            let path = self.pod_path(name(&pod));
            let node = nodes.iter().find(|node| fits(&pod, node)).filter(|_| !bound);
            if let Some(node) = node {
                let target = json!({"apiVersion": "v1", "kind": "Node", "name": name(node)});
                let binding =
                    json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name(&pod)}, "target": target});
                self.post(&format!("{path}/binding"), binding).await;
            } else if text(&pod, "/status/conditions/0/reason") != "Unschedulable" {
                let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "message": "0/3 nodes are available", "lastTransitionTime": "2020-01-01T00:00:00Z"});
                self.merge(
                    &format!("{path}/status"),
                    json!({"status": {"conditions": [condition]}}),
                )
                .await;
            }
        }
    }

    /// The attach half of the attach-detach controller, and the attacher: a node with a pod of the claim gets the volume, if no other has it.
    pub async fn attach(&self) {
        let (target, volume) = {
            let state = self.lock();
            let bound = |pod: &&Value| mentions(pod, &state.claim) && !node_of(pod).is_empty() && !is_finished(pod);
            let claim = state.mirror.get("persistentvolumeclaims", &state.claim);
            let volume = claim
                .map(|claim| text(claim, "/spec/volumeName").to_owned())
                .unwrap_or_default();
            let attached = state.mirror.all("volumeattachments").next().is_some();
            let node = state.mirror.all("pods").find(bound).map(|pod| node_of(pod).to_owned());
            (node.filter(|_| !attached && !volume.is_empty()), volume)
        };
        let Some(node) = target else { return };
        {
            let mut state = self.lock();
            let elsewhere = state.physics.exports.iter().any(|other| *other != node);
            if elsewhere && state.physics.detach != Detach::Lies {
                // the storage lets one node write
                return;
            }
            state.physics.exports.insert(node.clone());
            state.happened(&format!("(the storage lets {node} write)"));
        }
        let attachment = format!("attachment-{node}");
        let metadata = json!({"name": attachment, "labels": {"world": self.namespace}, "finalizers": [ATTACHER]});
        let spec = json!({"attacher": DRIVER, "nodeName": node, "source": {"persistentVolumeName": volume}});
        self.post(ATTACHMENTS, json!({"metadata": metadata, "spec": spec}))
            .await;
        self.merge(
            &format!("{ATTACHMENTS}/{attachment}/status"),
            json!({"status": {"attached": true}}),
        )
        .await;
        self.list_attached(&node).await;
    }

    /// `volumesAttached` of a node as its attachment has it.
    async fn list_attached(&self, node: &str) {
        let (stored, wanted) = {
            let state = self.lock();
            let Some(stored) = state.mirror.get("nodes", node).cloned() else {
                return;
            };
            let here = state
                .mirror
                .all("volumeattachments")
                .any(|a| text(a, "/spec/nodeName") == node);
            let entry = json!([{"name": state.unique_name(), "devicePath": ""}]);
            (stored, if here { entry } else { Value::Null })
        };
        if stored["status"]["volumesAttached"] != wanted {
            self.merge(
                &format!("/api/v1/nodes/{node}/status"),
                json!({"status": {"volumesAttached": wanted}}),
            )
            .await;
        }
    }

    /// The detach half, and the attacher. A node that says it uses the volume is not asked to give it up: only after six minutes would it be.
    /// What nodes say may reach the controller late.
    pub async fn detach(&self, behind: usize) {
        let attachments: Vec<Value> = self.lock().mirror.all("volumeattachments").cloned().collect();
        for attachment in attachments {
            let node = text(&attachment, "/spec/nodeName").to_owned();
            let path = format!("{ATTACHMENTS}/{}", name(&attachment));
            if !is_deleting(&attachment) {
                let wanted = {
                    let state = self.lock();
                    let needed = |pod: &Value| mentions(pod, &state.claim) && node_of(pod) == node && !is_finished(pod);
                    state.mirror.all("pods").any(needed) || state.in_use(&node, behind)
                };
                if wanted {
                    continue;
                }
                self.delete(&path, None).await;
            }
            let refused = {
                let mut state = self.lock();
                let mounted = state
                    .physics
                    .containers
                    .values()
                    .any(|container| container.node == node);
                match state.physics.detach {
                    Detach::Revokes => {
                        state.physics.exports.remove(&node);
                        false
                    }
                    Detach::Refuses if !mounted => {
                        state.physics.exports.remove(&node);
                        false
                    }
                    Detach::Refuses => true,
                    Detach::Lies => false,
                }
            };
            if refused {
                if attachment["status"]["detachError"].is_null() {
                    let error = json!({"message": "the volume is mounted", "time": "2020-01-01T00:00:00Z"});
                    self.merge(&format!("{path}/status"), json!({"status": {"detachError": error}}))
                        .await;
                }
                continue;
            }
            self.merge(&path, json!({"metadata": {"finalizers": null}})).await;
            self.list_attached(&node).await;
        }
    }

    /// Time goes by: the heartbeat of every node that has one, and whatever the guards do meanwhile.
    pub async fn heartbeat(&self) {
        self.guards_age().await;
        for number in 1..=3 {
            let node = self.node(number);
            if self.lock().physics.machine(&node).beats() {
                let annotations = json!({"beat": self.number().to_string()});
                self.merge(
                    &format!("{LEASES}/{node}"),
                    json!({"metadata": {"annotations": annotations}}),
                )
                .await;
                let is_asked = self.lock().is_asked_for_its_report(&node);
                if is_asked {
                    self.report(&node, true).await;
                }
            }
        }
    }

    /// The node controller: what it thinks of nodes, long after the fact.
    pub async fn judge_nodes(&self) {
        let nodes: Vec<Value> = self.lock().mirror.all("nodes").cloned().collect();
        for node in nodes {
            let beats = self.lock().physics.machine(name(&node)).beats();
            let wanted = if beats { "True" } else { "Unknown" };
            if text(&node, "/status/conditions/0/status") != wanted {
                let path = format!("/api/v1/nodes/{}/status", name(&node));
                // what the kubelet wrote last stays readable
                let condition = &node["status"]["conditions"][0];
                let mut judged = ready(wanted, 0);
                judged["lastHeartbeatTime"] = condition["lastHeartbeatTime"].clone();
                self.merge(&path, json!({"status": {"conditions": [judged]}})).await;
            }
        }
    }

    /// The load balancer.
    pub async fn balance(&self) {
        let service = self.lock().mirror.get("services", INSTANCE).cloned();
        let Some(service) = service.filter(|service| text(service, "/spec/type") == "LoadBalancer") else {
            return;
        };
        if service["status"]["loadBalancer"]["ingress"].is_null() && !is_deleting(&service) {
            let path = format!("{}/status", self.path("v1", "services", INSTANCE));
            let balancer = json!({"ingress": [{"ip": "192.0.2.10"}]});
            self.merge(&path, json!({"status": {"loadBalancer": balancer}})).await;
        }
    }
}

impl crate::world::State {
    /// Whether it matters what a node says that has nothing new to say: the volume was there, or may have been for all that is recorded.
    /// Every kubelet reports in the end; these worlds have enough writes without the others.
    fn is_asked_for_its_report(&self, node: &str) -> bool {
        let claim = self.mirror.get("persistentvolumeclaims", &self.claim);
        let recorded = claim.map(|claim| &claim["metadata"]["annotations"]);
        let is_vague = recorded.is_none_or(|recorded| {
            recorded["sqledge.io/holder-node"].is_null() || !recorded["sqledge.io/avoid-nodes"].is_null()
        });
        is_vague || self.let_go.values().any(|at| at.as_deref() == Some(node))
    }

    /// Whether the node said, so many writes ago, that it uses the volume.
    fn in_use(&self, node: &str, behind: usize) -> bool {
        let then = self.mirror.moment().saturating_sub(behind);
        let node = self
            .mirror
            .list_as_of("nodes", then)
            .find(|stored| name(stored) == node);
        let list = node.and_then(|node| node["status"]["volumesInUse"].as_array());
        list.is_some_and(|list| list.iter().any(|entry| *entry == self.unique_name()))
    }
}

/// Whether a pod may be placed on a node.
fn fits(pod: &Value, node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    let selector = pod["spec"]["nodeSelector"].as_object();
    let selected = selector.is_none_or(|selector| selector.iter().all(|(key, value)| labels[key] == *value));
    let open = node["spec"]["unschedulable"] != true && node["spec"]["taints"].is_null();
    selected && open && !avoids(pod, name(node))
}

fn avoids(pod: &Value, node: &str) -> bool {
    let terms = pod.pointer(
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields",
    );
    let fields = terms.and_then(Value::as_array);
    fields.is_some_and(|fields| {
        fields
            .iter()
            .any(|field| field["operator"] == "NotIn" && field["values"] == json!([node]))
    })
}

/// The `ReplicaSet` of a pod template.
fn set_of(template: &Value) -> String {
    format!("{INSTANCE}-{}", fingerprint(&template.to_string()))
}

/// Of a pod template: enough to tell two apart.
fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{hash:08x}")
}
