//! The words of the machine that figures were taken on.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::data::Machine;
use crate::{cmd, repo};

/// What this machine says of itself.
pub(super) fn look() -> Result<Machine> {
    let read = |file: &str| fs::read_to_string(file).with_context(|| format!("cannot read {file}"));
    let cpuinfo = read("/proc/cpuinfo")?;
    let meminfo = read("/proc/meminfo")?;
    let memory =
        field(&meminfo, "MemTotal").and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    let mut git = Command::new("git");
    git.current_dir(repo::root());
    let changed = cmd::output(Command::new("git").current_dir(repo::root()).args([
        "status",
        "--porcelain",
        "--",
        ":!docs/performance.md",
    ]));
    let commit =
        cmd::output(git.args(["rev-parse", "--short=12", "HEAD"])).unwrap_or_default().trim().to_owned();
    let changed = changed.is_ok_and(|text| !text.trim().is_empty());
    Ok(Machine {
        date: cmd::output(Command::new("date").args(["-u", "+%F %H:%M UTC"]))?.trim().to_owned(),
        cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
        cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        memory_mb: memory.context("/proc/meminfo has no MemTotal")? / 1024,
        system: system(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        hypervisor: hypervisor(&cpuinfo),
        commit: if changed { format!("{commit}, changed") } else { commit },
    })
}

/// The value of the first line `NAME : VALUE`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn system(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or("unknown", |name| name.trim_matches('"')).to_owned()
}

fn hypervisor(cpuinfo: &str) -> Option<String> {
    let virtual_one = field(cpuinfo, "flags")?.split(' ').any(|flag| flag == "hypervisor");
    let kvm = || cmd::output(Command::new("systemd-detect-virt").arg("--vm")).ok();
    virtual_one.then(|| kvm().map_or_else(|| "a hypervisor".to_owned(), |name| name.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 207\nmodel name\t: Intel(R) Xeon(R) Processor\nflags\t\t: fpu vme\n";
        assert_eq!(field(text, "model name"), Some("Intel(R) Xeon(R) Processor"));
        assert_eq!(field(text, "model"), Some("207"));
        assert_eq!(hypervisor(text), None);
        assert_eq!(system("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
    }

    #[test]
    fn this_machine_has_a_name() {
        let machine = look().unwrap();
        assert!(machine.cores > 0 && machine.memory_mb > 0 && !machine.kernel.is_empty());
    }
}
