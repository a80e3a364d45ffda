//! Ours: one database, one fault, again and again.

use e2e::Result;

use super::{Bench, Fault, late_writes, short};
use crate::{
    faults::{await_everything_ready, once_repaired, tell},
    say,
    subject::{Subject, Variant},
};

/// So long is waited for a recovery, in seconds.
const LIMIT: u64 = 300;

/// The databases that are hurt, one at a time.
struct Databases<'a> {
    bench: &'a Bench<'a>,
    variant: Variant,
    created: usize,
    subject: Option<Subject<'a>>,
    /// Late writes to those that are destroyed.
    late: usize,
}

impl<'a> Databases<'a> {
    fn new(bench: &'a Bench<'a>, variant: Variant) -> Self {
        Self {
            bench,
            variant,
            created: 0,
            subject: None,
            late: 0,
        }
    }

    /// The one there is, or a new one.
    fn subject(&mut self) -> Result<&Subject<'a>> {
        if self.subject.is_none() {
            self.created += 1;
            let name = format!("ours-{}-{}", short(self.variant), self.created);
            self.subject = Some(Subject::create_serving(self.bench.lab, self.variant, &name)?);
        }
        Ok(self.subject.as_ref().expect("created above"))
    }

    /// It has been of use; what a node did to it when it came back counts.
    fn end(&mut self) -> Result<()> {
        let Some(subject) = self.subject.take() else {
            return Ok(());
        };
        await_everything_ready(self.bench.lab)?;
        self.late += late_writes(&subject)?;
        subject.destroy()
    }
}

/// Measures all given faults.
pub fn measure(bench: &Bench, variant: Variant, faults: &[Fault]) -> Result<()> {
    let mut databases = Databases::new(bench, variant);
    for fault in faults {
        say(&format!(
            "---- {} {} {}",
            fault.name(),
            short(variant),
            bench.kubelet.name()
        ));
        let (conditions, before) = (bench.conditions(), databases.late);
        let mut samples = Vec::new();
        for _ in 0..bench.options.runs {
            // for three minutes a database is kept off a node that was lost and has not started again; a new one knows of no loss
            if fault.leaves_the_machine_on() {
                databases.end()?;
            }
            let subject = databases.subject()?;
            if fault.is_of_the_engine() {
                replace(subject)?;
            }
            await_everything_ready(bench.lab)?;
            let repair = || {
                if fault.is_of_a_node() {
                    bench.lab.restore()
                } else {
                    Ok(())
                }
            };
            let sample = once_repaired(subject, LIMIT, |serving| fault.hurt(subject, serving), repair)?;
            tell(fault.name(), variant, &sample);
            samples.push(sample);
        }
        databases.end()?;
        bench.put(*fault, variant, &conditions, samples, databases.late - before)?;
    }
    Ok(())
}

/// Another pod: a guard waits longer each time its engine ends within a minute.
fn replace(subject: &Subject) -> Result<()> {
    let before = subject.await_serving(60, None)?;
    subject.delete_pod(&before)?;
    subject.await_serving(LIMIT, Some(&before))?;
    Ok(())
}
