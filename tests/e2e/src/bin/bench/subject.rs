//! A database that is measured: one of ours, or one made of the vendor's four objects. Both are looked at in the same way.

use e2e::{
    Error, Instance, Lab, Result,
    engines::{self, Program, Role},
    error::ensure,
    instance::{FAST, condition},
    lab::ENGINE_IMAGE,
    until,
    wait::Seen,
};
use serde_json::Value;
use testbed::process::Signal;

/// What makes the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// A `SqlEdgeInstance`, as it is without a word about failover.
    Operator,
    /// The same with a Lease that is renewed every second.
    Fast,
    /// tests/e2e/vendor/instance.yaml.
    Vendor,
    /// The same with tolerations of 0 s; tests/e2e/vendor/force-delete.sh runs beside it.
    VendorTuned,
}

/// Where the tuned manifests differ from the guide's.
const TUNED: &str = "      tolerations:
        - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 0}
        - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 0}
";

impl Variant {
    /// As it stands in outage.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Fast => "operator, fast",
            Self::Vendor => "vendor manifests",
            Self::VendorTuned => "vendor manifests, tuned",
        }
    }

    /// Whether the operator makes it.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Operator | Self::Fast)
    }
}

/// A database in a namespace of its own.
pub struct Subject<'a> {
    pub lab: &'a Lab,
    pub namespace: String,
    pub variant: Variant,
    instance: Instance<'a>,
}

/// The one pod that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    pub pod: String,
    pub uid: String,
    pub node: String,
    pub restarts: i64,
}

/// Name of ours.
const NAME: &str = "orders";

impl<'a> Subject<'a> {
    /// Makes it and returns at once.
    pub fn create(lab: &'a Lab, variant: Variant, namespace: &str) -> Result<Self> {
        let subject = Self {
            lab,
            namespace: namespace.to_owned(),
            variant,
            instance: Instance::named(lab, namespace, NAME),
        };
        lab.kubectl(&["create", "namespace", namespace])?;
        match variant {
            Variant::Operator => subject.instance.apply("")?,
            Variant::Fast => subject.instance.apply(FAST)?,
            Variant::Vendor => subject.apply_vendors("")?,
            Variant::VendorTuned => subject.apply_vendors(TUNED)?,
        }
        Ok(subject)
    }

    fn apply_vendors(&self, more: &str) -> Result<()> {
        let template = self.lab.programs().read("tests/e2e/vendor/instance.yaml")?;
        // what the script goes by; the pods of the others are none of its business
        let label = match self.variant {
            Variant::VendorTuned => "        app: sqledge\n        tuned: \"yes\"\n    spec:",
            Variant::Operator | Variant::Fast | Variant::Vendor => "        app: sqledge\n    spec:",
        };
        let filled = [
            ("@IMAGE@", ENGINE_IMAGE),
            ("@STORAGE_CLASS@", "revoking"),
            ("@PASSWORD@", &password()?),
            ("      containers:\n", &format!("{more}      containers:\n")),
            ("        app: sqledge\n    spec:", label),
        ];
        let manifest = filled
            .iter()
            .fold(template, |text, (gap, value)| text.replace(gap, value));
        let place = format!("--namespace={}", self.namespace);
        self.lab
            .bed()
            .kubectl_with_input(&["apply", &place, "--filename=-"], &manifest)?;
        Ok(())
    }

    /// Makes it and waits until it serves.
    pub fn create_serving(lab: &'a Lab, variant: Variant, namespace: &str) -> Result<Self> {
        let subject = Self::create(lab, variant, namespace)?;
        subject.await_serving(120, None)?;
        Ok(subject)
    }

    /// Deletes it with its data, and waits until nothing of it is left.
    pub fn destroy(self) -> Result<()> {
        if self.variant.is_ours() {
            self.instance.destroy()?;
        }
        self.lab
            .kubectl(&["delete", "namespace", &self.namespace, "--wait=true", "--timeout=180s"])?;
        Ok(())
    }

    /// ADDRESS:PORT.
    pub fn address(&self) -> Result<String> {
        let service = if self.variant.is_ours() {
            NAME
        } else {
            "sqledge-deployment"
        };
        until(60, &format!("an address of the database in {}", self.namespace), || {
            let found = self.lab.get("service", &self.namespace, service)?;
            let ip = found
                .as_ref()
                .and_then(|service| service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str());
            Ok(ip.map(|ip| format!("{ip}:1433")))
        })
    }

    /// Of `sa`.
    pub fn password(&self) -> Result<String> {
        if self.variant.is_ours() {
            return self.instance.password();
        }
        let place = format!("--namespace={}", self.namespace);
        let template = "--output=go-template={{.data.SA_PASSWORD | base64decode}}";
        self.lab.kubectl(&["get", "secret", "mssql", &place, template])
    }

