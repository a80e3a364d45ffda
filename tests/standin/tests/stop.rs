//! How a stand-in ends, and what is left: signals, SHUTDOWN, power cuts, failing volumes.

mod instance;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use instance::{Instance, PASSWORD, command, login, numbers, refusal, run, with_environment};
use rustix::process::{Signal, test_kill_process};
use tiberius::EncryptionLevel;

const TABLE: &str = "CREATE TABLE dbo.t (epoch BIGINT NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (epoch, seq))";

fn logs_left(root: &Path) -> usize {
    let files = root.join("data").read_dir().unwrap();
    files
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().ends_with("-wal"))
        .count()
}

#[tokio::test]
async fn sigterm_checkpoints_every_database_and_exits_0() {
    let folder = tempfile::tempdir().unwrap();
    let mut instance = Instance::ready(&mut command(folder.path()));
    let mut sql = instance.client().await;
    run(&mut sql, "CREATE DATABASE sales; USE sales").await;
    run(
        &mut sql,
        &format!("{TABLE}; INSERT INTO dbo.t (epoch, seq) VALUES (1, 1)"),
    )
    .await;
    assert!(logs_left(folder.path()) > 0);
    assert_eq!(instance.stop().code(), Some(0));
    assert_eq!(logs_left(folder.path()), 0);
    assert!(
        instance
            .whole_log()
            .contains("terminating in response to a stop request")
    );
    let mut again = Instance::ready(&mut command(folder.path()));
    again.stop();
    assert!(!again.whole_log().contains("The last stop was not clean"));
}

#[tokio::test]
async fn sigterm_does_not_wait_for_a_client_with_an_open_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let mut instance = Instance::ready(&mut command(folder.path()));
    let mut sql = instance.client().await;
    run(
        &mut sql,
        &format!("{TABLE}; BEGIN TRAN; INSERT INTO dbo.t (epoch, seq) VALUES (1, 1)"),
    )
    .await;
    assert_eq!(instance.stop().code(), Some(0));
    let again = Instance::ready(&mut command(folder.path()));
    assert_eq!(
        numbers(&mut again.client().await, "SELECT COUNT(*) FROM dbo.t").await,
        [0]
    );
}

#[tokio::test]
async fn shutdown_exits_0_with_a_checkpoint_and_with_nowait_without() {
    for (statement, clean) in [("SHUTDOWN", true), ("SHUTDOWN WITH NOWAIT", false)] {
        let folder = tempfile::tempdir().unwrap();
        let mut instance = Instance::ready(&mut command(folder.path()));
        let mut sql = instance.client().await;
        run(
            &mut sql,
            &format!("{TABLE}; INSERT INTO dbo.t (epoch, seq) VALUES (1, 1)"),
        )
        .await;
        run(&mut sql, statement).await;
        assert_eq!(instance.wait().code(), Some(0), "{statement}");
        assert_eq!(logs_left(folder.path()) == 0, clean, "{statement}");
        let again = Instance::ready(&mut command(folder.path()));
        assert_eq!(
            numbers(&mut again.client().await, "SELECT COUNT(*) FROM dbo.t").await,
            [1],
            "{statement}"
        );
    }
}

#[tokio::test]
async fn a_stand_in_told_to_ignore_sigterm_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut instance = Instance::ready(command(folder.path()).env("STANDIN_IGNORE_SIGTERM", "1"));
    instance.signal(Signal::TERM);
    rustix::process::kill_process(instance.engine(), Signal::TERM).unwrap();
    // both have had the signal when they answer after it
    for _ in 0..20 {
        assert_eq!(numbers(&mut instance.client().await, "SELECT 1").await, [1]);
    }
    instance.kill();
}

#[test]
fn a_killed_parent_takes_the_engine_with_it_and_frees_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut instance = Instance::ready(&mut command(folder.path()));
    let engine = instance.engine();
    instance.kill();
    let deadline = Instant::now() + Duration::from_secs(10);
    while test_kill_process(engine).is_ok() {
        assert!(Instant::now() < deadline, "the engine outlived its parent");
        std::thread::sleep(Duration::from_millis(5));
    }
    Instance::ready(&mut command(folder.path()));
}

#[test]
fn a_killed_engine_ends_the_parent_with_the_signals_code() {
    let folder = tempfile::tempdir().unwrap();
    let mut instance = Instance::ready(&mut command(folder.path()));
    rustix::process::kill_process(instance.engine(), Signal::KILL).unwrap();
    assert_eq!(instance.wait().into_raw() >> 8, 128 + 9);
    let again = Instance::ready(&mut command(folder.path()));
    again.wait_for("The last stop was not clean");
}

/// Inserts rows, each over a connection of its own, until told to stop; yields what was acknowledged.
async fn insert_until(stop: Arc<AtomicBool>, next: Arc<AtomicI64>, address: std::net::SocketAddr) -> Vec<i64> {
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut sql) = login(address, PASSWORD, "master", EncryptionLevel::NotSupported).await else {
            continue;
        };
        let seq = next.fetch_add(1, Ordering::Relaxed);
        if sql
            .execute("INSERT INTO dbo.t (epoch, seq) VALUES (1, @P1)", &[&seq])
            .await
            .is_ok()
        {
            acknowledged.push(seq);
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_under_load_loses_no_acknowledged_row() {
    let folder = tempfile::tempdir().unwrap();
    let (next, mut acknowledged) = (Arc::new(AtomicI64::new(0)), Vec::new());
    let mut instance = Instance::ready(&mut command(folder.path()));
    run(&mut instance.client().await, TABLE).await;
    for _ in 0..3 {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, goal) = (instance.address(), next.load(Ordering::Relaxed) + 60);
        let clients: Vec<_> = (0..4)
            .map(|_| tokio::spawn(insert_until(Arc::clone(&stop), Arc::clone(&next), address)))
            .collect();
        while next.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        instance.kill();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            acknowledged.extend(client.await.unwrap());
        }
        instance = Instance::ready(&mut command(folder.path()));
    }
    let stored: BTreeSet<i64> = numbers(&mut instance.client().await, "SELECT seq FROM dbo.t")
        .await
        .into_iter()
        .collect();
    let lost: Vec<&i64> = acknowledged.iter().filter(|seq| !stored.contains(seq)).collect();
    assert!(
        acknowledged.len() > 100,
        "only {} rows were acknowledged",
        acknowledged.len()
    );
    assert!(
        lost.is_empty(),
        "lost {lost:?} of {} acknowledged rows",
        acknowledged.len()
    );
}

