//! Names, addresses and paths of one testbed. Pure: computes, touches nothing.
//!
//! Everything carries the testbed's name (namespaces, cgroups, state), so that several stand side by side; the
//! addresses are the same in each because each has a bridge of its own.

use std::{
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::error::{Error, Result};

/// The API server, on the bridge itself.
pub const API_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 1);
/// The storage host.
pub const STORAGE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 50);
/// The clients' namespace.
pub const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 100);
/// The API server inside the cluster.
pub const API_SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 242, 0, 1);
/// All pods.
pub const POD_CIDR: &str = "10.241.0.0/16";
/// All Services.
pub const SERVICE_CIDR: &str = "10.242.0.0/16";
/// What the load balancer hands out.
pub const BALANCER_RANGE: &str = "10.240.0.200-10.240.0.250";
/// Where the storage host listens.
pub const STORAGE_PORT: u16 = 7000;
/// Nodes beyond this would run into the storage host's address.
pub const MOST_NODES: u8 = 9;

/// A node's number, written `n1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u8);

impl NodeId {
    /// The node's address on the bridge.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 240, 0, 10 + self.0)
    }

    /// The range its pods live in.
    pub fn pod_cidr(self) -> String {
        format!("10.241.{}.0/24", self.0 - 1)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl FromStr for NodeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix('n').unwrap_or(text).parse() {
            Ok(n @ 1..=MOST_NODES) => Ok(Self(n)),
            _ => Err(Error::Refused(format!(
                "`{text}` is not a node; nodes are called n1 to n{MOST_NODES}"
            ))),
        }
    }
}

/// The hardware address that belongs to a bridge address. Fixed, because a machine keeps its card when it restarts, and
/// caches elsewhere must behave as they would then.
pub fn hardware_address(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Where the things of one testbed are.
#[derive(Clone, Debug)]
pub struct Layout {
    name: String,
    cache: PathBuf,
}

impl Layout {
    /// The layout of the testbed `name` under the cache folder.
    pub fn new(name: &str, cache: PathBuf) -> Result<Self> {
        let fits = (1..=20).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && name.as_bytes()[0].is_ascii_lowercase();
        if !fits {
            return Err(Error::Refused(format!(
                "`{name}` cannot name a testbed; use 1 to 20 of a-z, 0-9 and `-`, starting with a letter"
            )));
        }
        Ok(Self {
            name: name.to_owned(),
            cache,
        })
    }

    /// `$SQLEDGE_CACHE`, or the folder of this project in the user's cache.
    pub fn cache_from_environment() -> Result<PathBuf> {
        if let Some(cache) = std::env::var_os("SQLEDGE_CACHE") {
            return std::path::absolute(&cache).map_err(Error::file("find", cache));
        }
        std::env::var_os("HOME")
            .map(|home| PathBuf::from(home).join(".cache/sqledge"))
            .ok_or_else(|| Error::Refused("neither SQLEDGE_CACHE nor HOME is set; set one of them".to_owned()))
    }

    /// The testbed's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder shared by all testbeds.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The folder of this testbed.
    pub fn state(&self) -> PathBuf {
        self.cache.join("testbeds").join(&self.name)
    }

    /// A program of the cluster, as built by tools/build.sh.
    pub fn tool(&self, program: &str) -> PathBuf {
        self.cache.join("tools/bin").join(program)
    }

    /// Image archives, shared by all testbeds and named by their content.
    pub fn images(&self) -> PathBuf {
        self.cache.join("images")
    }

    /// The copy of our own program that the testbed's processes were started with.
    pub fn own_program(&self) -> PathBuf {
        self.state().join("bin/testbed")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.state().join("pki")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state().join("kubeconfig")
    }

    /// The log of a process that runs beside the nodes.
    pub fn log(&self, process: &str) -> PathBuf {
        self.state().join("log").join(format!("{process}.log"))
    }

    /// The API server's audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.state().join("log/audit.log")
    }

    /// The storage host's log of writes.
    pub fn storage_log(&self) -> PathBuf {
        self.state().join("log/storage-writes.log")
    }

    /// Who runs as `process`.
    pub fn pidfile(&self, process: &str) -> PathBuf {
        self.state().join("run").join(format!("{process}.json"))
    }

    /// The folder of a node.
    pub fn node(&self, node: NodeId) -> PathBuf {
        self.state().join("nodes").join(node.to_string())
    }

    /// What a node sees as /var and keeps over a loss of power.
    pub fn disk(&self, node: NodeId) -> PathBuf {
        self.node(node).join("disk")
    }

    /// Where a node's first process takes orders. Not in the state folder: such paths may have 107 bytes.
    pub fn control_socket(&self, node: NodeId) -> PathBuf {
        self.runtime().join(format!("{node}.sock"))
    }

    /// Sockets of this testbed.
    pub fn runtime(&self) -> PathBuf {
        Path::new("/run/testbed").join(&self.name)
    }

    /// The network namespace of `place`: `cp`, `client`, `storage` or a node.
    pub fn namespace(&self, place: impl fmt::Display) -> String {
        format!("{}-{place}", self.name)
    }

    /// That namespace as a file.
    pub fn namespace_file(&self, place: impl fmt::Display) -> PathBuf {
        Path::new("/run/netns").join(self.namespace(place))
    }

    /// The root of this testbed's control groups, relative to each hierarchy.
    pub fn cgroup(&self) -> PathBuf {
        PathBuf::from(format!("testbed-{}", self.name))
    }

    /// A node's control group: what the kubelet takes for the root.
    pub fn node_cgroup(&self, node: NodeId) -> PathBuf {
        self.cgroup().join(node.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_with_and_without_their_letter_and_out_of_range_ones_refused() {
        assert_eq!("n3".parse::<NodeId>().unwrap(), NodeId(3));
        assert_eq!("3".parse::<NodeId>().unwrap(), NodeId(3));
        for wrong in ["0", "n0", "n10", "nn1", "", "-1"] {
            assert!(wrong.parse::<NodeId>().is_err(), "{wrong} was taken for a node");
        }
    }

    #[test]
    fn names_that_could_escape_the_cache_or_a_cgroup_are_refused() {
        for wrong in ["", "..", "a/b", "A", "1st", "with space", "a-name-that-is-far-too-long"] {
            assert!(
                Layout::new(wrong, PathBuf::from("/c")).is_err(),
                "{wrong} was taken for a name"
            );
        }
        assert!(Layout::new("e2e-2", PathBuf::from("/c")).is_ok());
    }

    #[test]
    fn addresses_of_a_node_follow_from_its_number() {
        assert_eq!(NodeId(2).address().to_string(), "10.240.0.12");
        assert_eq!(NodeId(2).pod_cidr(), "10.241.1.0/24");
        assert_eq!(hardware_address(NodeId(2).address()), "02:00:0a:f0:00:0c");
    }
}
