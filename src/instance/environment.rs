//! The engine's environment: which variables a user may add, and what the engine is told about memory.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};

use super::{Invalid, quantity};
use crate::api::RESERVED_ENV;

/// The engine's own setting for memory; a user who sets it knows better than our 80 %.
const MEMORY_LIMIT: &str = "MSSQL_MEMORY_LIMIT_MB";

/// Less than any engine, or even its stand-in, starts with: such a limit is a number without its unit.
const LEAST_MEMORY_BYTES: i128 = 16 * 1024 * 1024;

/// Checks names, and that no variable belongs to a field. Two entries of one name would make the whole apply fail.
pub(super) fn check(env: &[EnvVar]) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    for (index, variable) in env.iter().enumerate() {
        let name = variable.name.as_str();
        if name.is_empty() || !name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
            return Err(Invalid::new(
                format!("spec.env[{index}].name"),
                "is no name of a variable: use printable characters without '='",
            ));
        }
        if let Some((_, field)) = RESERVED_ENV.iter().find(|(reserved, _)| *reserved == name) {
            return Err(Invalid::new(
                format!("spec.env[{index}].name"),
                format!("must not be {name}: remove the entry and use {field}"),
            ));
        }
        if !seen.insert(name) {
            return Err(Invalid::new(
                format!("spec.env[{index}].name"),
                format!("sets {name} a second time: remove one of the entries"),
            ));
        }
    }
    Ok(())
}

/// An empty value is the same as none, and the API server stores it as none.
pub(super) fn normalised(env: Vec<EnvVar>) -> Vec<EnvVar> {
    env.into_iter()
        .map(|variable| EnvVar {
            value: variable.value.filter(|value| !value.is_empty()),
            ..variable
        })
        .collect()
}

/// 80 % of the container's memory limit, in megabytes, rounded down.
///
/// Engines before SQL Server 2022 CU20 do not see a cgroup v2 limit at all: they take the node's memory for theirs and are
/// killed. 80 % is the engine's own share of a machine; the rest is for its second process, the agent and what the engine
/// allocates outside that setting. There is no floor: with a limit below what the engine needs (2000 MB for SQL Server,
/// about 1 GB for SQL Edge) the engine says so itself, and its message reaches the resource's status.
pub(super) fn memory_limit_mb(
    resources: Option<&ResourceRequirements>,
    env: &[EnvVar],
) -> Result<Option<i64>, Invalid> {
    let limit = resources
        .and_then(|resources| resources.limits.as_ref())
        .and_then(|limits| limits.get("memory"));
    let Some(bytes) = limit
        .and_then(|limit| quantity::parse(&limit.0))
        .map(quantity::Parsed::whole)
    else {
        return Ok(None);
    };
    if bytes < LEAST_MEMORY_BYTES {
        return Err(Invalid::new(
            "spec.resources.limits.memory",
            "is less than any engine starts with: write it with its unit, such as 4Gi",
        ));
    }
    if env.iter().any(|variable| variable.name == MEMORY_LIMIT) {
        return Ok(None);
    }
    let megabytes = bytes * 8 / 10 / (1024 * 1024);
    Ok(Some(i64::try_from(megabytes).expect("a quantity is below 2^63")))
}
