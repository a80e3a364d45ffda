//! The failover protocol as a model: guard, Lease, operators, kubelets, attach-detach controller, scheduler and storage, with the decisions
//! that production takes (`failover::decide`, `guard::rules`) in their place. `tests/protocol.rs` explores it.

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
