//! What every fault must leave intact: no row lost, one writer, the same address.

use e2e::{
    Clients, Error, Instance, Result,
    engines::{self, Role},
    error::ensure,
    harness::Stage,
    volume,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use testbed::process::Process;

/// A client of a database that is well waits no longer than so many seconds, however busy the machine is. That nothing was restarted is seen by the
/// processes.
pub const CALM: f64 = 5.0;

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

    /// The node that answers for the address, by the balancer's last word.
    pub fn announcer(&self) -> Result<String> {
        let service = format!(
            "--field-selector=reason=nodeAssigned,involvedObject.name={}",
            self.instance.name()
        );
        let namespace = format!("--namespace={}", self.instance.namespace());
        let path = "--output=jsonpath={range .items[*]}{.message}{\"\\n\"}{end}";
        let words = ["get", "events", &namespace, &service, "--sort-by=.lastTimestamp", path];
        let said = self.instance.lab().kubectl(&words)?;
        let last = said.lines().last().unwrap_or_default();
        let nodes = self.instance.lab().bed().nodes();
        let mut names = nodes.iter().map(|node| node.id().to_string());
        names
            .find(|name| last.contains(&format!("\"{name}\"")))
            .ok_or_else(|| Error::Broken(format!("the balancer names no node: {said}")))
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

    /// The engine's two processes, parent and child.
    pub fn engine(&self) -> Result<Vec<Process>> {
        let found = self.processes(Role::Engine)?;
        ensure(found.len() == 2, || {
            format!("the engine is two processes, but these were found: {found:?}")
        })?;
        Ok(found)
    }

    /// The guard, which is process 1 of its container.
    pub fn guard(&self) -> Result<Process> {
        let found = self.processes(Role::Guard)?;
        let [guard] = found[..] else {
            return Err(Error::Broken(format!(
                "a pod has one guard, but these were found: {found:?}"
            )));
        };
        Ok(guard)
    }

    /// The processes of the pod that serves, parents first.
    pub fn processes(&self, role: Role) -> Result<Vec<Process>> {
        let pod = self.instance.pod()?;
        let testbed = self.instance.lab().bed().layout().name().to_owned();
        let all = engines::running(&testbed).into_iter();
        let fits = all.filter(|program| program.role == role && pod["metadata"]["uid"] == program.pod);
        Ok(fits.map(|program| program.process).collect())
    }

    /// Waits until clients write again after a fault; yields how many seconds they could not.
    pub fn outage(&self, fault: Timestamp, limit: u64) -> Result<f64> {
        self.instance.await_ready(limit)?;
        self.clients.await_rows_after(Timestamp::now(), limit)?;
        Ok(self.clients.outage(fault, None)?.seconds)
    }

    /// Fails unless the same processes of the same container have served all the time since.
    pub fn check_untouched(&self, since: Timestamp, container: &Value, engine: &[Process]) -> Result<()> {
        let outage = self.outage(since, 30)?;
        ensure(outage < CALM, || {
            format!("clients could not write for {outage:.1} s although nothing had to stop")
        })?;
        self.check_processes(engine)?;
        self.check_container(container)
    }

    /// Fails unless the engine's processes are the same as before.
    pub fn check_processes(&self, engine: &[Process]) -> Result<()> {
        ensure(self.engine()? == engine, || "the engine was restarted".to_owned())
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

/// Brings a database to a node, as an administrator would.
pub fn bring_to(stage: &Stage, watched: &Watched, node: &str, limit: u64) -> Result<()> {
    let pod = watched.instance.pod_name()?;
    stage.lab.only_node(node)?;
    let namespace = format!("--namespace={}", stage.namespace);
    stage
        .lab
        .kubectl(&["delete", "pod", &pod, &namespace, "--wait=false"])?;
    watched.instance.await_ready_without(&pod, limit)?;
    stage.lab.open_all_nodes()?;
    let now = watched.instance.node()?;
    ensure(now == node, || format!("the database is on node {now}"))
}

/// The operator's own account of the last failover, in seconds.
pub fn phases(record: &Value) -> String {
    let phases = record["phases"].as_array().into_iter().flatten();
    let words = phases.map(|phase| {
        let seconds = phase["milliseconds"].as_f64().unwrap_or_default() / 1000.0;
        format!("{} {seconds:.1}", phase["name"].as_str().unwrap_or_default())
    });
    words.collect::<Vec<_>>().join(", ")
}
