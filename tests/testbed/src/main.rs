//! The command `testbed`: see `--help`. Everything it does is in the library; here words become calls.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
};

use clap::{Parser, Subcommand, ValueEnum};
use testbed::{
    Error, Layout, Peers, Result, Settings, Testbed,
    cgroup::Cgroups,
    check, cluster, controlplane, daemon,
    image::{Entry, Image},
    node::init,
    process::Process,
    programs,
};

/// A real multi-node Kubernetes on one Linux machine.
#[derive(Parser)]
struct Arguments {
    /// Which testbed; several can stand side by side
    #[arg(long, global = true, env = "TESTBED", default_value = "dev")]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start it, after removing what an earlier run of that name has left
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// How often kubelets report their node, such as 2s (default: the kubelet's own)
        #[arg(long)]
        node_status_period: Option<String>,
        /// Without storage host and drivers
        #[arg(long)]
        no_storage: bool,
        /// Without load balancer
        #[arg(long)]
        no_balancer: bool,
        /// With the programs as they were built last
        #[arg(long)]
        no_build: bool,
    },
    /// Stop it and remove all of it
    Down,
    /// Say what runs
    Status,
    /// Print the path of the administrator's kubeconfig (usable with `exec cp`)
    Kubeconfig,
    /// Run kubectl as administrator
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Do something to a node
    Node {
        deed: Deed,
        /// n1, n2, ...
        node: String,
    },
    /// Cut a node off from others, in both directions
    Partition {
        node: String,
        /// Whom from: api, storage, clients, nodes, all
        #[arg(long, value_delimiter = ',', required = true)]
        from: Vec<Peers>,
    },
    /// End partitions, of one node or all
    Heal { node: Option<String> },
    /// Take the API server away, or bring it back
    Api { deed: ApiDeed },
    /// Run a program in the network of cp, client or storage, or inside a node
    Exec {
        place: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Container images
    Images {
        #[command(subcommand)]
        action: ImageAction,
    },
    /// Ask the storage host, or set its mode
    Storage {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Say at once all that is missing on this machine
    Check,
    /// Build the cluster's programs and stop
    Build,
    #[command(hide = true)]
    Internal {
        #[command(subcommand)]
        action: Internal,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Deed {
    PowerOff,
    PowerOn,
    Pause,
    Resume,
    StopKubelet,
    StartKubelet,
    StopRuntime,
    StartRuntime,
}

#[derive(Clone, Copy, ValueEnum)]
enum ApiDeed {
    Stop,
    Start,
}

#[derive(Subcommand)]
enum ImageAction {
    /// Give archives to every node
    Import {
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Write an archive from static binaries
    Build {
        /// The image's full name
        #[arg(long)]
        reference: String,
        /// PROGRAM:PATH, a program and where it goes
        #[arg(long = "program")]
        programs: Vec<String>,
        /// PATH:OWNER:MODE, a folder, such as /data:10001:770
        #[arg(long = "folder")]
        folders: Vec<String>,
        /// NAME=VALUE
        #[arg(long = "env")]
        environment: Vec<String>,
        /// The user's number
        #[arg(long, default_value = "")]
        user: String,
        /// The program that is run (once for each word)
        #[arg(long, allow_hyphen_values = true)]
        entrypoint: Vec<String>,
        /// The archive
        #[arg(long)]
        output: PathBuf,
    },
}

#[derive(Subcommand)]
enum Internal {
    /// Become a daemon of a testbed
    Daemon {
        #[arg(long)]
        group: PathBuf,
        #[arg(long)]
        pidfile: PathBuf,
        #[arg(last = true)]
        words: Vec<OsString>,
    },
    /// Become the first process of a node
    Init { machine: PathBuf },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed: {}", error.with_reasons());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let layout = || Layout::new(&arguments.name, Layout::cache_from_environment()?);
    let open = || Testbed::open(&arguments.name);
    match arguments.action {
        Action::Up {
            nodes,
            node_status_period,
            no_storage,
            no_balancer,
            no_build,
        } => {
            let layout = layout()?;
            check::machine(layout.cache())?;
            let own = std::env::current_exe().map_err(|source| Error::Start {
                command: "testbed".to_owned(),
                source,
            })?;
            let settings = Settings {
                nodes,
                node_status_period,
                storage: !no_storage,
                balancer: !no_balancer,
            };
            if !no_build {
                programs::build(settings.storage)?;
            }
            cluster::up(&layout, &settings, &own)
        }
        Action::Down => cluster::down(&layout()?),
        Action::Status => status(&open()?),
        Action::Kubeconfig => say(&open()?.kubeconfig().display().to_string()),
        Action::Kubectl { arguments } => {
            let bed = open()?;
            let mut kubectl = bed.command("cp")?;
            become_command(kubectl.arg(bed.layout().tool("kubectl")).args(arguments))
        }
        Action::Node { deed, node } => {
            let bed = open()?;
            let node = bed.node(&node)?;
            match deed {
                Deed::PowerOff => node.power_off(),
                Deed::PowerOn => node.power_on(),
                Deed::Pause => node.pause(),
                Deed::Resume => node.resume(),
                Deed::StopKubelet => node.stop_service("kubelet"),
                Deed::StartKubelet => node.start_service("kubelet"),
                Deed::StopRuntime => node.stop_service("containerd"),
                Deed::StartRuntime => node.start_service("containerd"),
            }
        }
        Action::Partition { node, from } => open()?.partition(&node, &from),
        Action::Heal { node } => open()?.heal(node.as_deref()),
        Action::Api { deed: ApiDeed::Stop } => open()?.stop_api(),
        Action::Api { deed: ApiDeed::Start } => open()?.start_api(),
        Action::Exec { place, command } => become_command(open()?.command(&place)?.args(command)),
        Action::Images { action } => images(action, open),
        Action::Storage { arguments } => become_command(open()?.storage_command().args(arguments)),
        Action::Check => {
            check::machine(layout()?.cache())?;
            say(&format!(
                "nothing is missing; control groups are {}",
                Cgroups::detect()?.version()
            ))
        }
        Action::Build => programs::build(true),
        Action::Internal {
            action: Internal::Daemon { group, pidfile, words },
        } => Err(daemon::become_program(&group, &pidfile, &words)),
        Action::Internal {
            action: Internal::Init { machine },
        } => {
            let text = std::fs::read(&machine).map_err(|source| Error::File {
                action: "read",
                path: machine.clone(),
                source,
            })?;
            let machine = serde_json::from_slice(&text).map_err(|e| Error::Malformed {
                what: "the node's description".to_owned(),
                detail: e.to_string(),
            })?;
            init::run(&machine)
        }
    }
}

fn images(action: ImageAction, open: impl Fn() -> Result<Testbed>) -> Result<()> {
    match action {
        ImageAction::Import { archives } => open()?.import_images(&archives),
        ImageAction::Build {
            reference,
            programs,
            folders,
            environment,
            user,
            entrypoint,
            output,
        } => {
            let mut entries = programs::base_entries();
            for folder in &folders {
                let fields: Vec<_> = folder.split(':').collect();
                let parsed = match fields.as_slice() {
                    [path, owner, mode] => owner
                        .parse()
                        .ok()
                        .zip(u32::from_str_radix(mode, 8).ok())
                        .map(|it| (path, it)),
                    _ => None,
                };
                let (path, (owner, mode)) = parsed.ok_or_else(|| not_understood(folder, "PATH:OWNER:MODE"))?;
                entries.push(Entry::folder(path, mode, owner));
            }
            for program in &programs {
                let (from, to) = program
                    .rsplit_once(':')
                    .ok_or_else(|| not_understood(program, "PROGRAM:PATH"))?;
                entries.push(Entry::program(to, from));
            }
            Image {
                reference,
                entries,
                entrypoint,
                command: Vec::new(),
                environment,
                user,
            }
            .write(&output)
        }
    }
}

fn not_understood(given: &str, form: &str) -> Error {
    Error::Refused(format!("`{given}` is not of the form {form}"))
}

fn status(bed: &Testbed) -> Result<()> {
    let layout = bed.layout();
    let mut lines = vec![format!("testbed {}   {}", layout.name(), bed.state_dir().display())];
    for process in controlplane::PROCESSES
        .into_iter()
        .chain(bed.settings().storage.then_some("storage-host"))
    {
        let running = Process::recorded(&layout.pidfile(process));
        lines.push(format!(
            "  {process:26}{}",
            running.map_or("stopped".to_owned(), |p| format!("runs, pid {}", p.pid))
        ));
    }
    for node in bed.nodes() {
        let state = match node.first_process() {
            None => "no power".to_owned(),
            Some(_) if node.is_paused()? => "paused".to_owned(),
            Some(_) => {
                let services = node.services()?;
                let stopped = services
                    .iter()
                    .filter(|(_, state)| !state.running)
                    .map(|(name, _)| name.as_str());
                let stopped: Vec<_> = stopped.collect();
                if stopped.is_empty() {
                    "runs".to_owned()
                } else {
                    format!("runs, without {}", stopped.join(", "))
                }
            }
        };
        let cut = bed.partitions_of(node.id());
        let cut = if cut.is_empty() {
            String::new()
        } else {
            format!(", cut off from {cut:?}").to_lowercase()
        };
        lines.push(format!("  node {:21}{state}{cut}", node.id().to_string()));
    }
    if controlplane::answers(layout) {
        lines.push(bed.kubectl(&["get", "nodes", "--output=wide"])?);
    }
    say(lines.join("\n").trim_end())
}

fn say(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        // a reader who has seen enough is no failure
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::File {
            action: "write to",
            path: PathBuf::from("standard output"),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// Hands our terminal and exit code to the program.
fn become_command(command: &mut Command) -> Result<()> {
    let source = command.exec();
    Err(Error::Start {
        command: command.get_program().to_string_lossy().into_owned(),
        source,
    })
}
