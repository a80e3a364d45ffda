//! Installing the operator in the two ways a user has, and looking at its pods.

use crate::{
    error::{Error, Result, ensure},
    lab::{Lab, REVOKING},
    wait::{Seen, until},
};

/// Where it is installed.
pub const NAMESPACE: &str = "sqledge-system";
/// The user name of its service account.
pub const USER: &str = "system:serviceaccount:sqledge-system:sqledge-operator";
const SELECTOR: &str = "app.kubernetes.io/name=sqledge-operator";
/// How every test installs it; the product itself does not know the test's driver.
pub const VALUES: [&str; 4] = [
    "--set=image.tag=dev",
    "--set=driverClasses.revoking\\.storage\\.test=Revoke",
    "--set=log.format=text",
    "--set=log.filter=info\\,sqledge_operator=debug\\,kube_client=off",
];

/// `helm upgrade --install` of the chart, and waits until both replicas run.
pub fn install_with_helm(lab: &Lab, more: &[&str]) -> Result<String> {
    let words = [
        "upgrade",
        "--install",
        "sqledge-operator",
        "deploy/helm/sqledge-operator",
        "--namespace",
        NAMESPACE,
        "--create-namespace",
    ];
    let said = lab.tool("helm", &[&words[..], &VALUES[..], more].concat())?;
    await_rollout(lab)?;
    Ok(said)
}

/// `helm uninstall`.
pub fn uninstall_with_helm(lab: &Lab) -> Result<String> {
    lab.tool(
        "helm",
        &["uninstall", "sqledge-operator", "--namespace", NAMESPACE, "--wait"],
    )
}

/// Applies deploy/install.yaml with the test driver's class in the operator's settings.
pub fn install_plain(lab: &Lab) -> Result<()> {
    let shipped = lab.programs().read("deploy/install.yaml")?;
    let declared = shipped.replacen(
        "driverClasses: {}",
        &format!("driverClasses: {{{REVOKING}: Revoke}}"),
        1,
    );
    ensure(declared != shipped, || {
        "deploy/install.yaml no longer has the line `driverClasses: {}`".to_owned()
    })?;
    lab.bed().apply(&declared)?;
    await_rollout(lab)
}

/// Whether an instance can say how its guard renews a Lease; an older operator's resource has no such field.
pub fn knows_leases(lab: &Lab) -> Result<bool> {
    let path = "{.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.failover.properties.renewSeconds}";
    let words = [
        "get",
        "crd",
        "sqledgeinstances.sqledge.io",
        &format!("--output=jsonpath={path}"),
    ];
    Ok(!lab.kubectl(&words)?.trim().is_empty())
}

/// Waits until the Deployment is as it should be.
pub fn await_rollout(lab: &Lab) -> Result<()> {
    lab.kubectl(&[
        "rollout",
        "status",
        "deployment/sqledge-operator",
        "--namespace",
        NAMESPACE,
        "--timeout=120s",
    ])?;
    Ok(())
}

/// Names and nodes of its pods that are not being deleted.
pub fn pods(lab: &Lab) -> Result<Vec<(String, String)>> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let pods = lab.list("pods", NAMESPACE, SELECTOR)?;
    let alive = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(alive
        .map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"])))
        .collect())
}

/// Ends all replicas at once, without grace, as a crash would.
pub fn kill_all(lab: &Lab) -> Result<()> {
    lab.kubectl(&[
        "delete",
        "pods",
        "--namespace",
        NAMESPACE,
        "--selector",
        SELECTOR,
        "--grace-period=0",
        "--force",
    ])?;
    Ok(())
}

/// The pod that leads, by its Lease.
pub fn leader(lab: &Lab) -> Result<String> {
    until(30, "a leading replica of the operator", || {
        let lease = lab.get("lease", NAMESPACE, "sqledge-operator")?;
        let holder = lease
            .as_ref()
            .and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(str::to_owned));
        Ok(match holder.filter(|holder| !holder.is_empty()) {
            Some(holder) => Seen::There(holder),
            None => Seen::NotYet("no holder of the Lease".to_owned()),
        })
    })
}

/// The image that the Deployment runs.
pub fn image(lab: &Lab) -> Result<String> {
    let found = lab
        .get("deployment", NAMESPACE, "sqledge-operator")?
        .ok_or_else(|| Error::Broken("the operator is not installed".to_owned()))?;
    Ok(found["spec"]["template"]["spec"]["containers"][0]["image"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}
