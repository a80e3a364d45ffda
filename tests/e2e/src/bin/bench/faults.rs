//! Faults that a database is expected to survive: its process killed, its pod deleted, its node powered off.

use e2e::{Conditions, Error, Lab, Result, error::ensure, instance::condition, until, wait::Seen};
use jiff::{Timestamp, Unit};
use serde_json::{Value, json};

use crate::{
    account,
    report::{Report, Sample},
    requests, say,
    subject::{Serving, Subject, Variant},
    writer::Writer,
};

/// Every attempt of so many seconds must have been acknowledged before a fault counts as over.
const CALM: f64 = 3.0;
/// How long is waited for a recovery from a fault that leaves the node alive, or of ours from any.
const LIMIT: u64 = 300;

/// What is done to a database.
type Hurt = fn(&Subject, &Serving) -> Result<()>;

/// Process killed and pod deleted, one database after the other. They are made together, because making them takes longest.
pub fn pods(lab: &Lab, variant: Variant, samples: usize, report: &mut Report) -> Result<()> {
    let prefix = if variant.is_ours() { "ours" } else { "vendor" };
    let names = (1..=samples).map(|number| format!("{prefix}-pod-{number}"));
    let subjects = names
        .map(|name| Subject::create(lab, variant, &name))
        .collect::<Result<Vec<_>>>()?;
    for subject in &subjects {
        subject.await_serving(180, None)?;
    }
    let faults: [(&str, Hurt); 2] = [
        ("process killed", |subject, serving| subject.kill_engine(serving)),
        ("pod deleted", |subject, serving| subject.delete_pod(serving)),
    ];
    for (fault, hurt) in faults {
        let conditions = Conditions::now(&lab.programs().checkout);
        let mut found = Vec::new();
        for subject in &subjects {
            let sample = once(subject, |serving| hurt(subject, serving))?;
            tell(fault, variant, &sample);
            found.push(sample);
        }
        report.put(fault, variant.name(), &conditions, found);
    }
    subjects.into_iter().try_for_each(Subject::destroy)
}

/// The pod of one database deleted again and again, in order and by force.
pub fn deletions(lab: &Lab, times: usize, report: &mut Report) -> Result<()> {
    let subject = Subject::create_serving(lab, Variant::Operator, "ours-deletions")?;
    let faults: [(&str, Hurt); 2] = [
        ("pod deleted again and again", |subject, serving| {
            subject.delete_pod(serving)
        }),
        ("pod force-deleted again and again", |subject, serving| {
            subject.force_delete_pod(serving)
        }),
    ];
    for (fault, hurt) in faults {
        let conditions = Conditions::now(&lab.programs().checkout);
        let mut found = Vec::new();
        for _ in 0..times {
            let sample = once(&subject, |serving| hurt(&subject, serving))?;
            tell(fault, Variant::Operator, &sample);
            found.push(sample);
        }
        report.put(fault, Variant::Operator.name(), &conditions, found);
    }
    subject.destroy()
}

/// The kubelet waits longer before each restart of one container: the same process killed again and again.
pub fn back_off(lab: &Lab, times: usize, report: &mut Report) -> Result<()> {
    let subject = Subject::create_serving(lab, Variant::Operator, "ours-back-off")?;
    let conditions = Conditions::now(&lab.programs().checkout);
    let mut found = Vec::new();
    for _ in 0..times {
        let sample = once(&subject, |serving| subject.kill_engine(serving))?;
        tell("process killed again", Variant::Operator, &sample);
        found.push(sample);
    }
    report.put(
        "process killed again and again, one pod",
        Variant::Operator.name(),
        &conditions,
        found,
    );
    subject.destroy()
}

