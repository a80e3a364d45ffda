//! The demo's account: what happened, by the API server's word and by what clients saw, each with its time.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    error::Result,
    instance::condition,
    lab::Lab,
    watch::{Change, Watch},
};

/// Prints lines with the seconds since an origin.
pub struct Timeline {
    origin: Timestamp,
    watch: Watch,
    known: HashMap<String, String>,
}

impl Timeline {
    /// Begins to follow pods, nodes and one instance with its Service.
    pub fn of(lab: &Lab, namespace: &str, name: &str) -> Result<Self> {
        let mut watch = Watch::default();
        let here = format!("--namespace={namespace}");
        watch.follow(lab, &["sqledge", name, &here])?;
        watch.follow(lab, &["service", name, &here])?;
        watch.follow(
            lab,
            &[
                "pods",
                &here,
                "--selector",
                &format!("app.kubernetes.io/instance={name}"),
            ],
        )?;
        watch.follow(lab, &["nodes"])?;
        Ok(Self {
            origin: Timestamp::now(),
            watch,
            known: HashMap::new(),
        })
    }

    /// What is told is told from now on as seconds since this instant.
    pub fn restart(&mut self, at: Timestamp) {
        self.origin = at;
    }

    /// Something that we did or saw.
    pub fn say(&self, at: Timestamp, who: &str, what: &str) {
        let seconds = (at - self.origin).total(jiff::Unit::Second).unwrap_or_default();
        // a reader who has seen enough is no failure
        let _ = writeln!(io::stdout(), "  {seconds:+8.2} s  {who:9} {what}");
    }

    /// Tells what has changed since the last call.
    pub fn tell(&mut self) {
        let changes: Vec<Change> = self.watch.changes().collect();
        for change in changes {
            let (kind, name) = (
                change.object["kind"].as_str().unwrap_or_default(),
                text(&change.object["metadata"]["name"]),
            );
            let described: Vec<(&str, &str, String)> = match kind {
                "Pod" => vec![("cluster", "pod", pod(&change))],
                "Node" => vec![("cluster", "node", node(&change.object))],
                "Service" => vec![("cluster", "service", service(&change.object))],
                "SqlEdgeInstance" => vec![
                    ("operator", "ready", ready(&change.object)),
                    ("operator", "failover", failover(&change.object)),
                ],
                _ => continue,
            };
            for (who, aspect, words) in described {
                let key = format!("{aspect} {name}");
                let before = self.known.insert(key, words.clone());
                // what was so at the beginning did not happen now
                let news =
                    before.as_ref() != Some(&words) && !words.is_empty() && !(before.is_none() && aspect == "node");
                if news {
                    self.say(change.at, who, &words);
                }
            }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn pod(change: &Change) -> String {
    let (pod, name) = (&change.object, text(&change.object["metadata"]["name"]));
    let node = text(&pod["spec"]["nodeName"]);
    if change.kind == "DELETED" {
        return format!("pod {name} is gone");
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return format!("pod {name} is being deleted");
    }
    if pod["spec"]["schedulingGates"]
        .as_array()
        .is_some_and(|gates| !gates.is_empty())
    {
        return format!("pod {name} exists and waits behind its gate");
    }
    let ready = pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True");
    match (node, text(&pod["status"]["phase"]), ready) {
        ("", ..) => format!("pod {name} has its gate open"),
        (node, "Pending", _) => format!("pod {name} is placed on node {node}"),
        (node, _, true) => format!("pod {name} on node {node} is ready"),
        (node, phase, false) => format!("pod {name} on node {node} is {}", phase.to_lowercase()),
    }
}

fn node(node: &Value) -> String {
    let ready = condition(node, "Ready").map(|ready| ready.status).unwrap_or_default();
    let word = match ready.as_str() {
        "True" => "ready",
        "False" => "not ready",
        _ => "silent (Ready is Unknown)",
    };
    format!("node {} is {word}", text(&node["metadata"]["name"]))
}

fn service(service: &Value) -> String {
    let address = text(&service["status"]["loadBalancer"]["ingress"][0]["ip"]);
    if address.is_empty() {
        String::new()
    } else {
        format!("address {address} is assigned")
    }
}

fn ready(resource: &Value) -> String {
    let Some(ready) = condition(resource, "Ready") else {
        return String::new();
    };
    let place = text(&resource["status"]["node"]);
    match ready.status.as_str() {
        "True" => format!("Ready on node {place}"),
        _ => format!("not Ready ({}): {}", ready.reason, ready.message),
    }
}

/// The operator's own phases of the failover that is under way.
fn failover(resource: &Value) -> String {
    let phases = resource["status"]["failover"]["phases"].as_array();
    let Some(phase) = phases.and_then(|phases| phases.last()) else {
        return String::new();
    };
    format!("phase {}", text(&phase["name"]))
}

/// The record that the operator leaves in the status, one line each.
pub fn record(resource: &Value) -> Vec<String> {
    let record = &resource["status"]["lastFailover"];
    if record.is_null() {
        return vec!["no failover is recorded".to_owned()];
    }
    let listed = |field: &str| -> Vec<&str> {
        record[field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    };
    let mut lines = vec![format!(
        "{}: node {} -> node {}, {} ms by the operator's count, on this proof: {}",
        text(&record["reason"]),
        text(&record["fromNode"]),
        text(&record["toNode"]),
        record["durationMilliseconds"],
        listed("evidence").join(", ")
    )];
    for phase in record["phases"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  {:11} {:>6} ms",
            text(&phase["name"]),
            phase["milliseconds"].to_string()
        ));
    }
    lines
}
