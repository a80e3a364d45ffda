//! A real multi-node Kubernetes on one Linux machine, without a container runtime on the host, a registry or a network.
//!
//! For the demo and the end-to-end tests. The command `testbed up` puts one up; tests then open it by name:
//!
//! ```no_run
//! # fn main() -> testbed::Result<()> {
//! let bed = testbed::Testbed::open("e2e")?;
//! bed.kubectl(&["get", "nodes"])?;
//! bed.node("n2")?.power_off()?;
//! bed.exec("client", &["curl", "--max-time", "1", "http://10.240.0.200"])?;
//! # Ok(()) }
//! ```
//!
//! Everything needs root, and touches nothing outside namespaces, control groups and folders that carry the testbed's
//! name.

pub mod addons;
pub mod audit;
pub mod cgroup;
pub mod check;
pub mod cluster;
pub mod controlplane;
pub mod daemon;
pub mod error;
pub mod image;
pub mod layout;
pub mod network;
pub mod node;
pub mod pki;
pub mod process;
pub mod programs;

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub use crate::{
    audit::AuditEvent,
    cluster::Settings,
    error::{Error, Result},
    layout::{Layout, NodeId},
    network::Peers,
    node::Node,
};
use crate::{
    network::Network,
    process::{command, run},
};

/// A testbed that was put up.
pub struct Testbed {
    layout: Layout,
    settings: Settings,
}

impl Testbed {
    /// The testbed of this name, in the cache folder that the environment names.
    pub fn open(name: &str) -> Result<Self> {
        let layout = Layout::new(name, Layout::cache_from_environment()?)?;
        let settings = Settings::of(&layout)?;
        Ok(Self { layout, settings })
    }

    pub(crate) fn of(layout: Layout, settings: Settings) -> Self {
        Self { layout, settings }
    }

    /// Names, addresses and paths.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How it was asked for.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The folder with everything it keeps.
    pub fn state_dir(&self) -> PathBuf {
        self.layout.state()
    }

