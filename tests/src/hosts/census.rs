//! The census where the kernel does not show its text: it says so, and what to do.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Case, Lab, When, case};
use crate::stage::not_here;

pub(super) const CASES: &[Case] = &[
    case("census-without-rawio", When::Any, without_rawio),
    case("census-masked-kcore", When::Any, masked),
    case("census-not-root", When::Any, not_root),
];

pub(super) const KCORE: &str = "/proc/kcore";

/// Number of CAP_SYS_RAWIO (`include/uapi/linux/capability.h`).
const WITHOUT_RAWIO: &str = "--drop=17";

/// The census is refused, for this reason and with this advice.
pub(super) fn refuses(lab: &Lab, disguise: &[&str], why: &str, hint: &str) -> Result<()> {
    let run = |args: &[&str]| {
        let tool = if disguise.is_empty() { lab.tool(args) } else { lab.odd(disguise, args) };
        let ended = tool.run()?;
        ended.exits(1)?;
        Ok::<_, anyhow::Error>(ended.stdout.join("\n"))
    };
    let page = run(&["doctor", "--census"])?;
    let said = page.lines().any(|line| line.starts_with("Not checked: ") && line.contains(why));
    ensure!(said && page.contains("hint: "), "it says: {page}");
    let json: Value = serde_json::from_str(&run(&["doctor", "--census", "--json"])?).context("no JSON")?;
    ensure!(json["checked"] == false && json["complete"] == false, "as JSON: {json}");
    let advice = json["hint"].as_str().unwrap_or_default();
    ensure!(advice.contains(hint), "its hint is: {advice}");
    Ok(())
}

fn need_kcore() -> Result<()> {
    if std::fs::metadata(KCORE).is_err() { Err(not_here("this kernel has no /proc/kcore")) } else { Ok(()) }
}

fn without_rawio(lab: &Lab) -> Result<()> {
    need_kcore()?;
    refuses(lab, &[WITHOUT_RAWIO], "/proc/kcore cannot be read", "CAP_SYS_RAWIO")
}

/// As containers have it.
fn masked(lab: &Lab) -> Result<()> {
    need_kcore()?;
    let pair = format!("--bind=/dev/null={KCORE}");
    refuses(lab, &[&pair], "/proc/kcore", "container")
}

fn not_root(lab: &Lab) -> Result<()> {
    refuses(lab, &["--uid=65534"], "/proc/k", "root")
}
