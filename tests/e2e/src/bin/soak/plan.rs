//! The sequence of faults: a pure function of the seed.
//!
//! Kinds come in rounds, each in an order of its own, so that a short run sees many kinds and a long one all. Where faults land in time
//! is decided here too: most wait until everything serves again, some begin while the last ones are still being repaired.

use crate::kind::{Hold, Kind, ROUND, Reach};

/// Random numbers that are the same everywhere and for ever (Steele, Lea, Flood 2014: `SplitMix64`).
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..count`. The bias towards small numbers is below one in 2^50 here.
    pub fn below(&mut self, count: usize) -> usize {
        let count = u64::try_from(count.max(1)).expect("a list has fewer than 2^64 entries");
        usize::try_from(self.next() % count).expect("it is below a usize")
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// When a fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// When everything serves.
    Whole,
    /// So many seconds after the one before it, whatever the state.
    After(u64),
}

/// A fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// From 1.
    pub number: usize,
    /// What.
    pub kind: Kind,
    /// To which instance, or to the node it is on by then.
    pub instance: usize,
    /// When.
    pub begins: Begins,
}

/// So many percent of faults do not wait until the last one is over.
const OVERLAP: usize = 40;
/// So many of these, where both are about nodes.
const OVERLAP_OF_NODES: usize = 15;
/// So many at once.
const AT_ONCE: usize = 3;

/// Faults without end.
pub struct Plan {
    random: Random,
    instances: usize,
    only: Vec<Kind>,
    bag: Vec<Kind>,
    number: usize,
    /// Kinds that began since everything last served.
    open: Vec<Kind>,
}

impl Plan {
    /// Of a seed, for so many instances; of these kinds only, if any are named.
    pub fn of(seed: u64, instances: usize, only: &[Kind]) -> Self {
        Self {
            random: Random::new(seed),
            instances,
            only: only.to_vec(),
            bag: Vec::new(),
            number: 0,
            open: Vec::new(),
        }
    }

    fn fill(&mut self) {
        let mut round: Vec<Kind> = ROUND.to_vec();
        // a minute without the API server is dear: every other round, of the round's own choosing
        if self.random.percent(50) || self.only.contains(&Kind::ApiDown) {
            round.push(Kind::ApiDown);
        }
        round.retain(|kind| self.only.is_empty() || self.only.contains(kind));
        for last in (1..round.len()).rev() {
            round.swap(last, self.random.below(last + 1));
        }
        self.bag.splice(0..0, round);
    }

    /// The next kind that may begin beside those that are open.
    fn draw_beside(&mut self) -> Option<Kind> {
        let of_nodes = self.random.percent(OVERLAP_OF_NODES);
        let fits = |kind: &Kind| self.open.iter().all(|before| go_together(*before, *kind, of_nodes));
        let found = self.bag.iter().rposition(fits)?;
        Some(self.bag.remove(found))
    }
}

/// Whether a fault may begin while another one is not over.
fn go_together(before: Kind, next: Kind, of_nodes: bool) -> bool {
    let (first, second) = (before.reach(), next.reach());
    let lasts = |kind: Kind| kind.hold() != Hold::None;
    match (first, second) {
        // nothing can be asked of the cluster meanwhile; what is done on nodes can
        (Reach::Api, _) => matches!(
            next,
            Kind::EngineKilled | Kind::EngineHung | Kind::GuardKilled | Kind::GuardHung
        ),
        (_, Reach::Api) => !lasts(before),
        (Reach::TwoNodes, _) | (_, Reach::TwoNodes) => !(lasts(before) && lasts(next)),
        (Reach::Node, Reach::Node) => of_nodes,
        (Reach::Instance | Reach::Control | Reach::Node, Reach::Instance | Reach::Control | Reach::Node) => true,
    }
}

impl Iterator for Plan {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        if self.bag.len() < ROUND.len() {
            self.fill();
        }
        let may_overlap = !self.open.is_empty() && self.open.len() < AT_ONCE;
        let beside = (may_overlap && self.random.percent(OVERLAP))
            .then(|| self.draw_beside())
            .flatten();
        let (kind, begins) = if let Some(kind) = beside {
            let seconds = 1 + self.random.below(12);
            (kind, Begins::After(u64::try_from(seconds).expect("it is below 13")))
        } else {
            self.open.clear();
            (self.bag.pop()?, Begins::Whole)
        };
        self.open.push(kind);
        self.number += 1;
        Some(Planned {
            number: self.number,
            kind,
            instance: self.random.below(self.instances),
            begins,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn first(seed: u64, count: usize) -> Vec<Planned> {
        Plan::of(seed, 8, &[]).take(count).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_seed_others() {
        assert_eq!(first(7, 300), first(7, 300));
        assert_ne!(first(7, 30), first(8, 30));
    }

    #[test]
    fn two_rounds_have_every_kind() {
        let seen: BTreeSet<Kind> = first(1, 3 * ROUND.len()).iter().map(|planned| planned.kind).collect();
        let missing: Vec<_> = ROUND.iter().filter(|kind| !seen.contains(kind)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn some_faults_overlap_and_never_more_than_three() {
        let plan = first(3, 500);
        let overlapping = plan.iter().filter(|planned| planned.begins != Begins::Whole).count();
        assert!((100..300).contains(&overlapping), "{overlapping} of 500");
        let mut open = 0;
        for planned in &plan {
            open = if planned.begins == Begins::Whole { 1 } else { open + 1 };
            assert!(open <= AT_ONCE, "{planned:?}");
        }
    }

    #[test]
    fn while_the_api_server_is_away_only_processes_are_hurt() {
        let plan = first(5, 3000);
        let mut pairs = 0;
        for pair in plan
            .windows(2)
            .filter(|pair| pair[0].kind == Kind::ApiDown && pair[1].begins != Begins::Whole)
        {
            pairs += 1;
            assert_eq!(pair[1].kind.reach(), Reach::Instance, "{pair:?}");
        }
        assert!(pairs > 0, "no fault overlaps with a missing API server");
    }

    #[test]
    fn named_kinds_are_the_only_ones() {
        let plan: Vec<_> = Plan::of(1, 2, &[Kind::ApiDown, Kind::PodDeleted]).take(20).collect();
        assert!(
            plan.iter()
                .all(|it| matches!(it.kind, Kind::ApiDown | Kind::PodDeleted))
        );
        assert!(plan.iter().any(|it| it.kind == Kind::ApiDown));
    }
}
