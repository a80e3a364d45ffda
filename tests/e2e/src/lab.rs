//! A testbed with the stand-in engine's image on its nodes: the place where demo and tests happen.

use std::process::Command;

use serde_json::{Value, json};
use testbed::Testbed;

use crate::{
    error::{Error, Result},
    programs::Programs,
    wait::until,
};

/// Image that takes the engine's place; the real one cannot be pulled here.
pub const ENGINE_IMAGE: &str = "localhost/sqledge-standin:dev";
/// The driver that keeps its word.
pub const REVOKING: &str = "revoking.storage.test";
/// The storage class whose volumes may grow, from 300 MiB on.
pub const GROWING_CLASS: &str = "growing";
/// The storage class of the driver that the operator knows nothing about.
pub const UNLISTED_CLASS: &str = "unlisted";

/// A running testbed.
pub struct Lab {
    bed: Testbed,
    programs: Programs,
}

impl Lab {
    /// Puts a testbed up, shows its progress, and gives the images to its nodes.
    pub fn up(name: &str, programs: Programs) -> Result<Self> {
        Self::up_with(name, programs, &[])
    }

    /// The same with further words for `testbed up`.
    pub fn up_with(name: &str, programs: Programs, more: &[&str]) -> Result<Self> {
        let program = programs.program("testbed");
        let status = Command::new(&program).args(["--name", name, "up"]).args(more).status();
        let status = status.map_err(Error::file("run", &program))?;
        if !status.success() {
            let output = format!("{status}; its words stand above");
            return Err(Error::Program {
                program: "testbed up".to_owned(),
                output,
            });
        }
        let lab = Self::open(name, programs)?;
        lab.bed.import_images(&[
            lab.programs.archive("operator.tar"),
            lab.programs.archive("standin.tar"),
        ])?;
        Ok(lab)
    }

    /// A testbed that is up already.
    pub fn open(name: &str, programs: Programs) -> Result<Self> {
        Ok(Self {
            bed: Testbed::open(name)?,
            programs,
        })
    }

    /// Ends it.
    pub fn down(&self) -> Result<()> {
        self.bed.cli(&["down"])?;
        Ok(())
    }

    /// The cluster below.
    pub fn bed(&self) -> &Testbed {
        &self.bed
    }

