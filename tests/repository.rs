//! What files of the repository say about each other, and nothing else compares.

use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

#[test]
fn the_image_is_compiled_with_every_member_of_the_workspace() {
    let manifest = read("Cargo.toml");
    let members = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = "))
        .expect("members");
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.len() > 3, "{members:?}");
    let ignored = read(".dockerignore");
    for member in members {
        for needed in [format!("!{member}/Cargo.toml"), format!("!{member}/src")] {
            assert!(
                ignored.lines().any(|line| line == needed),
                ".dockerignore leaves out {needed}"
            );
        }
    }
}

/// Where the reasons of conditions are made.
const REASONS: [&str; 10] = [
    "src/failover.rs",
    "src/failover/admission.rs",
    "src/failover/placement.rs",
    "src/failover/release.rs",
    "src/health.rs",
    "src/plan.rs",
    "src/plan/guard.rs",
    "src/status.rs",
    "src/status/conditions.rs",
    "src/status/volume.rs",
];

/// What else stands there alone in quotes: types, values and the good news of conditions, kinds, and words of others.
const OTHERS: [&str; 33] = [
    "AddressAssigned",
    "Assigned",
    "Bound",
    "ControllerResizeError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "DatabaseReachable",
    "ErrImageNeverPull",
    "ErrImagePull",
    "FailoverInProgress",
    "False",
    "Guarded",
    "ImagePullBackOff",
    "Infeasible",
    "InvalidImageName",
    "LoadBalancer",
    "LoginSucceeded",
    "NoFailover",
    "NodeResizeError",
    "None",
    "OOMKilled",
    "PersistentVolumeClaim",
    "Progressing",
    "Ready",
    "Reconciling",
    "RegistryUnavailable",
    "RunContainerError",
    "Secret",
    "Settled",
    "Stalled",
    "True",
    "Unknown",
    "VolumeBound",
];

/// Words alone in quotes that begin with a capital letter.
fn reasons() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in REASONS {
        let text = read(file);
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        found.extend(
            text.split('"')
                .filter(|word| {
                    word.len() > 3
                        && word.starts_with(char::is_uppercase)
                        && word.chars().all(|c| c.is_ascii_alphabetic())
                })
                .map(str::to_owned),
        );
    }
    found
        .into_iter()
        .filter(|word| !OTHERS.contains(&word.as_str()))
        .collect()
}

#[test]
fn every_reason_is_explained_in_docs_operations() {
    let reasons = reasons();
    assert!(reasons.len() > 60, "{reasons:?}");
    let operations = read("docs/operations.md");
    let missing: Vec<_> = reasons
        .iter()
        .filter(|reason| !operations.contains(&format!("`{reason}`")))
        .collect();
    assert!(missing.is_empty(), "docs/operations.md does not explain {missing:?}");
}
