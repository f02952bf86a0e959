//! One run of one guest under QEMU, and what came out of it.

use std::env;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::initramfs::{self, Task};
use super::kernels::Kernel;
use crate::scratch::Scratch;
use crate::{cmd, repo};

/// MiB of memory: the scenarios fit with room to spare, and two guests fit on a small machine.
const MEMORY: &str = "1024";

/// How often a guest is begun again that the emulation felled.
const TRIES: u32 = 3;

/// A kernel crashed and the emulation is to blame: see [`is_of_emulation`].
#[derive(Debug)]
struct EmulationCrash(String);

impl fmt::Display for EmulationCrash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EmulationCrash {}

/// What a guest did.
#[derive(Debug)]
pub(crate) struct VmOutput {
    pub(crate) release: String,
    /// Standard output and standard error of the command, as they came.
    pub(crate) stdout: String,
    /// Exit status of the command.
    pub(crate) status: i32,
    /// From power on to the command's start, by the guest's clock.
    pub(crate) boot_seconds: f64,
    /// From QEMU's start to its end, by ours.
    pub(crate) seconds: f64,
}

/// What is done with a line as soon as it comes.
type Show<'a> = Box<dyn Fn(&str) + 'a>;

/// One run: what to boot, what to bring along, what to do with what comes back.
pub(crate) struct Guest<'a> {
    kernel: &'a Kernel,
    files: Vec<(PathBuf, String)>,
    trees: Vec<(PathBuf, String)>,
    out: Option<PathBuf>,
    system: Option<PathBuf>,
    each_line: Option<Show<'a>>,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(kernel: &'a Kernel) -> Self {
        Self { kernel, files: Vec::new(), trees: Vec::new(), out: None, system: None, each_line: None }
    }

    /// Takes a file along, with its mode and the libraries that it is linked to.
    pub(crate) fn file(mut self, here: &Path, there: &str) -> Self {
        self.files.push((here.to_owned(), there.to_owned()));
        self
    }

    /// Takes a folder along as it is, with everything below it.
    pub(crate) fn tree(mut self, here: &Path, there: &str) -> Self {
        self.trees.push((here.to_owned(), there.to_owned()));
        self
    }

    /// What the command leaves in `/out` is unpacked into this folder.
    pub(crate) fn out(mut self, dir: &Path) -> Self {
        self.out = Some(dir.to_owned());
        self
    }

    /// The system on this disk comes up and runs the command, with the files that were taken along under `/etc/vm`. What it
    /// writes to the disk is gone afterwards.
    pub(crate) fn system(mut self, disk: &Path) -> Self {
        self.system = Some(disk.to_owned());
        self
    }

    /// Shows each line of output when it comes.
    pub(crate) fn each_line(mut self, show: impl Fn(&str) + 'a) -> Self {
        self.each_line = Some(Box::new(show));
        self
    }

    /// Boots, runs the line in a shell, and powers off. A kernel that crashes or a guest that does not end is an error;
    /// a command that fails is not: it has a status.
    ///
    /// A guest that software emulation felled is begun again from its start, and that is said.
    pub(crate) fn run(&self, command: &str, timeout: Duration) -> Result<VmOutput> {
        for _ in 1..TRIES {
            match self.boot(command, timeout) {
                Err(error) if error.is::<EmulationCrash>() => {
                    println!("{error}\nthe emulation did that: the guest is begun again");
                }
                outcome => return outcome,
            }
        }
        self.boot(command, timeout)
    }

    fn boot(&self, command: &str, timeout: Duration) -> Result<VmOutput> {
        let scratch = Scratch::new("vm")?;
        let initrd = scratch.path().join("initrd");
        let task = if self.system.is_some() { Task::InSystem(command) } else { Task::Command(command) };
        fs::write(&initrd, self.initramfs(&task)?).context("cannot write the initramfs")?;
        let console = scratch.path().join("console");
        let tar = scratch.path().join("out.tar");
        let started = Instant::now();
        let mut qemu = self.qemu(&initrd)?;
        qemu.arg("-serial").arg(format!("file:{}", console.display()));
        qemu.args(["-serial", "stdio"]);
        qemu.arg("-serial").arg(format!("file:{}", tar.display()));
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Killed(qemu.spawn().with_context(|| format!("cannot start `{}`", cmd::line(&qemu)))?);
        let text = self.listen(&mut child.0, started + timeout, &initrd);
        let complaint = child.finish(text.is_ok());

        let console =
            fs::read(&console).map(|raw| String::from_utf8_lossy(&raw).replace('\r', "")).unwrap_or_default();
        let named = || format!("kernel {} ({})", self.kernel.name, self.kernel.release);
        if let Some(fault) = fault(&console) {
            let story = format!("crashed: {fault}\n{}", tail(&console, 60));
            let begun = !text.as_ref().is_ok_and(|text| !has_begun(text));
            if is_of_emulation(fault, begun, &accel()) {
                return Err(EmulationCrash(format!("{} {story}", named())).into());
            }
            bail!("{} {story}", named());
        }
        let text =
            text.with_context(|| format!("{}: `{command}`\n{}{complaint}", named(), tail(&console, 20)))?;
        let Some(said) = parse(&text) else {
            bail!("{} ended before the command did\n{}{complaint}", named(), tail(&console, 40));
        };
        if let Some(dir) = &self.out {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            if fs::metadata(&tar).is_ok_and(|of| of.len() > 0) {
                cmd::quiet(Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(dir))
                    .with_context(|| format!("{}: the files in /out did not arrive whole", named()))?;
            }
        }
        Ok(VmOutput { seconds: started.elapsed().as_secs_f64(), ..said })
    }

    /// A shell in the guest, on this terminal.
    pub(crate) fn shell(&self) -> Result<()> {
        let scratch = Scratch::new("vm")?;
        let initrd = scratch.path().join("initrd");
        fs::write(&initrd, self.initramfs(&Task::Shell)?).context("cannot write the initramfs")?;
        cmd::run(self.qemu(&initrd)?.args(["-serial", "mon:stdio"]))
    }

    fn initramfs(&self, task: &Task<'_>) -> Result<Vec<u8>> {
        initramfs::build(&self.kernel.modules, &self.files, &self.trees, task)
    }

    fn qemu(&self, initrd: &Path) -> Result<Command> {
        let program = repo::which("qemu-system-x86_64")
            .context("`qemu-system-x86_64` is not on this machine\nhint: `cargo xtask setup` installs it")?;
        let accel = accel();
        // With cmpxchg16b QEMU 7.2 corrupts flags and the guest crashes at random; five-level paging only costs time.
        let cpu = if accel.starts_with("tcg") { "max,-cx16,-la57" } else { "host" };
        // A guest must not outlive a run that was killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command.args(["-accel", &accel, "-cpu", cpu, "-smp", "2", "-m", MEMORY]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(&self.kernel.vmlinuz).arg("-initrd").arg(initrd);
        // A crash ends the guest at once. The CPU's own random numbers are trusted, or 5.10 waits for entropy.
        let line = "console=ttyS0 quiet panic=-1 oops=panic random.trust_cpu=on mitigations=off";
        command.args(["-append", line]);
        if let Some(disk) = &self.system {
            let file = disk.display().to_string().replace(',', ",,");
            command.arg("-drive").arg(format!("file={file},if=virtio,format=raw,snapshot=on"));
        }
        Ok(command)
    }

    /// Reads the data line until the guest says that it is done or the time is over.
    fn listen(&self, child: &mut Child, deadline: Instant, initrd: &Path) -> Result<String> {
        let pipe = child.stdout.take().context("QEMU has no standard output")?;
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut raw = Vec::new();
            while reader.read_until(b'\n', &mut raw).is_ok_and(|length| length > 0) {
                if send.send(String::from_utf8_lossy(&raw).into_owned()).is_err() {
                    break;
                }
                raw.clear();
            }
        });
        let mut text = String::new();
        let mut begun = false;
        // The last line feed before the end marker is not the command's.
        let mut blank = false;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    text.push_str(&line);
                    match marker(line.trim_end()) {
                        Some(("begin", _)) => {
                            begun = true;
                            // The guest has it in memory: if this run is killed, little stays behind.
                            let _ = fs::remove_file(initrd);
                        }
                        Some(("end", _)) => return Ok(text),
                        _ if begun => {
                            if let Some(show) = &self.each_line {
                                let line = line.trim_end_matches('\n');
                                if std::mem::replace(&mut blank, line.is_empty()) {
                                    show("");
                                }
                                if !line.is_empty() {
                                    show(line);
                                }
                            }
                        }
                        _ => {}
                    }
                }
                // QEMU went away: the caller finds out why.
                Err(RecvTimeoutError::Disconnected) => return Ok(text),
                Err(RecvTimeoutError::Timeout) => {
                    let said =
                        if begun { tail(&text, 40) } else { "it never came to the command".to_owned() };
                    bail!("not done in time\n{said}");
                }
            }
        }
    }
}