    /// Our programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Runs kubectl as administrator.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        Ok(self.bed.kubectl(words)?)
    }

    /// One object, if it exists.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let words = [
            "get",
            kind,
            name,
            "--namespace",
            namespace,
            "--ignore-not-found",
            "--output=json",
        ];
        let text = self.kubectl(&words)?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text)
            .map(Some)
            .map_err(Error::malformed(format!("{kind} {name}")))
    }

    /// The objects of a kind that a label selector fits; `namespace` may be `--all-namespaces`.
    pub fn list(&self, kind: &str, namespace: &str, selector: &str) -> Result<Vec<Value>> {
        let place = if namespace.starts_with("--") {
            namespace.to_owned()
        } else {
            format!("--namespace={namespace}")
        };
        let text = self.kubectl(&["get", kind, &place, "--selector", selector, "--output=json"])?;
        let list: Value = serde_json::from_str(&text).map_err(Error::malformed(format!("a list of {kind}")))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Runs one of the cluster's programs in the control plane's network, as administrator; helm is meant.
    pub fn tool(&self, program: &str, words: &[&str]) -> Result<String> {
        let mut command = self.bed.command("cp")?;
        let command = command
            .arg(self.bed.layout().tool(program))
            .args(words)
            .current_dir(&self.programs.checkout);
        let shown = format!("{program} {}", words.first().unwrap_or(&""));
        let output = command
            .output()
            .map_err(Error::file("run", self.bed.layout().tool(program)))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(Error::Program {
            program: shown,
            output: format!("{text}{}", String::from_utf8_lossy(&output.stderr)),
        })
    }

    /// Keeps new pods off all nodes but one, until [`Lab::open_all_nodes`].
    ///
    /// Waits until the scheduler knows: its watch of nodes is an own one, and after an API server that was away it can be half a minute
    /// behind the watch of pods.
    pub fn only_node(&self, name: &str) -> Result<()> {
        for node in self.bed.nodes() {
            let node = node.id().to_string();
            self.kubectl(&[if node == name { "uncordon" } else { "cordon" }, &node])?;
        }
        until(
            60,
            &format!("the scheduler places no pod on a node other than {name}"),
            || self.scheduler_refuses_other_nodes(name),
        )
    }

    /// Asks the scheduler by a pod that may run on any node but this one.
    fn scheduler_refuses_other_nodes(&self, name: &str) -> Result<bool> {
        let elsewhere =
            json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [name]}]});
        let affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [elsewhere]}});
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"generateName": "placement-probe-", "namespace": "default"},
            "spec": {
                "affinity": {"nodeAffinity": affinity},
                "automountServiceAccountToken": false,
                "containers": [{"name": "none", "image": ENGINE_IMAGE, "command": ["/never-started"]}],
                "terminationGracePeriodSeconds": 0,
            },
        });
        let made = ["create", "--filename=-", "--output=name"];
        let made = self.bed.kubectl_with_input(&made, &pod.to_string())?;
        let made = made.trim();
        let refused = until(10, &format!("the scheduler has judged {made}"), || {
            let text = self.kubectl(&["get", made, "--namespace=default", "--output=json"])?;
            let pod: Value = serde_json::from_str(&text).map_err(Error::malformed(made.to_owned()))?;
            let conditions = pod["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            let placed = conditions.find(|condition| condition["type"] == "PodScheduled");
            Ok(placed.map(|placed| placed["status"] == "False"))
        });
        self.kubectl(&["delete", made, "--namespace=default", "--force", "--wait=false"])?;
        refused
    }

    /// Lets pods on all nodes.
    pub fn open_all_nodes(&self) -> Result<()> {
        for node in self.bed.nodes() {
            self.kubectl(&["uncordon", &node.id().to_string()])?;
        }
        Ok(())
    }

    /// The value of a node's Ready condition.
    pub fn node_ready(&self, name: &str) -> Result<String> {
        let path = "--output=jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        self.kubectl(&["get", "node", name, path])
    }

    /// Puts right whatever a test did to nodes, network and storage, and waits until all nodes are Ready.
    pub fn restore(&self) -> Result<()> {
        if self
            .kubectl(&["get", "--raw=/readyz", "--request-timeout=10s"])
            .is_err()
        {
            self.bed.start_api()?;
        }
        self.bed.heal(None)?;
        self.bed.storage(&["mode", "all", "revoke"])?;
        for node in self.bed.nodes() {
            if node.first_process().is_none() {
                node.power_on()?;
            } else if node.is_paused()? {
                node.resume()?;
            }
        }
        for node in self.bed.nodes() {
            let name = node.id().to_string();
            until(90, &format!("node {name} is Ready"), || {
                Ok(self.node_ready(&name)? == "True")
            })?;
        }
        self.open_all_nodes()
    }

    /// What a person would look at first after a failure.
    pub fn describe(&self, namespace: &str) -> String {
        let mut text = String::new();
        let mut look = |title: &str, words: &[&str], last: usize| {
            let found = self.kubectl(words).unwrap_or_else(|error| error.to_string());
            let lines: Vec<String> = found.lines().map(without_colours).collect();
            let shown = lines[lines.len().saturating_sub(last)..].join("\n");
            text = format!("{text}---- {title}\n{shown}\n");
        };
        look(
            "instances",
            &["get", "sqledge", "--namespace", namespace, "--output=yaml"],
            150,
        );
        look("pods", &["get", "pods", "--all-namespaces", "--output=wide"], 40);
        look("nodes", &["get", "nodes"], 10);
        look("attachments", &["get", "volumeattachments"], 20);
        look(
            "events",
            &[
                "get",
                "events",
                "--namespace",
                namespace,
                "--sort-by=.metadata.creationTimestamp",
            ],
            40,
        );
        let logs = [
            "logs",
            "--namespace=sqledge-system",
            "--selector=app.kubernetes.io/name=sqledge-operator",
            "--prefix",
        ];
        look("operator", &[&logs[..], &["--tail=60", "--since=5m"]].concat(), 120);
        text
    }
}

/// Terminal colours are of no use in a log file, and double its length.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once('m').map_or(part, |(_, rest)| rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out_and_nothing_else() {
        assert_eq!(without_colours("a \x1b[32m INFO\x1b[0m m"), "a  INFO m");
    }
}
