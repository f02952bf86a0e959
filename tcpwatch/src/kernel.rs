//! What the running kernel is: its types, its hooks, its names.

pub mod btf;
pub mod hooks;
pub mod names;
pub mod shape;
pub mod symbols;
