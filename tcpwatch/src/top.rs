//! `tcpwatch top`: a screen that is drawn anew, instead of lines.
//!
//! [`model`] gathers what happened, [`ui`] what was typed, [`view`] draws both; none of them knows a terminal. [`terminal`] does: a
//! thread of its own, so that a terminal that is slow, or stopped, holds up nobody but itself.

mod ladder;
mod model;
mod terminal;
mod ui;
mod view;

pub use terminal::{Screen, TopSink, books};
pub use ui::Look;
