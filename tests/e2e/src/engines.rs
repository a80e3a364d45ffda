//! The engines that run, by the machine's list of processes: two of them on one volume must never be.
//!
//! The storage host tells nodes apart, not pods; two pods of one node on one volume are seen only here.

use std::{collections::BTreeMap, fs};

use testbed::process::Process;

/// A program of a database's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Process 1 of a guarded container.
    Guard,
    /// The engine's parent or child.
    Engine,
}

/// A process in a database's container.
#[derive(Clone, Debug)]
pub struct Program {
    /// Which.
    pub process: Process,
    /// What it is.
    pub role: Role,
    /// On which node.
    pub node: String,
    /// The pod's UID.
    pub pod: String,
    /// The host name it has: of a database of ours, the name of its resource.
    pub host: String,
    /// The container, told apart from its predecessor in the same pod.
    pub container: String,
}

/// All of one testbed that are alive, parents before their children.
pub fn running(testbed: &str) -> Vec<Program> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<Program> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| look_at(pid, testbed))
        .collect();
    found.sort_by_key(|program| (program.process.start_time, program.process.pid));
    found
}

fn look_at(pid: i32, testbed: &str) -> Option<Program> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let (node, pod, container) = place(&read("cgroup")?, testbed)?;
    let command = read("cmdline")?;
    let role = role(&command)?;
    let environment = read("environ")?;
    let host = environment
        .split('\0')
        .find_map(|pair| pair.strip_prefix("HOSTNAME="))?
        .to_owned();
    let process = Process::at(pid)?;
    process.is_alive().then_some(Program {
        process,
        role,
        node,
        pod,
        host,
        container,
    })
}

/// By the words of a command line. A guard's probes are programs of its name, too.
fn role(command: &str) -> Option<Role> {
    let mut words = command.split('\0');
    match (words.next()?, words.next()) {
        (program, _) if program.ends_with("/sqlservr") => Some(Role::Engine),
        (program, Some("run")) if program.ends_with("/sqledge-guard") => Some(Role::Guard),
        _ => None,
    }
}

/// Node, pod and container of a control group such as `4:freezer:/testbed-x/n1/kubepods/besteffort/podUID/CONTAINER`.
fn place(cgroups: &str, testbed: &str) -> Option<(String, String, String)> {
    let root = format!("/testbed-{testbed}/");
    let path = cgroups
        .lines()
        .find_map(|line| line.split_once(&root).map(|(_, path)| path))?;
    let (node, inside) = path.split_once('/')?;
    let (pod, container) = inside.rsplit_once("/pod").and_then(|(_, rest)| rest.split_once('/'))?;
    Some((node.to_owned(), pod.to_owned(), container.to_owned()))
}

/// Pairs of containers on one node that run an engine for the same instance at the same moment.
pub fn doubles(programs: &[Program]) -> Vec<String> {
    let mut containers: BTreeMap<(&str, &str), BTreeMap<&str, &str>> = BTreeMap::new();
    for program in programs.iter().filter(|program| program.role == Role::Engine) {
        let place = (program.node.as_str(), program.host.as_str());
        containers
            .entry(place)
            .or_default()
            .insert(&program.container, &program.pod);
    }
    let doubled = containers.into_iter().filter(|(_, containers)| containers.len() > 1);
    doubled
        .map(|((node, instance), containers)| {
            let pods: Vec<String> = containers
                .iter()
                .map(|(container, pod)| format!("pod {pod}, container {}", container.get(..12).unwrap_or(container)))
                .collect();
            format!("{instance} on node {node}: {}", pods.join(" and "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(node: &str, host: &str, pod: &str, container: &str) -> Program {
        Program {
            process: Process { pid: 1, start_time: 1 },
            role: Role::Engine,
            node: node.to_owned(),
            pod: pod.to_owned(),
            host: host.to_owned(),
            container: container.to_owned(),
        }
    }

    #[test]
    fn a_process_is_found_by_its_control_group() {
        let cgroups = "5:cpu:/other\n4:freezer:/testbed-soak/n2/kubepods/besteffort/pod12-34/abcdef\n";
        assert_eq!(
            place(cgroups, "soak"),
            Some(("n2".to_owned(), "12-34".to_owned(), "abcdef".to_owned()))
        );
        assert_eq!(place(cgroups, "so"), None, "another testbed's");
        assert_eq!(place("4:freezer:/testbed-soak/n2/system\n", "soak"), None, "no pod's");
    }

    #[test]
    fn a_guard_is_told_from_its_probes_and_from_the_engine_it_runs() {
        let guard = "/sqledge/sqledge-guard\0run\0--\0/opt/mssql/bin/sqlservr\0";
        assert_eq!(role(guard), Some(Role::Guard));
        assert_eq!(role("/opt/mssql/bin/sqlservr\0"), Some(Role::Engine));
        assert_eq!(role("/sqledge/sqledge-guard\0probe\0--port\x001433\0"), None);
        assert_eq!(role("/pause\0"), None);
    }

    #[test]
    fn parent_and_child_are_one_engine_and_two_containers_on_a_node_are_two() {
        let one = [engine("n1", "db-1", "x", "a"), engine("n1", "db-1", "x", "a")];
        assert!(doubles(&one).is_empty());
        let apart = [
            engine("n1", "db-1", "x", "a"),
            engine("n2", "db-1", "y", "b"),
            engine("n1", "db-2", "z", "c"),
        ];
        assert!(
            doubles(&apart).is_empty(),
            "what nodes do is judged by the storage host's log"
        );
        let two = [engine("n1", "db-1", "x", "a"), engine("n1", "db-1", "y", "b")];
        assert_eq!(
            doubles(&two),
            ["db-1 on node n1: pod x, container a and pod y, container b"]
        );
    }
}
