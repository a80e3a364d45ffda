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

/// Measures all given faults.
pub fn measure(bench: &Bench, variant: Variant, faults: &[Fault]) -> Result<()> {
    let subject = Subject::create_serving(bench.lab, variant, &format!("ours-{}", short(variant)))?;
    for fault in faults {
        say(&format!(
            "---- {} {} {}",
            fault.name(),
            short(variant),
            bench.kubelet.name()
        ));
        let (conditions, before) = (bench.conditions(), late_writes(&subject)?);
        let mut samples = Vec::new();
        for _ in 0..bench.options.runs {
            if fault.is_of_the_engine() {
                replace(&subject)?;
            }
            await_everything_ready(bench.lab)?;
            let repair = || {
                if fault.is_of_a_node() {
                    bench.lab.restore()
                } else {
                    Ok(())
                }
            };
            let sample = once_repaired(&subject, LIMIT, |serving| fault.hurt(&subject, serving), repair)?;
            tell(fault.name(), variant, &sample);
            samples.push(sample);
        }
        // what a node did when it came back counts, too
        await_everything_ready(bench.lab)?;
        let late = late_writes(&subject)? - before;
        bench.put(*fault, variant, &conditions, samples, late)?;
    }
    subject.destroy()
}

/// Another pod: a guard waits longer each time its engine ends within a minute.
fn replace(subject: &Subject) -> Result<()> {
    let before = subject.await_serving(60, None)?;
    subject.delete_pod(&before)?;
    subject.await_serving(LIMIT, Some(&before))?;
    Ok(())
}
