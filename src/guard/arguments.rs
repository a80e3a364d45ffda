//! The command line and the environment of the program.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::api::CREDENTIALS;

const USAGE: &str = "usage: sqledge-guard install --volume DIR --to DIR  (environment: SQLEDGE_VOLUME_ID, SQLEDGE_CLAIM, \
                     SQLEDGE_ADOPT)\n       sqledge-guard run --namespace NAME --lease NAME --volume DIR --port PORT --heartbeat FILE \
                     [--credentials DIR] -- COMMAND...  (environment: SQLEDGE_POD_UID)\n       sqledge-guard probe --port PORT \
                     [--record DIR]\n       sqledge-guard alive --heartbeat FILE";

/// What only the guard needs to know.
const HIDDEN: &[&str] = &["SQLEDGE_POD_UID"];

/// The command line or the environment is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}\n{USAGE}")]
pub struct Error(String);

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Install {
        volume: PathBuf,
        to: PathBuf,
        expected: Expected,
    },
    Run(Box<Options>),
    Probe {
        port: u16,
        record: Option<PathBuf>,
    },
    Alive {
        heartbeat: PathBuf,
    },
}

/// What the pod's template says.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// UID of the pod.
    pub pod: String,
    /// The API server's host and port.
    pub server: String,
    /// Token and certificate authority.
    pub credentials: PathBuf,
    /// The engine's volume.
    pub volume: PathBuf,
    /// The engine's port.
    pub port: u16,
    /// Where the kubelet looks for a sign of life.
    pub heartbeat: PathBuf,
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Variables that the engine need not see.
    pub hidden: &'static [&'static str],
}

/// What the volume must say, as the environment has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) id: String,
    pub(super) claim: String,
    pub(super) adopt: bool,
}

/// What each command takes.
const COMMANDS: &[(&str, &[&str])] = &[
    ("install", &["--volume", "--to"]),
    (
        "run",
        &[
            "--namespace",
            "--lease",
            "--volume",
            "--port",
            "--heartbeat",
            "--credentials",
        ],
    ),
    ("probe", &["--port", "--record"]),
    ("alive", &["--heartbeat"]),
];

struct Words<'a> {
    command: &'static str,
    options: BTreeMap<&'static str, OsString>,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Reads the words after the program's name, and the variables that belong to them.
pub(super) fn parse(
    words: impl Iterator<Item = OsString>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Command, Error> {
    let mut words = words;
    let Some(name) = words.next() else {
        return Err(Error("a command is missing".to_owned()));
    };
    let Some((command, known)) = COMMANDS.iter().find(|(command, _)| name == *command) else {
        return Err(Error(format!("unknown command {}", name.display())));
    };
    let mut options = BTreeMap::new();
    let mut engine = None;
    while let Some(word) = words.next() {
        if *command == "run" && word == "--" {
            engine = Some(words.collect());
            break;
        }
        let Some(option) = known.iter().find(|option| word == **option) else {
            return Err(Error(format!("{command} takes no {}", word.display())));
        };
        let value = words.next().ok_or_else(|| Error(format!("{option} needs a value")))?;
        options.insert(*option, value);
    }
    let mut words = Words {
        command,
        options,
        variable,
    };
    Ok(match *command {
        "install" => Command::Install {
            volume: words.path("--volume")?,
            to: words.path("--to")?,
            expected: Expected {
                id: words.set("SQLEDGE_VOLUME_ID")?,
                claim: words.set("SQLEDGE_CLAIM")?,
                adopt: variable("SQLEDGE_ADOPT").is_some_and(|value| value == "true"),
            },
        },
        "run" => Command::Run(Box::new(Options {
            namespace: words.text("--namespace")?,
            lease: words.text("--lease")?,
            pod: words.set("SQLEDGE_POD_UID")?,
            server: server(
                &words.set("KUBERNETES_SERVICE_HOST")?,
                &words.set("KUBERNETES_SERVICE_PORT")?,
            ),
            credentials: words
                .options
                .remove("--credentials")
                .map_or_else(|| CREDENTIALS.into(), PathBuf::from),
            volume: words.path("--volume")?,
            port: words.port()?,
            heartbeat: words.path("--heartbeat")?,
            command: engine.unwrap_or_default(),
            hidden: HIDDEN,
        })),
        "probe" => Command::Probe {
            port: words.port()?,
            record: words.options.remove("--record").map(PathBuf::from),
        },
        _ => Command::Alive {
            heartbeat: words.path("--heartbeat")?,
        },
    })
}

impl Words<'_> {
    fn value(&mut self, option: &str) -> Result<OsString, Error> {
        let missing = || Error(format!("{} needs {option}", self.command));
        self.options.remove(option).ok_or_else(missing)
    }

    fn path(&mut self, option: &str) -> Result<PathBuf, Error> {
        self.value(option).map(PathBuf::from)
    }

    fn text(&mut self, option: &str) -> Result<String, Error> {
        let text = self.value(option)?.into_string();
        text.map_err(|_| Error(format!("{option} needs a name")))
    }

    fn port(&mut self) -> Result<u16, Error> {
        let value = self.value("--port")?;
        let number = OsStr::to_str(&value).and_then(|port| port.parse().ok());
        number.ok_or_else(|| Error("--port needs a number".to_owned()))
    }

    fn set(&self, name: &str) -> Result<String, Error> {
        let value = (self.variable)(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| Error(format!("the environment variable {name} is missing")))
    }
}