/// Software emulation works everywhere, in containers and on hosts without nested virtualisation too.
fn accel() -> String {
    env::var("TCPWATCH_VM_ACCEL").unwrap_or_else(|_| "tcg,thread=multi".to_owned())
}

/// A child that does not outlive us.
struct Killed(Child);

impl Killed {
    /// Ends it, after a moment to power off if it is at its end. Hands back what it complained about.
    fn finish(&mut self, done: bool) -> String {
        let patience = Instant::now() + Duration::from_secs(if done { 3 } else { 0 });
        while Instant::now() < patience && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
        let mut said = String::new();
        if let Some(mut pipe) = self.0.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut pipe, &mut said);
        }
        said
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A line the guest's init wrote about itself: its word and the rest.
fn marker(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("@@vm ")?;
    Some(rest.split_once(' ').unwrap_or((rest, "")))
}

/// Whether the guest came to the command.
fn has_begun(text: &str) -> bool {
    text.lines().any(|line| marker(line.trim_end()).is_some_and(|(word, _)| word == "begin"))
}

/// The whole of the data line. `None` if the end is missing.
fn parse(text: &str) -> Option<VmOutput> {
    let mut output = VmOutput {
        release: String::new(),
        stdout: String::new(),
        status: -1,
        boot_seconds: 0.0,
        seconds: 0.0,
    };
    let mut begun = false;
    for line in text.split_inclusive('\n') {
        match marker(line.trim_end()) {
            Some(("release", release)) if !begun => output.release = release.to_owned(),
            Some(("booted", seconds)) if !begun => output.boot_seconds = seconds.parse().ok()?,
            Some(("begin", _)) if !begun => begun = true,
            Some(("end", rest)) if begun => {
                output.status = rest.split(' ').next()?.parse().ok()?;
                // The line feed before the marker is the marker's own.
                output.stdout.pop();
                return Some(output);
            }
            _ if begun => output.stdout.push_str(line),
            _ => {}
        }
    }
    None
}

