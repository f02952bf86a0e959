//! `cargo xtask vm`: a command on real kernels, each booted in QEMU with this machine's tools and the static binaries.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{cmd, repo};

mod cpio;
mod debian;
mod initramfs;
mod kernels;
mod modules;
pub(crate) mod programs;
mod qemu;
pub(crate) mod system;

pub(crate) use kernels::Kernel;
pub(crate) use qemu::Guest;

/// Which kernels.
#[derive(clap::Args, Clone)]
pub(crate) struct Choice {
    /// Kernels of the matrix, fetched from Debian once: 5.10, 6.1, 6.12, 6.18, newest [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    kernel: Vec<String>,
    /// Ask Debian for newer releases of these kernels, and of programs, than those in the cache
    #[arg(long)]
    refresh: bool,
    /// Boot this image instead
    #[arg(long, value_name = "FILE", requires = "modules", conflicts_with = "kernel")]
    vmlinuz: Option<PathBuf>,
    /// Its modules: a folder as under /lib/modules, named after the release
    #[arg(long, value_name = "DIR", requires = "vmlinuz")]
    modules: Option<PathBuf>,
}

impl Choice {
    /// Whether what is in the cache is to be fetched anew.
    pub(crate) fn refresh(&self) -> bool {
        self.refresh
    }

    /// Whether a kernel was named.
    pub(crate) fn is_made(&self) -> bool {
        !self.kernel.is_empty() || self.vmlinuz.is_some()
    }

    /// The same, but these kernels where none was named.
    pub(crate) fn or(&self, names: &[&str]) -> Self {
        if self.is_made() {
            return self.clone();
        }
        Self { kernel: names.iter().map(|name| (*name).to_owned()).collect(), ..self.clone() }
    }

    /// The kernels chosen, by name, fetched if need be.
    pub(crate) fn each(&self) -> Vec<(String, Result<Kernel>)> {
        if let (Some(vmlinuz), Some(modules)) = (&self.vmlinuz, &self.modules) {
            return vec![(vmlinuz.display().to_string(), Kernel::own(vmlinuz, modules))];
        }
        let names = if self.kernel.is_empty() { kernels::all() } else { self.kernel.clone() };
        names.into_iter().map(|name| (name.clone(), Kernel::get(&name, self.refresh))).collect()
    }
}

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    choice: Choice,
    /// How many guests run at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Seconds until a guest is given up
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    timeout: u64,
    /// Take a file along, with the libraries it is linked to; without GUEST it goes to /bin
    #[arg(long, value_name = "HERE[:GUEST]")]
    file: Vec<String>,
    /// Take nginx and redis along, as Debian ships them, under /programs
    #[arg(long)]
    programs: bool,
    /// Take Prometheus along, as Debian ships it, under /prometheus
    #[arg(long)]
    prometheus: bool,
    /// Copy what the command leaves in the guest's /out to DIR/KERNEL
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A shell on the console of the first kernel instead of a command
    #[arg(long)]
    shell: bool,
    /// What to run: one word is a line for the shell, several are a command with its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let command = match args.command.as_slice() {
        [] if args.shell => String::new(),
        [] => bail!("nothing to run\nhint: `cargo xtask vm -- uname -a`, or --shell"),
        [line] => line.clone(),
        words => words.iter().map(|word| cmd::quote(word)).collect::<Vec<_>>().join(" "),
    };
    let mut files = binaries()?;
    for file in &args.file {
        let (here, there) = file.split_once(':').unwrap_or((file, ""));
        let here = PathBuf::from(here);
        let name =
            here.file_name().with_context(|| format!("--file {file} names no file"))?.to_string_lossy();
        let there = if there.is_empty() { format!("/bin/{name}") } else { there.to_owned() };
        files.push((here.clone(), there));
    }
    let mut trees = Vec::new();
    for (wanted, set, there) in [
        (args.programs, programs::INCIDENTS, programs::IN_GUEST),
        (args.prometheus, programs::PROMETHEUS, programs::PROMETHEUS_IN_GUEST),
    ] {
        if wanted {
            trees.push((programs::get(set, args.choice.refresh)?, there));
        }
    }
    let kernels = args.choice.each().into_iter().map(|(_, kernel)| kernel).collect::<Result<Vec<_>>>()?;
    if args.shell {
        let kernel = kernels.first().context("no kernel chosen")?;
        return guest(kernel, &files, &trees).shell();
    }
    let several = kernels.len() > 1;
    let failed = AtomicUsize::new(0);
    each(&kernels, args.jobs, |kernel| {
        let tag = if several { format!("{:>6} | ", kernel.name) } else { String::new() };
        let mut guest = guest(kernel, &files, &trees).each_line(|line| println!("{tag}{line}"));
        if let Some(dir) = &args.out {
            guest = guest.out(&dir.join(&kernel.name));
        }
        match guest.run(&command, Duration::from_secs(args.timeout)) {
            Ok(done) => {
                println!(
                    "{tag}# {}: exit status {}, booted in {:.1} s, {:.1} s in all",
                    done.release, done.status, done.boot_seconds, done.seconds
                );
                failed.fetch_add(usize::from(done.status != 0), Ordering::Relaxed);
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    match failed.into_inner() {
        0 => Ok(()),
        count => bail!("failed on {count} of {} kernels", kernels.len()),
    }
}

fn guest<'a>(kernel: &'a Kernel, files: &[(PathBuf, String)], trees: &[(PathBuf, &str)]) -> Guest<'a> {
    let guest = files.iter().fold(Guest::new(kernel), |guest, (here, there)| guest.file(here, there));
    trees.iter().fold(guest, |guest, (dir, there)| guest.tree(dir, there))
}

/// The static binaries that `dist` has built, as far as they are there.
fn binaries() -> Result<Vec<(PathBuf, String)>> {
    let dist = repo::dist_dir()?;
    let names = ["tcpwatch", "tcpwatch-scenario", "tcpwatch-load"];
    Ok(names
        .iter()
        .map(|name| (dist.join(name), format!("/bin/{name}")))
        .filter(|(file, _)| file.exists())
        .collect())
}

/// Does the work for each item, `jobs` at a time, in their order.
pub(crate) fn each<T: Sync>(items: &[T], jobs: usize, work: impl Fn(&T) + Sync) {
    let queue = Mutex::new(items.iter());
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                loop {
                    // A worker that panicked has not broken the queue.
                    let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                    match next {
                        Some(item) => work(item),
                        None => break,
                    }
                }
            });
        }
    });
}
