//! Operator and rest of the cluster in turns, until nothing more happens.

use crate::chance::Chance;
use crate::operator::{Lag, Operator, Passed, Setup};
use crate::wire::Fault;
use crate::world::{Make, World};

/// More turns than any story needs.
const TURNS: usize = 120;
/// Turns in which nothing happens, with time going by, after which nothing will.
const IDLE: usize = 3;

/// What a turn of the operator shows it, and what else may go wrong.
pub trait Weather {
    /// How far the caches lag behind in this turn, in writes of the world, of which there were so many.
    fn lag(&mut self, turn: usize, moment: usize) -> Lag;
}

/// Caches that show what is.
pub struct Fair;

impl Weather for Fair {
    fn lag(&mut self, _: usize, _: usize) -> Lag {
        Lag::default()
    }
}

/// Goes on until the world is at rest; returns the number of turns.
pub async fn settle(world: &World, operator: &mut Operator, chance: &mut Chance, weather: &mut impl Weather) -> usize {
    go_on(world, operator, chance, weather, IDLE).await
}

/// Goes on until the instance is Ready and one turn changes nothing: enough for a beginning without failures.
pub async fn begin(world: &World, operator: &mut Operator, chance: &mut Chance) {
    let is_ready = || {
        world
            .lock()
            .condition("Ready")
            .is_some_and(|(status, _)| status == "True")
    };
    go_on(world, operator, chance, &mut Fair, 0).await;
    if !is_ready() {
        // an engine that did not answer the first login is not asked again at once
        world.heartbeat().await;
        operator.age();
        go_on(world, operator, chance, &mut Fair, 0).await;
    }
    assert!(is_ready(), "{}", world.story());
}

/// A world whose instance is Ready, and the operator that made it so.
pub async fn started(make: &Make, setup: &Setup, chance: &mut Chance) -> (World, Operator) {
    let world = World::new(make).await;
    let mut operator = Operator::new(&world, setup, Fault::None);
    world.create_instance(&make.spec).await;
    begin(&world, &mut operator, chance).await;
    (world, operator)
}

async fn go_on(
    world: &World,
    operator: &mut Operator,
    chance: &mut Chance,
    weather: &mut impl Weather,
    patience: usize,
) -> usize {
    let mut idle = 0;
    for turn in 0..TURNS {
        let moment = world.lock().mirror.moment();
        let lag = weather.lag(turn, moment);
        let passed = operator.turn(&lag, chance).await;
        if let Passed::Crashed = passed {
            world
                .lock()
                .trace
                .push("(the operator crashed; another one takes over)".into());
            operator.restart();
        }
        if let Passed::Failed(error) = &passed {
            world.lock().trace.push(format!("(the pass failed: {error})"));
        }
        let troubled = matches!(passed, Passed::Crashed | Passed::Failed(_));
        let moved = world.round(chance).await;
        let quiet = !moved && !troubled && world.lock().mirror.moment() == moment && lag == Lag::default();
        if quiet {
            idle += 1;
            if idle > patience {
                return turn;
            }
            if idle == patience {
                world.judge_nodes().await;
            }
        } else {
            idle = 0;
        }
        if quiet || turn % 8 == 7 {
            world.heartbeat().await;
            operator.age();
        }
    }
    panic!(
        "world {} is not at rest after {TURNS} turns:\n{}",
        world.namespace,
        world.story()
    );
}

/// Two more passes at rest: neither may write anything.
pub async fn assert_at_rest(world: &World, operator: &mut Operator, about: &str) {
    let before = world.lock().mirror.moment();
    for _ in 0..2 {
        operator.wire.arm(Fault::None);
        operator.look(&Lag::default());
        let passed = operator.pass().await;
        let writes = crate::world::writes(&operator.wire.sent());
        assert!(
            writes.is_empty(),
            "{about}: a world at rest was written to ({passed:?}): {writes:#?}\n{}",
            world.story()
        );
    }
    assert_eq!(
        world.lock().mirror.moment(),
        before,
        "{about}: something changed at rest"
    );
}
