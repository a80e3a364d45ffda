//! Leader election: every replica observes, the leader writes. A Lease in the operator's own namespace, won by compare-and-swap.
//!
//! Safety does not rest on it (every dangerous write carries what it was judged on); it keeps two replicas from working against
//! each other. Expiry is judged by the candidate's own monotonic time since it saw the Lease change, never by comparing clocks.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::error::Result;
use crate::settings::Identity;

/// Name of the Lease.
const NAME: &str = "sqledge-operator";
/// A Lease that was seen unchanged for so long may be taken.
const EXPIRY: Duration = Duration::from_secs(6);
/// How often it is renewed, or looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// A leader that could not renew for so long stops writing; well before another one may take over.
const STEP_DOWN: Duration = Duration::from_secs(4);

/// Whether this replica may write.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// When the Lease was last renewed by us: the moment *before* that request was sent.
    renewed: watch::Receiver<Option<Instant>>,
}

impl Leadership {
    /// For tests and for a single process that has nobody to share with.
    #[allow(clippy::disallowed_methods)] // no decision is taken on it
    pub fn always() -> (watch::Sender<Option<Instant>>, Self) {
        let far = Instant::now() + Duration::from_secs(365 * 24 * 3600);
        let (sender, renewed) = watch::channel(Some(far));
        (sender, Self { renewed })
    }

    /// Whether writes are allowed at this moment.
    pub fn holds(&self) -> bool {
        // an Instant in the future (see `always`) has not elapsed at all
        self.renewed
            .borrow()
            .is_some_and(|renewed| renewed.elapsed() < STEP_DOWN)
    }

    /// Resolves each time this replica becomes the leader.
    pub async fn gained(&mut self) {
        loop {
            let before = self.holds();
            if self.renewed.changed().await.is_err() {
                // the elector is gone with the process; nothing will be gained any more
                std::future::pending::<()>().await;
            }
            if !before && self.holds() {
                return;
            }
        }
    }
}

/// What a candidate does next; pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Create,
    Take,
    Renew,
    Wait,
}

fn decide(lease: Option<&Lease>, me: &str, unchanged: Duration) -> Move {
    let Some(lease) = lease else { return Move::Create };
    let holder = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    if holder == me {
        Move::Renew
    } else if holder.is_empty() || unchanged >= EXPIRY {
        Move::Take
    } else {
        Move::Wait
    }
}

/// What a replica remembers of the Lease between two looks.
struct Seen {
    version: Option<String>,
    since: Instant,
    /// As we wrote it last, while we lead.
    ours: Option<Lease>,
    /// The API server did not answer the last time.
    away: bool,
    /// When it last did.
    answered: Instant,
}

/// Takes part in the election until the process ends; then gives the Lease back, so that the next leader need not wait.
pub struct Elector {
    cluster: Cluster,
    identity: Identity,
    sender: watch::Sender<Option<Instant>>,
    /// What hears that the API server answers again, and after how long, before anybody leads.
    answers_again: Box<dyn Fn(Duration) + Send + Sync>,
}

impl Elector {
    /// An elector and what it knows. `answers_again` is called when the API server, which did not answer for a while, does so, with how long
    /// that was: what was not seen to change in that time may have changed, and a guard that was as blind could not renew.
    pub fn new(
        cluster: Cluster,
        identity: Identity,
        answers_again: impl Fn(Duration) + Send + Sync + 'static,
    ) -> (Self, Leadership) {
        let (sender, renewed) = watch::channel(None);
        (
            Self {
                cluster,
                identity,
                sender,
                answers_again: Box::new(answers_again),
            },
            Leadership { renewed },
        )
    }

