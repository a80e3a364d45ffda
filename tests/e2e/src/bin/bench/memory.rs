//! Memory of the operator's replicas, with no instance, with one, and with many that wait for a node.

use std::{thread, time::Duration};

use e2e::{Conditions, Error, Instance, Lab, Result, error::ensure, lab::ENGINE_IMAGE, operator, until, wait::Seen};
use serde_json::{Map, Value, json};

use crate::{
    report::Report,
    requests, say,
    subject::{Subject, Variant},
};

/// Where the many are.
const NAMESPACE: &str = "ours-many";
/// What follows from a change has been done by then; memory that is held shows, and memory for the change itself is given back.
const SETTLED: Duration = Duration::from_secs(20);

/// Measures with 0, 1 and `many` instances.
pub fn measure(lab: &Lab, many: usize, report: &mut Report) -> Result<()> {
    let conditions = Conditions::now(&lab.programs().checkout);
    let mut put = |key: &str, value: Value| {
        say(&format!("  {key}: {value}"));
        report
            .memory
            .insert(key.to_owned(), json!({"conditions": conditions, "replicas": value}));
    };
    put("no instance", replicas(lab)?);
    let one = Subject::create_serving(lab, Variant::Operator, "ours-one")?;
    thread::sleep(SETTLED);
    put("one instance", replicas(lab)?);
    one.destroy()?;

    lab.kubectl(&["create", "namespace", NAMESPACE])?;
    // a node that none of them fits: a hundred volumes and engines would measure the two processors, not the operator. The address
    // pool has 51 addresses, so no balancer either.
    let spec = "deletionPolicy: Delete\nnodeSelector: {sqledge.io/bench: no-such-node}\nservice: {type: ClusterIP}\nstorage: {size: 32Mi}";
    let manifests: Vec<String> = (1..=many)
        .map(|number| Instance::named(lab, NAMESPACE, &format!("orders-{number}")).manifest(ENGINE_IMAGE, spec))
        .collect();
    let list = manifests.join("---\n");
    lab.bed().kubectl_with_input(&["apply", "--filename=-"], &list)?;
    until(300, &format!("{many} instances have all their objects"), || {
        let found = ["pods", "services", "secrets", "pvc"].map(|kind| {
            lab.list(kind, NAMESPACE, "app.kubernetes.io/name=sqledge")
                .map(|it| it.len())
        });
        let found = found.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(if found.iter().all(|number| *number == many) {
            Seen::There(())
        } else {
            Seen::NotYet(format!("{found:?} pods, services, secrets, claims"))
        })
    })?;
    thread::sleep(SETTLED);
    put(&format!("{many} instances"), replicas(lab)?);
    let states = states(lab)?;
    say(&format!("  {many} instances: {states}"));
    report.memory.insert(format!("{many} instances, states"), states);
    let idle = requests::idle_for(lab, Duration::from_secs(120))?;
    say(&format!("  idle, {many} instances: {idle}"));
    report.requests.insert(
        format!("idle, {many} instances"),
        json!({"conditions": conditions, "counted": idle}),
    );
    lab.kubectl(&["delete", "sqledge", "--all", "--namespace", NAMESPACE, "--timeout=200s"])?;
    lab.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=200s"])?;
    Ok(())
}

/// How many instances say what, and in what state their pods are.
fn states(lab: &Lab) -> Result<Value> {
    let mut counts = Map::new();
    let mut add = |words: String| {
        let number = counts.get(&words).and_then(Value::as_u64).unwrap_or(0);
        counts.insert(words, json!(number + 1));
    };
    for instance in lab.list("sqledge", NAMESPACE, "")? {
        let ready = e2e::instance::condition(&instance, "Ready");
        add(ready.map_or("no Ready condition".to_owned(), |ready| {
            format!("Ready={} {}", ready.status, ready.reason)
        }));
    }
    for pod in lab.list("pods", NAMESPACE, "")? {
        let gated = pod["spec"]["schedulingGates"]
            .as_array()
            .is_some_and(|gates| !gates.is_empty());
        add(format!(
            "pod {}{}",
            pod["status"]["phase"].as_str().unwrap_or_default(),
            if gated { ", gated" } else { "" }
        ));
    }
    Ok(Value::Object(counts))
}

/// What the kernel says of each replica's process.
fn replicas(lab: &Lab) -> Result<Value> {
    let leader = operator::leader(lab)?;
    let mut found = Vec::new();
    for (name, node) in operator::pods(lab)? {
        let pod = lab
            .get("pod", operator::NAMESPACE, &name)?
            .ok_or_else(|| Error::Broken(format!("pod {name} has gone")))?;
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let script = format!(
            "for p in /proc/[0-9]*; do grep -q 'pod{uid}' $p/cgroup 2>/dev/null && \
             tr '\\0' ' ' <$p/cmdline | grep -q 'sqledge-operator' && cat $p/status; done"
        );
        let status = lab.bed().node(&node)?.exec(&["sh", "-c", &script])?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find(|line| line.starts_with(name));
            let kib = line
                .and_then(|line| line.split_whitespace().nth(1))
                .and_then(|number| number.parse().ok());
            kib.ok_or_else(|| Error::Broken(format!("the process of pod {uid} shows no {name}")))
        };
        let processes = status.lines().filter(|line| line.starts_with("VmRSS:")).count();
        ensure(processes == 1, || {
            format!("the operator's container is one process, but {processes} were found")
        })?;
        let (resident, own, peak) = (field("VmRSS:")?, field("RssAnon:")?, field("VmHWM:")?);
        found.push(
            json!({"leads": leader == name, "resident_kib": resident, "of_it_anonymous_kib": own, "peak_kib": peak}),
        );
    }
    Ok(json!(found))
}
