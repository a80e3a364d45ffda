//! The failover protocol as a model: guard, Lease, operators, kubelets, attach-detach controller, scheduler and storage, with the decisions
//! that production takes (`failover::decide`, `guard::rules`) in their place. `tests/protocol.rs` explores it.
//!
//! What is asked: no engine can write once another one has begun to, nothing that serves is moved or killed without need, and something always
//! happens next until the database serves or is held with a reason. That no commit is lost is no property of its own: there is one volume, so a
//! commit can be lost only to an engine that still writes (or acknowledges what it believes to have written) after the next one has read the volume,
//! which is the first property, or to storage that forgets what it has flushed, which nothing above it can mend. The oracle looks for lost rows all the
//! same, in every test of the real cluster.

pub mod checker;
pub mod cluster;
pub mod faults;
pub mod guards;
pub mod operators;
pub mod scenario;
pub mod scenarios;
pub mod sight;
pub mod system;
pub mod world;
