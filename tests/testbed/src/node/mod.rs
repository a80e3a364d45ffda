//! A node seen from outside: giving and taking power, pausing, ending single services.
//!
//! A node is a network namespace and, inside it, namespaces for mounts, processes, host name and IPC with `init` as the first
//! process. Its folder `disk` is its /var and survives the loss of power as a disk does; everything else does not.

pub mod config;
pub mod init;
pub mod order;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use self::{
    config::{CONTAINERD_SOCKET, HOME},
    order::{Machine, Order, ServiceState, give},
};
use crate::{
    cgroup::Cgroups,
    cluster::Settings,
    daemon::Daemon,
    error::{Error, Result},
    layout::{Layout, NodeId},
    network::Network,
    pki,
    process::{Process, command, run, run_with_input, wait_until, write_whole},
};

/// One node of a testbed.
#[derive(Clone)]
pub struct Node<'a> {
    layout: &'a Layout,
    settings: &'a Settings,
    id: NodeId,
}

impl<'a> Node<'a> {
    /// The node `id` of a testbed with these settings.
    pub fn new(layout: &'a Layout, settings: &'a Settings, id: NodeId) -> Self {
        Self { layout, settings, id }
    }

    /// Its number.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its first process, if it has power.
    pub fn first_process(&self) -> Option<Process> {
        Process::recorded(&self.pidfile())
    }

    /// Gives power: everything a boot does, up to the start of all services.
    pub fn power_on(&self) -> Result<()> {
        self.boot()?;
        self.start_containerd()?;
        self.start_all()
    }

    /// The part of a boot that needs nobody else: the machine with no service running.
    pub fn boot(&self) -> Result<()> {
        if self.first_process().is_some() {
            return Err(Error::Refused(format!("node {} has power already", self.id)));
        }
        let cgroups = Cgroups::detect()?;
        end(self.layout, self.id)?;
        Network::of(self.layout).connect_node(self.id, &self.settings.node_ids())?;
        cgroups.create(&self.layout.node_cgroup(self.id))?;
        let machine = self.write_files()?;
        let description = self.layout.node(self.id).join("machine.json");
        write_whole(
            &description,
            &serde_json::to_vec(&machine).expect("paths we made are valid UTF-8"),
        )?;
        // it must exist before /var is put in its place
        fs::write(self.pidfile(), "").map_err(Error::file("write", self.pidfile()))?;
        let shell = shell_name(self.id);
        let words = [
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
        ]
        .map(OsString::from);
        let init = [
            self.layout.own_program().into(),
            "internal".into(),
            "init".into(),
            description.into_os_string(),
        ];
        Daemon {
            name: &shell,
            place: &self.id.to_string(),
            words: words.into_iter().chain(init).collect(),
        }
        .start(self.layout)?;
        let look_at = self.layout.log(&shell).display().to_string();
        wait_until(
            &format!("the boot of node {}", self.id),
            Duration::from_secs(20),
            &look_at,
            || Ok(self.first_process().is_some() && UnixStream::connect(self.layout.control_socket(self.id)).is_ok()),
        )
    }

    /// Starts containerd and returns once it takes calls.
    pub fn start_containerd(&self) -> Result<()> {
        self.order(&Order::Start(vec!["containerd".to_owned()]))?;
        let look_at = self.log("containerd").display().to_string();
        let first = self.first_process().ok_or_else(|| self.has_no_power())?;
        let socket = PathBuf::from(format!("/proc/{}/root{CONTAINERD_SOCKET}", first.pid));
        wait_until(
            &format!("the start of containerd on {}", self.id),
            Duration::from_secs(60),
            &look_at,
            || Ok(UnixStream::connect(&socket).is_ok()),
        )
    }

    /// Starts every service that does not run yet.
    pub fn start_all(&self) -> Result<()> {
        let names = config::services(self.id, &self.settings.drivers());
        self.order(&Order::Start(names.into_iter().map(|service| service.name).collect()))
            .map(drop)
    }

