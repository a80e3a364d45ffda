//! The Lease of an instance: who may write to its volume, by whose word, and until when that holds without a renewal. Pure.
//!
//! Guard and operator change it only by compare-and-swap: a PUT of the whole object as it was read, with its UID and resourceVersion (with the
//! resourceVersion alone a PUT of a deleted Lease makes a new one). `renewTime` and `acquireTime` are for people: they are written, so that every
//! renewal changes the object, and never read, because that would compare the clocks of two machines.
//!
//! | `holderIdentity` | who wrote it | meaning |
//! |---|---|---|
//! | `sealed`, `sealed/expired/POD`, `sealed/stopped/POD`, `sealed/taken/POD` | operator | no guard may take it; how the holder before came to lose it |
//! | `for/POD` | operator | the pod with this UID may take it |
//! | `POD/START` | guard | held by that container start of that pod |
//! | `stopped/POD` | guard | its engine has ended in order and the volume is flushed |

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

/// Annotation, by the operator: `RENEW/STOP/TAKEOVER` in seconds; without it the guard does not renew.
pub const RENEW: &str = "sqledge.io/renew";
/// Annotation, by the operator: what the guard does when it cannot renew, `Stop` or `Continue`.
pub const ON_API_LOSS: &str = "sqledge.io/on-api-loss";
/// Annotation, by the guard: after how many seconds without a renewal it has killed its engine. Without it, it has promised nothing.
pub const STOPS_AFTER: &str = "sqledge.io/stops-after";

/// Name of the Lease of an instance.
pub fn name(instance: &str) -> String {
    format!("{instance}-writer")
}

/// What the Lease says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Who may write.
    pub hold: Hold,
    /// Counts every take, seal and naming (`leaseTransitions`).
    pub epoch: i32,
    /// What the holder promised with its last write.
    pub promise: Option<Promise>,
    /// What the operator asks of the holder.
    pub orders: Orders,
}

/// Who may write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// Nobody; and who was it before.
    Sealed(Option<Seal>),
    /// The pod with this UID may take it.
    Named(String),
    /// A container of a pod has it.
    Taken {
        /// UID of the pod.
        pod: String,
        /// Tells the starts of its container apart.
        start: String,
    },
    /// The guard of this pod has stopped its engine in order and flushed the volume.
    Stopped(String),
    /// Something that none of us wrote. Nobody may take it.
    Foreign(String),
}

/// How the last holder came to lose the Lease; written by the operator in the same stroke that took it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seal {
    /// UID of its pod.
    pub pod: String,
    /// What was known then.
    pub after: After,
}

/// What was known of the holder when the Lease was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum After {
    /// It had promised to stop by itself and had not renewed for as long as that takes.
    Expiry,
    /// It had acknowledged its end.
    Stop,
    /// Nothing that proves anything.
    Nothing,
}

/// What a holder promises with each write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Promise {
    /// It renews: unchanged for so long, the Lease is expired (`leaseDurationSeconds`).
    pub takeover_after: Duration,
    /// After so long without a renewal its engine has ended.
    pub stops_after: Option<Duration>,
}

/// What the operator asks of the holder. It stands on the Lease and not in the pod's template, because a change there would restart the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Orders {
    /// Whether and how often to renew.
    pub renewal: Option<Renewal>,
    /// What to do when renewals fail.
    pub on_api_loss: OnApiLoss,
}

/// The three times of a renewed Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Renewal {
    /// A renewal is due so long after the last one was sent.
    pub every: Duration,
    /// Without a success for so long the engine is killed.
    pub stop_after: Duration,
    /// Without a change for so long the operator may seal.
    pub takeover_after: Duration,
}

/// What a guard does when it cannot renew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnApiLoss {
    /// It kills its engine.
    #[default]
    Stop,
    /// It leaves it running: the storage is what fences it.
    Continue,
}

/// A container start, as a guard knows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Me<'a> {
    /// UID of its pod.
    pub pod: &'a str,
    /// Something no other start of a container has.
    pub start: &'a str,
}

/// What the Lease is to a guard that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Held by this very container.
    Mine,
    /// It may be taken: this pod is named, or an earlier container of it has stopped in order.
    Free,
    /// Held by another container of this pod. One that waits may take it, because the kubelet starts a container only after the one before has
    /// ended; to one that has won it, this is a past that came back, or a successor that the kubelet should not have started.
    OtherStart,
    /// None of these.
    Others,
}

