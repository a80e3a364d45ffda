//! The oracle by hand. Exit codes: 0 all is well, 1 something was lost or written that must not be, 2 it could not be
//! found out.

use std::fmt::Write as _;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use jiff::{SignedDuration, Timestamp};
use oracle::client::Target;
use oracle::log::{Log, Row};
use oracle::outage::{Outage, outage};
use oracle::verify::{Verdict, verify};
use oracle::write::{Plan, write};
use oracle::writers;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

type Failure = Box<dyn std::error::Error>;

/// Writes rows through a database's address, remembers what was acknowledged, and reads it back.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write rows until a signal or the end of --for; a new connection for each
    Write {
        #[command(flatten)]
        access: Access,
        /// Number of this run; give each run of a table its own
        #[arg(long)]
        epoch: i64,
        /// File for what became of each row; continued if it is there
        #[arg(long)]
        log: PathBuf,
        /// Number of the first row
        #[arg(long, default_value_t = 1)]
        first: i64,
        /// Time between two rows
        #[arg(long, default_value = "50ms", value_parser = duration)]
        interval: Duration,
        /// How many attempts may be under way at once
        #[arg(long, default_value_t = 1)]
        in_flight: usize,
        /// How long to write; until SIGINT or SIGTERM if not given
        #[arg(long = "for", value_parser = duration)]
        time: Option<Duration>,
        /// How long to wait for the database before the first row
        #[arg(long, default_value = "60s", value_parser = duration)]
        wait: Duration,
    },
    /// Read all rows back and compare them with the log
    Verify {
        #[command(flatten)]
        access: Access,
        /// What `oracle write` logged
        #[arg(long)]
        log: PathBuf,
        /// How long to wait for the database
        #[arg(long, default_value = "60s", value_parser = duration)]
        wait: Duration,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell how long nobody could write
    Outage {
        /// What `oracle write` logged
        #[arg(long)]
        log: PathBuf,
        /// When the fault happened: 2026-01-31T12:00:00.5Z, or seconds since 1970
        #[arg(long, value_parser = time)]
        at: Timestamp,
        /// Leave out what happened after that
        #[arg(long, value_parser = time)]
        until: Option<Timestamp>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look for two writers in the storage host's log
    Writers {
        /// The file behind `test-storage host --log`
        #[arg(long)]
        storage_log: PathBuf,
        /// Judge this volume only
        #[arg(long)]
        volume: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct Access {
    /// HOST:PORT of the database
    #[arg(long)]
    address: String,
    #[command(flatten)]
    password: Password,
    /// Database for the rows; made if it is not there
    #[arg(long, default_value = "oracle", value_parser = plain_name)]
    database: String,
    /// Table for the rows; made if it is not there
    #[arg(long, default_value = "oracle_rows", value_parser = plain_name)]
    table: String,
    /// Limit on the connection, on the login and on the statement
    #[arg(long, default_value = "1s", value_parser = duration)]
    timeout: Duration,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Password {
    /// Environment variable with the password of sa
    #[arg(long)]
    password_env: Option<String>,
    /// File with the password of sa
    #[arg(long)]
    password_file: Option<PathBuf>,
}

impl Access {
    fn target(self) -> Result<Target, Failure> {
        let Self {
            address,
            password,
            database,
            table,
            timeout,
        } = self;
        let password = match (password.password_env, password.password_file) {
            (Some(name), _) => std::env::var(&name)
                .map_err(|error| format!("the environment variable {name} has no password: {error}"))?,
            (None, Some(path)) => std::fs::read_to_string(&path)
                .map_err(|error| format!("the password file {} cannot be read: {error}", path.display()))?
                .trim_end_matches(['\r', '\n'])
                .to_owned(),
            (None, None) => return Err("give --password-env or --password-file".into()),
        };
        Ok(Target {
            address,
            password,
            database,
            table,
            timeout,
        })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("oracle: {failure}");
            ExitCode::from(2)
        }
    }
}

/// Runs a command; yields whether all is well.
async fn run(command: Command) -> Result<bool, Failure> {
    match command {
        Command::Write {
            access,
            epoch,
            log,
            first,
            interval,
            in_flight,
            time,
            wait,
        } => {
            let plan = Plan {
                epoch,
                first,
                interval,
                in_flight,
                time,
                patience: wait,
            };
            let summary = write(access.target()?, plan, &log, stop_on_signal()?).await?;
            println!("{}", serde_json::to_string(&summary)?);
            Ok(true)
        }
        Command::Verify {
            access,
            log,
            wait,
            json,
        } => {
            let log = Log::read(&log)?;
            let verdict = verify(&log, &read_back(&access.target()?, wait).await?);
            print(&verdict, json, describe_verdict)?;
            Ok(verdict.is_clean())
        }
        Command::Outage { log, at, until, json } => {
            let outage = outage(&Log::read(&log)?, at, until);
            print(&outage, json, describe_outage)?;
            Ok(outage.recovered)
        }
        Command::Writers {
            storage_log,
            volume,
            json,
        } => {
            let file = std::fs::File::open(&storage_log)
                .map_err(|error| format!("the storage log {} cannot be opened: {error}", storage_log.display()))?;
            let findings = writers::judge(&writers::read(BufReader::new(file))?, volume.as_deref());
            print(&findings, json, describe_writers)?;
            Ok(findings.is_clean())
        }
    }
}

fn stop_on_signal() -> Result<watch::Receiver<bool>, Failure> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.send_replace(true);
    });
    Ok(stopped)
}

