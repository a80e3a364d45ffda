//! What runs on a testbed while nothing is broken.

use crate::support::{Bed, within};

/// A web server on every node behind one address, and a pod that counts into a file of its node's disk.
const WORKLOADS: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: DoNotSchedule
        labelSelector: {matchLabels: {app: web}}
      containers:
      - name: web
        image: localhost/busybox:1
        command: [sh, -c, 'mkdir /tmp/w; hostname > /tmp/w/index.html; echo serving; exec httpd -f -p 8080 -h /tmp/w']
        readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: counter}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 0
  volumes: [{name: disk, hostPath: {path: /var/lib, type: Directory}}]
  containers:
  - name: counter
    image: localhost/busybox:1
    command: [sh, -c, 'i=0; while true; do i=$((i+1)); echo $i > /disk/count; sleep 0.1; done']
    volumeMounts: [{name: disk, mountPath: /disk}]
";

const VOLUME: &str = r"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOncePod], resources: {requests: {storage: 64Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  nodeName: @NODE@
  terminationGracePeriodSeconds: 0
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
  containers:
  - name: writer
    image: localhost/busybox:1
    command: [sh, -c, '@COMMAND@; exec sleep 100000']
    volumeMounts: [{name: data, mountPath: /data}]
";

pub fn pods_run_on_every_node_and_kubectl_reaches_into_them(bed: &Bed) {
    bed.apply(WORKLOADS).unwrap();
    bed.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .unwrap();
    bed.kubectl(&["wait", "--for=condition=Ready", "pod/counter", "--timeout=60s"])
        .unwrap();
    let listed = bed.kubectl(&[
        "get",
        "pods",
        "--selector=app=web",
        "--output=jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{\"\\n\"}{end}",
    ]);
    let listed = listed.unwrap();
    let pods: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once(' ')).collect();
    let mut nodes: Vec<_> = pods.iter().map(|(_, node)| *node).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["n1", "n2", "n3"]);
    for (pod, _) in pods {
        assert_eq!(bed.kubectl(&["logs", pod]).unwrap().trim(), "serving");
        assert_eq!(bed.kubectl(&["exec", pod, "--", "hostname"]).unwrap().trim(), pod);
    }
}

pub fn a_service_address_answers_the_clients_namespace(bed: &Bed) {
    let address = address_of(bed, "web");
    let mut seen = std::collections::BTreeSet::new();
    within(30, "answers from the pods of all three nodes", || {
        seen.extend(bed.page("client", &format!("http://{address}/")));
        seen.len() == 3
    });
}

/// The external address of a Service.
pub fn address_of(bed: &Bed, service: &str) -> String {
    let mut address = String::new();
    within(30, "an external address", || {
        address = bed.field("service", service, "{.status.loadBalancer.ingress[0].ip}");
        address.starts_with("10.240.0.2")
    });
    address
}

pub fn every_pod_reaches_the_api_server_by_its_service(bed: &Bed) {
    let pods = bed
        .kubectl(&["get", "pods", "--selector=app=web", "--output=name"])
        .unwrap();
    for pod in pods.lines() {
        let attempt = |port: u16| {
            let attempt = format!("nc -w 2 10.242.0.1 {port} < /dev/null");
            bed.kubectl(&["exec", pod, "--", "sh", "-c", &attempt])
        };
        attempt(443).unwrap();
        assert!(attempt(444).is_err(), "the check says yes to anything");
    }
}

pub fn nothing_can_leave_the_testbed(bed: &Bed) {
    // asks the kernel where it would send a packet; sends none. The address is one of those reserved for examples.
    for place in ["cp", "client", "storage", "n1", "n2", "n3"] {
        assert!(
            bed.exec(place, &["ip", "route", "get", "203.0.113.1"]).is_err(),
            "{place} has a route out"
        );
        bed.exec(place, &["ip", "route", "get", "10.240.0.1"]).unwrap();
    }
}

pub fn writes_stand_in_the_audit_log_with_their_bodies(bed: &Bed) {
    bed.kubectl(&["create", "configmap", "witness", "--from-literal=word=seen"])
        .unwrap();
    assert!(bed.kubectl(&["create", "configmap", "witness"]).is_err());
    let log = bed.audit_log().unwrap();
    let about = |event: &&testbed::AuditEvent| {
        event.verb == "create"
            && event
                .object_ref
                .as_ref()
                .is_some_and(|o| o.resource == "configmaps" && o.name == "witness")
    };
    let events: Vec<_> = log.iter().filter(about).collect();
    let codes: Vec<_> = events
        .iter()
        .map(|event| event.response_status.as_ref().unwrap().code)
        .collect();
    assert_eq!(codes, [201, 409]);
    assert_eq!(events[0].user.username, "admin");
    assert_eq!(events[0].request_object.as_ref().unwrap()["data"]["word"], "seen");
    assert!(events[0].request_received_timestamp < events[1].request_received_timestamp);
    let read = log
        .iter()
        .find(|event| event.verb == "watch")
        .expect("controllers watch something");
    assert!(read.request_object.is_none());
}

pub fn a_volume_keeps_what_was_synced(bed: &Bed) {
    volume_pod(bed, "n2", "echo kept > /data/file; sync");
    volume_pod(bed, "n3", "true");
    assert_eq!(
        bed.kubectl(&["exec", "writer", "--", "cat", "/data/file"])
            .unwrap()
            .trim(),
        "kept"
    );
    let volume = bed.field("pvc", "data", "{.spec.volumeName}");
    let log = std::fs::read_to_string(bed.storage_log()).unwrap();
    assert!(
        log.lines().any(|line| line.contains(&volume) && line.contains("n2")),
        "no write by n2 was logged"
    );
}

/// Runs the pod with the volume on a node, in place of an earlier one elsewhere.
pub fn volume_pod(bed: &Bed, node: &str, command: &str) {
    bed.kubectl(&["delete", "pod", "writer", "--ignore-not-found"]).unwrap();
    bed.apply(&VOLUME.replace("@NODE@", node).replace("@COMMAND@", command))
        .unwrap();
    bed.kubectl(&["wait", "--for=condition=Ready", "pod/writer", "--timeout=90s"])
        .unwrap();
}
