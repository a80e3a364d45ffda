//! The real etcd and kube-apiserver as plain processes: no root, loopback and free ports only, everything in one temporary folder.
//!
//! One pair is started for all tests of this binary; a test that does something to etcd starts a pair of its own.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::{Client, Config};
use serde_json::{Value, json};
use sqledge_operator::api;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::mirror::version;
use crate::program::Program;

/// Token of the one user, who may do everything: rights are judged on the real cluster, not here.
pub const TOKEN: &str = "control-plane-test";

/// A running control plane.
pub struct ControlPlane {
    client: Client,
    /// Where the API server listens, on the loopback.
    pub port: u16,
    /// Its certificate, which is its own authority; for programs that bring their own client.
    #[allow(dead_code)] // read where this file is part of other tests
    pub certificate: String,
    etcd: Mutex<Option<Program>>,
    etcd_command: Vec<String>,
    api_server: Program,
}

/// The one runtime of this binary: connections live on it, whichever test opened them.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime")
    })
}

/// Runs a story to its end.
pub fn play(story: impl Future<Output = ()>) {
    runtime().block_on(story);
}

/// The one control plane that the tests of this binary share.
pub async fn shared() -> &'static ControlPlane {
    static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
    SHARED.get_or_init(ControlPlane::start).await
}

/// Its client.
pub async fn client() -> Client {
    shared().await.client()
}

/// Where programs are kept that are built once for all checkouts.
pub fn cache() -> PathBuf {
    std::env::var_os("SQLEDGE_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/sqledge"),
        PathBuf::from,
    )
}

/// A program of the test cluster.
fn program(name: &str) -> PathBuf {
    let path = cache().join("tools/bin").join(name);
    assert!(
        path.exists(),
        "{name} is not built; run tests/testbed/tools/build.sh etcd kubernetes and try again"
    );
    path
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// A folder that nobody else has; on a memory file system where there is one, because nothing here outlives the process.
fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let folder = parent.join(format!(
        "sqledge-control-plane-{}-{}",
        std::process::id(),
        free_ports::<1>()[0]
    ));
    fs::create_dir(&folder).expect("a folder of our own");
    folder
}

