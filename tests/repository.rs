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

/// Where reasons of conditions are made, and how.
const REASONS: [(&str, &[&str]); 7] = [
    ("src/failover.rs", &["waiting(", "acting(", "evict("]),
    ("src/failover/admission.rs", &["waiting(", "acting("]),
    ("src/failover/placement.rs", &["waiting(", "acting("]),
    ("src/failover/release.rs", &["waiting(", "acting("]),
    ("src/health.rs", &["Finding::new("]),
    ("src/plan.rs", &[".problem(", ".passing("]),
    ("src/status/volume.rs", &["said("]),
];

/// The first word in quotes after each call.
fn reasons() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (file, calls) in REASONS {
        let text = read(file);
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for call in calls {
            for after in text.split(call).skip(1) {
                let word = after.split('"').nth(1).unwrap_or_default();
                if word.len() > 3 && word.starts_with(char::is_uppercase) && word.chars().all(char::is_alphabetic) {
                    found.insert(word.to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn every_reason_is_explained_in_docs_operations() {
    let reasons = reasons();
    assert!(reasons.len() > 30, "{reasons:?}");
    let operations = read("docs/operations.md");
    let missing: Vec<_> = reasons
        .iter()
        .filter(|reason| !operations.contains(&format!("`{reason}`")))
        .collect();
    assert!(missing.is_empty(), "docs/operations.md does not explain {missing:?}");
}
