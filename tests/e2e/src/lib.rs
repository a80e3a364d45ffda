//! The operator on a real cluster: what the demo and the end-to-end tests are written in.
//!
//! Everything goes through the programs a user has: kubectl, helm, the `testbed` and the `oracle`. Nothing here knows how the
//! operator works inside; what it did is read from the API server's audit log and from the storage host's log.

pub mod access;
pub mod clients;
pub mod conditions;
pub mod engines;
pub mod error;
pub mod harness;
pub mod instance;
pub mod lab;
pub mod operator;
pub mod programs;
pub mod rights;
pub mod timeline;
pub mod volume;
pub mod wait;
pub mod watch;

pub use crate::{
    clients::Clients,
    conditions::Conditions,
    error::{Error, Result},
    instance::Instance,
    lab::Lab,
    programs::Programs,
    wait::until,
};
