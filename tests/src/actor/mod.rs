//! Actors: real processes of their own that do to sockets what a scenario tells them.
//!
//! Client and server must not be one process. A tracer that prints the task that happens to run would look
//! right all the time if there was only one task to run. Every actor therefore is its own process with its
//! own name, driven over a message channel by the thread that plays the scenario.

pub mod child;
mod handle;
pub mod proto;

pub use handle::Actor;
