//! BPF programs seen from outside: what those of a process cost, and empty ones as the limit of what any tool can reach.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::sys;

/// What one program did in a span of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    pub name: String,
    pub runs: u64,
    pub ns: u64,
}

/// Reads the programs of a process.
pub(super) struct Meter {
    /// Name and counters so far, by the kernel's number of the program.
    before: BTreeMap<u32, Cost>,
    /// Run times are taken as long as this lives.
    _stats: std::os::fd::OwnedFd,
}

impl Meter {
    pub(super) fn start(pid: u32) -> Result<Self> {
        let stats = sys::enable_bpf_stats().context("switching the run times of BPF programs on")?;
        let before = programs(pid)?;
        if before.is_empty() {
            bail!("process {pid} has no BPF program\nhint: has the tool ended?");
        }
        Ok(Self { before, _stats: stats })
    }

    /// What each has done since the start.
    pub(super) fn read(&self) -> Result<Vec<Cost>> {
        let mut costs = Vec::new();
        for (id, before) in &self.before {
            let now = sys::program_info(*id)
                .with_context(|| format!("reading BPF program {id}"))?
                .with_context(|| format!("the BPF program {} is gone: has the tool ended?", before.name))?;
            costs.push(Cost {
                name: before.name.clone(),
                runs: now.runs - before.runs,
                ns: now.ns - before.ns,
            });
        }
        Ok(costs)
    }
}

/// Programs that a process holds, with what they have done so far.
fn programs(pid: u32) -> Result<BTreeMap<u32, Cost>> {
    let mut all = BTreeMap::new();
    let names = tracepoints(pid)?;
    for id in program_ids(pid)? {
        if let Some(info) = sys::program_info(id).with_context(|| format!("reading BPF program {id}"))? {
            let name = names.get(&id).cloned().unwrap_or(info.name);
            all.insert(id, Cost { name, runs: info.runs, ns: info.ns });
        }
    }
    Ok(all)
}

/// How often the programs of a process have run, all together. They are counted only while run times are taken.
pub(super) fn runs(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for id in program_ids(pid)? {
        sum += sys::program_info(id).context("reading a BPF program")?.map_or(0, |info| info.runs);
    }
    Ok(sum)
}

fn program_ids(pid: u32) -> Result<Vec<u32>> {
    let mut ids: Vec<u32> =
        descriptors(pid)?.iter().filter_map(|text| field(text, "prog_id:")?.parse().ok()).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Full names: the kernel keeps only 15 bytes of a program's own.
fn tracepoints(pid: u32) -> Result<BTreeMap<u32, String>> {
    let named =
        |text: &String| Some((field(text, "prog_id:")?.parse().ok()?, field(text, "tp_name:")?.to_owned()));
    Ok(descriptors(pid)?.iter().filter_map(named).collect())
}

/// What procfs says of each descriptor of a process.
fn descriptors(pid: u32) -> Result<Vec<String>> {
    let dir = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&dir).with_context(|| format!("reading {dir}"))?;
    // One that is closed meanwhile has nothing to say.
    Ok(entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect())
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Holds empty programs on these tracepoints until the end of standard input or a signal.
pub fn hold_empty(tracepoints: &[String]) -> Result<()> {
    let mut held = Vec::new();
    for name in tracepoints {
        held.push(
            sys::empty_program(name).with_context(|| format!("an empty program on the tracepoint {name}"))?,
        );
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready: {} empty programs", held.len())?;
    out.flush()?;
    super::wait_for_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_fdinfo_is_found_by_its_name() {
        let text = "pos:\t0\nlink_type:\traw_tracepoint\nprog_id:\t26\ntp_name:\ttcp_send_reset\n";
        assert_eq!(field(text, "prog_id:"), Some("26"));
        assert_eq!(field(text, "tp_name:"), Some("tcp_send_reset"));
        assert_eq!(field(text, "run_cnt:"), None);
    }

    #[test]
    fn a_process_without_programs_has_none() {
        assert_eq!(program_ids(std::process::id()).unwrap(), Vec::<u32>::new());
    }
}
