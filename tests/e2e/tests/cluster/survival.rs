//! What every fault must leave intact: no row lost, one writer, the same address.

use e2e::{Clients, Instance, Result, error::ensure, harness::Stage, volume};
use jiff::Timestamp;
use serde_json::{Value, json};

/// A database with clients writing to it.
pub struct Watched<'a> {
    pub instance: Instance<'a>,
    pub clients: Clients<'a>,
    address: String,
    volume: String,
}

impl<'a> Watched<'a> {
    /// Creates the instance and starts its clients.
    pub fn create(stage: &Stage<'a>, name: &str, spec: &str) -> Result<Self> {
        let instance = stage.instance(name);
        instance.create(spec)?;
        Self::of(instance)
    }

    /// Starts clients of an instance that is Ready.
    pub fn of(instance: Instance<'a>) -> Result<Self> {
        let clients = Clients::start(&instance)?;
        let (address, volume) = (instance.address()?, instance.volume()?);
        Ok(Self {
            instance,
            clients,
            address,
            volume,
        })
    }

    pub fn volume(&self) -> &str {
        &self.volume
    }

    /// Pod and container that serve now. An engine that the guard starts anew changes nothing of it.
    pub fn container(&self) -> Result<Value> {
        let pod = self.instance.pod()?;
        Ok(json!({
            "pod": pod["metadata"]["uid"],
            "container": pod["status"]["containerStatuses"][0]["containerID"],
            "restarts": pod["status"]["containerStatuses"][0]["restartCount"],
        }))
    }

    /// Fails unless the same container of the same pod serves as before.
    pub fn check_container(&self, before: &Value) -> Result<()> {
        let now = self.container()?;
        ensure(now == *before, || {
            format!("the pod was replaced or its container restarted: {before} before, {now} now")
        })
    }

    /// The engine's two processes as the node numbers them, parent and child.
    pub fn engine(&self) -> Result<Vec<String>> {
        let found = self.instance.engine_processes()?;
        ensure(found.len() == 2, || {
            format!("the engine is two processes, but these were found: {found:?}")
        })?;
        Ok(found)
    }

    /// Sends a signal to a process of the node.
    pub fn signal(&self, process: &str, signal: &str) -> Result<()> {
        let node = self.instance.node()?;
        let node = self.instance.lab().bed().node(&node)?;
        node.exec(&["kill", signal, process])?;
        Ok(())
    }

    /// Waits until clients write again after a fault; yields how many seconds they could not.
    pub fn outage(&self, fault: Timestamp, limit: u64) -> Result<f64> {
        self.instance.await_ready(limit)?;
        self.clients.await_rows_after(Timestamp::now(), limit)?;
        Ok(self.clients.outage(fault, None)?.seconds)
    }

    /// The end of every test.
    pub fn check(&mut self) -> Result<()> {
        self.clients.verify()?;
        volume::one_writer(self.instance.lab(), &self.volume)?;
        let address = self.instance.address()?;
        ensure(address == self.address, || {
            format!("the address changed from {} to {address}", self.address)
        })
    }
}
