//! What the guard hears, what it knows and what it does, as plain data; [`super::rules`] lead from one to the other.

use std::time::Duration;

use crate::lease::{Orders, Promise, Whose};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Nothing but time.
    Tick,
    /// The Lease was read.
    Read(Seen),
    /// A write succeeded.
    Written,
    /// A write met a Lease that had changed; nothing was written.
    Conflict,
    /// No answer, a refusal (also 401 and 403), or no Lease: it is not known whether a write took place.
    Away,
    /// The engine answered a probe.
    Answered,
    /// The engine did not answer a probe.
    Silent,
    /// The engine has ended, and all its processes with it.
    Exited,
    /// SIGTERM.
    Terminate,
}

/// The Lease as this guard sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Whose it is.
    pub whose: Whose,
    /// Its epoch.
    pub epoch: i32,
    /// What is asked of the holder.
    pub orders: Orders,
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read the Lease.
    Read,
    /// Change the Lease as it was read last.
    Write(Change),
    /// Start the engine.
    Start,
    /// SIGKILL the engine and wait for its end; it is started again.
    KillEngine,
    /// SIGTERM to every process.
    Forward,
    /// SIGKILL what was started beside the engine and wait for its end; then flush the volume.
    Sync,
    /// SIGKILL everything at once, flush the volume, and exit as failed.
    KillAll,
    /// Exit as succeeded.
    Exit,
}

/// A change of the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Take it; the epoch rises above both the one read and the one known.
    Take {
        /// The highest epoch this guard knows.
        known: i32,
        /// What is promised from now on.
        promise: Option<Promise>,
    },
    /// Renew it.
    Renew {
        /// What is promised from now on.
        promise: Option<Promise>,
    },
    /// Acknowledge the end.
    Stopped,
}

/// The guard. Plain data, so that a model can compare and store it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    /// Where it stands with the Lease.
    pub tenure: Tenure,
    /// Where it stands with its engine.
    pub engine: Engine,
    /// The request that has no answer yet.
    pub request: Option<Request>,
    /// When the next request is due.
    pub next_request: Duration,
    /// When the last successful write was sent; counted from the first attempt until there is one.
    pub last_ok: Duration,
    /// A promise of any kind may stand on the Lease.
    pub promised: bool,
    /// The strictest promise to stop that may stand on the Lease.
    pub stops_after: Option<Duration>,
    /// Orders as last read.
    pub orders: Orders,
    /// Epoch of the last take that is known to have succeeded, or the highest one read.
    pub epoch: i32,
    /// The last sign of life of the engine, or the time of its first start.
    pub last_sign: Duration,
    /// Times in a row that the engine ended by itself.
    pub ends: u8,
}

/// Where the guard stands with the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tenure {
    /// Not won yet: nothing may run.
    Waiting,
    /// Won.
    Holding,
    /// SIGTERM came; the engine is being stopped in order.
    Stopping,
    /// The engine has ended in order; the acknowledgement is written until then.
    Acknowledging {
        /// When the guard ends without it.
        until: Duration,
    },
    /// Over.
    Ended,
}

/// Where the guard stands with its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Not running.
    None,
    /// Ended by itself; to be started again then.
    Pausing {
        /// When.
        until: Duration,
    },
    /// Started, has not answered yet.
    Starting,
    /// Has answered.
    Answering {
        /// When it began to.
        since: Duration,
        /// Failed probes since the last answer.
        failed: u8,
    },
    /// Killed, has not ended yet.
    Dying {
        /// When it was killed.
        since: Duration,
    },
}

/// A request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// A write, or a read if there is none.
    pub change: Option<Change>,
    /// When it was sent.
    pub sent: Duration,
}
