//! Caches that lag behind, each by as much as it likes, and events that are lost until the next complete list.

use crate::chance::Chance;
use crate::operator::Lag;
use crate::server::play;
use crate::settle::{Fair, Weather};
use crate::story::{Story, at_once};
use crate::wire::Fault;

/// Turns after which the caches catch up: what is stale for ever is no cache.
const STORM: usize = 30;

/// Every cache lags behind by some writes of the world, in each turn anew.
struct Stale(Chance);

impl Weather for Stale {
    fn lag(&mut self, turn: usize, _: usize) -> Lag {
        if turn >= STORM {
            return Lag::default();
        }
        let mut behind = || if self.0.percent(50) { self.0.below(16) } else { 0 };
        Lag {
            instances: behind(),
            deployments: behind(),
            services: behind(),
            claims: behind(),
            pods: behind(),
            nodes: behind(),
            attachments: behind(),
            guards: behind(),
            leases: behind(),
        }
    }
}

/// From the first turn on one cache hears nothing any more, for a long while.
struct Deaf {
    kind: usize,
    since: Option<usize>,
}

impl Weather for Deaf {
    fn lag(&mut self, turn: usize, moment: usize) -> Lag {
        let since = *self.since.get_or_insert(moment);
        let mut lag = Lag::default();
        if turn >= STORM {
            return lag;
        }
        let caches = [
            &mut lag.instances,
            &mut lag.deployments,
            &mut lag.services,
            &mut lag.claims,
            &mut lag.pods,
            &mut lag.nodes,
            &mut lag.attachments,
            &mut lag.guards,
            &mut lag.leases,
        ];
        *caches.into_iter().nth(self.kind).expect("nine groups of caches") = moment - since;
        lag
    }
}

#[test]
fn caches_that_lag_behind_change_nothing_about_the_end() {
    play(at_once(Story::all().into_iter().map(|story| async move {
        let about = format!("{} (seed 22, stale caches)", story.name);
        let end = story.play(22, Fault::None, &mut Stale(Chance::new(22))).await;
        end.assert_good(&about, story.ends_ready);
        if Story::main_ones().iter().any(|main| main.name == story.name) {
            let calm = story.play(21, Fault::None, &mut Fair).await;
            end.assert_same(&about, &calm);
        }
    })));
}

#[test]
fn events_that_are_lost_change_nothing_about_the_end() {
    // a pod that is deleted, and a node that is lost
    play(at_once(Story::main_ones().into_iter().skip(1).take(2).map(
        |story| async move {
            let calm = story.play(31, Fault::None, &mut Fair).await;
            for kind in 0..9 {
                let about = format!("{} (seed 31, cache {kind} hears nothing)", story.name);
                let end = story.play(31, Fault::None, &mut Deaf { kind, since: None }).await;
                end.assert_good(&about, story.ends_ready);
                end.assert_same(&about, &calm);
            }
        },
    )));
}