impl Record {
    /// The Lease as read. What is missing or unreadable gives nobody a right.
    pub fn of(lease: &Lease) -> Self {
        let spec = lease.spec.as_ref();
        let seconds = |key: &str| annotation(lease, key)?.parse().ok().map(Duration::from_secs);
        let takeover = spec.and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok());
        Self {
            hold: Hold::parse(
                spec.and_then(|spec| spec.holder_identity.as_deref())
                    .unwrap_or("sealed"),
            ),
            epoch: spec.and_then(|spec| spec.lease_transitions).unwrap_or_default(),
            promise: takeover.map(|takeover| Promise {
                takeover_after: Duration::from_secs(takeover),
                stops_after: seconds(STOPS_AFTER),
            }),
            orders: Orders::of(lease),
        }
    }

    /// Writes it into the object that was read; everything else of that stays.
    pub fn write(&self, lease: &mut Lease, now: Timestamp) {
        let Self {
            hold,
            epoch,
            promise,
            orders,
        } = self;
        let spec = lease.spec.get_or_insert_default();
        let holder = hold.to_string();
        if spec.holder_identity.as_ref() != Some(&holder) {
            spec.acquire_time = Some(MicroTime(now));
        }
        spec.holder_identity = Some(holder);
        spec.lease_transitions = Some(*epoch);
        spec.renew_time = Some(MicroTime(now));
        spec.lease_duration_seconds =
            promise.map(|promise| i32::try_from(promise.takeover_after.as_secs()).unwrap_or(i32::MAX));
        let stops = promise.and_then(|promise| promise.stops_after);
        set(lease, STOPS_AFTER, stops.map(|stops| stops.as_secs().to_string()));
        orders.write(lease);
    }

    /// What it is to a guard.
    pub fn is_whose(&self, me: Me) -> Whose {
        match &self.hold {
            Hold::Taken { pod, start } if pod == me.pod && start == me.start => Whose::Mine,
            Hold::Taken { pod, .. } if pod == me.pod => Whose::OtherStart,
            Hold::Named(pod) | Hold::Stopped(pod) if pod == me.pod => Whose::Free,
            Hold::Sealed(_) | Hold::Named(_) | Hold::Taken { .. } | Hold::Stopped(_) | Hold::Foreign(_) => {
                Whose::Others
            }
        }
    }

    /// The pod that the Lease is for, one way or the other.
    pub fn pod(&self) -> Option<&str> {
        match &self.hold {
            Hold::Named(pod) | Hold::Taken { pod, .. } | Hold::Stopped(pod) => Some(pod),
            Hold::Sealed(_) | Hold::Foreign(_) => None,
        }
    }

    /// As a guard writes it when it takes it. A Lease that was made anew may have fallen behind the epoch that the guard knows.
    #[must_use]
    pub fn taken(&self, me: Me, known: i32, promise: Option<Promise>) -> Self {
        let hold = Hold::Taken {
            pod: me.pod.to_owned(),
            start: me.start.to_owned(),
        };
        Self {
            hold,
            epoch: self.epoch.max(known).saturating_add(1),
            promise,
            orders: self.orders,
        }
    }

    /// As a guard writes it when it renews.
    #[must_use]
    pub fn renewed(&self, promise: Option<Promise>) -> Self {
        Self {
            promise,
            ..self.clone()
        }
    }

    /// As a guard writes it after an orderly stop: the promise goes with the holder.
    #[must_use]
    pub fn stopped(&self, me: Me) -> Self {
        Self {
            hold: Hold::Stopped(me.pod.to_owned()),
            promise: None,
            ..self.clone()
        }
    }

    /// As the operator writes it when it takes the right away.
    #[must_use]
    pub fn sealed(&self, seal: Seal) -> Self {
        self.next(Hold::Sealed(Some(seal)))
    }

    /// As the operator writes it when it gives a pod the right.
    #[must_use]
    pub fn named(&self, pod: &str) -> Self {
        self.next(Hold::Named(pod.to_owned()))
    }

    /// A Lease where there is none: the first one of an instance, or somebody deleted it. The pod of record may take it (again), if it was let
    /// at the volume; if it was not, it is named when its gate opens. `known` is the highest epoch that the claim remembers.
    pub fn anew(pod_past_the_gate: Option<&str>, known: i32, orders: Orders) -> Self {
        Self {
            hold: pod_past_the_gate.map_or(Hold::Sealed(None), |pod| Hold::Named(pod.to_owned())),
            epoch: known.saturating_add(1),
            promise: None,
            orders,
        }
    }

    fn next(&self, hold: Hold) -> Self {
        Self {
            hold,
            epoch: self.epoch.saturating_add(1),
            promise: None,
            orders: self.orders,
        }
    }
}

