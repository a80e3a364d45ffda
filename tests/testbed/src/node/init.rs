//! The first process of a node: what systemd is on a real one. Runs inside, never in the caller's namespaces.
//!
//! It furnishes the node (host name, /proc, a fresh /run, its own /var, a new boot id), starts services when told, starts
//! them again when they end by themselves, and collects orphans. When it is killed, the kernel ends everything else in
//! the node at once: that is the loss of power.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::{
        fd::AsRawFd,
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change, mount_remount},
    process::{Pid, Signal, WaitOptions, kill_process},
};

use super::order::{Answer, Machine, Order, Service, ServiceState};
use crate::{
    cgroup::Cgroups,
    error::{Error, Result},
    process::{Process, command},
};

/// Runs a node. Returns only when it cannot be made.
pub fn run(machine: &Machine) -> Result<()> {
    // /proc is still that of the machine outside and tells our number there
    let own = fs::read_link("/proc/self").map_err(Error::file("read", "/proc/self"))?;
    let own = own.to_string_lossy().parse().map_err(Error::malformed("/proc/self"))?;
    let own = Process::at(own).expect("we exist");
    Cgroups::detect()?.join(&machine.cgroup.join("system"))?;
    let _ = fs::remove_file(&machine.socket);
    let orders = UnixListener::bind(&machine.socket).map_err(Error::file("listen at", &machine.socket))?;
    furnish(machine)?;
    own.record_at(&machine.pidfile)?;

    let services = Arc::new(Services::new(&machine.services));
    let for_orders = Arc::clone(&services);
    thread::spawn(move || {
        for stream in orders.incoming().flatten() {
            // an asker who went away is no reason to stop answering
            let _ = for_orders.answer(stream);
        }
    });
    services.collect_the_dead()
}

impl Process {
    /// Records the process in a file that exists already, since its folder may be out of sight by now.
    fn record_at(self, pidfile: &Path) -> Result<()> {
        let text = serde_json::to_string(&self).expect("two numbers are always valid JSON");
        fs::write(pidfile, text).map_err(Error::file("write", pidfile))
    }
}

fn furnish(machine: &Machine) -> Result<()> {
    let failed = |action: &str| Error::kernel::<rustix::io::Errno>(action.to_owned());
    rustix::system::sethostname(machine.hostname.as_bytes()).map_err(failed("set the host name"))?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    mount(
        "proc",
        "/proc",
        "proc",
        plain | MountFlags::NOEXEC,
        None::<&std::ffi::CStr>,
    )
    .map_err(failed("mount /proc"))?;
    // some container runtimes hand us a read-only /sys; where it cannot be changed it was writable already
    let _ = mount_remount("/sys", MountFlags::empty(), "");
    for (source, target) in &machine.overlaid {
        if target.exists() {
            mount_bind_recursive(source, target).map_err(Error::kernel(format!("mount over {}", target.display())))?;
        }
    }
    for (source, below) in &machine.visible {
        let target = machine.disk.join(below);
        prepare_target(source, &target)?;
        mount_bind_recursive(source, &target).map_err(Error::kernel(format!("mount {}", target.display())))?;
    }
    // /run last but one: the state folder may lie below it, and below /var
    let disk = File::open(&machine.disk).map_err(Error::file("open", &machine.disk))?;
    mount("tmpfs", "/run", "tmpfs", plain, Some(c"mode=755")).map_err(failed("mount /run"))?;
    let disk_path = format!("/proc/self/fd/{}", disk.as_raw_fd());
    mount_bind_recursive(disk_path, "/var").map_err(failed("mount /var"))?;
    // Last: kubelet and containers must see each other's mounts, but the disk under its two names must not be one group,
    // or each volume would be mounted under both.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).map_err(failed("share mounts"))?;
    let settings = [
        // packets for pods pass through
        ("ip_forward", "1"),
        ("conf/all/rp_filter", "0"),
        ("conf/default/rp_filter", "0"),
        // a storage client gives up a silent host in about a minute, as those of real block storage do; by default
        // TCP would try for a quarter of an hour
        ("tcp_retries2", "8"),
    ];
    for (setting, value) in settings {
        let file = Path::new("/proc/sys/net/ipv4").join(setting);
        fs::write(&file, value).map_err(Error::file("write", &file))?;
    }
    Ok(())
}

