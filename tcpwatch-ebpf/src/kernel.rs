//! Reading the kernel: the only place that does.

pub mod config;
pub mod field;
pub mod skb;
pub mod sock;
pub mod task;
