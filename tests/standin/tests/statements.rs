//! What clients can do with a stand-in, seen through tiberius.

mod instance;

use instance::{Instance, PASSWORD, command, login, numbers, refusal, run, server_error};
use tiberius::EncryptionLevel;

const TABLE: &str = "IF OBJECT_ID('dbo.orders','U') IS NULL CREATE TABLE dbo.orders \
                     (epoch BIGINT NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (epoch, seq))";

#[tokio::test]
async fn tiberius_logs_in_writes_and_reads_in_every_encryption_mode_the_server_allows() {
    use EncryptionLevel::{NotSupported, Off, On, Required};
    for (tls, levels) in [
        ("off", [NotSupported].as_slice()),
        ("optional", [NotSupported, Off, On, Required].as_slice()),
        ("forced", [Off, On, Required].as_slice()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::ready(command(folder.path()).env("STANDIN_TLS", tls));
        for (seq, level) in (0_i64..).zip(levels) {
            let mut sql = login(instance.address(), PASSWORD, "master", *level).await.unwrap();
            run(&mut sql, TABLE).await;
            let inserted = sql
                .execute("INSERT INTO dbo.orders (epoch, seq) VALUES (@P1, @P2)", &[&1_i64, &seq])
                .await;
            assert_eq!(inserted.unwrap().total(), 1, "TLS {tls}, client {level:?}");
            assert_eq!(numbers(&mut sql, "SELECT COUNT(*) FROM dbo.orders").await, [seq + 1]);
            assert_eq!(
                numbers(&mut sql, "SELECT MAX(seq) FROM dbo.orders WHERE epoch = 1").await,
                [seq]
            );
        }
    }
}

#[tokio::test]
async fn tls_that_the_other_side_does_not_have_is_an_error_and_not_a_stall() {
    let folder = tempfile::tempdir().unwrap();
    let plain = Instance::ready(command(folder.path()).env("STANDIN_TLS", "off"));
    assert!(
        login(plain.address(), PASSWORD, "master", EncryptionLevel::Required)
            .await
            .is_err()
    );
    drop(plain);
    let forced = Instance::ready(command(folder.path()).env("STANDIN_TLS", "forced"));
    assert!(
        login(forced.address(), PASSWORD, "master", EncryptionLevel::NotSupported)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn the_space_on_the_volume_is_what_the_operating_system_says() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::ready(&mut command(folder.path()));
    let mut sql = instance.client().await;
    let found = numbers(&mut sql, "SELECT total_bytes FROM sys.dm_os_volume_stats(1, 1)").await;
    let volume = rustix::fs::statvfs(folder.path()).unwrap();
    assert_eq!(found, [i64::try_from(volume.f_blocks * volume.f_frsize).unwrap()]);
    let available = numbers(&mut sql, "SELECT available_bytes FROM sys.dm_os_volume_stats(4, 2)").await;
    assert!((0..=found[0]).contains(&available[0]), "{available:?} of {found:?}");
    for nothing in ["99, 1", "1, 3", "NULL, 1"] {
        let query = format!("SELECT total_bytes FROM sys.dm_os_volume_stats({nothing})");
        assert!(numbers(&mut sql, &query).await.is_empty(), "{query}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_error_18456_and_a_line_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::ready(&mut command(folder.path()));
    for level in [EncryptionLevel::NotSupported, EncryptionLevel::Required] {
        let error = login(instance.address(), "Wr0ng!Passw0rd", "master", level)
            .await
            .err()
            .unwrap();
        assert_eq!(server_error(error), (18456, "Login failed for user 'sa'.".to_owned()));
    }
    instance.wait_for("Error: 18456, Severity: 14");
    let line = instance.wait_for("Password did not match that for the login provided.");
    assert!(line.contains("[CLIENT: 127.0.0.1"), "{line}");
}

#[tokio::test]
async fn a_login_to_a_database_that_is_not_there_is_error_4060() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::ready(&mut command(folder.path()));
    let error = login(instance.address(), PASSWORD, "nowhere", EncryptionLevel::Required)
        .await
        .err()
        .unwrap();
    assert_eq!(server_error(error).0, 4060);
}

#[tokio::test]
async fn an_unknown_statement_is_error_102_that_names_it_and_the_session_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::ready(&mut command(folder.path()));
    let mut sql = instance.client().await;
    let (number, text) = refusal(&mut sql, "BACKUP DATABASE orders TO DISK = 'x'").await;
    assert_eq!(number, 102);
    assert!(text.contains("BACKUP DATABASE orders TO DISK = 'x'"), "{text}");
    let error = sql
        .query("MERGE INTO t", &[])
        .await
        .expect_err("an unknown statement in a call");
    assert_eq!(server_error(error).0, 102);
    assert_eq!(numbers(&mut sql, "SELECT 1").await, [1]);
}

#[tokio::test]
async fn the_server_tells_its_name_its_version_and_that_it_is_a_stand_in() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::ready(command(folder.path()).env("MSSQL_PID", "Premium"));
    let mut sql = instance.client().await;
    let batch = "SELECT @@VERSION AS v, @@SERVERNAME, CAST(SERVERPROPERTY('ProductVersion') AS NVARCHAR(128))";
    let row = sql
        .simple_query(batch)
        .await
        .unwrap()
        .into_row()
        .await
        .unwrap()
        .unwrap();
    let text = |index: usize| row.get::<&str, _>(index).unwrap().to_owned();
    assert!(
        text(0).starts_with("Stand-in for Azure SQL Edge Premium - 16.0.5100.7245"),
        "{}",
        text(0)
    );
    assert_eq!(text(1), rustix::system::uname().nodename().to_str().unwrap());
    assert_eq!(text(2), "16.0.5100.7245");
    assert_eq!(row.columns()[0].name(), "v");
}

#[tokio::test]
async fn databases_are_made_listed_used_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::ready(&mut command(folder.path()));
    let mut sql = instance.client().await;
    run(&mut sql, "IF DB_ID('sales') IS NULL CREATE DATABASE sales").await;
    run(&mut sql, "IF DB_ID(N'SALES') IS NULL CREATE DATABASE sales").await;
    assert_eq!(refusal(&mut sql, "CREATE DATABASE Sales").await.0, 1801);
    let listed = sql
        .simple_query("SELECT name, state_desc FROM sys.databases")
        .await
        .unwrap();
    let listed: Vec<String> = listed
        .into_first_result()
        .await
        .unwrap()
        .iter()
        .map(|row| format!("{} {}", row.get::<&str, _>(0).unwrap(), row.get::<&str, _>(1).unwrap()))
        .collect();
    assert_eq!(
        listed,
        [
            "master ONLINE",
            "tempdb ONLINE",
            "model ONLINE",
            "msdb ONLINE",
            "sales ONLINE"
        ]
    );
    run(&mut sql, &format!("USE sales; {TABLE}")).await;
    run(&mut sql, "INSERT INTO dbo.orders (epoch, seq) VALUES (1, 1), (1, 2)").await;
    let mut other = login(instance.address(), PASSWORD, "sales", EncryptionLevel::Required)
        .await
        .unwrap();
    assert_eq!(numbers(&mut other, "SELECT COUNT_BIG(*) FROM dbo.orders").await, [2]);
    run(&mut other, "USE master; DROP DATABASE sales").await;
    assert_eq!(refusal(&mut sql, "SELECT COUNT(*) FROM dbo.orders").await.0, 911);
    assert_eq!(refusal(&mut sql, "DROP DATABASE msdb").await.0, 3708);
}

