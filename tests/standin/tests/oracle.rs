//! The oracle client against a real server: a crash it must find clean, and a loss it must find.

mod instance;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use instance::{Instance, PASSWORD, command, login, run};
use oracle::client::Target;
use oracle::log::{Log, Outcome};
use oracle::outage::outage;
use oracle::verify::verify;
use oracle::write::{Plan, Summary, write};
use tiberius::EncryptionLevel;
use tokio::sync::watch;
use tokio::task::JoinHandle;

fn target(address: SocketAddr) -> Target {
    Target {
        address: address.to_string(),
        password: PASSWORD.to_owned(),
        database: "oracle".to_owned(),
        table: "oracle_rows".to_owned(),
        timeout: Duration::from_secs(1),
    }
}

/// Writes in the background until the sender says stop.
fn start(address: SocketAddr, log: &Path, in_flight: usize) -> (watch::Sender<bool>, JoinHandle<Summary>) {
    let plan = Plan {
        epoch: 1,
        first: 1,
        interval: Duration::from_millis(2),
        in_flight,
        time: None,
        patience: Duration::from_secs(10),
    };
    let (stop, stopped) = watch::channel(false);
    let (target, log) = (target(address), log.to_owned());
    (
        stop,
        tokio::spawn(async move { write(target, plan, &log, stopped).await.unwrap() }),
    )
}

/// Waits until so many rows are acknowledged.
async fn acknowledged(log: &Path, count: usize) {
    let count_now = || Log::read(log).map_or(0, |log| log.acknowledged().len());
    let waiting = async {
        while count_now() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .expect("rows are acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_the_middle_costs_an_outage_and_no_row() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("rows.log");
    let mut first = Instance::ready(&mut command(folder.path()));
    let address = first.address();
    let (stop, writing) = start(address, &log, 2);
    acknowledged(&log, 30).await;
    let fault = jiff::Timestamp::now();
    first.kill();
    let second = Instance::ready(command(folder.path()).env("MSSQL_TCP_PORT", address.port().to_string()));
    acknowledged(&log, 60).await;
    stop.send_replace(true);
    let summary = writing.await.unwrap();
    let read = Log::read(&log).unwrap();
    let verdict = verify(&read, &target(second.address()).read_back().await.unwrap());
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(u64::try_from(verdict.acknowledged).unwrap(), summary.acknowledged);
    let engines: std::collections::BTreeSet<_> = read.attempts.iter().filter_map(|a| a.engine.clone()).collect();
    assert_eq!(engines.len(), 2, "the two engines can be told apart");
    let outage = outage(&read, fault, None);
    // recovery after a crash takes a second
    assert!(outage.recovered && (0.9..20.0).contains(&outage.seconds), "{outage:?}");
    assert!(
        outage.not_acknowledged > 0 && outage.errors.keys().any(|error| error.starts_with("login: ")),
        "{outage:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_vanish_are_found_and_so_is_a_vanished_database() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("rows.log");
    let instance = Instance::ready(&mut command(folder.path()));
    let (stop, writing) = start(instance.address(), &log, 1);
    acknowledged(&log, 10).await;
    stop.send_replace(true);
    writing.await.unwrap();
    let mut sql = login(instance.address(), PASSWORD, "oracle", EncryptionLevel::Required)
        .await
        .unwrap();
    run(&mut sql, "DELETE FROM dbo.oracle_rows WHERE seq = 4").await;
    run(
        &mut sql,
        "INSERT INTO dbo.oracle_rows (epoch, seq) VALUES (1, 5), (1, 100000)",
    )
    .await;
    let read = Log::read(&log).unwrap();
    let verdict = verify(&read, &target(instance.address()).read_back().await.unwrap());
    let sequences = |rows: &[oracle::log::Row]| rows.iter().map(|row| row.seq).collect::<Vec<_>>();
    assert_eq!(sequences(&verdict.lost), [4]);
    assert_eq!(sequences(&verdict.duplicates), [5]);
    assert_eq!(sequences(&verdict.unexpected), [100_000]);
    run(&mut sql, "USE master; DROP DATABASE oracle").await;
    let verdict = verify(&read, &target(instance.address()).read_back().await.unwrap());
    assert_eq!(verdict.lost.len(), verdict.acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_hangs_makes_attempts_unknown_or_failed_and_never_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("rows.log");
    let instance = Instance::ready(&mut command(folder.path()));
    let (stop, writing) = start(instance.address(), &log, 1);
    acknowledged(&log, 5).await;
    rustix::process::kill_process(instance.engine(), rustix::process::Signal::STOP).unwrap();
    let hung_up = async {
        loop {
            let attempts = Log::read(&log).unwrap().attempts;
            let timed_out = attempts
                .iter()
                .filter(|a| a.error.as_ref().is_some_and(|e| e.ends_with("timed out")));
            if timed_out.count() >= 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), hung_up)
        .await
        .expect("attempts time out after a second each");
    rustix::process::kill_process(instance.engine(), rustix::process::Signal::CONT).unwrap();
    stop.send_replace(true);
    writing.await.unwrap();
    let read = Log::read(&log).unwrap();
    assert!(
        read.attempts
            .iter()
            .all(|a| (a.outcome == Outcome::Ack) == a.error.is_none())
    );
    let verdict = verify(&read, &target(instance.address()).read_back().await.unwrap());
    assert!(verdict.is_clean(), "{verdict:?}");
}
