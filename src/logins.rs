//! The operator's logins beside the passes: a login at a dead node ends only by its timeout, and nothing else waits for that.
//! I/O only; when to log in and what a result means is decided elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{mpsc, oneshot};

use crate::api::SqlEdgeInstance;
use crate::engine_passwords::EnginePasswords;
use crate::login::{Attempt, Change, Door, Target};
use crate::settings::{LOGIN_FAILURES, LOGIN_RETRY};
use crate::watch::Triggers;

/// A healthy engine answers well within this, so that the pass that asked can go on with the answer.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// Results that nobody asked about for so long are forgotten.
const KEPT: Duration = Duration::from_secs(3600);

/// The logins under way, and what came of the last ones. What is kept may be lost at any time: that costs another login.
pub struct Logins {
    door: Arc<dyn Door>,
    patience: Duration,
    book: Book,
    passwords: Arc<EnginePasswords>,
    ended: mpsc::UnboundedSender<ObjectRef<SqlEdgeInstance>>,
}

/// By pod and container.
type Book = Arc<Mutex<HashMap<String, Entry>>>;

#[derive(Default)]
struct Entry {
    last: Option<Ended>,
    under_way: bool,
}

/// A login that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// When.
    pub at: Instant,
    /// What came of it. That nobody answered is said only when several attempts in a row say so.
    pub attempt: Attempt,
}

impl Logins {
    /// The logins through a door, each awaited with so much patience, and the stream of instances to be looked at because one of theirs ended
    /// after that.
    pub fn new(door: Arc<dyn Door>, patience: Duration) -> (Self, Triggers) {
        let (ended, receiver) = mpsc::unbounded_channel();
        let triggers = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|instance| (instance, receiver))
        });
        let logins = Self {
            door,
            patience,
            book: Book::default(),
            passwords: Arc::default(),
            ended,
        };
        (logins, triggers.boxed())
    }

    /// The passwords that engines are known to have.
    pub fn passwords(&self) -> &EnginePasswords {
        &self.passwords
    }

    /// What came of the last one.
    pub fn last(&self, key: &str) -> Option<Ended> {
        lock(&self.book).get(key)?.last.clone()
    }

    /// Logs in unless that is under way already; returns when there is a result, or when a dead node would keep the caller waiting. Then
    /// the instance is looked at again as soon as there is one.
    pub async fn log_in(&self, instance: ObjectRef<SqlEdgeInstance>, uid: &str, key: &str, target: Target) {
        let Some(under_way) = self.begin(key) else { return };
        let (answer, answered) = oneshot::channel();
        let (door, ended, passwords) = (self.door.clone(), self.ended.clone(), self.passwords.clone());
        let (uid, password) = (uid.to_owned(), target.password.clone());
        tokio::spawn(async move {
            let attempt = attempt(&*door, target).await;
            if matches!(attempt, Attempt::Succeeded { .. }) {
                passwords.worked(&uid, password);
            }
            tracing::debug!(instance = %instance.name, ?attempt, "login");
            under_way.end(attempt);
            // nobody waits any more
            if answer.send(()).is_err() {
                let _ = ended.send(instance);
            }
        });
        let _ = tokio::time::timeout(self.patience, answered).await;
    }

    /// Gives an engine another password; once it has that, what came of the logins at its pod is forgotten, because the next one is with it.
    pub async fn change_password(&self, pod_uid: &str, target: Target, wanted: String) -> Change {
        let change = self.door.change_password(target, wanted).await;
        if change != Change::Done {
            return change;
        }
        let of_pod = |key: &str| key.split('/').next() == Some(pod_uid);
        for (_, entry) in lock(&self.book).iter_mut().filter(|(key, _)| of_pod(key)) {
            entry.last = None;
        }
        change
    }

    fn begin(&self, key: &str) -> Option<UnderWay> {
        let mut book = lock(&self.book);
        let is_kept = |entry: &Entry| entry.last.as_ref().is_some_and(|last| last.at.elapsed() < KEPT);
        book.retain(|_, entry| entry.under_way || is_kept(entry));
        let entry = book.entry(key.to_owned()).or_default();
        if entry.under_way {
            return None;
        }
        entry.under_way = true;
        Some(UnderWay {
            book: self.book.clone(),
            key: key.to_owned(),
        })
    }

    /// As if all logins so far had been made that much earlier; for tests, which do not wait.
    pub fn age(&self, by: Duration) {
        for entry in lock(&self.book).values_mut() {
            if let Some(last) = &mut entry.last {
                last.at = last.at.checked_sub(by).unwrap_or(last.at);
            }
        }
    }
}

/// Until the answer is written down no other login begins; a task that ends without one gives way to the next.
struct UnderWay {
    book: Book,
    key: String,
}

