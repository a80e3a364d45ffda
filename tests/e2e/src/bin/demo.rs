//! `make demo`: a database on a real three-node cluster; its pod is deleted, then the node under it loses power.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use clap::Parser;
use e2e::{
    Clients, Error, Instance, Lab, Programs, Result,
    error::ensure,
    lab::{ENGINE_IMAGE, REVOKING},
    operator,
    timeline::{self, Timeline},
    volume,
    wait::{Seen, until},
};
use jiff::Timestamp;
use serde::Serialize;

/// Shows the operator on a real cluster.
#[derive(Parser)]
struct Arguments {
    /// Name of the testbed
    #[arg(long, default_value = "demo")]
    name: String,
    /// Folder with the image archives (tests/e2e/images.sh)
    #[arg(long)]
    archives: PathBuf,
    /// The checkout
    #[arg(long, default_value = ".")]
    checkout: PathBuf,
    /// Where the result goes
    #[arg(long, default_value = "target/demo.json")]
    output: PathBuf,
}

/// target/demo.json.
#[derive(Serialize)]
struct Report {
    commit: String,
    dirty: bool,
    started: Timestamp,
    /// Everything that is not as shipped.
    settings: Vec<String>,
    rows_before: usize,
    rows_after_pod: usize,
    rows_after_node: usize,
    rows_acknowledged: usize,
    rows_lost: usize,
    address_before: String,
    address_after: String,
    node_before: String,
    node_after_pod: String,
    node_after: String,
    outage_pod_seconds: f64,
    outage_node_seconds: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("\ndemo: {error}"));
            say(&format!(
                "The cluster is left as it is: `testbed --name {} status` shows it, `make down` ends it.",
                arguments.name
            ));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    // a reader who has seen enough is no failure
    let _ = writeln!(io::stdout(), "{text}");
}

fn run(arguments: &Arguments) -> Result<()> {
    let started = Timestamp::now();
    let lab = &set_up(arguments)?;
    let (manifest, real_image) = minimal(lab)?;
    say(&format!(
        "\nexamples/minimal.yaml is applied with one line changed: no image can be pulled here, so {ENGINE_IMAGE}, a stand-in"
    ));
    say(&format!(
        "(a TDS server over SQLite, made for this demo and the tests), takes the place of {real_image}."
    ));
    let instance = Instance::named(lab, "default", "orders");
    let mut story = Timeline::of(lab, "default", "orders")?;
    lab.bed().kubectl_with_input(&["apply", "--filename=-"], &manifest)?;
    let ready = || Ok(instance.condition("Ready")?.is_some_and(|ready| ready.status == "True"));
    follow(&mut story, "the database is Ready", 120, ready)?;

    let mut clients = Clients::start(&instance)?;
    let address_before = instance.address()?;
    say(&format!(
        "\nClients outside the cluster write 20 rows a second to {}, a new connection for each.",
        clients.address()
    ));
    follow(&mut story, "100 rows are written", 60, || {
        Ok(clients.acknowledged()? >= 100)
    })?;
    let rows_before = clients.count()?;
    let node_before = instance.node()?;
    say(&format!("{rows_before} rows, on node {node_before}."));

    say("\n==== 1. The pod is deleted\n");
    let pod = instance.pod_name()?;
    let after_pod = survive(&mut story, &instance, &clients, "kubectl delete pod", 120, || {
        lab.kubectl(&["delete", "pod", &pod, "--wait=false"]).map(drop)
    })?;
    say("\n==== 2. The node under the database loses power\n");
    let doomed = instance.node()?;
    say(&format!("With node {doomed} go: {}.", elsewhere(lab, &doomed)?));
    let after_node = survive(
        &mut story,
        &instance,
        &clients,
        &format!("power off node {doomed}"),
        300,
        || Ok(lab.bed().node(&doomed)?.power_off()?),
    )?;

    say("\n==== What the oracle says\n");
    let verdict = clients.verify()?;
    say(&format!(
        "{} rows were acknowledged to clients, {} are stored; none is lost, none is there twice.",
        verdict.acknowledged, verdict.stored
    ));
    let found = volume::one_writer(lab, &instance.volume()?)?;
    say(&format!(
        "{} writes reached the storage, from one node at a time.",
        found.accepted
    ));
    let address_after = instance.address()?;
    ensure(address_after == address_before, || {
        format!("the address changed from {address_before} to {address_after}")
    })?;
    ensure(after_node.node != doomed, || {
        format!("the status still names node {doomed}, which has no power")
    })?;
    say(&format!("The address was {address_before} all the time."));

    let (commit, dirty) = commit(&arguments.checkout);
    let report = Report {
        commit,
        dirty,
        started,
        settings: vec![
            format!("operator: driverClasses.{REVOKING}=Revoke"),
            format!("examples/minimal.yaml: spec.image={ENGINE_IMAGE} instead of {real_image}"),
        ],
        rows_before,
        rows_after_pod: after_pod.rows,
        rows_after_node: after_node.rows,
        rows_acknowledged: verdict.acknowledged,
        rows_lost: verdict.lost.len(),
        address_before,
        address_after,
        node_before,
        node_after_pod: after_pod.node,
        node_after: after_node.node,
        outage_pod_seconds: round(after_pod.outage),
        outage_node_seconds: round(after_node.outage),
    };
    write(&arguments.output, &report)?;
    farewell(arguments, &doomed);
    Ok(())
}

