//! Control groups of a testbed, in both versions that a machine may have.
//!
//! A testbed has one group, `testbed-NAME`, with `host` (what runs beside the nodes) and one group a node below; a
//! node's group holds `system` (its first process and everything started by it) and what the kubelet makes for pods.
//! The `system` leaf exists because in version 2 a group with members cannot hand controllers to its children.
//! In version 1 our own processes join the freezer hierarchy only: that suffices to find and to pause them, and leaves
//! the limits of whoever started us in force.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    error::{Error, Result},
    process::{Process, thread_states, wait_until},
};

/// What kubelet and runc need of version 2.
const NEEDED: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];
/// What kubelet and runc need of version 1.
const NEEDED_V1: [&str; 6] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "freezer"];

/// How this machine offers control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// Version 1: one mount a hierarchy.
    V1 {
        /// All hierarchies.
        mounts: Vec<PathBuf>,
        /// The one that finds and pauses processes.
        freezer: PathBuf,
        /// The one whose groups must be told their processors and memory.
        cpuset: PathBuf,
        /// A mount of version 2 beside them, which controls nothing but is known to runc.
        unified: Option<PathBuf>,
    },
    /// Version 2: one hierarchy.
    V2 {
        /// Where it is mounted.
        mount: PathBuf,
    },
}

impl Cgroups {
    /// Looks at this machine.
    pub fn detect() -> Result<Self> {
        let table = fs::read_to_string("/proc/self/mounts").map_err(Error::file("read", "/proc/self/mounts"))?;
        Self::from_mounts(&table).map_err(Error::Refused)
    }

