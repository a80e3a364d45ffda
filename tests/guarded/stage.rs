//! A guard as process 1 of a PID namespace of its own, with the stand-in engine and the stand-in API server.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::engine;
use crate::server::Server;

/// Nothing here takes so long on any machine; what does has failed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// UID of the pod in which the guard believes itself.
pub const POD: &str = "0d4f6f0e-pod";

/// This program as the engine.
const THE_ENGINE: [&str; 5] = ["--exact", "the_engine", "--ignored", "--nocapture", "--test-threads=1"];

/// The way into a PID namespace, or `None` where this machine has none for us.
fn entrance() -> Option<&'static [&'static str]> {
    static ENTRANCE: OnceLock<Option<&[&str]>> = OnceLock::new();
    *ENTRANCE.get_or_init(|| {
        let ways: [&[&str]; 2] = [
            &["--pid", "--fork", "--kill-child", "--mount-proc"],
            &[
                "--user",
                "--map-root-user",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ],
        ];
        let works = |way: &&&[&str]| {
            let tried = Command::new("unshare")
                .args(**way)
                .arg("true")
                .stderr(Stdio::null())
                .status();
            tried.is_ok_and(|status| status.success())
        };
        let way = ways.iter().find(works).copied();
        let root = rustix::process::geteuid().is_root();
        assert!(
            way.is_some() || !root,
            "root cannot make a PID namespace with `unshare`"
        );
        way
    })
}

/// Whether there is a stage here. Says so where there is none, because a test that did nothing has shown nothing.
pub fn is_possible() -> bool {
    let possible = entrance().is_some();
    if !possible {
        eprintln!("SKIPPED: this user cannot make a PID namespace, so nothing was tested");
    }
    possible
}

/// A folder with everything, an API server, and the place for one guard.
pub struct Stage {
    folder: PathBuf,
    pub server: Server,
    engine_port: u16,
}

