//! etcd, API server, controller manager and scheduler, in the testbed's `cp` namespace.
//!
//! One of each, and as everyone runs them: RBAC and node authorization on, audit log on. What differs from a production
//! setup is that etcd does not wait for the disk, since nothing here is meant to survive the machine.

use std::{ffi::OsString, fmt::Display, time::Duration};

use serde_json::json;

use crate::{
    daemon::{Daemon, run_in},
    error::{Error, Result},
    layout::{API_ADDRESS, Layout, POD_CIDR, SERVICE_CIDR},
    pki,
    process::{Process, wait_until, write_whole},
};

const API_SERVER: &str = "kube-apiserver";

/// All of it, in the order of starting.
pub const PROCESSES: [&str; 4] = ["etcd", API_SERVER, "kube-controller-manager", "kube-scheduler"];

/// Starts everything and returns once the API server answers.
pub fn start(layout: &Layout) -> Result<()> {
    let data = flag("data-dir", layout.state().join("etcd").display());
    let client = "http://127.0.0.1:2379";
    daemon(
        layout,
        "etcd",
        vec![
            data,
            flag("listen-client-urls", client),
            flag("advertise-client-urls", client),
            flag("listen-peer-urls", "http://127.0.0.1:2380"),
            flag("log-level", "warn"),
            "--unsafe-no-fsync".to_owned(),
        ],
    )?;
    start_api(layout)?;
    start_controllers(layout)
}

/// Starts the API server and waits until it is ready.
pub fn start_api(layout: &Layout) -> Result<()> {
    let pki = |file: &str| layout.pki().join(file).display().to_string();
    let policy = layout.state().join("audit-policy.json");
    write_whole(&policy, audit_policy().as_bytes())?;
    let flags = vec![
        flag("etcd-servers", "http://127.0.0.1:2379"),
        flag("advertise-address", API_ADDRESS),
        flag("tls-cert-file", pki("apiserver.crt")),
        flag("tls-private-key-file", pki("apiserver.key")),
        flag("client-ca-file", pki("ca.crt")),
        flag("kubelet-certificate-authority", pki("ca.crt")),
        flag(
            "kubelet-client-certificate",
            pki(&format!("{}.crt", pki::API_TO_KUBELET)),
        ),
        flag("kubelet-client-key", pki(&format!("{}.key", pki::API_TO_KUBELET))),
        // names of nodes resolve nowhere here
        flag("kubelet-preferred-address-types", "InternalIP"),
        flag("service-account-key-file", pki("service-accounts.pub")),
        flag("service-account-signing-key-file", pki("service-accounts.key")),
        flag("service-account-issuer", "https://kubernetes.default.svc"),
        flag("service-cluster-ip-range", SERVICE_CIDR),
        flag("authorization-mode", "Node,RBAC"),
        flag("enable-admission-plugins", "NodeRestriction"),
        flag("allow-privileged", true),
        // there is no kube-proxy here: webhooks are reached at their pods
        flag("enable-aggregator-routing", true),
        flag("audit-policy-file", policy.display()),
        flag("audit-log-path", layout.audit_log().display()),
        // a test reads it as one file from the beginning
        flag("audit-log-maxsize", 1_000_000),
    ];
    daemon(layout, API_SERVER, flags)?;
    let look_at = layout.log(API_SERVER).display().to_string();
    wait_until("readiness of the API server", Duration::from_secs(90), &look_at, || {
        if Process::recorded(&layout.pidfile(API_SERVER)).is_none() {
            return Err(Error::Refused(format!(
                "the API server has ended; its reason stands at the end of {look_at}"
            )));
        }
        Ok(answers(layout))
    })
}

/// Whether the API server says it is ready.
pub fn answers(layout: &Layout) -> bool {
    let url = format!("https://{API_ADDRESS}:6443/readyz");
    let authority = layout.pki().join("ca.crt").display().to_string();
    run_in(
        layout,
        "cp",
        &[
            "curl",
            "--silent",
            "--fail",
            "--max-time",
            "3",
            "--cacert",
            &authority,
            &url,
        ],
    )
    .is_ok()
}

/// Takes the API server away at once. etcd and the controllers stay.
pub fn stop_api(layout: &Layout) -> Result<()> {
    Process::recorded(&layout.pidfile(API_SERVER)).map_or(Ok(()), Process::kill)
}

fn start_controllers(layout: &Layout) -> Result<()> {
    let pki = |file: &str| layout.pki().join(file).display().to_string();
    daemon(
        layout,
        "kube-controller-manager",
        vec![
            flag("kubeconfig", pki(&format!("{}.conf", pki::CONTROLLER_MANAGER))),
            flag("use-service-account-credentials", true),
            flag("service-account-private-key-file", pki("service-accounts.key")),
            flag("root-ca-file", pki("ca.crt")),
            flag("cluster-signing-cert-file", pki("ca.crt")),
            flag("cluster-signing-key-file", pki("ca.key")),
            flag("cluster-cidr", POD_CIDR),
            flag("service-cluster-ip-range", SERVICE_CIDR),
            // each node's range follows from its number, as its routes do
            flag("allocate-node-cidrs", false),
            // there is one of each, and nothing to restart it when a lease is lost while the API server is away
            flag("leader-elect", false),
        ],
    )?;
    let config = flag("kubeconfig", pki(&format!("{}.conf", pki::SCHEDULER)));
    daemon(layout, "kube-scheduler", vec![config, flag("leader-elect", false)])
}

fn daemon(layout: &Layout, name: &str, flags: Vec<String>) -> Result<()> {
    let words = std::iter::once(layout.tool(name).into_os_string()).chain(flags.into_iter().map(OsString::from));
    Daemon {
        name,
        place: "cp",
        words: words.collect(),
    }
    .start(layout)
    .map(drop)
}

fn flag(name: &str, value: impl Display) -> String {
    format!("--{name}={value}")
}

/// Every write with its body, every read by its address. The stage before handling would double each line.
fn audit_policy() -> String {
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "omitManagedFields": true,
        "rules": [
            {"level": "Request", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
            {"level": "Metadata"},
        ],
    })
    .to_string()
}
