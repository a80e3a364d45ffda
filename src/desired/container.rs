//! The containers of the pod: one that checks the volume before the engine may touch it, and the engine.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, ObjectFieldSelector, Pod, Probe,
    SecretKeySelector, SecurityContext, VolumeMount,
};

use super::PASSWORD_KEY;
use super::deployment::Rendering;
use crate::api::Agent;
use crate::instance::{ENGINE_PORT, Instance};

/// Name of the engine's container.
pub const ENGINE_CONTAINER: &str = "engine";

/// Name of the init container that checks the volume; its termination message says why a volume was refused.
pub const VOLUME_CHECK_CONTAINER: &str = "volume-check";

pub(super) const DATA_VOLUME: &str = "data";
pub(super) const GUARD_VOLUME: &str = "guard";
pub(super) const HEARTBEAT_VOLUME: &str = "heartbeat";
pub(super) const TOKEN_VOLUME: &str = "guard-token";

/// Where every engine keeps its files.
const DATA_PATH: &str = "/var/opt/mssql";

const GUARD_PATH: &str = "/sqledge";

/// Where the init container leaves the guard.
const GUARD: &str = "/sqledge/sqledge-guard";

/// The engine itself.
const ENGINE: &str = "/opt/mssql/bin/sqlservr";

/// The guard's sign of life: in memory, because it must not depend on a disk whether a database is restarted.
const HEARTBEAT_PATH: &str = "/run/sqledge";
const HEARTBEAT: &str = "/run/sqledge/heartbeat";

/// Where every client of the API server looks for its token.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Checks the marker on the volume and leaves the guard where the engine's container finds it.
///
/// It is an init container because the engine silently makes new system databases on an empty volume: after that a wrong
/// volume looks healthy.
pub(super) fn volume_check(instance: &Instance, rendering: &Rendering) -> Container {
    let mut env = vec![
        variable("SQLEDGE_VOLUME_ID", rendering.volume_id),
        variable("SQLEDGE_CLAIM", &instance.claim_name),
    ];
    if !instance.claim_is_ours {
        // a claim of the user's own may hold a database that we have not marked yet
        env.push(variable("SQLEDGE_ADOPT", "true"));
    }
    Container {
        name: VOLUME_CHECK_CONTAINER.to_owned(),
        image: Some(rendering.operator_image.to_owned()),
        command: Some(strings(&[
            "/sqledge-guard",
            "install",
            "--volume",
            DATA_PATH,
            "--to",
            GUARD_PATH,
        ])),
        env: Some(env),
        volume_mounts: Some(vec![mount(DATA_VOLUME, DATA_PATH), mount(GUARD_VOLUME, GUARD_PATH)]),
        // the same as the engine's: that costs nothing, the two never run together, and a pod is `Guaranteed` only if
        // each of its containers is
        resources: instance.resources.clone(),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(strings(&["ALL"])),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

/// The engine, under a guard or by itself.
pub(super) fn engine(instance: &Instance, rendering: &Rendering) -> Container {
    let alone = Container {
        name: ENGINE_CONTAINER.to_owned(),
        image: Some(instance.image.clone()),
        // The entry point of SQL Server images since 2022 CU18 does not pass SIGTERM on: the engine would be killed at the
        // end of each grace period and recover at each start.
        command: Some(strings(&[ENGINE])),
        env: Some(environment(instance, rendering)),
        ports: Some(vec![ContainerPort {
            name: Some("sql".to_owned()),
            container_port: ENGINE_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: instance.resources.clone(),
        security_context: instance.security_context.clone(),
        startup_probe: Some(startup()),
        liveness_probe: Some(liveness()),
        readiness_probe: Some(readiness()),
        volume_mounts: Some(vec![
            mount(DATA_VOLUME, DATA_PATH),
            read_only(mount(GUARD_VOLUME, GUARD_PATH)),
        ]),
        // an engine that stops says why in its last lines, and the status repeats them
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    };
    if instance.is_guarded() {
        guarded(instance, alone)
    } else {
        alone
    }
}

/// The same under a guard, which is process 1 and starts the engine once the Lease is its own. It waits for a slow start,
/// restarts a hung engine and records the first answer, so the kubelet has only the guard itself to watch.
fn guarded(instance: &Instance, mut engine: Container) -> Container {
    let (lease, port) = (instance.lease_name(), ENGINE_PORT.to_string());
    let guard = [
        GUARD,
        "run",
        "--namespace",
        &instance.namespace,
        "--lease",
        &lease,
        "--volume",
        DATA_PATH,
        "--port",
        &port,
        "--heartbeat",
        HEARTBEAT,
        "--",
        ENGINE,
    ];
    engine.command = Some(strings(&guard));
    engine.startup_probe = None;
    engine.liveness_probe = Some(exec(&[GUARD, "alive", "--heartbeat", HEARTBEAT], liveness()));
    engine.env.get_or_insert_default().push(EnvVar {
        name: "SQLEDGE_POD_UID".to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: "metadata.uid".to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    });
    engine.volume_mounts.get_or_insert_default().extend([
        mount(HEARTBEAT_VOLUME, HEARTBEAT_PATH),
        read_only(mount(TOKEN_VOLUME, TOKEN_PATH)),
    ]);
    engine
}

/// Whether a pod was made with a guard; one from before there was a guard, or from a resource without one, was not.
pub fn has_guard(pod: &Pod) -> bool {
    let engine = pod.spec.as_ref().and_then(|spec| {
        spec.containers
            .iter()
            .find(|container| container.name == ENGINE_CONTAINER)
    });
    let command = engine.and_then(|engine| engine.command.as_deref()).unwrap_or_default();
    matches!(command, [program, verb, ..] if program == GUARD && verb == "run")
}

fn environment(instance: &Instance, rendering: &Rendering) -> Vec<EnvVar> {
    let agent = match instance.agent {
        Agent::Enabled => "true",
        Agent::Disabled => "false",
    };
    let mut env = vec![
        variable("ACCEPT_EULA", "Y"),
        EnvVar {
            name: PASSWORD_KEY.to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: instance.secret_name.clone(),
                    key: rendering.secret_key.to_owned(),
                    optional: None,
                }),
                ..EnvVarSource::default()
            }),
        },
        variable("MSSQL_AGENT_ENABLED", agent),
    ];
    let optional = [
        ("MSSQL_PID", instance.edition.clone()),
        ("MSSQL_COLLATION", instance.collation.clone()),
        ("MSSQL_LCID", instance.lcid.map(|lcid| lcid.to_string())),
        ("TZ", instance.time_zone.clone()),
        (
            "MSSQL_MEMORY_LIMIT_MB",
            instance.memory_limit_mb.map(|megabytes| megabytes.to_string()),
        ),
    ];
    env.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some(variable(name, &value?))),
    );
    env.extend(instance.env.iter().cloned());
    env
}

