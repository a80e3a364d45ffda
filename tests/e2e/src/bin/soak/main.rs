//! `make soak`: random faults, one after another and some at once, on a real cluster with several databases, judged by the oracle.
//!
//! The faults are those of docs; which come in which order follows from the seed alone. Result: target/soak.json. Exit code 0: no row
//! lost, no write after a revocation, no two engines, no changed address, and every database serves. Afterwards, unless told otherwise,
//! the same with storage that lies about a detach: there the judge must find late writes, or it is no judge.

mod act;
mod archive;
mod fleet;
mod follow;
mod kind;
mod plan;
mod report;
mod rows;
mod run;
mod storage;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use e2e::{Conditions, Error, Lab, Programs, Result, error::ensure, operator, until, wait::Seen};

use crate::{
    fleet::PACE,
    kind::Kind,
    plan::{Begins, Plan},
    report::Report,
    run::{Run, say},
};

/// Hurts a cluster at random and judges what becomes of the databases on it.
#[derive(Parser)]
struct Arguments {
    /// What the sequence of faults follows from
    #[arg(long)]
    seed: u64,
    /// How many faults, each counted for every database it hits
    #[arg(long, default_value_t = 200)]
    faults: usize,
    /// No fault begins later than so many minutes after the first
    #[arg(long, default_value_t = 80)]
    minutes: u64,
    /// How many databases
    #[arg(long, default_value_t = 7)]
    instances: usize,
    /// Only these kinds of fault
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    kinds: Vec<Kind>,
    /// Print so many faults of the plan, and stop
    #[arg(long)]
    plan: Option<usize>,
    /// Where the result goes
    #[arg(long, default_value = "target/soak.json")]
    out: PathBuf,
    /// Name of the testbed
    #[arg(long, default_value = "soak")]
    name: String,
    /// Without the control that the judge sees late writes
    #[arg(long)]
    without_control: bool,
    /// Use a testbed that is up, with the operator on it
    #[arg(long)]
    reuse: bool,
    /// Leave the testbed up
    #[arg(long)]
    keep: bool,
}

