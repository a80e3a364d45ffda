//! The rules of the schema: each is one CEL expression with one sentence that names the field and the next step.
//!
//! The API server evaluates them before anything is stored, so a mistake is reported to the person who makes it. What it
//! cannot evaluate within its cost budget is checked once more in `instance`, where it becomes a condition.
//! Storage settings are fixed only from the moment `status.volume` is set: a claim that never got a volume holds nothing,
//! and a typing error in its class must be correctable by editing the resource.

use kube::core::{Reason, Rule};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use super::{AccessMode, RENEW_SECONDS, STOP_AFTER_SECONDS, TAKEOVER_AFTER_SECONDS};

/// Environment variables of the engine that belong to a field, and that field. `instance` checks the same table.
pub(crate) const RESERVED_ENV: [(&str, &str); 12] = [
    ("ACCEPT_EULA", "spec.acceptEula"),
    ("MSSQL_SA_PASSWORD", "spec.saPasswordSecretRef"),
    ("SA_PASSWORD", "spec.saPasswordSecretRef"),
    ("MSSQL_PID", "spec.edition"),
    ("MSSQL_AGENT_ENABLED", "spec.agent"),
    ("MSSQL_COLLATION", "spec.collation"),
    ("MSSQL_LCID", "spec.lcid"),
    ("TZ", "spec.timeZone"),
    ("MSSQL_TCP_PORT", "spec.service.port"),
    // the probe asks on the loopback address, clients on the pod's
    (
        "MSSQL_IP_ADDRESS",
        "nothing: the engine listens on every address of its pod",
    ),
    // the marker check and the failover rely on where the system databases are
    (
        "MSSQL_MASTER_DATA_FILE",
        "nothing: the file stays in /var/opt/mssql/data",
    ),
    ("SQLEDGE_POD_UID", "nothing: it is the guard's"),
];

/// The schema of `T` without the descriptions inside it: Kubernetes' own texts are 80 % of the definition's size, and the
/// full ones do not fit what `kubectl apply` can store. Numbers get the bounds of their type.
pub(super) fn bare<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    fn tidy(value: &mut Value) {
        match value {
            Value::Object(map) => {
                // a property may be called `description`; only the text is to go
                if map.get("description").is_some_and(Value::is_string) {
                    map.remove("description");
                }
                // the API server takes a format as a remark: it would store what nobody can read
                if map.get("format").is_some_and(|format| format == "int32") {
                    map.entry("minimum").or_insert_with(|| i32::MIN.into());
                    map.entry("maximum").or_insert_with(|| i32::MAX.into());
                }
                map.values_mut().for_each(tidy);
            }
            Value::Array(items) => items.iter_mut().for_each(tidy),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut value = generator.subschema_for::<T>().to_value();
    tidy(&mut value);
    value.try_into().expect("a schema without descriptions is a schema")
}

/// The schema of an enumeration as a plain list of names. The derived one of an `Option` also lists `null`, which the API
/// server then refuses, and it replaces the field's description by the enumeration's.
pub(super) fn enumeration<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let schema = generator.subschema_for::<T>().to_value();
    let names = names(&schema);
    let mut map = Map::new();
    map.insert("type".to_owned(), Value::from("string"));
    map.insert("enum".to_owned(), Value::from(names));
    map.into()
}

/// The names in a derived enumeration, documented variants (`oneOf` with `const`) or not (`enum`).
fn names(schema: &Value) -> Vec<String> {
    let own = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let constant = schema.get("const").into_iter();
    let mut names: Vec<String> = own
        .chain(constant)
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    names.extend(
        schema
            .get("oneOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .flat_map(self::names),
    );
    names
}

/// A short list of access modes; how many there may be is a rule, because the schema's own message says less.
pub(super) fn access_modes(generator: &mut SchemaGenerator) -> Schema {
    let item = enumeration::<AccessMode>(generator);
    json_schema!({ "type": "array", "items": item, "maxItems": 8, "x-kubernetes-list-type": "atomic" })
}

fn rule(expression: impl Into<String>, message: &str) -> Rule {
    Rule::new(expression).message(message).reason(Reason::FieldValueInvalid)
}

fn forbidden(expression: impl Into<String>, message: &str) -> Rule {
    Rule::new(expression)
        .message(message)
        .reason(Reason::FieldValueForbidden)
}

// -- the resource as a whole ------------------------------------------------------------------------------------------

pub(super) fn name_is_a_service_name() -> Rule {
    rule(
        "self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name also names the Service: choose at most 63 lower-case letters, digits and hyphens, beginning with a letter",
    )
}

/// A rule on a setting of the storage that holds once the claim has a volume.
fn fixed_once_bound(setting: &str, unset: &str, message: &str) -> Rule {
    let of = |object: &str| {
        format!(
            "(has({object}.spec.storage) && has({object}.spec.storage.{setting}) ? {object}.spec.storage.{setting} : {unset})"
        )
    };
    forbidden(format!("{} || {} == {}", unbound(), of("self"), of("oldSelf")), message)
        .field_path(format!(".spec.storage.{setting}"))
}

fn unbound() -> &'static str {
    "!has(oldSelf.status) || !has(oldSelf.status.volume)"
}

