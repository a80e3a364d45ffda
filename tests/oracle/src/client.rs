//! A database over its address, used as a careful client would: a new connection each time, and a limit on every step.

use std::time::Duration;

use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

use crate::log::Row;

/// Errors of this severity and above say that the session or the database broke in the middle of a statement, which
/// then may or may not have been done.
const BROKEN: u8 = 17;
/// "Invalid object name": the table is not there.
const NO_TABLE: u32 = 208;

type Session = Client<Compat<TcpStream>>;

/// Which table in which database, and how to get in.
#[derive(Clone, Debug)]
pub struct Target {
    /// `HOST:PORT`.
    pub address: String,
    /// The password of sa.
    pub password: String,
    /// Database; made if it is not there.
    pub database: String,
    /// Table in the schema dbo; made if it is not there.
    pub table: String,
    /// Limit on the connection, on the login and on each statement.
    pub timeout: Duration,
}

/// The step of an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// TCP.
    Connect,
    /// PRELOGIN, TLS and LOGIN7, and asking which engine it is.
    Login,
    /// The statement itself.
    Statement,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Login => "login",
            Self::Statement => "statement",
        })
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The limit.
    #[error("{0}: timed out")]
    TimedOut(Step),
    /// The network.
    #[error("{0}: {1}")]
    Network(Step, std::io::Error),
    /// The protocol, or an error that the server sent.
    #[error("{0}: {1}")]
    Tds(Step, tiberius::error::Error),
    /// The server acknowledged something else than one row.
    #[error("statement: the server acknowledged {0} rows in place of 1")]
    WrongCount(u64),
}

impl Failure {
    /// True if a row may be stored although nobody acknowledged it.
    pub fn leaves_doubt(&self) -> bool {
        match self {
            Self::Tds(Step::Statement, tiberius::error::Error::Server(token)) => token.class() >= BROKEN,
            Self::TimedOut(step) | Self::Network(step, _) | Self::Tds(step, _) => *step == Step::Statement,
            Self::WrongCount(_) => true,
        }
    }

    fn is_server_error(&self, number: u32) -> bool {
        matches!(self, Self::Tds(_, tiberius::error::Error::Server(token)) if token.code() == number)
    }
}

/// A connection that has logged in.
pub struct Connection {
    session: Session,
    timeout: Duration,
    /// When the engine that answers had started; `None` if it does not say.
    pub engine: Option<String>,
}

impl Target {
    /// Connects and logs in to `database`.
    pub async fn connect(&self, database: &str) -> Result<Connection, Failure> {
        let connecting = tokio::time::timeout(self.timeout, TcpStream::connect(&self.address)).await;
        let tcp = connecting.map_err(|_| Failure::TimedOut(Step::Connect))?;
        let tcp = tcp.map_err(|error| Failure::Network(Step::Connect, error))?;
        tcp.set_nodelay(true)
            .map_err(|error| Failure::Network(Step::Connect, error))?;
        let login = tokio::time::timeout(self.timeout, self.log_in(tcp, database)).await;
        login
            .map_err(|_| Failure::TimedOut(Step::Login))?
            .map_err(|error| Failure::Tds(Step::Login, error))
    }

    async fn log_in(&self, tcp: TcpStream, database: &str) -> tiberius::Result<Connection> {
        let mut config = Config::new();
        config.authentication(AuthMethod::sql_server("sa", &self.password));
        config.database(database);
        config.encryption(EncryptionLevel::Required);
        // the engine's certificate is of its own making
        config.trust_cert();
        config.application_name("sqledge-oracle");
        // the limits are ours, step by step
        config.handshake_timeout(None);
        config.command_timeout(None);
        let mut session = Box::pin(Client::connect(config, tcp.compat_write())).await?;
        let question = "SELECT CONVERT(NVARCHAR(33), sqlserver_start_time, 126) FROM sys.dm_os_sys_info";
        let engine = match session.simple_query(question).await {
            Ok(answer) => answer
                .into_row()
                .await?
                .and_then(|row| row.get::<&str, _>(0).map(str::to_owned)),
            // a login without the right to ask still can write
            Err(tiberius::error::Error::Server(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(Connection {
            session,
            timeout: self.timeout,
            engine,
        })
    }

    /// Makes database and table where they are missing.
    pub async fn set_up(&self) -> Result<(), Failure> {
        let (database, table) = (&self.database, &self.table);
        let mut master = self.connect("master").await?;
        master
            .run(&format!("IF DB_ID('{database}') IS NULL CREATE DATABASE {database}"))
            .await?;
        // no key over (epoch, seq): a row that is stored twice must be seen, not prevented. The identity column keeps the
        // order in which rows were stored.
        let create = format!(
            "IF OBJECT_ID('dbo.{table}','U') IS NULL CREATE TABLE dbo.{table} \
             (id BIGINT IDENTITY(1,1) PRIMARY KEY, epoch BIGINT NOT NULL, seq BIGINT NOT NULL)"
        );
        self.connect(database).await?.run(&create).await
    }

    /// All rows in the order in which they were stored. A database or table that is not there has none: what was
    /// acknowledged is lost with it.
    pub async fn read_back(&self) -> Result<Vec<Row>, Failure> {
        let mut master = self.connect("master").await?;
        let databases = master.rows("SELECT name FROM sys.databases").await?;
        if !databases.iter().any(|row| {
            row.get::<&str, _>(0)
                .is_some_and(|name| name.eq_ignore_ascii_case(&self.database))
        }) {
            return Ok(Vec::new());
        }
        let mut connection = self.connect(&self.database).await?;
        // reading everything may take longer than writing one row
        connection.timeout = connection.timeout.max(Duration::from_secs(60));
        let found = connection
            .rows(&format!("SELECT epoch, seq FROM dbo.{} ORDER BY id", self.table))
            .await;
        let found = match found {
            Err(failure) if failure.is_server_error(NO_TABLE) => return Ok(Vec::new()),
            other => other?,
        };
        let number = |row: &tiberius::Row, column: usize| row.get::<i64, _>(column).expect("both columns are NOT NULL");
        Ok(found
            .iter()
            .map(|row| Row {
                epoch: number(row, 0),
                seq: number(row, 1),
            })
            .collect())
    }
}

impl Connection {
    /// Writes a row and waits for its acknowledgement.
    pub async fn insert(&mut self, table: &str, row: Row) -> Result<(), Failure> {
        let sql = format!("INSERT INTO dbo.{table} (epoch, seq) VALUES (@P1, @P2)");
        let writing = tokio::time::timeout(self.timeout, self.session.execute(sql, &[&row.epoch, &row.seq])).await;
        let written = writing.map_err(|_| Failure::TimedOut(Step::Statement))?;
        match written.map_err(|error| Failure::Tds(Step::Statement, error))?.total() {
            1 => Ok(()),
            other => Err(Failure::WrongCount(other)),
        }
    }

    async fn run(&mut self, sql: &str) -> Result<(), Failure> {
        self.rows(sql).await.map(|_| ())
    }

    async fn rows(&mut self, sql: &str) -> Result<Vec<tiberius::Row>, Failure> {
        let reading = async { self.session.simple_query(sql).await?.into_first_result().await };
        let read = tokio::time::timeout(self.timeout, reading)
            .await
            .map_err(|_| Failure::TimedOut(Step::Statement))?;
        read.map_err(|error| Failure::Tds(Step::Statement, error))
    }
}
