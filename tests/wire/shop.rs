//! The one instance that the requests are about, its children, and its pods.

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};
use sqledge_operator::api::SqlEdgeInstance;
use sqledge_operator::desired::{self, Rendering};
use sqledge_operator::driver_class::DriverClass;
use sqledge_operator::instance::Instance;
use sqledge_operator::lease::Record;

use crate::canned::Canned;

pub const INSTANCE: &str = "/apis/sqledge.io/v1alpha1/namespaces/shop/sqledgeinstances/orders";
pub const CLAIM: &str = "/api/v1/namespaces/shop/persistentvolumeclaims/orders-data";
pub const PODS: &str = "/api/v1/namespaces/shop/pods";
pub const NODE: &str = "/api/v1/nodes/n1";
pub const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
pub const WRITER: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/orders-writer";
pub const ACCOUNT: &str = "/api/v1/namespaces/shop/serviceaccounts/orders-guard";
pub const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles/orders-guard";
pub const BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings/orders-guard";
pub const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/orders";
pub const ATTACHMENT: &str = "/apis/storage.k8s.io/v1/volumeattachments/csi-1";
pub const DRIVER: &str = "/apis/storage.k8s.io/v1/csidrivers/disk.storage.test";
pub const VOLUME: &str = "kubernetes.io/csi/disk.storage.test^handle-1";
pub const IMAGE: &str = "registry.example/operator:1";

/// Metadata as the API server stores it.
pub fn meta(name: &str, uid: &str, version: &str, more: &Value) -> Value {
    let mut meta =
        json!({"name": name, "uid": uid, "resourceVersion": version, "creationTimestamp": "2026-01-01T00:00:00Z"});
    for (key, value) in more.as_object().expect("an object") {
        meta[key] = value.clone();
    }
    meta
}

/// An instance with all its children, a volume on node n1, and no pod yet. The pod of record has taken the Lease.
pub fn cluster(holder: &Value) -> Canned {
    made(holder, &json!({}))
}

/// The same where the engine has no guard, and so no Lease.
pub fn without_guard(holder: &Value) -> Canned {
    made(holder, &json!({"guard": "Disabled"}))
}

/// Another one has the Lease.
pub fn hold(canned: &Canned, holder: &str) {
    let mut lease = canned.get(WRITER);
    lease["spec"]["holderIdentity"] = holder.into();
    canned.put(WRITER, lease);
}

