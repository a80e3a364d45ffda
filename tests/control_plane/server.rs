//! The real etcd and kube-apiserver as plain processes: no root, loopback and free ports only, everything in one temporary folder.
//!
//! Both are started once per test binary, by a shell that waits at the end of a pipe: however this process ends, the pipe closes,
//! and the shell ends exactly the two programs it started and removes their folder.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::{Client, Config};
use serde_json::json;
use sqledge_operator::api;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// Token of the one user, who may do everything: rights are judged on the real cluster, not here.
pub const TOKEN: &str = "control-plane-test";

/// Ends with the last program it started, whatever happens to this process.
const KEEPER: &str = r#"
folder=$1; etcd=$2; api=$3
# memory is cheap for a few minutes, and processors are not
export GOGC=400
sh -c "exec $etcd" >"$folder/etcd.log" 2>&1 </dev/null & one=$!
sh -c "exec $api" >"$folder/apiserver.log" 2>&1 </dev/null & two=$!
echo started
cat >/dev/null
kill -9 $two $one; wait $two $one 2>/dev/null
rm -rf "$folder"
"#;

/// A running control plane.
pub struct ControlPlane {
    client: Client,
    /// Where the API server listens, on the loopback.
    pub port: u16,
    /// Its certificate, which is its own authority.
    pub certificate: String,
    // closing its standard input ends the programs
    _keeper: Child,
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

/// The client of the one control plane that the tests of this binary share.
pub async fn client() -> Client {
    static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
    SHARED.get_or_init(ControlPlane::start).await.client()
}

/// Where the programs of the test cluster are kept.
fn program(name: &str) -> PathBuf {
    let cache = std::env::var_os("SQLEDGE_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/sqledge"),
        PathBuf::from,
    );
    let path = cache.join("tools/bin").join(name);
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
        let file = |name: &str| folder.join(name).display().to_string();
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
            format!("--data-dir={}", file("etcd")),
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
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", &folder.display().to_string()])
            .args([etcd.join(" "), api_server.join(" ")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut started = String::new();
        BufReader::new(keeper.stdout.take().expect("a pipe"))
            .read_line(&mut started)
            .expect("the shell started both programs");
        let mut config = Config::new(format!("https://127.0.0.1:{api_port}").parse().expect("an address"));
        config.default_retry = false;
        config.root_cert = Some(vec![certificate.cert.der().to_vec()]);
        config.auth_info.token = Some(TOKEN.to_owned().into());
        config.read_timeout = Some(Duration::from_secs(60));
        config.reset_reader_on_write = true;
        let client = Client::try_from(config).expect("a client");
        let log = folder.join("apiserver.log");
        until(Duration::from_secs(60), &log, async || {
            let ready = http::Request::get("/readyz").body(Vec::new()).expect("a request");
            client.request_text(ready).await.is_ok()
        })
        .await;
        install(&client, &log).await;
        Self {
            client,
            port: api_port,
            certificate: certificate.cert.pem(),
            _keeper: keeper,
        }
    }

    /// A client of this control plane.
    pub fn client(&self) -> Client {
        self.client.clone()
    }
}

/// Our definition, and two storage classes.
async fn install(client: &Client, log: &Path) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions
        .create(&PostParams::default(), &api::crd())
        .await
        .expect("our definition is accepted");
    let instances: Api<api::SqlEdgeInstance> = Api::all(client.clone());
    until(Duration::from_secs(30), log, async || {
        instances.list(&kube::api::ListParams::default()).await.is_ok()
    })
    .await;
    let classes: Api<StorageClass> = Api::all(client.clone());
    for name in ["disk", "other-disk"] {
        let class = json!({"metadata": {"name": name}, "provisioner": "disk.storage.test"});
        let class: StorageClass = serde_json::from_value(class).expect("a storage class");
        classes.create(&PostParams::default(), &class).await.expect("created");
    }
    let drivers: Api<CSIDriver> = Api::all(client.clone());
    let driver = json!({"metadata": {"name": "disk.storage.test"}, "spec": {"attachRequired": true}});
    let driver: CSIDriver = serde_json::from_value(driver).expect("a driver");
    drivers.create(&PostParams::default(), &driver).await.expect("created");
    // the namespace of the nodes' heartbeats is made by the API server itself, a moment later
    let namespaces: Api<Namespace> = Api::all(client.clone());
    until(Duration::from_secs(30), log, async || {
        namespaces.get("kube-node-lease").await.is_ok()
    })
    .await;
}

/// Waits for a condition; a program that never gets there is quoted.
async fn until(patience: Duration, log: &Path, condition: impl AsyncFn() -> bool) {
    let end = Instant::now() + patience;
    while !condition().await {
        if Instant::now() > end {
            let text = fs::read_to_string(log).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(20).collect();
            panic!(
                "the control plane is not ready; its log ends with (last line first):\n{}",
                tail.join("\n")
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
