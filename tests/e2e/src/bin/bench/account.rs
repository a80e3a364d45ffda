//! What a database of the vendor's manifests hangs in, in the cluster's own words.

use e2e::{Error, Result};
use jiff::{Timestamp, Unit};
use serde_json::{Value, json};

use crate::subject::Subject;

/// Pods, attachments and events, at so many seconds after the fault.
pub fn of(subject: &Subject, fault: Timestamp) -> Result<Value> {
    let lab = subject.lab;
    let after = (Timestamp::now() - fault)
        .total(Unit::Second)
        .unwrap_or_default()
        .round();
    let pods: Vec<String> = subject.pods()?.iter().map(pod).collect();
    let claims = lab.list("pvc", &subject.namespace, "")?;
    let volumes: Vec<&str> = claims
        .iter()
        .filter_map(|claim| claim["spec"]["volumeName"].as_str())
        .collect();
    let attachments = lab.list("volumeattachments", "--all-namespaces", "")?;
    let attachments: Vec<String> = attachments
        .iter()
        .filter(|it| {
            it["spec"]["source"]["persistentVolumeName"]
                .as_str()
                .is_some_and(|volume| volumes.contains(&volume))
        })
        .map(attachment)
        .collect();
    let words = [
        "get",
        "events",
        "--namespace",
        &subject.namespace,
        "--sort-by=.metadata.creationTimestamp",
        "--output=json",
    ];
    let events: Value = serde_json::from_str(&lab.kubectl(&words)?).map_err(Error::malformed("a list of events"))?;
    let events = events["items"]
        .as_array()
        .into_iter()
        .flatten()
        // every pod of a testbed has the warning about names, and none means anything by it
        .filter(|event| event["type"] == "Warning" && event["reason"] != "MissingClusterDNS");
    let events: Vec<String> = events
        .map(|event| {
            format!(
                "{}: {} ({} times)",
                text(&event["reason"]),
                text(&event["message"]),
                event["count"]
            )
        })
        .collect();
    Ok(
        json!({"namespace": subject.namespace, "seconds_after_fault": after, "pods": pods, "attachments": attachments, "warnings": events}),
    )
}

fn pod(pod: &Value) -> String {
    let status = &pod["status"];
    let mut words = vec![format!(
        "{} on node {}",
        text(&status["phase"]),
        text(&pod["spec"]["nodeName"])
    )];
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        words.push("being deleted".to_owned());
    }
    let waiting = status["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| it["state"]["waiting"]["reason"].as_str());
    words.extend(waiting.map(str::to_owned));
    words.join(", ")
}

fn attachment(attachment: &Value) -> String {
    let deleted = if attachment["metadata"]["deletionTimestamp"].is_null() {
        ""
    } else {
        ", being deleted"
    };
    let attached = if attachment["status"]["attached"] == true {
        "attached"
    } else {
        "not attached"
    };
    format!("node {}: {attached}{deleted}", text(&attachment["spec"]["nodeName"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_cannot_leave_a_dead_node_is_told_as_such() {
        let hanging = json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n2"},
            "status": {"phase": "Running"},
        });
        assert_eq!(pod(&hanging), "Running on node n2, being deleted");
        let held = json!({"spec": {"nodeName": "n1"}, "metadata": {}, "status": {"phase": "Pending",
            "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}});
        assert_eq!(pod(&held), "Pending on node n1, ContainerCreating");
    }
}