    /// Takes power away, as pulling the plug does: first the network is silent, then nothing runs any more.
    pub fn power_off(&self) -> Result<()> {
        end(self.layout, self.id)
    }

    /// Stops every process of the node where it is. Its kernel goes on: connections stay open and accept bytes.
    pub fn pause(&self) -> Result<()> {
        self.first_process().ok_or_else(|| self.has_no_power())?;
        Cgroups::detect()?.freeze(&self.layout.node_cgroup(self.id))
    }

    /// Lets a paused node go on.
    pub fn resume(&self) -> Result<()> {
        self.first_process().ok_or_else(|| self.has_no_power())?;
        Cgroups::detect()?.thaw(&self.layout.node_cgroup(self.id))
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> Result<bool> {
        Ok(Cgroups::detect()?.is_told_to_freeze(&self.layout.node_cgroup(self.id)))
    }

    /// Ends one service (`kubelet`, `containerd`, ...) at once, and keeps it ended.
    pub fn stop_service(&self, name: &str) -> Result<()> {
        self.order(&Order::Stop(name.to_owned())).map(drop)
    }

    /// Starts one service.
    pub fn start_service(&self, name: &str) -> Result<()> {
        self.order(&Order::Start(vec![name.to_owned()])).map(drop)
    }

    /// What runs on it.
    pub fn services(&self) -> Result<BTreeMap<String, ServiceState>> {
        self.order(&Order::Status)
    }

    /// Imports an image archive into the node's containerd.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        let words = ["ctr", "--namespace", "k8s.io", "images", "import", "-"];
        run_with_input(self.command()?.args(words), archive).map(drop)
    }

    /// Runs a program inside the node, as root of it, and returns what it printed.
    pub fn exec(&self, words: &[&str]) -> Result<String> {
        run(self.command()?.args(words))
    }