impl UnderWay {
    #[allow(clippy::disallowed_methods)] // one of the places that may read a clock
    fn end(self, attempt: Attempt) {
        let at = Instant::now();
        if let Some(entry) = lock(&self.book).get_mut(&self.key) {
            entry.last = Some(Ended { at, attempt });
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(entry) = lock(&self.book).get_mut(&self.key) {
            entry.under_way = false;
        }
    }
}

/// Until there is an answer, or none often enough.
async fn attempt(door: &dyn Door, target: Target) -> Attempt {
    let mut attempt = door.login(target.clone()).await;
    for _ in 1..LOGIN_FAILURES {
        if !matches!(attempt, Attempt::NoAnswer(_)) {
            break;
        }
        tokio::time::sleep(LOGIN_RETRY).await;
        attempt = door.login(target.clone()).await;
    }
    attempt
}

fn lock(book: &Book) -> MutexGuard<'_, HashMap<String, Entry>> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::FutureExt as _;
    use futures::future::BoxFuture;

    use super::*;
    use crate::space::Told;

    /// Longer than any answer takes, and shorter than none at all.
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(250);

    /// Answers in this order; then never.
    struct Scripted(Mutex<VecDeque<Attempt>>);

    impl Scripted {
        fn of(attempts: &[Attempt]) -> Arc<Self> {
            Arc::new(Self(Mutex::new(attempts.iter().cloned().collect())))
        }
    }

    impl Door for Scripted {
        fn login(&self, _: Target) -> BoxFuture<'_, Attempt> {
            match self.0.lock().expect("no panic inside").pop_front() {
                Some(attempt) => Box::pin(std::future::ready(attempt)),
                None => Box::pin(std::future::pending()),
            }
        }

        fn change_password(&self, _: Target, _: String) -> BoxFuture<'_, Change> {
            Box::pin(std::future::ready(Change::Done))
        }
    }

    /// An engine that answers when it is told to.
    struct Late(tokio::sync::Notify);

    impl Door for Late {
        fn login(&self, _: Target) -> BoxFuture<'_, Attempt> {
            Box::pin(async {
                self.0.notified().await;
                succeeded()
            })
        }

        fn change_password(&self, _: Target, _: String) -> BoxFuture<'_, Change> {
            Box::pin(std::future::pending())
        }
    }

    fn succeeded() -> Attempt {
        Attempt::Succeeded {
            version: "16.0".into(),
            broken: Vec::new(),
            space: Told::Nothing,
        }
    }

    fn silent(why: &str) -> Attempt {
        Attempt::NoAnswer(why.into())
    }

    async fn ask(logins: &Logins) -> Option<Attempt> {
        let target = Target {
            host: "192.0.2.20".into(),
            port: 1433,
            password: String::new(),
        };
        logins
            .log_in(ObjectRef::new("books").within("shop"), "uid", "pod/c", target)
            .await;
        logins.last("pod/c").map(|last| last.attempt)
    }

    #[tokio::test]
    async fn no_answer_is_believed_only_when_the_next_attempt_has_none_either() {
        let table = [
            (vec![silent("1"), silent("2")], silent("2")),
            (vec![silent("1"), succeeded()], succeeded()),
            (vec![succeeded(), silent("never asked")], succeeded()),
            (vec![Attempt::WrongPassword], Attempt::WrongPassword),
        ];
        for (script, result) in table {
            let (logins, _) = Logins::new(Scripted::of(&script), LONG);
            assert_eq!(ask(&logins).await, Some(result), "{script:?}");
        }
    }

    #[tokio::test]
    async fn an_engine_that_is_slow_keeps_nobody_waiting_and_its_answer_makes_the_instance_looked_at() {
        let door = Arc::new(Late(tokio::sync::Notify::new()));
        let (logins, mut triggers) = Logins::new(door.clone(), SHORT);
        assert_eq!(ask(&logins).await, None);
        assert_eq!(ask(&logins).await, None, "it is under way, so no other one begins");
        assert!(triggers.next().now_or_never().is_none());
        door.0.notify_one();
        assert_eq!(triggers.next().await, Some(ObjectRef::new("books").within("shop")));
        assert!(
            logins.passwords().former("uid", "another").is_some(),
            "a slow login shows the password, too"
        );
        assert_eq!(logins.last("pod/c").map(|last| last.attempt), Some(succeeded()));
        door.0.notify_one();
        assert_eq!(ask(&logins).await, Some(succeeded()));
        assert!(
            triggers.next().now_or_never().is_none(),
            "whoever asked has the answer already"
        );
    }

    #[tokio::test]
    async fn what_came_before_is_known_until_the_next_login_has_ended() {
        let (logins, _) = Logins::new(Scripted::of(&[succeeded()]), SHORT);
        assert_eq!(ask(&logins).await, Some(succeeded()));
        assert_eq!(ask(&logins).await, Some(succeeded()), "the second one hangs");
    }
}