pub(super) fn storage_class_is_fixed_once_bound() -> Rule {
    fixed_once_bound(
        "storageClassName",
        "''",
        "spec.storage.storageClassName is fixed once the volume exists: put it back, or copy the data into an instance of another name",
    )
}

pub(super) fn access_modes_are_fixed_once_bound() -> Rule {
    fixed_once_bound(
        "accessModes",
        "['ReadWriteOncePod']",
        "spec.storage.accessModes is fixed once the volume exists (unset means ReadWriteOncePod): put it back",
    )
}

pub(super) fn existing_claim_is_fixed_once_bound() -> Rule {
    fixed_once_bound(
        "existingClaim",
        "''",
        "spec.storage.existingClaim is fixed once its volume is in use: put it back, or make an instance of another name for the other claim",
    )
}

pub(super) fn size_only_grows_once_bound() -> Rule {
    let of = |object: &str| {
        format!(
            "quantity(has({object}.spec.storage) && has({object}.spec.storage.size) ? string({object}.spec.storage.size) : '8Gi')"
        )
    };
    forbidden(
        format!("{} || {}.compareTo({}) >= 0", unbound(), of("self"), of("oldSelf")),
        "spec.storage.size may only grow once the volume exists (unset means 8Gi): put it back or choose more",
    )
    .field_path(".spec.storage.size")
}

pub(super) fn load_balancer_class_is_fixed() -> Rule {
    let balanced = |object: &str| {
        format!("(!has({object}.service) || !has({object}.service.type) || {object}.service.type == 'LoadBalancer')")
    };
    let class = |object: &str| {
        format!(
            "(has({object}.service) && has({object}.service.loadBalancerClass) ? {object}.service.loadBalancerClass : '')"
        )
    };
    forbidden(
        format!(
            "!{} || !{} || {} == {}",
            balanced("self"),
            balanced("oldSelf"),
            class("self"),
            class("oldSelf")
        ),
        "spec.service.loadBalancerClass is fixed while the type is LoadBalancer: set spec.service.type to ClusterIP first, then choose the class",
    )
    .field_path(".service.loadBalancerClass")
}

// -- fields -----------------------------------------------------------------------------------------------------------

pub(super) fn eula_is_accepted() -> Rule {
    rule(
        "self",
        "spec.acceptEula must be true: read the licence terms of the engine image, then set it to true",
    )
}

pub(super) fn image_has_no_white_space() -> Rule {
    rule(
        "!self.matches('[[:space:]]')",
        "spec.image contains white space: write one image reference, such as registry/name:tag",
    )
}

/// The memory and CPU of `limits` or `requests`: checking every key would exceed the API server's budget.
fn are_quantities(list: &str) -> Rule {
    let one = |key: &str| format!("(!('{key}' in self.{list}) || isQuantity(string(self.{list}['{key}'])))");
    rule(
        format!("!has(self.{list}) || ({} && {})", one("memory"), one("cpu")),
        &format!("spec.resources.{list} needs quantities: write memory such as 4Gi and cpu such as 2 or 500m"),
    )
    .field_path(format!(".{list}"))
}

pub(super) fn limits_are_quantities() -> Rule {
    are_quantities("limits")
}

pub(super) fn requests_are_quantities() -> Rule {
    are_quantities("requests")
}

pub(super) fn node_failure_is_tolerated_without_limit() -> Rule {
    forbidden(
        "self.all(t, !has(t.tolerationSeconds) || (has(t.key) && t.key != '' && !(t.key in \
         ['node.kubernetes.io/unreachable', 'node.kubernetes.io/not-ready'])))",
        "spec.tolerations must not limit how long a failed node is tolerated: remove tolerationSeconds from that entry, the operator decides when the database moves",
    )
}

pub(super) fn pull_secrets_have_names() -> Rule {
    rule(
        "self.all(s, has(s.name) && s.name != '')",
        "spec.imagePullSecrets needs the name of a Secret in each entry: add the name or remove the entry",
    )
}

pub(super) fn env_leaves_our_variables_alone() -> Rule {
    let names = RESERVED_ENV.map(|(name, _)| format!("'{name}'")).join(", ");
    forbidden(
        format!("self.all(e, !(e.name in [{names}]))"),
        "spec.env must not set a variable that belongs to a field: use acceptEula, saPasswordSecretRef, edition, agent, collation, lcid, timeZone or service.port (the system databases stay in /var/opt/mssql/data)",
    )
}

pub(super) fn size_is_a_quantity() -> Rule {
    // an integer is a valid quantity too, but `isQuantity` takes strings only
    rule(
        "isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0'))",
        "spec.storage.size must be a quantity above 0: write it such as 8Gi",
    )
}

pub(super) fn exactly_one_access_mode() -> Rule {
    rule(
        "self.size() == 1",
        "spec.storage.accessModes needs exactly one mode: ReadWriteOncePod, or ReadWriteOnce where the driver knows no other",
    )
}