#[tokio::test]
async fn mistakes_have_the_numbers_of_the_real_engine() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::ready(&mut command(folder.path()));
    let mut sql = instance.client().await;
    run(&mut sql, TABLE).await;
    run(&mut sql, "INSERT INTO dbo.orders (epoch, seq) VALUES (1, 1)").await;
    for (batch, number) in [
        ("INSERT INTO dbo.orders (epoch, seq) VALUES (1, 1)", 2627),
        ("INSERT INTO dbo.orders (epoch, seq) VALUES (1, NULL)", 515),
        ("INSERT INTO dbo.orders (epoch, seq) VALUES ('x', 1)", 8114),
        ("INSERT INTO dbo.orders (epoch, seq) VALUES (1)", 10709),
        ("INSERT INTO dbo.orders (epoch, seq) VALUES (1, @missing)", 137),
        ("SELECT epoch FROM dbo.nowhere", 208),
        ("SELECT nothing FROM dbo.orders", 207),
        ("CREATE TABLE dbo.orders (a INT)", 2714),
        ("USE nowhere", 911),
        ("COMMIT", 3902),
        ("ROLLBACK", 3903),
        ("ALTER LOGIN someone WITH PASSWORD = N'Other!Passw0rd'", 15151),
        ("ALTER LOGIN sa WITH PASSWORD = N'weak'", 15118),
        (
            "ALTER LOGIN sa WITH PASSWORD = N'Other!Passw0rd' OLD_PASSWORD = N'Wr0ng!Passw0rd'",
            15151,
        ),
    ] {
        let (found, text) = refusal(&mut sql, batch).await;
        assert_eq!(found, number, "{batch}: {text}");
    }
    assert_eq!(numbers(&mut sql, "SELECT COUNT(*) FROM dbo.orders").await, [1]);
}

