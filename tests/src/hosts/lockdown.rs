//! Kernel lockdown. It can be raised and never lowered, so these run last, and on a machine that will be thrown away.

use anyhow::{Context, Result, ensure};

use super::degraded::{nothing_wrong, watch_close_unread};
use super::{Case, Lab, When, attached, case, census, sys};
use crate::stage::not_here;

pub(super) const CASES: &[Case] = &[
    case("lockdown-integrity", When::Last, integrity),
    case("lockdown-confidentiality", When::Last, confidentiality),
];

const FOLDER: &str = "/sys/kernel/security";
const SWITCH: &str = "/sys/kernel/security/lockdown";

fn raise(level: &str) -> Result<()> {
    if std::fs::metadata(SWITCH).is_err() {
        // Without securityfs there is no folder to mount it on either.
        drop(sys::mount_new("securityfs", FOLDER));
    }
    if std::fs::metadata(SWITCH).is_err() {
        return Err(not_here("this kernel has no lockdown"));
    }
    std::fs::write(SWITCH, level).with_context(|| format!("lockdown to {level}"))
}

fn integrity(lab: &Lab) -> Result<()> {
    raise("integrity")?;
    let doctor = lab.doctor(&[])?;
    ensure!(attached(&doctor) == lab.attached, "other hooks than without lockdown: {:?}", attached(&doctor));
    ensure!(doctor.to_string().contains("integrity"), "doctor does not speak of it");
    let (ground, reset, books) = watch_close_unread(lab, &["--drop=99"], &[])?;
    nothing_wrong(&ground, &reset, &books).map(drop)
}

fn confidentiality(lab: &Lab) -> Result<()> {
    raise("confidentiality")?;
    for args in [&[][..], &["--json"], &["--attach", "kprobe"], &["--attach", "tracepoint"]] {
        let ended = lab.tool(args).run()?;
        ended
            .refused(1, &["lockdown", "confidentiality", "lockdown=integrity"])
            .with_context(|| format!("arguments {args:?}"))?;
    }
    if std::fs::metadata(census::KCORE).is_ok() {
        census::refuses(lab, &[], "/proc/kcore cannot be read", "confidentiality").context("census")?;
    }
    let doctor = lab.tool(&["doctor"]).run()?;
    doctor.exits(1).context("doctor")?;
    let page = doctor.stdout.join(" ");
    ensure!(page.contains("confidentiality") && page.contains("cannot work here"), "doctor says: {page}");
    Ok(())
}
