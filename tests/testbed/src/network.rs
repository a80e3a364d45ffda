//! The network of a testbed: one bridge in the control plane's namespace, and a cable from it to every other place.
//!
//! There is no route out of it. Cables are cut and partitions made at the bridge, as a switch would, so that nothing a
//! node does (or its kernel does for it) gets past.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    path::Path,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    layout::{API_ADDRESS, CLIENT_ADDRESS, Layout, NodeId, SERVICE_CIDR, STORAGE_ADDRESS, hardware_address},
    process::{command, run_with_input, sh, write_whole},
};

const BRIDGE: &str = "br0";

/// A group of machines that a node can be cut off from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Peers {
    /// The API server.
    Api,
    /// The storage host.
    Storage,
    /// The clients' namespace.
    Clients,
    /// All other nodes, with the pods on them.
    Nodes,
    /// Everything.
    All,
}

impl FromStr for Peers {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "api" => Ok(Self::Api),
            "storage" => Ok(Self::Storage),
            "clients" => Ok(Self::Clients),
            "nodes" => Ok(Self::Nodes),
            "all" => Ok(Self::All),
            other => Err(Error::Refused(format!(
                "a node cannot be cut off from `{other}`; name one of api, storage, clients, nodes, all"
            ))),
        }
    }
}

/// Which nodes are cut off from whom.
pub type Partitions = BTreeMap<String, BTreeSet<Peers>>;

/// The network of one testbed.
pub struct Network<'a> {
    layout: &'a Layout,
}

impl<'a> Network<'a> {
    /// The network that belongs to a layout.
    pub fn of(layout: &'a Layout) -> Self {
        Self { layout }
    }

    /// Makes bridge, storage and client places.
    pub fn create(&self, nodes: &[NodeId]) -> Result<()> {
        let cp = self.layout.namespace("cp");
        sh(["ip", "netns", "add", &cp])?;
        sh(["ip", "-n", &cp, "link", "set", "lo", "up"])?;
        // a bridge without an address of its own takes the lowest one of its ports, and changes it under everybody's feet
        let hardware = hardware_address(API_ADDRESS);
        sh([
            "ip",
            "-n",
            &cp,
            "link",
            "add",
            BRIDGE,
            "address",
            &hardware,
            "type",
            "bridge",
            "mcast_snooping",
            "0",
        ])?;
        sh([
            "ip",
            "-n",
            &cp,
            "address",
            "add",
            &format!("{API_ADDRESS}/24"),
            "dev",
            BRIDGE,
        ])?;
        sh(["ip", "-n", &cp, "link", "set", BRIDGE, "up"])?;
        self.connect("storage", STORAGE_ADDRESS)?;
        self.connect("client", CLIENT_ADDRESS)?;
        for place in ["cp", "storage"] {
            for node in nodes {
                self.route(place, &node.pod_cidr(), node.address())?;
            }
        }
        Ok(())
    }

    /// Makes a node's namespace and plugs it in.
    pub fn connect_node(&self, node: NodeId, nodes: &[NodeId]) -> Result<()> {
        let place = node.to_string();
        self.connect(&place, node.address())?;
        for other in nodes.iter().filter(|other| **other != node) {
            self.route(&place, &other.pod_cidr(), other.address())?;
        }
        // Services have addresses that nobody owns: a route is needed for a packet to exist before kube-proxy rewrites it
        sh([
            "ip",
            "-n",
            &self.layout.namespace(&place),
            "route",
            "add",
            SERVICE_CIDR,
            "dev",
            "eth0",
        ])
        .map(drop)
    }

    fn connect(&self, place: &str, address: Ipv4Addr) -> Result<()> {
        let (cp, there) = (self.layout.namespace("cp"), self.layout.namespace(place));
        let hardware = hardware_address(address);
        sh(["ip", "netns", "add", &there])?;
        sh(["ip", "-n", &there, "link", "set", "lo", "up"])?;
        sh([
            "ip", "-n", &cp, "link", "add", place, "type", "veth", "peer", "name", "eth0", "address", &hardware,
            "netns", &there,
        ])?;
        sh(["ip", "-n", &cp, "link", "set", place, "master", BRIDGE, "up"])?;
        sh([
            "ip",
            "-n",
            &there,
            "address",
            "add",
            &format!("{address}/24"),
            "dev",
            "eth0",
        ])?;
        sh(["ip", "-n", &there, "link", "set", "eth0", "up"]).map(drop)
    }

    fn route(&self, place: &str, range: &str, via: Ipv4Addr) -> Result<()> {
        sh([
            "ip",
            "-n",
            &self.layout.namespace(place),
            "route",
            "add",
            range,
            "via",
            &via.to_string(),
        ])
        .map(drop)
    }

