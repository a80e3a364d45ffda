//! The driver: one pass looks at the world, decides, acts and reports. It decides nothing itself.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future;
use futures::stream::{self, StreamExt as _};
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{applier, controller};

use crate::api::{SqlEdgeInstance, SqlEdgeInstanceSpec};
use crate::apply::{self, Applied};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::failover::{self, Act, Verdict};
use crate::lease;
use crate::observe::{Observed, forget_password, log_in, look_again, note_refusal, note_release, observe};
use crate::plan::{self, Plan};
use crate::readable::Unreadable;
use crate::report::report;
use crate::rules::Rules;
use crate::scene::Holder;
use crate::status;
use crate::watch::Triggers;
use crate::world::{PasswordChange, World};

/// Instances that are worked on at the same time; a pass may wait for the API server, and a moment for a login.
const CONCURRENCY: u16 = 16;
/// A replica that does not lead looks again.
const STANDBY: Duration = Duration::from_secs(5);
/// The least time between two looks while something does not get better.
const SOON: Duration = Duration::from_secs(1);
/// After an act, the world is another one.
const AT_ONCE: Duration = Duration::from_millis(20);
/// The most acts of one pass; more than follow from each other.
const MOST_ACTS: usize = 4;

/// Runs until `stop` resolves and every pass has ended.
pub async fn run(context: Arc<Context>, triggers: Triggers, stop: impl Future<Output = ()> + Send + 'static) {
    let instances = context.caches.instances.clone();
    // on becoming the leader, everything that was left to the former one is looked at
    let elected = stream::unfold(
        (context.leadership.clone(), instances.clone()),
        |(mut leadership, instances)| async move {
            leadership.gained().await;
            let all: Vec<_> = instances.state().iter().map(|i| ObjectRef::from_obj(&**i)).collect();
            Some((stream::iter(all), (leadership, instances)))
        },
    )
    .flatten();
    let queue = stream::select(triggers, elected)
        .take_until(Box::pin(stop))
        .map(Ok::<_, std::convert::Infallible>);
    let config = controller::Config::default().concurrency(CONCURRENCY);
    let watched = context.clone();
    applier(
        |instance, context| Box::pin(pass(instance, context)),
        on_error,
        context,
        instances,
        queue,
        config,
    )
    .for_each(|result| {
        match result {
            Ok(_) => {}
            Err(controller::Error::ObjectNotFound(gone)) => match unreadable(&watched, &gone) {
                Some(unreadable) => tell_unreadable(&watched, unreadable),
                None => forget(&watched, &gone),
            },
            Err(error) => tracing::debug!(%error, "pass failed"),
        }
        std::future::ready(())
    })
    .await;
}

/// What is not in the cache because it cannot be read.
fn unreadable(context: &Context, instance: &ObjectRef<DynamicObject>) -> Option<Unreadable> {
    let reference = ObjectRef::new(&instance.name).within(instance.namespace.as_deref()?);
    context.caches.unreadable.get(&reference)
}

/// It has no passes: nothing is done for it, and somebody must know.
fn tell_unreadable(context: &Context, Unreadable { error, metadata }: Unreadable) {
    if !context.leadership.holds() {
        return;
    }
    let (namespace, name) = (metadata.namespace.clone(), metadata.name.clone());
    context
        .metrics
        .ready(&namespace.unwrap_or_default(), &name.unwrap_or_default(), false);
    let resource = SqlEdgeInstance {
        metadata,
        spec: SqlEdgeInstanceSpec::default(),
        status: None,
    };
    let note = format!("this resource cannot be read, so nothing is done for it, not even a failover: correct {error}");
    context
        .events
        .publish(&resource, EventType::Warning, "Unreadable", &note);
}

/// A resource is gone: so is what was remembered for it.
fn forget(context: &Context, gone: &ObjectRef<DynamicObject>) {
    context
        .metrics
        .forget(gone.namespace.as_deref().unwrap_or_default(), &gone.name);
    let live = context.caches.instances.state();
    if let Some(namespace) = gone.namespace.as_deref() {
        context
            .renewals
            .removed(&format!("{namespace}/{}", lease::name(&gone.name)));
    }
    let live = live.iter().filter_map(|instance| instance.uid()).collect();
    context.memory.keep_only(&live);
    context.logins.passwords().keep_only(&live);
}

#[allow(clippy::needless_pass_by_value)] // the applier's signature
fn on_error(instance: Arc<SqlEdgeInstance>, error: &Error, _: Arc<Context>) -> Action {
    if error.is_moved() {
        return Action::requeue(Duration::from_millis(200));
    }
    tracing::warn!(instance = %instance.name_any(), namespace = instance.namespace(), %error, "pass failed; it is tried again");
    Action::requeue(Duration::from_secs(5))
}

