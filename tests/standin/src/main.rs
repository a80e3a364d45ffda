//! A stand-in for Azure SQL Edge, for the demo and the tests of this repository only.
//!
//! It speaks TDS 7.4 over `SQLite` and behaves like `sqlservr` in everything that matters to an operator; README.md says
//! where it differs. Installed as `/opt/mssql/bin/sqlservr`.

mod engine;
mod error;
mod errorlog;
mod execute;
mod password;
mod server;
mod session;
mod settings;
mod statements;
mod storage;
mod tds;
mod value;
mod watchdog;

use std::process::ExitCode;

use rustix::process::Pid;

use settings::Settings;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] | ["--accept-eula"] => parent(),
        [watchdog::ENGINE, parent] => engine(parent),
        ["--version"] => {
            println!("sqledge-standin {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["--statements"] => {
            for entry in statements::TABLE {
                println!("{}\n    {}", entry.pattern, entry.meaning);
            }
            ExitCode::SUCCESS
        }
        ["--variables"] => {
            for (name, meaning) in settings::VARIABLES {
                println!("{name}\n    {meaning}");
            }
            ExitCode::SUCCESS
        }
        [unknown, ..] => {
            eprintln!("unknown argument '{unknown}'; known are --version, --statements and --variables");
            ExitCode::FAILURE
        }
    }
}

fn settings() -> Result<Settings, ExitCode> {
    Settings::read(&|name| std::env::var(name).ok()).map_err(|error| {
        errorlog::line("Server", &error.to_string());
        ExitCode::FAILURE
    })
}

fn parent() -> ExitCode {
    let settings = match settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    watchdog::run(settings.ignore_sigterm).unwrap_or_else(|error| {
        errorlog::line("Server", &format!("Unable to start the engine process: {error}."));
        ExitCode::FAILURE
    })
}

fn engine(parent: &str) -> ExitCode {
    let bound = parent
        .parse()
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| std::io::Error::other("no such parent"));
    if let Err(error) = bound.and_then(watchdog::die_with) {
        errorlog::line(
            "Server",
            &format!("The engine does not run without its parent process: {error}."),
        );
        return ExitCode::FAILURE;
    }
    let settings = match settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            errorlog::line("Server", &format!("Unable to start: {error}."));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(server::run(settings));
    // threads that hang in storage must not keep the process
    runtime.shutdown_background();
    code
}
