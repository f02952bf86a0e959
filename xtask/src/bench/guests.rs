//! The kernels of the test matrix, in QEMU: instructions are translated there and seconds mean nothing, so ratios only.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::data::InGuest;
use super::stats::Spread;
use crate::vm::{Choice, Guest, Kernel};

const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// What is played there, with so many operations.
const WORKLOADS: &[(&str, u32)] = &[("fin", 1000), ("rst", 1000), ("closed-port", 2000)];

const TOOLS: &[&str] = &["tcpwatch --json", "tcpwatch --json --events all"];

/// Of each pair, by what was played and with which tool: ratios of rates, and of the load's CPU.
type Ratios = BTreeMap<(usize, String, String), (Vec<f64>, Vec<f64>)>;

/// Every kernel that was chosen, one after the other: two guests at once would disturb each other.
pub(super) fn measure(choice: &Choice, pairs: usize, tcpwatch: &Path, load: &Path) -> Result<Vec<InGuest>> {
    let mut all = Vec::new();
    for (name, kernel) in choice.each() {
        println!("guest with kernel {name}");
        let kernel = kernel.with_context(|| format!("kernel {name}"))?;
        all.extend(
            one(&kernel, pairs, tcpwatch, load)
                .with_context(|| format!("in the guest with kernel {name}"))?,
        );
    }
    Ok(all)
}

fn one(kernel: &Kernel, pairs: usize, tcpwatch: &Path, load: &Path) -> Result<Vec<InGuest>> {
    let guest = Guest::new(kernel).file(tcpwatch, "/bin/tcpwatch").file(load, "/bin/tcpwatch-load");
    let tools: String = TOOLS.iter().map(|tool| format!(" --tool '{tool}'")).collect();
    let lines: Vec<String> = WORKLOADS
        .iter()
        .map(|(workload, count)| {
            format!(
                "echo '# {workload}'; tcpwatch-load compare {workload} --count {count} --pairs {pairs}{tools}"
            )
        })
        .collect();
    let done = guest.run(&lines.join(" && "), TIMEOUT)?;
    if done.status != 0 {
        bail!("exit status {}:\n{}", done.status, done.stdout);
    }
    read(&kernel.name, &done.release, &done.stdout)
}

/// Reads `# WORKLOAD` and, after it, a line of JSON for each pair.
fn read(kernel: &str, release: &str, text: &str) -> Result<Vec<InGuest>> {
    let mut workload = "";
    // The order of the lines is that of the page.
    let mut ratios = Ratios::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            workload = name;
        } else if line.starts_with('{') {
            let pair: Value = serde_json::from_str(line).with_context(|| format!("no figures: {line}"))?;
            let of = |name: &str| pair[name].as_f64().with_context(|| format!("no {name} in {line}"));
            let tool = pair["tool"].as_str().with_context(|| format!("no tool in {line}"))?;
            let place = WORKLOADS.iter().position(|(name, _)| *name == workload).unwrap_or(WORKLOADS.len());
            let (rates, cpus) = ratios.entry((place, workload.to_owned(), tool.to_owned())).or_default();
            rates.push(of("rate")?);
            cpus.push(of("cpu")?);
        }
    }
    if ratios.len() != WORKLOADS.len() * TOOLS.len() {
        bail!("{} of {} ratios came from the guest", ratios.len(), WORKLOADS.len() * TOOLS.len());
    }
    let spread = |values| Spread::of(values).context("no pair of runs");
    let figures = ratios.into_iter().map(|((_, workload, tool), (rates, cpus))| {
        let (kernel, release) = (kernel.to_owned(), release.to_owned());
        Ok(InGuest { kernel, release, workload, tool, rate: spread(rates)?, cpu: spread(cpus)? })
    });
    figures.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_of_a_guest_are_sorted_by_workload_and_tool() {
        let mut text = "booted\n".to_owned();
        for (workload, _) in WORKLOADS {
            text += &format!("# {workload}\n");
            for (tool, rate) in [(TOOLS[0], 0.9), (TOOLS[1], 0.5), (TOOLS[0], 0.7)] {
                text += &format!("{{\"tool\":\"{tool}\",\"rate\":{rate},\"cpu\":1.5}}\n");
            }
        }
        let all = read("6.12", "6.12.1", &text).unwrap();
        assert_eq!(all.len(), WORKLOADS.len() * TOOLS.len());
        assert_eq!((all[0].workload.as_str(), all[0].tool.as_str()), ("fin", TOOLS[0]));
        assert_eq!((all[0].rate.median, all[0].rate.count, all[0].cpu.median), (0.8, 2, 1.5));
        assert_eq!(all[1].rate.median, 0.5);
    }

    #[test]
    fn a_guest_that_stopped_half_way_has_no_ratios() {
        let text = format!("# fin\n{{\"tool\":\"{}\",\"rate\":1,\"cpu\":1}}\n", TOOLS[0]);
        assert!(read("6.12", "6.12.1", &text).unwrap_err().to_string().contains("1 of 6"));
    }
}
