//! Ten thousand resources as nobody would write them, made from the schema itself: each is refused with the field's path, or it is understood.
//! What the API server stores can be read (but for numbers that are almost integers, which nobody writes; `unreadable` is about such).
//!
//! `SQLEDGE_SEED` and `SQLEDGE_RESOURCES` choose the first seed and how many there are.

use std::sync::Mutex;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, NamespaceResourceScope, Status};
use kube::{Client, Resource};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use sqledge_operator::api::{self, SqlEdgeInstance};
use sqledge_operator::desired::{self, Rendering};
use sqledge_operator::instance::Instance;
use sqledge_operator::readable::Readable;

use crate::chance::Chance;
use crate::process::namespaces;
use crate::server::{play, shared};

const NAMESPACE: &str = "generated";
/// Of every hundred at least so many have to be stored, and so many refused, or the generator has lost its way.
const SHARE: usize = 10;

/// What people write, and what they should not.
const WORDS: &[&str] = &[
    "orders",
    "orders-data",
    "registry.example/engine:1",
    "registry.example/engine@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "Europe/Berlin",
    "SQL_Latin1_General_CP1_CI_AS",
    "Developer",
    "disk",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "node.kubernetes.io/unreachable",
    "NoExecute",
    "Exists",
    "Equal",
    "MSSQL_PID",
    "MSSQL_SA_PASSWORD",
    "ACCEPT_EULA",
    "TZ",
    "LC_ALL",
    "10.0.0.0/8",
    "2001:db8::/32",
    "10.0.0.0/33",
    "example.com/balancer",
    "8Gi",
    "100m",
    "1e3",
    "0",
    "-1Gi",
    "8gi",
    "99999999999999999999Gi",
    "0.0000000001",
    "1.5",
    "true",
    "null",
    "",
    " ",
    "-",
    ".",
    "..",
    "../../etc/passwd",
    "a b",
    "A",
    "$(MSSQL_SA_PASSWORD)",
    "${HOME}",
    "{{ .Values }}",
    "'; DROP DATABASE orders; --",
    "line\nbreak",
    "nul\u{0}byte",
    "\u{feff}mark",
    "\u{202e}sredro",
    "größe",
    "数据库",
    "👩‍👩‍👧",
];

const NUMBERS: &[i64] = &[
    0,
    1,
    2,
    5,
    8,
    10,
    15,
    30,
    1033,
    1433,
    10_001,
    65_535,
    65_536,
    86_400,
    86_401,
    -1,
    i32::MAX as i64,
    i32::MIN as i64,
    i32::MAX as i64 + 1,
    i64::MAX,
    i64::MIN,
];

/// How far a resource strays: of a hundred values so many are absurd, and of a hundred fields that may be left out so many are there.
struct Author {
    chance: Chance,
    absurd: usize,
    wordy: usize,
}

impl Author {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let absurd = *chance.one_of(&[0, 0, 1, 3, 20]);
        let wordy = *chance.one_of(&[3, 10, 25, 60]);
        Self { chance, absurd, wordy }
    }

    fn resource(&mut self, schema: &Value) -> DynamicObject {
        let name = if self.chance.percent(90) {
            "orders"
        } else {
            *self.chance.one_of(WORDS)
        };
        let mut spec = self.value(&schema["properties"]["spec"]);
        // without these two nothing else would matter
        if let Some(spec) = spec.as_object_mut().filter(|_| self.absurd < 20) {
            spec.insert("acceptEula".into(), true.into());
            spec.insert("image".into(), "registry.example/engine:1".into());
        }
        let kind = ApiResource::erase::<SqlEdgeInstance>(&());
        DynamicObject::new(name, &kind).data(json!({"spec": spec}))
    }

    /// A value of that type, or one of quite another.
    fn value(&mut self, schema: &Value) -> Value {
        if self.chance.percent(self.absurd) {
            return self.absurdity();
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return if self.chance.percent(50) {
                self.number(schema)
            } else {
                self.text()
            };
        }
        if let Some(choices) = schema["enum"].as_array() {
            return self.chance.one_of(choices).clone();
        }
        match schema["type"].as_str() {
            Some("object") => self.object(schema),
            Some("array") => {
                let many = if self.chance.percent(2) { 200 } else { 4 };
                (0..self.chance.below(many))
                    .map(|_| self.value(&schema["items"]))
                    .collect()
            }
            Some("integer" | "number") => self.number(schema),
            Some("boolean") => self.chance.percent(50).into(),
            _ => self.text(),
        }
    }

    fn object(&mut self, schema: &Value) -> Value {
        let mut object = Map::new();
        let required = |key: &String| {
            schema["required"]
                .as_array()
                .is_some_and(|all| all.iter().any(|it| it == key))
        };
        for (key, of) in schema["properties"].as_object().into_iter().flatten() {
            let wanted = if required(key) { 98 } else { self.wordy };
            if self.chance.percent(wanted) {
                let value = self.value(of);
                object.insert(key.clone(), value);
            }
        }
        let of = &schema["additionalProperties"];
        if of.is_object() {
            for _ in 0..self.chance.below(3) {
                let value = self.value(of);
                object.insert((*self.chance.one_of(WORDS)).to_owned(), value);
            }
        }
        if self.chance.percent(self.absurd) {
            let value = self.absurdity();
            object.insert((*self.chance.one_of(WORDS)).to_owned(), value);
        }
        Value::Object(object)
    }

    fn text(&mut self) -> Value {
        if self.chance.percent(2) {
            return "x"
                .repeat(*self.chance.one_of(&[63, 64, 253, 254, 1025, 70_000]))
                .into();
        }
        (*self.chance.one_of(WORDS)).into()
    }

    fn number(&mut self, schema: &Value) -> Value {
        // written as 1.0
        let bound = |name: &str| schema[name].as_f64()?.to_string().parse::<i64>().ok();
        let (least, most) = (bound("minimum"), bound("maximum"));
        let number = *self.chance.one_of(NUMBERS);
        let fits = least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most);
        if fits || self.chance.percent(self.absurd) {
            return number.into();
        }
        least.unwrap_or(1).into()
    }

    fn absurdity(&mut self) -> Value {
        match self.chance.below(8) {
            0 => Value::Null,
            1 => self.chance.percent(50).into(),
            2 => (*self.chance.one_of(NUMBERS)).into(),
            3 => self
                .chance
                .one_of(&[json!(1.5e300), json!(1e20), json!(2.0), json!(u64::MAX)])
                .clone(),
            4 => json!([]),
            5 => json!({}),
            6 => (0..40).fold(json!("deep"), |inner, _| json!({"orders": [inner]})),
            _ => self.text(),
        }
    }
}