fn prepare_target(source: &Path, target: &Path) -> Result<()> {
    let folder = if source.is_dir() {
        target
    } else {
        target.parent().expect("a target lies below /var")
    };
    fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    if !source.is_dir() && !target.exists() {
        File::create(target).map_err(Error::file("create", target))?;
    }
    Ok(())
}

struct Services {
    all: Mutex<BTreeMap<String, Running>>,
}

struct Running {
    service: Service,
    wanted: bool,
    pid: Option<i32>,
    starts: u32,
}

impl Services {
    fn new(services: &[Service]) -> Self {
        let each = |service: &Service| {
            (
                service.name.clone(),
                Running {
                    service: service.clone(),
                    wanted: false,
                    pid: None,
                    starts: 0,
                },
            )
        };
        Self {
            all: Mutex::new(services.iter().map(each).collect()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.all.lock().expect("no thread panics while it holds the services")
    }

    fn answer(&self, mut stream: UnixStream) -> std::io::Result<()> {
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        let answer = match serde_json::from_str(&line) {
            Ok(order) => self.obey(&order),
            Err(error) => Answer::Refused(format!("not an order: {error}")),
        };
        let mut line = serde_json::to_string(&answer)?;
        line.push('\n');
        stream.write_all(line.as_bytes())
    }

    fn obey(&self, order: &Order) -> Answer {
        let mut all = self.lock();
        match order {
            Order::Status => {}
            Order::Start(names) => {
                for name in names {
                    let Some(running) = all.get_mut(name) else {
                        return Answer::Refused(format!("there is no service `{name}` on this node"));
                    };
                    running.wanted = true;
                    if let Err(error) = running.start() {
                        return Answer::Refused(error.with_reasons());
                    }
                }
            }
            Order::Stop(name) => {
                let Some(running) = all.get_mut(name) else {
                    return Answer::Refused(format!("there is no service `{name}` on this node"));
                };
                running.wanted = false;
                if let Some(pid) = running.pid.and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
                // the thread that collects the dead needs the lock to take note
                drop(all);
                return self.await_end(name);
            }
        }
        Answer::Done(states(&all))
    }

    fn await_end(&self, name: &str) -> Answer {
        for _ in 0..1000 {
            let all = self.lock();
            if all.get(name).is_none_or(|running| running.pid.is_none()) {
                return Answer::Done(states(&all));
            }
            drop(all);
            thread::sleep(Duration::from_millis(10));
        }
        Answer::Refused(format!("service `{name}` was killed and is still there after 10 s"))
    }

    /// Orphans of the whole node end up here as well.
    fn collect_the_dead(self: &Arc<Self>) -> ! {
        loop {
            // no child at all is an error; one may come
            let Ok(Some((dead, _))) = rustix::process::wait(WaitOptions::empty()) else {
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            let dead = dead.as_raw_nonzero().get();
            let mut all = self.lock();
            let Some(running) = all.values_mut().find(|running| running.pid == Some(dead)) else {
                continue;
            };
            running.pid = None;
            if running.wanted {
                let (services, name) = (Arc::clone(self), running.service.name.clone());
                let pause = Duration::from_secs(running.service.restart_seconds);
                thread::spawn(move || {
                    thread::sleep(pause);
                    if let Some(running) = services.lock().get_mut(&name)
                        && running.wanted
                        && let Err(error) = running.start()
                    {
                        eprintln!("{name}: {}", error.with_reasons());
                    }
                });
            }
        }
    }
}

impl Running {
    fn start(&mut self) -> Result<()> {
        if self.pid.is_some() {
            return Ok(());
        }
        let log = PathBuf::from(format!("/var/log/{}.log", self.service.name));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(Error::file("write", &log))?;
        let errors = output.try_clone().map_err(Error::file("write", &log))?;
        let mut program = command(&self.service.words);
        program
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .current_dir("/");
        program
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let started = program.spawn();
        let child = started.map_err(|source| Error::Start {
            command: self.service.words[0].clone(),
            source,
        })?;
        // dropping the handle leaves the process alone; it is collected with all others
        self.pid = i32::try_from(child.id()).ok();
        self.starts += 1;
        Ok(())
    }
}

fn states(all: &BTreeMap<String, Running>) -> BTreeMap<String, ServiceState> {
    let state = |running: &Running| ServiceState {
        running: running.pid.is_some(),
        starts: running.starts,
    };
    all.iter()
        .map(|(name, running)| (name.clone(), state(running)))
        .collect()
}
