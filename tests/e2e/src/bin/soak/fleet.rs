//! The databases under test: their resources, their clients, and whether they serve.

use std::collections::BTreeMap;

use e2e::{
    Clients, Error, Instance, Lab, Result,
    clients::Pace,
    instance::{FAST, condition},
    lab::UNLISTED_CLASS,
    operator,
};
use oracle::log::Moment;
use serde_json::Value;

use crate::rows::Rows;

/// Where they are.
pub const NAMESPACE: &str = "soak";
/// What clients do: a few rows a second each, since eight of them and all else share the machine.
pub const PACE: Pace = Pace {
    interval: "250ms",
    in_flight: 36,
    // a busy machine is no fault of the database's
    timeout: "3s",
};
/// Over so many seconds rows must come, and hardly an attempt fail, before a database counts as serving.
const CALM: f64 = 4.0;

/// A pod as the API server has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its node; empty before it has one.
    pub node: String,
    /// Whether its Ready condition is True.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// What the cluster says of a database.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Whether its Ready condition is True.
    pub ready: bool,
    /// Of that condition.
    pub reason: String,
    /// Of that condition.
    pub message: String,
    /// The pod that the status names.
    pub pod: String,
    /// All its pods.
    pub pods: Vec<Pod>,
    /// UID and addresses of its Service.
    pub service: (String, String),
}

impl State {
    /// The pod that the status names.
    pub fn serving_pod(&self) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.name == self.pod)
    }
}

/// A database with its clients.
pub struct Member<'a> {
    /// The resource.
    pub instance: Instance<'a>,
    /// Its clients.
    pub clients: Clients<'a>,
    /// What they see.
    pub rows: Rows,
    /// The volume, as the storage host calls it.
    pub volume: String,
    /// Whether its storage is of a class that the operator knows nothing about.
    pub unlisted: bool,
    /// As of the last look.
    pub state: State,
    /// How often the Service was another than at the look before.
    pub address_changes: usize,
}

impl Member<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.instance.name()
    }

    /// Why it does not serve; `None` if it does.
    pub fn trouble(&self) -> Option<String> {
        let State {
            ready,
            reason,
            message,
            pod,
            pods,
            ..
        } = &self.state;
        if !ready {
            return Some(format!("{reason}: {message}"));
        }
        match pods.as_slice() {
            [only] if only.name == *pod && only.ready && !only.deleting => {}
            [only] if only.name == *pod && !only.ready => return Some(format!("pod {pod} is not ready")),
            others => {
                let names: Vec<&str> = others.iter().map(|pod| pod.name.as_str()).collect();
                return Some(format!(
                    "there are pods [{}], of which {pod} should serve alone",
                    names.join(" ")
                ));
            }
        }
        (!self.rows.is_calm(&Moment::now(), CALM)).then(|| "clients cannot write".to_owned())
    }
}

/// Name, what is special about it, and whether its driver is unlisted.
fn specification(number: usize, leases: bool) -> (String, String, bool) {
    let (more, unlisted) = match number {
        // a driver the operator was not told about: its database holds after the loss of a node
        2 => (format!("storage:\n  storageClassName: {UNLISTED_CLASS}"), true),
        3 => ("env:\n- name: STANDIN_STOP_SECONDS\n  value: \"3\"".to_owned(), false),
        4 => (
            "env:\n- name: STANDIN_RECOVERY_SECONDS\n  value: \"4\"".to_owned(),
            false,
        ),
        5 if leases => ("failover:\n  lease: Always".to_owned(), false),
        6 if leases => (FAST.to_owned(), false),
        7 if leases => ("failover:\n  guard: Disabled".to_owned(), false),
        _ => (String::new(), false),
    };
    (format!("db-{number}"), more, unlisted)
}

/// What is special about them, in words.
pub fn described(count: usize, leases: bool) -> String {
    let special = (1..=count)
        .map(|number| specification(number, leases))
        .filter(|(_, more, _)| !more.is_empty());
    let all: Vec<String> = special
        .map(|(name, more, _)| format!("{name} {{{}}}", more.replace('\n', " ")))
        .collect();
    all.join(", ")
}

/// Makes them, waits for all, and starts their clients.
pub fn create<'a>(lab: &'a Lab, namespace: &str, count: usize) -> Result<Vec<Member<'a>>> {
    lab.kubectl(&["create", "namespace", namespace])?;
    let leases = operator::knows_leases(lab)?;
    let made = (1..=count).map(|number| {
        let (name, more, unlisted) = specification(number, leases);
        let instance = Instance::named(lab, namespace, &name);
        instance.apply(&more)?;
        Ok((instance, unlisted))
    });
    let made = made.collect::<Result<Vec<_>>>()?;
    for (instance, _) in &made {
        instance.await_ready(180)?;
    }
    let mut members = Vec::new();
    for (instance, unlisted) in made {
        let clients = Clients::start_at(&instance, PACE)?;
        members.push(Member {
            rows: Rows::of(clients.log_file().to_owned()),
            volume: instance.volume()?,
            instance,
            clients,
            unlisted,
            state: State::default(),
            address_changes: 0,
        });
    }
    look(lab, namespace, &mut members)?;
    // the first look was no change
    for member in &mut members {
        member.address_changes = 0;
    }
    Ok(members)
}

/// Nodes that are Ready and open, by name.
pub type Nodes = BTreeMap<String, bool>;

/// Asks the cluster for all of them, and for its nodes.
pub fn look(lab: &Lab, namespace: &str, members: &mut [Member]) -> Result<Nodes> {
    let place = format!("--namespace={namespace}");
    let words = [
        "get",
        "sqledge,pods,services,nodes",
        &place,
        "--output=json",
        "--request-timeout=4s",
    ];
    let list: Value = serde_json::from_str(&lab.kubectl(&words)?).map_err(Error::malformed("a list of objects"))?;
    let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    let mut states: BTreeMap<String, State> = BTreeMap::new();
    let mut nodes = Nodes::new();
    for item in items {
        let name = text(&item["metadata"]["name"]);
        match item["kind"].as_str().unwrap_or_default() {
            "Node" => {
                let open = item["spec"]["unschedulable"] != true;
                nodes.insert(name, open && is_ready(item));
            }
            "SqlEdgeInstance" => {
                let ready = condition(item, "Ready");
                let state = states.entry(name).or_default();
                state.pod = text(&item["status"]["podName"]);
                state.ready = ready.as_ref().is_some_and(|ready| ready.status == "True");
                (state.reason, state.message) = ready.map_or_else(Default::default, |it| (it.reason, it.message));
            }
            "Service" => {
                let addresses = item["status"]["loadBalancer"]["ingress"].to_string();
                states.entry(name).or_default().service = (text(&item["metadata"]["uid"]), addresses);
            }
            "Pod" => {
                let instance = text(&item["metadata"]["labels"]["app.kubernetes.io/instance"]);
                states.entry(instance).or_default().pods.push(Pod {
                    name,
                    uid: text(&item["metadata"]["uid"]),
                    node: text(&item["spec"]["nodeName"]),
                    ready: is_ready(item),
                    deleting: !item["metadata"]["deletionTimestamp"].is_null(),
                });
            }
            _ => {}
        }
    }
    for member in members {
        let state = states.remove(member.name()).unwrap_or_default();
        if state.service != member.state.service {
            member.address_changes += 1;
        }
        member.state = state;
    }
    Ok(nodes)
}

fn is_ready(object: &Value) -> bool {
    condition(object, "Ready").is_some_and(|ready| ready.status == "True")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
