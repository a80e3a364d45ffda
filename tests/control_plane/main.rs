//! The operator against a real etcd and a real kube-apiserver, with a fault layer below its client.
//!
//! There are no nodes here and no other controllers: `rest` plays them, one explicit step at a time, so that worlds can be generated and
//! every interleaving repeated. After every single write, whoever made it, `invariant` is checked.
//!
//! Needs no root. The programs come from `tests/testbed/tools/build.sh etcd kubernetes`.

mod another_past;
mod chance;
mod guards;
mod invariant;
mod kubelet;
mod mirror;
mod operator;
mod outcome;
mod physics;
mod process;
mod program;
mod rest;
mod rights;
mod server;
mod settle;
mod story;
mod wire;
mod world;

mod acts;
mod bad_input;
mod controls;
mod convergence;
mod crashes;
mod edits;
mod evidence;
mod faults;
mod generated;
mod namespaces;
mod renewals;
mod replicas;
mod second_look;
mod set_back;
mod staleness;
mod two_builds;
mod unreadable;
mod walks;
