//! For how long each node's Lease has been seen unchanged, and each lost node without the volume, by this process's own monotonic clock.
//!
//! What decisions rest on and is kept in memory only: lost on a restart it starts at zero, which is slower and
//! safe (a pod that ended meanwhile on a volume that is never attached then needs a human's word). `renewTime` is never read, because
//! that would compare the clocks of two machines.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The book of heartbeats. Cheap to share; every method takes the lock for a moment.
#[derive(Debug, Default)]
pub struct Heartbeats {
    book: Mutex<Book>,
}

/// When the API server was asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked(Instant);

#[derive(Debug, Default)]
struct Book {
    beats: HashMap<String, Beat>,
    /// Holder pod UID -> what each node's Lease was when that pod was first known to be gone.
    baselines: HashMap<String, HashMap<String, String>>,
    /// Holder pod UID -> when each node's status was written when it was first looked at after that pod was known to be gone.
    reports: HashMap<String, HashMap<String, String>>,
    /// Claim UID -> lost nodes that were seen without the volume.
    unlisted: HashMap<String, HashMap<String, Sighting>>,
    /// UIDs of pods whose every container the kubelet reported as ended.
    stopped: HashSet<String>,
}

/// A state that was seen again and again.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    first: Instant,
    last: Instant,
}

#[derive(Debug)]
struct Beat {
    version: String,
    since: Instant,
    renewed: bool,
}

/// What is known of one node's Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// For how long it has been seen unchanged.
    pub unchanged: Duration,
    /// Whether a change was ever seen.
    pub renewed: bool,
}

