//! The API server's store is another one than a moment ago: what it says is read again, and what is really so stays as it is.

use std::collections::BTreeMap;

use http::Request;
use serde_json::{Value, json};

use crate::invariant;
use crate::mirror::{Key, name, uid};
use crate::world::{CLUSTER_WIDE, State, World};

impl State {
    /// The API forgets the latest past: this is what it says now. What is really so stays as it is.
    pub fn is_set_back(&mut self, objects: Vec<(Key, Value)>) {
        self.mirror.replace(objects);
        let mut open = BTreeMap::new();
        for pod in self
            .mirror
            .all("pods")
            .filter(|pod| invariant::mentions(pod, &self.claim))
        {
            if !invariant::is_gated(pod) && !invariant::is_finished(pod) {
                open.insert(
                    uid(pod).to_owned(),
                    Some(invariant::node_of(pod).to_owned()).filter(|node| !node.is_empty()),
                );
            }
        }
        // a container that runs where the API does not say so is no pod's any more, even if an object with its UID is there again
        let name_for = |pod: String, node: Option<&String>| {
            let known = open.get(&pod).is_some_and(|there| there.as_ref() == node);
            if known { pod } else { format!("{pod} (forgotten)") }
        };
        let containers = std::mem::take(&mut self.physics.containers).into_iter();
        self.physics.containers = containers
            .map(|(pod, container)| (name_for(pod, Some(&container.node)), container))
            .collect();
        for (pod, node) in std::mem::take(&mut self.let_go) {
            let name = name_for(pod.clone(), node.as_ref());
            if self.physics.ended.remove(&pod) && name != pod {
                self.physics.ended.insert(name.clone());
            }
            self.let_go.insert(name, node);
        }
        self.let_go.extend(open);
        self.brought_back = invariant::writers(self).len();
        self.happened("--- etcd is set back");
    }
}

impl World {
    /// The API server was set back: everything that it stores of this world is read again.
    pub async fn is_set_back(&self) {
        let mut objects = Vec::new();
        for (version, plural) in [
            ("sqledge.io/v1alpha1", "sqledgeinstances"),
            ("apps/v1", "deployments"),
            ("v1", "services"),
            ("v1", "persistentvolumeclaims"),
            ("v1", "pods"),
            ("v1", "secrets"),
            ("v1", "serviceaccounts"),
            ("rbac.authorization.k8s.io/v1", "roles"),
            ("rbac.authorization.k8s.io/v1", "rolebindings"),
            ("coordination.k8s.io/v1", "leases"),
        ] {
            objects.extend(self.list(plural, self.path(version, plural, "")).await);
        }
        for path in CLUSTER_WIDE {
            let plural = path.rsplit('/').next().expect("a plural");
            objects.extend(self.list(plural, format!("{path}?{}", self.selector())).await);
        }
        self.lock().is_set_back(objects);
    }

    async fn list(&self, plural: &str, path: String) -> Vec<(Key, Value)> {
        let request = Request::get(&path).body(Vec::new()).expect("a request");
        let mut list = self.client.request::<Value>(request).await.expect("a list");
        let kind = list["kind"]
            .as_str()
            .and_then(|kind| kind.strip_suffix("List"))
            .map(str::to_owned);
        let items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        let keyed = items.into_iter().map(|mut object| {
            // lists leave out what every item would repeat
            object["kind"] = json!(kind);
            object["apiVersion"] = list["apiVersion"].clone();
            let name = name(&object).to_owned();
            let plural = plural.to_owned();
            (Key { plural, name }, object)
        });
        keyed.collect()
    }
}
