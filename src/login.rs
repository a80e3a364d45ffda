//! The operator's own login: the only thing that makes an instance Ready. Speaks TDS through tiberius, straight to the pod.
//! I/O only; what a result means is decided elsewhere. Passwords never leave this module in an error.

use std::time::Duration;

use futures::future::BoxFuture;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio_util::compat::TokioAsyncWriteCompatExt as _;

use crate::instance::ENGINE_PORT;
use crate::space::{Space, Told};

/// Login name; an instance has no other that the operator could know.
const USER: &str = "sa";

/// 18456 "Login failed for user"; anything else an engine says while it starts is "not yet".
const LOGIN_FAILED: u32 = 18456;

/// Whether a login succeeded does not depend on what the engine says about its volume, so that is not waited for any longer.
const SPACE_PATIENCE: Duration = Duration::from_millis(500);

/// What an engine says of a password that breaks its rules: too recent, too short, too long, used before, too simple, refused by a filter.
const POLICY: std::ops::RangeInclusive<u32> = 15114..=15119;

/// Where and as whom to log in.
#[derive(Clone)]
pub struct Target {
    /// Pod address.
    pub host: String,
    /// Container port.
    pub port: u16,
    /// Password of sa.
    pub password: String,
}

impl Target {
    /// `sa` at the engine of the pod with this address.
    pub fn engine_at(host: String, password: String) -> Self {
        Self {
            host,
            port: u16::try_from(ENGINE_PORT).expect("the engine's port fits"),
            password,
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// What came of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Logged in.
    Succeeded {
        /// `ProductVersion` of the engine.
        version: String,
        /// Databases whose files the engine could not use: name and state.
        broken: Vec<String>,
        /// What is left on the volume of the system databases; none if the engine does not say.
        space: Told,
    },
    /// The engine refused the password: it does not fit the data on the volume.
    WrongPassword,
    /// The engine answered, but lets nobody in yet.
    NotYet(String),
    /// No answer in time, or no connection.
    NoAnswer(String),
}

/// What came of giving the engine another password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has it.
    Done,
    /// It will never have it; its own words. The former one stays.
    Refused(String),
    /// It cannot take it at this moment: while its volume is full, say.
    NotNow(String),
    /// The password that was to be replaced is not the engine's.
    NotTheFormer,
    /// No answer in time, or no connection; it may have it.
    NoAnswer(String),
}

/// Something that can log in; the tests without nodes put their own in place.
pub trait Door: Send + Sync {
    /// Tries once.
    fn login(&self, target: Target) -> BoxFuture<'_, Attempt>;

    /// Logs in with the password that the engine has, and gives it another one.
    fn change_password(&self, target: Target, wanted: String) -> BoxFuture<'_, Change>;
}

/// The real thing.
#[derive(Clone, Copy, Debug)]
pub struct Tds {
    /// Time for connection, login and what a login must tell; what it may tell comes after that.
    pub timeout: Duration,
}

impl Door for Tds {
    fn login(&self, target: Target) -> BoxFuture<'_, Attempt> {
        Box::pin(async move {
            match tokio::time::timeout(self.timeout, Box::pin(attempt(&target))).await {
                Ok(Ok((client, version, broken))) => Attempt::Succeeded {
                    version,
                    broken,
                    space: leave(client).await,
                },
                Ok(Err(error)) => classify(&error),
                Err(_) => Attempt::NoAnswer(format!("no answer within {} s", self.timeout.as_secs())),
            }
        })
    }

    fn change_password(&self, target: Target, wanted: String) -> BoxFuture<'_, Change> {
        use tiberius::error::Error::Server;
        Box::pin(async move {
            match tokio::time::timeout(self.timeout, Box::pin(change(&target, &wanted))).await {
                Ok(Ok(())) => Change::Done,
                Ok(Err(Server(token))) if token.code() == LOGIN_FAILED => Change::NotTheFormer,
                Ok(Err(Server(token))) if POLICY.contains(&token.code()) => Change::Refused(token.message().to_owned()),
                Ok(Err(Server(token))) => Change::NotNow(token.message().to_owned()),
                Ok(Err(error)) => Change::NoAnswer(error.to_string()),
                Err(_) => Change::NoAnswer(format!("no answer within {} s", self.timeout.as_secs())),
            }
        })
    }
}