    /// Runs until `stop` resolves.
    #[allow(clippy::disallowed_methods)] // one of the places that may read a clock
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut seen = Seen {
            version: None,
            since: Instant::now(),
            ours: None,
            away: false,
            answered: Instant::now(),
        };
        let elect = async {
            loop {
                match tokio::time::timeout(STEP_DOWN, self.step(&mut seen)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) if error.is_moved() => {}
                    Ok(Err(error)) => {
                        seen.away = true;
                        tracing::warn!(%error, "could not take part in the election of the leader");
                    }
                    Err(_) => {
                        seen.away = true;
                        tracing::warn!("the API server did not answer in time for the election of the leader");
                    }
                }
                tokio::time::sleep(PERIOD).await;
            }
        };
        tokio::select! {
            () = elect => {}
            () = stop => self.give_back().await,
        }
    }

    #[allow(clippy::disallowed_methods)] // one of the places that may read a clock
    async fn step(&self, seen: &mut Seen) -> Result<()> {
        let before = Instant::now();
        let namespace = self.identity.namespace.as_str();
        // what we wrote last is what we renew; somebody else's write shows as a conflict, and then the next step reads again
        let written = if let Some(lease) = seen.ours.take() {
            self.put(lease, false).await?
        } else {
            let lease: Option<Lease> = self.cluster.get(namespace, NAME).await?;
            let version = lease.as_ref().and_then(ResourceExt::resource_version);
            if seen.version != version {
                seen.version = version;
                seen.since = Instant::now();
            }
            match (
                decide(lease.as_ref(), &self.identity.pod_name, seen.since.elapsed()),
                lease,
            ) {
                (Move::Take, Some(lease)) => self.put(lease, true).await?,
                (Move::Renew, Some(lease)) => self.put(lease, false).await?,
                (Move::Create, _) => self.cluster.create(namespace, &self.first()).await?,
                (Move::Wait | Move::Take | Move::Renew, _) => {
                    self.hear_again(seen);
                    self.sender.send_if_modified(|renewed| renewed.take().is_some());
                    return Ok(());
                }
            }
        };
        seen.version = written.resource_version();
        seen.since = Instant::now();
        seen.ours = Some(written);
        self.hear_again(seen);
        if self.sender.send_replace(Some(before)).is_none() {
            tracing::info!(replica = %self.identity.pod_name, "this replica leads");
        }
        Ok(())
    }

    #[allow(clippy::disallowed_methods)] // one of the places that may read a clock
    fn hear_again(&self, seen: &mut Seen) {
        if std::mem::take(&mut seen.away) {
            (self.answers_again)(seen.answered.elapsed());
        }
        seen.answered = Instant::now();
    }

    /// Changed in place, so that uid and resourceVersion make the PUT a compare-and-swap.
    async fn put(&self, mut lease: Lease, taking: bool) -> Result<Lease> {
        lease.spec = Some(self.spec(lease.spec.as_ref(), taking));
        self.cluster.replace(&self.identity.namespace, NAME, &lease).await
    }

    fn first(&self) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                namespace: Some(self.identity.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(self.spec(None, true)),
        }
    }

    #[allow(clippy::disallowed_methods)] // times in the Lease are for people, nothing compares them
    fn spec(&self, old: Option<&LeaseSpec>, taking: bool) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.pod_name.clone()),
            lease_duration_seconds: i32::try_from(EXPIRY.as_secs()).ok(),
            acquire_time: if taking {
                now.clone()
            } else {
                old.and_then(|old| old.acquire_time.clone())
            },
            renew_time: now,
            lease_transitions: Some(if taking { transitions + 1 } else { transitions }),
            ..LeaseSpec::default()
        }
    }

    async fn give_back(&self) {
        self.sender.send_replace(None);
        let Ok(Some(mut lease)) = self.cluster.get::<Lease>(&self.identity.namespace, NAME).await else {
            return;
        };
        let Some(spec) = lease
            .spec
            .as_mut()
            .filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity.pod_name))
        else {
            return;
        };
        spec.holder_identity = Some(String::new());
        if let Err(error) = self.cluster.replace(&self.identity.namespace, NAME, &lease).await {
            tracing::debug!(%error, "the leader Lease could not be given back; the next leader waits until it expires");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            ..LeaseSpec::default()
        };
        Lease {
            spec: Some(spec),
            ..Lease::default()
        }
    }

    #[test]
    fn the_lease_is_taken_only_when_free_or_seen_unchanged_for_its_whole_life() {
        let cases = [
            (None, 0, Move::Create),
            (Some(held_by("me")), 0, Move::Renew),
            (Some(held_by("me")), 60, Move::Renew),
            (Some(held_by("")), 0, Move::Take),
            (Some(held_by("other")), 5, Move::Wait),
            (Some(held_by("other")), 6, Move::Take),
        ];
        for (lease, seconds, expected) in cases {
            assert_eq!(
                decide(lease.as_ref(), "me", Duration::from_secs(seconds)),
                expected,
                "{lease:?} after {seconds} s"
            );
        }
    }

    #[test]
    fn a_leader_that_could_not_renew_stops_writing_before_another_may_take_over() {
        assert!(STEP_DOWN + PERIOD <= EXPIRY);
        let (sender, leadership) = Leadership::always();
        assert!(leadership.holds());
        sender.send_replace(Instant::now().checked_sub(STEP_DOWN));
        assert!(!leadership.holds());
    }
}
