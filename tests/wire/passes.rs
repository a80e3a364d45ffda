//! Passes of an operator over the canned cluster.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use sqledge_operator::cluster::Cluster;
use sqledge_operator::context::{Context, Memory};
use sqledge_operator::controller;
use sqledge_operator::driver_class::DriverClass;
use sqledge_operator::events::{Events, Publisher};
use sqledge_operator::heartbeats::Heartbeats;
use sqledge_operator::leader::Leadership;
use sqledge_operator::login::{Attempt, Change, Door, Target};
use sqledge_operator::logins::Logins;
use sqledge_operator::metrics::Metrics;
use sqledge_operator::readable::UnreadableInstances;
use sqledge_operator::settings::{Identity, Settings, Switch, Timing};
use sqledge_operator::space::Told;
use sqledge_operator::watch::{Caches, Synced};
use tokio::sync::watch;

use crate::canned::{Canned, Sent};
use crate::shop::{IMAGE, INSTANCE, PODS};

/// Who writes.
pub const MANAGER: (&str, &str) = ("fieldManager", "sqledge-operator");

/// How the engine takes a login.
#[derive(Clone)]
pub enum Engine {
    Answers,
    /// From when it says so.
    AnswersFrom(Arc<AtomicBool>),
    /// With this password; takes none with a blank ever, and none that begins with `later` now.
    Knows(Arc<Mutex<String>>),
    Refuses,
    Hangs,
}

impl Door for Engine {
    fn login(&self, target: Target) -> BoxFuture<'_, Attempt> {
        let answers = match self {
            Self::Answers => true,
            Self::Knows(password) if *password.lock().expect("no panic inside") == target.password => true,
            Self::Knows(_) => return Box::pin(std::future::ready(Attempt::WrongPassword)),
            Self::AnswersFrom(then) => then.load(Ordering::Relaxed),
            Self::Refuses => false,
            Self::Hangs => return Box::pin(std::future::pending()),
        };
        let attempt = if answers {
            Attempt::Succeeded {
                version: "16.0.1000.6".into(),
                broken: Vec::new(),
                space: Told::Nothing,
            }
        } else {
            Attempt::NoAnswer("no answer within 2 s".into())
        };
        Box::pin(std::future::ready(attempt))
    }

    fn change_password(&self, target: Target, wanted: String) -> BoxFuture<'_, Change> {
        let Self::Knows(password) = self else {
            unreachable!("every password fits")
        };
        let mut password = password.lock().expect("no panic inside");
        let change = if *password != target.password {
            Change::NotTheFormer
        } else if wanted.contains(' ') {
            Change::Refused("Password validation failed.".into())
        } else if wanted.starts_with("later") {
            Change::NotNow("The transaction log for database 'master' is full.".into())
        } else {
            *password = wanted;
            Change::Done
        };
        Box::pin(std::future::ready(change))
    }
}

/// How a pass meets the cluster.
pub struct Meeting {
    pub node_silent: bool,
    pub engine: Engine,
    pub fast_detach: Switch,
}

impl Default for Meeting {
    fn default() -> Self {
        Self {
            node_silent: false,
            engine: Engine::Answers,
            fast_detach: Switch::Enabled,
        }
    }
}

/// Two passes, with time between them, as an operator that has just started; what they write apart from events and status.
pub async fn acts(canned: &Canned, meeting: Meeting) -> Vec<Sent> {
    let mut sent = passes(canned, meeting).await;
    sent.retain(|sent| !sent.path.contains("/events") && !sent.path.starts_with(&format!("{INSTANCE}/")));
    // the canned world does not change, so the second pass sends the same again
    sent.dedup();
    sent
}

pub async fn passes(canned: &Canned, meeting: Meeting) -> Vec<Sent> {
    let (context, mut publisher) = operator(canned, &meeting);
    for _ in 0..2 {
        pass(&context, &meeting).await;
        publisher.drain().await;
    }
    canned.sent()
}

/// So much time goes by between two passes.
const LONG: Duration = Duration::from_secs(60);

/// A pass, some time after the last one.
pub async fn pass(context: &Arc<Context>, meeting: &Meeting) {
    let instance = context.caches.instances.state().remove(0);
    if meeting.node_silent {
        context.heartbeats.age(LONG);
    }
    context.memory.age(LONG);
    context.logins.age(LONG);
    controller::pass(instance, context.clone()).await.expect("a pass");
}

/// An operator that has just started, with caches that show what is.
pub fn operator(canned: &Canned, meeting: &Meeting) -> (Arc<Context>, Publisher) {
    let (context, publisher, _) = replica(canned, meeting);
    (context, publisher)
}

/// The same, and what says whether it leads.
pub fn replica(canned: &Canned, meeting: &Meeting) -> (Arc<Context>, Publisher, watch::Sender<Option<Instant>>) {
    let service = {
        let canned = canned.clone();
        tower::service_fn(move |request| canned.clone().answer(request))
    };
    let client = Client::new(service, "default");
    let heartbeats = Arc::new(Heartbeats::default());
    heartbeats.saw("n1", "40");
    heartbeats.saw("n1", "41");
    let metrics = Arc::new(Metrics::default());
    let reporter = Reporter {
        controller: "sqledge-operator".into(),
        instance: Some("operator-0".into()),
    };
    let (events, publisher) = Events::new(Recorder::new(client.clone(), reporter), LONG, metrics.clone());
    let (leads, leadership) = Leadership::always();
    let context = Context {
        cluster: Cluster::new(client.clone(), LONG),
        caches: Caches {
            instances: canned.cache("/apis/sqledge.io/v1alpha1/namespaces/shop/sqledgeinstances"),
            unreadable: UnreadableInstances::default(),
            deployments: canned.cache("/apis/apps/v1/namespaces/shop/deployments"),
            services: canned.cache("/api/v1/namespaces/shop/services"),
            claims: canned.cache("/api/v1/namespaces/shop/persistentvolumeclaims"),
            pods: canned.cache(PODS),
            nodes: canned.cache("/api/v1/nodes"),
            attachments: canned.cache("/apis/storage.k8s.io/v1/volumeattachments"),
            accounts: canned.cache("/api/v1/namespaces/shop/serviceaccounts"),
            roles: canned.cache("/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles"),
            bindings: canned.cache("/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings"),
            leases: canned.cache("/apis/coordination.k8s.io/v1/namespaces/shop/leases"),
            synced: Synced::already(),
        },
        heartbeats,
        renewals: Arc::default(),
        logins: Logins::new(Arc::new(meeting.engine.clone()), LONG).0,
        settings: Settings {
            driver_classes: BTreeMap::from([("disk.storage.test".to_owned(), DriverClass::Revoke)]),
            fast_detach: meeting.fast_detach,
            ..Settings::default()
        },
        identity: Identity {
            pod_name: "operator-0".into(),
            namespace: "operators".into(),
            image: IMAGE.into(),
        },
        timing: Timing::default(),
        leadership,
        metrics,
        events,
        memory: Memory::default(),
    };
    (Arc::new(context), publisher, leads)
}
