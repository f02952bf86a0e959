//! A folder for one run, removed at its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cmd;

/// Whoever runs xtask twice at once has two of them.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// `what` is part of its name.
    pub(crate) fn new(what: &str) -> Result<Self> {
        let made =
            cmd::output(Command::new("mktemp").args(["-d", "-t", &format!("tcpwatch-{what}-XXXXXX")]))?;
        Ok(Self(made.trim_end().into()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