/// The cluster with the operator.
fn set_up(arguments: &Arguments) -> Result<Lab> {
    let programs = Programs {
        archives: arguments.archives.clone(),
        checkout: arguments.checkout.clone(),
        ..Programs::from_environment()?
    };
    say(
        "A control plane and three worker nodes are started (real etcd, Kubernetes, MetalLB; all in namespaces of their own) ...",
    );
    let lab = Lab::up(&arguments.name, programs)?;
    say(
        "\nThe operator is installed from deploy/install.yaml, as pods with their shipped RBAC. One thing is changed in it:",
    );
    say(&format!(
        "the operator's settings declare the class of the test storage ({REVOKING}: Revoke), as the owner of any storage does."
    ));
    operator::install_plain(&lab)?;
    for (pod, node) in operator::pods(&lab)? {
        say(&format!("  {pod} runs on node {node}"));
    }
    Ok(lab)
}

/// How things are after a fault.
struct After {
    rows: usize,
    node: String,
    outage: f64,
}

/// Does something bad and tells the story until the database is back.
fn survive(
    story: &mut Timeline,
    instance: &Instance,
    clients: &Clients,
    what: &str,
    seconds: u64,
    deed: impl FnOnce() -> Result<()>,
) -> Result<After> {
    let old = instance.pod_name()?;
    story.tell();
    let at = Timestamp::now();
    story.restart(at);
    story.say(at, "demo", what);
    deed()?;
    recover(story, instance, clients, &old, at, seconds)?;
    let (rows, node) = (clients.count()?, instance.node()?);
    let outage = clients.outage(at, None)?.seconds;
    say(&format!(
        "\n{rows} rows, on node {node}; for {outage:.1} s nobody could write."
    ));
    say("The operator's own record (status.lastFailover):");
    for line in timeline::record(&instance.resource()?) {
        say(&format!("  {line}"));
    }
    Ok(After { rows, node, outage })
}

/// The example with the stand-in's image, and the image that stands there.
fn minimal(lab: &Lab) -> Result<(String, String)> {
    let shipped = lab.programs().read("examples/minimal.yaml")?;
    let line = shipped.lines().find(|line| line.trim_start().starts_with("image:"));
    let line = line.ok_or_else(|| Error::Broken("examples/minimal.yaml no longer names an image".to_owned()))?;
    let image = line.trim().trim_start_matches("image:").trim().to_owned();
    Ok((shipped.replace(&image, ENGINE_IMAGE), image))
}

/// Tells the story until something is so.
fn follow(story: &mut Timeline, what: &str, seconds: u64, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let result = until(seconds, what, || {
        story.tell();
        let holds = holds()?;
        Ok(Seen::from(holds.then_some(())))
    });
    // what came in while the last look was under way
    std::thread::sleep(Duration::from_millis(300));
    story.tell();
    result
}

/// Tells the story until clients write again and the status says Ready.
fn recover(
    story: &mut Timeline,
    instance: &Instance,
    clients: &Clients,
    old: &str,
    since: Timestamp,
    seconds: u64,
) -> Result<()> {
    let mut told = false;
    follow(story, "the database is back", seconds, || {
        let outage = oracle::outage::outage(&clients.log()?, since, None);
        // the gap of the fault, and not the pause between two rows
        let back = outage.to.filter(|_| outage.recovered && outage.seconds > 0.5);
        if let (Some(back), false) = (back, told) {
            told = true;
            let after = (back.wall - since).total(jiff::Unit::Second).unwrap_or_default();
            say(&format!("  {after:+8.2} s  clients   rows are acknowledged again"));
        }
        let resource = instance.resource()?;
        let ready = e2e::instance::condition(&resource, "Ready").is_some_and(|ready| ready.status == "True");
        Ok(told && ready && resource["status"]["podName"] != *old)
    })?;
    clients.await_rows_after(Timestamp::now(), 30)
}

/// What else ran on the doomed node; nothing is spared.
fn elsewhere(lab: &Lab, node: &str) -> Result<String> {
    let on_it = format!("--field-selector=spec.nodeName={node}");
    let names = lab.kubectl(&[
        "get",
        "pods",
        "--all-namespaces",
        &on_it,
        "--output=jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}",
    ])?;
    Ok(names.lines().collect::<Vec<_>>().join(", "))
}

fn commit(checkout: &Path) -> (String, bool) {
    let git = |words: &[&str]| {
        let output = Command::new("git").arg("-C").arg(checkout).args(words).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    (
        git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned()),
        git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty()),
    )
}

fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn write(path: &Path, report: &Report) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    }
    let text = serde_json::to_string_pretty(report).expect("a report has only texts, numbers and lists");
    fs::write(path, text + "\n").map_err(Error::file("write", path))?;
    say(&format!("\nResult: {}", path.display()));
    Ok(())
}

fn farewell(arguments: &Arguments, doomed: &str) {
    let name = &arguments.name;
    say("\nThe cluster stays up. To look around:\n");
    for words in [
        "get sqledge",
        "get sqledge orders -o yaml",
        "get events --sort-by=.lastTimestamp",
        "-n sqledge-system logs -l app.kubernetes.io/name=sqledge-operator",
    ] {
        say(&format!("  make kubectl ARGS=\"{words}\""));
    }
    let program = std::env::var_os("SQLEDGE_PROGRAMS")
        .map_or_else(|| PathBuf::from("testbed"), |folder| Path::new(&folder).join("testbed"));
    say(&format!(
        "\nTo give node {doomed} its power back:\n\n  {} --name {name} node power-on {doomed}",
        program.display()
    ));
    say("\nTo end it:\n\n  make down");
}
