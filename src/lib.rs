//! The operator's parts. `main` wires them together; see each module for what it may and may not do.

// tests may look at the clock
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod api;
pub mod apply;
pub mod cluster;
pub mod context;
pub mod controller;
pub mod desired;
pub mod drift;
pub mod driver_class;
pub mod engine_passwords;
pub mod error;
pub mod events;
pub mod failover;
pub mod guard;
pub mod health;
pub mod heartbeats;
pub mod instance;
pub mod leader;
pub mod lease;
pub mod login;
pub mod logins;
pub mod metrics;
pub mod observe;
pub mod operator;
pub mod password;
pub mod plan;
pub mod readable;
pub mod report;
pub mod rules;
pub mod scene;
pub mod settings;
pub mod space;
pub mod status;
pub mod telemetry;
pub mod text;
pub mod watch;
pub mod world;
