//! The settings of the process: a file (mounted from the chart's `ConfigMap`) plus what the pod knows about itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::driver_class::DriverClass;
use crate::error::{Error, Result};

/// Settings that an administrator chooses; each has a default, and an unknown key is an error because a misspelt
/// `driverClasses` would silently hold every failover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Namespaces to look after; empty means all.
    pub watch_namespaces: Vec<String>,
    /// `CSIDriver` name -> what its detach proves. A driver that stands neither here nor in the built-in table is `Unknown`: the operator
    /// holds and says what is missing.
    pub driver_classes: BTreeMap<String, DriverClass>,
    /// Whether the operator may shrink a dead node's `status.volumesInUse`; without it a detach takes the fallback.
    pub fast_detach: Switch,
}

/// A switch with names, because a boolean says nothing where it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Switch {
    /// On.
    #[default]
    Enabled,
    /// Off.
    Disabled,
}

/// What the pod is told about itself by the downward API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of this replica, holder of the leader lease.
    pub pod_name: String,
    /// Namespace of the leader lease.
    pub namespace: String,
    /// Own image; the init container of every instance runs from it.
    pub image: String,
}

/// The figures of the failover rules. Durations are of the operator's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A node's own Lease unchanged for so long makes the node suspect. Kubelets renew every 10 s.
    pub node_lease_stale: Duration,
    /// A node that was lost and is heard again without a break for so long has a kubelet that knows its Node object as it is, and has reported since. By
    /// client-go: a dead connection is closed after 45 s (`HTTP2_READ_IDLE_TIMEOUT_SECONDS` and `HTTP2_PING_TIMEOUT_SECONDS`), an attempt to connect
    /// ends after 30 s, a reflector backs off for 60 s at most; and there are 45 s for the kubelet's `nodeStatusUpdateFrequency` of 10 s.
    pub node_settled: Duration,
    /// A targeted detach without any sign of progress for so long falls back to deleting the attachment.
    pub detach_fallback: Duration,
    /// The longest silence between two looks at an instance.
    pub resync: Duration,
    /// Time granted to every call of the API server.
    pub call: Duration,
    /// Time granted to one of the operator's own logins.
    pub login: Duration,
}

/// So many logins must fail in a row before the engine is taken for silent: one may be chance.
pub const LOGIN_FAILURES: u32 = 2;
/// The pause between two of them.
pub const LOGIN_RETRY: Duration = Duration::from_millis(100);
/// Scheduling on both sides, and the pass that begins the logins.
const LOGIN_SLACK: Duration = Duration::from_millis(300);

impl Timing {
    /// From when on a Lease that was not renewed makes the operator log in: so early that both logins have failed, by their timeouts, when
    /// the Lease becomes stale.
    pub fn suspicion(&self) -> Duration {
        self.node_lease_stale.saturating_sub(self.asking())
    }

    /// So long before a decision that silence takes, the operator begins to log in.
    pub fn asking(&self) -> Duration {
        self.login * LOGIN_FAILURES + LOGIN_RETRY * (LOGIN_FAILURES - 1) + LOGIN_SLACK
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            node_lease_stale: Duration::from_secs(15),
            node_settled: Duration::from_secs(180),
            detach_fallback: Duration::from_secs(10),
            resync: Duration::from_secs(300),
            call: Duration::from_secs(10),
            login: Duration::from_secs(2),
        }
    }
}

impl Settings {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::Settings(format!("cannot read the settings {}: {e}", path.display())))?;
        Self::parse(&text).map_err(|e| Error::Settings(format!("the settings {} are not usable: {e}", path.display())))
    }

    fn parse(text: &str) -> std::result::Result<Self, serde_yaml::Error> {
        // an empty document is `null` to YAML and "all defaults" to a person
        if text.trim().is_empty() {
            Ok(Self::default())
        } else {
            serde_yaml::from_str(text)
        }
    }
}

impl Identity {
    /// From the environment.
    pub fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var(name)
                .map_err(|_| Error::Settings(format!("the environment variable {name} is not set; the chart sets it")))
        };
        Ok(Self {
            pod_name: variable("POD_NAME")?,
            namespace: variable("POD_NAMESPACE")?,
            image: variable("OPERATOR_IMAGE")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_means_all_defaults() {
        assert_eq!(Settings::parse("\n").expect("parses"), Settings::default());
    }

    #[test]
    fn both_logins_have_failed_when_the_lease_becomes_stale() {
        let seconds = Duration::from_secs;
        for (stale, login, starts) in [
            (seconds(15), seconds(2), Duration::from_millis(10_600)),
            (seconds(8), seconds(1), Duration::from_millis(5_600)),
            (seconds(3), seconds(2), Duration::ZERO),
        ] {
            let timing = Timing {
                node_lease_stale: stale,
                login,
                ..Timing::default()
            };
            assert_eq!(timing.suspicion(), starts, "{stale:?}, {login:?}");
        }
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_it() {
        let error = Settings::parse("driverClass: {}").expect_err("refused").to_string();
        assert!(error.contains("driverClass"), "{error}");
    }

    #[test]
    fn driver_classes_are_read_by_their_names() {
        let settings =
            Settings::parse("driverClasses: {disk.example.com: Revoke}\nfastDetach: Disabled").expect("parses");
        assert_eq!(settings.driver_classes["disk.example.com"], DriverClass::Revoke);
        assert_eq!(settings.fast_detach, Switch::Disabled);
    }
}