fn made(holder: &Value, failover: &Value) -> Canned {
    let canned = Canned::default();
    let resource = json!({
        "apiVersion": "sqledge.io/v1alpha1", "kind": "SqlEdgeInstance",
        "metadata": meta("orders", "uid-orders", "10", &json!({"namespace": "shop", "generation": 1})),
        "spec": {"acceptEula": true, "image": "registry.example/engine:1", "storage": {"storageClassName": "disk"},
            "failover": failover},
    });
    let typed: SqlEdgeInstance = serde_json::from_value(resource.clone()).expect("a resource");
    let instance = Instance::parse(&typed).expect("valid");
    canned.put(INSTANCE, resource);

    let rendering = Rendering {
        operator_image: IMAGE,
        volume_id: "volume-1",
        secret_key: "MSSQL_SA_PASSWORD",
    };
    let stored = |object: Value, uid: &str| {
        let mut object = object;
        object["metadata"]["uid"] = uid.into();
        object["metadata"]["resourceVersion"] = "20".into();
        object
    };
    let deployment = serde_json::to_value(desired::deployment(&instance, &rendering)).expect("JSON");
    canned.put(DEPLOYMENT, stored(deployment, "uid-deployment"));
    let orders = desired::orders(&instance.failover, DriverClass::Revoke);
    let lease = desired::lease(&instance, &Record::anew(None, 0, orders));
    for (path, object) in [
        (ACCOUNT, serde_json::to_value(desired::service_account(&instance))),
        (ROLE, serde_json::to_value(desired::role(&instance))),
        (BINDING, serde_json::to_value(desired::role_binding(&instance))),
        (WRITER, serde_json::to_value(lease)),
    ] {
        let object = object.expect("JSON");
        if !object.is_null() {
            canned.put(path, stored(object, "uid-of-the-guards"));
        }
    }
    if let (Some(pod), true) = (holder["sqledge.io/holder-pod"].as_str(), instance.is_guarded()) {
        hold(&canned, &format!("{pod}/1"));
    }
    let service: Service = desired::service(&instance);
    let mut service = stored(serde_json::to_value(service).expect("JSON"), "uid-service");
    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}});
    canned.put("/api/v1/namespaces/shop/services/orders", service);
    let mut claim = serde_json::to_value(desired::claim(&instance, "volume-1").expect("ours")).expect("JSON");
    for (key, value) in holder.as_object().expect("an object") {
        claim["metadata"]["annotations"][key] = value.clone();
    }
    claim["spec"]["volumeName"] = "pv-1".into();
    claim["status"] = json!({"phase": "Bound"});
    canned.put(CLAIM, {
        let mut claim = stored(claim, "uid-claim");
        claim["metadata"]["resourceVersion"] = "30".into();
        claim
    });
    let secret = json!({"metadata": meta("orders-sa", "uid-secret", "21",
        &json!({"namespace": "shop", "labels": {"app.kubernetes.io/managed-by": "sqledge-operator"}})),
        "data": {"MSSQL_SA_PASSWORD": "Q29ycmVjdC1Ib3JzZS03"}});
    canned.put("/api/v1/namespaces/shop/secrets/orders-sa", secret);
    canned.put(
        "/api/v1/persistentvolumes/pv-1",
        json!({"metadata": meta("pv-1", "uid-pv", "22", &json!({})),
            "spec": {"csi": {"driver": "disk.storage.test", "volumeHandle": "handle-1"}}}),
    );
    canned.put(
        DRIVER,
        json!({"metadata": meta("disk.storage.test", "uid-driver", "23", &json!({})), "spec": {"attachRequired": true}}),
    );
    canned.put(
        NODE,
        json!({"metadata": meta("n1", "uid-n1", "40", &json!({"labels": {"kubernetes.io/hostname": "host-1", "kubernetes.io/arch": "amd64"}})),
            "status": {"nodeInfo": {"bootID": "first"}, "conditions": [{"type": "Ready", "status": "True"}], "volumesInUse": ["another", VOLUME],
                "volumesAttached": [{"name": VOLUME, "devicePath": ""}]}}),
    );
    canned.put(
        LEASE,
        json!({"metadata": meta("n1", "uid-lease", "41", &json!({"namespace": "kube-node-lease"}))}),
    );
    canned.put(
        ATTACHMENT,
        json!({"metadata": meta("csi-1", "uid-csi-1", "50", &json!({})), "spec": {"attacher": "disk.storage.test", "nodeName": "n1",
            "source": {"persistentVolumeName": "pv-1"}}, "status": {"attached": true}}),
    );
    canned
}

/// A pod from the Deployment's template: gated, or running on n1.
pub fn pod(canned: &Canned, name: &str, gated: bool) {
    let deployment = canned.under("/apis/apps/v1/namespaces/shop/deployments").remove(0);
    let template = &deployment["spec"]["template"];
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-1", "uid": "uid-set", "controller": true});
    let metadata = meta(
        name,
        &format!("uid-{name}"),
        "60",
        &json!({"namespace": "shop", "labels": template["metadata"]["labels"], "ownerReferences": [owner]}),
    );
    let mut pod = json!({"metadata": metadata, "spec": template["spec"], "status": {"phase": "Pending"}});
    if !gated {
        pod["spec"]["schedulingGates"] = Value::Null;
        pod["spec"]["nodeName"] = "n1".into();
        let status = json!({"name": "engine", "ready": true, "restartCount": 0, "image": "", "imageID": "", "containerID": "test://1",
            "state": {"running": {}}});
        pod["status"] = json!({"phase": "Running", "podIP": "192.0.2.20", "containerStatuses": [status]});
    }
    let _: Pod = serde_json::from_value(pod.clone()).expect("a pod");
    canned.put(&format!("{PODS}/{name}"), pod);
}

/// What the claim says when the node of the last pod was lost: the volume is about to be taken from it.
pub fn lost() -> Value {
    json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1", "sqledge.io/avoid-nodes": "n1"})
}
