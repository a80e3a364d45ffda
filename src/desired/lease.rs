//! The Lease that decides which pod's engine may write, and the orders on it.
//!
//! Only its beginning is stated here. Who holds it changes by compare-and-swap alone, by the operator (which names and
//! seals) and the guard (which takes and renews). The orders stand on it and not in the pod's template: a change of the
//! template would restart the database, and the class of the driver is known only once the claim is bound.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;

use super::owned;
use crate::api::{LeaseRenewal, OnApiLoss, Proof};
use crate::driver_class::DriverClass;
use crate::instance::{Failover, Instance};
use crate::lease::{self, Orders, Record, Renewal};

/// The Lease as it is made; none without a guard. It carries no times: nobody has taken it.
pub fn lease(instance: &Instance, beginning: &Record) -> Option<Lease> {
    instance.is_guarded().then(|| {
        let Record {
            hold,
            epoch,
            promise: _,
            orders,
        } = beginning;
        let mut lease = Lease {
            metadata: owned(instance, &instance.lease_name()),
            spec: None,
        };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(hold.to_string());
        spec.lease_transitions = Some(*epoch);
        orders.write(&mut lease);
        lease
    })
}

/// The orders that follow from the settings and from what a detach of the volume proves.
///
/// | `lease` | class | the guard renews |
/// |---|---|---|
/// | `Always` | any | yes |
/// | `Never` | any | no |
/// | `Auto` | Revoke, Quorum | only if it is told to stop: a detach proves enough |
/// | `Auto` | Local | only if it is told to stop: there is no other node to go to |
/// | `Auto` | Busy, `NeedsFence`, Unknown | yes |
///
/// With proof Lease a guard that renews always stops: what its Lease proves is that it has.
pub fn orders(failover: &Failover, class: DriverClass) -> Orders {
    let needed = !class.detach_is_proof() && class != DriverClass::Local;
    let renews = match failover.lease {
        LeaseRenewal::Always => true,
        LeaseRenewal::Never => false,
        LeaseRenewal::Auto => needed || failover.on_api_loss == OnApiLoss::Stop,
    };
    let continues = match failover.on_api_loss {
        OnApiLoss::Auto => class.detach_is_proof() && failover.proof != Proof::Lease,
        OnApiLoss::Stop => false,
        OnApiLoss::Continue => true,
    };
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Orders {
        renewal: renews.then(|| Renewal {
            every: seconds(failover.renew_seconds),
            stop_after: seconds(failover.stop_after_seconds),
            takeover_after: seconds(failover.takeover_after_seconds),
        }),
        on_api_loss: if continues {
            lease::OnApiLoss::Continue
        } else {
            lease::OnApiLoss::Stop
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::SqlEdgeInstance;

    const CLASSES: [DriverClass; 6] = [
        DriverClass::Revoke,
        DriverClass::Quorum,
        DriverClass::Busy,
        DriverClass::NeedsFence,
        DriverClass::Local,
        DriverClass::Unknown,
    ];

    fn failover(settings: &Value) -> Failover {
        let resource: SqlEdgeInstance = serde_json::from_value(json!({
            "apiVersion": "sqledge.io/v1alpha1",
            "kind": "SqlEdgeInstance",
            "metadata": { "name": "orders", "namespace": "shop", "uid": "u-1" },
            "spec": { "acceptEula": true, "image": "registry.example/engine:1", "failover": settings },
        }))
        .expect("a resource");
        Instance::parse(&resource).expect("valid").failover
    }

    /// For each class: the renewal, and the first letter of what is done without the API server.
    fn table(settings: &Value) -> Vec<(String, char)> {
        let told = |class| {
            let Orders { renewal, on_api_loss } = orders(&failover(settings), class);
            let letter = match on_api_loss {
                lease::OnApiLoss::Stop => 'S',
                lease::OnApiLoss::Continue => 'C',
            };
            (renewal.map(|renewal| renewal.to_string()).unwrap_or_default(), letter)
        };
        CLASSES.map(told).into()
    }

    fn each(renewals: [&str; 6], letters: &str) -> Vec<(String, char)> {
        renewals.map(str::to_owned).into_iter().zip(letters.chars()).collect()
    }

    #[test]
    fn who_renews_and_who_stops_depends_on_the_settings_and_on_the_class() {
        let usual = "2/10/15";
        let all = [usual; 6];
        let none = [""; 6];
        let needed = ["", "", usual, usual, "", usual];
        for (settings, renewals, letters) in [
            (json!({}), needed, "CCSSSS"),
            (json!({ "lease": "Auto", "onApiLoss": "Auto" }), needed, "CCSSSS"),
            (json!({ "lease": "Always" }), all, "CCSSSS"),
            (json!({ "lease": "Never" }), none, "CCSSSS"),
            (json!({ "onApiLoss": "Continue" }), needed, "CCCCCC"),
            (json!({ "onApiLoss": "Stop" }), all, "SSSSSS"),
            (json!({ "lease": "Always", "onApiLoss": "Continue" }), all, "CCCCCC"),
            (json!({ "proof": "Manual" }), needed, "CCSSSS"),
            (json!({ "proof": "Lease" }), needed, "SSSSSS"),
            (json!({ "proof": "Lease", "lease": "Always" }), all, "SSSSSS"),
        ] {
            assert_eq!(table(&settings), each(renewals, letters), "{settings}");
        }
    }

    #[test]
    fn the_times_are_the_users() {
        let fast = json!({ "lease": "Always", "renewSeconds": 1, "stopAfterSeconds": 5, "takeoverAfterSeconds": 8 });
        assert_eq!(table(&fast), each(["1/5/8"; 6], "CCSSSS"));
    }

    #[test]
    fn what_the_settings_allow_is_what_a_guard_takes_for_safe() {
        for (renew, stop, takeover) in [(1, 3, 6), (1, 5, 8), (2, 10, 15), (1, 10, 13), (60, 600, 900)] {
            let settings = json!({ "renewSeconds": renew, "stopAfterSeconds": stop, "takeoverAfterSeconds": takeover });
            let renewal = orders(&failover(&settings), DriverClass::Unknown).renewal;
            assert!(renewal.expect("it renews").is_safe(), "{settings}");
        }
    }
}
