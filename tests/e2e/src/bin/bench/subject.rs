//! A database that is measured: one of ours, or one made of the vendor's four objects. Both are looked at in the same way.

use e2e::{Error, Instance, Lab, Result, instance::condition, lab::ENGINE_IMAGE, until, wait::Seen};
use serde_json::Value;

/// What makes the database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// A `SqlEdgeInstance`.
    Operator,
    /// tests/e2e/vendor/instance.yaml.
    Vendor,
}

impl Variant {
    /// As it stands in the result.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Vendor => "vendor manifests",
        }
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
            Variant::Vendor => {
                let template = lab.programs().read("tests/e2e/vendor/instance.yaml")?;
                let filled = [
                    ("@IMAGE@", ENGINE_IMAGE),
                    ("@STORAGE_CLASS@", "revoking"),
                    ("@PASSWORD@", &password()?),
                ];
                let manifest = filled
                    .iter()
                    .fold(template, |text, (gap, value)| text.replace(gap, value));
                let place = format!("--namespace={namespace}");
                lab.bed()
                    .kubectl_with_input(&["apply", &place, "--filename=-"], &manifest)?;
            }
        }
        Ok(subject)
    }

    /// Makes it and waits until it serves.
    pub fn create_serving(lab: &'a Lab, variant: Variant, namespace: &str) -> Result<Self> {
        let subject = Self::create(lab, variant, namespace)?;
        subject.await_serving(120, None)?;
        Ok(subject)
    }

    /// Deletes it with its data, and waits until nothing of it is left.
    pub fn destroy(self) -> Result<()> {
        if self.variant == Variant::Operator {
            self.instance.destroy()?;
        }
        self.lab
            .kubectl(&["delete", "namespace", &self.namespace, "--wait=true", "--timeout=180s"])?;
        Ok(())
    }

    /// ADDRESS:PORT.
    pub fn address(&self) -> Result<String> {
        let service = match self.variant {
            Variant::Operator => NAME,
            Variant::Vendor => "sqledge-deployment",
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
        match self.variant {
            Variant::Operator => self.instance.password(),
            Variant::Vendor => {
                let place = format!("--namespace={}", self.namespace);
                let template = "--output=go-template={{.data.SA_PASSWORD | base64decode}}";
                self.lab.kubectl(&["get", "secret", "mssql", &place, template])
            }
        }
    }

    /// The operator's record of the last failover; null for the vendor's.
    pub fn record(&self) -> Result<Value> {
        match self.variant {
            Variant::Operator => Ok(self.instance.resource()?["status"]["lastFailover"].clone()),
            Variant::Vendor => Ok(Value::Null),
        }
    }

    /// All pods of it.
    pub fn pods(&self) -> Result<Vec<Value>> {
        let selector = match self.variant {
            Variant::Operator => "app.kubernetes.io/component=database",
            Variant::Vendor => "app=sqledge",
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
        if self.variant == Variant::Operator {
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

    /// Ends all processes of the engine at once, inside its node.
    pub fn kill_engine(&self, serving: &Serving) -> Result<()> {
        // the first of them takes the others along, perhaps before the signal reaches those
        let script = format!(
            "found=; for p in /proc/[0-9]*; do grep -q 'pod{}' $p/cgroup 2>/dev/null && \
             tr '\\0' ' ' <$p/cmdline | grep -q '^/opt/mssql/bin/sqlservr' && found=\"$found ${{p#/proc/}}\"; done; \
             [ -n \"$found\" ] || exit 1; kill -KILL $found 2>/dev/null || true",
            serving.uid
        );
        self.lab.bed().node(&serving.node)?.exec(&["sh", "-c", &script])?;
        Ok(())
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
