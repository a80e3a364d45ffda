//! `make bench-failover`: the faults of the headline, ours beside the vendor's manifests, with default and with quick kubelets.
//!
//! Ours are hurt one at a time, several times. The vendor's are ten on one node, five plain and five tuned: one fault is five samples
//! of each. Whatever is measured is written at once.

mod hurt;
mod ours;
pub mod picture;
mod vendors;

use std::{collections::BTreeSet, path::PathBuf, time::Instant};

use clap::{Args, ValueEnum};
use e2e::{Conditions, Error, Lab, Programs, Result, instance::FAST, operator};

use crate::{
    faults,
    report::{Report, Row, Sample},
    say,
    subject::{Subject, Variant},
};
pub use hurt::Fault;

/// How often kubelets report their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kubelet {
    /// Every 10 s, as it is.
    Default,
    /// `nodeStatusUpdateFrequency: 1s`
    #[value(name = "status-1s")]
    Status1s,
}

/// Options of `bench failover`.
#[derive(Args)]
pub struct Options {
    /// Where the result goes; rows that are not measured stay as they are in it
    #[arg(long, default_value = "target/bench/failover.json")]
    out: PathBuf,
    /// How many samples of each of ours
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Only these rows: fault=F, variant=V, kubelet=K, each as often as wanted
    #[arg(long, value_delimiter = ',', value_parser = Choice::of)]
    only: Vec<Choice>,
    /// Every fault with every kubelet, not only where it should make a difference
    #[arg(long)]
    everything: bool,
    /// How long to wait once for the vendor's plain manifests after a loss of power, in seconds
    #[arg(long, default_value_t = 540)]
    patience: u64,
    /// Name of the testbed
    #[arg(long, default_value = "bench-failover")]
    pub name: String,
    /// Use a testbed that is up; its kubelets are taken to be as wanted
    #[arg(long)]
    reuse: bool,
    /// Leave the testbed up
    #[arg(long)]
    keep: bool,
}

/// A row to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    kubelet: Kubelet,
    variant: Variant,
    fault: Fault,
}

/// A word of `--only`.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Fault(Fault),
    Variant(Variant),
    Kubelet(Kubelet),
}

impl Choice {
    fn of(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not of the form fault=NAME"))?;
        let unknown = || format!("there is no {key} `{value}`");
        match key {
            "fault" => Fault::ALL
                .into_iter()
                .find(|it| it.name() == value)
                .map(Self::Fault)
                .ok_or_else(unknown),
            "variant" => VARIANTS
                .into_iter()
                .find(|it| short(*it) == value)
                .map(Self::Variant)
                .ok_or_else(unknown),
            "kubelet" => Kubelet::from_str(value, false)
                .map(Self::Kubelet)
                .map_err(|_| unknown()),
            _ => Err(format!("`{key}` is none of fault, variant, kubelet")),
        }
    }
}

const VARIANTS: [Variant; 4] = [Variant::Vendor, Variant::VendorTuned, Variant::Operator, Variant::Fast];

/// As it stands in failover.json.
pub fn short(variant: Variant) -> &'static str {
    match variant {
        Variant::Operator => "default",
        Variant::Fast => "fast",
        Variant::Vendor => "vendor-plain",
        Variant::VendorTuned => "vendor-tuned",
    }
}

impl Kubelet {
    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Status1s => "status-1s",
        }
    }
}

impl Options {
    /// The rows that were asked for.
    fn wanted(&self) -> BTreeSet<Wanted> {
        let all = [Kubelet::Default, Kubelet::Status1s].into_iter().flat_map(|kubelet| {
            VARIANTS.into_iter().flat_map(move |variant| {
                Fault::ALL.into_iter().map(move |fault| Wanted {
                    kubelet,
                    variant,
                    fault,
                })
            })
        });
        all.filter(|it| self.everything || it.tells_something())
            .filter(|it| self.is_chosen(*it))
            .collect()
    }

    fn is_chosen(&self, wanted: Wanted) -> bool {
        let Wanted {
            kubelet,
            variant,
            fault,
        } = wanted;
        let fits = |one: &dyn Fn(&Choice) -> Option<bool>| {
            let mut said = self.only.iter().filter_map(one).peekable();
            said.peek().is_none() || said.any(|fits| fits)
        };
        fits(&|choice| {
            if let Choice::Fault(it) = choice {
                Some(*it == fault)
            } else {
                None
            }
        }) && fits(&|choice| {
            if let Choice::Variant(it) = choice {
                Some(*it == variant)
            } else {
                None
            }
        }) && fits(&|choice| {
            if let Choice::Kubelet(it) = choice {
                Some(*it == kubelet)
            } else {
                None
            }
        })
    }
}

impl Wanted {
    /// Leases and the kubelet's period matter where a volume leaves a node that says nothing.
    fn tells_something(self) -> bool {
        let silent = matches!(
            self.fault,
            Fault::NodePowerOff | Fault::NodePartitioned | Fault::NodePaused
        );
        match (self.kubelet, self.variant) {
            // a node that sleeps is as silent as one that is cut off
            (Kubelet::Default, Variant::Fast) => silent && self.fault != Fault::NodePaused,
            (Kubelet::Default, _) => true,
            (Kubelet::Status1s, variant) => variant.is_ours() && silent && self.fault != Fault::NodePaused,
        }
    }
}