    /// Takes a node's cable out at the switch. From here on not a frame leaves it, whatever its kernel still does.
    pub fn cut_cable(&self, node: NodeId) -> Result<()> {
        if self.layout.namespace_file("cp").exists() {
            // a crashed run may have left the namespace without the cable
            let _ = sh([
                "ip",
                "-n",
                &self.layout.namespace("cp"),
                "link",
                "set",
                &node.to_string(),
                "down",
            ]);
        }
        Ok(())
    }

    /// Removes a node's namespace, whose kernel would otherwise go on answering.
    pub fn disconnect_node(&self, node: NodeId) -> Result<()> {
        if self.layout.namespace_file("cp").exists() {
            let _ = sh([
                "ip",
                "-n",
                &self.layout.namespace("cp"),
                "link",
                "del",
                &node.to_string(),
            ]);
        }
        remove_namespace(&self.layout.namespace(node))
    }

    /// Removes every namespace that carries this testbed's name.
    pub fn remove(&self) -> Result<()> {
        for name in self.namespaces() {
            remove_namespace(&name)?;
        }
        Ok(())
    }

    /// The namespaces of this testbed that exist.
    pub fn namespaces(&self) -> Vec<String> {
        let places = ["cp", "client", "storage"].map(str::to_owned);
        let nodes = (1..=crate::layout::MOST_NODES).map(|n| NodeId(n).to_string());
        places
            .into_iter()
            .chain(nodes)
            .filter(|place| self.layout.namespace_file(place).exists())
            .map(|place| self.layout.namespace(place))
            .collect()
    }

    /// Who is cut off from whom now.
    pub fn partitions(&self) -> Partitions {
        let file = self.layout.state().join("partitions.json");
        fs::read(file)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Puts the given partitions in place of those in force, all at once.
    pub fn set_partitions(&self, partitions: &Partitions) -> Result<()> {
        let state = self.layout.state();
        let rules = state.join("partitions.nft");
        write_whole(&rules, rules_for(partitions).as_bytes())?;
        let namespace = format!("--net={}", self.layout.namespace_file("cp").display());
        run_with_input(&mut command(["nsenter", &namespace, "nft", "-f", "-"]), &rules)?;
        let text = serde_json::to_vec(partitions).expect("names and words are always valid JSON");
        write_whole(&state.join("partitions.json"), &text)
    }
}

fn remove_namespace(name: &str) -> Result<()> {
    if Path::new("/run/netns").join(name).exists() {
        sh(["ip", "netns", "del", name])?;
    }
    Ok(())
}

/// The bridge's rule set. By port, not by address: pods, load-balanced addresses and ARP of a node go with it.
fn rules_for(partitions: &Partitions) -> String {
    let (mut forward, mut at_the_bridge, mut from_the_bridge) = (String::new(), String::new(), String::new());
    for (node, peers) in partitions {
        for peer in peers {
            let port = match peer {
                Peers::Storage => Some("storage"),
                Peers::Clients => Some("client"),
                Peers::Nodes => Some("n*"),
                // rules of their own below: neither the bridge nor everything is a port
                Peers::Api | Peers::All => None,
            };
            if *peer == Peers::All {
                let _ = writeln!(forward, "    iifname \"{node}\" drop\n    oifname \"{node}\" drop");
            }
            if let Some(port) = port {
                let _ = writeln!(forward, "    iifname \"{node}\" oifname \"{port}\" drop");
                let _ = writeln!(forward, "    iifname \"{port}\" oifname \"{node}\" drop");
            }
            if matches!(peer, Peers::Api | Peers::All) {
                let _ = writeln!(at_the_bridge, "    iifname \"{node}\" drop");
                let _ = writeln!(from_the_bridge, "    oifname \"{node}\" drop");
            }
        }
    }
    format!(
        "table bridge partitions\ndelete table bridge partitions\ntable bridge partitions {{\n  \
         chain forward {{\n    type filter hook forward priority 0; policy accept;\n{forward}  }}\n  \
         chain input {{\n    type filter hook input priority 0; policy accept;\n{at_the_bridge}  }}\n  \
         chain output {{\n    type filter hook output priority 0; policy accept;\n{from_the_bridge}  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(node: &str, peers: Peers) -> String {
        rules_for(&Partitions::from([(node.to_owned(), BTreeSet::from([peers]))]))
    }

    #[test]
    fn no_partition_leaves_no_rule() {
        assert!(!rules_for(&Partitions::new()).contains("drop"));
    }

    #[test]
    fn a_cut_from_the_api_server_leaves_traffic_between_nodes_alone() {
        let rules = cut("n1", Peers::Api);
        assert!(rules.contains("iifname \"n1\" drop") && rules.contains("oifname \"n1\" drop"));
        assert!(!rules.contains("iifname \"n1\" oifname"), "{rules}");
    }

    #[test]
    fn a_cut_works_in_both_directions() {
        let rules = cut("n2", Peers::Storage);
        assert!(rules.contains("iifname \"n2\" oifname \"storage\" drop"));
        assert!(rules.contains("iifname \"storage\" oifname \"n2\" drop"));
    }
}