    /// The administrator's kubeconfig. Its address works only inside: see [`Testbed::command`].
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// Runs kubectl as administrator and returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(self.kubectl_command().args(arguments).stdin(Stdio::null()))
    }

    /// Runs kubectl with `input` on standard input.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut kubectl = self.kubectl_command();
        kubectl
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let words = format!("kubectl {}", arguments.join(" "));
        let started = |source| Error::Start {
            command: words.clone(),
            source,
        };
        let mut child = kubectl.spawn().map_err(started)?;
        let mut pipe = child.stdin.take().expect("standard input was asked for");
        // a child that ends early says why by its status, not by the broken pipe
        let _ = pipe.write_all(input.as_bytes());
        drop(pipe);
        let output = child.wait_with_output().map_err(|source| Error::Start {
            command: words.clone(),
            source,
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Command {
            command: words,
            status: output.status.to_string(),
            output: text,
        })
    }

    /// Applies manifests, server-side.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        let arguments = [
            "apply",
            "--server-side",
            "--field-manager=testbed",
            "--force-conflicts",
            "--filename=-",
        ];
        self.kubectl_with_input(&arguments, manifests)
    }

    fn kubectl_command(&self) -> Command {
        let mut kubectl = daemon::in_network(&self.layout, "cp");
        kubectl.arg(self.layout.tool("kubectl"));
        kubectl
    }

    /// The node `n1`, `n2`, ...
    pub fn node(&self, name: &str) -> Result<Node<'_>> {
        let id: NodeId = name.parse()?;
        if id.0 > self.settings.nodes {
            let (testbed, last) = (self.layout.name(), NodeId(self.settings.nodes));
            return Err(Error::Refused(format!(
                "testbed `{testbed}` has no node {id}; its last one is {last}"
            )));
        }
        Ok(Node::new(&self.layout, &self.settings, id))
    }

    /// All nodes.
    pub fn nodes(&self) -> Vec<Node<'_>> {
        self.settings
            .node_ids()
            .into_iter()
            .map(|id| Node::new(&self.layout, &self.settings, id))
            .collect()
    }

    /// The beginning of a command in a place: `cp`, `client`, `storage` (their network only) or a node (all of it).
    pub fn command(&self, place: &str) -> Result<Command> {
        match place {
            "cp" | "client" | "storage" => Ok(daemon::in_network(&self.layout, place)),
            node => self.node(node)?.command(),
        }
    }

    /// Runs a program in a place and returns what it printed.
    pub fn exec(&self, place: &str, words: &[&str]) -> Result<String> {
        run(self.command(place)?.args(words).stdin(Stdio::null()))
    }

    /// Cuts a node off from others, in both directions; partitions in force stay.
    pub fn partition(&self, node: &str, from: &[Peers]) -> Result<()> {
        let node = self.node(node)?.id().to_string();
        let network = Network::of(&self.layout);
        let mut partitions = network.partitions();
        partitions.entry(node).or_default().extend(from);
        network.set_partitions(&partitions)
    }

    /// Ends the partitions of one node, or all.
    pub fn heal(&self, node: Option<&str>) -> Result<()> {
        let network = Network::of(&self.layout);
        let mut partitions = network.partitions();
        match node {
            None => partitions.clear(),
            Some(node) => {
                partitions.remove(&self.node(node)?.id().to_string());
            }
        }
        network.set_partitions(&partitions)
    }

    /// What a node is cut off from.
    pub fn partitions_of(&self, node: NodeId) -> BTreeSet<Peers> {
        Network::of(&self.layout)
            .partitions()
            .remove(&node.to_string())
            .unwrap_or_default()
    }

    /// Takes the API server away at once.
    pub fn stop_api(&self) -> Result<()> {
        controlplane::stop_api(&self.layout)
    }

    /// Brings it back and waits until it is ready.
    pub fn start_api(&self) -> Result<()> {
        controlplane::start_api(&self.layout)
    }

    /// Imports image archives into every node that has power.
    pub fn import_images(&self, archives: &[impl AsRef<Path>]) -> Result<()> {
        for archive in archives {
            for node in self.nodes() {
                if node.first_process().is_some() {
                    node.import_image(archive.as_ref())?;
                }
            }
        }
        Ok(())
    }

    /// Talks to the storage host: `state`, `mode all lie`, ... and returns what it answered.
    pub fn storage(&self, arguments: &[&str]) -> Result<String> {
        run(self.storage_command().args(arguments).stdin(Stdio::null()))
    }

    /// The beginning of a command to the storage host.
    pub fn storage_command(&self) -> Command {
        let host = format!("--host={}:{}", layout::STORAGE_ADDRESS, layout::STORAGE_PORT);
        let mut asked = daemon::in_network(&self.layout, "storage");
        asked.arg(self.layout.tool("test-storage")).args(["ctl", &host]);
        asked
    }

    /// The API server's audit log from the beginning.
    pub fn audit_log(&self) -> Result<Vec<AuditEvent>> {
        audit::read(&self.layout.audit_log())
    }

    /// What is new in it since it had this length.
    pub fn audit_log_since(&self, length: u64) -> Result<Vec<AuditEvent>> {
        audit::read_from(&self.layout.audit_log(), length)
    }

    /// How long it is, in whole lines: the API server writes them one by one.
    pub fn audit_log_length(&self) -> Result<u64> {
        let log = self.layout.audit_log();
        let length = std::fs::metadata(&log).map(|data| data.len());
        length.map_err(Error::file("look at", log))
    }

    /// The storage host's log of writes: JSON lines.
    pub fn storage_log(&self) -> PathBuf {
        self.layout.storage_log()
    }

    /// Runs our own command line, as a user would.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        run(command([self.layout.own_program()])
            .args(["--name", self.layout.name()])
            .args(arguments))
    }
}
