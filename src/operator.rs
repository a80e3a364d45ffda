//! Puts the parts together: election, watches, controllers, endpoint, and an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use futures::stream::{self, StreamExt as _};
use kube::runtime::events::{Recorder, Reporter};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::context::{Context, Memory};
use crate::controller;
use crate::error::{Error, Result};
use crate::events::{Events, Publisher};
use crate::heartbeats::Heartbeats;
use crate::leader::{Elector, Leadership};
use crate::login::Tds;
use crate::logins::{self, Logins};
use crate::metrics::Metrics;
use crate::settings::{Identity, Settings, Timing};
use crate::telemetry;
use crate::watch as caches;

/// Runs the operator until SIGTERM or SIGINT.
pub async fn run(settings: Settings, identity: Identity, listen: SocketAddr) -> Result<()> {
    let timing = Timing::default();
    let cluster = Cluster::connect(timing.call).await?;
    let (stop, stopped) = watch::channel(false);
    let metrics = Arc::new(Metrics::default());
    let renewals = Arc::new(Heartbeats::default());
    let (answers, again) = watch::channel(0);
    let (elector, leadership) = Elector::new(cluster.clone(), identity.clone(), {
        let renewals = renewals.clone();
        move |away| {
            renewals.leave_out(away);
            answers.send_modify(|times| *times += 1);
        }
    });
    let (synced, is_synced) = watch::channel(false);
    tokio::spawn({
        let (metrics, leadership, stop) = (metrics.clone(), leadership.clone(), stop.clone());
        async move {
            if let Err(error) = telemetry::serve(listen, metrics, leadership, is_synced).await {
                tracing::error!(%error, "the endpoint ended");
                stop.send_replace(true);
            }
        }
    });
    let election = tokio::spawn(elector.run(until_stopped(stopped.clone())));
    let (events, queue) = events(&cluster, &identity, timing, &metrics);
    // apart from everything else: the last events are those of the end
    let (publish_no_more, last_event) = watch::channel(false);
    let published = tokio::spawn(queue.run(until_stopped(last_event)));
    let shared = Shared {
        cluster,
        events,
        settings,
        identity,
        timing,
        metrics,
        leadership,
        renewals,
        again,
    };
    let namespaces: Vec<Option<String>> = match shared.settings.watch_namespaces.as_slice() {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    };
    let mut contexts = Vec::new();
    let mut controllers = Vec::new();
    for namespace in namespaces {
        let (context, triggers) = shared.context(namespace.as_deref());
        contexts.push(context.clone());
        controllers.push(controller::run(context, triggers, until_stopped(stopped.clone())));
    }
    tokio::spawn(async move {
        for context in &contexts {
            context.caches.ready().await;
        }
        synced.send_replace(true);
        tracing::info!("the caches are complete");
    });
    let mut signals = Signals::new()?;
    let all = future::join_all(controllers);
    tokio::pin!(all);
    tokio::select! {
        _ = &mut all => {}
        () = signals.any() => {
            tracing::info!("asked to stop; finishing what is under way");
            stop.send_replace(true);
            // a pass ends within its calls' timeouts; the kubelet's patience is the outer limit
            let _ = tokio::time::timeout(Duration::from_secs(15), &mut all).await;
        }
    }
    stop.send_replace(true);
    publish_no_more.send_replace(true);
    let _ = tokio::time::timeout(Duration::from_secs(5), future::join(election, published)).await;
    Ok(())
}

/// One queue for all: the recorder joins repeated events.
fn events(cluster: &Cluster, identity: &Identity, timing: Timing, metrics: &Arc<Metrics>) -> (Events, Publisher) {
    let reporter = Reporter {
        controller: "sqledge-operator".into(),
        instance: Some(identity.pod_name.clone()),
    };
    Events::new(Recorder::new(cluster.client(), reporter), timing.call, metrics.clone())
}

struct Shared {
    cluster: Cluster,
    events: Events,
    settings: Settings,
    identity: Identity,
    timing: Timing,
    metrics: Arc<Metrics>,
    leadership: Leadership,
    renewals: Arc<Heartbeats>,
    /// Changes when the API server can be reached again.
    again: watch::Receiver<u64>,
}

impl Shared {
    fn context(&self, namespace: Option<&str>) -> (Arc<Context>, caches::Triggers) {
        let heartbeats = Arc::new(Heartbeats::default());
        let renewals = self.renewals.clone();
        let (caches, triggers) = caches::start(
            &self.cluster.client(),
            namespace,
            heartbeats.clone(),
            renewals.clone(),
            &self.again,
        );
        let door = Tds {
            timeout: self.timing.login,
        };
        let (logins, answered) = Logins::new(Arc::new(door), logins::PATIENCE);
        let triggers = stream::select(triggers, answered).boxed();
        let context = Context {
            events: self.events.clone(),
            cluster: self.cluster.clone(),
            caches,
            heartbeats,
            renewals,
            logins,
            settings: self.settings.clone(),
            identity: self.identity.clone(),
            timing: self.timing,
            leadership: self.leadership.clone(),
            metrics: self.metrics.clone(),
            memory: Memory::default(),
        };
        (Arc::new(context), triggers)
    }
}

async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    // an error means that the sender is gone, and with it the process
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let failed = |e: std::io::Error| Error::Settings(format!("no signal handler can be installed: {e}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
