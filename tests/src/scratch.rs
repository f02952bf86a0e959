//! Files of one suite, gone at its end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A folder that nobody else has.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(suite: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("tcpwatch-{suite}-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, and hands back where it is.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> Result<String> {
        let path = self.0.join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
