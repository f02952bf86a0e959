//! `cargo xtask setup`: what building and testing need beside cargo, checked and, on Debian as root, installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cmd, dist, repo};

/// Something that must be on the machine.
struct Need {
    what: &'static str,
    why: &'static str,
    here: fn() -> bool,
    /// Debian packages that bring it.
    packages: &'static [&'static str],
    /// What to do where these packages do not exist.
    elsewhere: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        what: "a C linker and libc.a",
        why: "cargo links with it, and the binary to ship is static",
        here: || program("cc"),
        packages: &["gcc", "libc6-dev"],
        elsewhere: "a C compiler and the static C library",
    },
    Need {
        what: "rustc with the BPF target",
        why: "compiles the kernel programs",
        here: || bpf_rustc().is_some(),
        // Debian ships `core` for BPF ready-made, so that no nightly compiler is needed.
        packages: &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"],
        elsewhere: "rustup toolchain install nightly --component rust-src",
    },
    Need {
        what: "QEMU for x86-64",
        why: "boots the kernels of the test matrix",
        here: || program("qemu-system-x86_64"),
        packages: &["qemu-system-x86"],
        elsewhere: "qemu-system-x86_64",
    },
    Need {
        what: "a static busybox",
        why: "is the user space of the guests",
        here: || repo::which("busybox").is_some_and(|file| dist::is_static(&file).unwrap_or(false)),
        packages: &["busybox-static"],
        elsewhere: "a busybox that is linked statically",
    },
    Need {
        what: "ip, ss and tc",
        why: "tests make namespaces, links and delays with them",
        here: || ["ip", "ss", "tc"].into_iter().all(program),
        packages: &["iproute2"],
        elsewhere: "iproute2",
    },
    Need {
        what: "nft",
        why: "tests provoke resets by a firewall",
        here: || program("nft"),
        packages: &["nftables"],
        elsewhere: "nftables",
    },
    Need {
        what: "depmod",
        why: "indexes the modules of downloaded kernels",
        here: || program("depmod"),
        packages: &["kmod"],
        elsewhere: "kmod",
    },
    Need {
        what: "tshark",
        why: "reads the captures that tests write",
        here: || program("tshark"),
        packages: &["tshark"],
        elsewhere: "tshark of Wireshark",
    },
    Need {
        what: "mmdebstrap and mke2fs",
        why: "make the Debian in which the package is tried",
        here: || ["mmdebstrap", "mke2fs"].into_iter().all(program),
        packages: &["mmdebstrap", "e2fsprogs"],
        elsewhere: "mmdebstrap, apt and e2fsprogs",
    },
    Need {
        what: "xz and zstd",
        why: "unpack kernel modules",
        here: || ["xz", "zstd"].into_iter().all(program),
        packages: &["xz-utils", "zstd"],
        elsewhere: "xz and zstd",
    },
];

/// Rivals that `cargo xtask bench` measures beside tcpwatch; nothing else needs them.
const BENCH_NEEDS: &[Need] = &[
    Need {
        what: "bpftrace",
        why: "is measured beside tcpwatch",
        here: || program("bpftrace"),
        packages: &["bpftrace"],
        elsewhere: "bpftrace",
    },
    Need {
        what: "tcpstates of libbpf-tools",
        why: "is measured beside tcpwatch",
        here: || program("tcpstates"),
        packages: &["libbpf-tools"],
        elsewhere: "tcpstates of bcc's libbpf-tools",
    },
];

/// The linker for BPF object files; one release for everybody, because its LLVM must read what rustc's wrote.
const BPF_LINKER: &str = "bpf-linker@0.13.0";

/// What Debian's LLVM is called, and what the linker's build wants of it.
const LLVM: &[&str] = &["llvm-22-dev", "libpolly-22-dev"];
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Which compiler for BPF this machine has.
enum BpfRustc {
    Debian,
    Nightly,
}

/// `cargo xtask setup`, with what `bench` is for.
pub(crate) fn main(bench: bool) -> Result<()> {
    let mut missing = ensure()?;
    if bench {
        missing += install(BENCH_NEEDS)?;
    }
    if missing == 0 {
        println!("everything is there");
    }
    Ok(())
}

/// Installs what is missing of what packages alone bring, and hands back how much that was.
fn install(needs: &[Need]) -> Result<usize> {
    let missing: Vec<_> = needs.iter().filter(|need| !(need.here)()).collect();
    if missing.is_empty() {
        return Ok(0);
    }
    announce(&missing);
    let packages: Vec<_> = missing.iter().flat_map(|need| need.packages).copied().collect();
    apt(&packages, &missing)?;
    check_installed(&packages, &missing)?;
    Ok(missing.len())
}

fn announce(missing: &[&Need]) {
    for need in missing {
        println!("missing: {}, which {} (packages: {})", need.what, need.why, need.packages.join(" "));
    }
}