impl Hold {
    fn parse(text: &str) -> Self {
        let seal = |pod: &str, after| {
            Self::Sealed(Some(Seal {
                pod: pod.to_owned(),
                after,
            }))
        };
        match text.splitn(3, '/').collect::<Vec<_>>()[..] {
            ["sealed"] => Self::Sealed(None),
            ["sealed", "expired", pod] if !pod.is_empty() => seal(pod, After::Expiry),
            ["sealed", "stopped", pod] if !pod.is_empty() => seal(pod, After::Stop),
            ["sealed", "taken", pod] if !pod.is_empty() => seal(pod, After::Nothing),
            ["for", pod] if !pod.is_empty() => Self::Named(pod.to_owned()),
            ["stopped", pod] if !pod.is_empty() => Self::Stopped(pod.to_owned()),
            [pod, start] if !matches!(pod, "" | "sealed" | "for" | "stopped") && !start.is_empty() => Self::Taken {
                pod: pod.to_owned(),
                start: start.to_owned(),
            },
            _ => Self::Foreign(text.to_owned()),
        }
    }
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sealed(None) => write!(f, "sealed"),
            Self::Sealed(Some(Seal { pod, after })) => match after {
                After::Expiry => write!(f, "sealed/expired/{pod}"),
                After::Stop => write!(f, "sealed/stopped/{pod}"),
                After::Nothing => write!(f, "sealed/taken/{pod}"),
            },
            Self::Named(pod) => write!(f, "for/{pod}"),
            Self::Taken { pod, start } => write!(f, "{pod}/{start}"),
            Self::Stopped(pod) => write!(f, "stopped/{pod}"),
            Self::Foreign(text) => write!(f, "{text}"),
        }
    }
}

impl Orders {
    fn of(lease: &Lease) -> Self {
        Self {
            renewal: annotation(lease, RENEW).and_then(Renewal::parse),
            on_api_loss: match annotation(lease, ON_API_LOSS) {
                Some("Continue") => OnApiLoss::Continue,
                _ => OnApiLoss::Stop,
            },
        }
    }

    pub fn write(&self, lease: &mut Lease) {
        set(lease, RENEW, self.renewal.map(|renewal| renewal.to_string()));
        let word = match self.on_api_loss {
            OnApiLoss::Stop => "Stop",
            OnApiLoss::Continue => "Continue",
        };
        set(lease, ON_API_LOSS, Some(word.to_owned()));
    }

    /// What a guard promises when it follows these orders.
    pub fn promise(&self) -> Option<Promise> {
        let renewal = self.renewal?;
        Some(Promise {
            takeover_after: renewal.takeover_after,
            stops_after: (self.on_api_loss == OnApiLoss::Stop).then_some(renewal.stop_after),
        })
    }
}

impl Renewal {
    /// Whether a holder has ended before the operator counts its Lease as expired, although either clock may be off by 1 % and the kill takes
    /// two seconds: `S (1 + r) + k <= L (1 - r)`; and whether three renewals may fail before that.
    pub fn is_safe(&self) -> bool {
        let (every, stop, takeover) = (
            self.every.as_millis(),
            self.stop_after.as_millis(),
            self.takeover_after.as_millis(),
        );
        every > 0 && every * 3 <= stop && stop * 101 + 200_000 <= takeover * 99
    }

    /// An order that would not be safe is none: the guard then promises nothing and nothing expires.
    fn parse(text: &str) -> Option<Self> {
        let mut seconds = text.split('/').map(|part| part.parse().ok().map(Duration::from_secs));
        let renewal = Self {
            every: seconds.next()??,
            stop_after: seconds.next()??,
            takeover_after: seconds.next()??,
        };
        (seconds.next().is_none() && renewal.is_safe()).then_some(renewal)
    }
}

impl std::fmt::Display for Renewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            every,
            stop_after,
            takeover_after,
        } = self;
        write!(
            f,
            "{}/{}/{}",
            every.as_secs(),
            stop_after.as_secs(),
            takeover_after.as_secs()
        )
    }
}

fn annotation<'a>(lease: &'a Lease, key: &str) -> Option<&'a str> {
    lease.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn set(lease: &mut Lease, key: &str, value: Option<String>) {
    let annotations = lease.metadata.annotations.get_or_insert_default();
    match value {
        Some(value) => annotations.insert(key.to_owned(), value),
        None => annotations.remove(key),
    };
}

#[cfg(test)]
mod tests;
