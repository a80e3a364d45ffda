//! How a stand-in starts: what it refuses, what it sets up, what it keeps, and what clients see meanwhile.

mod instance;

use std::time::{Duration, Instant};

use instance::{Instance, PASSWORD, command, login, numbers, run, server_error};
use rustix::process::Signal;
use tiberius::EncryptionLevel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Starts `command`, which must end by itself; yields its exit code and its log.
fn ended(command: &mut std::process::Command) -> (Option<i32>, String) {
    let mut instance = Instance::spawn(command);
    let code = instance.wait().code();
    (code, instance.whole_log())
}

#[test]
fn without_the_license_it_refuses_and_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (code, log) = ended(command(folder.path()).env_remove("ACCEPT_EULA"));
    assert_eq!(code, Some(1));
    assert!(log.contains("License Agreement (EULA) must be accepted"), "{log}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_new_folder_needs_a_password_that_keeps_the_rule() {
    let folder = tempfile::tempdir().unwrap();
    for (password, words) in [
        ("Ab1!", "too short"),
        ("abcdefgh1", "not complex enough"),
        ("", "too short"),
    ] {
        let (code, log) = ended(command(folder.path()).env("MSSQL_SA_PASSWORD", password));
        assert_eq!(code, Some(1));
        assert!(
            log.contains("Unable to set system administrator password") && log.contains(words),
            "{log}"
        );
    }
    let mut without = command(folder.path());
    assert_eq!(ended(without.env_remove("MSSQL_SA_PASSWORD")).0, Some(1));
    // a refused start leaves the folder usable
    let old_name = without.env_remove("MSSQL_SA_PASSWORD").env("SA_PASSWORD", PASSWORD);
    Instance::ready(old_name);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data"), b"a file").unwrap();
    let (code, log) = ended(&mut command(folder.path()));
    assert_eq!(code, Some(1));
    assert!(
        log.contains("The system directory [") && log.contains("could not be created"),
        "{log}"
    );
}

#[test]
fn a_new_folder_gets_the_template_databases() {
    let folder = tempfile::tempdir().unwrap();
    Instance::ready(&mut command(folder.path()));
    for file in ["master.mdf", "model.mdf", "msdbdata.mdf", "tempdb.mdf"] {
        assert!(folder.path().join("data").join(file).exists(), "{file}");
    }
}

#[test]
fn the_log_says_what_it_is_and_when_it_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let mut instance = Instance::ready(&mut command(folder.path()));
    instance.stop();
    let log = instance.whole_log();
    let lines = [
        "SQL Edge stand-in",
        "not a Microsoft product",
        "SQL Server is now ready for client connections",
        "Recovery is complete",
    ];
    let places: Vec<Option<usize>> = lines.iter().map(|text| log.find(text)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{log}");
}

#[tokio::test]
async fn a_restart_keeps_the_data_and_the_password_and_ignores_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut instance = Instance::ready(&mut command(folder.path()));
    let mut sql = instance.client().await;
    run(
        &mut sql,
        "CREATE DATABASE sales; USE sales; CREATE TABLE t (a INT NOT NULL PRIMARY KEY, b NVARCHAR(20))",
    )
    .await;
    run(&mut sql, "INSERT INTO t (a, b) VALUES (7, N'été')").await;
    assert_eq!(instance.stop().code(), Some(0));
    let restarted = Instance::ready(command(folder.path()).env("MSSQL_SA_PASSWORD", "Other!Passw0rd"));
    let error = login(
        restarted.address(),
        "Other!Passw0rd",
        "master",
        EncryptionLevel::Required,
    )
    .await
    .err()
    .unwrap();
    assert_eq!(server_error(error).0, 18456);
    let mut sql = login(restarted.address(), PASSWORD, "sales", EncryptionLevel::Required)
        .await
        .unwrap();
    let row = sql
        .simple_query("SELECT b FROM t WHERE a = 7")
        .await
        .unwrap()
        .into_row()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.get::<&str, _>(0), Some("été"));
    // and a restart needs no password at all
    drop(restarted);
    Instance::ready(command(folder.path()).env_remove("MSSQL_SA_PASSWORD"));
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_refuses_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let first = Instance::ready(&mut command(folder.path()));
    let (code, log) = ended(&mut command(folder.path()));
    assert_eq!(code, Some(1));
    assert!(log.contains("Error: 17113"), "{log}");
    assert!(
        log.contains("Error 5(Access is denied.) occurred while opening file '"),
        "{log}"
    );
    assert_eq!(numbers(&mut first.client().await, "SELECT 1").await, [1]);
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, log) = ended(command(folder.path()).env("MSSQL_TCP_PORT", &port));
    assert_eq!(code, Some(1));
    assert!(log.contains("Error: 26023") && log.contains(&port), "{log}");
}

