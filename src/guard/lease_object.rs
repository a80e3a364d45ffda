//! The Lease as an object: what was read last, and what is written in its place.
//!
//! Only what the rules change is changed: fields that a later API server adds, labels, and annotations of others go back as
//! they came.

use std::io;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::boot;
use super::rules::{Change, Seen};
use crate::lease::{Hold, Me, Record};

/// Why the object cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not a Lease.
    #[error("{0}")]
    Shape(#[from] serde_json::Error),
    /// Our change does not fit the object.
    #[error("{0}")]
    Change(#[from] json_patch::PatchError),
    /// Nothing was read yet.
    #[error("it was never read")]
    Unread,
}

/// The last Lease, and who reads it.
#[derive(Debug)]
pub struct LeaseObject {
    pod: String,
    start: String,
    lease: Option<Value>,
}

impl LeaseObject {
    /// For the pod with this UID, and a start of its container that no other has.
    pub fn new(pod: String) -> io::Result<Self> {
        let mut chance = [0; 4];
        getrandom::fill(&mut chance).map_err(|error| io::Error::other(error.to_string()))?;
        let start = format!("{:x}-{:08x}", boot::now().as_millis(), u32::from_ne_bytes(chance));
        Ok(Self {
            pod,
            start,
            lease: None,
        })
    }

    fn me(&self) -> Me<'_> {
        Me {
            pod: &self.pod,
            start: &self.start,
        }
    }

    /// Keeps what the API server answered, and says what it is to this guard.
    pub fn receive(&mut self, lease: Value) -> Result<Seen, Error> {
        let record = record(&lease)?;
        let seen = Seen {
            whose: record.is_whose(self.me()),
            epoch: record.epoch,
            orders: record.orders,
        };
        self.lease = Some(lease);
        Ok(seen)
    }

    /// Who has the Lease now.
    pub fn hold(&self) -> Option<Hold> {
        record(self.lease.as_ref()?).ok().map(|record| record.hold)
    }

    /// Whether the end of this guard's engine is acknowledged there, and nobody has done anything about it yet.
    pub fn is_stopped(&self) -> bool {
        self.hold() == Some(Hold::Stopped(self.pod.clone()))
    }

    /// What stands there now, for people.
    pub fn holder(&self) -> String {
        let record = self.lease.as_ref().and_then(|lease| record(lease).ok());
        record.map_or_else(
            || "nothing".to_owned(),
            |record| format!("{}, epoch {}", record.hold, record.epoch),
        )
    }

    /// The object as it is to be written.
    #[allow(clippy::disallowed_methods)] // the two times on a Lease are for people; no rule reads them
    pub fn write(&self, change: Change) -> Result<Value, Error> {
        let mut lease = self.lease.clone().ok_or(Error::Unread)?;
        let before: Lease = serde_json::from_value(lease.clone())?;
        let record = Record::of(&before);
        let record = match change {
            Change::Take { known, promise } => record.taken(self.me(), known, promise),
            Change::Renew { promise } => record.renewed(promise),
            Change::Stopped => record.stopped(self.me()),
        };
        let mut after = before.clone();
        record.write(&mut after, Timestamp::now());
        let change = json_patch::diff(&serde_json::to_value(before)?, &serde_json::to_value(after)?);
        json_patch::patch(&mut lease, &change)?;
        Ok(lease)
    }
}

fn record(lease: &Value) -> Result<Record, Error> {
    let lease: Lease = serde_json::from_value(lease.clone())?;
    Ok(Record::of(&lease))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::rules::Change;
    use super::LeaseObject;
    use crate::lease::Whose;

    #[test]
    fn what_nobody_asked_to_change_goes_back_as_it_came() {
        let mut object = LeaseObject::new("pod".to_owned()).expect("chance");
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": "orders-writer", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
                "annotations": {"somebody/else": "x", "sqledge.io/on-api-loss": "Stop"}, "fieldOfTomorrow": [1],
            },
            "spec": {"holderIdentity": "for/pod", "leaseTransitions": 4, "fieldOfTomorrow": {"deep": true}},
        });
        let seen = object.receive(lease.clone()).expect("a Lease");
        assert_eq!((seen.whose, seen.epoch), (Whose::Free, 4));

        let mut written = object
            .write(Change::Take {
                known: 4,
                promise: None,
            })
            .expect("a Lease");
        assert!(written["spec"]["renewTime"].is_string() && written["spec"]["acquireTime"].is_string());
        let holder = written["spec"]["holderIdentity"].as_str().expect("a holder").to_owned();
        assert!(holder.starts_with("pod/"), "{holder}");
        let mut expected = lease;
        expected["spec"]["holderIdentity"] = holder.into();
        expected["spec"]["leaseTransitions"] = 5.into();
        for time in ["renewTime", "acquireTime"] {
            expected["spec"][time] = written["spec"][time].take();
            written["spec"][time] = expected["spec"][time].clone();
        }
        assert_eq!(written, expected);
        assert_eq!(object.receive(written).expect("a Lease").whose, Whose::Mine);
    }

    #[test]
    fn two_starts_of_a_container_are_two() {
        let mut first = LeaseObject::new("pod".to_owned()).expect("chance");
        let mut second = LeaseObject::new("pod".to_owned()).expect("chance");
        let lease = json!({"metadata": {}, "spec": {"holderIdentity": "for/pod"}});
        first.receive(lease).expect("a Lease");
        let change = Change::Take {
            known: 0,
            promise: None,
        };
        let taken = first.write(change).expect("a Lease");
        assert_eq!(second.receive(taken).expect("a Lease").whose, Whose::OtherStart);
    }

    #[test]
    fn what_is_no_lease_is_not_kept() {
        let mut object = LeaseObject::new("pod".to_owned()).expect("chance");
        object
            .receive(json!({"spec": {"leaseTransitions": "many"}}))
            .expect_err("no number");
        object.write(Change::Stopped).expect_err("nothing was read");
        assert_eq!(object.holder(), "nothing");
    }
}
