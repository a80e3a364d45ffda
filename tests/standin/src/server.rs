//! The engine process: start, recovery, clients, stop.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::engine::{Engine, Phase};
use crate::errorlog;
use crate::session;
use crate::settings::Settings;

/// What recovery takes at least after an unclean stop, when no setting says.
const UNCLEAN_RECOVERY: Duration = Duration::from_secs(1);
/// How long sessions may take to send the last reply of a clean stop.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs the engine until it is told to stop.
pub async fn run(settings: Settings) -> ExitCode {
    // first of all: a signal in the middle of the start must end it in order
    let mut stop = match StopSignals::new(settings.ignore_sigterm) {
        Ok(stop) => stop,
        Err(error) => return failed(&format!("Unable to install signal handlers: {error}.")),
    };
    errorlog::line(
        "Server",
        &format!(
            "SQL Edge stand-in {} (TDS 7.4 over SQLite {}), for demos and tests only; not a Microsoft product.",
            env!("CARGO_PKG_VERSION"),
            rusqlite::version()
        ),
    );
    let (delay, address) = (settings.start_delay, (settings.address, settings.port));
    let starting = async {
        tokio::time::sleep(delay).await;
        tokio::task::spawn_blocking(|| Engine::start(settings)).await
    };
    let engine = tokio::select! {
        started = starting => match started {
            Ok(Ok(engine)) => Arc::new(engine),
            Ok(Err(error)) => return refused(&error),
            Err(error) => return failed(&error.to_string()),
        },
        () = stop.asked() => return ExitCode::SUCCESS,
    };
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            let text = format!(
                "Server TCP provider failed to listen on [ {} {} ]: {error}.",
                address.0, address.1
            );
            errorlog::error("Server", 26023, 16, &text);
            close(&engine, true).await;
            return ExitCode::FAILURE;
        }
    };
    let port = listener.local_addr().map_or(address.1, |bound| bound.port());
    errorlog::line(
        "Server",
        &format!(
            "Server name is '{}'. This is an informational message only.",
            engine.host
        ),
    );
    errorlog::line(
        "Server",
        &format!("Server is listening on [ '{}' <ipv4> {port}].", address.0),
    );
    errorlog::line(
        "Server",
        "SQL Server is now ready for client connections. This is an informational message; no user action is required.",
    );
    let recovering = tokio::spawn(recover(Arc::clone(&engine)));
    let checkpoint = serve(&engine, listener, &mut stop).await;
    recovering.abort();
    close(&engine, checkpoint).await
}

async fn recover(engine: Arc<Engine>) {
    let least = match engine.settings.recovery {
        Some(least) => least,
        None if engine.was_unclean() => UNCLEAN_RECOVERY,
        None => Duration::ZERO,
    };
    let ends = tokio::time::Instant::now() + least;
    if engine.was_unclean() {
        errorlog::line(
            "spid9s",
            "The last stop was not clean; the logs of all databases are replayed.",
        );
    }
    let opening = Arc::clone(&engine);
    if let Err(error) = tokio::task::spawn_blocking(move || opening.recover()).await {
        errorlog::error(
            "spid9s",
            3414,
            21,
            &format!("An error occurred during recovery: {error}."),
        );
        return;
    }
    tokio::time::sleep_until(ends).await;
    if engine.settings.never_ready {
        errorlog::line("spid9s", "STANDIN_NEVER_READY is set: recovery does not end.");
        return;
    }
    engine.enter(Phase::Ready);
    errorlog::line(
        "spid9s",
        "Recovery is complete. This is an informational message only. No user action is required.",
    );
}

/// Serves clients until a signal or SHUTDOWN; yields whether logs are to be written into their files.
async fn serve(engine: &Arc<Engine>, listener: TcpListener, stop: &mut StopSignals) -> bool {
    let mut sessions = JoinSet::new();
    let mut phase = engine.watch_phase();
    let checkpoint = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    let engine = Arc::clone(engine);
                    sessions.spawn(async move { session::serve(engine, tcp, peer).await });
                }
                Err(error) => {
                    errorlog::line("Server", &format!("Unable to accept a connection: {error}."));
                    // out of file handles, most likely: give sessions a moment to end instead of spinning
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_ended) = sessions.join_next() => {}
            () = stop.asked() => engine.enter(Phase::Stopping { checkpoint: true }),
            _ = phase.changed() => if let Phase::Stopping { checkpoint } = engine.phase() {
                break checkpoint;
            },
        }
    };
    errorlog::line(
        "Server",
        "SQL Server is terminating in response to a stop request. This is an informational message only. No user action \
         is required.",
    );
    drop(listener);
    let farewell = async { while sessions.join_next().await.is_some() {} };
    // a statement that hangs in storage must not keep the other databases from their checkpoint
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
    sessions.abort_all();
    checkpoint
}

async fn close(engine: &Engine, checkpoint: bool) -> ExitCode {
    if checkpoint {
        tokio::time::sleep(engine.settings.stop_delay).await;
    }
    let faults = engine.close(checkpoint).await;
    for (name, fault) in &faults {
        errorlog::error(
            "spid9s",
            3314,
            21,
            &format!("The checkpoint of database '{name}' failed: {fault}."),
        );
    }
    errorlog::line("Server", "SQL Server shutdown has been initiated.");
    if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn refused(error: &crate::engine::StartError) -> ExitCode {
    if let crate::engine::StartError::Claim(crate::storage::claim::ClaimError::Master { .. }) = error {
        errorlog::line("Server", "Error: 17113, Severity: 16, State: 1.");
    }
    failed(&error.to_string())
}

fn failed(text: &str) -> ExitCode {
    errorlog::line("Server", text);
    ExitCode::FAILURE
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    ignore: bool,
}

impl StopSignals {
    fn new(ignore: bool) -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            ignore,
        })
    }

    /// Waits for a signal that counts.
    async fn asked(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if !self.ignore {
                return;
            }
        }
    }
}