async fn connect(target: &Target) -> tiberius::Result<Connection> {
    let mut config = Config::new();
    config.host(&target.host);
    config.port(target.port);
    config.authentication(AuthMethod::sql_server(USER, &target.password));
    config.application_name("sqledge-operator");
    // The engine's own certificate is self-signed; the pod network is the trust boundary here.
    config.encryption(EncryptionLevel::On);
    config.trust_cert();
    let stream = tokio::net::TcpStream::connect(config.get_addr())
        .await
        .map_err(tiberius::error::Error::from)?;
    stream.set_nodelay(true).map_err(tiberius::error::Error::from)?;
    Box::pin(Client::connect(config, stream.compat_write())).await
}

/// Whether the login fails or the password is not taken, nothing has changed.
async fn change(target: &Target, wanted: &str) -> tiberius::Result<()> {
    let mut client = connect(target).await?;
    let statement = alteration(wanted, &target.password);
    client.simple_query(statement).await?.into_results().await?;
    client.close().await
}

/// A statement of this kind takes no parameters. What is not quoted well would be a syntax error, whose message repeats the text beside it.
fn alteration(wanted: &str, former: &str) -> String {
    let quoted = |password: &str| password.replace('\'', "''");
    format!(
        "ALTER LOGIN [{USER}] WITH PASSWORD = N'{}' OLD_PASSWORD = N'{}'",
        quoted(wanted),
        quoted(former)
    )
}

async fn attempt(target: &Target) -> tiberius::Result<(Connection, String, Vec<String>)> {
    let mut client = connect(target).await?;
    let version = text(
        &mut client,
        "SELECT CAST(SERVERPROPERTY('ProductVersion') AS NVARCHAR(128))",
    )
    .await?;
    let broken = broken(&mut client).await?;
    Ok((client, version, broken))
}

/// The last question, to which an engine may owe the answer: an older one does not know it, or refuses it.
async fn leave(mut client: Connection) -> Told {
    let asking = async {
        let told = match space(&mut client).await {
            Ok(Some(space)) => Told::Space(space),
            Ok(None) | Err(tiberius::error::Error::Server(_)) => Told::Nothing,
            Err(_) => Told::NotYet,
        };
        let _ = client.close().await;
        told
    };
    tokio::time::timeout(SPACE_PATIENCE, asking).await.unwrap_or_default()
}

/// Of the volume that the first file of master is on. Path and name of the volume are NULL on Linux; the figures are not.
async fn space(client: &mut Connection) -> tiberius::Result<Option<Space>> {
    let query = "SELECT total_bytes, available_bytes FROM sys.dm_os_volume_stats(1, 1)";
    let row = client.simple_query(query).await?.into_row().await?;
    let bytes = |at: usize| {
        let value = row.as_ref()?.try_get::<i64, _>(at).ok().flatten()?;
        u64::try_from(value).ok()
    };
    Ok(bytes(0)
        .filter(|total| *total > 0)
        .zip(bytes(1))
        .map(|(total, available)| Space { total, available }))
}

type Connection = Client<tokio_util::compat::Compat<tokio::net::TcpStream>>;

async fn text(client: &mut Connection, query: &str) -> tiberius::Result<String> {
    let row = client.simple_query(query).await?.into_row().await?;
    let value = row.and_then(|row| row.try_get::<&str, _>(0).ok().flatten().map(str::to_owned));
    Ok(value.unwrap_or_default())
}

/// A login says nothing about the users' databases: after an input/output error, say, the engine goes on without them. Those that somebody took
/// offline, or is restoring, are as they should be.
async fn broken(client: &mut Connection) -> tiberius::Result<Vec<String>> {
    let query = "SELECT name, state_desc FROM sys.databases ORDER BY name";
    let rows = client.simple_query(query).await?.into_first_result().await?;
    let column = |row: &tiberius::Row, at: usize| row.try_get::<&str, _>(at).ok().flatten().map(str::to_owned);
    Ok(rows
        .iter()
        .filter_map(|row| column(row, 0).zip(column(row, 1)))
        .filter(|(_, state)| matches!(state.as_str(), "SUSPECT" | "RECOVERY_PENDING"))
        .map(|(name, state)| format!("{name} is {state}"))
        .collect())
}

fn classify(error: &tiberius::error::Error) -> Attempt {
    match error {
        tiberius::error::Error::Server(token) if token.code() == LOGIN_FAILED => Attempt::WrongPassword,
        tiberius::error::Error::Server(token) => Attempt::NotYet(token.message().to_owned()),
        tiberius::error::Error::Io { .. } => Attempt::NoAnswer(error.to_string()),
        // whatever else went wrong, somebody answered
        other => Attempt::NotYet(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_stays_within_its_quotes() {
        assert_eq!(
            alteration("It's-new]1", "'old''"),
            "ALTER LOGIN [sa] WITH PASSWORD = N'It''s-new]1' OLD_PASSWORD = N'''old'''''"
        );
    }
}