#[tokio::test]
async fn a_write_that_the_operating_system_fails_is_never_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Instance::ready(&mut command(folder.path()));
    run(
        &mut first.client().await,
        &format!("CREATE DATABASE sales; USE sales; {TABLE}"),
    )
    .await;
    first.stop();
    // a limit on the size of files makes write(2) fail in the middle of things, without root
    let mut limited = Command::new("bash");
    limited.args([
        "-c",
        "trap '' XFSZ; ulimit -f 200; exec \"$0\"",
        env!("CARGO_BIN_EXE_sqledge-standin"),
    ]);
    with_environment(&mut limited, folder.path());
    let mut instance = Instance::ready(&mut limited);
    let mut sql = login(instance.address(), PASSWORD, "sales", EncryptionLevel::Required)
        .await
        .unwrap();
    let mut acknowledged = 0_i64;
    let error = loop {
        match sql
            .execute("INSERT INTO dbo.t (epoch, seq) VALUES (1, @P1)", &[&acknowledged])
            .await
        {
            Ok(_) => acknowledged += 1,
            Err(error) => break instance::server_error(error),
        }
        assert!(acknowledged < 10_000, "the limit was never met");
    };
    assert_eq!(error.0, 823, "{}", error.1);
    instance.wait_for("Error: 823, Severity: 24");
    // the instance goes on, the database does not
    let mut sql = instance.client().await;
    let state = sql
        .simple_query("SELECT state_desc FROM sys.databases WHERE name = 'sales'")
        .await
        .unwrap();
    assert_eq!(
        state.into_row().await.unwrap().unwrap().get::<&str, _>(0),
        Some("SUSPECT")
    );
    assert_eq!(refusal(&mut sql, "USE sales; SELECT COUNT(*) FROM dbo.t").await.0, 9001);
    assert!(
        login(instance.address(), PASSWORD, "sales", EncryptionLevel::Required)
            .await
            .is_err()
    );
    assert_eq!(
        instance.stop().code(),
        Some(1),
        "a stop that could not checkpoint says so"
    );
    let healed = Instance::ready(&mut command(folder.path()));
    let mut sql = login(healed.address(), PASSWORD, "sales", EncryptionLevel::Required)
        .await
        .unwrap();
    let stored = numbers(&mut sql, "SELECT seq FROM dbo.t ORDER BY seq").await;
    let count = i64::try_from(stored.len()).unwrap();
    assert!(count >= acknowledged, "{count} of {acknowledged} acknowledged rows");
    assert!(stored.iter().copied().eq(0..count));
}

#[tokio::test]
async fn a_full_volume_is_error_9002_and_goes_away_with_new_space() {
    let probe = Command::new("unshare")
        .args(["--map-root-user", "--mount", "true"])
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!(
            "SKIPPED: this machine lets no program have a mount namespace of its own, which a small volume needs"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=1m standin \"$1\" && head -c 350k /dev/zero > \"$1/ballast\" && exec \"$0\"";
    let mut small = Command::new("unshare");
    small.args([
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        env!("CARGO_BIN_EXE_sqledge-standin"),
    ]);
    small.arg(folder.path());
    with_environment(&mut small, folder.path());
    let instance = Instance::ready(&mut small);
    let mut sql = instance.client().await;
    run(&mut sql, TABLE).await;
    let mut acknowledged = 0_i64;
    let error = loop {
        match sql
            .execute("INSERT INTO dbo.t (epoch, seq) VALUES (1, @P1)", &[&acknowledged])
            .await
        {
            Ok(_) => acknowledged += 1,
            Err(error) => break instance::server_error(error),
        }
        assert!(acknowledged < 10_000, "the volume was never full");
    };
    assert_eq!(error.0, 9002, "{}", error.1);
    assert_eq!(numbers(&mut sql, "SELECT COUNT(*) FROM dbo.t").await, [acknowledged]);
    let space = "SELECT available_bytes FROM sys.dm_os_volume_stats(1, 1)";
    let left = numbers(&mut sql, space).await[0];
    assert!(left < 64 << 10, "{left} bytes are left on a full volume");
    let ballast = format!(
        "/proc/{}/root{}/ballast",
        instance.engine().as_raw_nonzero(),
        folder.path().display()
    );
    std::fs::remove_file(ballast).unwrap();
    let left = numbers(&mut sql, space).await[0];
    assert!(left >= 350 << 10, "{left} bytes are left once the ballast is gone");
    run(
        &mut sql,
        &format!("INSERT INTO dbo.t (epoch, seq) VALUES (1, {acknowledged})"),
    )
    .await;
    assert_eq!(
        numbers(&mut sql, "SELECT COUNT(*) FROM dbo.t").await,
        [acknowledged + 1]
    );
}
