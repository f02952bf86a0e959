//! Where things are: the checkout, its target folder, the programs of this machine.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cmd;

/// The root of the checkout. Cargo tells where `xtask` lies when it runs it; a binary started by hand knows where it was built.
pub(crate) fn root() -> PathBuf {
    let xtask =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    xtask.parent().map_or_else(|| xtask.clone(), Path::to_path_buf)
}

/// `cargo`, the one that started us, run in the checkout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What cargo told about xtask must not reach the build of other crates: build scripts would run again and again.
    for (name, _) in env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    command
}

/// `cargo test` of all that is of this machine. What else needs a debug build says so in the same words: cargo gives a crate that is
/// selected alone other features, and builds most of what it depends on anew.
pub(crate) fn cargo_test() -> Command {
    let mut command = cargo();
    command.args(["test", "--workspace", "--exclude=tcpwatch-ebpf"]);
    command
}

/// The target folder as cargo sees it: `CARGO_TARGET_DIR` and `.cargo/config.toml` both count.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let json = cmd::output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&json).context("cannot read what `cargo metadata` printed")?;
    let dir = metadata["target_directory"].as_str().context("`cargo metadata` names no target_directory")?;
    Ok(dir.into())
}

/// Where `cargo xtask dist` puts the static binaries.
pub(crate) fn dist_dir() -> Result<PathBuf> {
    Ok(target_dir()?.join("dist"))
}

/// The first program of that name on the PATH, or in the folders an ordinary user's PATH lacks.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_bin = home().map(|home| home.join(".cargo/bin"));
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .chain(cargo_bin)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

pub(crate) fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}

/// Whether we are root: the owner of our own entry in /proc is the effective user.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|of| of.uid() == 0)
}
