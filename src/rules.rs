//! The rules of a failover as a value. Pure data: `guard::rules` and `failover` ask it before each clause.
//!
//! Production passes [`Rules::all`]. The model of `tests/model` takes one rule away at a time and must then find a counterexample:
//! what nothing breaks without is not a rule. E0 to E5 are the proofs in the table of [`crate::failover`], G1 to G4 the rules in that of
//! [`crate::guard::rules`].

/// Declares the enumeration together with the list of all of it, so that none can be missing from the list.
macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// One clause.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $($(#[$doc])* $name,)+ }

        impl Rule {
            /// Every clause, in the order of its declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// As it stands in `target/model.json`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }
    };
}

rules! {
    // ---- the guard
    /// G1: the engine is started only after the Lease was won.
    WinFirst,
    /// G1: won is only a Lease that names this pod, or one that an earlier container of this pod had.
    TakeOnlyOnes,
    /// G2: without a successful renewal for the promised time everything is killed.
    StopInTime,
    /// G2: that time counts from before the renewal was sent, not from its answer.
    CountFromSending,
    /// G2: a longer time counts only once the Lease with the longer promise is written, a shorter one from its first attempt.
    PromiseFirst,
    /// G3: whoever reads that the Lease is another's kills.
    ObeyTheLease,
    /// G3: a conflict alone kills nothing; it is read again.
    ReadAgain,
    /// G4: renewed only for an engine that answers, or may still be starting.
    RenewForTheLiving,
    /// E1: an orderly stop is acknowledged only after the engine has ended and its volume is flushed.
    AcknowledgeAfterTheEnd,

    // ---- the operator's clock and its seal
    /// A Lease that has changed is a new one: the time it is seen unchanged begins anew.
    ChangesCount,
    /// A Lease is expired only when it was unchanged for the whole time its holder asked for.
    WaitForExpiry,
    /// Before the volume is taken from a holder its Lease is sealed, so that no container of its pod wins it meanwhile.
    SealFirst,

    // ---- detection
    /// While the database answers nothing is moved (unless the Lease is renewed `Always`).
    LoginCounts,
    /// A guard that renews as promised is alive, whatever its node looks like.
    RenewalCounts,
    /// A pod past its gate that the Lease is not for has to go.
    UnnamedGoes,
    /// A brake: with many silent nodes nothing is fenced.
    Brake,

    // ---- the proofs
    /// First start: no other pod that is not ours mounts the claim.
    NoRival,
    /// First start: nothing is attached.
    NothingAttached,
    /// E0: the node renewed its own Lease after the deletion.
    RenewedSince,
    /// E0: the list of a node that was lost counts once it has settled, and nothing is taken off the list of one that writes again.
    SettledSince,
    /// E0: the node does not list the volume as in use.
    NotInUse,
    /// E0: its attachment is gone.
    ReleasedIsDetached,
    /// E1: the attachment is gone.
    StoppedIsDetached,
    /// E1 and E2 speak of the holder of record only, and of the node that it is on.
    SealNamesTheHolder,
    /// E2: only with `proof: Lease`.
    LeaseIsOptIn,
    /// E2: only where the holder had promised to stop by itself.
    PromisedToStop,
    /// E2 and E3 and E4 and E5: the attachment of the old node is gone.
    OldIsDetached,
    /// E2 to E5: the control plane does not count the volume as attached to the old node any more.
    StatusIsDetached,
    /// E3: only for a driver whose detach proves something.
    ClassIsProof,
    /// E2 to E5: not for a node that gives signs of life and was not given up; it says itself when it has let go.
    AliveReleasesItself,
    /// A node that was given up and was heard of since is back.
    HeardIsBack,
    /// Only a node that was not heard of since its database stopped renewing is given up before it is silent.
    GivenUpIsUnheard,
    /// E4: a missing Node object counts only if it was a cloud provider's machine.
    GoneIsProvided,
    /// E5: the word of a human names the pod of record.
    WordNamesThePod,
    /// E5: not against signs of life.
    WordAgainstLife,
    /// A record without a node: every node is a candidate.
    UnseenIsAnywhere,
    /// What was lost with a proof needs no other one only while it is silent.
    StillLost,
    /// And while it has no attachment.
    LostIsDetached,
    /// And, where the record names no node, while it does not list the volume as in use.
    LostIsUnused,
    /// A node that lists the volume in use beside the record gives it back first.
    NoUseBeside,
    /// A volume that is attached to a third node was used there.
    ThirdNodes,

    // ---- the pinned restart
    /// Only with `ReadWriteOncePod`: then the kubelet mounts for one pod at a time.
    PinIsExclusive,
    /// Only to a node that is alive.
    PinToTheLiving,
    /// Only to a node that takes new pods.
    PinToSchedulable,
    /// Only while the attachment is there and no detach is under way.
    PinWhileAttached,
    /// Not after a seal, nor to a node that was written down as lost: a detach may be on its way.
    PinUnsealed,
    /// A record with a node opens its gate for that node or not at all.
    PinIsKept,
    /// A pin that could not be placed is not tried again.
    PinOnce,
    /// A pinned pod whose node fell silent is let go.
    PinLetsGo,

    // ---- the order
    /// Nothing is detached and nothing opens while a pod of ours may run.
    OneAtATime,
    /// The record before the gate.
    RecordBeforeGate,
    /// The Lease names the pod before its gate opens.
    NameBeforeGate,
    /// What an open gate leads to stays off the nodes that were lost.
    AvoidTheLost,
}

/// A set of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules(u64);

impl Rules {
    /// All of them: what production decides by.
    pub const fn all() -> Self {
        assert!(Rule::ALL.len() <= 64);
        Self(u64::MAX)
    }

    /// All that are in this set, but for one.
    #[must_use]
    pub const fn without(self, rule: Rule) -> Self {
        Self(self.0 & !(1 << rule as u64))
    }

    /// Whether a rule is in force.
    pub const fn has(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u64) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_a_rule_away_takes_only_that_one() {
        for &gone in Rule::ALL {
            let rules = Rules::all().without(gone);
            for &rule in Rule::ALL {
                assert_eq!(rules.has(rule), rule != gone, "{} without {}", rule.name(), gone.name());
            }
        }
    }
}
