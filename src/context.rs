//! What every pass shares: the client, the caches, the settings and the few things remembered between passes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

use crate::api::SqlEdgeInstance;
use crate::cluster::Cluster;
use crate::events::Events;
use crate::heartbeats::Heartbeats;
use crate::leader::Leadership;
use crate::logins::Logins;
use crate::metrics::Metrics;
use crate::scene::Volume;
use crate::settings::{Identity, Settings, Timing};
use crate::watch::Caches;

/// Shared by all passes.
pub struct Context {
    /// The only way to the API server.
    pub cluster: Cluster,
    /// The watch caches.
    pub caches: Caches,
    /// The nodes' heartbeats.
    pub heartbeats: Arc<Heartbeats>,
    /// The renewals of the instances' Leases, by `namespace/name`.
    pub renewals: Arc<Heartbeats>,
    /// The operator's own logins.
    pub logins: Logins,
    /// Settings of the process.
    pub settings: Settings,
    /// What the pod knows about itself.
    pub identity: Identity,
    /// The figures of the rules.
    pub timing: Timing,
    /// Whether this replica may write.
    pub leadership: Leadership,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where events are handed in.
    pub events: Events,
    /// Memory between passes that may be lost at any time.
    pub memory: Memory,
}

/// Things that save work when they are remembered and cost nothing but time when they are lost.
#[derive(Default)]
pub struct Memory {
    passwords: Mutex<HashMap<String, (Instant, Password)>>,
    volumes: Mutex<HashMap<String, Volume>>,
    refusals: Mutex<HashMap<String, (Instant, String)>>,
    written: Mutex<HashMap<String, Written>>,
    detaching: Mutex<HashMap<String, (Timestamp, Instant)>>,
}

/// A resource as our last status write returned it, and the resourceVersions that it and the writes just before it replaced.
struct Written {
    replaced: Vec<String>,
    resource: Arc<SqlEdgeInstance>,
}

/// So many of our own writes a cache may lag behind.
const LAG: usize = 16;

/// A password as read from a Secret, with what it was read from.
#[derive(Clone)]
pub struct Password {
    /// Key it stood under.
    pub key: String,
    /// The password.
    pub value: String,
    /// Whether the Secret is deleted with the resource.
    pub owned: bool,
}

impl Memory {
    /// As if all reads so far had been made that much earlier; for tests, which do not wait.
    pub fn age(&self, by: Duration) {
        let mut passwords = self.passwords.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut detaching = self.detaching.lock().unwrap_or_else(PoisonError::into_inner);
        let read = passwords.values_mut().map(|(at, _)| at);
        let refused = refusals.values_mut().map(|(at, _)| at);
        let seen = detaching.values_mut().map(|(_, at)| at);
        for at in read.chain(refused).chain(seen) {
            *at = at.checked_sub(by).unwrap_or(*at);
        }
    }

    /// For how long a detach that began then has been seen under way, by the monotonic clock of this process.
    #[allow(clippy::disallowed_methods)] // one of the places that may read a clock
    pub fn seen_for(&self, instance_uid: &str, began: Timestamp) -> Duration {
        let mut detaching = self.detaching.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = detaching.get(instance_uid).filter(|(of, _)| *of == began);
        let seen = seen.map_or_else(Instant::now, |(_, seen)| *seen);
        detaching.insert(instance_uid.to_owned(), (began, seen));
        seen.elapsed()
    }

    /// The password of an instance, unless it is older than `max_age`.
    pub fn password(&self, instance_uid: &str, max_age: Duration) -> Option<Password> {
        let passwords = self.passwords.lock().unwrap_or_else(PoisonError::into_inner);
        passwords
            .get(instance_uid)
            .filter(|(at, _)| at.elapsed() < max_age)
            .map(|(_, password)| password.clone())
    }

    /// Remembers a password.
    #[allow(clippy::disallowed_methods)] // one of the places that may read a clock
    pub fn remember_password(&self, instance_uid: &str, password: Password) {
        let mut passwords = self.passwords.lock().unwrap_or_else(PoisonError::into_inner);
        // what was read for an earlier spec is of no use any more
        passwords.retain(|key, _| instance_of(key) != instance_of(instance_uid));
        passwords.insert(instance_uid.to_owned(), (Instant::now(), password));
    }

    /// Forgets the password, so that the next pass reads the Secret again.
    pub fn forget_password(&self, instance_uid: &str) {
        self.passwords
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(instance_uid);
    }

    /// Drops what belongs to no resource of these UIDs.
    pub fn keep_only(&self, instances: &HashSet<String>) {
        keep(&self.passwords, instances);
        keep(&self.written, instances);
        keep(&self.volumes, instances);
        keep(&self.detaching, instances);
        keep(&self.refusals, instances);
    }

