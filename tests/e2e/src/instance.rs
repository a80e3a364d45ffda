//! One `SqlEdgeInstance` on the cluster, seen as a user sees it.

use serde_json::Value;

use crate::{
    error::{Error, Result, ensure},
    lab::{ENGINE_IMAGE, Lab},
    wait::{Seen, until},
};

/// What an instance says in its spec that is to be fast.
pub const FAST: &str =
    "failover:\n  lease: Always\n  renewSeconds: 1\n  stopAfterSeconds: 5\n  takeoverAfterSeconds: 8";

/// A resource by its name; it may not exist (yet, or any more).
#[derive(Clone)]
pub struct Instance<'a> {
    lab: &'a Lab,
    namespace: String,
    name: String,
}

/// A condition of the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// The word.
    pub reason: String,
    /// The sentence.
    pub message: String,
}

impl<'a> Instance<'a> {
    /// The resource of that name.
    pub fn named(lab: &'a Lab, namespace: &str, name: &str) -> Self {
        Self {
            lab,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Creates it, or changes it: `more` are further lines of the spec, in YAML without indentation.
    pub fn apply(&self, more: &str) -> Result<()> {
        self.apply_with_image(ENGINE_IMAGE, more)
    }

    /// The same with another image.
    pub fn apply_with_image(&self, image: &str, more: &str) -> Result<()> {
        let manifest = self.manifest(image, more);
        self.lab
            .bed()
            .kubectl_with_input(&["apply", "--filename=-"], &manifest)?;
        Ok(())
    }

    /// What `apply` applies.
    pub fn manifest(&self, image: &str, more: &str) -> String {
        let (namespace, name) = (&self.namespace, &self.name);
        let more: Vec<String> = more.lines().map(|line| format!("  {line}\n")).collect();
        let more = more.concat();
        format!(
            "apiVersion: sqledge.io/v1alpha1\nkind: SqlEdgeInstance\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
             spec:\n  acceptEula: true\n  image: {image}\n{more}"
        )
    }

    /// Creates it and waits until it serves.
    pub fn create(&self, more: &str) -> Result<()> {
        self.apply(more)?;
        self.await_ready(90)
    }

    /// Deletes it and returns at once.
    pub fn delete(&self) -> Result<()> {
        self.lab.kubectl(&[
            "delete",
            "sqledge",
            &self.name,
            "--namespace",
            &self.namespace,
            "--wait=false",
            "--ignore-not-found",
        ])?;
        Ok(())
    }

    /// Deletes it with its data, and waits until its pods are gone.
    pub fn destroy(&self) -> Result<()> {
        self.delete()?;
        let selector = self.selector();
        until(90, &format!("the pods of {} are gone", self.name), || {
            let pods = self.lab.list("pods", &self.namespace, &selector)?;
            Ok(pods.is_empty())
        })?;
        let claim = format!("pvc/{}-data", self.name);
        let secret = format!("secret/{}-sa", self.name);
        self.lab.kubectl(&[
            "delete",
            &claim,
            &secret,
            "--namespace",
            &self.namespace,
            "--wait=false",
            "--ignore-not-found",
        ])?;
        Ok(())
    }

    /// The cluster it is in.
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn selector(&self) -> String {
        format!(
            "app.kubernetes.io/name=sqledge,app.kubernetes.io/instance={}",
            self.name
        )
    }

    /// The whole object.
    pub fn resource(&self) -> Result<Value> {
        let found = self.lab.get("sqledge", &self.namespace, &self.name)?;
        found.ok_or_else(|| Error::Broken(format!("there is no SqlEdgeInstance {}/{}", self.namespace, self.name)))
    }

    /// A child, by its kind and name.
    pub fn child(&self, kind: &str, name: &str) -> Result<Value> {
        let found = self.lab.get(kind, &self.namespace, name)?;
        found.ok_or_else(|| Error::Broken(format!("there is no {kind} {}/{name}", self.namespace)))
    }

    /// A condition of the status.
    pub fn condition(&self, kind: &str) -> Result<Option<Condition>> {
        Ok(condition(&self.resource()?, kind))
    }

    /// Waits for Ready.
    pub fn await_ready(&self, seconds: u64) -> Result<()> {
        self.await_condition("Ready", seconds, |ready| ready.status == "True")
            .map(drop)
    }

    /// Waits for Ready by a pod other than this.
    pub fn await_ready_without(&self, old_pod: &str, seconds: u64) -> Result<()> {
        until(
            seconds,
            &format!("{} is Ready with another pod than {old_pod}", self.name),
            || {
                let resource = self.resource()?;
                let ready = condition(&resource, "Ready");
                let pod = resource["status"]["podName"].as_str().unwrap_or_default();
                if ready.as_ref().is_some_and(|ready| ready.status == "True") && !pod.is_empty() && pod != old_pod {
                    return Ok(Seen::There(()));
                }
                Ok(Seen::NotYet(format!("pod {pod}, {ready:?}")))
            },
        )
    }

    /// Waits until a condition is as wanted, and returns it.
    pub fn await_condition(&self, kind: &str, seconds: u64, wanted: impl Fn(&Condition) -> bool) -> Result<Condition> {
        until(
            seconds,
            &format!("condition {kind} of {} is as expected", self.name),
            || {
                let found = self.condition(kind)?;
                match found {
                    Some(condition) if wanted(&condition) => Ok(Seen::There(condition)),
                    other => Ok(Seen::NotYet(format!("{other:?}"))),
                }
            },
        )
    }

    /// A text of the status; empty if it is not there.
    pub fn status(&self, field: &str) -> Result<String> {
        Ok(match &self.resource()?["status"][field] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        })
    }

    /// The node that the status names.
    pub fn node(&self) -> Result<String> {
        self.known("node")
    }

    /// The pod that the status names.
    pub fn pod_name(&self) -> Result<String> {
        self.known("podName")
    }

    /// Where clients connect.
    pub fn address(&self) -> Result<String> {
        until(30, &format!("an address of {}", self.name), || {
            self.known("address").map(Some)
        })
    }

    /// And at which port.
    pub fn port(&self) -> Result<String> {
        self.known("port")
    }

    fn known(&self, field: &str) -> Result<String> {
        let text = self.status(field)?;
        ensure(!text.is_empty(), || {
            format!("the status of {} has no {field}", self.name)
        })?;
        Ok(text)
    }

    /// The pod that serves.
    pub fn pod(&self) -> Result<Value> {
        self.child("pod", &self.pod_name()?)
    }

    /// All its pods.
    pub fn pods(&self) -> Result<Vec<Value>> {
        self.lab.list("pods", &self.namespace, &self.selector())
    }

    /// The volume that the storage host knows by this name.
    pub fn volume(&self) -> Result<String> {
        self.known("volume")
    }

    /// The generated password, or the user's.
    pub fn password(&self) -> Result<String> {
        let secret = self.known("secret")?;
        // decoded by kubectl, so that it is on no command line
        let template = "--output=go-template={{range $k, $v := .data}}{{$v | base64decode}}{{end}}";
        self.lab
            .kubectl(&["get", "secret", &secret, "--namespace", &self.namespace, template])
    }

    /// Sets an annotation.
    pub fn annotate(&self, key: &str, value: &str) -> Result<()> {
        let pair = format!("{key}={value}");
        self.lab.kubectl(&[
            "annotate",
            "sqledge",
            &self.name,
            "--namespace",
            &self.namespace,
            "--overwrite",
            &pair,
        ])?;
        Ok(())
    }

    /// What engine and guard of a pod have said, each line with its time, read on the node's own disk: no API server and no network is needed.
    pub fn said_on_node(&self, node: &str, pod: &str, uid: &str) -> Result<String> {
        let folder = format!("/var/log/pods/{}_{pod}_{uid}/engine", self.namespace);
        let script = format!("cat {folder}/*.log");
        Ok(self.lab.bed().node(node)?.exec(&["sh", "-c", &script])?)
    }
}

/// A condition in an object's status.
pub fn condition(object: &Value, kind: &str) -> Option<Condition> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = object["status"]["conditions"].as_array()?;
    all.iter()
        .find(|condition| condition["type"] == kind)
        .map(|condition| Condition {
            status: text(&condition["status"]),
            reason: text(&condition["reason"]),
            message: text(&condition["message"]),
        })
}