/// One pass, counted and timed.
pub async fn pass(instance: Arc<SqlEdgeInstance>, context: Arc<Context>) -> Result<Action> {
    if !context.leadership.holds() {
        return Ok(Action::requeue(Box::pin(stand_by(&instance, &context)).await));
    }
    #[allow(clippy::disallowed_methods)] // measures, decides nothing
    let began = Instant::now();
    let result = Box::pin(look_and_act(&instance, &context)).await;
    context
        .metrics
        .pass(result.as_ref().err().map_or("Ok", Error::reason), began.elapsed());
    result
}

/// A replica that does not lead logs in where a node may be dead: with the node the leader may be gone, and whoever takes over must not begin with
/// two timeouts. When to look again.
async fn stand_by(instance: &Arc<SqlEdgeInstance>, context: &Context) -> Duration {
    let node = instance.status.as_ref().and_then(|status| status.node.as_deref());
    let unchanged = node
        .and_then(|node| context.heartbeats.of(node))
        .map(|beat| beat.unchanged);
    let Some(unchanged) = unchanged else { return STANDBY };
    match context.timing.suspicion().checked_sub(unchanged) {
        Some(until) if !until.is_zero() => until.clamp(AT_ONCE, STANDBY),
        _ => {
            // what goes wrong here goes wrong for the leader too, which says so
            if let Ok(Observed::World(mut world)) = observe(context, instance).await {
                log_in(context, &mut world).await;
            }
            SOON
        }
    }
}

async fn look_and_act(instance: &Arc<SqlEdgeInstance>, context: &Context) -> Result<Action> {
    let resource = context.memory.newest(instance);
    let mut world = match observe(context, &resource).await? {
        Observed::Gone => return Ok(Action::await_change()),
        Observed::Invalid(invalid) => {
            let generation = resource.metadata.generation.unwrap_or_default();
            let previous = resource.status.clone().unwrap_or_default();
            #[allow(clippy::disallowed_methods)] // there is no world to take it from
            let now = k8s_openapi::jiff::Timestamp::now();
            let status = status::of_invalid(&previous, generation, &invalid, now);
            report(context, &resource, status).await?;
            return Ok(Action::requeue(context.timing.resync));
        }
        Observed::World(world) => world,
    };
    let plan = plan::plan(&world, &context.identity);
    // a child that cannot be applied must not keep the database on a dead node
    let Applied {
        is_another: replaces_pods,
        refused,
        mut outcome,
    } = apply::steps(context, &world, &plan.steps).await;
    if let Some(words) = refused {
        note_refusal(context, &mut world, words);
    }
    if plan
        .steps
        .iter()
        .any(|step| matches!(step, plan::Step::OwnSecret { .. } | plan::Step::CreateSecret))
    {
        forget_password(context, &world.instance);
    }
    let mut verdict = failover::decide(&world.scene, Rules::all());
    // what can be done without them waits neither for a login nor for what begins a release
    if verdict.act.is_none() {
        if log_in(context, &mut world).await {
            verdict = failover::decide(&world.scene, Rules::all());
        }
        outcome = outcome.and(note_release(context, &world).await);
    }
    let mut decided = Decided { world, verdict };
    let (acted, done) = act(context, &plan, replaces_pods, &mut decided, outcome.as_ref().err()).await;
    outcome = outcome.and(done);
    let Decided { world, verdict } = decided;
    let status = status::of(&world, &plan, &verdict, outcome.as_ref().err());
    let instance = &world.instance;
    context.metrics.space(&instance.namespace, &instance.name, world.space);
    report(context, &world.resource, status).await?;
    outcome?;
    Ok(Action::requeue(next_look(context, &world, &plan, &verdict, acted)))
}

fn next_look(context: &Context, world: &World, plan: &Plan, verdict: &Verdict, acted: bool) -> Duration {
    // what the steps changed comes back as an event; this is for when it does not
    let least = if plan.steps.is_empty() {
        context.timing.resync
    } else {
        SOON
    };
    // the plan was made before the login that showed it
    let password = world.password_change == PasswordChange::Due && !plan.steps.contains(&plan::Step::ChangePassword);
    match (acted || password, &verdict.act) {
        (true, _) => AT_ONCE,
        // held back: that the verdict stands is no reason to look at once
        (false, Some(_)) => SOON,
        (false, None) => verdict.recheck.clamp(AT_ONCE, least.max(AT_ONCE)),
    }
}

/// A world and the decision on it.
struct Decided {
    world: Box<World>,
    verdict: Verdict,
}

impl Decided {
    fn of(world: Box<World>) -> Self {
        let verdict = failover::decide(&world.scene, Rules::all());
        Self { world, verdict }
    }
}

