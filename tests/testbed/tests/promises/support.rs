//! A testbed for one test: put up by the real command, taken down whatever happens, and looked at from outside.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use testbed::{Result, Testbed};

/// A testbed that ends with the test.
pub struct Bed {
    name: &'static str,
    bed: Testbed,
}

impl Bed {
    /// Runs `testbed up` and opens the result.
    pub fn up(name: &'static str, arguments: &[&str]) -> Self {
        let status = command(name).arg("up").args(arguments).status().unwrap();
        if !status.success() {
            let _ = command(name).arg("down").status();
            panic!("`testbed up` failed");
        }
        Self {
            name,
            bed: Testbed::open(name).unwrap(),
        }
    }

    /// Runs `testbed down`, which must succeed.
    pub fn down(self) {
        assert!(command(self.name).arg("down").status().unwrap().success());
    }

    /// Whether a TCP connection from a place can be made.
    pub fn connects(&self, place: &str, address: &str, port: u16) -> bool {
        let attempt = format!("exec 3<>/dev/tcp/{address}/{port}");
        self.bed.exec(place, &["timeout", "1", "bash", "-c", &attempt]).is_ok()
    }

    /// What a web page says, seen from a place.
    pub fn page(&self, place: &str, url: &str) -> Result<String> {
        self.bed.exec(
            place,
            &["curl", "--silent", "--show-error", "--fail", "--max-time", "1", url],
        )
    }

    /// One field of one object.
    pub fn field(&self, kind: &str, name: &str, path: &str) -> String {
        self.bed
            .kubectl(&["get", kind, name, &format!("--output=jsonpath={path}")])
            .unwrap_or_default()
    }

    /// Waits for a field to have a value and returns how long that took.
    pub fn await_field(&self, kind: &str, name: &str, path: &str, wanted: &str, limit: u64) -> Duration {
        within(limit, &format!("{kind} {name} {path} = {wanted}"), || {
            self.field(kind, name, path) == wanted
        })
    }

    /// Waits until a node says that it is Ready, or that it is not known to be.
    pub fn await_ready(&self, node: &str, wanted: &str, limit: u64) -> Duration {
        self.await_field(
            "node",
            node,
            "{.status.conditions[?(@.type==\"Ready\")].status}",
            wanted,
            limit,
        )
    }
}

impl std::ops::Deref for Bed {
    type Target = Testbed;

    fn deref(&self) -> &Testbed {
        &self.bed
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // what is left would only stand in the way; its logs are worth a look first
            eprintln!(
                "the testbed `{}` is left standing; end it with `testbed --name {} down`",
                self.name, self.name
            );
        } else {
            let _ = command(self.name).arg("down").status();
        }
    }
}

/// The command under test.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
    command.args(["--name", name]);
    command
}

/// Waits for something and returns how long it took.
pub fn within(seconds: u64, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(
            began.elapsed() < Duration::from_secs(seconds),
            "not within {seconds} s: {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    began.elapsed()
}

/// Everything on the machine that a testbed of this name could leave behind.
pub fn traces(name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folder = |path: &str, prefix: &str| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        found.extend(names.filter(|n| n.starts_with(prefix)).map(|n| format!("{path}/{n}")));
    };
    folder("/run/netns", &format!("{name}-"));
    folder("/run/testbed", name);
    folder("/sys/fs/cgroup", &format!("testbed-{name}"));
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        folder(&hierarchy.path().display().to_string(), &format!("testbed-{name}"));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    found.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&format!("/testbeds/{name}/")))
            .map(str::to_owned),
    );
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(&format!("/testbeds/{name}/")) || words.contains(&format!("/run/netns/{name}-")) {
            found.insert(format!("process {}: {words}", process.file_name().display()));
        }
    }
    found
}

/// Fails if a testbed of this name has left anything behind.
pub fn assert_no_trace(name: &str) {
    let left = traces(name);
    assert!(left.is_empty(), "left behind by `{name}`: {left:#?}");
}

/// The loop devices mounted on the nodes, each with the number that the kernel gives to one use of it.
pub fn loop_devices(bed: &Testbed) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for node in bed.nodes() {
        let mounts = node.exec(&["cat", "/proc/1/mountinfo"]).unwrap_or_default();
        let sources = mounts
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("/dev/loop"));
        found.extend(sources.filter_map(|number| Some((number.to_owned(), use_of_loop(number)?))));
    }
    found
}

fn use_of_loop(number: &str) -> Option<String> {
    let device = format!("/sys/block/loop{number}");
    fs::metadata(format!("{device}/loop/backing_file")).ok()?;
    fs::read_to_string(format!("{device}/diskseq")).ok()
}

/// Waits until these uses of loop devices have ended, whoever may use the devices by then.
pub fn await_end_of(devices: &BTreeSet<(String, String)>) {
    within(10, "the end of the volumes' devices", || {
        devices
            .iter()
            .all(|(number, sequence)| use_of_loop(number).as_ref() != Some(sequence))
    });
}
