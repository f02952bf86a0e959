//! What a guest boots into: busybox, the network tools of this machine, the modules, the files of the run.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cpio::Cpio;
use super::modules;
use crate::{cmd, repo};

/// Tools that busybox lacks or has in a weaker form. Its shell would run its own `ip` even where a better one is first on the
/// PATH, so the machine's shell goes along too.
const TOOLS: &[&str] = &["ip", "nft", "ss", "tc", "sh"];

/// What the guest does once it is up.
pub(super) enum Task<'a> {
    /// A line for `sh`.
    Command(&'a str),
    /// The same, in the system that comes up from the disk.
    InSystem(&'a str),
    /// A shell on the console.
    Shell,
}

/// The whole archive for one run. `files` and `trees` are pairs of a path here and one in the guest.
pub(super) fn build(
    modules_dir: &Path,
    files: &[(PathBuf, String)],
    trees: &[(PathBuf, String)],
    task: &Task<'_>,
) -> Result<Vec<u8>> {
    let mut cpio = Cpio::default();
    for folder in ["dev", "proc", "sys", "run", "tmp", "root", "out", "etc/vm", "var"] {
        cpio.folder(folder);
    }
    cpio.link("var/run", "/run");
    cpio.device("dev/console", 5, 1);
    cpio.file("init", 0o755, include_bytes!("init.sh"));
    cpio.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    );
    cpio.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n");
    cpio.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n");
    cpio.file("etc/vm/run", 0o644, include_bytes!("run.sh"));
    let mut disk: &[&str] = &[];
    match task {
        Task::Command(line) | Task::InSystem(line) => {
            cpio.file("etc/vm/command", 0o644, format!("{line}\n").as_bytes());
        }
        Task::Shell => cpio.file("etc/vm/shell", 0o644, &[]),
    }
    if matches!(task, Task::InSystem(_)) {
        disk = modules::DISK;
        cpio.file("etc/vm/system", 0o644, &[]);
        cpio.file("etc/vm/vm.service", 0o644, include_bytes!("vm.service"));
    }
    let mut names = String::new();
    for module in modules::load_list(modules_dir, disk)? {
        cpio.file(&format!("lib/modules/{}.ko", module.name), 0o644, &module.elf);
        names.push_str(&module.name);
        names.push(' ');
    }
    cpio.file("etc/vm/modules", 0o644, format!("{names}\n").as_bytes());

    for (here, there) in trees {
        plant(&mut cpio, here, there)?;
    }
    let mut libraries = BTreeSet::new();
    for (here, there) in files {
        add(&mut cpio, here, there, &mut libraries)?;
    }
    for tool in TOOLS {
        let path = repo::which(tool).with_context(|| {
            format!("`{tool}` is not on this machine\nhint: `cargo xtask setup` installs it")
        })?;
        add(&mut cpio, &path, &format!("bin/{tool}"), &mut libraries)?;
    }
    for library in libraries {
        let content = fs::read(&library).with_context(|| format!("cannot read the library {library}"))?;
        cpio.file(&library, 0o755, &content);
    }
    let busybox = busybox()?;
    add(&mut cpio, &busybox, "bin/busybox", &mut BTreeSet::new())?;
    // What is there already wins over busybox's own.
    for applet in cmd::output(Command::new(&busybox).arg("--list"))?.lines() {
        cpio.link(&format!("bin/{applet}"), "busybox");
    }
    Ok(cpio.finish())
}

/// A folder as it is: what lies in it brings its own libraries along.
fn plant(cpio: &mut Cpio, here: &Path, there: &str) -> Result<()> {
    cpio.folder(there);
    for entry in
        fs::read_dir(here).with_context(|| format!("cannot read {} for the guest", here.display()))?
    {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let there = format!("{there}/{name}");
        let about = fs::symlink_metadata(&path)?;
        if about.is_symlink() {
            cpio.link(&there, &fs::read_link(&path)?.to_string_lossy());
        } else if about.is_dir() {
            plant(cpio, &path, &there)?;
        } else {
            let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            cpio.file(&there, about.permissions().mode() & 0o777, &content);
        }
    }
    Ok(())
}

/// One file with its mode, and what the loader will want for it.
fn add(cpio: &mut Cpio, here: &Path, there: &str, libraries: &mut BTreeSet<String>) -> Result<()> {
    let content = fs::read(here).with_context(|| format!("cannot read {} for the guest", here.display()))?;
    let mode = fs::metadata(here)?.permissions().mode() & 0o777;
    cpio.file(there, mode, &content);
    if content.starts_with(b"\x7fELF") {
        // ldd fails on static files, which need nothing.
        if let Ok(said) = cmd::output(Command::new("ldd").arg(here)) {
            libraries.extend(libraries_of(&said));
        }
    }
    Ok(())
}

fn busybox() -> Result<PathBuf> {
    let file = repo::which("busybox")
        .context("`busybox` is not on this machine\nhint: `cargo xtask setup` installs it")?;
    if cmd::output(Command::new("ldd").arg(&file)).is_ok_and(|said| said.contains("=>")) {
        anyhow::bail!(
            "{} is not static, and a guest starts with nothing else\nhint: `cargo xtask setup`",
            file.display()
        );
    }
    Ok(file)
}

/// The paths in what `ldd` printed: `name => path (address)`, and the loader, which stands alone.
fn libraries_of(said: &str) -> impl Iterator<Item = String> {
    said.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(|word| word.trim_end_matches(':').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_prints() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd2a5f2000)\n\
                    \tlibelf.so.1 => /lib/x86_64-linux-gnu/libelf.so.1 (0x00007f3f2a400000)\n\
                    \tlibmissing.so => not found\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f3f2a6b4000)\n";
        let found: Vec<_> = libraries_of(said).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libelf.so.1", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(libraries_of("\tnot a dynamic executable\n").count(), 0);
    }
}
