//! Where records come from: the live kernel. Everything behind this module runs without one.

mod attach;
mod live;
mod object;

pub use live::{Live, Settings, Sizes, Stopped, TABLE};
