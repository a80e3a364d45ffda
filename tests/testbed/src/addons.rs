//! What is installed into the cluster before anybody uses it: rights, the load balancer, the storage driver.

use serde_yaml::{Mapping, Value};

use crate::{
    error::{Error, Result},
    layout::{BALANCER_RANGE, STORAGE_ADDRESS, STORAGE_PORT},
    programs,
};

/// A storage driver of the testbed.
pub struct Driver {
    /// Its CSI name.
    pub name: &'static str,
    /// The storage class that uses it.
    pub class: &'static str,
    /// Whether that class is the default one.
    pub default: bool,
}

/// Both drivers: one that the operator is told about, and one that it has never heard of.
pub const DRIVERS: [Driver; 2] = [
    Driver {
        name: "revoking.storage.test",
        class: "revoking",
        default: true,
    },
    Driver {
        name: "unlisted.storage.test",
        class: "unlisted",
        default: false,
    },
];

/// Rights that kubeadm would set up.
pub const BASE: &str = include_str!("../manifests/base.yaml");

/// The storage drivers' objects.
pub fn storage(nodes: u8) -> String {
    let mut all = include_str!("../manifests/storage.yaml").to_owned();
    for driver in &DRIVERS {
        let one = include_str!("../manifests/storage-driver.yaml")
            .replace("@DRIVER@", driver.name)
            .replace("@CLASS@", driver.class)
            .replace("@DEFAULT@", if driver.default { "true" } else { "false" })
            .replace("@REPLICAS@", &nodes.min(2).to_string())
            .replace("@HOST@", &format!("{STORAGE_ADDRESS}:{STORAGE_PORT}"));
        all = format!("{all}---\n{one}");
    }
    let growing = include_str!("../manifests/storage-growing.yaml").replace("@DRIVER@", DRIVERS[0].name);
    format!("{all}---\n{growing}")
}

/// The addresses the balancer may give away.
pub fn balancer_pool() -> String {
    include_str!("../manifests/balancer-pool.yaml").replace("@RANGE@", BALANCER_RANGE)
}

/// `MetalLB` as its makers ship it, except for what cannot be had here: their images, and webhooks (which only check what
/// people write into its settings, and would add half a minute to every start).
pub fn balancer() -> Result<String> {
    adapt_balancer(&programs::balancer_manifest()?)
}

fn adapt_balancer(manifest: &str) -> Result<String> {
    use serde::Deserialize;
    let mut kept = Vec::new();
    for document in serde_yaml::Deserializer::from_str(manifest) {
        let mut object = Value::deserialize(document).map_err(Error::malformed("MetalLB's manifest"))?;
        let adapted = match object["kind"].as_str() {
            Some("ValidatingWebhookConfiguration") | None => continue,
            Some("CustomResourceDefinition") => {
                // conversion would call the webhook
                object["spec"]
                    .as_mapping_mut()
                    .map(|spec| spec.remove("conversion"))
                    .map(drop)
            }
            Some("Deployment" | "DaemonSet") => adapt_workload(&mut object),
            Some(_) => Some(()),
        };
        adapted.ok_or_else(|| Error::malformed("MetalLB's manifest")("an object lacks the fields it had"))?;
        kept.push(serde_yaml::to_string(&object).map_err(Error::malformed("MetalLB's manifest"))?);
    }
    Ok(kept.join("---\n"))
}

/// Runs our build of the program, and looks at its readiness without a pause of ten seconds first.
fn adapt_workload(object: &mut Value) -> Option<()> {
    let pod = object["spec"]["template"]["spec"].as_mapping_mut()?;
    if let Some(volumes) = pod.get_mut("volumes").and_then(Value::as_sequence_mut) {
        volumes.retain(|volume| volume["name"] != "cert");
    }
    for container in pod.get_mut("containers")?.as_sequence_mut()? {
        let name = container["name"].as_str()?.to_owned();
        let container: &mut Mapping = container.as_mapping_mut()?;
        container.insert("image".into(), "localhost/metallb:dev".into());
        container.insert("command".into(), vec![Value::from(format!("/metallb-{name}"))].into());
        if name == "controller" {
            container
                .get_mut("args")?
                .as_sequence_mut()?
                .push("--webhook-mode=disabled".into());
        }
        if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_sequence_mut) {
            mounts.retain(|mount| mount["name"] != "cert");
        }
        let readiness = container.get_mut("readinessProbe")?.as_mapping_mut()?;
        readiness.insert("initialDelaySeconds".into(), 0.into());
        readiness.insert("periodSeconds".into(), 1.into());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: controller}
spec:
  template:
    spec:
      containers:
      - name: controller
        image: elsewhere/controller:v1
        args: [--port=7472]
        readinessProbe: {initialDelaySeconds: 10, periodSeconds: 10}
        volumeMounts: [{name: cert, mountPath: /certs}]
      volumes: [{name: cert}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
---
apiVersion: v1
kind: Namespace
metadata: {name: metallb-system}
";

    #[test]
    fn the_balancer_runs_our_build_without_webhooks_and_keeps_the_rest() {
        let adapted = adapt_balancer(SHIPPED).unwrap();
        assert!(!adapted.contains("elsewhere") && !adapted.contains("cert") && !adapted.contains("Webhook"));
        assert!(adapted.contains("/metallb-controller") && adapted.contains("--webhook-mode=disabled"));
        assert!(adapted.contains("--port=7472") && adapted.contains("kind: Namespace"));
    }

    #[test]
    fn no_placeholder_is_left_in_a_manifest_and_one_class_is_the_default() {
        let all = format!("{}{}", storage(3), balancer_pool());
        assert!(!all.contains('@'), "{all}");
        assert_eq!(all.matches("is-default-class: \"true\"").count(), 1);
        assert_eq!(all.matches("allowVolumeExpansion: true").count(), 1);
        for driver in &DRIVERS {
            assert!(all.contains(driver.name));
        }
    }
}