/// An IPv6 address is written in brackets in an address of the web.
fn server(host: &str, port: &str) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{Command, Error, parse, server};

    fn read(line: &str) -> Result<Command, Error> {
        let words: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        parse(words.into_iter(), &|name| {
            let known = [
                ("SQLEDGE_VOLUME_ID", "id"),
                ("SQLEDGE_CLAIM", "claim"),
                ("SQLEDGE_POD_UID", "pod"),
                ("KUBERNETES_SERVICE_HOST", "fd00::1"),
                ("KUBERNETES_SERVICE_PORT", "443"),
            ];
            let found = known.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const RUN: &str = "run --namespace shop --lease orders-writer --volume /data --port 1433 --heartbeat /run/beat";

    #[test]
    fn each_command_takes_its_own_options() {
        assert!(matches!(
            read("install --volume /a --to /b").expect("a command"),
            Command::Install { volume, to, expected } if volume.ends_with("a") && to.ends_with("b") && !expected.adopt
        ));
        assert!(matches!(
            read("probe --port 1433").expect("a command"),
            Command::Probe {
                port: 1433,
                record: None
            }
        ));
        assert!(matches!(
            read("probe --record /a --port 1433").expect("a command"),
            Command::Probe { record: Some(record), .. } if record.ends_with("a")
        ));
        assert!(matches!(
            read("alive --heartbeat /run/beat").expect("a command"),
            Command::Alive { heartbeat } if heartbeat.ends_with("run/beat")
        ));
    }

    #[test]
    fn what_stands_behind_two_dashes_is_the_engines() {
        let Command::Run(options) = read(&format!("{RUN} -- /opt/engine --port 1 --")).expect("a command") else {
            panic!("another command");
        };
        assert_eq!(options.command, ["/opt/engine", "--port", "1", "--"]);
        assert_eq!(options.server, "[fd00::1]:443");
        assert_eq!((options.pod.as_str(), options.port), ("pod", 1433));
    }

    #[test]
    fn a_wrong_command_line_is_refused_with_the_usage() {
        for line in [
            "",
            "runs",
            "run",
            "run --port 1 -- engine",
            "install",
            "install --volume /a",
            "install --volume /a --to /b --port 1",
            "probe",
            "probe --port",
            "probe --port x",
            "probe --port 70000",
            "probe --port 1 --to /b",
            "probe --port 1 --verbose yes",
            "probe --port 1 -- engine",
            "alive",
        ] {
            let error = read(line).expect_err(line).to_string();
            assert!(error.contains("usage: sqledge-guard"), "{line}: {error}");
        }
    }

    #[test]
    fn a_missing_variable_is_named() {
        let words = RUN.split_whitespace().map(OsString::from);
        let error = parse(words, &|_| None).expect_err("no environment").to_string();
        assert!(error.contains("SQLEDGE_POD_UID"), "{error}");
    }

    #[test]
    fn an_address_needs_brackets_only_where_it_has_colons() {
        assert_eq!(server("10.0.0.1", "443"), "10.0.0.1:443");
        assert_eq!(server("api.example.org", "6443"), "api.example.org:6443");
        assert_eq!(server("::1", "443"), "[::1]:443");
    }
}