    fn from_mounts(table: &str) -> Result<Self, String> {
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split(' ').collect())
            .filter(|row: &Vec<_>| row.len() > 3)
            .collect();
        if let Some(row) = rows
            .iter()
            .find(|row| row[1] == "/sys/fs/cgroup" && row[2] == "cgroup2")
        {
            return Ok(Self::V2 {
                mount: PathBuf::from(row[1]),
            });
        }
        let v1: Vec<_> = rows.iter().filter(|row| row[2] == "cgroup").collect();
        let with = |controller: &str| {
            v1.iter()
                .find(|row| row[3].split(',').any(|option| option == controller))
                .map(|row| PathBuf::from(row[1]))
        };
        let missing: Vec<_> = NEEDED_V1.into_iter().filter(|c| with(c).is_none()).collect();
        match (with("freezer"), with("cpuset")) {
            (Some(freezer), Some(cpuset)) if missing.is_empty() => {
                let mounts = v1.iter().map(|row| PathBuf::from(row[1])).collect();
                let unified = rows
                    .iter()
                    .find(|row| row[2] == "cgroup2")
                    .map(|row| PathBuf::from(row[1]));
                Ok(Self::V1 {
                    mounts,
                    freezer,
                    cpuset,
                    unified,
                })
            }
            _ => Err(format!(
                "no cgroup hierarchy for {} is mounted under /sys/fs/cgroup",
                missing.join(", ")
            )),
        }
    }

    /// In words.
    pub fn version(&self) -> &'static str {
        match self {
            Self::V1 { .. } => "v1",
            Self::V2 { .. } => "v2",
        }
    }

    /// The hierarchy that knows every process of a testbed.
    fn member_mount(&self) -> &Path {
        match self {
            Self::V1 { freezer, .. } => freezer,
            Self::V2 { mount } => mount,
        }
    }

    /// Every place where a group of ours can be.
    fn mounts(&self) -> Vec<&Path> {
        match self {
            Self::V1 { mounts, unified, .. } => mounts.iter().chain(unified).map(PathBuf::as_path).collect(),
            Self::V2 { mount } => vec![mount],
        }
    }

    /// Makes a group whose children may have every controller.
    pub fn create(&self, group: &Path) -> Result<()> {
        match self {
            Self::V1 { mounts, cpuset, .. } => {
                for mount in mounts {
                    make(&mount.join(group))?;
                }
                // a group without processors and memory takes no members, and children inherit nothing
                for part in ancestors_down(group) {
                    for setting in ["cpuset.cpus", "cpuset.mems"] {
                        let above = cpuset.join(part.parent().unwrap_or(Path::new(""))).join(setting);
                        let value = fs::read(&above).map_err(Error::file("read", above))?;
                        write(&cpuset.join(&part).join(setting), &value)?;
                    }
                }
                Ok(())
            }
            Self::V2 { mount } => {
                make(&mount.join(group))?;
                for folder in std::iter::once(PathBuf::new()).chain(ancestors_down(group)) {
                    let offered = mount.join(&folder).join("cgroup.controllers");
                    let offered = fs::read_to_string(&offered).map_err(Error::file("read", offered))?;
                    let control = mount.join(&folder).join("cgroup.subtree_control");
                    for controller in offered.split_whitespace() {
                        let handed_down = write(&control, format!("+{controller}").as_bytes());
                        // some kernels keep one back (cpu with realtime tasks, for one); only what is needed matters
                        if NEEDED.contains(&controller) {
                            handed_down?;
                        }
                    }
                }
                Ok(())
            }
        }
    }

    /// Moves the calling process, in whatever namespace, into a group that has no children.
    pub fn join(&self, leaf: &Path) -> Result<()> {
        let folder = self.member_mount().join(leaf);
        make(&folder)?;
        write(&folder.join("cgroup.procs"), b"0")
    }

    /// All processes in a group and below.
    pub fn processes(&self, group: &Path) -> Vec<Process> {
        let mut found = HashSet::new();
        // pods are in every hierarchy of version 1, and one that left the freezer's must be found all the same
        for mount in self.mounts() {
            visit(&mount.join(group), &mut |folder| {
                let members = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                found.extend(members.lines().filter_map(|line| line.parse::<i32>().ok()));
            });
        }
        found
            .into_iter()
            .filter_map(Process::at)
            .filter(|process| process.is_alive())
            .collect()
    }

    /// Stops every process of a group where it is, without any of them noticing.
    pub fn freeze(&self, group: &Path) -> Result<()> {
        self.set_frozen(group, true)?;
        let began = Instant::now();
        let mut quiet = 0;
        wait_until(
            "the pause of all processes",
            Duration::from_secs(20),
            "/proc/PID/wchan",
            || {
                if self.is_frozen(group) {
                    return Ok(true);
                }
                // A process that waits in the kernel for one already stopped (a file system in user space) cannot be counted as
                // stopped, and runs no instruction either.
                let running = self
                    .processes(group)
                    .iter()
                    .flat_map(|p| thread_states(p.pid))
                    .any(|state| state == 'R');
                quiet = if running { 0 } else { quiet + 1 };
                Ok(quiet >= 10 && began.elapsed() > Duration::from_secs(2))
            },
        )
    }

    /// Lets them go on.
    pub fn thaw(&self, group: &Path) -> Result<()> {
        if self.member_mount().join(group).exists() {
            self.set_frozen(group, false)
        } else {
            Ok(())
        }
    }

    /// Whether the group is stopped.
    pub fn is_frozen(&self, group: &Path) -> bool {
        let folder = self.member_mount().join(group);
        match self {
            Self::V1 { .. } => {
                fs::read_to_string(folder.join("freezer.state")).is_ok_and(|state| state.trim() == "FROZEN")
            }
            Self::V2 { .. } => fs::read_to_string(folder.join("cgroup.events"))
                .is_ok_and(|events| events.lines().any(|line| line == "frozen 1")),
        }
    }

    /// Whether the group was told to stop.
    pub fn is_told_to_freeze(&self, group: &Path) -> bool {
        let folder = self.member_mount().join(group);
        match self {
            Self::V1 { .. } => {
                fs::read_to_string(folder.join("freezer.self_freezing")).is_ok_and(|told| told.trim() == "1")
            }
            Self::V2 { .. } => fs::read_to_string(folder.join("cgroup.freeze")).is_ok_and(|told| told.trim() == "1"),
        }
    }

    fn set_frozen(&self, group: &Path, frozen: bool) -> Result<()> {
        let folder = self.member_mount().join(group);
        match (self, frozen) {
            (Self::V1 { .. }, true) => write(&folder.join("freezer.state"), b"FROZEN"),
            (Self::V1 { .. }, false) => write(&folder.join("freezer.state"), b"THAWED"),
            (Self::V2 { .. }, true) => write(&folder.join("cgroup.freeze"), b"1"),
            (Self::V2 { .. }, false) => write(&folder.join("cgroup.freeze"), b"0"),
        }
    }

    /// Ends every process of a group, stopped ones included, and waits until they have gone.
    pub fn kill_all(&self, group: &Path) -> Result<()> {
        for process in self.processes(group) {
            process.signal(Signal::KILL);
        }
        // a stopped process takes even this signal only once it may go on; it then ends without another instruction
        self.thaw(group)?;
        wait_until("the end of all processes", Duration::from_secs(60), "ps", || {
            let left = self.processes(group);
            for process in &left {
                process.signal(Signal::KILL);
            }
            Ok(left.is_empty())
        })
    }

    /// Removes a group and all below it, in every hierarchy.
    pub fn remove(&self, group: &Path) -> Result<()> {
        let began = Instant::now();
        for mount in self.mounts() {
            let mut folders = Vec::new();
            visit(&mount.join(group), &mut |folder| folders.push(folder.to_owned()));
            for folder in folders.into_iter().rev() {
                // the kernel lets go of a group a moment after its last process
                while let Err(error) = fs::remove_dir(&folder) {
                    if error.kind() == io::ErrorKind::NotFound {
                        break;
                    }
                    if began.elapsed() > Duration::from_secs(20) {
                        return Err(Error::File {
                            action: "remove",
                            path: folder,
                            source: error,
                        });
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
        Ok(())
    }
}

/// `a`, `a/b`, `a/b/c` of `a/b/c`.
fn ancestors_down(group: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = group
        .ancestors()
        .filter(|part| !part.as_os_str().is_empty())
        .map(Path::to_owned)
        .collect();
    all.reverse();
    all
}

fn visit(folder: &Path, each: &mut impl FnMut(&Path)) {
    if !folder.is_dir() {
        return;
    }
    each(folder);
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path(), each);
        }
    }
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::file("create", folder))
}