impl Stage {
    /// `holder` stands on the Lease. `orders` are its annotations.
    pub fn new(name: &str, holder: &str, orders: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("sqledge-guarded-{}-{name}", std::process::id()));
        for part in ["volume/data", "engine", "credentials", "beat"] {
            fs::create_dir_all(folder.join(part)).expect("a folder");
        }
        fs::write(folder.join("volume/.sqledge-volume-id"), "id-1\nempty\n").expect("a mark");
        fs::write(folder.join("volume/data/master.mdf"), "pages").expect("a database");
        let annotations: serde_json::Map<String, Value> = orders
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).into()))
            .collect();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"namespace": "shop", "name": "orders-writer", "uid": "lease-1", "annotations": annotations},
            "spec": {"holderIdentity": holder, "leaseTransitions": 7},
        });
        let server = Server::start(&folder.join("credentials"), lease);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let engine_port = listener.local_addr().expect("an address").port();
        Self {
            folder,
            server,
            engine_port,
        }
    }

    pub fn at(&self, part: &str) -> PathBuf {
        self.folder.join(part)
    }

    /// Starts a guard with the stand-in engine.
    pub fn guard(&self) -> Guard {
        self.guard_with(&[])
    }

    /// The same, with more variables in its environment.
    pub fn guard_with(&self, more: &[(&str, &str)]) -> Guard {
        let this = std::env::current_exe().expect("this program");
        let path = |part: &str| self.at(part).display().to_string();
        let mut command = Command::new("unshare");
        command.args(entrance().expect("a way into a PID namespace"));
        command.arg(env!("CARGO_BIN_EXE_sqledge-guard")).args([
            "run",
            "--namespace",
            "shop",
            "--lease",
            "orders-writer",
        ]);
        command.args(["--volume", &path("volume"), "--port", &self.engine_port.to_string()]);
        command.args([
            "--heartbeat",
            &path("beat/heart"),
            "--credentials",
            &path("credentials"),
            "--",
        ]);
        command.arg(this).args(THE_ENGINE);
        // those of the machinery around the tests are none of a container's
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SQLEDGE_")) {
            command.env_remove(name);
        }
        command
            .env("SQLEDGE_POD_UID", POD)
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", self.server.port.to_string())
            // the engine's image may name one; the API server is not behind it
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .env("ENGINE_FOLDER", self.at("engine"))
            .env("ENGINE_PORT", self.engine_port.to_string())
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Guard::watch(command.spawn().expect("unshare"))
    }

    /// Starts a process beside the engine as `kubectl exec` does: in the namespace of the guard, and nobody's child there.
    pub fn intrude(&self, guard: &Guard) -> Child {
        let mut command = Command::new("nsenter");
        command.args(["--target", &guard.pid.as_raw_nonzero().to_string(), "--pid"]);
        if entrance().expect("a way into a PID namespace").contains(&"--user") {
            command.args(["--user", "--preserve-credentials"]);
        }
        command
            .arg(std::env::current_exe().expect("this program"))
            .args(THE_ENGINE)
            .env("ENGINE_FOLDER", self.at("engine"))
            .env("ENGINE_INTRUDER", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("nsenter")
    }

    /// Asks as the kubelet does.
    pub fn alive(&self) -> Output {
        Command::new(env!("CARGO_BIN_EXE_sqledge-guard"))
            .args(["alive", "--heartbeat", &self.at("beat/heart").display().to_string()])
            .output()
            .expect("the program starts")
    }

    /// Tells the engine what to do next.
    pub fn order(&self, file: &str, content: &str) {
        let order = self.at("engine").join(file);
        // whole at once: the engine looks all the time
        fs::write(order.with_extension("new"), content).expect("written");
        fs::rename(order.with_extension("new"), order).expect("ordered");
    }

    /// The times since boot that the engine has noted in that file.
    pub fn notes(&self, name: &str) -> Vec<Duration> {
        let text = fs::read_to_string(self.at("engine").join(name)).unwrap_or_default();
        // the last line may be half written
        let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        lines
            .map(|line| Duration::from_millis(line.parse().expect("a time")))
            .collect()
    }

    /// Waits until the engine has been started so often and writes.
    pub fn writing(&self, starts: usize) {
        until("the engine writes", || {
            let last = self.notes(engine::STARTS).get(starts - 1).copied();
            last.is_some_and(|start| self.notes(engine::WRITES).last().is_some_and(|write| *write >= start))
        });
    }

    /// What must hold at the end of every story.
    pub fn never_two_engines(&self) {
        assert!(!self.at("engine").join(engine::TWO).exists(), "two engines ran at once");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Waits for a condition, and fails with its name.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

type Lines = Arc<(Mutex<Vec<String>>, Condvar)>;

/// A running guard. It is killed when the test ends.
pub struct Guard {
    unshare: Child,
    /// As the machine numbers it; to the guard itself it is 1.
    pub pid: Pid,
    lines: Lines,
    deaf: Arc<AtomicBool>,
}

impl Guard {
    fn watch(mut unshare: Child) -> Self {
        let lines = Lines::default();
        let stderr = BufReader::new(unshare.stderr.take().expect("a pipe"));
        let writer = Arc::clone(&lines);
        let deaf = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&deaf);
        thread::spawn(move || {
            let mut stderr = stderr.lines();
            while let Some(Ok(line)) = stderr.next() {
                if line != "x" {
                    eprintln!("    {line}");
                }
                writer.0.lock().expect("no panic").push(line);
                writer.1.notify_all();
                while stop.load(Ordering::SeqCst) {
                    // the pipe stays open, as that of a stuck container runtime does
                    thread::sleep(Duration::from_millis(100));
                }
            }
        });
        let parent = unshare.id();
        let mut pid = None;
        until("unshare starts the guard", || {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
            pid = children
                .split_whitespace()
                .next()
                .and_then(|pid| pid.parse().ok())
                .and_then(Pid::from_raw);
            pid.is_some() || unshare.try_wait().expect("asked").is_some()
        });
        Self {
            pid: pid.unwrap_or_else(|| Pid::from_child(&unshare)),
            unshare,
            lines,
            deaf,
        }
    }

    /// From now on nobody empties the pipe behind its standard error.
    pub fn stop_reading(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }

    /// As the kubelet or somebody on the node would.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("signalled");
    }

    /// Waits for a line that contains all of this; yields when the guard said it, by its own clock, and the line.
    pub fn says(&self, words: &str) -> (Duration, String) {
        self.says_again(words, 1)
    }

    /// The same for its n-th occurrence.
    pub fn says_again(&self, words: &str, times: usize) -> (Duration, String) {
        let (lock, more) = &*self.lines;
        let found = |lines: &Vec<String>| {
            let mut matching = lines
                .iter()
                .filter(|line| line.starts_with("sqledge-guard ") && line.contains(words));
            matching.nth(times - 1).cloned()
        };
        let (lines, timeout) = more
            .wait_timeout_while(lock.lock().expect("no panic"), PATIENCE, |lines| found(lines).is_none())
            .expect("no panic");
        assert!(!timeout.timed_out(), "the guard never said {words:?} {times} times");
        let line = found(&lines).expect("it was found");
        let time = line
            .split_whitespace()
            .nth(1)
            .and_then(|time| time.parse().ok())
            .expect("a time");
        (Duration::from_secs_f64(time), line)
    }

    /// Everything it has said.
    pub fn said(&self) -> String {
        self.lines.0.lock().expect("no panic").join("\n")
    }

    /// Waits for its end.
    pub fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        until("the guard ends", || {
            status = self.unshare.try_wait().expect("asked");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Its resident memory, in bytes: all of it, and what it does not share with the program's file.
    pub fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero())).expect("its status");
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).expect(name);
            let kilobytes = line.split_whitespace().nth(1).expect("a number");
            kilobytes.parse::<u64>().expect("a number") << 10
        };
        (field("VmRSS:"), field("RssAnon:"))
    }

    /// The processor time it has used.
    pub fn processor(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid.as_raw_nonzero())).expect("its stat");
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        // the kernel shows all programs a hundred a second, whatever it counts in itself
        Duration::from_millis(ticks * 10)
    }

    /// The processes of the engine, as the machine numbers them.
    pub fn engines(&self) -> Vec<Pid> {
        let mut found = Vec::new();
        let mut parents = vec![self.pid];
        while let Some(parent) = parents.pop() {
            let parent = parent.as_raw_nonzero();
            // each thread lists the children that it started
            let tasks = fs::read_dir(Path::new("/proc").join(parent.to_string()).join("task"));
            for task in tasks.into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                let pids = children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .filter_map(Pid::from_raw);
                parents.extend(pids.clone());
                found.extend(pids);
            }
        }
        found
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.deaf.store(false, Ordering::SeqCst);
        // the child it forked goes with it
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// Whether a process is gone, or is only waiting for somebody to ask how it ended.
pub fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().next());
    matches!(state, None | Some("Z" | "X"))
}
