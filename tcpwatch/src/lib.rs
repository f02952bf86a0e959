//! The library of tcpwatch.
pub mod host;
pub mod cli;
pub mod decode;
pub mod diagnose;
pub mod event;
pub mod kernel;
pub mod source;
pub mod sink;