fn write(file: &Path, value: &[u8]) -> Result<()> {
    fs::write(file, value).map_err(Error::file("write", file))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
        cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
        cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
        cgroup /sys/fs/cgroup/freezer cgroup rw,freezer 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";

    #[test]
    fn version_1_is_recognised_beside_an_unused_version_2_mount_and_joint_hierarchies() {
        let table = format!("{V1}cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n");
        let Ok(Cgroups::V1 {
            mounts,
            freezer,
            unified,
            ..
        }) = Cgroups::from_mounts(&table)
        else {
            panic!("not version 1")
        };
        assert_eq!(mounts.len(), 5);
        assert_eq!(freezer, Path::new("/sys/fs/cgroup/freezer"));
        assert_eq!(unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_missing_hierarchy_is_named() {
        assert!(Cgroups::from_mounts(V1).unwrap_err().contains("pids"));
    }

    #[test]
    fn version_2_is_recognised() {
        let found = Cgroups::from_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n").unwrap();
        assert_eq!(
            found,
            Cgroups::V2 {
                mount: PathBuf::from("/sys/fs/cgroup")
            }
        );
    }

    #[test]
    fn groups_are_listed_from_the_top() {
        let expected = [PathBuf::from("t"), PathBuf::from("t/n1"), PathBuf::from("t/n1/system")];
        assert_eq!(ancestors_down(Path::new("t/n1/system")), expected);
    }
}