/// The line of the console that tells of a crash. Lockups and stalls are no crash: an emulated CPU may have to wait that long.
fn fault(console: &str) -> Option<&str> {
    let signs = [
        "Kernel panic",
        "Oops:",
        "kernel BUG at",
        "BUG: unable to handle",
        "BUG: kernel NULL",
        "BUG: sleeping function",
        "BUG: scheduling while atomic",
        "general protection fault",
        "Unable to handle kernel",
    ];
    console.lines().find(|line| signs.iter().any(|sign| line.contains(sign)))
}

/// Whether the emulation is to blame for a crash, and not what ran in the guest.
///
/// A kernel patches its own code (a static key, the start of a traced function) by a breakpoint over the first byte, an interrupt
/// to every CPU, and the new bytes. QEMU's threads are not exact about it: a CPU may go on in a translation of the old bytes after
/// it took the interrupt, and then runs into a breakpoint that, for the kernel, is no longer there: an `int3` oops, seen at the
/// first connections of a guest, where `net_get_random_once` switches its key. What crashes before the command was begun is
/// no fault of ours either.
fn is_of_emulation(fault: &str, begun: bool, accel: &str) -> bool {
    !begun || (accel.starts_with("tcg") && fault.contains("Oops: int3:"))
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    let mut tail = all[all.len().saturating_sub(lines)..].join("\n");
    tail.push('\n');
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_between_markers() {
        let text =
            "noise\n\n@@vm release 6.12.1-x\n@@vm booted 3.52\n@@vm begin\nhello\nworld\n\n@@vm end 7 4.00\n";
        let output = parse(text).unwrap();
        assert_eq!(output.release, "6.12.1-x");
        assert_eq!(output.stdout, "hello\nworld\n");
        assert_eq!(output.status, 7);
        assert!((output.boot_seconds - 3.52).abs() < 1e-9);
    }

    #[test]
    fn output_without_line_feed_at_its_end() {
        let output = parse("@@vm begin\nhalf\n@@vm end 0 1.0\n").unwrap();
        assert_eq!(output.stdout, "half");
    }

    #[test]
    fn a_guest_that_died_has_no_output() {
        assert!(parse("@@vm release 6.1\n@@vm begin\nhello\n").is_none());
        assert!(parse("").is_none());
    }

    #[test]
    fn a_crash_before_the_command_is_told_from_one_during_it() {
        assert!(!has_begun("@@vm release 6.1\n"));
        assert!(has_begun("@@vm release 6.1\n@@vm begin\nhello\n"));
        assert!(!has_begun(""));
    }

    #[test]
    fn only_the_emulation_is_forgiven() {
        let int3 = "[   15.631036] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI";
        let page = "[   15.631036] Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI";
        assert!(is_of_emulation(int3, true, "tcg,thread=multi"));
        assert!(!is_of_emulation(int3, true, "kvm"));
        assert!(!is_of_emulation(page, true, "tcg,thread=multi"));
        assert!(is_of_emulation(page, false, "tcg,thread=multi"));
    }

    #[test]
    fn crashes_are_found_and_stalls_are_not() {
        assert!(fault("x\n[ 1.0] Kernel panic - not syncing: Fatal exception\n").is_some());
        assert!(fault("[ 1.0] BUG: unable to handle page fault for address\n").is_some());
        assert!(fault("[ 9.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!\n").is_none());
        assert!(fault("all is well\n").is_none());
    }
}
