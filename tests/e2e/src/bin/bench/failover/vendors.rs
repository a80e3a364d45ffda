//! The vendor's manifests: five databases of them as they are and five tuned, all on one node, all hurt at once.

use std::{
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use e2e::{Error, Lab, Result, until, wait::Seen};
use jiff::{Timestamp, Unit};
use serde_json::{Value, json};

use super::{Bench, Fault, hurt, late_writes, short};
use crate::{
    account, faults,
    report::Sample,
    say,
    subject::{Subject, Variant},
    writer::Writer,
};

/// The node all of them are on.
const DOOMED: &str = "n2";
/// Samples of one fault.
const SAMPLES: usize = 5;
/// So long is waited where the node stays, in seconds: their pods have no probes, so what hangs hangs for ever.
const IN_PLACE: u64 = 120;
/// So long is waited where a node is silent, if not the whole patience: the force-detach limit (6 min) and what must come before and after it.
const SILENT: u64 = 480;

/// Deletes pods by force, as administrators' scripts do, until it is dropped.
struct Script(Child);

impl Script {
    fn start(lab: &Lab) -> Result<Self> {
        let mut command = lab.bed().command("cp")?;
        command.arg(lab.programs().checkout.join("tests/e2e/vendor/force-delete.sh"));
        command
            .arg(lab.bed().layout().tool("kubectl"))
            .arg("app=sqledge,tuned=yes");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
            .spawn()
            .map(Self)
            .map_err(Error::file("start", "force-delete.sh"))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of them, while it is watched.
struct Watched<'a, 'b> {
    subject: &'b Subject<'a>,
    writer: Writer<'a>,
    engine: Option<String>,
    at: Timestamp,
    late: usize,
}

impl Watched<'_, '_> {
    fn is_back(&self) -> Result<bool> {
        let now = self.writer.engine()?;
        Ok(now != self.engine && self.writer.is_calm()?)
    }
}

/// Measures all given faults of both variants.
pub fn measure(bench: &Bench, variants: &[Variant], faults: &[Fault]) -> Result<()> {
    let lab = bench.lab;
    lab.only_node(DOOMED)?;
    let made = variants
        .iter()
        .flat_map(|variant| (1..=SAMPLES).map(move |number| (*variant, number)));
    let subjects: Vec<Subject> = made
        .map(|(variant, number)| Subject::create(lab, variant, &format!("{}-{number}", short(variant))))
        .collect::<Result<_>>()?;
    for subject in &subjects {
        subject.await_serving(240, None)?;
    }
    lab.open_all_nodes()?;
    let _script = Script::start(lab)?;
    for fault in faults {
        gather(lab, &subjects)?;
        once(bench, *fault, variants, &subjects)?;
    }
    subjects.into_iter().try_for_each(Subject::destroy)
}

/// Brings all of them to the doomed node, as an administrator would.
fn gather(lab: &Lab, subjects: &[Subject]) -> Result<()> {
    faults::await_everything_ready(lab)?;
    lab.only_node(DOOMED)?;
    for subject in subjects {
        let before = subject.await_serving(120, None)?;
        if before.node != DOOMED {
            subject.delete_pod(&before)?;
        }
    }
    for subject in subjects {
        until(
            240,
            &format!("the database in {} is on node {DOOMED}", subject.namespace),
            || {
                Ok(match subject.serving()? {
                    Seen::There(now) if now.node == DOOMED => Seen::There(()),
                    Seen::There(now) => Seen::NotYet(format!("on node {}", now.node)),
                    Seen::NotYet(why) => Seen::NotYet(why),
                })
            },
        )?;
    }
    lab.open_all_nodes()
}

fn once(bench: &Bench, fault: Fault, variants: &[Variant], subjects: &[Subject]) -> Result<()> {
    let lab = bench.lab;
    let serving = subjects
        .iter()
        .map(|subject| subject.await_serving(60, None))
        .collect::<Result<Vec<_>>>()?;
    debug_assert!(hurt::nodes(&serving).len() <= 1, "all were gathered");
    let conditions = bench.conditions();
    let mut watched = Vec::new();
    for subject in subjects {
        // fewer attempts than elsewhere: ten writers hang for minutes
        let (writer, late) = (Writer::start(subject, "250ms")?, late_writes(subject)?);
        watched.push(Watched {
            engine: writer.engine()?,
            subject,
            writer,
            at: Timestamp::now(),
            late,
        });
    }
    for (one, serving) in watched.iter_mut().zip(&serving) {
        one.at = Timestamp::now();
        if !fault.is_of_a_node() {
            fault.hurt(one.subject, serving)?;
        }
    }
    if fault.is_of_a_node() {
        let at = Timestamp::now();
        for one in &mut watched {
            one.at = at;
        }
        fault.hurt_node(lab, DOOMED)?;
    }
    say(&format!(
        "---- {}: {} databases of the vendor's manifests on node {DOOMED}",
        fault.name(),
        watched.len()
    ));
    await_recovery(bench, fault, &watched)?;

    let mut ends = Vec::new();
    for one in &watched {
        let recovered = one.is_back()?;
        let outage = one.writer.outage(one.at)?;
        let state = if recovered {
            Value::Null
        } else {
            account::of(one.subject, one.at)?
        };
        ends.push((recovered.then_some(outage.seconds), outage.seconds, state));
    }
    // to read back what was promised the database must be there again, whatever brings it back
    let ended = Timestamp::now();
    lab.restore()?;
    for (one, end) in watched.iter().zip(&ends) {
        if end.0.is_none() && fault == Fault::EngineHung {
            one.subject.kill_engine(&one.subject.await_serving(30, None)?)?;
        }
    }
    let mut rows: Vec<(Variant, Vec<Sample>, usize)> = variants.iter().map(|it| (*it, Vec::new(), 0)).collect();
    for (one, (outage, silent, state)) in watched.into_iter().zip(ends) {
        let back = until(
            300,
            &format!("{} answers after its node is back", one.subject.namespace),
            || one.is_back(),
        );
        let back = back.map(|()| (Timestamp::now() - ended).total(Unit::Second).unwrap_or_default());
        let judged = one.writer.finish()?;
        let late = late_writes(one.subject)? - one.late;
        let remark = if outage.is_some() {
            Value::Null
        } else {
            json!({"silent_for_seconds": silent, "state": state, "back_after_repair_seconds": back.ok()})
        };
        let sample = Sample {
            outage,
            rows: judged,
            record: Value::Null,
            remark,
        };
        faults::tell(fault.name(), one.subject.variant, &sample);
        if let Some(row) = rows.iter_mut().find(|row| row.0 == one.subject.variant) {
            row.1.push(sample);
            row.2 += late;
        }
    }
    rows.into_iter()
        .try_for_each(|(variant, samples, late)| bench.put(fault, variant, &conditions, samples, late))
}

/// Waits until all are back, or nothing more is to be expected.
fn await_recovery(bench: &Bench, fault: Fault, watched: &[Watched]) -> Result<()> {
    let limit = match fault {
        Fault::EngineKilled | Fault::EngineHung | Fault::PodDeleted | Fault::Drain => IN_PLACE,
        Fault::NodePowerOff => bench.options.patience,
        Fault::NodePartitioned | Fault::NodePaused => SILENT,
    };
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(limit) {
        let back = watched
            .iter()
            .map(|one| Ok((one.subject.variant, one.is_back()?)))
            .collect::<Result<Vec<_>>>()?;
        // what the plain manifests do about a silent node was awaited once
        let waits = |variant: Variant| {
            variant == Variant::VendorTuned || !matches!(fault, Fault::NodePartitioned | Fault::NodePaused)
        };
        if back
            .iter()
            .filter(|(variant, _)| waits(*variant))
            .all(|(_, back)| *back)
        {
            break;
        }
        // two looks a second at ten logs would be what the machine does
        thread::sleep(Duration::from_secs(3));
    }
    Ok(())
}
