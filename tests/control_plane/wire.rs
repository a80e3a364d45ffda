//! The fault layer: a service below `kube::Client` that passes requests on to the real API server, writes down each of them, keeps the
//! mirror up to date, checks the invariants after every write, and does to one chosen request what a bad day does.

use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::BoxError;

use crate::mirror::{Key, Place, is_deleting};
use crate::world::State;

/// Lists of what all worlds have in common.
const SHARED: [&str; 2] = [
    "/api/v1/nodes",
    "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
];

/// What happens to one request; requests are counted from 1, writes apart from all calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The write is carried out; its answer never arrives, because the operator dies.
    CrashAfterWrite(usize),
    /// The call ends like this.
    Call(usize, Ending),
    /// The write is held back until it is let go: the operator was paused at the worst moment.
    HoldWrite(usize),
    /// The same, counting only those that were judged on what they change.
    HoldJudged(usize),
}

/// How a call ends that does not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Not carried out; this status code.
    Refused(u16),
    /// Carried out, and answered with 500.
    DoneButFailed,
    /// Not carried out; the connection breaks.
    Lost,
    /// Carried out; the connection breaks before the answer.
    DoneButLost,
    /// Carried out; no answer, ever.
    DoneButSilent,
}

/// A request as it was sent, and how it was answered.
#[derive(Clone, Debug)]
pub struct Sent {
    pub method: String,
    pub path: String,
    pub body: Value,
    pub status: u16,
}

impl Sent {
    pub fn is_write(&self) -> bool {
        self.method != "GET"
    }

    /// Whether it was judged on the object that it changes: children and status are applied, and events are only told.
    pub fn is_judged(&self) -> bool {
        self.method == "DELETE" || self.method == "PUT" || self.method == "PATCH" && self.body.is_array()
    }
}

/// What was sent since the fault was chosen.
#[derive(Default)]
struct Counts {
    calls: usize,
    writes: usize,
    judged: usize,
}

/// One client's way to the API server.
pub struct Wire {
    inner: Client,
    actor: &'static str,
    state: Arc<Mutex<State>>,
    fault: Mutex<Fault>,
    sent: Mutex<Vec<Sent>>,
    counts: Mutex<Counts>,
    /// The operator is dead from here on.
    pub crashed: Notify,
    /// A write waits to be let go.
    pub held: Notify,
    /// Lets it go.
    pub release: Notify,
    holding: Mutex<Option<Sent>>,
}

