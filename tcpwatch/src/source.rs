//! Where records come from: the live kernel. Everything behind this module runs without one.

mod attach;
mod ladder;
mod live;
mod object;
mod ring;
mod table;
mod types;

pub use live::{Live, Settings, Sizes, Stopped, Storm, TABLE};
