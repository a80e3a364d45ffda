//! A stand-in under test: started on a free loopback port over a folder of its own, and ended with the test.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

pub const PASSWORD: &str = "Str0ng!Passw0rd";
/// Far longer than anything takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

pub type Sql = Client<Compat<TcpStream>>;

/// A running (or ended) stand-in.
pub struct Instance {
    process: Child,
    log: Arc<(Mutex<Log>, Condvar)>,
}

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    ended: bool,
}

/// The command that starts a stand-in over `root`; tests change its environment.
pub fn command(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sqledge-standin"));
    with_environment(&mut command, root);
    command
}

/// The environment of [`command`] for a program that starts the stand-in itself.
pub fn with_environment(command: &mut Command, root: &Path) {
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("ACCEPT_EULA", "Y")
        .env("MSSQL_SA_PASSWORD", PASSWORD)
        .env("MSSQL_TCP_PORT", "0")
        .env("MSSQL_IP_ADDRESS", "127.0.0.1")
        .env("STANDIN_ROOT", root);
}

impl Instance {
    /// Starts `command` without waiting for anything.
    pub fn spawn(command: &mut Command) -> Self {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let log = Arc::new((Mutex::new(Log::default()), Condvar::new()));
        let (output, sink) = (process.stdout.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                sink.0.lock().unwrap().lines.push(line);
                sink.1.notify_all();
            }
            sink.0.lock().unwrap().ended = true;
            sink.1.notify_all();
        });
        Self { process, log }
    }

    /// Starts `command` and waits until logins succeed.
    pub fn ready(command: &mut Command) -> Self {
        let instance = Self::spawn(command);
        instance.wait_for("Recovery is complete");
        instance
    }

    /// Waits for a line with this text and yields it.
    pub fn wait_for(&self, text: &str) -> String {
        let (log, changed) = &*self.log;
        let deadline = Instant::now() + PATIENCE;
        let mut log = log.lock().unwrap();
        loop {
            if let Some(line) = log.lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !log.ended && !left.is_zero(),
                "no line with '{text}' in:\n{}",
                log.lines.join("\n")
            );
            log = changed.wait_timeout(log, left).unwrap().0;
        }
    }

    /// The whole log, once all processes have closed it.
    pub fn whole_log(&self) -> String {
        let (log, changed) = &*self.log;
        let (log, timeout) = changed
            .wait_timeout_while(log.lock().unwrap(), PATIENCE, |log| !log.ended)
            .unwrap();
        assert!(
            !timeout.timed_out(),
            "the log was not closed:\n{}",
            log.lines.join("\n")
        );
        log.lines.join("\n")
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        let line = self.wait_for("Server is listening on");
        line.trim_end_matches("].").rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        (IpAddr::from(Ipv4Addr::LOCALHOST), self.port()).into()
    }

    /// The process id of the parent.
    pub fn parent(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// The process id of the engine, the parent's only child.
    pub fn engine(&self) -> Pid {
        let parent = self.process.id();
        let path = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(path).unwrap();
        Pid::from_raw(children.trim().parse().unwrap()).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.parent(), signal).unwrap();
    }

    /// Waits for the end of the parent.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the stand-in did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends both processes at once, as a power cut does.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        self.wait();
        self.whole_log();
    }

    /// Stops it cleanly.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Logs in as sa with the password of the tests, over TLS.
    pub async fn client(&self) -> Sql {
        login(self.address(), PASSWORD, "master", EncryptionLevel::Required)
            .await
            .unwrap()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Logs in as sa.
pub async fn login(
    address: SocketAddr,
    password: &str,
    database: &str,
    encryption: EncryptionLevel,
) -> tiberius::Result<Sql> {
    let mut config = Config::new();
    config.host(address.ip());
    config.port(address.port());
    config.database(database);
    config.authentication(AuthMethod::sql_server("sa", password));
    config.trust_cert();
    config.encryption(encryption);
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Box::pin(Client::connect(config, tcp.compat_write())).await
}

/// Runs a batch and yields the first column of its last result as numbers.
pub async fn numbers(sql: &mut Sql, batch: &str) -> Vec<i64> {
    let results = sql.simple_query(batch).await.unwrap().into_results().await.unwrap();
    let rows = results.into_iter().next_back().unwrap_or_default();
    let number = |row: tiberius::Row| match row.try_get::<i32, _>(0) {
        Ok(small) => i64::from(small.unwrap()),
        Err(_) => row.get::<i64, _>(0).unwrap(),
    };
    rows.into_iter().map(number).collect()
}

/// Runs a batch that must succeed.
pub async fn run(sql: &mut Sql, batch: &str) {
    sql.simple_query(batch)
        .await
        .unwrap()
        .into_results()
        .await
        .unwrap_or_else(|error| panic!("{batch}: {error}"));
}

/// Runs a batch that must fail; yields the error's number and text.
pub async fn refusal(sql: &mut Sql, batch: &str) -> (u32, String) {
    let result = match sql.simple_query(batch).await {
        Ok(stream) => stream.into_results().await.map(|_| ()),
        Err(error) => Err(error),
    };
    server_error(result.expect_err(batch))
}

/// The number and text of an error that the server sent.
pub fn server_error(error: tiberius::error::Error) -> (u32, String) {
    match error {
        tiberius::error::Error::Server(token) => (token.code(), token.message().to_owned()),
        other => panic!("not an error of the server: {other}"),
    }
}
