//! The environment: the variables of the real engine, and the stand-in's own knobs, which start with `STANDIN_`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::tds::prelogin::TlsMode;

/// Every variable that is read.
pub const VARIABLES: &[(&str, &str)] = &[
    ("ACCEPT_EULA", "must be set, as for the real engine"),
    (
        "MSSQL_SA_PASSWORD",
        "password of sa on a new data folder; ignored afterwards",
    ),
    ("SA_PASSWORD", "the same under its old name"),
    ("MSSQL_TCP_PORT", "port, 1433; 0 takes a free one and logs it"),
    ("MSSQL_IP_ADDRESS", "address to listen on, 0.0.0.0"),
    ("MSSQL_PID", "edition, shown by @@VERSION"),
    (
        "MSSQL_COLLATION",
        "shown by SERVERPROPERTY('Collation'); kept from the first start",
    ),
    ("MSSQL_MEMORY_LIMIT_MB", "logged"),
    ("TZ", "zone of the log's clock times"),
    ("STANDIN_ROOT", "the engine's folder, /var/opt/mssql"),
    ("STANDIN_TLS", "off, optional (the real engine's default) or forced"),
    ("STANDIN_START_DELAY_SECONDS", "wait before listening"),
    (
        "STANDIN_RECOVERY_SECONDS",
        "how long logins fail after listening; 1 after an unclean stop, else 0",
    ),
    ("STANDIN_NEVER_READY", "recovery never ends"),
    (
        "STANDIN_IGNORE_SIGTERM",
        "neither forward nor obey SIGTERM, like the launch script of some SQL Server images",
    ),
    ("STANDIN_STOP_SECONDS", "how much longer a clean stop takes"),
];

/// The settings of one start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The license was accepted.
    pub eula: bool,
    /// The password for a new data folder.
    pub sa_password: Option<String>,
    /// Where to listen.
    pub address: IpAddr,
    /// Which port to listen on.
    pub port: u16,
    /// Edition.
    pub edition: String,
    /// Collation for a new data folder.
    pub collation: String,
    /// Memory limit, as given.
    pub memory_limit: Option<String>,
    /// The engine's folder.
    pub root: PathBuf,
    /// TLS.
    pub tls: TlsMode,
    /// Wait before listening.
    pub start_delay: Duration,
    /// How long recovery takes at least, when said.
    pub recovery: Option<Duration>,
    /// Recovery never ends.
    pub never_ready: bool,
    /// SIGTERM does nothing.
    pub ignore_sigterm: bool,
    /// How much longer a clean stop takes.
    pub stop_delay: Duration,
}

/// A variable that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {variable} is '{value}'; set it to {expected}, or leave it out")]
pub struct BadVariable {
    variable: &'static str,
    value: String,
    expected: &'static str,
}

impl Settings {
    /// Reads the settings through `get`, which is the environment outside tests.
    pub fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, BadVariable> {
        let text = |name: &str| get(name).filter(|value| !value.is_empty());
        let is_set = |name: &str| text(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"));
        let tls = match text("STANDIN_TLS").as_deref() {
            None | Some("optional") => TlsMode::Optional,
            Some("off") => TlsMode::Off,
            Some("forced") => TlsMode::Forced,
            Some(other) => {
                let value = other.to_owned();
                return Err(BadVariable {
                    variable: "STANDIN_TLS",
                    value,
                    expected: "off, optional or forced",
                });
            }
        };
        Ok(Self {
            eula: text("ACCEPT_EULA").is_some(),
            sa_password: text("MSSQL_SA_PASSWORD").or_else(|| text("SA_PASSWORD")),
            address: parsed(&text, "MSSQL_IP_ADDRESS", "an IP address")?.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            port: parsed(&text, "MSSQL_TCP_PORT", "a port number")?.unwrap_or(1433),
            edition: text("MSSQL_PID").unwrap_or_else(|| "Developer".to_owned()),
            collation: text("MSSQL_COLLATION").unwrap_or_else(|| "SQL_Latin1_General_CP1_CI_AS".to_owned()),
            memory_limit: text("MSSQL_MEMORY_LIMIT_MB"),
            root: text("STANDIN_ROOT")
                .unwrap_or_else(|| "/var/opt/mssql".to_owned())
                .into(),
            tls,
            start_delay: seconds(&text, "STANDIN_START_DELAY_SECONDS")?.unwrap_or_default(),
            recovery: seconds(&text, "STANDIN_RECOVERY_SECONDS")?,
            never_ready: is_set("STANDIN_NEVER_READY"),
            ignore_sigterm: is_set("STANDIN_IGNORE_SIGTERM"),
            stop_delay: seconds(&text, "STANDIN_STOP_SECONDS")?.unwrap_or_default(),
        })
    }
}

fn parsed<T: FromStr>(
    text: &dyn Fn(&str) -> Option<String>,
    variable: &'static str,
    expected: &'static str,
) -> Result<Option<T>, BadVariable> {
    text(variable)
        .map(|value| {
            value.parse().map_err(|_| BadVariable {
                variable,
                value,
                expected,
            })
        })
        .transpose()
}

fn seconds(text: &dyn Fn(&str) -> Option<String>, variable: &'static str) -> Result<Option<Duration>, BadVariable> {
    let expected = "a number of seconds";
    let Some(number) = parsed::<f64>(text, variable, expected)? else {
        return Ok(None);
    };
    let duration = Duration::try_from_secs_f64(number);
    duration.map(Some).map_err(|_| BadVariable {
        variable,
        value: number.to_string(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, BadVariable> {
        Settings::read(&|name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_old_name_of_the_password_counts_only_without_the_new_one() {
        assert_eq!(
            read(&[("SA_PASSWORD", "old")]).unwrap().sa_password.as_deref(),
            Some("old")
        );
        let both = read(&[("SA_PASSWORD", "old"), ("MSSQL_SA_PASSWORD", "new")]).unwrap();
        assert_eq!(both.sa_password.as_deref(), Some("new"));
    }

    #[test]
    fn a_variable_that_cannot_be_understood_is_named() {
        for (variable, value) in [
            ("MSSQL_TCP_PORT", "70000"),
            ("STANDIN_TLS", "yes"),
            ("STANDIN_RECOVERY_SECONDS", "-1"),
            ("MSSQL_IP_ADDRESS", "localhost"),
        ] {
            let error = read(&[(variable, value)]).unwrap_err().to_string();
            assert!(error.contains(variable) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_real_engine() {
        let settings = read(&[]).unwrap();
        assert_eq!(
            (settings.port, settings.tls, settings.eula),
            (1433, TlsMode::Optional, false)
        );
        assert_eq!(settings.root, PathBuf::from("/var/opt/mssql"));
    }
}
