//! `make bench`: how long nobody can write, on a real cluster, with the operator and with the vendor's plain manifests.
//!
//! Method and figures: docs/benchmarks.md. Databases are hurt one at a time; the clients are the oracle's, in the clients' network.

mod account;
mod failover;
mod faults;
mod memory;
mod report;
mod requests;
mod steady;
mod subject;
mod vendor;
mod writer;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};
use e2e::{
    Conditions, Lab, Programs, Result,
    lab::{ENGINE_IMAGE, REVOKING},
    operator,
};

use crate::{report::Report, subject::Variant};

/// Measures outages, requests and memory on a testbed.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Name of the testbed
    #[arg(long, default_value = "bench")]
    name: String,
    /// Where the result goes; parts that are not run stay as they are in it
    #[arg(long, default_value = "target/bench/outage.json")]
    out: PathBuf,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// How many samples of each fault
    #[arg(long, default_value_t = 5)]
    samples: usize,
    /// How long to wait for the vendor's databases after their node has lost power, in seconds
    #[arg(long, default_value_t = 900)]
    patience: u64,
    /// How long to count the requests of an idle cluster, in seconds
    #[arg(long, default_value_t = 300)]
    idle: u64,
    /// How many instances make "many"
    #[arg(long, default_value_t = 100)]
    many: usize,
    /// Use a testbed that is up
    #[arg(long)]
    reuse: bool,
    /// Leave the testbed up
    #[arg(long)]
    keep: bool,
}

/// What else there is to measure.
#[derive(Subcommand)]
enum Action {
    /// The faults of the headline, ours beside the vendor's manifests
    Failover(failover::Options),
    /// Draw the phases of a failover from a result of `failover`
    Picture(failover::picture::Options),
}

/// In the order in which they run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Requests to the API server
    Requests,
    /// Memory of the operator
    Memory,
    /// What a database costs while nothing happens
    Steady,
    /// Process killed, pod deleted: ours
    Pods,
    /// Process killed, pod deleted: the vendor's
    VendorPods,
    /// One database's pod deleted again and again, also by force: ours
    Deletions,
    /// Node powered off: ours
    Nodes,
    /// Node powered off that also announces the database's address: ours
    Announcer,
    /// The kubelet's back-off
    BackOff,
    /// Node powered off: the vendor's
    VendorNodes,
}

impl Part {
    fn of_the_vendor(self) -> bool {
        matches!(self, Self::VendorPods | Self::VendorNodes)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (outcome, testbed) = match &arguments.action {
        None => (run(&arguments), Some(arguments.name.as_str())),
        Some(Action::Failover(options)) => (failover::run(options), Some(options.name.as_str())),
        Some(Action::Picture(options)) => (failover::picture::run(options), None),
    };
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    say(&format!("\nbench: {error}"));
    if let Some(name) = testbed {
        say(&format!(
            "The testbed is left as it is; end it with `testbed --name {name} down`."
        ));
    }
    ExitCode::FAILURE
}

fn say(text: &str) {
    // a reader who has seen enough is no failure
    let _ = writeln!(io::stdout(), "{text}");
}

fn run(arguments: &Arguments) -> Result<()> {
    let parts: Vec<Part> = Part::value_variants()
        .iter()
        .copied()
        .filter(|part| arguments.only.is_empty() || arguments.only.contains(part))
        .collect();
    let programs = Programs::from_environment()?;
    // an unreadable file of an earlier run is an error before the hour, not after it
    Report::read(&arguments.out)?;

    let lab = if arguments.reuse {
        Lab::open(&arguments.name, programs)?
    } else {
        Lab::up(&arguments.name, programs)?
    };
    // the vendor's databases do not need it, but a machine of two processors would notice; so it is there only for what needs it
    if !parts.iter().all(|part| part.of_the_vendor()) {
        operator::install_plain(&lab)?;
    }
    faults::await_everything_ready(&lab)?;
    for part in parts {
        let name = part
            .to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default();
        let conditions = Conditions::now(&lab.programs().checkout);
        say(&format!("==== {name} (load {})", conditions.load_average));
        let mut report = Report {
            commit: conditions.commit,
            dirty: conditions.dirty,
            settings: settings(),
            ..Report::default()
        };
        let samples = arguments.samples;
        match part {
            Part::Requests => requests::measure(&lab, samples, Duration::from_secs(arguments.idle), &mut report)?,
            Part::Memory => memory::measure(&lab, arguments.many, &mut report)?,
            Part::Steady => steady::measure(&lab, Duration::from_secs(arguments.idle), &mut report)?,
            Part::Pods => faults::pods(&lab, Variant::Operator, samples, &mut report)?,
            Part::VendorPods => faults::pods(&lab, Variant::Vendor, samples, &mut report)?,
            Part::Deletions => faults::deletions(&lab, samples, &mut report)?,
            Part::Nodes => faults::nodes(&lab, false, samples, &mut report)?,
            Part::Announcer => faults::nodes(&lab, true, samples, &mut report)?,
            Part::BackOff => faults::back_off(&lab, samples, &mut report)?,
            Part::VendorNodes => vendor::node(&lab, samples, Duration::from_secs(arguments.patience), &mut report)?,
        }
        // what is measured stays measured, whatever the next part does; another run may have written meanwhile
        let mut whole = Report::read(&arguments.out)?;
        whole.absorb(report);
        whole.write(&arguments.out)?;
    }
    say(&format!("Result: {}", arguments.out.display()));
    if arguments.keep { Ok(()) } else { lab.down() }
}

fn settings() -> Vec<String> {
    let profile = if cfg!(debug_assertions) {
        "without optimization, without debug symbols"
    } else {
        "optimized"
    };
    vec![
        "testbed: three nodes on one machine, kubelets at default settings (docs: tests/testbed/README.md)".to_owned(),
        format!("programs: built {profile}"),
        format!("operator: deploy/install.yaml, driverClasses.{REVOKING}=Revoke; two replicas"),
        format!("engine: {ENGINE_IMAGE}, a stand-in; its recovery after an unclean stop takes 1 s"),
        format!(
            "clients: a new connection for each row, 1 s for each of connection, login and statement, up to {} attempts at once",
            writer::IN_FLIGHT
        ),
        "clients: a row every 50 ms; every 200 ms for the vendor's databases whose node is powered off".to_owned(),
    ]
}
