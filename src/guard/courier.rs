//! The thread that speaks with the API server.
//!
//! A request may hang however short its time limits are, so the thread that must kill in time never makes one itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::alarm::Bell;
use super::api::{Answer, Api};

/// A request.
#[derive(Debug)]
struct Order {
    write: Option<Value>,
    within: Duration,
}

/// Carries one request at a time.
#[derive(Debug)]
pub struct Courier {
    orders: SyncSender<Order>,
    answers: Receiver<Answer>,
}

impl Courier {
    /// Starts the thread.
    pub fn start(mut api: Api, bell: Bell) -> Self {
        let (orders, todo) = sync_channel::<Order>(1);
        let (done, answers) = sync_channel(1);
        thread::spawn(move || {
            for Order { write, within } in todo {
                // The library starts threads to resolve names, and panics where the pod may have no more of them: a guard
                // that stopped asking for that would never learn that its time is over.
                let exchange = AssertUnwindSafe(|| api.exchange(write.as_ref(), within));
                let answer = catch_unwind(exchange)
                    .unwrap_or_else(|_| Answer::Away("the request could not be made: see above".to_owned()));
                if done.send(answer).is_err() {
                    return;
                }
                bell.ring();
            }
        });
        Self { orders, answers }
    }

    /// Hands a request over: reads the Lease, or writes it as it is given. Only after the answer to the one before.
    pub fn send(&self, write: Option<Value>, within: Duration) {
        self.orders
            .try_send(Order { write, within })
            .expect("one request at a time, and the thread outlives its panics");
    }

    /// The answer, if there is one.
    pub fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    /// Waits for the answer, but no longer than that.
    pub fn wait(&self, within: Duration) -> Option<Answer> {
        self.answers.recv_timeout(within).ok()
    }
}