impl Wire {
    pub fn new(inner: Client, actor: &'static str, state: Arc<Mutex<State>>, fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            inner,
            actor,
            state,
            fault: Mutex::new(fault),
            sent: Mutex::default(),
            counts: Mutex::default(),
            crashed: Notify::new(),
            held: Notify::new(),
            release: Notify::new(),
            holding: Mutex::default(),
        })
    }

    /// A client that speaks through this wire.
    pub fn client(self: &Arc<Self>) -> Client {
        let wire = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let wire = wire.clone();
            async move { wire.carry(request).await }
        });
        Client::new(service, "default")
    }

    /// All requests so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.sent.lock().expect("no panic inside").clone()
    }

    /// How many calls and how many writes there were.
    pub fn counts(&self) -> (usize, usize) {
        let counts = self.counts.lock().expect("no panic inside");
        (counts.calls, counts.writes)
    }

    /// The write that is held back, or was the last one to be.
    pub fn holding(&self) -> Option<Sent> {
        self.holding.lock().expect("no panic inside").clone()
    }

    /// Begins to count anew, with this fault ahead.
    pub fn arm(&self, fault: Fault) {
        *self.fault.lock().expect("no panic inside") = fault;
        *self.counts.lock().expect("no panic inside") = Counts::default();
        self.sent.lock().expect("no panic inside").clear();
    }

    async fn carry(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await?;
        let sent = Sent {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            status: 0,
        };
        let sent_path = sent.path.clone();
        let (is_write, is_judged) = (sent.is_write(), sent.is_judged());
        let fault = {
            let mut counts = self.counts.lock().expect("no panic inside");
            counts.calls += 1;
            counts.writes += usize::from(is_write);
            counts.judged += usize::from(is_judged);
            match *self.fault.lock().expect("no panic inside") {
                Fault::CrashAfterWrite(n) | Fault::HoldWrite(n) if !is_write || n != counts.writes => Fault::None,
                Fault::HoldJudged(n) if !is_judged || n != counts.judged => Fault::None,
                Fault::Call(n, _) if n != counts.calls => Fault::None,
                fault => fault,
            }
        };
        if matches!(fault, Fault::Call(_, Ending::Lost)) {
            self.note(Sent { status: 1, ..sent });
            return Err("connection reset by the test".into());
        }
        if let Fault::Call(_, Ending::Refused(code)) = fault {
            self.note(Sent { status: code, ..sent });
            return Ok(refusal(code));
        }
        if let Fault::HoldWrite(_) | Fault::HoldJudged(_) = fault {
            *self.holding.lock().expect("no panic inside") = Some(sent.clone());
            self.held.notify_one();
            self.release.notified().await;
        }
        let answer = self.inner.send(Request::from_parts(parts, Body::from(bytes))).await?;
        let (head, body) = answer.into_parts();
        let bytes = body.collect_bytes().await?;
        if is_write && head.status.is_success() {
            self.mirror(&sent, &serde_json::from_slice(&bytes).unwrap_or_default())
                .await;
        }
        self.note(Sent {
            status: head.status.as_u16(),
            ..sent
        });
        match fault {
            Fault::CrashAfterWrite(_) => {
                self.crashed.notify_one();
                std::future::pending().await
            }
            Fault::Call(_, Ending::DoneButSilent) => std::future::pending().await,
            Fault::Call(_, Ending::DoneButLost) => Err("connection reset by the test".into()),
            Fault::Call(_, Ending::DoneButFailed) => Ok(refusal(500)),
            _ => Ok(Response::from_parts(
                head,
                Body::from(self.of_this_world(&sent_path, &bytes)),
            )),
        }
    }

    /// Worlds share an API server. What has no namespace of its own is told apart by the name, which begins with that of its world.
    fn of_this_world(&self, path: &str, answer: &[u8]) -> Vec<u8> {
        if !SHARED.contains(&path) {
            return answer.to_vec();
        }
        let Ok(mut list) = serde_json::from_slice::<Value>(answer) else {
            return answer.to_vec();
        };
        let world = format!("{}-", self.state.lock().expect("no panic inside").id);
        if let Some(items) = list["items"].as_array_mut() {
            items.retain(|item| {
                item["metadata"]["name"]
                    .as_str()
                    .is_some_and(|name| name.starts_with(&world))
            });
        }
        list.to_string().into_bytes()
    }

    fn note(&self, sent: Sent) {
        if sent.is_write() || sent.status != 200 {
            let line = format!("{} {} {} -> {}", self.actor, sent.method, sent.path, sent.status);
            self.state.lock().expect("no panic inside").trace.push(line);
        }
        self.sent.lock().expect("no panic inside").push(sent);
    }

    /// Brings the mirror up to date after a write that was carried out, and checks.
    async fn mirror(&self, sent: &Sent, answer: &Value) {
        let Some(place) = Place::of(&sent.path).filter(|place| place.plural != "events") else {
            return;
        };
        let Some(name) = place
            .name
            .or_else(|| answer["metadata"]["name"].as_str().map(str::to_owned))
        else {
            return;
        };
        // the answer to a deletion, or to taking away the last finalizer, does not say whether the object is gone
        let object = if sent.method == "DELETE" || answer["kind"] == "Status" || is_deleting(answer) {
            self.read(&sent.path, place.subresource.as_deref()).await
        } else {
            Some(answer.clone())
        };
        let key = Key {
            plural: place.plural,
            name,
        };
        let mut state = self.state.lock().expect("no panic inside");
        state.wrote(self.actor, &sent.method, &key, object.as_ref());
    }

    async fn read(&self, path: &str, subresource: Option<&str>) -> Option<Value> {
        let path = subresource.map_or(path, |name| path.trim_end_matches(name).trim_end_matches('/'));
        let request = Request::get(path).body(Vec::new()).expect("a request");
        match self.inner.request::<Value>(request).await {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.is_not_found() => None,
            Err(error) => panic!("the test cannot read {path}: {error}"),
        }
    }
}

/// What an API server answers that does not want to.
fn refusal(code: u16) -> Response<Body> {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": "refused by the test", "reason": reason, "code": code,
    });
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string().into_bytes()))
        .expect("a response")
}
