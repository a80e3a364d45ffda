//! Drivers of other languages against a stand-in: go-mssqldb and python-tds log in, write and read.
//!
//! Their programs are in `drivers/`. They are built and installed into the cache folder, from go.sum and
//! requirements.txt; a warm run needs no network.

mod instance;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use instance::{Instance, PASSWORD, command};

const DRIVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/drivers");

/// Where things are kept that are built once.
fn cache() -> PathBuf {
    let root = std::env::var_os("SQLEDGE_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME or SQLEDGE_CACHE is set")).join(".cache/sqledge"),
        PathBuf::from,
    );
    let folder = root.join("drivers");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    out.into_owned()
}

/// Runs a driver; yields its exit code and what it printed.
fn outcome(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&printed).trim().to_owned(),
    )
}

/// go-mssqldb's program, built.
static GO_DRIVER: LazyLock<PathBuf> = LazyLock::new(|| {
    let program = cache().join("go-driver");
    must(
        Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(Path::new(DRIVERS).join("go")),
    );
    program
});

/// The Python interpreter of an environment that has the driver.
static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
    let requirements = Path::new(DRIVERS).join("python/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).unwrap();
    let environment = cache().join(format!("python-{}", wanted.trim().replace("==", "-")));
    let (python, done) = (environment.join("bin/python"), environment.join("installed"));
    if !done.exists() {
        must(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&environment),
        );
        must(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "-r"])
                .arg(&requirements),
        );
        std::fs::write(done, wanted).unwrap();
    }
    python
});

#[test]
fn go_mssqldb_logs_in_writes_and_reads_in_every_encryption_mode() {
    for (tls, modes) in [
        ("optional", ["disable", "false", "true"].as_slice()),
        ("off", ["disable", "false"].as_slice()),
        ("forced", ["true"].as_slice()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::ready(command(folder.path()).env("STANDIN_TLS", tls));
        for (run, mode) in modes.iter().enumerate() {
            let address = instance.address().to_string();
            let result = outcome(Command::new(&*GO_DRIVER).args([&address, PASSWORD, mode, "5"]));
            assert_eq!(
                result,
                (Some(0), format!("rows {}", 5 * (run + 1))),
                "TLS {tls}, client {mode}"
            );
        }
    }
}

#[test]
fn go_mssqldb_reports_a_wrong_password_as_error_18456() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::ready(&mut command(folder.path()));
    let address = instance.address().to_string();
    let (code, printed) = outcome(Command::new(&*GO_DRIVER).args([&address, "Wr0ng!Passw0rd", "true", "1"]));
    assert_eq!(
        (code, printed.as_str()),
        (Some(3), "error 18456: login error: Login failed for user 'sa'.")
    );
}

#[test]
fn python_tds_logs_in_writes_and_reads_with_and_without_transactions() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::ready(&mut command(folder.path()));
    let port = instance.port().to_string();
    for (run, autocommit) in ["yes", "no"].iter().enumerate() {
        let result = outcome(Command::new(&*PYTHON).arg(format!("{DRIVERS}/python/driver.py")).args([
            "127.0.0.1",
            &port,
            PASSWORD,
            autocommit,
            "5",
        ]));
        assert_eq!(
            result,
            (Some(0), format!("rows {}", 5 * (run + 1))),
            "autocommit {autocommit}"
        );
    }
}

#[test]
fn python_tds_reports_a_wrong_password_as_error_18456() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::ready(&mut command(folder.path()));
    let port = instance.port().to_string();
    let (code, printed) = outcome(Command::new(&*PYTHON).arg(format!("{DRIVERS}/python/driver.py")).args([
        "127.0.0.1",
        &port,
        "Wr0ng!Passw0rd",
        "yes",
        "1",
    ]));
    assert_eq!(code, Some(3), "{printed}");
    assert!(
        printed.starts_with("error 18456: ") && printed.contains("Login failed for user 'sa'."),
        "{printed}"
    );
}
