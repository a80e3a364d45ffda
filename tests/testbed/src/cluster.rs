//! Putting a whole testbed up and taking it down.
//!
//! What can happen at once does: two cores are little, but most of a start is waiting.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    Testbed, addons,
    cgroup::Cgroups,
    controlplane,
    daemon::Daemon,
    error::{Error, Result},
    layout::{Layout, MOST_NODES, NodeId, STORAGE_ADDRESS, STORAGE_PORT},
    network::Network,
    node::{self, Node},
    pki,
    process::{Process, wait_until, write_whole},
    programs,
};

/// How a testbed was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// How many nodes.
    pub nodes: u8,
    /// Another period than the kubelet's default for reporting a node's state.
    pub node_status_period: Option<String>,
    /// With the storage host and its drivers.
    pub storage: bool,
    /// With the load balancer.
    pub balancer: bool,
}

impl Settings {
    /// The nodes by number.
    pub fn node_ids(&self) -> Vec<NodeId> {
        (1..=self.nodes).map(NodeId).collect()
    }

    /// The storage drivers that nodes run.
    pub fn drivers(&self) -> Vec<&'static str> {
        if self.storage {
            addons::DRIVERS.iter().map(|driver| driver.name).collect()
        } else {
            Vec::new()
        }
    }

    /// What was asked for when this testbed was put up.
    pub fn of(layout: &Layout) -> Result<Self> {
        let file = layout.state().join("testbed.json");
        let text = fs::read(&file).map_err(|_| {
            let name = layout.name();
            Error::Refused(format!(
                "there is no testbed `{name}`; start it with `testbed --name {name} up`"
            ))
        })?;
        serde_json::from_slice(&text).map_err(Error::malformed(file.display().to_string()))
    }
}

/// Says on standard error how far a start has come, and when.
struct Progress(Instant);

impl Progress {
    fn say(&self, what: &str) {
        eprintln!("{:5.1} s  {what}", self.0.elapsed().as_secs_f32());
    }
}

/// Puts a testbed up from programs that are built, first removing what an earlier run of the same name has left.
pub fn up(layout: &Layout, settings: &Settings, own_program: &Path) -> Result<()> {
    if settings.nodes == 0 || settings.nodes > MOST_NODES {
        return Err(Error::Refused(format!(
            "a testbed has 1 to {MOST_NODES} nodes, not {}",
            settings.nodes
        )));
    }
    let _lock = lock(layout)?;
    let progress = Progress(Instant::now());
    remove(layout)?;
    prepare(layout, settings, own_program)?;
    let cluster = Testbed::of(layout.clone(), settings.clone());
    let failures = Mutex::new(Vec::new());
    let note = |result: Result<()>| {
        if let Err(error) = result {
            failures.lock().expect("noting a failure does not panic").push(error);
        }
    };
    // Threads hand over by these: nodes wait for the API server before they start a kubelet, which would otherwise sleep
    // through its own growing pauses.
    thread::scope(|scope| {
        let archives = scope.spawn(|| programs::image_archives(layout, settings.storage));
        let nodes: Vec<_> = settings
            .node_ids()
            .into_iter()
            .map(|id| Node::new(layout, settings, id))
            .collect();
        let booted: Vec<_> = nodes
            .iter()
            .cloned()
            .map(|node| scope.spawn(move || node.boot().and_then(|()| node.start_containerd())))
            .collect();
        if settings.storage {
            scope.spawn(|| note(start_storage(layout)));
        }
        let api = controlplane::start(layout);
        progress.say("the API server answers");
        let joined = api.and_then(|()| {
            for node in booted {
                node.join().expect("booting a node does not panic")?;
            }
            progress.say("nodes have booted");
            for node in &nodes {
                node.start_all()?;
            }
            Ok(())
        });
        let api_failed = joined.is_err();
        note(joined);
        if api_failed {
            return;
        }
        scope.spawn(|| note(install(&cluster)));
        match archives.join().expect("writing images does not panic") {
            Err(error) => note(Err(error)),
            Ok(archives) => {
                for node in nodes {
                    let archives = archives.clone();
                    scope.spawn(move || note(archives.iter().try_for_each(|archive| node.import_image(archive))));
                }
            }
        }
    });
    if let Some(first) = failures.into_inner().expect("no thread panicked").into_iter().next() {
        return Err(first);
    }
    progress.say("images are on the nodes");
    await_running(&cluster, &progress)?;
    write_whole(
        &layout.state().join("up"),
        format!("{:.1}\n", progress.0.elapsed().as_secs_f32()).as_bytes(),
    )
}

/// Takes a testbed down and removes all of it, its logs included.
pub fn down(layout: &Layout) -> Result<()> {
    let _lock = lock(layout)?;
    remove(layout)?;
    let state = layout.state();
    if state.exists() {
        fs::remove_dir_all(&state).map_err(Error::file("remove", state))?;
    }
    Ok(())
}

/// Two commands on one testbed would undo each other's work.
fn lock(layout: &Layout) -> Result<File> {
    let folder = layout.cache().join("testbeds");
    fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    let path = folder.join(format!(".{}.lock", layout.name()));
    let file = File::create(&path).map_err(Error::file("create", &path))?;
    file.try_lock().map_err(|_| {
        Error::Refused(format!(
            "another `testbed up` or `down` is at work on `{}`; wait for it",
            layout.name()
        ))
    })?;
    Ok(file)
}

