//! The configuration files of a node's services. Pure: turns names and addresses into text.
//!
//! Paths are those inside the node, where /var is the node's own disk. The kubelet's settings are its defaults except
//! for what running beside other nodes on one machine demands; each such setting says why.

use serde_json::{Value, json};

use super::order::Service;
use crate::layout::{NodeId, POD_CIDR, STORAGE_ADDRESS, STORAGE_PORT};

/// Where our files are inside a node.
pub const HOME: &str = "/var/lib/testbed";
/// The image of a pod's first container.
pub const PAUSE_IMAGE: &str = "localhost/pause:1";
/// containerd's socket inside a node.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// containerd's configuration.
pub fn containerd() -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  # a container's score may not be better than ours, and ours may not be the best
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{HOME}/cni"
"#
    )
}

/// The pod network: a bridge in the node, no address translation, since every place has routes to every pod.
pub fn cni(node: NodeId) -> String {
    json!({
        "cniVersion": "0.4.0", "name": "pods",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "ranges": [[{"subnet": node.pod_cidr()}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

/// The kubelet's configuration.
pub fn kubelet(cgroup: &str, status_period: Option<&str>) -> String {
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {
            "x509": {"clientCAFile": format!("{HOME}/ca.crt")}, "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": format!("{HOME}/node.crt"),
        "tlsPrivateKeyFile": format!("{HOME}/node.key"),
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // no systemd runs inside a node
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        // all nodes share one machine: none of them may set limits for the whole of it
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "failCgroupV1": false,
        // there is no name service
        "resolvConf": "",
        // the disk is the machine's; how full it is says nothing about the node
        "localStorageCapacityIsolation": false,
        "evictionHard": {
            "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
    });
    if let Some(period) = status_period {
        config["nodeStatusUpdateFrequency"] = Value::from(period);
    }
    config.to_string()
}

/// All services of a node in the order of starting. Restart pauses are those of the packages' own units.
pub fn services(node: NodeId, storage_drivers: &[&str]) -> Vec<Service> {
    let service = |name: &str, words: Vec<String>, restart_seconds| Service {
        name: name.to_owned(),
        words,
        restart_seconds,
    };
    let program = |name: &str| format!("{HOME}/bin/{name}");
    let mut all = vec![
        service(
            "containerd",
            vec!["containerd".to_owned(), format!("--config={HOME}/containerd.toml")],
            5,
        ),
        service(
            "kube-proxy",
            vec![
                program("kube-proxy"),
                format!("--kubeconfig={HOME}/proxy.conf"),
                "--proxy-mode=nftables".to_owned(),
                format!("--hostname-override={node}"),
                format!("--cluster-cidr={POD_CIDR}"),
                // the size of the connection table belongs to the machine
                "--conntrack-max-per-core=0".to_owned(),
            ],
            5,
        ),
    ];
    for driver in storage_drivers {
        all.push(service(
            &format!("storage-{driver}"),
            vec![
                program("test-storage"),
                "node".to_owned(),
                format!("--driver={driver}"),
                format!("--node={node}"),
                format!("--endpoint=unix:///var/lib/kubelet/plugins/{driver}/csi.sock"),
                "--registration=/var/lib/kubelet/plugins_registry".to_owned(),
                format!("--host={STORAGE_ADDRESS}:{STORAGE_PORT}"),
            ],
            2,
        ));
    }
    all.push(service(
        "kubelet",
        vec![
            program("kubelet"),
            format!("--config={HOME}/kubelet.json"),
            format!("--kubeconfig={HOME}/kubelet.conf"),
            format!("--hostname-override={node}"),
            format!("--node-ip={}", node.address()),
        ],
        10,
    ));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_keeps_its_default_status_period_unless_told_otherwise() {
        assert!(!kubelet("t/n1", None).contains("nodeStatusUpdateFrequency"));
        assert!(kubelet("t/n1", Some("2s")).contains(r#""nodeStatusUpdateFrequency":"2s""#));
    }

    #[test]
    fn storage_plugins_start_before_the_kubelet_that_looks_for_them() {
        let names: Vec<_> = services(NodeId(1), &["a.test"])
            .into_iter()
            .map(|service| service.name)
            .collect();
        assert_eq!(names, ["containerd", "kube-proxy", "storage-a.test", "kubelet"]);
    }
}
