//! Two replicas of the operator that both believe to lead: one is paused in the middle of a write, the other goes on for a while, then the
//! write arrives after all.

use crate::chance::Chance;
use crate::operator::{Lag, Operator};
use crate::server::play;
use crate::settle::{Fair, assert_at_rest, begin, settle};
use crate::story::{Event, Story, at_once};
use crate::wire::Fault;
use crate::world::World;

/// Turns that the other replica has before the write arrives.
const AHEAD: [usize; 3] = [1, 4, 12];

async fn play_two(story: &Story, write: usize, ahead: usize) {
    let seed = u64::try_from(write * 100 + ahead).expect("small");
    let about = format!("{} (seed {seed}, write {write} arrives {ahead} turns late)", story.name);
    let mut chance = Chance::new(seed);
    let world = World::new(&story.make).await;
    let mut paused = Operator::replica(&world, &story.setup, Fault::None, "operator A");
    let mut other = Operator::replica(&world, &story.setup, Fault::None, "operator B");
    if story.event != Event::Created {
        world.create_instance(&story.make.spec).await;
        begin(&world, &mut paused, &mut chance).await;
    }
    paused.wire.arm(Fault::HoldWrite(write));
    story.happen(&world).await;
    for _ in 0..8 {
        paused.look(&Lag::default());
        other.look(&Lag::default());
        let meanwhile = async {
            paused.wire.held.notified().await;
            for _ in 0..ahead {
                other.look(&Lag::default());
                other.pass().await;
                if !world.round(&mut chance).await {
                    world.heartbeat().await;
                    other.age();
                }
            }
            paused.wire.release.notify_one();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = paused.pass() => {}
            () = meanwhile => {}
        }
        other.pass().await;
        if !world.round(&mut chance).await {
            world.heartbeat().await;
            paused.age();
            other.age();
        }
    }
    settle(&world, &mut other, &mut chance, &mut Fair).await;
    settle(&world, &mut paused, &mut chance, &mut Fair).await;
    assert_at_rest(&world, &mut other, &about).await;
    world.assert_sound(&about);
    let ready = world.lock().condition("Ready").map(|(status, _)| status);
    assert_eq!(
        ready.as_deref() == Some("True"),
        story.ends_ready,
        "{about}\n{}",
        world.story()
    );
    world.end().await;
}

#[test]
fn two_replicas_that_both_believe_to_lead_keep_one_writer() {
    play(async {
        let stories = Story::all();
        let stories: Vec<&Story> = stories
            .iter()
            .filter(|story| {
                [
                    "pod force-deleted",
                    "node cut, storage revokes",
                    "node cut and pod force-deleted, class unknown",
                ]
                .contains(&story.name)
            })
            .collect();
        assert_eq!(stories.len(), 3);
        at_once(stories.into_iter().flat_map(|story| {
            // events are writes too; these reach every act of each of the stories
            (1..=10).map(move |write| play_two(story, write, AHEAD[write % AHEAD.len()]))
        }))
        .await;
    });
}