impl Heartbeats {
    /// Notes a Lease as the API server gave it.
    #[allow(clippy::disallowed_methods)] // one of the places that may read a clock
    pub fn saw(&self, node: &str, version: &str) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        match book.beats.get_mut(node) {
            // a watch may deliver late what a read has shown in a newer state
            Some(beat) if beat.version == version || is_older(version, &beat.version) => {}
            Some(beat) => {
                *beat = Beat {
                    version: version.to_owned(),
                    since: Instant::now(),
                    renewed: true,
                }
            }
            None => {
                let beat = Beat {
                    version: version.to_owned(),
                    since: Instant::now(),
                    renewed: false,
                };
                book.beats.insert(node.to_owned(), beat);
            }
        }
    }

    /// The moment before a request is sent; see [`Heartbeats::read`].
    #[allow(clippy::disallowed_methods)] // one of the places that may read a clock
    pub fn asking(&self) -> Asked {
        Asked(Instant::now())
    }

    /// Notes a Lease as the API server has read it from its store. That is never older than what had been seen when it was asked, unless the
    /// store was set back: then all that is known of the node begins anew.
    pub fn read(&self, node: &str, version: &str, Asked(asked): Asked) {
        {
            let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            // an answer that another one has overtaken says nothing, and a baseline that it moved would let an old renewal count as a new one
            let is_set_back = |beat: &Beat| is_older(version, &beat.version) && beat.since < asked;
            if book.beats.get(node).is_some_and(is_set_back) {
                book.beats.remove(node);
                for nodes in book.baselines.values_mut() {
                    nodes.insert(node.to_owned(), version.to_owned());
                }
            }
        }
        self.saw(node, version);
    }

    /// Forgets a node whose Lease was removed.
    pub fn removed(&self, node: &str) {
        self.book
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .beats
            .remove(node);
    }

    /// The heartbeat of a node.
    pub fn of(&self, node: &str) -> Option<Heartbeat> {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.beats.get(node).map(|beat| Heartbeat {
            unchanged: beat.since.elapsed(),
            renewed: beat.renewed,
        })
    }

    /// For so long, until now, nothing could be seen: that time does not count.
    #[allow(clippy::disallowed_methods)] // one of the places that may read a clock
    pub fn leave_out(&self, blind: Duration) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        for beat in book.beats.values_mut() {
            beat.since = beat.since.checked_add(blind).map_or(now, |since| since.min(now));
        }
    }

    /// Whether something newer than this version was seen; a cache that shows it lags.
    pub fn knows_newer(&self, node: &str, version: &str) -> bool {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.beats
            .get(node)
            .is_some_and(|beat| is_older(version, &beat.version))
    }

    /// As if all that was seen so far had been seen that much earlier; for tests, which do not wait.
    pub fn age(&self, by: Duration) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        for beat in book.beats.values_mut() {
            beat.since = beat.since.checked_sub(by).unwrap_or(beat.since);
        }
        for sighting in book.unlisted.values_mut().flat_map(HashMap::values_mut) {
            sighting.first = sighting.first.checked_sub(by).unwrap_or(sighting.first);
        }
    }

    /// Notes what the Leases were when a holder's pod was known to be gone; only the first note counts.
    pub fn released(&self, holder: &str, leases: impl IntoIterator<Item = (String, String)>) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.baselines
            .entry(holder.to_owned())
            .or_insert_with(|| leases.into_iter().collect());
    }

    /// Whether [`Heartbeats::released`] was noted.
    pub fn knows_release_of(&self, holder: &str) -> bool {
        self.book
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .baselines
            .contains_key(holder)
    }

    /// Whether the node renewed its Lease after the holder's pod was gone. A node that came later begins with what it is first seen with.
    pub fn renewed_since_release(&self, holder: &str, node: &str) -> bool {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let Book { beats, baselines, .. } = &mut *book;
        let (Some(now), Some(nodes)) = (beats.get(node), baselines.get_mut(holder)) else {
            return false;
        };
        nodes.entry(node.to_owned()).or_insert_with(|| now.version.clone()) != &now.version
    }

    /// Whether the kubelet wrote its node's status after the holder's pod was gone: `written` is what stands there now (only ever compared for
    /// being another one). The first look begins it.
    pub fn reported_since_release(&self, holder: &str, node: &str, written: &str) -> bool {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if !book.baselines.contains_key(holder) {
            return false;
        }
        let nodes = book.reports.entry(holder.to_owned()).or_default();
        nodes.entry(node.to_owned()).or_insert_with(|| written.to_owned()) != written
    }

    /// For how long these lost nodes of a claim have been seen heard of and without the volume, no two sights further apart than `gap`. Names all that
    /// are so now; of one that is not among them it begins anew.
    #[allow(clippy::disallowed_methods)] // one of the places that may read a clock
    pub fn unlisted_for(&self, claim: &str, nodes: &[&str], gap: Duration) -> HashMap<String, Duration> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut seen = book.unlisted.remove(claim).unwrap_or_default();
        let still = |sighting: &Sighting| now.duration_since(sighting.last) < gap;
        let seen: HashMap<String, Sighting> = nodes
            .iter()
            .map(|node| {
                let first = seen.remove(*node).filter(still).map_or(now, |sighting| sighting.first);
                ((*node).to_owned(), Sighting { first, last: now })
            })
            .collect();
        let times = seen
            .iter()
            .map(|(node, sighting)| (node.clone(), now.duration_since(sighting.first)))
            .collect();
        if !seen.is_empty() {
            book.unlisted.insert(claim.to_owned(), seen);
        }
        times
    }

    /// Notes that the kubelet reported every container of a pod as ended.
    pub fn stopped(&self, pod: &str) {
        self.book
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stopped
            .insert(pod.to_owned());
    }

    /// Whether [`Heartbeats::stopped`] was noted.
    pub fn has_stopped(&self, pod: &str) -> bool {
        self.book
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stopped
            .contains(pod)
    }

    /// Drops what is known of a holder that is not of interest any more.
    pub fn forget(&self, holder: &str) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.baselines.remove(holder);
        book.reports.remove(holder);
        book.stopped.remove(holder);
    }
}

