//! Events are published beside the passes: an event costs calls of the API server, and no failover waits for those.
//! A bounded queue that one task empties, so that events come in the order in which things happened. I/O only; decides nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder};
use tokio::sync::mpsc;

use crate::api::SqlEdgeInstance;
use crate::metrics::Metrics;
use crate::text::cut;

/// The longest note that the API server takes in an event.
const MAX_NOTE: usize = 1000;
/// So many may wait; what is worth an event is rare, so more of them mean that the API server takes none.
const WAITING: usize = 256;

/// Where events are handed in. Never waits; what finds the queue full is dropped and counted.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
    metrics: Arc<Metrics>,
}

/// Takes events out of the queue and publishes them, one after the other.
pub struct Publisher {
    queue: mpsc::Receiver<(Event, ObjectReference)>,
    recorder: Recorder,
    call: Duration,
}

impl Events {
    /// A queue and the one that empties it; `call` is granted to each event.
    pub fn new(recorder: Recorder, call: Duration, metrics: Arc<Metrics>) -> (Self, Publisher) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let publisher = Publisher {
            queue: receiver,
            recorder,
            call,
        };
        let events = Self { queue: sender, metrics };
        (events, publisher)
    }

    /// Best effort: an event that cannot be published must not fail a pass.
    pub fn publish(&self, resource: &SqlEdgeInstance, type_: EventType, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.into(),
            note: Some(cut(note, MAX_NOTE).to_owned()),
            action: "Reconcile".into(),
            secondary: None,
        };
        if self.queue.try_send((event, resource.object_ref(&()))).is_err() {
            self.metrics.event_dropped();
        }
    }
}

impl Publisher {
    /// Runs until `stop` resolves, and then until the queue is empty; whoever waits for that sets the bound.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                event = self.queue.recv() => match event {
                    Some((event, about)) => self.publish(&event, &about).await,
                    None => return,
                },
            }
        }
        self.queue.close();
        while let Some((event, about)) = self.queue.recv().await {
            self.publish(&event, &about).await;
        }
    }

    /// Publishes what waits at this moment; for tests, in which nothing happens beside a pass.
    pub async fn drain(&mut self) {
        while let Ok((event, about)) = self.queue.try_recv() {
            self.publish(&event, &about).await;
        }
    }

    async fn publish(&self, event: &Event, about: &ObjectReference) {
        let published = tokio::time::timeout(self.call, self.recorder.publish(event, about)).await;
        if !matches!(published, Ok(Ok(()))) {
            tracing::debug!(reason = event.reason, "an event could not be published");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use kube::runtime::events::Reporter;

    use super::*;
    use crate::api::SqlEdgeInstanceSpec;

    /// Reasons of the events that arrived.
    type Arrived = Arc<Mutex<Vec<String>>>;

    fn queue() -> (Events, Publisher, Arrived, Arc<Metrics>) {
        let arrived = Arrived::default();
        let sink = arrived.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let sink = sink.clone();
            async move {
                let bytes = request.into_body().collect_bytes().await.expect("a body");
                let event: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
                let reason = event["reason"].as_str().expect("a reason").to_owned();
                sink.lock().expect("no panic inside").push(reason);
                Ok::<_, Infallible>(Response::new(Body::from(bytes.to_vec())))
            }
        });
        let reporter = Reporter {
            controller: "sqledge-operator".into(),
            instance: Some("operator-0".into()),
        };
        let metrics = Arc::new(Metrics::default());
        let recorder = Recorder::new(Client::new(service, "default"), reporter);
        let (events, publisher) = Events::new(recorder, Duration::from_secs(5), metrics.clone());
        (events, publisher, arrived, metrics)
    }

    fn say(events: &Events, reason: &str) {
        let mut resource = SqlEdgeInstance::new("books", SqlEdgeInstanceSpec::default());
        resource.metadata.namespace = Some("shop".into());
        events.publish(&resource, EventType::Normal, reason, "a note");
    }

    fn reasons(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|number| format!("R{number}")).collect()
    }

    #[tokio::test]
    async fn events_arrive_in_order_and_those_that_wait_at_the_end_arrive_too() {
        let (events, publisher, arrived, _) = queue();
        for reason in reasons(0..20) {
            say(&events, &reason);
        }
        publisher.run(std::future::ready(())).await;
        assert_eq!(*arrived.lock().expect("no panic inside"), reasons(0..20));
        say(&events, "TooLate");
        assert_eq!(arrived.lock().expect("no panic inside").len(), 20);
    }

    #[tokio::test]
    async fn an_event_that_finds_the_queue_full_is_dropped_and_counted_and_the_earlier_ones_stay() {
        let (events, mut publisher, arrived, metrics) = queue();
        for reason in reasons(0..WAITING + 3) {
            say(&events, &reason);
        }
        assert!(
            metrics.text().expect("text").contains("sqledge_events_dropped_total 3"),
            "{:?}",
            metrics.text()
        );
        publisher.drain().await;
        assert_eq!(*arrived.lock().expect("no panic inside"), reasons(0..WAITING));
    }
}
