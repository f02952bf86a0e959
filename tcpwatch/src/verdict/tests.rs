//! Events gathered, and what they come to.
