//! The vendor's plain manifests on a node that loses power: five databases, one fault, and a long wait.

use std::{
    thread,
    time::{Duration, Instant},
};

use e2e::{Conditions, Lab, Result, until};
use jiff::{Timestamp, Unit};
use serde_json::{Value, json};

use crate::{
    account, faults,
    report::{Report, Sample},
    say,
    subject::{Subject, Variant},
    writer::Writer,
};

/// The node all of them are on.
const DOOMED: &str = "n2";
/// When their state is noted, in seconds: silence noticed, evicted, the force-detach limit (6 min) passed.
const LOOKS: [u64; 3] = [60, 330, 480];

/// Powers the node off once, and waits as long as told for any of them.
pub fn node(lab: &Lab, samples: usize, patience: Duration, report: &mut Report) -> Result<()> {
    lab.only_node(DOOMED)?;
    let names = (1..=samples).map(|number| format!("vendor-node-{number}"));
    let subjects = names
        .map(|name| Subject::create(lab, Variant::Vendor, &name))
        .collect::<Result<Vec<_>>>()?;
    for subject in &subjects {
        subject.await_serving(180, None)?;
    }
    lab.open_all_nodes()?;
    // fewer attempts than elsewhere: five writers hang for a quarter of an hour beside whatever else is measured
    let writers = subjects
        .iter()
        .map(|subject| Writer::start(subject, "200ms"))
        .collect::<Result<Vec<_>>>()?;
    let conditions = Conditions::now(&lab.programs().checkout);
    let at = Timestamp::now();
    lab.bed().node(DOOMED)?.power_off()?;
    say(&format!(
        "  node {DOOMED} with {samples} databases of the vendor's manifests is powered off; at most {} s are waited",
        patience.as_secs()
    ));

    let began = Instant::now();
    let mut accounts: Vec<Vec<Value>> = vec![Vec::new(); samples];
    for look in LOOKS
        .map(Duration::from_secs)
        .into_iter()
        .filter(|look| *look < patience)
        .chain([patience])
    {
        // nothing is polled in between: only the clients and these looks disturb the cluster
        thread::sleep(look.saturating_sub(began.elapsed()));
        for (subject, accounts) in subjects.iter().zip(&mut accounts) {
            let account = account::of(subject, at)?;
            say(&format!("    {account}"));
            accounts.push(account);
        }
    }
    let outages = writers
        .iter()
        .map(|writer| writer.outage(at))
        .collect::<Result<Vec<_>>>()?;

    let powered_on = Timestamp::now();
    lab.restore()?;
    let mut found = Vec::new();
    for (((subject, writer), outage), accounts) in subjects.iter().zip(writers).zip(outages).zip(accounts) {
        // to read back what was promised the database must be there again, whatever brings it back
        let back = until(
            300,
            &format!("{} answers after its node is back", subject.namespace),
            || {
                let after = writer.outage(powered_on)?;
                Ok(after.to.filter(|_| after.recovered))
            },
        );
        let back = back.map(|back| (back.wall - powered_on).total(Unit::Second).unwrap_or_default());
        let seconds = outage.to.filter(|_| outage.recovered).map(|_| outage.seconds);
        let rows = writer.finish()?;
        let remark = json!({
            "looks": accounts,
            "silent_for_seconds": (!outage.recovered).then_some(outage.seconds),
            "back_after_power_on_seconds": back.ok(),
            "errors": outage.errors,
        });
        say(&format!(
            "  {}: outage {seconds:?} of {:?} s, {} rows acknowledged, {} lost",
            subject.namespace, outage.seconds, rows.acknowledged, rows.lost
        ));
        found.push(Sample {
            outage: seconds,
            rows,
            record: Value::Null,
            remark,
        });
    }
    report.put("node powered off", Variant::Vendor.name(), &conditions, found);
    faults::await_everything_ready(lab)?;
    subjects.into_iter().try_for_each(Subject::destroy)
}