#[tokio::test]
async fn a_transaction_is_seen_by_others_only_after_its_commit() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::ready(&mut command(folder.path()));
    let (mut writer, mut reader) = (instance.client().await, instance.client().await);
    run(&mut writer, TABLE).await;
    run(
        &mut writer,
        "BEGIN TRAN; INSERT INTO dbo.orders (epoch, seq) VALUES (1, 1)",
    )
    .await;
    assert_eq!(numbers(&mut writer, "SELECT @@TRANCOUNT").await, [1]);
    run(
        &mut writer,
        "INSERT INTO dbo.orders (epoch, seq) VALUES (1, 2); ROLLBACK",
    )
    .await;
    assert_eq!(numbers(&mut reader, "SELECT COUNT(*) FROM dbo.orders").await, [0]);
    run(
        &mut writer,
        "BEGIN TRAN; INSERT INTO dbo.orders (epoch, seq) VALUES (1, 1)",
    )
    .await;
    // the reader waits for the writer, as it does with the real engine's default isolation
    let reading = tokio::spawn(async move { numbers(&mut reader, "SELECT COUNT(*) FROM dbo.orders").await });
    run(&mut writer, "COMMIT").await;
    assert_eq!(reading.await.unwrap(), [1]);
}

#[tokio::test]
async fn a_client_that_goes_away_loses_its_transaction_and_its_lock() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::ready(&mut command(folder.path()));
    let (mut writer, mut reader) = (instance.client().await, instance.client().await);
    run(&mut writer, TABLE).await;
    run(
        &mut writer,
        "BEGIN TRAN; INSERT INTO dbo.orders (epoch, seq) VALUES (1, 1)",
    )
    .await;
    drop(writer);
    assert_eq!(numbers(&mut reader, "SELECT COUNT(*) FROM dbo.orders").await, [0]);
}

#[tokio::test]
async fn a_changed_password_holds_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut instance = Instance::ready(&mut command(folder.path()));
    let mut sql = instance.client().await;
    run(
        &mut sql,
        &format!("ALTER LOGIN [sa] WITH PASSWORD = N'Other!Passw0rd' OLD_PASSWORD = N'{PASSWORD}'"),
    )
    .await;
    instance.kill();
    let restarted = Instance::ready(&mut command(folder.path()));
    login(
        restarted.address(),
        "Other!Passw0rd",
        "master",
        EncryptionLevel::Required,
    )
    .await
    .unwrap();
    let error = login(restarted.address(), PASSWORD, "master", EncryptionLevel::Required)
        .await
        .err()
        .unwrap();
    assert_eq!(server_error(error).0, 18456);
}