impl ControlPlane {
    /// Starts both programs, waits until they answer and installs the definition of our resource.
    pub async fn start() -> Self {
        let folder = folder();
        let [etcd_client, etcd_peer, api_port] = free_ports();
        let (etcd_folder, api_folder) = (folder.join("etcd"), folder.join("api"));
        fs::create_dir(&api_folder).expect("a folder of our own");
        let file = |name: &str| api_folder.join(name).display().to_string();
        let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()])
            .expect("a certificate");
        let account_key = rcgen::KeyPair::generate().expect("a key");
        fs::write(file("api.crt"), certificate.cert.pem()).expect("written");
        fs::write(file("api.key"), certificate.signing_key.serialize_pem()).expect("written");
        fs::write(file("accounts.key"), account_key.serialize_pem()).expect("written");
        fs::write(file("accounts.pub"), account_key.public_key_pem()).expect("written");
        fs::write(file("tokens.csv"), format!("{TOKEN},test,1,\"system:masters\"\n")).expect("written");
        let etcd = [
            program("etcd").display().to_string(),
            format!("--data-dir={}", etcd_folder.join("data").display()),
            format!("--listen-client-urls=http://127.0.0.1:{etcd_client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{etcd_client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{etcd_peer}"),
            "--unsafe-no-fsync".to_owned(),
        ];
        let api_server = [
            program("kube-apiserver").display().to_string(),
            format!("--etcd-servers=http://127.0.0.1:{etcd_client}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={api_port}"),
            format!("--cert-dir={}", file("generated")),
            format!("--tls-cert-file={}", file("api.crt")),
            format!("--tls-private-key-file={}", file("api.key")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=AlwaysAllow".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            "--service-cluster-ip-range=10.242.0.0/16".to_owned(),
            // no controller manager makes service accounts here, or takes the taint of a new node away
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition".to_owned(),
            // a list is read from etcd itself, without waiting for the cache of another kind to catch up
            "--watch-cache=false".to_owned(),
            "--enable-priority-and-fairness=false".to_owned(),
        ];
        let etcd_command = etcd.to_vec();
        let etcd = Program::start(&etcd_folder, &etcd_command, &[]);
        let api_server = Program::start(&api_folder, &api_server, &[]);
        let mut config = Config::new(format!("https://127.0.0.1:{api_port}").parse().expect("an address"));
        config.default_retry = false;
        config.root_cert = Some(vec![certificate.cert.der().to_vec()]);
        config.auth_info.token = Some(TOKEN.to_owned().into());
        config.read_timeout = Some(Duration::from_secs(60));
        config.reset_reader_on_write = true;
        let client = Client::try_from(config).expect("a client");
        until(Duration::from_secs(60), &api_server, async || {
            let ready = http::Request::get("/readyz").body(Vec::new()).expect("a request");
            client.request_text(ready).await.is_ok()
        })
        .await;
        install(&client, &api_server).await;
        Self {
            client,
            port: api_port,
            certificate: certificate.cert.pem(),
            etcd: Mutex::new(Some(etcd)),
            etcd_command,
            api_server,
        }
    }

    /// A client of this control plane.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig for a program.
    pub fn kubeconfig(&self) -> PathBuf {
        let file = |name: &str| self.api_server.folder().join(name);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bare",
            "clusters": [{"name": "bare", "cluster": {"server": format!("https://127.0.0.1:{}", self.port), "certificate-authority": file("api.crt")}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "bare", "context": {"cluster": "bare", "user": "test"}}],
        });
        let path = file("kubeconfig");
        fs::write(&path, config.to_string()).expect("written");
        path
    }

    fn copy_of_etcd(&self) -> PathBuf {
        self.api_server.folder().join("copy-of-etcd")
    }

    /// Keeps what etcd has stored at this moment.
    pub fn copy_etcd(&self) {
        let etcd = self.etcd.lock().expect("no panic inside");
        let etcd = etcd.as_ref().expect("it runs");
        // what a process wrote is in its files for everybody else, flushed or not
        etcd.paused(|| copy(&etcd.folder().join("data"), &self.copy_of_etcd()));
    }

    /// etcd ends, and comes up again with what it had stored when it was copied.
    pub async fn set_etcd_back(&self) {
        {
            let mut etcd = self.etcd.lock().expect("no panic inside");
            let folder = etcd.take().map(|etcd| etcd.folder().to_owned()).expect("it runs");
            fs::create_dir(&folder).expect("a folder of our own");
            copy(&self.copy_of_etcd(), &folder.join("data"));
            *etcd = Some(Program::start(&folder, &self.etcd_command, &[]));
        }
        until(Duration::from_secs(60), &self.api_server, async || {
            let read = http::Request::get("/api/v1/namespaces")
                .body(Vec::new())
                .expect("a request");
            self.client.request_text(read).await.is_ok()
        })
        .await;
    }

    /// The revision that etcd has reached.
    pub async fn revision(&self) -> u64 {
        let list = http::Request::get("/api/v1/namespaces?limit=1")
            .body(Vec::new())
            .expect("a request");
        let list: Value = self.client.request(list).await.expect("a list");
        version(&list)
    }

    /// Writes until etcd has reached a revision, as a restored one does that was told to leave a gap.
    pub async fn pass_revision(&self, reached: u64) {
        while self.revision().await <= reached {
            for number in 0..50 {
                let patch = json!({"metadata": {"annotations": {"written": number.to_string()}}});
                let request = http::Request::patch("/api/v1/namespaces/default")
                    .header("content-type", "application/merge-patch+json")
                    .body(patch.to_string().into_bytes())
                    .expect("a request");
                self.client.request::<Value>(request).await.expect("written");
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "cp {} {}",
        from.display(),
        to.display()
    );
}

/// Our definition, and storage classes, of one of which volumes may grow.
async fn install(client: &Client, api_server: &Program) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions
        .create(&PostParams::default(), &api::crd())
        .await
        .expect("our definition is accepted");
    let instances: Api<api::SqlEdgeInstance> = Api::all(client.clone());
    until(Duration::from_secs(30), api_server, async || {
        instances.list(&kube::api::ListParams::default()).await.is_ok()
    })
    .await;
    let classes: Api<StorageClass> = Api::all(client.clone());
    for (name, grows) in [("disk", false), ("other-disk", true)] {
        let class =
            json!({"metadata": {"name": name}, "provisioner": "disk.storage.test", "allowVolumeExpansion": grows});
        let class: StorageClass = serde_json::from_value(class).expect("a storage class");
        classes.create(&PostParams::default(), &class).await.expect("created");
    }
    let drivers: Api<CSIDriver> = Api::all(client.clone());
    let driver = json!({"metadata": {"name": "disk.storage.test"}, "spec": {"attachRequired": true}});
    let driver: CSIDriver = serde_json::from_value(driver).expect("a driver");
    drivers.create(&PostParams::default(), &driver).await.expect("created");
    // the namespace of the nodes' heartbeats is made by the API server itself, a moment later
    let namespaces: Api<Namespace> = Api::all(client.clone());
    until(Duration::from_secs(30), api_server, async || {
        namespaces.get("kube-node-lease").await.is_ok()
    })
    .await;
}

/// Waits for a condition; a program that never gets there is quoted.
pub async fn until(patience: Duration, program: &Program, condition: impl AsyncFn() -> bool) {
    let end = Instant::now() + patience;
    while !condition().await {
        assert!(
            Instant::now() < end,
            "waited in vain; the log ends with (last line first):\n{}",
            program.last_words()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