fn check_installed(packages: &[&str], missing: &[&Need]) -> Result<()> {
    let still: Vec<_> = missing.iter().filter(|need| !(need.here)()).map(|need| need.what).collect();
    if !still.is_empty() {
        bail!("installed {}, yet still missing: {}", packages.join(" "), still.join(", "));
    }
    Ok(())
}

/// Installs what is missing and says so; silent if nothing is. Hands back how much was missing.
pub(crate) fn ensure() -> Result<usize> {
    let missing: Vec<_> = NEEDS.iter().filter(|need| !(need.here)()).collect();
    let linker = !bpf_linker_works();
    if missing.is_empty() && !linker {
        return Ok(0);
    }
    announce(&missing);
    if linker {
        println!("missing: bpf-linker, which links the kernel programs ({BPF_LINKER} from cargo)");
    }
    let mut packages: Vec<_> = missing.iter().flat_map(|need| need.packages).copied().collect();
    let nightly = matches!(bpf_rustc(), Some(BpfRustc::Nightly));
    if linker && !nightly && !Path::new(LLVM_PREFIX).join("bin/llvm-config").exists() {
        packages.extend(LLVM);
    }
    if !packages.is_empty() {
        apt(&packages, &missing)?;
    }
    if linker {
        install_linker()?;
    }
    check_installed(&packages, &missing)?;
    if !bpf_linker_works() {
        bail!(
            "installed {BPF_LINKER}, yet `bpf-linker --version` fails\nhint: is cargo's bin folder on the PATH?"
        );
    }
    Ok(missing.len() + usize::from(linker))
}

fn apt(packages: &[&str], missing: &[&Need]) -> Result<()> {
    let list = packages.join(" ");
    if repo::which("apt-get").is_none() {
        let by_hand: Vec<_> = missing.iter().map(|need| format!("  {}", need.elsewhere)).collect();
        bail!(
            "this machine has no apt\nhint: install by hand what `cargo xtask setup` would:\n{}\n  cargo install {BPF_LINKER}",
            by_hand.join("\n")
        );
    }
    if !repo::is_root() {
        bail!("only root can install packages\nhint: sudo apt-get install {list}");
    }
    println!("installing {list}");
    let get = || {
        let mut get = Command::new("apt-get");
        // Somebody else may be installing: wait for them rather than fail.
        get.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "DPkg::Lock::Timeout=600"]);
        get
    };
    // A source of somebody else that is down is no reason to stop; what cannot be had fails below.
    if let Err(error) = cmd::quiet(get().arg("update")) {
        eprintln!("warning: {error:#}");
    }
    let by_hand: Vec<_> = missing.iter().map(|need| need.elsewhere).collect();
    cmd::quiet(get().args(["install", "-y", "--no-install-recommends"]).args(packages)).with_context(|| {
        format!("cannot install the packages\nhint: on a Debian without them: {}", by_hand.join("; "))
    })
}

fn install_linker() -> Result<()> {
    println!("installing {BPF_LINKER} (takes a minute)");
    let mut install = repo::cargo();
    install.args(["install", "--quiet", "--force", BPF_LINKER]).env_remove("CARGO_TARGET_DIR");
    if Path::new(LLVM_PREFIX).exists() && !matches!(bpf_rustc(), Some(BpfRustc::Nightly)) {
        // The binding to LLVM asks for the one variable, the linker's own build for the other.
        install.env("LLVM_SYS_221_PREFIX", LLVM_PREFIX).env("LLVM_PREFIX", LLVM_PREFIX);
        install.args(["--no-default-features", "--features", "llvm-22"]);
    }
    cmd::run(&mut install).context("cannot install bpf-linker")
}

/// It is linked to LLVM, which may have gone: so it must run, not only be there.
fn bpf_linker_works() -> bool {
    repo::which("bpf-linker").is_some_and(|file| cmd::quiet(Command::new(file).arg("--version")).is_ok())
}

fn bpf_rustc() -> Option<BpfRustc> {
    let holds = |dir: &Path, name: &str| {
        fs::read_dir(dir).is_ok_and(|mut all| {
            all.any(|file| file.is_ok_and(|f| f.file_name().to_string_lossy().starts_with(name)))
        })
    };
    if Path::new("/usr/bin/rustc").exists()
        && holds(Path::new("/usr/lib/rustlib/bpfel-unknown-none/lib"), "libcore-")
    {
        return Some(BpfRustc::Debian);
    }
    let toolchains = repo::home()?.join(".rustup/toolchains");
    let nightly = fs::read_dir(toolchains).ok()?.flatten().find(|toolchain| {
        toolchain.file_name().to_string_lossy().starts_with("nightly")
            && toolchain.path().join("lib/rustlib/src/rust/library/core").exists()
    });
    nightly.map(|_| BpfRustc::Nightly)
}

fn program(name: &str) -> bool {
    repo::which(name).is_some()
}
