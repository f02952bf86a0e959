//! The package as its users have it: installed in a Debian with systemd, run, upgraded, purged.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::report::{self, Column, Tally};
use crate::dist::Packages;
use crate::vm::{self, Choice, Guest, Kernel, system};
use crate::{cmd, repo};

/// Without `--kernel`: what the package does is systemd's business more than the kernel's, so not all of the matrix.
pub(super) const KERNELS: &[&str] = &["6.1", "6.12"];

const RUNG: &str = "package";

/// Several times what it takes.
const TIMEOUT: Duration = Duration::from_secs(10 * 60);

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/test/package.sh");

/// The packages were made; Debian's own judge of packages and a reader of images look at them where they are installed. What they would
/// find is not left to them: unit tests read what is made, and guests install it.
pub(super) fn inspected(packages: &Packages) -> Result<Tally> {
    let mut tally = Tally::one(true);
    let image = format!("oci:{}", packages.image.display());
    let deb = packages.deb.display().to_string();
    for (tool, args) in [
        ("lintian", ["--allow-root", "--fail-on=error,warning", deb.as_str()].as_slice()),
        ("skopeo", &["inspect", image.as_str()]),
    ] {
        match repo::which(tool) {
            Some(path) => {
                let done = cmd::quiet(Command::new(path).args(args));
                tally += Tally::one(done.is_ok());
                match done {
                    Ok(()) => println!("{tool} finds nothing wrong"),
                    Err(error) => eprintln!("error: {error:#}"),
                }
            }
            None => println!("({tool} is not on this machine, so it did not look at them)"),
        }
    }
    Ok(tally)
}

/// A column for each kernel.
pub(super) fn in_guests(deb: &Path, choice: &Choice, jobs: usize) -> Result<Vec<Column>> {
    let disk = system::get(choice.refresh())?;
    let kernels = choice.or(KERNELS).each();
    let done = Mutex::new(Vec::new());
    vm::each(&kernels, jobs, |(name, kernel)| {
        let started = Instant::now();
        let (release, lines) = match kernel {
            Ok(kernel) => in_guest(kernel, deb, &disk),
            Err(error) => (String::new(), Err(format!("{error:#}"))),
        };
        if let Err(error) = &lines {
            eprintln!("error: {name} {RUNG}: {error}");
        }
        let seconds = started.elapsed().as_secs_f64();
        let column = Column { kernel: name.clone(), release, rung: RUNG, lines, seconds };
        println!("{:>14} | # {}: {} in {seconds:.0} s", column.title(), column.release, column.tally());
        done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(column);
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|column| kernels.iter().position(|(name, _)| *name == column.kernel));
    Ok(done)
}

fn in_guest(kernel: &Kernel, deb: &Path, disk: &Path) -> (String, Result<Vec<report::Line>, String>) {
    let title = format!("{} {RUNG}", kernel.name);
    let guest = Guest::new(kernel)
        .system(disk)
        .file(deb, "/etc/vm/tcpwatch.deb")
        .file(Path::new(SCRIPT), "/etc/vm/package.sh")
        .each_line(|line| println!("{title:>14} | {line}"));
    match guest.run("bash /etc/vm/package.sh", TIMEOUT) {
        Ok(output) => {
            let lines = report::scenarios(&output.stdout, 1)
                .with_context(|| format!("exit status {} after {:.0} s", output.status, output.seconds));
            (output.release, lines.map_err(|error| format!("{error:#}")))
        }
        Err(error) => (kernel.release.clone(), Err(format!("{error:#}"))),
    }
}
