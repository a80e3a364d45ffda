//! The operator as a program: settings file, election, watches and all. It serves only the namespaces it is given, so that it can share the
//! control plane with tests that drive operators of their own.

use std::fs;
use std::path::Path;
use std::time::Duration;

use http::Request;
use kube::Client;
use serde_json::{Value, json};

use crate::program::Program;
use crate::server::{ControlPlane, until};

/// The program of this build.
pub const PRESENT: &str = env!("CARGO_BIN_EXE_sqledge-operator");
/// Time for what takes a moment, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running operator.
pub struct Process {
    program: Program,
    client: Client,
}

impl Process {
    /// Starts a build of the operator in a namespace, for some namespaces.
    pub fn start(build: &Path, at: &ControlPlane, home: &str, image: &str, watched: &[&str]) -> Self {
        let kubeconfig = at.kubeconfig();
        let folder = kubeconfig
            .parent()
            .expect("a folder")
            .with_file_name(format!("operator-{home}"));
        fs::create_dir_all(&folder).expect("a folder of our own");
        let settings = folder.join("settings.yaml");
        fs::write(&settings, json!({"watchNamespaces": watched}).to_string()).expect("written");
        let words = [
            build.display().to_string(),
            "run".to_owned(),
            format!("--settings={}", settings.display()),
            "--listen=127.0.0.1:0".to_owned(),
        ];
        let kubeconfig = kubeconfig.display().to_string();
        let environment = [
            ("KUBECONFIG", kubeconfig.as_str()),
            ("POD_NAME", "operator-0"),
            ("POD_NAMESPACE", home),
            ("OPERATOR_IMAGE", image),
        ];
        Self {
            program: Program::start(&folder, &words, &environment),
            client: at.client(),
        }
    }

    /// Waits until an object is as expected, and returns it.
    pub async fn until(&self, path: &str, expected: impl Fn(&Value) -> bool) -> Value {
        until(PATIENCE, &self.program, async || {
            get(&self.client, path).await.is_some_and(|object| expected(&object))
        })
        .await;
        get(&self.client, path).await.expect("it was there")
    }
}

/// One object, if it is there.
pub async fn get(client: &Client, path: &str) -> Option<Value> {
    let request = Request::get(path).body(Vec::new()).expect("a request");
    match client.request::<Value>(request).await {
        Ok(object) => Some(object),
        Err(kube::Error::Api(status)) if status.is_not_found() => None,
        Err(error) => panic!("the test cannot read {path}: {error}"),
    }
}

pub async fn post(client: &Client, path: &str, object: &Value) {
    send(client, "POST", path, "application/json", object).await;
}

pub async fn merge(client: &Client, path: &str, change: &Value) {
    send(client, "PATCH", path, "application/merge-patch+json", change).await;
}

/// A JSON patch.
pub async fn json_patch(client: &Client, path: &str, operations: &Value) {
    send(client, "PATCH", path, "application/json-patch+json", operations).await;
}

async fn send(client: &Client, method: &str, path: &str, content_type: &str, body: &Value) {
    let sent = try_send(client, method, path, content_type, body).await;
    sent.unwrap_or_else(|error| panic!("the test cannot {method} {path}: {error}"));
}

/// One request, whose answer may be a refusal.
pub async fn try_send(
    client: &Client,
    method: &str,
    path: &str,
    content_type: &str,
    body: &Value,
) -> kube::Result<Value> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .body(body.to_string().into_bytes())
        .expect("a request");
    client.request(request).await
}

/// Makes namespaces.
pub async fn namespaces(client: &Client, names: &[&str]) {
    for name in names {
        post(client, "/api/v1/namespaces", &json!({"metadata": {"name": name}})).await;
    }
}

/// The path of an object of a namespace, or of all of a kind.
pub fn path(namespace: &str, version: &str, plural: &str, name: &str) -> String {
    let root = if version == "v1" {
        "/api/v1".to_owned()
    } else {
        format!("/apis/{version}")
    };
    let path = format!("{root}/namespaces/{namespace}/{plural}");
    if name.is_empty() {
        path
    } else {
        format!("{path}/{name}")
    }
}
