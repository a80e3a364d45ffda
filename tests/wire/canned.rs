//! A cluster that is nothing but some objects, and a record of what was sent to it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::Resource;
use kube::client::Body;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub const JSON_PATCH: &str = "application/json-patch+json";

/// A request as it left the client.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub content_type: String,
    pub body: Value,
}

impl Sent {
    pub fn new(method: &str, path: &str, query: &[(&str, &str)], content_type: &str, body: Value) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            content_type: content_type.to_owned(),
            body,
        }
    }
}

/// A cluster that is nothing but these objects, by path.
#[derive(Clone, Default)]
pub struct Canned {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    sent: Arc<Mutex<Vec<Sent>>>,
    /// Paths of what was read, in this order.
    read: Arc<Mutex<Vec<String>>>,
    /// Writes change the objects; else they are only written down.
    obeys: bool,
    /// The next write to this path is a conflict.
    conflict: Arc<Mutex<Option<String>>>,
    /// Every write to this path is answered with this status.
    refusal: Arc<Mutex<Option<(String, Value)>>>,
}

impl Canned {
    pub fn that_obeys(mut self) -> Self {
        self.obeys = true;
        self
    }

    /// The next write to this path is a conflict.
    pub fn refuse_once(&self, path: &str) {
        *self.conflict.lock().expect("no panic inside") = Some(path.to_owned());
    }

    /// Every write to this path is answered with this status.
    pub fn refuse(&self, path: &str, status: Value) {
        *self.refusal.lock().expect("no panic inside") = Some((path.to_owned(), status));
    }

    pub fn put(&self, path: &str, object: Value) {
        self.objects
            .lock()
            .expect("no panic inside")
            .insert(path.to_owned(), object);
    }

    /// What was read since the last time.
    pub fn reads(&self) -> Vec<String> {
        std::mem::take(&mut *self.read.lock().expect("no panic inside"))
    }

    /// Carries out a write: patches, replacements and deletions, and of server-side apply the status and what makes a Deployment another one.
    fn obey(&self, method: &http::Method, path: &str, content_type: &str, body: &Value) {
        let mut objects = self.objects.lock().expect("no panic inside");
        if method == http::Method::DELETE {
            objects.remove(path);
            return;
        }
        let Some(object) = objects.get_mut(path.trim_end_matches("/status")) else {
            return;
        };
        let version: u64 = object["metadata"]["resourceVersion"]
            .as_str()
            .map_or(0, |v| v.parse().expect("a number"));
        if method == http::Method::PUT {
            *object = body.clone();
        } else if content_type == JSON_PATCH {
            let operations: json_patch::Patch = serde_json::from_value(body.clone()).expect("a patch");
            json_patch::patch(object, &operations).expect("a patch that fits");
        } else if path.ends_with("/status") {
            object["status"] = body["status"].clone();
        } else if body["spec"] != object["spec"] || body["metadata"]["annotations"] != object["metadata"]["annotations"]
        {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or_default();
            object["metadata"]["generation"] = (generation + 1).into();
            object["spec"] = body["spec"].clone();
            object["metadata"]["annotations"] = body["metadata"]["annotations"].clone();
        }
        object["metadata"]["resourceVersion"] = (version + 100).to_string().into();
    }

    /// What was sent since the last time.
    pub fn sent(&self) -> Vec<Sent> {
        std::mem::take(&mut *self.sent.lock().expect("no panic inside"))
    }

    pub fn get(&self, path: &str) -> Value {
        self.objects.lock().expect("no panic inside")[path].clone()
    }

    pub fn remove(&self, path: &str) {
        self.objects.lock().expect("no panic inside").remove(path);
    }

    /// All objects of a kind, by the path of its list.
    pub fn under(&self, list: &str) -> Vec<Value> {
        let objects = self.objects.lock().expect("no panic inside");
        let prefix = format!("{list}/");
        let direct = |path: &&String| path.strip_prefix(&prefix).is_some_and(|name| !name.contains('/'));
        objects
            .keys()
            .filter(direct)
            .map(|path| objects[path].clone())
            .collect()
    }

    pub fn cache<K>(&self, list: &str) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
    {
        let (store, mut writer) = reflector::store();
        writer.apply_watcher_event(&Event::Init);
        for object in self.under(list) {
            writer.apply_watcher_event(&Event::InitApply(serde_json::from_value(object).expect("an object")));
        }
        writer.apply_watcher_event(&Event::InitDone);
        store
    }

    pub async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await.expect("a body");
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let path = parts.uri.path();
        let stored = self.objects.lock().expect("no panic inside").get(path).cloned();
        if parts.method == http::Method::GET {
            self.read.lock().expect("no panic inside").push(path.to_owned());
            let list = matches!(
                path.rsplit('/').next(),
                Some("pods" | "leases" | "volumeattachments" | "storageclasses")
            );
            return Ok(match stored {
                Some(object) => response(200, &object),
                None if list => response(
                    200,
                    &json!({"metadata": {"resourceVersion": "1"}, "items": self.under(path)}),
                ),
                None => response(
                    404,
                    &json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}),
                ),
            });
        }
        let header = parts.headers.get("content-type").and_then(|value| value.to_str().ok());
        let query = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        self.sent.lock().expect("no panic inside").push(Sent {
            method: parts.method.to_string(),
            path: path.to_owned(),
            // no value of ours needs more than this one to be decoded
            query: query.map(|(k, v)| (k.to_owned(), v.replace("%2F", "/"))).collect(),
            content_type: header.unwrap_or_default().to_owned(),
            body: body.clone(),
        });
        let mut conflict = self.conflict.lock().expect("no panic inside");
        if conflict.take_if(|conflict| conflict == path).is_some() {
            let body = json!({"kind": "Status", "status": "Failure", "reason": "Conflict", "code": 409});
            return Ok(response(409, &body));
        }
        let refusal = self.refusal.lock().expect("no panic inside").clone();
        if let Some((_, status)) = refusal.filter(|(refused, _)| refused == path) {
            let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
            return Ok(response(code.expect("a code"), &status));
        }
        if self.obeys {
            self.obey(&parts.method, path, header.unwrap_or_default(), &body);
        }
        let object = path.trim_end_matches("/status");
        let stored = self.objects.lock().expect("no panic inside").get(object).cloned();
        Ok(response(200, &stored.unwrap_or(body)))
    }
}

fn response(code: u16, body: &Value) -> Response<Body> {
    Response::builder()
        .status(code)
        .body(Body::from(body.to_string().into_bytes()))
        .expect("a response")
}
