//! Runs one statement on a database, as any client would; for the statements that the oracle has no use for, such as SHUTDOWN.
//!
//! Usage: `statement HOST:PORT PASSWORD-FILE STATEMENT`. An engine that ends the connection in the middle has obeyed.

use std::{process::ExitCode, time::Duration};

use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncWriteCompatExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, password_file, statement] = words.as_slice() else {
        eprintln!("usage: statement HOST:PORT PASSWORD-FILE STATEMENT");
        return ExitCode::from(2);
    };
    match tokio::time::timeout(
        Duration::from_secs(10),
        Box::pin(run(address, password_file, statement)),
    )
    .await
    {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("statement: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            eprintln!("statement: no answer from {address} within 10 s");
            ExitCode::FAILURE
        }
    }
}

async fn run(address: &str, password_file: &str, statement: &str) -> Result<(), Box<dyn std::error::Error>> {
    let password = std::fs::read_to_string(password_file)?;
    let mut config = Config::new();
    config.authentication(AuthMethod::sql_server("sa", password.trim_end()));
    config.encryption(EncryptionLevel::Required);
    // the engine's certificate is of its own making
    config.trust_cert();
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut client = Box::pin(Client::connect(config, stream.compat_write())).await?;
    match client.simple_query(statement).await {
        Ok(answer) => match answer.into_results().await {
            Ok(_) | Err(tiberius::error::Error::Io { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        },
        Err(tiberius::error::Error::Io { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
