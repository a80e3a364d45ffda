//! The oracle of every fault test: clients write rows (epoch, seq) through the address of a database and remember what
//! was acknowledged; afterwards the rows are read back and judged.
//!
//! Four questions, each a module, each also a command of the program `oracle`:
//!
//! | question | answered by |
//! |---|---|
//! | what did clients see, attempt by attempt? | [`mod@write`], into a [`log::Log`] |
//! | is every acknowledged row there, once, in order, and from one engine at a time? | [`verify`] |
//! | how long could nobody write? | [`outage`] |
//! | did two nodes write one volume, or one node after it had lost it? | [`writers`] |
//!
//! Nothing here asks Kubernetes or the operator: the oracle judges them.

pub mod client;
pub mod log;
pub mod outage;
pub mod verify;
pub mod write;
pub mod writers;