#[tokio::test]
async fn during_recovery_prelogin_is_answered_and_logins_fail() {
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let instance = Instance::spawn(command(folder.path()).env("STANDIN_RECOVERY_SECONDS", "2"));
    let address = instance.address();
    prelogin(address).await;
    let error = login(address, PASSWORD, "master", EncryptionLevel::Required)
        .await
        .err()
        .unwrap();
    let (number, text) = server_error(error);
    assert_eq!(number, 18401);
    assert!(text.contains("script upgrade mode"), "{text}");
    instance.wait_for("Recovery is complete");
    assert!(started.elapsed() >= Duration::from_secs(2));
    instance.client().await;
}

#[tokio::test]
async fn an_instance_that_never_gets_ready_still_stops_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let mut instance = Instance::spawn(command(folder.path()).env("STANDIN_NEVER_READY", "1"));
    instance.wait_for("recovery does not end");
    assert!(
        login(instance.address(), PASSWORD, "master", EncryptionLevel::Required)
            .await
            .is_err()
    );
    assert_eq!(instance.stop().code(), Some(0));
}

#[tokio::test]
async fn before_the_start_delay_is_over_nothing_listens() {
    let folder = tempfile::tempdir().unwrap();
    // an address of its own, because the other tests take ports of 127.0.0.1 at the same time
    let free = tokio::net::TcpListener::bind("127.99.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let mut delayed = command(folder.path());
    delayed
        .env("STANDIN_START_DELAY_SECONDS", "60")
        .env("MSSQL_IP_ADDRESS", "127.99.0.1")
        .env("MSSQL_TCP_PORT", free.port().to_string());
    let mut instance = Instance::spawn(&mut delayed);
    instance.wait_for("SQL Edge stand-in");
    assert_eq!(
        TcpStream::connect(free).await.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    instance.signal(Signal::TERM);
    assert_eq!(instance.wait().code(), Some(0));
}

#[tokio::test]
async fn a_stopped_process_accepts_tcp_and_does_not_answer_prelogin() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::ready(&mut command(folder.path()));
    rustix::process::kill_process(instance.engine(), Signal::STOP).unwrap();
    let mut tcp = TcpStream::connect(instance.address()).await.unwrap();
    tcp.write_all(&PRELOGIN).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_millis(500), tcp.read_u8()).await;
    assert!(answer.is_err(), "a stopped process answered");
    rustix::process::kill_process(instance.engine(), Signal::CONT).unwrap();
    assert_eq!(tcp.read_u8().await.unwrap(), 0x04);
}

/// Version and encryption, as a probe sends them.
const PRELOGIN: [u8; 26] = [
    0x12, 1, 0, 26, 0, 0, 0, 0, // header
    0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xFF, // options
    0, 0, 0, 0, 0, 0, 2, // version, encryption not supported
];

async fn prelogin(address: std::net::SocketAddr) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(&PRELOGIN).await.unwrap();
    assert_eq!(tcp.read_u8().await.unwrap(), 0x04);
}