    /// The beginning of a command inside the node.
    pub fn command(&self) -> Result<Command> {
        let first = self.first_process().ok_or_else(|| self.has_no_power())?;
        let target = first.pid.to_string();
        let mut entered = command([
            "nsenter", "--target", &target, "--mount", "--uts", "--ipc", "--net", "--pid", "--",
        ]);
        entered.env(
            "PATH",
            format!("{HOME}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        );
        Ok(entered)
    }

    /// A service's log, seen from outside.
    pub fn log(&self, service: &str) -> PathBuf {
        self.layout.disk(self.id).join("log").join(format!("{service}.log"))
    }

    fn order(&self, order: &Order) -> Result<BTreeMap<String, ServiceState>> {
        self.first_process().ok_or_else(|| self.has_no_power())?;
        if self.is_paused()? {
            return Err(Error::Refused(format!("node {} is paused; resume it first", self.id)));
        }
        give(&self.layout.control_socket(self.id), order)
    }

    fn has_no_power(&self) -> Error {
        Error::Refused(format!(
            "node {} has no power; give it with `testbed node power-on {}`",
            self.id, self.id
        ))
    }

    fn pidfile(&self) -> PathBuf {
        pidfile(self.layout, self.id)
    }

    fn write_files(&self) -> Result<Machine> {
        let (layout, id) = (self.layout, self.id);
        let home = layout.disk(id).join("lib/testbed");
        for folder in ["log", "tmp", "lib/testbed/bin", "lib/testbed/images", "lib/testbed/cni"] {
            let folder = layout.disk(id).join(folder);
            fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        }
        fs::create_dir_all(layout.runtime()).map_err(Error::file("create", layout.runtime()))?;
        let link = layout.disk(id).join("run");
        if link.symlink_metadata().is_err() {
            std::os::unix::fs::symlink("/run", &link).map_err(Error::file("create", link))?;
        }
        let cgroup = layout.node_cgroup(id).display().to_string();
        let period = self.settings.node_status_period.as_deref();
        write_whole(&home.join("containerd.toml"), config::containerd().as_bytes())?;
        write_whole(&home.join("cni/10-pods.conflist"), config::cni(id).as_bytes())?;
        write_whole(&home.join("kubelet.json"), config::kubelet(&cgroup, period).as_bytes())?;
        let copies = [
            ("ca.crt".to_owned(), "ca.crt"),
            (format!("{id}.crt"), "node.crt"),
            (format!("{id}.key"), "node.key"),
            (format!("{id}.conf"), "kubelet.conf"),
            (format!("{}.conf", pki::PROXY), "proxy.conf"),
        ];
        for (from, to) in copies {
            let from = layout.pki().join(from);
            write_whole(&home.join(to), &fs::read(&from).map_err(Error::file("read", &from))?)?;
        }
        let boot_id = layout.node(id).join("boot_id");
        let fresh = "/proc/sys/kernel/random/uuid";
        write_whole(&boot_id, &fs::read(fresh).map_err(Error::file("read", fresh))?)?;
        let machine_id = layout.node(id).join("machine-id");
        if !machine_id.exists() {
            let uuid = fs::read_to_string(fresh).map_err(Error::file("read", fresh))?;
            write_whole(&machine_id, uuid.replace('-', "").as_bytes())?;
        }
        let mut programs = vec![layout.tool("kubelet"), layout.tool("kube-proxy")];
        if self.settings.storage {
            programs.push(layout.tool("test-storage"));
        }
        let visible = programs.into_iter().map(|program| {
            let name = program.file_name().expect("a program has a name").to_owned();
            let real = fs::canonicalize(&program).map_err(Error::file("find", program))?;
            Ok((real, Path::new("lib/testbed/bin").join(name)))
        });
        Ok(Machine {
            hostname: id.to_string(),
            cgroup: layout.node_cgroup(id),
            pidfile: Path::new(HOME).join("first-process.json"),
            socket: layout.control_socket(id),
            disk: layout.disk(id),
            visible: visible.collect::<Result<_>>()?,
            overlaid: vec![
                (boot_id, PathBuf::from("/proc/sys/kernel/random/boot_id")),
                (machine_id, PathBuf::from("/etc/machine-id")),
            ],
            services: config::services(id, &self.settings.drivers()),
        })
    }
}

/// Ends a node and removes all of it but its disk, whatever state an earlier run has left it in.
pub fn end(layout: &Layout, id: NodeId) -> Result<()> {
    let network = Network::of(layout);
    network.cut_cable(id)?;
    let first = Process::recorded(&pidfile(layout, id));
    let shell = Process::recorded(&layout.pidfile(&shell_name(id)));
    // Volumes are files served by processes of the node. If one of those were the last to let go of the node's mounts, the
    // kernel would make it write back the file system that it serves itself, and it would wait for itself for ever. So we
    // hold the mounts until all have gone; what is not on the storage host by then is lost, as it must be.
    let mounts = [first, shell]
        .into_iter()
        .flatten()
        .map(|p| fs::File::open(format!("/proc/{}/ns/mnt", p.pid)));
    let mounts: Vec<_> = mounts.collect();
    if let Some(first) = first {
        first.signal(Signal::KILL);
    }
    let cgroups = Cgroups::detect()?;
    cgroups.kill_all(&layout.node_cgroup(id))?;
    if let Some(first) = first {
        first.kill()?;
    }
    if let Some(shell) = shell {
        // it ends by itself, and not before the kernel has collected everything that ran in the node
        let limit = Duration::from_secs(30);
        wait_until(&format!("the end of node {id}"), limit, "ps", || Ok(!shell.is_alive()))?;
    }
    drop(mounts);
    network.disconnect_node(id)?;
    cgroups.remove(&layout.node_cgroup(id))?;
    let _ = fs::remove_file(layout.control_socket(id));
    let _ = fs::remove_file(pidfile(layout, id));
    Ok(())
}

fn shell_name(id: NodeId) -> String {
    format!("{id}-shell")
}

/// On the disk, where the first process can write it after /var has become that disk.
fn pidfile(layout: &Layout, id: NodeId) -> PathBuf {
    layout.disk(id).join("lib/testbed/first-process.json")
}