    /// The words with which a claim (UIDs of instance and claim, and the size) was not allowed to grow, unless they are older than `max_age`.
    pub fn refusal(&self, growth: &str, max_age: Duration) -> Option<String> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals
            .get(growth)
            .filter(|(at, _)| at.elapsed() < max_age)
            .map(|(_, words)| words.clone())
    }

    /// Remembers such words.
    #[allow(clippy::disallowed_methods)] // one of the places that may read a clock
    pub fn remember_refusal(&self, growth: String, words: String) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.insert(growth, (Instant::now(), words));
    }

    /// The volume of a binding (UIDs of instance and claim), if it was read before.
    pub fn volume(&self, binding: &str) -> Option<Volume> {
        self.volumes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(binding)
            .cloned()
    }

    /// Remembers a volume; what is read of it never changes while the claim is bound to it.
    pub fn remember_volume(&self, binding: String, volume: Volume) {
        self.volumes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(binding, volume);
    }

    /// The resource as we last wrote it, as long as the cache still shows something that our own writes have replaced: otherwise the
    /// next pass would start from a status that lags behind its own.
    pub fn newest(&self, cached: &Arc<SqlEdgeInstance>) -> Arc<SqlEdgeInstance> {
        let Some(uid) = cached.metadata.uid.as_ref() else {
            return cached.clone();
        };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let version = cached.metadata.resource_version.as_ref();
        // a cache that has shown it and shows something older again does not lag: the API server's store was set back
        if written
            .get(uid)
            .is_some_and(|last| last.resource.metadata.resource_version.as_ref() == version)
        {
            written.remove(uid);
        }
        let last = written.get(uid);
        let lags = |last: &&Written| version.is_some_and(|version| last.replaced.contains(version));
        last.filter(lags)
            .map_or_else(|| cached.clone(), |last| last.resource.clone())
    }

    /// Remembers what a status write returned.
    pub fn remember_written(&self, replaced: &SqlEdgeInstance, resource: Arc<SqlEdgeInstance>) {
        let (Some(uid), Some(version)) = (
            resource.metadata.uid.clone(),
            replaced.metadata.resource_version.clone(),
        ) else {
            return;
        };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let before = written
            .remove(&uid)
            .filter(|last| last.resource.metadata.resource_version.as_ref() == Some(&version));
        let mut replaced = before.map(|last| last.replaced).unwrap_or_default();
        replaced.push(version);
        if replaced.len() > LAG {
            replaced.remove(0);
        }
        written.insert(uid, Written { replaced, resource });
    }
}

/// Every key is the UID of an instance, or begins with it.
fn instance_of(key: &str) -> &str {
    key.split('/').next().unwrap_or_default()
}

fn keep<V>(map: &Mutex<HashMap<String, V>>, instances: &HashSet<String>) {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.retain(|key, _| instances.contains(instance_of(key)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(version: &str) -> SqlEdgeInstance {
        let mut resource = SqlEdgeInstance::new("books", crate::api::SqlEdgeInstanceSpec::default());
        resource.metadata.uid = Some("uid".into());
        resource.metadata.resource_version = Some(version.into());
        resource
    }

    #[test]
    fn a_detach_is_timed_from_when_this_process_first_saw_it_and_each_by_itself() {
        let memory = Memory::default();
        let (first, second) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
        let minute = Duration::from_secs(60);
        assert!(
            memory.seen_for("uid", first) < minute,
            "it began long ago by another clock"
        );
        memory.age(minute);
        assert!(memory.seen_for("uid", first) >= minute);
        assert!(memory.seen_for("uid", second) < minute);
        assert!(memory.seen_for("other", first) < minute);
    }

    #[test]
    fn a_cache_that_lags_behind_our_own_writes_is_not_believed_and_any_other_is() {
        let memory = Memory::default();
        memory.remember_written(&at("1"), Arc::new(at("2")));
        memory.remember_written(&at("2"), Arc::new(at("3")));
        let newest = |cached: &str| {
            memory
                .newest(&Arc::new(at(cached)))
                .metadata
                .resource_version
                .clone()
                .unwrap_or_default()
        };
        assert_eq!(
            (newest("1").as_str(), newest("2").as_str(), newest("3").as_str()),
            ("3", "3", "3")
        );
        assert_eq!(newest("7"), "7", "somebody else wrote after us");
        memory.remember_written(&at("7"), Arc::new(at("8")));
        assert_eq!(
            (newest("7").as_str(), newest("2").as_str()),
            ("8", "2"),
            "a chain ends where somebody else wrote"
        );
    }
}
