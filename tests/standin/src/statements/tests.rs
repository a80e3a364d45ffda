use super::*;

fn only(sql: &str) -> Statement {
    let mut statements = parse(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0)
}

#[test]
fn every_statement_that_the_programs_of_this_repository_send_is_known() {
    for sql in [
        "SELECT 1",
        "select 1 as [x];",
        "SELECT @@VERSION",
        "SELECT @@SERVERNAME",
        "SELECT CAST(SERVERPROPERTY('ProductVersion') AS NVARCHAR(128))",
        "SELECT SERVERPROPERTY('ProductVersion')",
        "SELECT name, state_desc FROM sys.databases",
        "SELECT name FROM sys.databases WHERE name = N'x' ORDER BY name DESC",
        "SELECT CONVERT(NVARCHAR(33), sqlserver_start_time, 126) FROM sys.dm_os_sys_info",
        "SELECT total_bytes, available_bytes FROM sys.dm_os_volume_stats(1, 1)",
        "SET ARITHABORT ON",
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "USE master",
        "CREATE DATABASE x",
        "DROP DATABASE x",
        "IF DB_ID('x') IS NULL CREATE DATABASE x",
        "IF OBJECT_ID('dbo.t','U') IS NULL CREATE TABLE dbo.t (epoch BIGINT NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (epoch, seq))",
        "IF OBJECT_ID(N'dbo.t') IS NULL CREATE TABLE dbo.t (id BIGINT IDENTITY(1,1) PRIMARY KEY, note NVARCHAR(40) NULL)",
        "CREATE TABLE t (a INT)",
        "DROP TABLE dbo.t",
        "INSERT INTO dbo.t (epoch, seq) VALUES (1, 2)",
        "INSERT INTO [dbo].[t] (epoch, seq) VALUES (@P1, @P2), (-1, NULL)",
        "SELECT epoch, seq FROM dbo.t ORDER BY epoch, seq",
        "SELECT * FROM t",
        "SELECT COUNT(*) FROM dbo.t",
        "SELECT COUNT_BIG(*) AS rows FROM dbo.t WHERE epoch = 1 AND seq >= 4",
        "SELECT MAX(seq) FROM dbo.t WHERE epoch = @p1",
        "DELETE FROM dbo.t",
        "DELETE FROM dbo.t WHERE epoch < 3",
        "CHECKPOINT",
        "SHUTDOWN",
        "SHUTDOWN WITH NOWAIT",
        "ALTER LOGIN sa WITH PASSWORD = N'Other!Passw0rd'",
        "ALTER LOGIN [sa] WITH PASSWORD = N'Other!Passw0rd' OLD_PASSWORD = N'Str0ng!Passw0rd'",
        "BEGIN TRAN",
        "BEGIN TRANSACTION;",
        "COMMIT",
        "COMMIT TRAN",
        "ROLLBACK TRANSACTION",
    ] {
        only(sql);
    }
}

#[test]
fn any_other_statement_is_error_102_that_names_it() {
    for sql in [
        "UPDATE dbo.t SET a = 1",
        "SELECT a FROM other.t",
        "SELECT a FROM t JOIN u ON a = b",
        "INSERT INTO t SELECT 1",
        "CREATE TABLE t (a DECIMAL(1,2))",
        "CREATE TABLE t (a INT IDENTITY)",
        "BEGIN",
        "SELECT 'no end",
        "DROP LOGIN sa",
        "SELECT 1 FROM",
        ")",
    ] {
        let error = parse(sql).expect_err(sql);
        assert_eq!(error.number, 102, "{sql}");
        assert!(error.text.contains(sql), "{} does not name {sql}", error.text);
    }
}

#[test]
fn a_batch_is_cut_at_semicolons_and_at_the_next_statement() {
    assert_eq!(
        parse("SET NOCOUNT ON SET XACT_ABORT ON\nselect 1; ; use x")
            .unwrap()
            .len(),
        4
    );
    assert!(parse("  -- nothing\n").unwrap().is_empty());
}

#[test]
fn a_batch_with_one_unknown_statement_names_that_one_and_runs_none() {
    let error = parse("SELECT 1; VACUUM x; SELECT 2").unwrap_err();
    assert!(error.text.ends_with(": VACUUM x"), "{}", error.text);
}

#[test]
fn shutdown_with_nowait_is_not_taken_for_a_clean_shutdown() {
    assert!(matches!(
        only("SHUTDOWN WITH NOWAIT"),
        Statement::Shutdown { checkpoint: false }
    ));
    assert!(matches!(only("SHUTDOWN;"), Statement::Shutdown { checkpoint: true }));
}

#[test]
fn the_names_of_positional_parameters_come_from_their_declaration() {
    assert_eq!(declared_names("@P1 bigint,@P2 nvarchar(4000)"), ["@P1", "@P2"]);
}
