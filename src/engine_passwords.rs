//! Which password of `sa` each engine is known to have, in memory only. What is lost with the process is the power to change it: then a Secret that
//! was changed meanwhile is told to the user.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// By the UID of the resource. Nothing here can be printed.
#[derive(Default)]
pub struct EnginePasswords {
    book: Mutex<HashMap<String, Known>>,
}

#[derive(Default)]
struct Known {
    /// Let the operator in last.
    worked: Option<String>,
    /// The engine may have taken it: there was no answer.
    perhaps: Option<String>,
    /// What the engine would not have, and its words.
    refused: Option<(String, String)>,
}

impl EnginePasswords {
    /// Notes a password with which a login succeeded.
    pub fn worked(&self, instance_uid: &str, password: String) {
        let known = Known {
            worked: Some(password),
            ..Known::default()
        };
        self.lock().insert(instance_uid.to_owned(), known);
    }

    /// The password that the engine has, where it is known and another one is wanted.
    pub fn former(&self, instance_uid: &str, wanted: &str) -> Option<String> {
        let book = self.lock();
        let worked = book.get(instance_uid)?.worked.as_ref();
        worked.filter(|worked| *worked != wanted).cloned()
    }

    /// Notes that the engine refuses to take a password; it is not asked again for the same one.
    pub fn refused(&self, instance_uid: &str, wanted: String, words: String) {
        let mut book = self.lock();
        book.entry(instance_uid.to_owned()).or_default().refused = Some((wanted, words));
    }

    /// What the engine said when it was to take that password.
    pub fn refusal(&self, instance_uid: &str, wanted: &str) -> Option<String> {
        let book = self.lock();
        let (refused, words) = book.get(instance_uid)?.refused.as_ref()?;
        (refused == wanted).then(|| words.clone())
    }

    /// Notes that the engine was to take a password and did not answer.
    pub fn perhaps(&self, instance_uid: &str, wanted: String) {
        self.lock().entry(instance_uid.to_owned()).or_default().perhaps = Some(wanted);
    }

    /// The password that was to be replaced is not the engine's: the one that it may have taken is, or nobody knows.
    pub fn is_another(&self, instance_uid: &str) {
        if let Some(known) = self.lock().get_mut(instance_uid) {
            known.worked = known.perhaps.take();
        }
    }

    /// Drops what belongs to no resource of these UIDs.
    pub fn keep_only(&self, instances: &HashSet<String>) {
        self.lock().retain(|uid, _| instances.contains(uid));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_former_password_is_known_until_another_one_works_and_a_refusal_is_about_one_password() {
        let passwords = EnginePasswords::default();
        assert_eq!(passwords.former("uid", "new"), None, "nothing ever worked");
        passwords.worked("uid", "old".into());
        assert_eq!(passwords.former("uid", "new").as_deref(), Some("old"));
        assert_eq!(
            passwords.former("uid", "old"),
            None,
            "it is not wanted to be another one"
        );
        assert_eq!(passwords.former("another", "new"), None);
        passwords.refused("uid", "new".into(), "too short".into());
        assert_eq!(passwords.refusal("uid", "new").as_deref(), Some("too short"));
        assert_eq!(passwords.refusal("uid", "newer"), None);
        assert_eq!(passwords.former("uid", "newer").as_deref(), Some("old"));
        passwords.worked("uid", "newer".into());
        assert_eq!(
            passwords.refusal("uid", "new"),
            None,
            "what it refused to follow it may take now"
        );
        // one that gave no answer may have been taken
        passwords.perhaps("uid", "newest".into());
        assert_eq!(passwords.former("uid", "wanted").as_deref(), Some("newer"));
        passwords.is_another("uid");
        assert_eq!(passwords.former("uid", "wanted").as_deref(), Some("newest"));
        passwords.is_another("uid");
        assert_eq!(passwords.former("uid", "wanted"), None);
        passwords.worked("uid", "newer".into());
        passwords.keep_only(&HashSet::new());
        assert_eq!(passwords.former("uid", "new"), None);
    }
}