fn remove(layout: &Layout) -> Result<()> {
    let network = Network::of(layout);
    for id in (1..=MOST_NODES).map(NodeId) {
        node::end(layout, id)?;
    }
    let cgroups = Cgroups::detect()?;
    // whatever carries the name: also processes whose starter died before it could write down who they are
    cgroups.kill_all(&layout.cgroup())?;
    for process in recorded(layout) {
        process.kill()?;
    }
    network.remove()?;
    cgroups.remove(&layout.cgroup())?;
    let runtime = layout.runtime();
    if runtime.exists() {
        fs::remove_dir_all(&runtime).map_err(Error::file("remove", runtime))?;
    }
    let _ = fs::remove_dir("/run/testbed");
    Ok(())
}

fn recorded(layout: &Layout) -> Vec<Process> {
    let Ok(files) = fs::read_dir(layout.state().join("run")) else {
        return Vec::new();
    };
    files
        .flatten()
        .filter_map(|file| Process::recorded(&file.path()))
        .collect()
}

fn prepare(layout: &Layout, settings: &Settings, own_program: &Path) -> Result<()> {
    let state = layout.state();
    if state.exists() {
        fs::remove_dir_all(&state).map_err(Error::file("remove", &state))?;
    }
    for folder in ["bin", "log", "run"] {
        fs::create_dir_all(state.join(folder)).map_err(Error::file("create", &state))?;
    }
    // a copy: the next build must not pull the program away under running nodes
    fs::copy(own_program, layout.own_program()).map_err(Error::file("copy", own_program))?;
    let text = serde_json::to_vec_pretty(settings).expect("settings are always valid JSON");
    write_whole(&state.join("testbed.json"), &text)?;
    let cgroups = Cgroups::detect()?;
    cgroups.create(&layout.cgroup())?;
    Network::of(layout).create(&settings.node_ids())?;
    pki::create(layout, &settings.node_ids())
}

fn start_storage(layout: &Layout) -> Result<()> {
    let data = layout.state().join("volumes");
    fs::create_dir_all(&data).map_err(Error::file("create", &data))?;
    let mut words = vec![layout.tool("test-storage").into_os_string()];
    let flags = [
        "host".to_owned(),
        format!("--listen={STORAGE_ADDRESS}:{STORAGE_PORT}"),
        format!("--data={}", data.display()),
        format!("--log={}", layout.storage_log().display()),
    ];
    words.extend(flags.map(Into::into));
    Daemon {
        name: "storage-host",
        place: "storage",
        words,
    }
    .start(layout)
    .map(drop)
}

fn install(cluster: &Testbed) -> Result<()> {
    let settings = cluster.settings();
    let mut manifests = vec![addons::BASE.to_owned()];
    if settings.balancer {
        manifests.push(addons::balancer()?);
    }
    if settings.storage {
        manifests.push(addons::storage(settings.nodes));
    }
    cluster.apply(&manifests.join("---\n"))?;
    if settings.balancer {
        cluster.kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd/ipaddresspools.metallb.io",
            "crd/l2advertisements.metallb.io",
        ])?;
        cluster.apply(&addons::balancer_pool())?;
    }
    Ok(())
}

fn await_running(cluster: &Testbed, progress: &Progress) -> Result<()> {
    let settings = cluster.settings();
    let limit = Duration::from_secs(120);
    wait_until("the appearance of all nodes", limit, "the kubelets' logs", || {
        Ok(cluster.kubectl(&["get", "nodes", "--output=name"])?.lines().count() == usize::from(settings.nodes))
    })?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s"])?;
    progress.say("all nodes are Ready");
    let mut workloads = Vec::new();
    if settings.balancer {
        workloads.extend(
            [
                "metallb-system/deployment/controller",
                "metallb-system/daemonset/speaker",
            ]
            .map(str::to_owned),
        );
    }
    if settings.storage {
        let of_driver = |driver: &addons::Driver| format!("test-storage/deployment/{}-controller", driver.class);
        workloads.extend(addons::DRIVERS.iter().map(of_driver));
    }
    for workload in workloads {
        let (namespace, object) = workload.split_once('/').expect("written above");
        cluster.kubectl(&["--namespace", namespace, "rollout", "status", object, "--timeout=120s"])?;
        progress.say(&format!("{object} runs"));
    }
    for driver in settings.drivers() {
        wait_until(
            "the registration of the storage drivers",
            limit,
            "/var/log/storage-*.log on the nodes",
            || {
                let names =
                    cluster.kubectl(&["get", "csinodes", "--output=jsonpath={.items[*].spec.drivers[*].name}"])?;
                Ok(names.split_whitespace().filter(|name| *name == driver).count() == usize::from(settings.nodes))
            },
        )?;
    }
    Ok(())
}

/// The testbeds that exist, running or not.
pub fn names(cache: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(cache.join("testbeds")) else {
        return Vec::new();
    };
    let with_settings = |path: &PathBuf| path.join("testbed.json").exists();
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(with_settings)
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}