/// The node powered off and on again, as often as wanted; a node that `announces` the database's address, or any.
pub fn nodes(lab: &Lab, announces: bool, samples: usize, report: &mut Report) -> Result<()> {
    let fault = if announces {
        "node powered off that also announced the address"
    } else {
        "node powered off"
    };
    let subject = Subject::create_serving(lab, Variant::Operator, "ours-node")?;
    let conditions = Conditions::now(&lab.programs().checkout);
    let mut found = Vec::new();
    for _ in 0..samples {
        await_everything_ready(lab)?;
        if announces {
            move_to_announcer(&subject)?;
        }
        let serving = subject.await_serving(60, None)?;
        let beside = json!({"node": serving.node, "also_on_it": beside(lab, &serving)?, "address_announced_by": announcer(&subject)?});
        let mut sample = once(&subject, |serving| Ok(lab.bed().node(&serving.node)?.power_off()?))?;
        sample.remark = beside;
        tell(fault, Variant::Operator, &sample);
        found.push(sample);
        lab.restore()?;
    }
    report.put(fault, Variant::Operator.name(), &conditions, found);
    await_everything_ready(lab)?;
    subject.destroy()
}

/// Clients write; something happens; they write again; everything is read back.
fn once(subject: &Subject, hurt: impl FnOnce(&Serving) -> Result<()>) -> Result<Sample> {
    once_repaired(subject, LIMIT, hurt, || Ok(()))
}

/// The same, with another limit on the recovery, and with what is put right once that is over: what was promised is read back meanwhile.
pub fn once_repaired(
    subject: &Subject,
    limit: u64,
    hurt: impl FnOnce(&Serving) -> Result<()>,
    repair: impl FnOnce() -> Result<()>,
) -> Result<Sample> {
    let (before, earlier) = (subject.await_serving(60, None)?, subject.record()?);
    let writer = Writer::start(subject, "50ms")?;
    let (engine, audited) = (writer.engine()?, subject.lab.bed().audit_log_length()?);
    let at = Timestamp::now();
    hurt(&before)?;
    // neither pod nor container need be another one: an engine may be restarted inside its container
    let back = writer
        .await_other_engine(engine.as_deref(), limit)
        .and_then(|()| subject.await_serving(limit, None))
        .and_then(|_| writer.await_calm(limit, CALM));
    let outage = writer.outage(at)?;
    let (seconds, remark) = match back {
        Ok(()) => {
            ensure(outage.recovered, || {
                format!("clients write and the log does not show it: {outage:?}")
            })?;
            (Some(outage.seconds), Value::Null)
        }
        Err(error @ Error::Timeout { .. }) => (
            None,
            json!({"not_recovered": error.to_string(), "state": account::of(subject, at)?}),
        ),
        Err(error) => return Err(error),
    };
    let mut record = record(subject, at, &earlier, outage.to.as_ref().map(|back| back.wall))?;
    if !record.is_null() {
        record["requests_of_the_operator"] = requests::of_a_failover(subject.lab, audited, at, Timestamp::now())?;
    }
    repair()?;
    let rows = writer.finish()?;
    Ok(Sample {
        outage: seconds,
        rows,
        record,
        remark,
    })
}

/// The operator's record of what it did about a fault, with its times counted from the fault; null if it had nothing to do.
fn record(subject: &Subject, at: Timestamp, earlier: &Value, back: Option<Timestamp>) -> Result<Value> {
    let record = subject.record()?;
    let after = |time: &Value| {
        time.as_str()
            .and_then(|text| text.parse::<Timestamp>().ok())
            .map(|time| seconds(at, time))
    };
    // its beginning tells nothing of which fault it is about: a silence begins with the last sign of life, before the fault
    if record == *earlier {
        return Ok(Value::Null);
    }
    let phases = record["phases"].as_array().into_iter().flatten();
    let phases: Vec<Value> = phases
        .map(|phase| json!({"name": phase["name"], "milliseconds": phase["milliseconds"]}))
        .collect();
    Ok(json!({
        "reason": record["reason"], "evidence": record["evidence"], "from": record["fromNode"], "to": record["toNode"],
        "started_after_fault_seconds": after(&record["startedAt"]),
        "ended_after_fault_seconds": after(&record["endedAt"]),
        "clients_back_after_fault_seconds": back.map(|back| seconds(at, back)),
        "phases": phases,
    }))
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    let seconds = (to - from).total(Unit::Second).unwrap_or_default();
    (seconds * 1000.0).round() / 1000.0
}

