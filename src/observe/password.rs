//! Reads the password Secret: by name, and not more often than needed. Secrets are never listed or watched.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use crate::context::{Context, Password};
use crate::desired::PASSWORD_KEY;
use crate::error::Result;
use crate::instance::Instance;
use crate::password;
use crate::scene::Login;
use crate::world::{PasswordChange, SecretFacts, World};

/// Keys under which a Secret may hold the password, in order.
const KEYS: [&str; 2] = [PASSWORD_KEY, "SA_PASSWORD"];

/// The facts for the pure modules; the password itself stays in memory.
pub async fn read(context: &Context, instance: &Instance) -> Result<SecretFacts> {
    let cache_key = cache_key(instance);
    if let Some(Password { key, owned, .. }) = context.memory.password(&cache_key, context.timing.resync) {
        return Ok(SecretFacts::Usable { key, owned });
    }
    let Some(secret) = context
        .cluster
        .get::<Secret>(&instance.namespace, &instance.secret_name)
        .await?
    else {
        return Ok(SecretFacts::Missing);
    };
    if instance.secret_is_ours
        && secret.labels().get("app.kubernetes.io/managed-by").map(String::as_str) != Some("sqledge-operator")
    {
        return Ok(SecretFacts::Foreign);
    }
    let keys: Vec<&str> = instance.secret_key.as_deref().map_or(KEYS.to_vec(), |key| vec![key]);
    let data = secret.data.unwrap_or_default();
    let Some((key, bytes)) = keys.iter().find_map(|key| Some((*key, data.get(*key)?))) else {
        return Ok(SecretFacts::NoKey {
            wanted: keys.join(" or "),
        });
    };
    let Ok(value) = String::from_utf8(bytes.0.clone()) else {
        return Ok(SecretFacts::Weak {
            why: "it is not valid UTF-8".into(),
        });
    };
    if let Err(why) = password::check(&value) {
        return Ok(SecretFacts::Weak { why });
    }
    let owned = secret
        .metadata
        .owner_references
        .unwrap_or_default()
        .iter()
        .any(|owner| owner.uid == instance.uid);
    let remembered = Password {
        key: key.to_owned(),
        value,
        owned,
    };
    context.memory.remember_password(&cache_key, remembered);
    Ok(SecretFacts::Usable {
        key: key.to_owned(),
        owned,
    })
}

/// The password that the facts are about, for the login alone.
pub fn usable(context: &Context, world: &World) -> Option<String> {
    let is_usable = matches!(world.secret, SecretFacts::Usable { .. });
    let password = context.memory.password(&cache_key(&world.instance), Duration::MAX);
    password.filter(|_| is_usable).map(|password| password.value)
}

/// Whether the engine is to be given the password that the facts are about: it refuses that one, and the operator knows another one that it had.
pub fn change(context: &Context, world: &World) -> PasswordChange {
    let known = context.logins.passwords();
    let Some(wanted) = usable(context, world).filter(|_| world.scene.login == Login::WrongPassword) else {
        return PasswordChange::None;
    };
    let uid = &world.instance.uid;
    match known.refusal(uid, &wanted) {
        Some(words) => PasswordChange::Refused(words),
        None if known.former(uid, &wanted).is_some() => PasswordChange::Due,
        None => PasswordChange::None,
    }
}

/// Forgets what was read, so that the next pass reads again.
pub fn forget(context: &Context, instance: &Instance) {
    context.memory.forget_password(&cache_key(instance));
}

fn cache_key(instance: &Instance) -> String {
    // a change of the spec makes it read anew
    format!(
        "{}/{}/{:?}/{}",
        instance.uid, instance.secret_name, instance.secret_key, instance.generation
    )
}
