//! The fingerprint of what a pod template was made from.
//!
//! The template of a running database changes only when its resource does. A new version of the operator may well render
//! the same resource differently (another image of its own, another probe); comparing templates would then restart every
//! database of the cluster at once. So the *inputs* are compared, and their fingerprint must not depend on the operator's
//! version, on its dependencies or on the order of a map.

use serde::Serialize;
use serde_json::Value;

use crate::api::Guard;
use crate::instance::{Failover, Instance};

/// Fingerprint of everything in the resource that reaches the pod template.
///
/// A setting that is added in a later version must be left out here while it is unset: otherwise the upgrade to that
/// version restarts every database.
pub fn template_inputs(instance: &Instance, volume_id: &str, secret_key: &str) -> String {
    // exhaustive, so that for every new field somebody decides on which side it stands
    let Instance {
        // reach the template
        name,
        image,
        edition,
        agent,
        collation,
        lcid,
        time_zone,
        claim_name,
        claim_is_ours,
        secret_name,
        resources,
        memory_limit_mb,
        node_selector,
        affinity,
        tolerations,
        topology_spread_constraints,
        priority_class_name,
        image_pull_secrets,
        pod_security_context,
        security_context,
        env,
        termination_grace_period_seconds,
        failover,
        // reach other children, or the operator alone
        namespace: _,
        uid: _,
        generation: _,
        access_mode: _,
        storage_class: _,
        size: _,
        secret_key: _,
        secret_is_ours: _,
        service_name: _,
        service_type: _,
        port: _,
        service_annotations: _,
        load_balancer_class: _,
        load_balancer_source_ranges: _,
        external_traffic_policy: _,
        deletion_policy: _,
        confirm_node_dead: _,
    } = instance;

    let Failover {
        guard,
        // reach the guard by its Lease
        lease: _,
        renew_seconds: _,
        stop_after_seconds: _,
        takeover_after_seconds: _,
        on_api_loss: _,
        // reach the operator alone
        proof: _,
        driver_class: _,
    } = failover;

    let mut fingerprint = Fingerprint::new();
    let mut add = |name: &str, value: Value| {
        if !value.is_null() {
            fingerprint.text(name);
            fingerprint.value(&value);
        }
    };
    add("name", json(name));
    add("image", json(image));
    add("edition", json(edition));
    add("agent", json(agent));
    add("collation", json(collation));
    add("lcid", json(lcid));
    add("timeZone", json(time_zone));
    add("claim", json(claim_name));
    add("adopt", json(&!claim_is_ours));
    add("volumeId", json(volume_id));
    add("secret", json(secret_name));
    add("secretKey", json(secret_key));
    add("resources", json(resources));
    add("memoryLimit", json(memory_limit_mb));
    add("nodeSelector", json(node_selector));
    add("affinity", json(affinity));
    add("tolerations", json(tolerations));
    add("topologySpreadConstraints", json(topology_spread_constraints));
    add("priorityClassName", json(priority_class_name));
    add("imagePullSecrets", json(image_pull_secrets));
    add("podSecurityContext", json(pod_security_context));
    add("securityContext", json(security_context));
    add("env", json(env));
    add("terminationGracePeriodSeconds", json(termination_grace_period_seconds));
    // left out where it is not asked for: databases that run without a guard, from before there was one, are not to restart
    add("guard", json(&(*guard == Guard::Disabled).then_some(guard)));
    fingerprint.finish()
}

fn json<T: Serialize + ?Sized>(value: &T) -> Value {
    serde_json::to_value(value).expect("API types are JSON")
}

/// FNV-1a over a canonical form. The standard library's hasher may change with the compiler, and a cryptographic one would
/// buy nothing: an instance is only ever compared with itself.
struct Fingerprint(u64);

impl Fingerprint {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// A text with its length before it, so that two texts cannot run into each other.
    fn text(&mut self, text: &str) {
        self.bytes(text.len().to_string().as_bytes());
        self.bytes(b":");
        self.bytes(text.as_bytes());
    }

    /// A value with the keys of every map in order, whatever order `serde_json` was built to keep.
    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let mut keys: Vec<&String> = map.keys().collect();
                keys.sort();
                self.bytes(b"{");
                for key in keys {
                    self.text(key);
                    self.value(&map[key]);
                }
                self.bytes(b"}");
            }
            Value::Array(items) => {
                self.bytes(b"[");
                for item in items {
                    self.value(item);
                }
                self.bytes(b"]");
            }
            Value::String(text) => self.text(text),
            // the mark tells the number 1 from the text "1"
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                self.bytes(b"#");
                self.text(&value.to_string());
            }
        }
    }

    fn finish(&self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
#[path = "inputs_tests.rs"]
mod tests;