fn kind(name: &str) -> Result<Kind, String> {
    Kind::named(name).ok_or_else(|| format!("there is no fault `{name}`; `--plan 50` shows what there is"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("\nsoak: {error}"));
            say(&format!(
                "The testbed is left as it is; end it with `testbed --name {} down`.",
                arguments.name
            ));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    say(&format!("seed {}", arguments.seed));
    let plan = Plan::of(arguments.seed, arguments.instances, &arguments.kinds);
    if let Some(count) = arguments.plan {
        for planned in plan.take(count) {
            let begins = match planned.begins {
                Begins::Whole => "when everything serves".to_owned(),
                Begins::After(seconds) => format!("{seconds} s after the one before"),
            };
            say(&format!(
                "#{:<4}{:36} db-{}  {begins}",
                planned.number,
                planned.kind.name(),
                planned.instance + 1
            ));
        }
        return Ok(true);
    }
    let programs = Programs::from_environment()?;
    let lab = if arguments.reuse {
        Lab::open(&arguments.name, programs)?
    } else {
        Lab::up(&arguments.name, programs)?
    };
    operator::install_with_helm(&lab, &[])?;
    let report = soak(&lab, arguments, plan)?;
    let mut kept = tell(&report, arguments);
    if !arguments.without_control {
        kept &= control(&lab)?;
    }
    if !kept {
        say(&format!(
            "The testbed is left standing; end it with `testbed --name {} down`.",
            arguments.name
        ));
    } else if !arguments.keep {
        lab.down()?;
    }
    Ok(kept)
}

fn soak(lab: &Lab, arguments: &Arguments, plan: Plan) -> Result<Report> {
    let conditions = Conditions::now(&lab.programs().checkout);
    let fleet = fleet::create(lab, fleet::NAMESPACE, arguments.instances)?;
    say(&format!("{} databases serve", fleet.len()));
    let mut run = Run::of(lab, fleet::NAMESPACE, fleet)?;
    let began = Instant::now();
    let outcome = run.faults(plan, arguments.faults, Duration::from_secs(arguments.minutes * 60));
    let seconds = began.elapsed().as_secs();
    let stuck = match outcome {
        Ok(()) => None,
        // whatever cannot be repaired is told in the result; everything else is an error of this program
        Err(error @ Error::Timeout { .. }) => Some(error.to_string()),
        Err(error) => return Err(error),
    };
    if stuck.is_some() {
        let account = arguments.out.with_extension("account.txt");
        std::fs::write(&account, lab.describe(fleet::NAMESPACE)).map_err(Error::file("write", &account))?;
        say(&format!("what the cluster says stands in {}", account.display()));
    }
    let mut report = Report {
        commit: conditions.commit.clone(),
        dirty: conditions.dirty,
        settings: settings(arguments, operator::knows_leases(lab)?),
        seed: arguments.seed,
        faults: run.done,
        acknowledged: 0,
        lost: 0,
        writes_after_revoke: 0,
        two_engines: 0,
        address_changes: 0,
        held: 0,
        wrong_rows: 0,
        all_serve: stuck.is_none() && run.trouble().is_none(),
        kinds: std::collections::BTreeMap::new(),
        events: Vec::new(),
        holds: Vec::new(),
        findings: Vec::new(),
        conditions,
        seconds,
    };
    judge(&mut run, &mut report)?;
    report.count();
    report.write(&arguments.out)?;
    Ok(report)
}

/// The last word on everything.
fn judge(run: &mut Run, report: &mut Report) -> Result<()> {
    let mut failed = Vec::new();
    for member in &mut run.fleet {
        let stopped = member.clients.stop();
        match stopped.and_then(|()| member.clients.judge()) {
            Ok(verdict) => {
                report.acknowledged += verdict.acknowledged;
                report.lost += verdict.lost.len();
                report.two_engines += verdict.by_old_engine.len();
                let wrong = [&verdict.duplicates, &verdict.out_of_order, &verdict.unexpected];
                report.wrong_rows += wrong.iter().map(|rows| rows.len()).sum::<usize>();
            }
            Err(error) => failed.push(format!("{} cannot be judged: {error}", member.name())),
        }
        report.address_changes += member.address_changes;
    }
    report.all_serve &= failed.is_empty();
    run.findings.extend(failed);
    let found = run.storage()?.findings();
    report.writes_after_revoke = found.late.len();
    report.two_engines += found.interleaved.len() + run.doubles();
    report.held = run.holds.len();
    report.events.clone_from(&run.events);
    report.holds.clone_from(&run.holds);
    report.findings.clone_from(&run.findings);
    Ok(())
}

fn settings(arguments: &Arguments, leases: bool) -> Vec<String> {
    let mut settings = vec![
        format!(
            "testbed: three nodes on one machine, kubelets at default settings; {} databases in one namespace",
            arguments.instances
        ),
        format!("operator: the chart with {}", operator::VALUES.join(" ")),
        format!("engine: a stand-in; {}", fleet::described(arguments.instances, leases)),
        format!(
            "clients: a row every {} on each database, a new connection for each, {} for each step, up to {} at once",
            PACE.interval, PACE.timeout, PACE.in_flight
        ),
    ];
    if !arguments.kinds.is_empty() {
        let names: Vec<&str> = arguments.kinds.iter().map(|kind| kind.name()).collect();
        settings.push(format!("only these faults: {}", names.join(", ")));
    }
    settings
}

fn tell(report: &Report, arguments: &Arguments) -> bool {
    let Report {
        faults,
        acknowledged,
        lost,
        writes_after_revoke,
        two_engines,
        address_changes,
        held,
        ..
    } = report;
    say(&format!(
        "\nseed {}: {faults} faults in {} s; {acknowledged} rows acknowledged, {lost} lost, {writes_after_revoke} writes after a \
         revocation, {two_engines} times two engines, {address_changes} address changes, {held} held",
        report.seed, report.seconds
    ));
    for finding in &report.findings {
        say(&format!("  found: {finding}"));
    }
    let mut broken = report.broken();
    if *faults < arguments.faults {
        broken.push(format!(
            "only {faults} of {} faults fitted into the time",
            arguments.faults
        ));
    }
    for sentence in &broken {
        say(&format!("  BROKEN: {sentence}"));
    }
    say(&format!("Result: {}", arguments.out.display()));
    broken.is_empty()
}

/// Storage that reports a detach and revokes nothing, declared as revoking; a node is paused and wakes up. Yields whether it was caught.
fn control(lab: &Lab) -> Result<bool> {
    const NAMESPACE: &str = "control";
    let mut fleet = fleet::create(lab, NAMESPACE, 1)?;
    let volume = fleet[0].volume.clone();
    lab.bed().storage(&["mode", &volume, "lie"])?;
    let node = fleet[0].instance.node()?;
    let pod = fleet[0].instance.pod_name()?;
    lab.bed().node(&node)?.pause()?;
    fleet[0].instance.await_ready_without(&pod, 180)?;
    lab.bed().node(&node)?.resume()?;
    let found = until(90, "the woken node writes to the volume it has lost", || {
        let found = e2e::volume::findings(lab, &volume)?;
        Ok(if found.late.is_empty() {
            Seen::NotYet(format!("{} writes, none late", found.accepted))
        } else {
            Seen::There(found.late.len())
        })
    });
    match &found {
        Ok(late) => say(&format!(
            "control: storage that lies was caught, {late} writes after the detach so far"
        )),
        Err(error) => say(&format!("control: storage that lies was NOT caught: {error}")),
    }
    fleet[0].clients.stop()?;
    ensure(fleet[0].state.ready, || {
        "the control's database never served".to_owned()
    })?;
    Ok(found.is_ok())
}
