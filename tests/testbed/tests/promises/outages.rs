//! What a testbed can break, and that it breaks that and nothing else.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use testbed::{NodeId, Peers, cgroup::Cgroups};

use crate::{
    support::{Bed, await_end_of, loop_devices, within},
    workloads::{address_of, volume_pod},
};

/// Who can reach whom: API server, storage host, clients to node, node to node, pod to pod of another node.
fn reachable(bed: &Bed, pod_elsewhere: &str) -> [bool; 5] {
    [
        bed.connects("n1", "10.240.0.1", 6443),
        bed.connects("n1", "10.240.0.50", 7000),
        bed.connects("client", "10.240.0.11", 10250),
        bed.connects("n1", "10.240.0.12", 10250) && bed.connects("n3", "10.240.0.11", 10250),
        bed.connects("n1", pod_elsewhere, 8080),
    ]
}

pub fn a_partition_cuts_exactly_what_was_named(bed: &Bed) {
    let path = "--output=jsonpath={.items[?(@.spec.nodeName==\"n2\")].status.podIP}";
    let pod = bed.kubectl(&["get", "pods", "--selector=app=web", path]).unwrap();
    assert_eq!(reachable(bed, &pod), [true; 5]);
    for (peers, expected) in [
        (Peers::Api, [false, true, true, true, true]),
        (Peers::Storage, [true, false, true, true, true]),
        (Peers::Clients, [true, true, false, true, true]),
        (Peers::Nodes, [true, true, true, false, false]),
        (Peers::All, [false; 5]),
    ] {
        bed.partition("n1", &[peers]).unwrap();
        assert_eq!(reachable(bed, &pod), expected, "cut off from {peers:?}");
        assert!(
            bed.connects("n2", "10.240.0.1", 6443) && bed.connects("n2", "10.240.0.13", 10250),
            "{peers:?}"
        );
        bed.heal(Some("n1")).unwrap();
    }
    within(10, "everything reachable again", || reachable(bed, &pod) == [true; 5]);
    bed.await_ready("n1", "True", 60);
}

pub fn a_stopped_kubelet_leaves_its_pods_alone(bed: &Bed) {
    let node = bed.node("n1").unwrap();
    node.stop_service("kubelet").unwrap();
    assert!(!node.services().unwrap()["kubelet"].running);
    assert!(!bed.connects("cp", "10.240.0.11", 10250));
    assert!(counts(bed));
    // it would be started again after 10 s if it had ended by itself
    std::thread::sleep(Duration::from_secs(11));
    assert!(!node.services().unwrap()["kubelet"].running);
    node.start_service("kubelet").unwrap();
    within(30, "the kubelet's port", || bed.connects("cp", "10.240.0.11", 10250));
    let restarts = bed.field("pod", "counter", "{.status.containerStatuses[0].restartCount}");
    assert_eq!(restarts, "0");
}

/// Whether the counter on n1 goes on, seen on the node's disk.
fn counts(bed: &Bed) -> bool {
    let file = bed.layout().disk(NodeId(1)).join("lib/count");
    let read = || {
        fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
    };
    // a writer may just have emptied the file
    let number = || {
        (0..20).find_map(|_| {
            read().or_else(|| {
                std::thread::sleep(Duration::from_millis(10));
                None
            })
        })
    };
    let before = number();
    std::thread::sleep(Duration::from_secs(1));
    number() > before
}

pub fn without_api_server_pods_go_on(bed: &Bed) {
    let address = address_of(bed, "web");
    bed.stop_api().unwrap();
    assert!(bed.kubectl(&["get", "nodes", "--request-timeout=2s"]).is_err());
    assert!(counts(bed));
    bed.page("client", &format!("http://{address}/")).unwrap();
    bed.start_api().unwrap();
    bed.kubectl(&["get", "nodes"]).unwrap();
}

pub fn a_paused_node_does_nothing_and_then_goes_on_where_it_was(bed: &Bed) {
    let node = bed.node("n1").unwrap();
    assert!(counts(bed));
    node.pause().unwrap();
    assert!(!counts(bed));
    assert!(node.is_paused().unwrap());
    assert!(
        bed.connects("client", "10.240.0.11", 10250),
        "the kernel of a stopped machine accepts connections"
    );
    assert!(
        bed.page("client", "http://10.240.0.11:10249/healthz").is_err(),
        "but nobody answers them"
    );
    assert!(node.services().is_err(), "an order to a paused node is refused at once");
    node.resume().unwrap();
    assert!(counts(bed));
    within(30, "the node's kubelet answers", || {
        bed.kubectl(&["logs", "counter"]).is_ok()
    });
}

