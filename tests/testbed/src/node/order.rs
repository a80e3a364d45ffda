//! What a node's first process is told: once at its start through a file, later over a socket.
//!
//! Shared by both ends. One JSON line each way, one order a connection.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How a node is put together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Its host name.
    pub hostname: String,
    /// Its control group, relative to each hierarchy.
    pub cgroup: PathBuf,
    /// Where to leave word about the first process.
    pub pidfile: PathBuf,
    /// Where to listen for orders.
    pub socket: PathBuf,
    /// The folder that becomes /var.
    pub disk: PathBuf,
    /// Files and folders of the machine that must be seen inside /var: source, and path below /var.
    pub visible: Vec<(PathBuf, PathBuf)>,
    /// Files to lie over others: source and target. A target that does not exist is left out.
    pub overlaid: Vec<(PathBuf, PathBuf)>,
    /// What can be started.
    pub services: Vec<Service>,
}

/// A program that the first process starts, and starts again when it ends by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Its name, also that of its log.
    pub name: String,
    /// Program and arguments.
    pub words: Vec<String>,
    /// Wait this long before starting it again.
    pub restart_seconds: u64,
}

/// An order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Start these.
    Start(Vec<String>),
    /// End this one and leave it ended.
    Stop(String),
    /// Say what runs.
    Status,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Each service: whether it runs, and how often it was started.
    Done(BTreeMap<String, ServiceState>),
    /// Why not.
    Refused(String),
}

/// One service as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Whether it runs now.
    pub running: bool,
    /// How often it was started since the node has power.
    pub starts: u32,
}

/// Gives an order and returns the answer.
pub fn give(socket: &Path, order: &Order) -> Result<BTreeMap<String, ServiceState>> {
    let talk = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut line = serde_json::to_string(order).expect("an order is always valid JSON");
        line.push('\n');
        stream.write_all(line.as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = talk().map_err(Error::file("reach the node at", socket))?;
    match serde_json::from_str(&answer).map_err(Error::malformed("the node's answer"))? {
        Answer::Done(states) => Ok(states),
        Answer::Refused(why) => Err(Error::Refused(why)),
    }
}
