//! The library of tcpwatch.
pub mod host;