/// What became of the resources.
#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    invalid: usize,
    rendered: usize,
    children_refused: usize,
}

/// Whether the API server would store it; if not, its words, which must name a field.
async fn asked<K>(api: &Api<K>, object: &K, seed: u64) -> Result<K, Box<Status>>
where
    K: Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match api.create(&dry, object).await {
        Ok(stored) => Ok(stored),
        Err(kube::Error::Api(status)) => {
            assert!(
                matches!(status.code, 400 | 422),
                "seed {seed}: neither stored nor refused: {status:?}"
            );
            let causes = status.details.iter().flat_map(|details| &details.causes);
            let fields: Vec<_> = causes.map(|cause| cause.field.as_str()).collect();
            assert!(
                status.code == 400 || !fields.is_empty() && fields.iter().all(|field| !field.is_empty()),
                "seed {seed}: refused without a field: {status:?}"
            );
            Err(status)
        }
        Err(error) => panic!("seed {seed}: {error}"),
    }
}

async fn child<K>(client: &Client, object: Option<K>, seed: u64) -> usize
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    match object {
        Some(object) => usize::from(asked(&api, &object, seed).await.is_err()),
        None => 0,
    }
}

async fn one(client: &Client, schema: &Value, seed: u64, tally: &Mutex<Tally>) {
    let kind = ApiResource::erase::<SqlEdgeInstance>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &kind);
    let count = |which: fn(&mut Tally) -> &mut usize, by: usize| {
        *which(&mut tally.lock().expect("no panic inside")) += by;
    };
    let written = Author::new(seed).resource(schema);
    let Ok(stored) = asked(&api, &written, seed).await else {
        return count(|tally| &mut tally.refused, 1);
    };
    let stored = serde_json::to_value(stored).expect("JSON");
    let read: Readable<SqlEdgeInstance> = serde_json::from_value(stored.clone()).expect("an object");
    let typed = read
        .0
        .unwrap_or_else(|unreadable| panic!("seed {seed}: {} in {stored}", unreadable.error));
    let instance = match Instance::parse(&typed) {
        Ok(instance) => instance,
        Err(invalid) => {
            let known = invalid.field.starts_with("spec.") || invalid.field.starts_with("metadata.");
            assert!(
                known && invalid.message.starts_with(&invalid.field),
                "seed {seed}: {invalid:?}"
            );
            return count(|tally| &mut tally.invalid, 1);
        }
    };
    count(|tally| &mut tally.rendered, 1);
    let rendering = Rendering {
        operator_image: "registry.example/operator:1",
        volume_id: "volume-1",
        secret_key: "MSSQL_SA_PASSWORD",
    };
    let deployment: Deployment = desired::deployment(&instance, &rendering);
    let service: Service = desired::service(&instance);
    let claim: Option<PersistentVolumeClaim> = desired::claim(&instance, "volume-1");
    let refused = child(client, Some(deployment), seed).await
        + child(client, Some(service), seed).await
        + child(client, claim, seed).await;
    count(|tally| &mut tally.children_refused, refused);
}

#[test]
fn ten_thousand_generated_resources_are_refused_with_their_field_or_understood() {
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse::<u64>().ok());
    let first = number("SQLEDGE_SEED").unwrap_or(0);
    let seeds = first..first + number("SQLEDGE_RESOURCES").unwrap_or(10_000);
    let crd = serde_json::to_value(api::crd()).expect("JSON");
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let tally = Mutex::new(Tally::default());
    play(async {
        let client = shared().await.client();
        namespaces(&client, &[NAMESPACE]).await;
        let all = stream::iter(seeds.clone()).map(|seed| one(&client, schema, seed, &tally));
        all.buffer_unordered(8).for_each(|()| async {}).await;
    });
    let tally = tally.into_inner().expect("no panic inside");
    println!("seeds {seeds:?}: {tally:?}");
    let all = usize::try_from(seeds.end - seeds.start).expect("so many");
    let least = all * SHARE / 100;
    assert!(tally.refused >= least && tally.rendered >= least, "{tally:?}");
    // of three children each, the most must be right, or the rendering is wrong
    assert!(tally.children_refused <= tally.rendered, "{tally:?}");
}
