//! Compiles the kernel programs for their own target and leaves the objects where `source/object.rs` embeds them.
//!
//! Two kinds of machines can do it: Debian, whose `rustc-web` brings a compiler with the BPF target's `core` ready made, and
//! any other with a nightly toolchain of rustup that has `rust-src`. Both need `bpf-linker`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";
const OBJECTS: [&str; 2] = ["tcpwatch-ebpf", "tcpwatch-probe"];

/// A compiler that can make BPF objects.
enum Toolchain {
    /// Has `core` for the target; the unstable features that aya-ebpf uses must be unlocked.
    Prebuilt(PathBuf),
    /// Builds `core` itself.
    Nightly { rustc: PathBuf, cargo: PathBuf },
}

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..");
    for path in
        ["tcpwatch-ebpf/src", "tcpwatch-ebpf/Cargo.toml", "tcpwatch-common/src", "Cargo.toml", "Cargo.lock"]
    {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo::rerun-if-env-changed=PATH");
    if let Err(why) = build(&root) {
        println!("cargo::error={why}");
        std::process::exit(1);
    }
}

fn build(root: &Path) -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let linker = find_linker().ok_or(
        "bpf-linker is missing: `cargo xtask setup` installs it, or `cargo install bpf-linker` (it needs LLVM)",
    )?;
    let toolchain = find_toolchain().ok_or(
        "no compiler for BPF: `cargo xtask setup` installs one, or `rustup toolchain install nightly --component rust-src`",
    )?;
    let mut command = match &toolchain {
        Toolchain::Prebuilt(rustc) => {
            let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            command
        }
        Toolchain::Nightly { rustc, cargo } => {
            let mut command = Command::new(cargo);
            command.env("RUSTC", rustc);
            command
        }
    };
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| "x86_64".into());
    let flags = [
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".into(),
        format!("--cfg=bpf_target_arch=\"{arch}\""),
    ];
    command
        .current_dir(root)
        .args(["build", "--package", "tcpwatch-ebpf", "--profile", "bpf", "--target", TARGET, "--target-dir"])
        .arg(out.join("bpf"));
    if matches!(toolchain, Toolchain::Nightly { .. }) {
        command.args(["-Z", "build-std=core"]);
    }
    // What cargo set for this build is not meant for the inner one.
    for name in [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
        "RUSTUP_TOOLCHAIN",
        "CARGO_TARGET_DIR",
    ] {
        command.env_remove(name);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let output =
        command.output().map_err(|error| format!("cannot run cargo for the kernel programs: {error}"))?;
    if !output.status.success() {
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            println!("cargo::warning={line}");
        }
        return Err("the kernel programs do not compile; the compiler's words are above".into());
    }
    for name in OBJECTS {
        let object = out.join("bpf").join(TARGET).join("bpf").join(name);
        strip(&object, &out.join(name))?;
    }
    Ok(())
}

/// Leaves DWARF behind: only the BTF made from it is needed, and it is twenty times the size of the programs. And the line numbers
/// of each instruction, which the loader and the kernel would go through at every start. Without an `objcopy` that knows BPF the
/// object is embedded whole.
fn strip(from: &Path, to: &Path) -> Result<(), String> {
    let stripped = objcopy_candidates().any(|objcopy| {
        Command::new(objcopy)
            .args(["--strip-debug", "--remove-section=.BTF.ext", "--remove-section=.rel.BTF.ext"])
            .args([from, to])
            .output()
            .is_ok_and(|output| output.status.success())
    });
    if !stripped {
        std::fs::copy(from, to).map_err(|error| format!("cannot copy `{}`: {error}", from.display()))?;
    }
    Ok(())
}

fn objcopy_candidates() -> impl Iterator<Item = OsString> {
    let versioned = std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm-"))
        .map(|entry| entry.path().join("bin/llvm-objcopy").into_os_string());
    std::iter::once(OsString::from("llvm-objcopy")).chain(versioned)
}

fn find_linker() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(home()?.join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(home.map(|home| home.join("bin")))
        .map(|folder| folder.join("bpf-linker"))
        .find(|linker| linker.is_file())
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}

fn find_toolchain() -> Option<Toolchain> {
    let debian = PathBuf::from("/usr/bin/rustc");
    if has_core(&debian) {
        return Some(Toolchain::Prebuilt(debian));
    }
    // Asked through rustup and not through `rustc +nightly`, which the variables of this build would redirect.
    let which = |tool: &str| {
        let output = Command::new("rustup").args(["which", "--toolchain", "nightly", tool]).output().ok()?;
        let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        path.is_file().then_some(path)
    };
    let (rustc, cargo) = (which("rustc")?, which("cargo")?);
    let sources = rustc.parent()?.parent()?.join("lib/rustlib/src/rust/library/core/src/lib.rs");
    sources.is_file().then_some(Toolchain::Nightly { rustc, cargo })
}

/// Whether a compiler brings `core` for the BPF target.
fn has_core(rustc: &Path) -> bool {
    let Ok(output) = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output()
    else {
        return false;
    };
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}
