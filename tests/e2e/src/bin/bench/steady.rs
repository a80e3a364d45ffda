//! What a database costs while nothing happens: requests, writes to etcd, and the guard's processor time and memory, by how it renews.

use std::{collections::BTreeSet, fs, thread, time::Duration};

use e2e::{
    Conditions, Error, Instance, Lab, Result,
    engines::{self, Program, Role},
    error::ensure,
    instance::FAST,
    operator,
};
use jiff::{Timestamp, Unit};
use serde_json::{Value, json};
use testbed::AuditEvent;

use crate::{report::Report, say};

/// Databases of each kind.
const COUNT: u16 = 3;
/// Probes, Leases and first reports of new pods settle.
const SETTLED: Duration = Duration::from_secs(20);
/// The kernel's unit of processor time, the same on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// By what stands in the result.
const KINDS: [(&str, &str); 4] = [
    ("no guard", "failover:\n  guard: Disabled"),
    ("lease: Never", "failover:\n  lease: Never"),
    ("lease: Always, 2/10/15 s", "failover:\n  lease: Always"),
    ("lease: Always, 1/5/8 s", FAST),
];

/// Measures each kind for so long.
pub fn measure(lab: &Lab, time: Duration, report: &mut Report) -> Result<()> {
    for (number, (kind, spec)) in KINDS.into_iter().enumerate() {
        let conditions = Conditions::now(&lab.programs().checkout);
        let namespace = format!("ours-steady-{number}");
        lab.kubectl(&["create", "namespace", &namespace])?;
        let names: Vec<String> = (1..=COUNT).map(|number| format!("orders-{number}")).collect();
        let instances: Vec<Instance> = names
            .iter()
            .map(|name| Instance::named(lab, &namespace, name))
            .collect();
        for instance in &instances {
            instance.apply(spec)?;
        }
        for instance in &instances {
            instance.await_ready(120)?;
        }
        thread::sleep(SETTLED);
        let guards = guards(lab, &instances)?;
        let (log, began, before) = (
            lab.bed().audit_log_length()?,
            Timestamp::now(),
            processor_time(&guards)?,
        );
        thread::sleep(time);
        let (ended, after) = (Timestamp::now(), processor_time(&guards)?);
        let seconds = (ended - began).total(Unit::Second).unwrap_or_default();
        let each = |sum: f64| rounded(sum / f64::from(COUNT) / seconds);
        let log = lab.bed().audit_log_since(log)?;
        let mut found = counted(&log, began, ended, &namespace, each);
        if !guards.is_empty() {
            found["guard_processor_seconds"] = each(after - before).into();
            found["guard_memory_kib"] = memory(&guards)?;
        }
        say(&format!("  {kind}: {found}"));
        report.steady.insert(
            kind.to_owned(),
            json!({"conditions": conditions, "instances": COUNT, "seconds": seconds.round(), "per_instance_and_second": found}),
        );
        for instance in instances {
            instance.destroy()?;
        }
        lab.kubectl(&["delete", "namespace", &namespace, "--timeout=180s"])?;
    }
    Ok(())
}

/// The guards of these databases; none where there is none.
fn guards(lab: &Lab, instances: &[Instance]) -> Result<Vec<Program>> {
    let pods = instances
        .iter()
        .map(|instance| {
            Ok(instance.pod()?["metadata"]["uid"]
                .as_str()
                .unwrap_or_default()
                .to_owned())
        })
        .collect::<Result<BTreeSet<_>>>()?;
    let all = engines::running(lab.bed().layout().name()).into_iter();
    let found: Vec<_> = all
        .filter(|program| program.role == Role::Guard && pods.contains(&program.pod))
        .collect();
    ensure(found.is_empty() || found.len() == instances.len(), || {
        format!("{} databases have {} guards", instances.len(), found.len())
    })?;
    Ok(found)
}

/// User's and system's together, in seconds.
fn processor_time(programs: &[Program]) -> Result<f64> {
    let mut sum = 0.0;
    for program in programs {
        let file = format!("/proc/{}/stat", program.process.pid);
        let text = fs::read_to_string(&file).map_err(Error::file("read", &file))?;
        // the name in parentheses may contain anything; utime and stime are the 12th and 13th after it
        let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = after_name.split_whitespace().skip(11).take(2);
        sum += ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND;
    }
    Ok(sum)
}

/// Resident memory of each, and the part of it that is not the mapped program.
fn memory(programs: &[Program]) -> Result<Value> {
    let of_each = programs.iter().map(|program| {
        let file = format!("/proc/{}/status", program.process.pid);
        let text = fs::read_to_string(&file).map_err(Error::file("read", &file))?;
        let field = |name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
                .unwrap_or_default()
        };
        Ok(json!({"resident": field("VmRSS:"), "anonymous": field("RssAnon:")}))
    });
    of_each.collect::<Result<Vec<_>>>().map(Value::from)
}

/// Requests about a namespace, by who asked, and how many of all of them wrote something.
fn counted(log: &[AuditEvent], from: Timestamp, to: Timestamp, namespace: &str, each: impl Fn(f64) -> f64) -> Value {
    let mut seen = BTreeSet::new();
    let (mut guards, mut operators, mut others, mut written) = (0_u32, 0_u32, 0_u32, 0_u32);
    let account = format!("system:serviceaccount:{namespace}:");
    for event in log {
        let at = event.request_received_timestamp.parse::<Timestamp>().ok();
        let object = event.object_ref.clone().unwrap_or_default();
        if !at.is_some_and(|at| at >= from && at <= to)
            || object.namespace != namespace
            || !seen.insert(&event.audit_id)
        {
            continue;
        }
        match event.user.username.as_str() {
            user if user.starts_with(&account) => guards += 1,
            user if user == operator::USER => operators += 1,
            _ => others += 1,
        }
        written += u32::from(matches!(event.verb.as_str(), "create" | "update" | "patch" | "delete"));
    }
    json!({
        "requests_of_the_guard": each(guards.into()), "requests_of_the_operator": each(operators.into()),
        "requests_of_all_others": each(others.into()), "writes": each(written.into()),
    })
}

fn rounded(number: f64) -> f64 {
    (number * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_who_asked_and_other_namespaces_do_not_count() {
        let event = |id: &str, user: &str, verb: &str, namespace: &str| -> AuditEvent {
            let time = "2026-01-01T00:00:10.000000Z";
            serde_json::from_value(json!({
                "auditID": id, "stage": "ResponseComplete", "requestURI": "/x", "verb": verb, "user": {"username": user},
                "objectRef": {"resource": "leases", "namespace": namespace, "name": "x"},
                "requestReceivedTimestamp": time, "stageTimestamp": time,
            }))
            .unwrap()
        };
        let guard = "system:serviceaccount:a:orders-guard";
        let log = [
            event("1", guard, "update", "a"),
            event("2", guard, "get", "a"),
            event("3", operator::USER, "patch", "a"),
            event("4", "system:serviceaccount:b:orders-guard", "update", "b"),
            event("5", "system:node:n1", "get", "a"),
        ];
        let instant = |second: &str| format!("2026-01-01T00:00:{second}Z").parse::<Timestamp>().unwrap();
        assert_eq!(
            counted(&log, instant("05"), instant("20"), "a", |sum| sum),
            json!({
                "requests_of_the_guard": 2.0, "requests_of_the_operator": 1.0, "requests_of_all_others": 1.0, "writes": 2.0,
            })
        );
    }
}
