//! What the API server stores for one world, kept up to date from the answers to writes, with its whole history.
//!
//! Every write of a world passes through this process, so nothing needs to be read: the mirror is what the invariants are checked on
//! after each write, and an earlier state of it is what a cache that lags behind would show.

use std::collections::BTreeMap;

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

/// One change: when it was, and what is stored since; `None` is "gone".
struct Change {
    moment: usize,
    name: String,
    object: Option<Value>,
}

/// The objects of a world and how they came to be.
#[derive(Default)]
pub struct Mirror {
    current: BTreeMap<Key, Value>,
    /// By kind, because a cache shows one.
    history: BTreeMap<String, Vec<Change>>,
    moment: usize,
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
        self.remember(key, object);
    }

    fn remember(&mut self, key: Key, object: Option<Value>) {
        self.moment += 1;
        self.history.entry(key.plural).or_default().push(Change {
            moment: self.moment,
            name: key.name,
            object,
        });
    }

    /// The past is another one: from now on this is stored, whatever was before.
    pub fn replace(&mut self, objects: Vec<(Key, Value)>) {
        let gone = std::mem::take(&mut self.current);
        self.current.extend(objects);
        for key in gone
            .into_keys()
            .filter(|key| !self.current.contains_key(key))
            .collect::<Vec<_>>()
        {
            self.remember(key, None);
        }
        for (key, object) in self.current.clone() {
            self.remember(key, Some(object));
        }
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
        self.moment
    }

    /// How often a kind had changed at an earlier moment.
    pub fn changes(&self, plural: &str, moment: usize) -> usize {
        let history = self.history.get(plural).map(Vec::as_slice).unwrap_or_default();
        history.partition_point(|change| change.moment <= moment)
    }

    /// All objects of a kind as they were at an earlier moment.
    pub fn list_as_of(&self, plural: &str, moment: usize) -> impl Iterator<Item = &Value> {
        let history = self.history.get(plural).map(Vec::as_slice).unwrap_or_default();
        let mut then: BTreeMap<&str, &Value> = BTreeMap::new();
        for change in history.iter().take(self.changes(plural, moment)) {
            match &change.object {
                Some(object) => then.insert(&change.name, object),
                None => then.remove(change.name.as_str()),
            };
        }
        then.into_values()
    }
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