/// Measures.
pub fn run(options: &Options) -> Result<()> {
    let wanted = options.wanted();
    if wanted.is_empty() {
        return Err(Error::Broken(
            "no row fits all of --only; with --everything there are more".to_owned(),
        ));
    }
    // an unreadable file of an earlier run is an error before the hours, not after them
    Report::read(&options.out)?;
    let began = Instant::now();
    for kubelet in [Kubelet::Default, Kubelet::Status1s] {
        let rows: BTreeSet<Wanted> = wanted.iter().copied().filter(|it| it.kubelet == kubelet).collect();
        if !rows.is_empty() {
            on_one_cluster(options, kubelet, &rows)?;
        }
    }
    say(&format!(
        "Result after {} min: {}",
        began.elapsed().as_secs() / 60,
        options.out.display()
    ));
    Ok(())
}

fn on_one_cluster(options: &Options, kubelet: Kubelet, rows: &BTreeSet<Wanted>) -> Result<()> {
    let programs = Programs::from_environment()?;
    let lab = if options.reuse {
        Lab::open(&options.name, programs)?
    } else {
        let period: &[&str] = match kubelet {
            Kubelet::Default => &[],
            Kubelet::Status1s => &["--node-status-period=1s"],
        };
        Lab::up_with(&options.name, programs, period)?
    };
    let bench = Bench {
        lab: &lab,
        options,
        kubelet,
    };
    let of_vendors = rows.iter().filter(|it| !it.variant.is_ours());
    let faults: Vec<Fault> = Fault::ALL
        .into_iter()
        .filter(|fault| of_vendors.clone().any(|it| it.fault == *fault))
        .collect();
    let variants: Vec<Variant> = VARIANTS
        .into_iter()
        .filter(|variant| of_vendors.clone().any(|it| it.variant == *variant))
        .collect();
    // before the operator is there: a machine of two processors would notice
    if !faults.is_empty() {
        vendors::measure(&bench, &variants, &faults)?;
    }
    if rows.iter().any(|it| it.variant.is_ours()) {
        operator::install_plain(&lab)?;
        faults::await_everything_ready(&lab)?;
    }
    for variant in [Variant::Operator, Variant::Fast] {
        let faults: Vec<Fault> = rows
            .iter()
            .filter(|it| it.variant == variant)
            .map(|it| it.fault)
            .collect();
        if variant == Variant::Fast && !faults.is_empty() && !operator::knows_leases(&lab)? {
            say("==== fast: left out, the resource has no spec.failover.renewSeconds");
            continue;
        }
        if !faults.is_empty() {
            ours::measure(&bench, variant, &faults)?;
        }
    }
    if options.keep { Ok(()) } else { lab.down() }
}

/// A cluster to measure on.
struct Bench<'a> {
    lab: &'a Lab,
    options: &'a Options,
    kubelet: Kubelet,
}

impl Bench<'_> {
    /// Writes a row down, whatever comes next.
    fn put(
        &self,
        fault: Fault,
        variant: Variant,
        conditions: &Conditions,
        samples: Vec<Sample>,
        late: usize,
    ) -> Result<()> {
        let mut row = Row::of(fault.name(), short(variant), conditions, samples);
        self.kubelet.name().clone_into(&mut row.kubelet);
        row.late_writes = late;
        let Row {
            outages_seconds,
            lost_rows,
            wrong_rows,
            ..
        } = &row;
        say(&format!(
            "==== {} {} {}: {outages_seconds:?}, {lost_rows} lost, {wrong_rows} wrong, {late} late",
            fault.name(),
            short(variant),
            self.kubelet.name()
        ));
        let mut report = Report::read(&self.options.out)?;
        report.commit.clone_from(&conditions.commit);
        report.dirty = conditions.dirty;
        report.settings = settings();
        report.take_in(row);
        report.write(&self.options.out)
    }

    fn conditions(&self) -> Conditions {
        Conditions::now(&self.lab.programs().checkout)
    }
}

/// Writes that came too late to the volume of a database, ever.
fn late_writes(subject: &Subject) -> Result<usize> {
    let found = e2e::volume::findings(subject.lab, &subject.volume()?)?;
    Ok(found.late.len() + found.interleaved.len())
}

fn settings() -> Vec<String> {
    let mut settings = crate::settings();
    settings.push(format!("fast: spec.{}", FAST.replace("\n  ", ", ").replace(":,", ":")));
    settings.push(
        "vendor-tuned: tolerations for unreachable and not-ready nodes of 0 s, and tests/e2e/vendor/force-delete.sh"
            .to_owned(),
    );
    settings.push("vendor-plain, vendor-tuned: ten databases on the doomed node, five of each".to_owned());
    settings.push("status-1s: kubelets with nodeStatusUpdateFrequency 1s, on a cluster of their own".to_owned());
    settings.push("engine-killed, engine-hung: a fresh pod for each sample of ours".to_owned());
    settings
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn wanted(words: &[&str]) -> BTreeSet<Wanted> {
        Line::parse_from([&["bench"], words].concat()).options.wanted()
    }

    #[test]
    fn by_default_every_fault_is_measured_with_default_kubelets_and_the_loss_of_a_node_with_quick_ones_too() {
        let all = wanted(&[]);
        assert_eq!(
            all.iter()
                .filter(|it| it.kubelet == Kubelet::Default && it.variant == Variant::Operator)
                .count(),
            7
        );
        assert_eq!(all.iter().filter(|it| it.kubelet == Kubelet::Status1s).count(), 4);
        assert_eq!(wanted(&["--everything"]).len(), 7 * 4 * 2);
    }

    #[test]
    fn words_of_one_kind_add_up_and_those_of_different_kinds_narrow_down() {
        let some = wanted(&["--only", "fault=drain,fault=pod-deleted", "--only", "variant=default"]);
        let names: Vec<_> = some.iter().map(|it| (it.fault.name(), short(it.variant))).collect();
        assert_eq!(names, [("pod-deleted", "default"), ("drain", "default")]);
    }
}