    /// The operator's record of the last failover; null for the vendor's.
    pub fn record(&self) -> Result<Value> {
        if self.variant.is_ours() {
            return Ok(self.instance.resource()?["status"]["lastFailover"].clone());
        }
        Ok(Value::Null)
    }

    /// All pods of it.
    pub fn pods(&self) -> Result<Vec<Value>> {
        let selector = if self.variant.is_ours() {
            "app.kubernetes.io/component=database"
        } else {
            "app=sqledge"
        };
        self.lab.list("pods", &self.namespace, selector)
    }

    /// The serving pod: the only one, Ready, and with an operator one that the operator could log in to.
    pub fn serving(&self) -> Result<Seen<Serving>> {
        let pods = self.pods()?;
        let [pod] = pods.as_slice() else {
            return Ok(Seen::NotYet(format!("{} pods", pods.len())));
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let found = Serving {
            pod: text(&pod["metadata"]["name"]),
            uid: text(&pod["metadata"]["uid"]),
            node: text(&pod["spec"]["nodeName"]),
            restarts: pod["status"]["containerStatuses"][0]["restartCount"]
                .as_i64()
                .unwrap_or(0),
        };
        let ready = condition(pod, "Ready").is_some_and(|ready| ready.status == "True");
        if !ready || !pod["metadata"]["deletionTimestamp"].is_null() {
            return Ok(Seen::NotYet(format!("{found:?} is not ready, or leaves")));
        }
        if self.variant.is_ours() {
            let resource = self.instance.resource()?;
            let ready = condition(&resource, "Ready");
            if ready.as_ref().is_none_or(|ready| ready.status != "True") || resource["status"]["podName"] != *found.pod
            {
                return Ok(Seen::NotYet(format!(
                    "the status does not say that {} serves: {ready:?}",
                    found.pod
                )));
            }
        }
        Ok(Seen::There(found))
    }

    /// Waits for a serving pod other than `before`: another one, or the same restarted.
    pub fn await_serving(&self, seconds: u64, before: Option<&Serving>) -> Result<Serving> {
        until(seconds, &format!("the database in {} serves", self.namespace), || {
            Ok(match self.serving()? {
                Seen::There(now) if before == Some(&now) => Seen::NotYet("it serves as before the fault".to_owned()),
                other => other,
            })
        })
    }

    /// Ends all processes of the engine at once.
    pub fn kill_engine(&self, serving: &Serving) -> Result<()> {
        for program in self.engine(serving)? {
            program.process.signal(Signal::KILL);
        }
        Ok(())
    }

    /// Stops the process of the engine that serves: the kernel still accepts its connections.
    pub fn hang_engine(&self, serving: &Serving) -> Result<()> {
        if let Some(program) = self.engine(serving)?.last() {
            program.process.signal(Signal::STOP);
        }
        Ok(())
    }

    /// Its processes, parents before their children.
    fn engine(&self, serving: &Serving) -> Result<Vec<Program>> {
        let all = engines::running(self.lab.bed().layout().name()).into_iter();
        let found: Vec<_> = all
            .filter(|it| it.pod == serving.uid && it.role == Role::Engine)
            .collect();
        ensure(!found.is_empty(), || format!("pod {} runs no engine", serving.pod))?;
        Ok(found)
    }

    /// The volume, as the storage host calls it.
    pub fn volume(&self) -> Result<String> {
        let claims = self.lab.list("pvc", &self.namespace, "")?;
        let volume = claims.first().and_then(|claim| claim["spec"]["volumeName"].as_str());
        let volume = volume.ok_or_else(|| Error::Broken(format!("the claim in {} has no volume", self.namespace)))?;
        Ok(volume.to_owned())
    }

    /// Deletes the pod as a user would, and returns at once.
    pub fn delete_pod(&self, serving: &Serving) -> Result<()> {
        self.delete(serving, &[])
    }

    /// The same as an impatient user would.
    pub fn force_delete_pod(&self, serving: &Serving) -> Result<()> {
        self.delete(serving, &["--grace-period=0", "--force"])
    }

    fn delete(&self, serving: &Serving, how: &[&str]) -> Result<()> {
        let words = [
            "delete",
            "pod",
            &serving.pod,
            "--namespace",
            &self.namespace,
            "--wait=false",
        ];
        self.lab.kubectl(&[&words[..], how].concat())?;
        Ok(())
    }
}

/// A password that the engine's rule takes: three of four classes, no quotes.
fn password() -> Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    let random = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    Ok(format!("Aa1-{}", random.trim()))
}
