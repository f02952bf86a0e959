//! Scenarios that provoke every event on a real kernel and know the truth about it.
//!
//! `scenarios` are the scripts, `stage` is what they play on, `actor` and `raw` are who plays, `expect` is what
//! they know, `judge` compares it with what tcpwatch printed, `run` holds all of it together. `census` looks at the
//! kernel's own text. Suites of their own: `histories` plays random acts of many processes at once, `hosts` tries bad
//! input and bad hosts, `incidents` are whole stories with real programs, `alerts` has a real
//! Prometheus judge the agent. `load` and `cost` are for measuring, and judge nothing.

pub mod actor;
pub mod alerts;
mod captures;
mod census;
pub mod cost;
pub mod counters;
pub mod expect;
pub mod histories;
pub mod hosts;
pub mod incidents;
pub mod judge;
pub mod load;
pub mod net;
pub mod packet;
pub mod raw;
pub mod run;
pub mod scenarios;
mod scratch;
pub mod stage;
pub mod sys;
mod tally;
pub mod watch;
