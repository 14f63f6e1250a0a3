//! Load on any automerge-repo server: many clients in one thread, for `amsync bench`.
//!
//! `LoadDocument` (script) is a document whose changes are all made beforehand; `LoadGenerator`
//! (generator) drives connections (client, socket, wire) whose sessions follow the sync protocol without
//! a document (session), or with the crate's own as a check (real).

mod client;
mod generator;
mod histogram;
mod measured;
mod real;
mod script;
mod session;
mod socket;
mod wire;

pub use generator::LoadGenerator;
pub use measured::LoadFigures;
pub use script::LoadDocument;
