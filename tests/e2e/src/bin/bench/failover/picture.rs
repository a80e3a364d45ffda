//! The phases of a failover as a picture: an SVG made from failover.json, and from nothing else.
//!
//! Deterministic: the same result gives the same bytes, so that a committed picture can be checked against its figures.

use std::{fmt::Write as _, fs, path::PathBuf};

use clap::Args;
use e2e::{Error, Result, error::ensure};
use serde_json::Value;

use crate::report::{Report, Row};

/// Options of `bench picture`.
#[derive(Args)]
pub struct Options {
    /// The result of `bench failover`
    #[arg(long, default_value = "target/bench/failover.json")]
    from: PathBuf,
    /// Where the picture goes
    #[arg(long, default_value = "docs/failover.svg")]
    to: PathBuf,
    /// Which fault
    #[arg(long, default_value = "node-power-off")]
    fault: String,
    /// Write nothing; fail if the picture is not that of the result
    #[arg(long)]
    check: bool,
}

/// A bar: a row's worst sample, in seconds from the fault.
struct Bar {
    title: String,
    parts: Vec<(String, f64)>,
    whole: f64,
}

const LEFT: f64 = 190.0;
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 22.0;
const STEP: f64 = 34.0;
const TOP: f64 = 62.0;
/// Of phases in the order in which they come; told apart without colour by their order and by the words below.
const COLOURS: [&str; 8] = [
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#9c755f",
];

/// Draws, or compares.
pub fn run(options: &Options) -> Result<()> {
    let drawn = draw(&Report::read(&options.from)?, &options.fault)?;
    if options.check {
        let there = fs::read_to_string(&options.to).map_err(Error::file("read", &options.to))?;
        return ensure(there == drawn, || {
            format!(
                "{} is not the picture of {}: run `make picture` and commit it",
                options.to.display(),
                options.from.display()
            )
        });
    }
    fs::write(&options.to, drawn).map_err(Error::file("write", &options.to))
}

fn draw(report: &Report, fault: &str) -> Result<String> {
    let bars: Vec<Bar> = report
        .rows
        .iter()
        .filter(|row| row.fault == fault)
        .filter_map(bar)
        .collect();
    ensure(!bars.is_empty(), || {
        format!("the result has no phases of {fault}: run `bench failover --only fault={fault}`")
    })?;
    let longest = bars.iter().map(|bar| bar.whole).fold(1.0, f64::max);
    let scale = WIDTH / longest;
    let rows = f64::from(u16::try_from(bars.len()).expect("a picture has few bars"));
    let (width, axis) = (LEFT + WIDTH + 70.0, TOP + rows * STEP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"24\" font-size=\"16\">{}: seconds without an acknowledged row, worst sample of each</text>\n",
        axis + 66.0,
        escaped(fault)
    );
    let mut names: Vec<String> = Vec::new();
    for (index, bar) in (0_u16..).zip(&bars) {
        let y = TOP + f64::from(index) * STEP;
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 16.0,
            escaped(&bar.title)
        );
        let mut x = LEFT;
        for (name, seconds) in &bar.parts {
            let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(name.clone());
                names.len() - 1
            });
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{HEIGHT:.0}\" fill=\"{}\"><title>{} {seconds:.2} s</title></rect>",
                seconds * scale,
                COLOURS[at % COLOURS.len()],
                escaped(name)
            );
            x += seconds * scale;
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\">{:.1} s</text>",
            LEFT + bar.whole * scale + 6.0,
            y + 16.0,
            bar.whole
        );
    }
    let mut x = 10.0;
    for (index, name) in names.iter().enumerate() {
        let y = axis + 24.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.0}\" y=\"{y:.0}\" width=\"12\" height=\"12\" fill=\"{}\"/>",
            COLOURS[index % COLOURS.len()]
        );
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            x + 17.0,
            y + 11.0,
            escaped(name)
        );
        x += 34.0 + 7.5 * f64::from(u16::try_from(name.len()).unwrap_or(20));
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// Of the worst sample that has a record: its phases, cut at the fault, and what clients still needed after them.
fn bar(row: &Row) -> Option<Bar> {
    let samples = row
        .phases
        .iter()
        .filter_map(|record| Some((record["clients_back_after_fault_seconds"].as_f64()?, record)));
    let (whole, record) = samples.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let mut at = record["started_after_fault_seconds"].as_f64()?;
    let mut parts = Vec::new();
    for phase in record["phases"].as_array()? {
        let end = at + phase["milliseconds"].as_f64()? / 1000.0;
        // what began with the last sign of life began before the fault
        let shown = end.min(whole) - at.max(0.0).min(whole);
        parts.push((text(&phase["name"]), shown.max(0.0)));
        at = end;
    }
    let rest = whole - parts.iter().map(|(_, seconds)| seconds).sum::<f64>();
    parts.push(("Clients".to_owned(), rest.max(0.0)));
    let title = format!("{}, kubelet {}", row.variant, row.kubelet);
    Some(Bar { title, parts, whole })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use e2e::Conditions;
    use serde_json::json;

    use super::*;
    use crate::report::{Judgement, Sample};

    fn report() -> Report {
        let record = json!({
            "clients_back_after_fault_seconds": 20.0, "started_after_fault_seconds": -5.0,
            "phases": [{"name": "Detecting", "milliseconds": 15_000}, {"name": "Starting <&>", "milliseconds": 8_000}],
        });
        let sample = Sample {
            outage: Some(20.0),
            rows: Judgement::default(),
            record,
            remark: Value::Null,
        };
        let mut report = Report::default();
        report.put(
            "node-power-off",
            "default",
            &Conditions::now(Path::new(".")),
            vec![sample],
        );
        report
    }

    #[test]
    fn a_bar_begins_with_the_fault_and_ends_with_the_clients() {
        let bar = bar(&report().rows[0]).unwrap();
        let parts: Vec<_> = bar
            .parts
            .iter()
            .map(|(name, seconds)| (name.as_str(), *seconds))
            .collect();
        assert_eq!(parts, [("Detecting", 10.0), ("Starting <&>", 8.0), ("Clients", 2.0)]);
    }

    #[test]
    fn the_same_result_gives_the_same_picture_and_names_are_escaped() {
        let drawn = draw(&report(), "node-power-off").unwrap();
        assert_eq!(drawn, draw(&report(), "node-power-off").unwrap());
        assert!(
            drawn.contains("Starting &lt;&amp;&gt;") && !drawn.contains("<&>"),
            "{drawn}"
        );
    }

    #[test]
    fn a_result_without_the_fault_is_an_error_that_says_how_to_measure_it() {
        let error = draw(&report(), "node-paused").unwrap_err().to_string();
        assert!(error.contains("--only fault=node-paused"), "{error}");
    }
}