/// What loses power together with the database.
fn beside(lab: &Lab, serving: &Serving) -> Result<Vec<String>> {
    let on_it = format!("--field-selector=spec.nodeName={}", serving.node);
    let path = "--output=jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}";
    let names = lab.kubectl(&["get", "pods", "--all-namespaces", &on_it, path])?;
    let leader = e2e::operator::leader(lab)?;
    let others = names.lines().filter(|name| *name != serving.pod);
    Ok(others
        .map(|name| {
            if leader == name {
                format!("{name} (leads)")
            } else {
                name.to_owned()
            }
        })
        .collect())
}

/// Brings the database to the node that answers for its address, as an administrator would. A node whose speaker has just come back
/// may take the address over meanwhile; then once more.
fn move_to_announcer(subject: &Subject) -> Result<()> {
    let lab = subject.lab;
    let names: Vec<String> = lab.bed().nodes().iter().map(|node| node.id().to_string()).collect();
    until(
        300,
        &format!(
            "the database in {} is where its address is announced",
            subject.namespace
        ),
        || {
            let said = announcer(subject)?.unwrap_or_default();
            let wanted = names.iter().find(|name| said.contains(&format!("\"{name}\"")));
            let wanted = wanted.ok_or_else(|| Error::Broken(format!("the balancer names no node: {said}")))?;
            let before = subject.await_serving(60, None)?;
            if before.node == *wanted {
                return Ok(Seen::There(()));
            }
            lab.only_node(wanted)?;
            subject.delete_pod(&before)?;
            let now = subject.await_serving(120, Some(&before))?;
            lab.open_all_nodes()?;
            Ok(Seen::NotYet(format!("it went to node {}", now.node)))
        },
    )
}

/// The balancer's last word on who answers for the database's address.
fn announcer(subject: &Subject) -> Result<Option<String>> {
    let words = [
        "get",
        "events",
        "--namespace",
        &subject.namespace,
        "--field-selector=reason=nodeAssigned",
        "--sort-by=.lastTimestamp",
        "--output=json",
    ];
    let events: Value =
        serde_json::from_str(&subject.lab.kubectl(&words)?).map_err(Error::malformed("a list of events"))?;
    Ok(events["items"]
        .as_array()
        .and_then(|events| events.last())
        .and_then(|event| event["message"].as_str())
        .map(str::to_owned))
}

/// Waits until all that a fault has torn down is whole again, so that samples do not depend on each other.
pub fn await_everything_ready(lab: &Lab) -> Result<()> {
    until(180, "all pods of the cluster are ready", || {
        let pods = lab.list("pods", "--all-namespaces", "")?;
        let whole = |pod: &&Value| {
            let ready = condition(pod, "Ready").is_some_and(|ready| ready.status == "True");
            pod["metadata"]["deletionTimestamp"].is_null() && (ready || pod["status"]["phase"] == "Succeeded")
        };
        let waiting: Vec<&Value> = pods
            .iter()
            .filter(|pod| !whole(pod))
            .map(|pod| &pod["metadata"]["name"])
            .collect();
        Ok(if waiting.is_empty() {
            Seen::There(())
        } else {
            Seen::NotYet(format!("not ready: {waiting:?}"))
        })
    })
}

/// Prints a sample.
pub fn tell(fault: &str, variant: Variant, sample: &Sample) {
    let outage = sample
        .outage
        .map_or("not recovered".to_owned(), |seconds| format!("{seconds:.2} s"));
    let rows = sample.rows;
    say(&format!(
        "  {fault}, {}: {outage}; {} rows acknowledged, {} lost, {} wrong",
        variant.name(),
        rows.acknowledged,
        rows.lost,
        rows.wrong
    ));
    if !sample.record.is_null() {
        say(&format!("    {}", sample.record));
    }
    if !sample.remark.is_null() {
        say(&format!("    {}", sample.remark));
    }
}