/// resourceVersions are to be compared as numbers since Kubernetes 1.35, and always were numbers.
fn is_older(one: &str, other: &str) -> bool {
    one.parse::<u64>()
        .ok()
        .zip(other.parse::<u64>().ok())
        .is_some_and(|(one, other)| one < other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_sight_does_not_count_as_unchanged() {
        let beats = Heartbeats::default();
        beats.saw("shop/orders-writer", "7");
        let unchanged = || beats.of("shop/orders-writer").expect("a beat").unchanged.as_secs();
        beats.age(Duration::from_secs(600));
        beats.leave_out(Duration::from_secs(200));
        assert_eq!(unchanged(), 400);
        beats.leave_out(Duration::from_secs(1000));
        assert_eq!(unchanged(), 0, "not in the future");
    }

    #[test]
    fn a_lease_seen_twice_without_a_change_is_not_renewed() {
        let beats = Heartbeats::default();
        beats.saw("n1", "7");
        beats.saw("n1", "7");
        assert!(!beats.of("n1").expect("known").renewed);
        beats.saw("n1", "8");
        assert!(beats.of("n1").expect("known").renewed);
    }

    #[test]
    fn a_late_event_is_no_renewal_and_a_read_of_a_store_that_was_set_back_begins_anew() {
        let beats = Heartbeats::default();
        beats.saw("n1", "7");
        beats.saw("n1", "8");
        beats.released("pod", [("n1".to_owned(), "8".to_owned())]);
        beats.saw("n1", "6");
        assert!(!beats.renewed_since_release("pod", "n1"), "delivered late");
        beats.age(Duration::from_secs(60));
        beats.read("n1", "5", beats.asking());
        let beat = beats.of("n1").expect("known");
        assert!(!beat.renewed && beat.unchanged < Duration::from_secs(60));
        assert!(!beats.renewed_since_release("pod", "n1"), "that was before the release");
        beats.saw("n1", "6");
        assert!(beats.of("n1").expect("known").renewed && beats.renewed_since_release("pod", "n1"));
    }

    #[test]
    fn an_answer_that_was_overtaken_moves_no_baseline() {
        let beats = Heartbeats::default();
        beats.saw("n1", "7");
        let early = beats.asking();
        beats.saw("n1", "8");
        beats.released("pod", [("n1".to_owned(), "8".to_owned())]);
        beats.read("n1", "7", early);
        beats.saw("n1", "8");
        assert!(!beats.renewed_since_release("pod", "n1"), "8 was there at the release");
    }

    #[test]
    fn only_a_renewal_after_the_release_counts() {
        let beats = Heartbeats::default();
        beats.saw("n1", "7");
        beats.saw("n1", "8");
        assert!(!beats.renewed_since_release("pod", "n1"), "no release was noted");
        beats.released("pod", [("n1".to_owned(), "8".to_owned())]);
        assert!(!beats.renewed_since_release("pod", "n1"));
        beats.released("pod", [("n1".to_owned(), "7".to_owned())]);
        assert!(
            !beats.renewed_since_release("pod", "n1"),
            "a second note must not move the baseline"
        );
        beats.saw("n1", "9");
        assert!(beats.renewed_since_release("pod", "n1"));
        assert!(!beats.renewed_since_release("pod", "n2"), "a node that was not noted");
    }

    #[test]
    fn a_lost_node_settles_only_while_it_is_seen_without_the_volume_again_and_again() {
        let beats = Heartbeats::default();
        let gap = Duration::from_secs(60);
        let hour = Duration::from_secs(3600);
        let seconds = |nodes: &[&str]| {
            let times = beats.unlisted_for("claim", nodes, gap);
            nodes.iter().map(|node| times[*node].as_secs()).collect::<Vec<_>>()
        };
        assert_eq!(seconds(&["n1", "n2"]), [0, 0]);
        beats.age(hour);
        assert_eq!(seconds(&["n1"]), [3600]);
        assert_eq!(seconds(&["n1", "n2"]), [3600, 0], "n2 was not so for a moment");
        assert_eq!(
            beats.unlisted_for("claim", &["n1"], Duration::ZERO)["n1"].as_secs(),
            0,
            "nobody looked for too long"
        );
        beats.age(hour);
        assert_eq!(
            beats.unlisted_for("other", &["n1"], gap)["n1"].as_secs(),
            0,
            "another claim"
        );
        assert_eq!(seconds(&[]), [0; 0]);
        assert_eq!(seconds(&["n1"]), [0]);
    }

    #[test]
    fn only_a_status_written_after_the_release_counts() {
        let beats = Heartbeats::default();
        assert!(!beats.reported_since_release("pod", "n1", "10:00"));
        assert!(
            !beats.reported_since_release("pod", "n1", "10:05"),
            "no release was noted"
        );
        beats.released("pod", []);
        assert!(!beats.reported_since_release("pod", "n1", "10:05"), "the first look");
        assert!(beats.reported_since_release("pod", "n1", "10:10"));
        beats.forget("pod");
        assert!(!beats.reported_since_release("pod", "n1", "10:15"));
    }
}