/// An hour until the engine first answers. It answers while it still recovers, so this is about its start alone, and a
/// shorter budget would end a slow start only to begin it again.
fn startup() -> Probe {
    // the first answer also records on the volume that there is a database now: an empty volume is then a lost one
    Probe {
        period_seconds: Some(2),
        failure_threshold: Some(1800),
        ..probe(&["--record", DATA_PATH])
    }
}

/// A hung engine, or guard, is restarted where it is. Ten seconds to stop are plenty for a process that answers nothing.
fn liveness() -> Probe {
    Probe {
        period_seconds: Some(5),
        failure_threshold: Some(3),
        termination_grace_period_seconds: Some(10),
        ..probe(&[])
    }
}

/// Readiness only shows in listings, because the Service also publishes pods that are not ready: hence the rare probe.
fn readiness() -> Probe {
    Probe {
        period_seconds: Some(10),
        failure_threshold: Some(3),
        ..probe(&[])
    }
}

/// Asks the engine for the first packet of its protocol: a stopped process still accepts TCP connections, because the
/// kernel does that, and not every image has a client to log in with.
fn probe(more: &[&str]) -> Probe {
    let port = ENGINE_PORT.to_string();
    let mut command = vec![GUARD, "probe", "--port", &port];
    command.extend(more);
    exec(&command, Probe::default())
}

fn exec(command: &[&str], probe: Probe) -> Probe {
    Probe {
        exec: Some(ExecAction {
            command: Some(strings(command)),
        }),
        timeout_seconds: Some(3),
        ..probe
    }
}

fn read_only(mount: VolumeMount) -> VolumeMount {
    VolumeMount {
        read_only: Some(true),
        ..mount
    }
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    }
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
