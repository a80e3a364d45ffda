//! The kubelets, as one more part of the rest of the cluster: one explicit step for one node.

use serde_json::{Value, json};
use sqledge_operator::guard::rules::{Input, Tenure};

use crate::guards::Keeper;
use crate::invariant::{is_finished, mentions, node_of};
use crate::mirror::{is_deleting, name, text, uid};
use crate::physics::Container;
use crate::rights::is_guarded;
use crate::world::{State, World, ready};

impl World {
    /// The kubelet of a node: ends what is to end, reports the volumes in use, and starts what is to start. One thing after the other. A pod
    /// goes only when its container has ended.
    pub async fn kubelet(&self, node: &str) {
        if !self.lock().physics.machine(node).beats() {
            return;
        }
        let pods: Vec<Value> = self
            .lock()
            .mirror
            .all("pods")
            .filter(|pod| node_of(pod) == node)
            .cloned()
            .collect();
        self.stop_engines(node, &pods);
        let runs = |pod: &Value| self.lock().physics.containers.contains_key(uid(pod));
        for pod in pods.iter().filter(|pod| is_deleting(pod) && !runs(pod)) {
            self.lock().physics.ended.insert(uid(pod).to_owned());
            self.delete(&self.pod_path(name(pod)), Some(0)).await;
        }
        if self.report(node, false).await {
            return;
        }
        for pod in pods.iter().filter(|pod| !is_deleting(pod) && !is_finished(pod)) {
            self.start_engine(node, pod).await;
        }
    }

    fn stop_engines(&self, node: &str, pods: &[Value]) {
        let mut state = self.lock();
        let wanted = |pod: &str| pods.iter().any(|p| uid(p) == pod && !is_deleting(p) && !is_finished(p));
        let stop: Vec<String> = state
            .physics
            .containers
            .iter()
            .filter(|(pod, container)| container.node == node && !wanted(pod))
            .filter(|(pod, _)| !state.physics.slow_to_end.contains(*pod))
            .map(|(pod, _)| pod.clone())
            .collect();
        for pod in stop {
            let keeper = state.physics.containers[&pod].keeper.as_ref();
            match keeper
                .filter(|keeper| !keeper.has_ended())
                .map(|keeper| keeper.guard.tenure)
            {
                Some(Tenure::Waiting | Tenure::Holding) => state.tell(&pod, Input::Terminate),
                Some(_) => {}
                None => {
                    state.physics.containers.remove(&pod);
                    state.happened(&format!("(the kubelet of {node} stopped pod {pod})"));
                }
            }
        }
    }

    /// Writes the node's status, if the volumes in use have changed or in any case. Whether it did; a kubelet mounts only what it has
    /// reported before.
    pub async fn report(&self, node: &str, in_any_case: bool) -> bool {
        let (stored, wanted) = {
            let mut state = self.lock();
            state.note_ended(node);
            let Some(stored) = state.mirror.get("nodes", node).cloned() else {
                return false;
            };
            let runs = state
                .physics
                .containers
                .values()
                .any(|container| container.node == node);
            let attached = state
                .mirror
                .all("volumeattachments")
                .any(|a| text(a, "/spec/nodeName") == node);
            let bound = |pod: &Value| {
                node_of(pod) == node && mentions(pod, &state.claim) && !is_deleting(pod) && !is_finished(pod)
            };
            let used = runs || (attached && state.mirror.all("pods").any(bound));
            (
                stored,
                if used {
                    json!([state.unique_name()])
                } else {
                    Value::Null
                },
            )
        };
        if stored["status"]["volumesInUse"] == wanted && !in_any_case {
            return false;
        }
        let condition = ready("True", self.number());
        self.merge(
            &format!("/api/v1/nodes/{node}/status"),
            json!({"status": {"volumesInUse": wanted, "conditions": [condition]}}),
        )
        .await;
        true
    }

    /// Starts the container of a pod, if its time has come, and says so; also of one that runs, if that is not known any more.
    async fn start_engine(&self, node: &str, pod: &Value) {
        let Some(wanted) = self.run_container(node, pod) else {
            return;
        };
        let said = |pointer: &str| pod.pointer(pointer) == wanted.pointer(&pointer.replace("/status", ""));
        if said("/status/podIP")
            && said("/status/containerStatuses/0/ready")
            && said("/status/containerStatuses/0/containerID")
        {
            return;
        }
        self.merge(
            &format!("{}/status", self.pod_path(name(pod))),
            json!({"status": wanted}),
        )
        .await;
    }

    /// The status of the pod's container, which is started if it can be, or again if it has ended.
    fn run_container(&self, node: &str, pod: &Value) -> Option<Value> {
        let mut state = self.lock();
        if !mentions(pod, &state.claim) {
            return None;
        }
        let id = format!("test://{}/{}", uid(pod), self.number());
        if !state.physics.containers.contains_key(uid(pod)) {
            let container = state.may_start(node).then(|| Container {
                id: id.clone(),
                node: node.to_owned(),
                address: format!("192.0.2.{}", 20 + self.number() % 200),
                engine: !is_guarded(pod),
                keeper: is_guarded(pod).then(|| Keeper::new(uid(pod))),
            })?;
            state.physics.containers.insert(uid(pod).to_owned(), container);
            state.happened(&format!("(the kubelet of {node} started pod {})", name(pod)));
        }
        let container = state.physics.containers.get_mut(uid(pod))?;
        if container.keeper.as_ref().is_some_and(Keeper::has_ended) {
            container.id = id;
            container.keeper = Some(Keeper::new(uid(pod)));
        }
        let running = json!({"running": {"startedAt": "2020-01-01T00:00:00Z"}});
        let engine = json!({"name": "engine", "ready": container.engine, "restartCount": 0, "image": "registry.example/engine:1",
            "imageID": "", "containerID": container.id, "state": running});
        let address = &container.address;
        Some(
            json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "containerStatuses": [engine],
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]}),
        )
    }
}

impl State {
    /// A pod that is gone and does not run on its node has ended, whatever became of it.
    fn note_ended(&mut self, node: &str) {
        let there: Vec<&str> = self
            .mirror
            .all("pods")
            .filter(|pod| node_of(pod) == node)
            .map(uid)
            .collect();
        let gone: Vec<String> = self
            .let_go
            .iter()
            .filter(|(pod, bound)| {
                bound.as_deref() == Some(node)
                    && !there.contains(&pod.as_str())
                    && !self.physics.containers.contains_key(*pod)
            })
            .map(|(pod, _)| pod.clone())
            .collect();
        self.physics.ended.extend(gone);
    }

    /// Whether a node can mount the volume for one more pod.
    fn may_start(&self, node: &str) -> bool {
        let attached = self
            .mirror
            .all("volumeattachments")
            .any(|a| text(a, "/spec/nodeName") == node && !is_deleting(a) && a["status"]["attached"] == true);
        // a node that the storage does not let write has no device
        let exported = self.physics.exports.contains(node);
        let occupied = self.physics.containers.values().any(|container| container.node == node);
        attached && exported && !(occupied && self.is_exclusive())
    }
}
