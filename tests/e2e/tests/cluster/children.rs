//! Creation: what one resource becomes.

use e2e::{Result, error::ensure, harness::Stage, lab::ENGINE_IMAGE};

use crate::survival::Watched;

pub fn a_resource_becomes_a_database_behind_an_address(stage: &Stage) -> Result<()> {
    let began = std::time::Instant::now();
    let mut watched = Watched::create(stage, "orders", "")?;
    stage.note(&format!(
        "Ready and written to after {:.1} s",
        began.elapsed().as_secs_f32()
    ));
    let instance = &watched.instance;
    for (kind, name) in [
        ("deployment", "orders"),
        ("service", "orders"),
        ("pvc", "orders-data"),
        ("secret", "orders-sa"),
    ] {
        let child = instance.child(kind, name)?;
        let labels = &child["metadata"]["labels"];
        ensure(labels["app.kubernetes.io/managed-by"] == "sqledge-operator", || {
            format!("{kind} {name} does not say who manages it")
        })?;
        let owned = child["metadata"]["ownerReferences"]
            .as_array()
            .is_some_and(|owners| !owners.is_empty());
        let data = matches!(kind, "pvc" | "secret");
        ensure(owned != data, || {
            format!(
                "{kind} {name} must {}go with the resource",
                if data { "not " } else { "" }
            )
        })?;
    }
    ensure(instance.address()?.starts_with("10.240.0.2"), || {
        "the address is not one of the balancer's".to_owned()
    })?;
    ensure(!instance.status("engineVersion")?.is_empty(), || {
        "the status has no engineVersion".to_owned()
    })?;
    let row = stage.lab.kubectl(&[
        "get",
        "sqledge",
        "orders",
        "--namespace",
        &stage.namespace,
        "--no-headers",
    ])?;
    let node = instance.node()?;
    for word in ["True", "LoginSucceeded", &node, &instance.address()?] {
        ensure(row.contains(word), || {
            format!("`kubectl get sqledge` does not show {word}: {row}")
        })?;
    }
    let manifest = instance.manifest(ENGINE_IMAGE, "");
    // exit code 1 is a difference
    stage
        .lab
        .bed()
        .kubectl_with_input(&["diff", "--filename=-"], &manifest)?;
    watched.check()
}