/// Carries out the verdict's irreversible act, and those that follow from it at once. What an act rests on is read again first, and the
/// decision taken again on that: what is then found right is done, whatever the caches made of it. Each act's status is written while the next
/// look is under way, and before the next act. What has changed since it was judged is judged once more, because the kubelet writes to a pod that
/// stops just then. Leaves behind the last decision; whether anything was done, and how it ended.
async fn act(
    context: &Context,
    plan: &Plan,
    replaces_pods: bool,
    decided: &mut Decided,
    failed: Option<&Error>,
) -> (bool, Result<()>) {
    let (mut acts, mut moved, mut is_fresh) = (0, false, false);
    let done = loop {
        let Decided { world, verdict } = &*decided;
        let Some(wanted) = &verdict.act else { break Ok(()) };
        let needs_quorum = wanted.needs_quorum(world.scene.claim.holder.as_ref());
        if needs_quorum && !is_fresh {
            match Box::pin(look_again(context, world)).await {
                Ok(Some(world)) => {
                    let again = Decided::of(world);
                    if again.verdict.act.is_none() {
                        tracing::debug!(instance = %again.world.instance.name, wanted = wanted.name(), found = again.verdict.reason, "a second look does not agree");
                    }
                    *decided = again;
                    is_fresh = true;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        }
        let Decided { world, verdict } = &*decided;
        let Some(act) = &verdict.act else { break Ok(()) };
        // the next pod is about to be another one: the record would name a pod that never runs
        if replaces_pods && lets_in(world, act) {
            break Ok(());
        }
        // a leader that was held up for too long while looking must not act
        if !context.leadership.holds() {
            break Ok(());
        }
        match carry_out(context, world, verdict, act).await {
            Ok(()) => {}
            Err(error) if error.is_moved() && needs_quorum && !moved => {
                (moved, is_fresh) = (true, false);
                continue;
            }
            Err(error) => break Err(error),
        }
        acts += 1;
        if acts == MOST_ACTS || !another_follows(world, act) {
            break Ok(());
        }
        let status = status::of(world, plan, verdict, failed);
        let (written, looked) = future::join(
            Box::pin(report(context, &world.resource, status)),
            Box::pin(look_again(context, world)),
        )
        .await;
        match (written, looked) {
            (Ok(written), Ok(Some(next))) => {
                // whichever of the two was faster: the next status begins with this one
                let resource = written;
                *decided = Decided::of(Box::new(World { resource, ..*next }));
            }
            (Err(error), _) | (_, Err(error)) => break Err(error),
            (Ok(_), Ok(None)) => break Ok(()),
        }
    };
    (acts > 0, done)
}

/// Whether an act is a step of a pod's way to the volume.
fn lets_in(world: &World, act: &Act) -> bool {
    match act {
        Act::Record(next) => is_another(world, next),
        Act::OpenGate { .. } => true,
        Act::RefusePin { .. }
        | Act::Evict { .. }
        | Act::Stop { .. }
        | Act::ShrinkVolumesInUse { .. }
        | Act::DeleteAttachment { .. }
        | Act::Seal { .. }
        | Act::Lose { .. } => false,
    }
}

/// Whether the volume changes hands by this record.
fn is_another(world: &World, next: &Holder) -> bool {
    let last = world.scene.claim.holder.as_ref();
    last.is_none_or(|last| last.pod != next.pod)
}

/// Whether the next act can be found right as soon as this one is done; after all others it takes somebody else's doing.
fn another_follows(world: &World, act: &Act) -> bool {
    match act {
        Act::Record(next) => is_another(world, next),
        // a Deployment's next pod may be there already
        Act::Evict { .. } => world
            .scene
            .pods
            .iter()
            .any(|pod| pod.ours && pod.gated && !pod.deleting),
        // with the Lease sealed or the node written down, the pod or the volume can be taken from it
        Act::Seal { .. } | Act::Lose { .. } => true,
        Act::RefusePin { .. }
        | Act::Stop { .. }
        | Act::ShrinkVolumesInUse { .. }
        | Act::DeleteAttachment { .. }
        | Act::OpenGate { .. } => false,
    }
}

async fn carry_out(context: &Context, world: &World, verdict: &Verdict, act: &Act) -> Result<()> {
    apply::act(&context.cluster, world, act).await?;
    context.metrics.act(act.name());
    if let (Act::Record(next), Some(last)) = (act, &world.scene.claim.holder)
        && next.pod != last.pod
    {
        context.heartbeats.forget(&last.pod);
    }
    let evidence = verdict.evidence.map(failover::Evidence::name);
    tracing::info!(instance = %world.instance.name, namespace = %world.instance.namespace, act = act.name(), evidence, "{}", verdict.message);
    context
        .events
        .publish(&world.resource, EventType::Normal, act.name(), &verdict.message);
    Ok(())
}
