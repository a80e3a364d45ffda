//! What the API server stores for one world, kept up to date from the answers to writes, with its whole history.
//!
//! Every write of a world passes through this process, so nothing needs to be read: the mirror is what the invariants are checked on
//! after each write, and an earlier state of it is what a cache that lags behind would show.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// An object's place: plural of its kind and its name. A world has one namespace, and its cluster-wide names are its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub plural: String,
    pub name: String,
}

/// The path of a request, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub plural: String,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

impl Place {
    /// `/api/v1/namespaces/NS/pods/NAME/status` and the like.
    pub fn of(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        match parts.next()? {
            "api" => parts.next()?,
            "apis" => parts.nth(1)?,
            _ => return None,
        };
        let mut rest: Vec<&str> = parts.collect();
        if rest.first() == Some(&"namespaces") && rest.len() > 2 {
            rest.drain(..2);
        }
        let mut rest = rest.into_iter().map(str::to_owned);
        Some(Self {
            plural: rest.next()?,
            name: rest.next(),
            subresource: rest.next(),
        })
    }
}

/// The objects of a world and how they came to be.
#[derive(Default)]
pub struct Mirror {
    current: BTreeMap<Key, Value>,
    history: Vec<(Key, Option<Value>)>,
}

impl Mirror {
    /// Notes what the API server answered; `None` is "gone". An answer that was overtaken by a later one is ignored.
    pub fn note(&mut self, key: Key, object: Option<Value>) {
        let stored = self.current.get(&key);
        match &object {
            Some(new) if stored.is_some_and(|old| uid(old) == uid(new) && version(old) >= version(new)) => return,
            None if stored.is_none() => return,
            _ => {}
        }
        match &object {
            Some(new) => self.current.insert(key.clone(), new.clone()),
            None => self.current.remove(&key),
        };
        self.history.push((key, object));
    }

    /// The past is another one: from now on this is stored, whatever was before.
    pub fn replace(&mut self, objects: Vec<(Key, Value)>) {
        let gone = std::mem::take(&mut self.current);
        self.current.extend(objects);
        let gone = gone.into_keys().filter(|key| !self.current.contains_key(key));
        self.history.extend(gone.map(|key| (key, None)));
        let there = self.current.iter();
        self.history
            .extend(there.map(|(key, object)| (key.clone(), Some(object.clone()))));
    }

    /// One object.
    pub fn get(&self, plural: &str, name: &str) -> Option<&Value> {
        self.current.get(&Key {
            plural: plural.to_owned(),
            name: name.to_owned(),
        })
    }

    /// All objects of a kind, by name.
    pub fn all(&self, plural: &str) -> impl Iterator<Item = &Value> {
        let plural = plural.to_owned();
        self.current
            .iter()
            .filter(move |(key, _)| key.plural == plural)
            .map(|(_, object)| object)
    }

    /// Everything.
    pub fn objects(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.current.iter()
    }

    /// How much has happened so far.
    pub fn moment(&self) -> usize {
        self.history.len()
    }

    /// All objects of a kind as they were at an earlier moment.
    pub fn list_as_of<K: DeserializeOwned>(&self, plural: &str, moment: usize) -> Vec<K> {
        let mut then: BTreeMap<&Key, &Value> = BTreeMap::new();
        for (key, object) in self.history[..moment].iter().filter(|(key, _)| key.plural == plural) {
            match object {
                Some(object) => then.insert(key, object),
                None => then.remove(key),
            };
        }
        then.values().map(|object| parse(object)).collect()
    }
}

fn parse<K: DeserializeOwned>(object: &Value) -> K {
    serde_json::from_value(object.clone()).expect("the API server's own object parses")
}

pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// etcd's revisions are numbers; a client must not rely on that, a test of one API server may.
pub fn version(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion").parse().unwrap_or_default()
}

/// Whether an object is on its way out.
pub fn is_deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}