pub fn the_balancer_moves_an_address_when_its_announcer_loses_power(bed: &Bed) {
    let address = address_of(bed, "web");
    let url = format!("http://{address}/");
    within(10, "an answer", || bed.page("client", &url).is_ok());
    let announcer = announcer(bed, &address);
    // one pod only, on another node: what is measured is the address, not the pod
    let elsewhere = if announcer == NodeId(3) { NodeId(2) } else { NodeId(3) };
    let patch = format!(r#"{{"spec":{{"replicas":1,"template":{{"spec":{{"nodeName":"{elsewhere}"}}}}}}}}"#);
    bed.kubectl(&["patch", "deployment", "web", "--patch", &patch]).unwrap();
    bed.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"])
        .unwrap();
    within(60, "one pod, on the right node", || {
        let nodes = "--output=jsonpath={.items[*].spec.nodeName}";
        bed.kubectl(&["get", "pods", "--selector=app=web", nodes]).unwrap() == elsewhere.to_string()
    });
    within(10, "an answer", || bed.page("client", &url).is_ok());

    let node = bed.node(&announcer.to_string()).unwrap();
    let began = Instant::now();
    node.power_off().unwrap();
    assert!(
        bed.page("client", &url).is_err(),
        "the address answers although its announcer is off"
    );
    within(60, "the address answers again", || bed.page("client", &url).is_ok());
    println!(
        "the balancer moved the address from {announcer} within {:.1} s",
        began.elapsed().as_secs_f32()
    );
    assert_ne!(self::announcer(bed, &address), announcer);
    node.power_on().unwrap();
    bed.await_ready(&announcer.to_string(), "True", 120);
}

/// Whose hardware address the clients see behind a Service's address.
fn announcer(bed: &Bed, address: &str) -> NodeId {
    let seen = bed.exec("client", &["ip", "neigh", "show", address]).unwrap();
    let of = |node: NodeId| testbed::layout::hardware_address(node.address());
    (1..=3)
        .map(NodeId)
        .find(|node| seen.contains(&of(*node)))
        .unwrap_or_else(|| panic!("nobody announces it: {seen}"))
}

pub fn a_node_without_power_is_silent_and_comes_back_as_a_new_boot(bed: &Bed) {
    let node = bed.node("n1").unwrap();
    let boot_id = || bed.field("node", "n1", "{.status.nodeInfo.bootID}");
    let (boot_before, machine_before) = (boot_id(), bed.field("node", "n1", "{.status.nodeInfo.machineID}"));
    assert_eq!(
        node.exec(&["cat", "/proc/sys/kernel/random/boot_id"]).unwrap().trim(),
        boot_before
    );
    bed.await_ready("n1", "True", 60);
    node.exec(&["touch", "/run/volatile", "/var/lib/durable"]).unwrap();
    let mut held = bed.command("client").unwrap();
    let mut held = held
        .args(["bash", "-c", "exec 3<>/dev/tcp/10.240.0.11/10250; exec sleep 60"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let established = || {
        bed.exec("client", &["ss", "-Htn", "state", "established", "dst", "10.240.0.11"])
            .unwrap()
    };
    within(5, "an open connection", || established().contains("10250"));
    // a client that has just spoken to the node knows where it is, and would get an answer to anything
    let answers = || {
        bed.exec(
            "client",
            &["busybox", "arping", "-c", "1", "-w", "1", "-I", "eth0", "10.240.0.11"],
        )
        .is_ok()
    };
    assert!(answers());

    node.power_off().unwrap();
    assert!(
        established().contains("10250"),
        "the peer was told of the end, by a FIN or RST that must not get out"
    );
    assert!(!answers());
    let _ = held.kill();
    let _ = held.wait();
    assert!(node.first_process().is_none());
    assert!(
        Cgroups::detect()
            .unwrap()
            .processes(&bed.layout().node_cgroup(NodeId(1)))
            .is_empty()
    );
    assert!(!bed.layout().namespace_file("n1").exists());
    assert!(!counts(bed));
    let grace = bed.await_ready("n1", "Unknown", 120);
    println!("a node without power is NotReady after {:.1} s", grace.as_secs_f32());
    assert!(
        grace > Duration::from_secs(30),
        "kubelets and controllers run at their defaults"
    );

    node.power_on().unwrap();
    let back = bed.await_ready("n1", "True", 60);
    println!("a node is Ready {:.1} s after power-on", back.as_secs_f32());
    within(30, "a new boot id", || boot_id() != boot_before);
    assert_eq!(bed.field("node", "n1", "{.status.nodeInfo.machineID}"), machine_before);
    node.exec(&["test", "-e", "/var/lib/durable"]).unwrap();
    assert!(node.exec(&["test", "-e", "/run/volatile"]).is_err());
    within(60, "its pod runs again", || counts(bed));
}

pub fn a_volume_does_not_outlive_the_power_of_its_node(bed: &Bed) {
    volume_pod(
        bed,
        "n1",
        "echo synced > /data/file; sync; (while sleep 0.01; do echo more >> /data/more; done) & true",
    );
    let node = bed.node("n1").unwrap();
    // more than once: which process of the node ends last is up to chance
    for _ in 0..3 {
        let devices = loop_devices(bed);
        assert!(
            !devices.is_empty(),
            "the volume is not a device of this machine, so nothing is proven"
        );
        node.power_off().unwrap();
        await_end_of(&devices);
        node.power_on().unwrap();
        let read = ["exec", "writer", "--", "cat", "/data/file"];
        within(90, "the volume again", || {
            bed.kubectl(&read).is_ok_and(|text| text.trim() == "synced")
        });
    }
}

pub fn power_can_be_taken_from_a_paused_node(bed: &Bed) {
    let node = bed.node("n1").unwrap();
    node.pause().unwrap();
    node.power_off().unwrap();
    assert!(node.first_process().is_none());
    assert!(
        node.resume().is_err() && node.pause().is_err(),
        "a node without power can be neither paused nor resumed"
    );
    node.power_on().unwrap();
    assert!(node.power_on().is_err(), "it has power already");
    assert!(!node.is_paused().unwrap());
    within(60, "its pod runs again", || counts(bed));
}