async fn read_back(target: &Target, patience: Duration) -> Result<Vec<Row>, Failure> {
    let gives_up = tokio::time::Instant::now() + patience;
    loop {
        match target.read_back().await {
            Ok(rows) => return Ok(rows),
            Err(failure) if tokio::time::Instant::now() >= gives_up => {
                return Err(format!("the rows at {} cannot be read back: {failure}", target.address).into());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

fn print<T: Serialize>(value: &T, json: bool, describe: fn(&T) -> String) -> Result<(), Failure> {
    if json {
        println!("{}", serde_json::to_string_pretty(value)?);
    } else {
        print!("{}", describe(value));
    }
    Ok(())
}

fn describe_verdict(verdict: &Verdict) -> String {
    let Verdict {
        acknowledged,
        failed,
        unknown,
        stored,
        stored_unknown,
        other_epochs,
        ..
    } = verdict;
    let mut text = format!(
        "{acknowledged} acknowledged, {failed} failed, {unknown} unknown; {stored} stored, of these {stored_unknown} unknown\n"
    );
    if *other_epochs > 0 {
        let _ = writeln!(text, "{other_epochs} rows of other epochs were not judged");
    }
    let Verdict {
        lost,
        duplicates,
        out_of_order,
        unexpected,
        by_old_engine,
        ..
    } = verdict;
    for (what, rows) in [
        ("LOST", lost),
        ("STORED TWICE", duplicates),
        ("OUT OF ORDER", out_of_order),
        ("UNEXPECTED", unexpected),
        ("ACKNOWLEDGED BY THE OLD ENGINE AFTER THE NEW ONE", by_old_engine),
    ] {
        if let Some(first) = rows.first() {
            let _ = writeln!(
                text,
                "{what}: {} rows, the first is epoch {}, seq {}",
                rows.len(),
                first.epoch,
                first.seq
            );
        }
    }
    if verdict.is_clean() {
        text.push_str("every acknowledged row is there, once and in order\n");
    }
    text
}

fn describe_outage(outage: &Outage) -> String {
    let Outage {
        seconds,
        from,
        to,
        recovered,
        around_instant_seconds: _,
        not_acknowledged,
        errors,
    } = outage;
    let at = |moment: &Option<oracle::log::Moment>| moment.map_or("-".to_owned(), |moment| moment.wall.to_string());
    let mut text = match (recovered, to) {
        (true, Some(_)) => format!("{seconds:.3} s, from {} to {}\n", at(from), at(to)),
        _ => format!(
            "NOT RECOVERED: nothing acknowledged in the last {seconds:.3} s of the log, since {}\n",
            at(from)
        ),
    };
    let _ = writeln!(text, "{not_acknowledged} attempts were not acknowledged");
    for (error, count) in errors {
        let _ = writeln!(text, "{count:6}  {error}");
    }
    text
}

fn describe_writers(findings: &writers::Findings) -> String {
    let writers::Findings {
        accepted,
        refused,
        late,
        interleaved,
    } = findings;
    let mut text = format!("{accepted} writes accepted, {refused} refused\n");
    for (what, events) in [("LATE WRITES", late), ("TWO WRITERS TAKING TURNS", interleaved)] {
        if let Some(first) = events.first() {
            let (volume, node, seq) = (&first.volume, &first.node, first.seq);
            let _ = writeln!(
                text,
                "{what}: {}, the first to {volume} by {node} (entry {seq})",
                events.len()
            );
        }
    }
    if findings.is_clean() {
        text.push_str("one writer at a time\n");
    }
    text
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text
        .parse()
        .map_err(|_| "give a duration such as 50ms, 1.5s or 2m".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "a duration cannot be negative".to_owned())
}

fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        let since = SignedDuration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
        return Timestamp::from_duration(since).map_err(|error| error.to_string());
    }
    text.parse()
        .map_err(|_| "give a time such as 2026-01-31T12:00:00.5Z, or seconds since 1970".to_owned())
}

/// Names go into statements as they are.
fn plain_name(text: &str) -> Result<String, String> {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain {
        Ok(text.to_owned())
    } else {
        Err("give a name of letters, digits and '_'".to_owned())
    }
}
