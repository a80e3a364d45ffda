//! Objects as a watch delivers them, of which one that cannot be read fails no other.
//!
//! The API server stores what the types here refuse: a time beyond the year 9999 (in `managedFields`, say, which every writer may send), a number
//! that is almost an integer, or whatever an older definition allowed. In a plain watch one such object fails every list, and whoever may write one
//! labelled object in one namespace could keep the operator from all databases of all others.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{Event, Result};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::Value;

use crate::api::SqlEdgeInstance;

/// An object, or why it is none.
#[derive(Clone, Debug)]
pub struct Readable<K>(pub std::result::Result<K, Unreadable>);

/// What is known of an object that cannot be read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The path of the field, and what is wrong with it.
    pub error: String,
    /// Name, namespace, UID and version; nothing else.
    pub metadata: ObjectMeta,
}

impl Unreadable {
    fn reference<K: Resource<DynamicType = ()>>(&self) -> ObjectRef<K> {
        let reference = ObjectRef::new(self.metadata.name.as_deref().unwrap_or_default());
        match &self.metadata.namespace {
            Some(namespace) => reference.within(namespace),
            None => reference,
        }
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Readable<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let text = |key: &str| object["metadata"][key].as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        let read = serde_path_to_error::deserialize(object);
        Ok(Self(read.map_err(|error| Unreadable {
            error: error.to_string(),
            metadata,
        })))
    }
}

impl<K: Resource> Resource for Readable<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}

/// The event without what cannot be read. What was read before stays in the cache as it was, over a new list, too, until it is deleted.
pub fn readable<K>(cache: &Store<K>, event: Event<Readable<K>>) -> Option<Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug,
{
    let before = |unreadable: &Unreadable| cache.get(&unreadable.reference()).map(|object| (*object).clone());
    let told = |unreadable: &Unreadable| {
        let Unreadable { error, metadata } = unreadable;
        let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
        tracing::error!(kind = %K::kind(&()), namespace, name, error, "cannot be read, and is taken for what it was before");
    };
    match event {
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
        Event::InitApply(Readable(Ok(object))) => Some(Event::InitApply(object)),
        Event::Apply(Readable(Ok(object))) => Some(Event::Apply(object)),
        Event::Delete(Readable(Ok(object))) => Some(Event::Delete(object)),
        Event::InitApply(Readable(Err(unreadable))) => {
            told(&unreadable);
            before(&unreadable).map(Event::InitApply)
        }
        Event::Apply(Readable(Err(unreadable))) => {
            told(&unreadable);
            None
        }
        Event::Delete(Readable(Err(unreadable))) => before(&unreadable).map(Event::Delete),
    }
}

/// The instances that cannot be read, and why: what somebody has to be told, and whose claims are not free.
#[derive(Clone, Default)]
pub struct UnreadableInstances(Arc<Mutex<HashMap<ObjectRef<SqlEdgeInstance>, Unreadable>>>);

impl UnreadableInstances {
    /// Why that one cannot be read, if it cannot.
    pub fn get(&self, instance: &ObjectRef<SqlEdgeInstance>) -> Option<Unreadable> {
        self.0.lock().expect("no panic inside").get(instance).cloned()
    }

    /// Follows a watch; yields an instance that has just been found to be unreadable.
    pub fn follow(&self, event: &Result<Event<Readable<SqlEdgeInstance>>>) -> Option<ObjectRef<SqlEdgeInstance>> {
        let mut all = self.0.lock().expect("no panic inside");
        let (object, there) = match event {
            Ok(Event::Init) => {
                all.clear();
                return None;
            }
            Ok(Event::InitDone) | Err(_) => return None,
            Ok(Event::Apply(object) | Event::InitApply(object)) => (object, true),
            Ok(Event::Delete(object)) => (object, false),
        };
        match &object.0 {
            Err(unreadable) if there => {
                let reference = unreadable.reference();
                all.insert(reference.clone(), unreadable.clone());
                Some(reference)
            }
            Err(unreadable) => {
                all.remove(&unreadable.reference());
                None
            }
            Ok(instance) => {
                all.remove(&ObjectRef::from_obj(instance));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::core::ObjectList;
    use kube::runtime::reflector;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, grace: &Value) -> Value {
        let managed = json!([{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {},
            "time": "9999-12-31T23:59:59Z"}]);
        json!({"metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "managedFields": managed},
            "spec": {"containers": [], "terminationGracePeriodSeconds": grace}})
    }

    fn read(object: Value) -> Readable<Pod> {
        serde_json::from_value(object).expect("something at least")
    }

    #[test]
    fn one_object_that_cannot_be_read_fails_no_list_and_is_told_with_the_path_of_its_field() {
        let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {},
            "items": [pod("good", &json!(7)), pod("odd", &json!(1.000_000_001))]});
        let list: ObjectList<Readable<Pod>> = serde_json::from_value(list).expect("a list");
        let [good, odd] = list.items.as_slice() else {
            panic!("{list:?}");
        };
        assert_eq!(good.meta().name.as_deref(), Some("good"));
        assert!(good.0.is_ok(), "{good:?}");
        let unreadable = odd.0.as_ref().expect_err("no integer");
        assert!(
            unreadable.error.starts_with("spec.terminationGracePeriodSeconds: "),
            "{}",
            unreadable.error
        );
        assert_eq!(odd.meta().uid.as_deref(), Some("uid-odd"));
    }

    #[test]
    fn what_was_read_before_stays_as_it_was_until_it_is_deleted() {
        let (cache, mut writer) = reflector::store::<Pod>();
        let odd = || read(pod("a", &json!("many")));
        let grace = || {
            let pod = cache.get(&ObjectRef::new("a").within("shop"))?;
            pod.spec.as_ref()?.termination_grace_period_seconds
        };
        let mut apply = |event| {
            if let Some(event) = readable(&cache, event) {
                writer.apply_watcher_event(&event);
            }
        };
        apply(Event::Apply(odd()));
        assert_eq!(grace(), None, "it was never read");
        apply(Event::Delete(odd()));
        apply(Event::Apply(read(pod("a", &json!(7)))));
        apply(Event::Apply(odd()));
        assert_eq!(grace(), Some(7));
        apply(Event::Init);
        apply(Event::InitApply(odd()));
        apply(Event::InitDone);
        assert_eq!(grace(), Some(7), "a new list changes nothing");
        apply(Event::Apply(read(pod("a", &json!(8)))));
        assert_eq!(grace(), Some(8));
        apply(Event::Delete(odd()));
        assert_eq!(grace(), None);
    }
}
