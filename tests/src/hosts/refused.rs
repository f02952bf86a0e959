//! Where tcpwatch cannot work it says what is missing, what that costs and what to do, and ends.

use anyhow::{Context, Result, ensure};

use super::{Case, Lab, When, case};
use crate::stage::not_here;

pub(super) const CASES: &[Case] = &[
    case("not-root", When::Any, not_root),
    case("no-cap-bpf", When::Any, no_cap_bpf),
    case("no-cap-perfmon", When::Any, no_cap_perfmon),
    case("bad-options", When::Any, bad_options),
    case("bad-btf-file", When::Any, bad_btf_file),
    case("no-btf", When::Any, no_btf),
];

/// Numbers of capabilities (`include/uapi/linux/capability.h`).
const WITHOUT_BPF: &str = "--drop=21,39";
const WITHOUT_PERFMON: &str = "--drop=21,38";

pub(super) const BTF: &str = "/sys/kernel/btf/vmlinux";
pub(super) const BTF_FOLDER: &str = "/sys/kernel/btf";

/// The message stays the same whatever the output is.
fn refuses(lab: &Lab, disguise: &[&str], words: &[&str]) -> Result<()> {
    for args in [&[][..], &["--json"][..], &["trace", "--for", "1s"][..]] {
        let ended = lab.odd(disguise, args).run()?;
        ended.refused(1, words).with_context(|| format!("arguments {args:?}"))?;
    }
    let doctor = lab.odd(disguise, &["doctor"]).run()?;
    doctor.exits(1).context("doctor")?;
    let page = doctor.stdout.join(" ");
    ensure!(page.contains("hint: ") && page.contains("cannot work here"), "doctor says: {page}");
    Ok(())
}

fn not_root(lab: &Lab) -> Result<()> {
    refuses(lab, &["--uid=65534"], &["CAP_BPF and CAP_PERFMON are missing", "nothing can be seen", "setcap"])
}

fn no_cap_bpf(lab: &Lab) -> Result<()> {
    refuses(lab, &[WITHOUT_BPF], &["CAP_BPF is missing", "nothing can be seen", "cap_bpf"])
}

fn no_cap_perfmon(lab: &Lab) -> Result<()> {
    refuses(lab, &[WITHOUT_PERFMON], &["CAP_PERFMON is missing", "nothing can be seen", "cap_perfmon"])
}

/// A pid that nobody has: the highest is 2^22.
const NOBODY: &str = "4194305";

fn bad_options(lab: &Lab) -> Result<()> {
    let bad: &[(&[&str], i32, &str)] = &[
        (&["--no-such-flag"], 2, "--no-such-flag"),
        (&["no-such-command"], 2, "no-such-command"),
        (&["-L", "http"], 2, "http"),
        (&["-L", "65536"], 2, "65536"),
        (&["-D", "0"], 2, "`0`"),
        (&["-D", "-1"], 2, "-1"),
        (&["-L", "1,2,3,4,5,6,7,8,9"], 2, "more than 8 ports"),
        (&["-L", ""], 2, "lport"),
        (&["--for", "soon"], 2, "soon"),
        (&["--for", "0s"], 2, "0s"),
        (&["--for"], 2, "--for"),
        (&["-c", "0"], 2, "0"),
        (&["-4", "-6"], 2, "exclude each other"),
        (&["--events", "lisen"], 2, "lisen"),
        (&["--events", ""], 2, "event"),
        (&["-p", NOBODY], 1, NOBODY),
        (&["-p", "init"], 2, "init"),
        (&["--netns", "no-such-namespace"], 1, "no-such-namespace"),
        (&["--netns", "/no/such/file"], 1, "/no/such/file"),
        (&["--netns", "/proc/self/ns/mnt"], 1, "/proc/self/ns/mnt"),
        (&["--netns", &format!("pid:{NOBODY}")], 1, NOBODY),
        (&["--cgroup", "/no/such/group"], 1, "/no/such/group"),
        (&["--buffer", "3000"], 2, "3000"),
        (&["--buffer", "3M"], 2, "3M"),
        (&["--buffer", "99999999999999999999"], 2, "99999999999999999999"),
        (&["--attach", "magic"], 2, "magic"),
        (&["--color", "blue"], 2, "blue"),
        (&["udp port 53"], 2, "    udp port 53\n    ^^^"),
        (&["host", "10.9.0.1", "port", "80"], 2, "    host 10.9.0.1 port 80\n                  ^^^^"),
        (&["diagnose", "tcp[13]", "&", "4"], 2, "does not look into packets"),
        (&["-L", "80", "doctor"], 2, "the command `doctor`"),
        (&["doctor", "--no-such-flag"], 2, "--no-such-flag"),
    ];
    for (args, code, word) in bad {
        let ended = lab.tool(args).run()?;
        ended.refused(*code, &[word]).with_context(|| format!("arguments {args:?}"))?;
    }
    Ok(())
}

fn bad_btf_file(lab: &Lab) -> Result<()> {
    let good = std::fs::read(BTF).map_err(|_| not_here("this kernel shows no BTF"))?;
    let half = &good[..good.len() / 2];
    let files = [
        ("garbage.btf", b"this is not what you are looking for".repeat(100)),
        ("empty.btf", Vec::new()),
        ("short.btf", good[..20].to_vec()),
        ("half.btf", half.to_vec()),
        ("zero.btf", vec![0; 1 << 16]),
    ];
    let mut paths = vec!["/no/such/file.btf".to_owned(), lab.scratch.path().display().to_string()];
    for (name, content) in files {
        paths.push(lab.scratch.file(name, &content)?);
    }
    // Types, but not those of a kernel: a module's.
    let module = std::fs::read_dir(BTF_FOLDER)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name != "vmlinux"));
    if let Some(module) = module {
        paths.push(module.to_string_lossy().into_owned());
    }
    for path in paths {
        let ended = lab.tool(&["--btf", &path, "--for", "1s"]).run()?;
        ended.refused(1, &[&path]).with_context(|| format!("--btf {path}"))?;
        let doctor = lab.tool(&["doctor", "--btf", &path]).run()?;
        doctor.exits(1).with_context(|| format!("doctor --btf {path}"))?;
        let said = doctor.stdout.join(" ") + &doctor.stderr;
        ensure!(said.contains("hint: "), "doctor --btf {path} says: {said}");
    }
    Ok(())
}

fn no_btf(lab: &Lab) -> Result<()> {
    let cover = format!("--cover={BTF_FOLDER}");
    refuses(lab, &[&cover], &[BTF, "--btf FILE"])?;
    let empty = lab.scratch.file("nothing", b"")?;
    let bind = format!("--bind={empty}={BTF}");
    lab.odd(&[&bind], &[]).run()?.refused(1, &[BTF, "--btf FILE"]).context("an empty file in its place")
}
