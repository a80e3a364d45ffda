//! The driver: one pass looks at the world, decides, acts and reports. It decides nothing itself.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{applier, controller};

use crate::api::SqlEdgeInstance;
use crate::apply;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::failover::{self, Act, Verdict};
use crate::observe::{Freshness, Observed, forget_password, observe};
use crate::plan::{self, Plan};
use crate::report::{publish, report};
use crate::status;
use crate::watch::Triggers;
use crate::world::World;

/// Instances that are worked on at the same time; a pass may wait two seconds for a login.
const CONCURRENCY: u16 = 16;
/// A replica that does not lead looks again.
const STANDBY: Duration = Duration::from_secs(5);
/// The least time between two looks while something does not get better.
const SOON: Duration = Duration::from_secs(1);
/// After an act, the world is another one.
const AT_ONCE: Duration = Duration::from_millis(20);

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
            Err(controller::Error::ObjectNotFound(gone)) => forget(&watched, &gone),
            Err(error) => tracing::debug!(%error, "pass failed"),
        }
        std::future::ready(())
    })
    .await;
}

/// A resource is gone: so is what was remembered for it.
fn forget(context: &Context, gone: &ObjectRef<DynamicObject>) {
    context
        .metrics
        .forget(gone.namespace.as_deref().unwrap_or_default(), &gone.name);
    let live = context.caches.instances.state();
    context
        .memory
        .keep_only(&live.iter().filter_map(|instance| instance.uid()).collect());
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
        return Ok(Action::requeue(STANDBY));
    }
    #[allow(clippy::disallowed_methods)] // measures, decides nothing
    let began = Instant::now();
    let result = look_and_act(&instance, &context).await;
    context
        .metrics
        .pass(result.as_ref().err().map_or("Ok", Error::reason), began.elapsed());
    result
}

async fn look_and_act(instance: &Arc<SqlEdgeInstance>, context: &Context) -> Result<Action> {
    let resource = context.memory.newest(instance);
    let world = match observe(context, &resource, Freshness::Cached).await? {
        Observed::Gone => return Ok(Action::await_change()),
        Observed::Invalid(invalid) => {
            let generation = resource.metadata.generation.unwrap_or_default();
            let previous = resource.status.clone().unwrap_or_default();
            #[allow(clippy::disallowed_methods)] // there is no world to take it from
            let now = k8s_openapi::jiff::Timestamp::now();
            report(
                context,
                &resource,
                status::of_invalid(&previous, generation, &invalid, now),
            )
            .await?;
            return Ok(Action::requeue(context.timing.resync));
        }
        Observed::World(world) => world,
    };
    let plan = plan::plan(&world, &context.identity);
    let mut outcome = apply::steps(&context.cluster, &world.instance, &plan.steps).await;
    if plan
        .steps
        .iter()
        .any(|step| matches!(step, plan::Step::OwnSecret { .. } | plan::Step::CreateSecret))
    {
        forget_password(context, &world.instance);
    }
    // a child that cannot be applied must not keep the database on a dead node
    let mut verdict = failover::decide(&world.scene);
    let mut acted = false;
    match act(context, &resource, &world, &verdict).await {
        Ok(Acted::Nothing) => {}
        Ok(Acted::Done(done)) => {
            acted = true;
            verdict = done;
        }
        Ok(Acted::SecondLook(second)) => verdict = second,
        Err(error) => outcome = outcome.and(Err(error)),
    }
    let status = status::of(&world, &plan, &verdict, outcome.as_ref().err());
    report(context, &resource, status).await?;
    outcome?;
    Ok(Action::requeue(next_look(context, &plan, &verdict, acted)))
}

fn next_look(context: &Context, plan: &Plan, verdict: &Verdict, acted: bool) -> Duration {
    // what the steps changed comes back as an event; this is for when it does not
    let least = if plan.steps.is_empty() {
        context.timing.resync
    } else {
        SOON
    };
    if acted {
        AT_ONCE
    } else {
        verdict.recheck.clamp(AT_ONCE, least.max(AT_ONCE))
    }
}

/// What came of the verdict's act.
enum Acted {
    /// There was none, or this replica does not lead any more.
    Nothing,
    /// It was carried out; on this verdict.
    Done(Verdict),
    /// A second look found nothing to do; this is what it says.
    SecondLook(Verdict),
}

/// Carries out the one irreversible act. What it rests on is read again first, and the decision taken again on that:
/// what is then found right is done, whatever the caches made of it.
async fn act(context: &Context, resource: &Arc<SqlEdgeInstance>, world: &World, verdict: &Verdict) -> Result<Acted> {
    let Some(wanted) = &verdict.act else {
        return Ok(Acted::Nothing);
    };
    let mut fresh = None;
    if wanted.needs_quorum(world.scene.claim.holder.as_ref()) {
        let Observed::World(again) = observe(context, resource, Freshness::Quorum).await? else {
            return Ok(Acted::Nothing);
        };
        let second = failover::decide(&again.scene);
        if second.act.is_none() {
            tracing::debug!(instance = %world.instance.name, wanted = wanted.name(), found = second.reason, "a second look does not agree");
            return Ok(Acted::SecondLook(second));
        }
        fresh = Some((again, second));
    }
    let (world, verdict) = fresh
        .as_ref()
        .map_or((world, verdict), |(world, verdict)| (&**world, verdict));
    let Some(act) = &verdict.act else {
        return Ok(Acted::Nothing);
    };
    // a leader that was held up for too long while looking must not act
    if !context.leadership.holds() {
        return Ok(Acted::Nothing);
    }
    apply::act(&context.cluster, world, act).await?;
    context.metrics.act(act.name());
    if let (Act::Record(next), Some(last)) = (act, &world.scene.claim.holder)
        && next.pod != last.pod
    {
        context.heartbeats.settled(&last.pod);
    }
    let evidence = verdict.evidence.map(failover::Evidence::name);
    tracing::info!(instance = %world.instance.name, namespace = %world.instance.namespace, act = act.name(), evidence, "{}", verdict.message);
    publish(context, resource, EventType::Normal, act.name(), &verdict.message).await;
    Ok(Acted::Done(verdict.clone()))
}
