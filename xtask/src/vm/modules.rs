//! Which kernel modules a guest gets, and in which order they load.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cmd;

/// What the scenarios need beside what is built in. A kernel that lacks one simply goes without: the scenario that needs it
/// says so, with more sense than a list here could.
const WANTED: &[&str] = &[
    // Links and queues: namespaces tied by veth, packets written by hand, delay and loss.
    "veth",
    "dummy",
    "tun",
    "bridge",
    "sch_netem",
    "sch_ingress",
    "sch_tbf",
    "cls_u32",
    "cls_matchall",
    "act_mirred",
    "act_gact",
    // Firewalls, who also send resets.
    "nf_tables",
    "nf_conntrack",
    "nft_ct",
    "nft_counter",
    "nft_limit",
    "nft_log",
    "nft_chain_nat",
    "nft_reject",
    "nft_reject_inet",
    "nft_reject_netdev",
    "nft_reject_bridge",
    "nf_reject_ipv4",
    "nf_reject_ipv6",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "ipt_REJECT",
    "ip6t_REJECT",
    "nft_compat",
    "nft_socket",
    "nft_tproxy",
    // What `ss` asks.
    "tcp_diag",
    "inet_diag",
    "mptcp_diag",
    "unix_diag",
    "af_packet",
];

/// What a disk with a file system takes.
pub(super) const DISK: &[&str] = &["virtio_pci", "virtio_blk", "crc32c_generic", "crc32c_intel", "ext4"];

/// A module ready for the guest: its name and its plain ELF bytes.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) elf: Vec<u8>,
}

/// The wanted modules of this release and what they depend on, in an order in which each finds its own already loaded.
/// `more` comes first.
pub(super) fn load_list(dir: &Path, more: &[&str]) -> Result<Vec<Module>> {
    let file = dir.join("modules.dep");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    closure(&text, &[more, WANTED].concat()).into_iter().map(|path| read(dir, &path)).collect()
}

fn read(dir: &Path, path: &str) -> Result<Module> {
    let file = dir.join(path);
    // The guest's busybox may not know the packing that the kernel was shipped with.
    let elf = match path.rsplit('.').next() {
        Some("ko") => fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?,
        Some("xz") => cmd::bytes(Command::new("xz").arg("-dc").arg(&file))?,
        Some("zst") => cmd::bytes(Command::new("zstd").arg("-dcq").arg(&file))?,
        Some("gz") => cmd::bytes(Command::new("gzip").arg("-dc").arg(&file))?,
        _ => bail!("{} is packed in a way unknown here", file.display()),
    };
    Ok(Module { name: name_of(path), elf })
}

/// Files are named with `-` or `_` as their author liked; the kernel knows `_` only.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// The paths of `wanted` and all they depend on, dependencies first, each once.
fn closure(modules_dep: &str, wanted: &[&str]) -> Vec<String> {
    let table: BTreeMap<String, (&str, Vec<&str>)> = modules_dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (name_of(path), (path, needs.split_whitespace().collect())))
        .collect();
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in wanted {
        visit(name, &table, &mut seen, &mut order);
    }
    order
}

fn visit(
    name: &str,
    table: &BTreeMap<String, (&str, Vec<&str>)>,
    seen: &mut BTreeSet<String>,
    order: &mut Vec<String>,
) {
    let Some((path, needs)) = table.get(name) else { return };
    if !seen.insert(name.to_owned()) {
        return;
    }
    for need in needs {
        visit(&name_of(need), table, seen, order);
    }
    order.push((*path).to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/net/netfilter/nft_reject_inet.ko.xz: kernel/net/netfilter/nft_reject.ko.xz kernel/net/netfilter/nf_tables.ko.xz kernel/net/nf-reject-ipv4.ko.xz
kernel/net/netfilter/nft_reject.ko.xz: kernel/net/netfilter/nf_tables.ko.xz
kernel/net/netfilter/nf_tables.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/net/nf-reject-ipv4.ko.xz:
kernel/lib/libcrc32c.ko.xz:
kernel/drivers/net/other.ko.xz: kernel/lib/libcrc32c.ko.xz
";

    #[test]
    fn dependencies_come_first_and_once() {
        let order: Vec<_> = closure(DEP, &["nft_reject_inet", "nf_reject_ipv4", "absent", "nf_tables"]);
        let names: Vec<_> = order.iter().map(|path| name_of(path)).collect();
        assert_eq!(names, ["libcrc32c", "nf_tables", "nft_reject", "nf_reject_ipv4", "nft_reject_inet"]);
    }

    #[test]
    fn a_loop_ends() {
        assert_eq!(closure("a.ko: b.ko\nb.ko: a.ko\n", &["a"]), ["b.ko", "a.ko"]);
    }

    #[test]
    fn names() {
        assert_eq!(name_of("kernel/net/sched/sch-netem.ko.zst"), "sch_netem");
        assert_eq!(name_of("veth.ko"), "veth");
    }
}