pub(super) fn an_existing_claim_stands_alone() -> Rule {
    rule(
        "!has(self.existingClaim) || (!has(self.size) && !has(self.storageClassName) && !has(self.accessModes))",
        "spec.storage.existingClaim excludes size, storageClassName and accessModes: the claim already has them, remove them here",
    )
    .field_path(".existingClaim")
}

const BALANCED: &str = "(!has(self.type) || self.type == 'LoadBalancer')";

pub(super) fn only_a_load_balancer_has_a_class() -> Rule {
    rule(
        format!("!has(self.loadBalancerClass) || {BALANCED}"),
        "spec.service.loadBalancerClass needs type LoadBalancer: change the type or remove the class",
    )
    .field_path(".loadBalancerClass")
}

pub(super) fn only_a_load_balancer_has_source_ranges() -> Rule {
    rule(
        format!("!has(self.loadBalancerSourceRanges) || self.loadBalancerSourceRanges.size() == 0 || {BALANCED}"),
        "spec.service.loadBalancerSourceRanges needs type LoadBalancer: change the type or remove the ranges",
    )
    .field_path(".loadBalancerSourceRanges")
}

pub(super) fn a_cluster_ip_has_no_external_traffic_policy() -> Rule {
    rule(
        "!has(self.externalTrafficPolicy) || !has(self.type) || self.type != 'ClusterIP'",
        "spec.service.externalTrafficPolicy needs type LoadBalancer or NodePort: change the type or remove the policy",
    )
    .field_path(".externalTrafficPolicy")
}

pub(super) fn source_ranges_are_cidrs() -> Rule {
    rule(
        "self.all(r, isCIDR(r))",
        "spec.service.loadBalancerSourceRanges needs CIDR ranges: write them such as 192.0.2.0/24",
    )
}

// -- failover ---------------------------------------------------------------------------------------------------------

/// A number of seconds, with its default where it is unset.
fn seconds(field: &str, default: i32) -> String {
    format!("(has(self.{field}) ? self.{field} : {default})")
}

const GUARDED: &str = "(!has(self.guard) || self.guard == 'Enabled')";

/// The guard measures from before it sends a renewal, the operator from after it has seen one; each by its own clock, of
/// which either may be wrong by 1 %. The two seconds are for killing the engine (1) and as a margin (1).
pub(super) fn takeover_outlasts_the_stop() -> Rule {
    let stop = seconds("stopAfterSeconds", STOP_AFTER_SECONDS);
    let takeover = seconds("takeoverAfterSeconds", TAKEOVER_AFTER_SECONDS);
    rule(
        format!("101 * {stop} + 200 <= 99 * {takeover}"),
        "spec.failover.takeoverAfterSeconds (unset: 15) must outlast stopAfterSeconds (unset: 10) by 2 seconds and 2 %: raise it, or lower stopAfterSeconds",
    )
    .field_path(".takeoverAfterSeconds")
}

pub(super) fn several_renewals_fit_before_the_stop() -> Rule {
    let renew = seconds("renewSeconds", RENEW_SECONDS);
    let stop = seconds("stopAfterSeconds", STOP_AFTER_SECONDS);
    rule(
        format!("3 * {renew} <= {stop}"),
        "spec.failover.renewSeconds (unset: 2) must be at most a third of stopAfterSeconds (unset: 10), so that one lost renewal stops nothing: lower it, or raise stopAfterSeconds",
    )
    .field_path(".renewSeconds")
}

pub(super) fn a_lease_proves_only_what_a_renewing_guard_promises() -> Rule {
    rule(
        format!("!has(self.proof) || self.proof != 'Lease' || ({GUARDED} && (!has(self.lease) || self.lease != 'Never'))"),
        "spec.failover.proof Lease needs a guard that renews: set guard to Enabled and lease to Auto or Always, or choose another proof",
    )
    .field_path(".proof")
}

pub(super) fn a_lease_proves_nothing_about_an_engine_that_continues() -> Rule {
    rule(
        "!has(self.onApiLoss) || self.onApiLoss != 'Continue' || !has(self.proof) || self.proof != 'Lease'",
        "spec.failover.onApiLoss Continue leaves the engine writing when the Lease runs out, which proof Lease takes for a proof: set it to Stop or Auto, or choose another proof",
    )
    .field_path(".onApiLoss")
}

pub(super) fn only_a_guard_renews() -> Rule {
    rule(
        format!("!has(self.lease) || self.lease != 'Always' || {GUARDED}"),
        "spec.failover.lease Always needs a guard that renews: set guard to Enabled, or lease to Auto or Never",
    )
    .field_path(".lease")
}

pub(super) fn only_a_renewing_guard_can_stop() -> Rule {
    rule(
        format!("!has(self.onApiLoss) || self.onApiLoss != 'Stop' || ({GUARDED} && (!has(self.lease) || self.lease != 'Never'))"),
        "spec.failover.onApiLoss Stop needs a guard that renews, because only that one notices: set guard to Enabled and lease to Auto or Always, or onApiLoss to Auto",
    )
    .field_path(".onApiLoss")
}
