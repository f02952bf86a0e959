//! What the verifier says of each program that a tool loads, on any kernel: a debugger asks for its statistics in the tool's name.
//!
//! The kernel itself tells how many instructions it walked (`verified_insns`) only since 5.16, and libraries throw the verifier's words
//! away when it is content.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::sys::{self, Call, Stop};

/// A program that the kernel has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    /// The kernel's number of it.
    pub(super) id: u32,
    /// Instructions that the verifier walked.
    pub(super) walked: u64,
}

/// `BPF_PROG_LOAD`, and where its attributes lie in a `union bpf_attr`.
const LOAD: u64 = 5;
const LEVEL: usize = 24;
const SIZE: usize = 28;
const BUFFER: usize = 32;
/// As far as they are read here.
const ATTRIBUTES: usize = 40;

/// `BPF_LOG_STATS`: sums alone, a few hundred bytes.
const STATS: u32 = 4;
const ROOM: usize = 4096;
/// Below the stack pointer a function may use so much without moving it (x86-64).
const RED_ZONE: u64 = 128;

/// Runs a tool to its end and hands out what the verifier said of the programs that it loaded, and the tool's status.
///
/// Of its threads the first alone is followed: there tcpwatch loads where it has to say what it loads, and whoever calls this finds out
/// what was loaded unseen.
pub(super) fn follow(mut command: Command) -> Result<(Vec<Loaded>, i32)> {
    sys::debugged(&mut command);
    let child = command.spawn().context("starting the tool")?;
    let pid = i32::try_from(child.id())?;
    if sys::wait(pid)? != Stop::Began {
        bail!("the tool did not stop at its start");
    }
    sys::hold(pid).context("debugging the tool")?;
    let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"));
    let memory = memory.context("opening the tool's memory")?;
    let mut loaded = Vec::new();
    let mut asked = None;
    let mut signal = 0;
    loop {
        sys::go_on(pid, signal).context("letting the tool go on")?;
        signal = 0;
        match sys::wait(pid)? {
            Stop::End(status) => return Ok((loaded, status)),
            Stop::Signal(number) => signal = number,
            Stop::Began => {}
            Stop::Call => match sys::call(pid).context("looking at a system call")? {
                Some(Call::Start { number, args: [LOAD, at, ..], stack })
                    if number == libc::SYS_bpf as u64 =>
                {
                    asked = ask(&memory, at, stack).context("asking the verifier for its sums")?;
                }
                Some(Call::End { value }) => {
                    if let Some(buffer) = asked.take()
                        && let Ok(fd) = u32::try_from(value)
                    {
                        loaded.push(Loaded { id: id(pid, fd)?, walked: answer(&memory, buffer)? });
                    }
                }
                _ => {}
            },
        }
    }
}

/// Writes the wish for statistics into the attributes of a load; gives where they will be. A load that has wishes of its own is left
/// alone: it is the second try at a program that was refused.
fn ask(memory: &File, at: u64, stack: u64) -> io::Result<Option<u64>> {
    let mut attributes = [0; ATTRIBUTES];
    memory.read_exact_at(&mut attributes, at)?;
    if attributes[LEVEL..LEVEL + 4] != [0; 4] {
        return Ok(None);
    }
    // Nobody keeps anything there while the system call runs.
    let buffer = (stack - RED_ZONE - ROOM as u64) & !7;
    attributes[LEVEL..LEVEL + 4].copy_from_slice(&STATS.to_ne_bytes());
    attributes[SIZE..SIZE + 4].copy_from_slice(&(ROOM as u32).to_ne_bytes());
    attributes[BUFFER..BUFFER + 8].copy_from_slice(&buffer.to_ne_bytes());
    memory.write_all_at(&attributes[LEVEL..], at + LEVEL as u64)?;
    Ok(Some(buffer))
}

fn answer(memory: &File, buffer: u64) -> Result<u64> {
    let mut text = [0; ROOM];
    memory.read_exact_at(&mut text, buffer).context("reading the verifier's words")?;
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    walked(&text).with_context(|| format!("the verifier tells no number of instructions: {text:?}"))
}

/// `processed 1234 insns (limit 1000000) max_states_per_insn 4 ...`
fn walked(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("processed "))?;
    rest.split_once(" insns")?.0.parse().ok()
}

/// The kernel's number of the program behind a descriptor of the tool.
fn id(pid: i32, fd: u32) -> Result<u32> {
    let file = format!("/proc/{pid}/fdinfo/{fd}");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
    id.and_then(|id| id.trim().parse().ok()).with_context(|| format!("{file} names no program"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_sum_is_found_among_its_words() {
        let text = "verification time 3056 usec\nstack depth 392+0\n\
                    processed 17203 insns (limit 1000000) max_states_per_insn 8 total_states 701 peak_states 211 mark_read 30\n";
        assert_eq!(walked(text), Some(17203));
        assert_eq!(walked("processed many insns\n"), None);
        assert_eq!(walked(""), None);
    }

    #[test]
    fn a_tool_that_loads_nothing_has_no_programs() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exit 3"]);
        assert_eq!(follow(command).unwrap(), (Vec::new(), 3));
    }
}
