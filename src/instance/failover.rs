//! The failover settings.

use super::Invalid;
use crate::api::{
    FailoverSpec, Guard, LeaseRenewal, OnApiLoss, Proof, RENEW_SECONDS, STOP_AFTER_SECONDS, TAKEOVER_AFTER_SECONDS,
};
use crate::driver_class::DriverClass;

/// The failover settings with defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// Whether a guard runs as the first process of the engine's container.
    pub guard: Guard,
    /// What proves that an old engine can write no more, beside what is always accepted.
    pub proof: Proof,
    /// When the guard renews its Lease.
    pub lease: LeaseRenewal,
    /// Seconds between two renewals.
    pub renew_seconds: u32,
    /// Seconds without a renewal after which the guard stops the engine.
    pub stop_after_seconds: u32,
    /// Seconds without a renewal after which the operator takes over.
    pub takeover_after_seconds: u32,
    /// What a renewing guard does without the API server.
    pub on_api_loss: OnApiLoss,
    /// Class of the volume's driver, in place of what the operator's settings say.
    pub driver_class: Option<DriverClass>,
}

impl Failover {
    pub(super) fn parse(spec: &FailoverSpec) -> Result<Self, Invalid> {
        let FailoverSpec {
            guard,
            proof,
            lease,
            renew_seconds,
            stop_after_seconds,
            takeover_after_seconds,
            on_api_loss,
            driver_class,
        } = *spec;
        let failover = Self {
            guard: guard.unwrap_or_default(),
            proof: proof.unwrap_or_default(),
            lease: lease.unwrap_or_default(),
            renew_seconds: seconds("renewSeconds", renew_seconds, RENEW_SECONDS, 1, 60)?,
            stop_after_seconds: seconds("stopAfterSeconds", stop_after_seconds, STOP_AFTER_SECONDS, 3, 600)?,
            takeover_after_seconds: seconds(
                "takeoverAfterSeconds",
                takeover_after_seconds,
                TAKEOVER_AFTER_SECONDS,
                6,
                900,
            )?,
            on_api_loss: on_api_loss.unwrap_or_default(),
            driver_class,
        };
        failover.check()?;
        Ok(failover)
    }

    /// What the schema's rules say, once more: a resource may have been stored before they existed.
    fn check(&self) -> Result<(), Invalid> {
        let renewing = self.guard == Guard::Enabled && self.lease != LeaseRenewal::Never;
        if 101 * self.stop_after_seconds + 200 > 99 * self.takeover_after_seconds {
            return Err(Invalid::new(
                "spec.failover.takeoverAfterSeconds",
                "must outlast stopAfterSeconds by 2 seconds and 2 %: raise it, or lower stopAfterSeconds",
            ));
        }
        if 3 * self.renew_seconds > self.stop_after_seconds {
            return Err(Invalid::new(
                "spec.failover.renewSeconds",
                "must be at most a third of stopAfterSeconds: lower it, or raise stopAfterSeconds",
            ));
        }
        if self.proof == Proof::Lease && !renewing {
            return Err(Invalid::new(
                "spec.failover.proof",
                "Lease needs a guard that renews: set guard to Enabled and lease to Auto or Always, or choose another proof",
            ));
        }
        if self.proof == Proof::Lease && self.on_api_loss == OnApiLoss::Continue {
            return Err(Invalid::new(
                "spec.failover.onApiLoss",
                "Continue makes proof Lease worthless: set it to Stop or Auto, or choose another proof",
            ));
        }
        if self.lease == LeaseRenewal::Always && self.guard == Guard::Disabled {
            return Err(Invalid::new(
                "spec.failover.lease",
                "Always needs a guard that renews: set guard to Enabled, or lease to Auto or Never",
            ));
        }
        if self.on_api_loss == OnApiLoss::Stop && !renewing {
            return Err(Invalid::new(
                "spec.failover.onApiLoss",
                "Stop needs a guard that renews: set guard to Enabled and lease to Auto or Always, or onApiLoss to Auto",
            ));
        }
        Ok(())
    }
}

fn seconds(field: &str, given: Option<i32>, default: i32, least: i32, most: i32) -> Result<u32, Invalid> {
    let seconds = given.unwrap_or(default);
    u32::try_from(seconds)
        .ok()
        .filter(|_| (least..=most).contains(&seconds))
        .ok_or_else(|| {
            Invalid::new(
                format!("spec.failover.{field}"),
                format!("must be between {least} and {most}: choose such a number, or remove it for {default}"),
            )
        })
}
