//! The end of a story, in a form in which two of them can be compared: everything that is chosen anew each time is masked.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqledge_operator::lease::Hold;

use crate::mirror::{name, text, uid};
use crate::world::{INSTANCE, State};

/// The objects that count, by kind and name, masked.
pub fn of(state: &State) -> BTreeMap<String, Value> {
    let mut masks: BTreeMap<String, String> = BTreeMap::new();
    let mut mask = |what: &str, by: &str| {
        if !what.is_empty() {
            masks.insert(what.to_owned(), format!("<{by}>"));
        }
    };
    mask(&state.id, "world");
    for (key, object) in state.mirror.objects() {
        mask(uid(object), &format!("uid of {}", key.plural));
    }
    for pod in state.pods() {
        mask(name(&pod), "pod");
        mask(text(&pod, "/status/podIP"), "address");
    }
    if let Some(claim) = state.mirror.get("persistentvolumeclaims", &state.claim) {
        mask(text(claim, "/metadata/annotations/sqledge.io~1volume-id"), "volume id");
        mask(text(claim, "/spec/volumeName"), "volume");
    }
    if let Some(Hold::Taken { start, .. }) = state.lease().map(|lease| lease.hold) {
        mask(&start, "start");
    }
    if let Some(service) = state.mirror.get("services", INSTANCE) {
        mask(text(service, "/spec/clusterIP"), "cluster address");
    }
    if let Some(deployment) = state.mirror.get("deployments", INSTANCE) {
        let annotations = "/metadata/annotations/sqledge.io~1template-";
        // both follow from the volume's id
        mask(text(deployment, &format!("{annotations}inputs")), "inputs");
        let set = state
            .pods()
            .first()
            .map(|pod| text(pod, "/metadata/labels/pod-template-hash").to_owned());
        mask(&set.unwrap_or_default(), "hash");
    }
    let mut result = BTreeMap::new();
    for (key, object) in state.mirror.objects() {
        let is_of_a_node = key.plural == "leases" && text(object, "/metadata/namespace") != state.id;
        if is_of_a_node || ["nodes", "namespaces", "persistentvolumes"].contains(&key.plural.as_str()) {
            continue;
        }
        let mut object = object.clone();
        forget(&mut object);
        let mut text = json!({format!("{}/{}", key.plural, key.name): object}).to_string();
        // the longest first: one name may be a part of another
        let mut masks: Vec<_> = masks.iter().collect();
        masks.sort_by_key(|(what, _)| std::cmp::Reverse(what.len()));
        for (what, by) in masks {
            text = text.replace(what.as_str(), by);
        }
        let masked: BTreeMap<String, Value> = serde_json::from_str(&text).expect("still JSON");
        result.extend(masked);
    }
    result
}

/// Takes away what is different each time, and what tells about the way and not about the end.
fn forget(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "creationTimestamp", "generation"] {
            metadata.remove(field);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            // only after a pin was refused, and only until the volume moves on
            annotations.remove("sqledge.io/pin-refused");
            // counts how often the Lease changed hands on the way
            annotations.remove("sqledge.io/epoch");
            // whether a lost node had the volume when it was noted depends on the way
            annotations.remove("sqledge.io/avoid-boots");
        }
    }
    if object["kind"] == "Pod" {
        // which nodes it was kept off depends on what was known of them when its gate opened; where it runs is compared
        object["spec"]["affinity"] = Value::Null;
        object["spec"]["nodeSelector"]["kubernetes.io/hostname"] = Value::Null;
    }
    if object["kind"] == "Lease" {
        for field in ["leaseTransitions", "acquireTime", "renewTime"] {
            object["spec"][field] = Value::Null;
        }
    }
    if let Some(engine) = object.pointer_mut("/status/containerStatuses/0") {
        engine["containerID"] = Value::Null;
    }
    if object["kind"] == "Secret" {
        object["data"] = Value::Null;
    }
    if object["kind"] == "Service" {
        for field in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
            object["spec"][field] = Value::Null;
        }
        for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
            port["nodePort"] = Value::Null;
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        for field in ["failover", "lastFailover", "observedGeneration"] {
            status.remove(field);
        }
        for condition in status
            .get_mut("conditions")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            condition["lastTransitionTime"] = Value::Null;
            condition["observedGeneration"] = Value::Null;
            // quotes the record
            if condition["type"] == "FailoverInProgress" {
                condition["message"] = Value::Null;
            }
        }
    }
}

/// The first differences of two ends.
pub fn differences(one: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for key in one.keys().chain(other.keys().filter(|key| !one.contains_key(*key))) {
        compare(
            key,
            one.get(key).unwrap_or(&Value::Null),
            other.get(key).unwrap_or(&Value::Null),
            &mut found,
        );
    }
    found.truncate(8);
    found
}

fn compare(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                compare(&format!("{path}.{key}"), &one[key], &other[key], found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{index}]"), a, b, found);
            }
        }
        _ if one == other => {}
        _ => found.push(format!("{path}: {one} / {other}")),
    }
}
