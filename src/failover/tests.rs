//! Decision tables: one scene a row, what is decided and why. Here the scenes; the tables are in the files beside, by subject.

mod detection;
mod given_up;
mod lease;
mod never_attached;
mod opening;
mod pin;
mod release;
mod word;

use std::collections::BTreeMap;

use super::*;
use crate::driver_class::DriverClass;
use crate::scene::{Attachment, Claim, NodeFacts, NodeReady, Policy, Proof, Volume};
use crate::settings::Timing;
use crate::world::samples::{self, judged};

const UNIQUE: &str = "kubernetes.io/csi/disk.example.com^vol-1";

fn pod(name: &str) -> PodFacts {
    PodFacts {
        judged: judged(name),
        ours: true,
        gated: false,
        guarded: false,
        node: None,
        deleting: false,
        finished: false,
        pinned: false,
        unschedulable: None,
        unschedulable_for: Duration::ZERO,
        has_finalizers: false,
        avoids: Vec::new(),
        node_selector: BTreeMap::from([("kubernetes.io/arch".into(), "amd64".into())]),
    }
}

fn running(name: &str, node: &str) -> PodFacts {
    PodFacts {
        node: Some(node.into()),
        ..pod(name)
    }
}

fn gated(name: &str) -> PodFacts {
    PodFacts {
        gated: true,
        ..pod(name)
    }
}

fn node(name: &str) -> (String, NodeFacts) {
    (name.to_owned(), samples::node(name))
}

fn attachment(node: &str) -> Attachment {
    Attachment {
        judged: judged(&format!("va-{node}")),
        node: node.into(),
        deleting: false,
        detach_error: None,
    }
}

/// Three healthy nodes, a revoking driver, an exclusive claim that nobody has held yet, no pods.
fn scene() -> Scene {
    Scene {
        claim: Claim {
            name: "books-data".into(),
            exists: true,
            exclusive: true,
            holder: None,
            holder_node_is_provided: true,
            holder_stopped: false,
            avoid: Vec::new(),
            boots: BTreeMap::new(),
            pin_refused: None,
        },
        volume: Some(Volume {
            name: "pv-1".into(),
            driver: Some("disk.example.com".into()),
            attachable: true,
            class: DriverClass::Revoke,
            unique_name: Some(UNIQUE.into()),
        }),
        pods: Vec::new(),
        attachments: Vec::new(),
        nodes: [node("n1"), node("n2"), node("n3")].into(),
        login: Login::Succeeded,
        confirmed_dead: None,
        fast_detach: true,
        detaching_for: None,
        lease: None,
        policy: Policy::default(),
        timing: Timing::default(),
    }
}

impl Scene {
    fn held_by(mut self, pod: &str, node: Option<&str>) -> Self {
        self.claim.holder = Some(Holder {
            pod: format!("uid-{pod}"),
            node: node.map(str::to_owned),
        });
        self
    }
    fn with(mut self, pod: PodFacts) -> Self {
        self.pods.push(pod);
        self
    }
    fn silent(mut self, node: &str) -> Self {
        self.nodes.get_mut(node).expect("a node").lease_unchanged = Some(Duration::from_secs(15));
        self
    }
    fn login(mut self, login: Login) -> Self {
        self.login = login;
        self
    }
    fn class(mut self, class: DriverClass) -> Self {
        self.volume.as_mut().expect("a volume").class = class;
        self
    }
    fn attached(mut self, node: &str) -> Self {
        self.attachments.push(attachment(node));
        self
    }
    fn in_use_on(mut self, node: &str) -> Self {
        self.nodes.get_mut(node).expect("a node").volumes_in_use = vec!["other".into(), UNIQUE.into()];
        self
    }
    fn node(mut self, name: &str, change: impl FnOnce(&mut NodeFacts)) -> Self {
        change(self.nodes.get_mut(name).expect("a node"));
        self
    }
    fn without_node(mut self, name: &str) -> Self {
        self.nodes.remove(name);
        self
    }
}

/// The database ran on n1 in pod `old`, which does not answer any more.
fn dead_node() -> Scene {
    scene()
        .held_by("old", Some("n1"))
        .silent("n1")
        .login(Login::Failed("no answer".into()))
        .attached("n1")
        .in_use_on("n1")
}

/// The same after the eviction: pod `new` waits behind its gate.
fn after_eviction() -> Scene {
    let mut scene = dead_node().with(gated("new")).login(Login::NotTried);
    scene.claim.avoid = vec!["n1".into()];
    scene
}

fn decide(scene: &Scene) -> Verdict {
    super::decide(scene, Rules::all())
}

#[track_caller]
fn assert_no_act(scene: &Scene, state: State, reason: &str) -> Verdict {
    let verdict = decide(scene);
    assert_eq!(
        (verdict.state, verdict.reason, &verdict.act),
        (state, reason, &None),
        "{}",
        verdict.message
    );
    verdict
}

fn act(scene: &Scene) -> Act {
    let verdict = decide(scene);
    verdict
        .act
        .unwrap_or_else(|| panic!("no act, but {}: {}", verdict.reason, verdict.message))
}

fn recorded(pod: &str, node: Option<&str>) -> Act {
    Act::Record(Holder {
        pod: format!("uid-{pod}"),
        node: node.map(str::to_owned),
    })
}
