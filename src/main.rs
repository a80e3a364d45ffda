//! The operator's program: `run` the controller, or print the `crd`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sqledge_operator::error::Error;
use sqledge_operator::settings::{Identity, Settings};
use sqledge_operator::{api, operator, telemetry};

/// Keeps `SqlEdgeInstance` resources: one database, one volume, one address, and safe failover.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator.
    Run {
        /// Settings file (YAML).
        #[arg(long, default_value = "/etc/sqledge-operator/settings.yaml")]
        settings: PathBuf,
        /// Address of /healthz, /readyz and /metrics.
        #[arg(long, default_value = "0.0.0.0:8080")]
        listen: SocketAddr,
    },
    /// Print the `CustomResourceDefinition`.
    Crd,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run { settings, listen } => {
            telemetry::start_log();
            run(&settings, listen).await
        }
        Command::Crd => print_crd(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sqledge-operator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: &std::path::Path, listen: SocketAddr) -> Result<(), Error> {
    operator::run(Settings::read(settings)?, Identity::from_environment()?, listen).await
}

fn print_crd() -> Result<(), Error> {
    let crd =
        serde_yaml::to_string(&api::crd()).map_err(|e| Error::Settings(format!("the CRD cannot be printed: {e}")))?;
    print!("{crd}");
    Ok(())
}
