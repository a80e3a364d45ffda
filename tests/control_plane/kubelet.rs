//! The kubelets, as one more part of the rest of the cluster: one explicit step for one node.

use serde_json::{Value, json};

use crate::invariant::{is_finished, mentions, node_of};
use crate::mirror::{is_deleting, name, text, uid};
use crate::physics::Container;
use crate::world::World;

impl World {
    /// The kubelet of a node: ends what is to end, reports the volumes in use, and starts what is to start. One thing after the other.
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
        for pod in pods.iter().filter(|pod| is_deleting(pod)) {
            self.lock().physics.ended.insert(uid(pod).to_owned());
            self.delete(&self.pod_path(name(pod)), Some(0)).await;
        }
        if self.report_in_use(node).await {
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
            state.physics.containers.remove(&pod);
            state.happened(&format!("(the kubelet of {node} stopped pod {pod})"));
        }
        // a pod that is gone and does not run here has ended, whatever became of it
        let gone: Vec<String> = state
            .let_go
            .iter()
            .filter(|(pod, bound)| {
                bound.as_deref() == Some(node)
                    && !pods.iter().any(|p| uid(p) == pod.as_str())
                    && !state.physics.containers.contains_key(*pod)
            })
            .map(|(pod, _)| pod.clone())
            .collect();
        state.physics.ended.extend(gone);
    }

    /// Whether the report had to be changed; a kubelet mounts only what it has reported before.
    async fn report_in_use(&self, node: &str) -> bool {
        let (stored, wanted) = {
            let state = self.lock();
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
        if stored["status"]["volumesInUse"] == wanted {
            return false;
        }
        self.merge(
            &format!("/api/v1/nodes/{node}/status"),
            json!({"status": {"volumesInUse": wanted}}),
        )
        .await;
        true
    }

    /// Starts the engine of a pod, if its time has come, and says so; also of one that runs, if that is not known any more.
    async fn start_engine(&self, node: &str, pod: &Value) {
        let Some(address) = self.run_engine(node, pod) else {
            return;
        };
        if text(pod, "/status/podIP") == address {
            return;
        }
        let running = json!({"running": {"startedAt": "2020-01-01T00:00:00Z"}});
        let engine = json!({"name": "engine", "ready": true, "restartCount": 0, "image": "registry.example/engine:1", "imageID": "",
            "containerID": format!("test://{}", uid(pod)), "state": running});
        let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "containerStatuses": [engine],
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]});
        self.merge(
            &format!("{}/status", self.pod_path(name(pod))),
            json!({"status": status}),
        )
        .await;
    }

    /// The address of the pod's engine, which is started if it can be.
    fn run_engine(&self, node: &str, pod: &Value) -> Option<String> {
        let mut state = self.lock();
        if !mentions(pod, &state.claim) {
            return None;
        }
        if let Some(container) = state.physics.containers.get(uid(pod)) {
            return Some(container.address.clone());
        }
        let attached = state
            .mirror
            .all("volumeattachments")
            .any(|a| text(a, "/spec/nodeName") == node && !is_deleting(a) && a["status"]["attached"] == true);
        // a node that the storage does not let write has no device
        let exported = state.physics.exports.contains(node);
        let occupied = state
            .physics
            .containers
            .values()
            .any(|container| container.node == node);
        if !attached || !exported || (occupied && state.is_exclusive()) {
            return None;
        }
        let container = Container {
            node: node.to_owned(),
            address: format!("192.0.2.{}", 20 + self.number() % 200),
        };
        let address = container.address.clone();
        state.physics.containers.insert(uid(pod).to_owned(), container);
        state.happened(&format!("(the kubelet of {node} started pod {})", name(pod)));
        Some(address)
    }
}
