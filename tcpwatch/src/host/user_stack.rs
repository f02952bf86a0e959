//! Names for the addresses on a process's user stack: `function+0xoffset` where its program or library tells.
//!
//! Nothing is kept between two questions: a leak is told once a minute, and what a process has mapped may change.

mod elf;

use super::proc::Proc;
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use std::collections::BTreeMap;
use std::fs::{self, File};

/// Longer names are cut: a template of C++ may take thousands of characters.
const LONGEST_NAME: usize = 256;

/// A row of `/proc/PID/maps` whose memory may be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping<'a> {
    start: u64,
    end: u64,
    /// Of its beginning, in the file.
    offset: u64,
    /// A path, a name in brackets, or empty for memory without a file.
    name: &'a str,
}

/// The frames of a stack, innermost first; it ends where an address is none of code, since there the frame pointers did.
/// `None`: the process is gone, another one has its pid, or it may not be looked into.
pub fn frames(proc: &Proc, pid: u32, start_ns: u64, addresses: &[u64]) -> Option<Vec<String>> {
    if proc.stat(pid)?.start != proc.ticks(start_ns) {
        return None;
    }
    let maps = fs::read(proc.path(pid, "maps")).ok()?;
    let maps = String::from_utf8_lossy(&maps);
    let mappings: Vec<Mapping<'_>> = maps.lines().filter_map(Mapping::parse).collect();
    let places: Vec<(u64, &Mapping<'_>)> = addresses
        .iter()
        .map_while(|&address| Some((address, mappings.iter().find(|mapping| mapping.holds(address))?)))
        .collect();
    let mut frames: Vec<String> = places.iter().map(|(address, mapping)| mapping.plain(*address)).collect();
    let mut files: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, (_, mapping)) in places.iter().enumerate() {
        if mapping.name.starts_with('/') {
            files.entry(mapping.name).or_default().push(at);
        }
    }
    for (name, rows) in files {
        let Some(file) = places.get(rows[0]).and_then(|(_, mapping)| mapping.open(proc, pid)) else {
            continue;
        };
        let offsets: Vec<u64> =
            rows.iter().map(|&at| places[at]).map(|(address, mapping)| mapping.in_file(address)).collect();
        let Some(found) = elf::look_up(file, &offsets) else { continue };
        for (at, place) in rows.into_iter().zip(found) {
            frames[at] = match place.function {
                Some((function, offset)) => format!("{}+{offset:#x}", printable(&function)),
                None => format!("{}+{:#x}", printable(name), place.address),
            };
        }
    }
    Some(frames)
}

impl<'a> Mapping<'a> {
    /// `7f0000001000-7f0000002000 r-xp 00001000 fe:01 1234      /usr/lib/libc.so.6`; `None` for memory that is not run.
    fn parse(row: &'a str) -> Option<Self> {
        let mut fields = row.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let may = fields.next()?;
        let offset = fields.next()?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let mapping = Self {
            start: hex(start)?,
            end: hex(end)?,
            offset: hex(offset)?,
            name: fields.nth(2).unwrap_or_default().trim_start(),
        };
        may.contains('x').then_some(mapping)
    }

    /// A frame is where its function goes on: behind a call, which may be the last instruction there is.
    fn holds(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address.wrapping_sub(1))
    }

    fn in_file(&self, address: u64) -> u64 {
        (address - self.start).wrapping_add(self.offset)
    }

    /// What there is to say without the file.
    fn plain(&self, address: u64) -> String {
        match self.name {
            "" => format!("{address:#x}"),
            name => format!("{}+{:#x}", printable(name), self.in_file(address)),
        }
    }

    /// The file as it was mapped. `map_files` has it even if it was replaced, but asks for CAP_SYS_ADMIN or
    /// CAP_CHECKPOINT_RESTORE; the path leads to it while it is there.
    fn open(&self, proc: &Proc, pid: u32) -> Option<File> {
        let mapped = proc.path(pid, &format!("map_files/{:x}-{:x}", self.start, self.end));
        if fs::metadata(&mapped).is_ok_and(|file| file.is_file())
            && let Ok(file) = File::open(&mapped)
        {
            return Some(file);
        }
        if self.name.ends_with(" (deleted)") {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let root =
            open(proc.path(pid, "root"), flags | OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).ok()?;
        // The tree is the process's own: its links must not lead out of it, and a pipe in it must not make us wait.
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(root, self.name, flags | OFlags::NONBLOCK, Mode::empty(), inside).ok()?;
        let file = File::from(file);
        file.metadata().is_ok_and(|file| file.is_file()).then_some(file)
    }
}

/// A name from a file that anybody may have made, fit for a terminal.
fn printable(name: &str) -> String {
    name.chars().take(LONGEST_NAME).map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use crate::host::fake::{Process, Tree};

    const MAPS: &str = "\
        00400000-00401000 r--p 00000000 fe:01 12                         /opt/a b/server\n\
        00401000-00405000 r-xp 00001000 fe:01 12                         /opt/a b/server\n\
        7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n\
        7f0000002000-7f0000003000 r-xp 00004000 fe:01 13                 /lib/old.so (deleted)\n\
        7fff00000000-7fff00001000 r-xp 00000000 00:00 0                  [vdso]\n";

    #[inline(never)]
    fn a_function_to_be_found() -> u32 {
        std::hint::black_box(17)
    }

    fn told(tree: &Tree, start_ns: u64, addresses: &[u64]) -> Option<Vec<String>> {
        frames(&tree.host().proc, 5, start_ns, addresses)
    }

    #[test]
    fn without_the_files_a_frame_is_a_place_in_one() {
        let tree = Tree::new();
        tree.process(5, &Process { start: 5000, ..Process::PLAIN });
        tree.write("proc/5/maps", MAPS);
        let addresses = [0x40_1234, 0x7f00_0000_0010, 0x7f00_0000_2020, 0x7fff_0000_0030, 0x40_5000];
        assert_eq!(
            told(&tree, 50_000_000_000, &addresses).unwrap(),
            [
                "/opt/a b/server+0x1234",
                "0x7f0000000010",
                "/lib/old.so (deleted)+0x4020",
                "[vdso]+0x30",
                "/opt/a b/server+0x5000"
            ]
        );
    }

    #[test]
    fn a_stack_ends_where_there_is_no_code() {
        let tree = Tree::new();
        tree.process(5, &Process { start: 5000, ..Process::PLAIN });
        tree.write("proc/5/maps", MAPS);
        for nothing in [0, 1, 0x40_0800, 0x40_5001, u64::MAX] {
            let frames = told(&tree, 50_000_000_000, &[0x40_1234, nothing, 0x40_2000]).unwrap();
            assert_eq!(frames, ["/opt/a b/server+0x1234"], "{nothing:#x}");
        }
    }

    #[test]
    fn another_process_with_the_pid_has_no_frames() {
        let tree = Tree::new();
        tree.process(5, &Process { start: 5000, ..Process::PLAIN });
        tree.write("proc/5/maps", MAPS);
        assert_eq!(told(&tree, 49_999_999_999, &[0x40_1234]), None);
        assert_eq!(frames(&tree.host().proc, 6, 50_000_000_000, &[0x40_1234]), None);
    }

    #[test]
    fn a_row_that_is_cut_is_left_out() {
        for row in ["", "00400000", "00400000-00401000", "00400000-00401000 r-xp", "x-y r-xp 0 0:0 1 /a"] {
            assert_eq!(Mapping::parse(row), None, "{row:?}");
        }
    }

    #[test]
    fn names_are_fit_for_a_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a?[2Jb?");
        assert_eq!(printable(&"é".repeat(1000)).chars().count(), LONGEST_NAME);
    }

    /// The program of the test, position-independent and with symbols, and the C library, which has those for the linker alone.
    #[test]
    fn the_functions_of_this_test_are_found() {
        let proc = Host::live().proc;
        let pid = proc.own_pid();
        let start_ns = proc.start_ns(proc.stat(pid).unwrap().start);
        assert_eq!(a_function_to_be_found(), 17);
        let own = a_function_to_be_found as fn() -> u32 as usize as u64;
        let library = libc::getppid as unsafe extern "C" fn() -> i32 as usize as u64;
        let frames = frames(&proc, pid, start_ns, &[own + 2, library + 3]).unwrap();
        assert!(frames[0].contains("a_function_to_be_found") && frames[0].ends_with("+0x2"), "{frames:?}");
        assert_eq!(frames[1], "getppid+0x3");
    }

    #[test]
    fn a_path_is_looked_up_in_the_root_of_the_process() {
        let tree = Tree::new();
        tree.process(5, &Process { start: 5000, ..Process::PLAIN });
        tree.write("proc/5/root/real/server", "inside");
        tree.link("proc/5/root/opt/server", "/real/server");
        let mapping = |name| Mapping { start: 0x1000, end: 0x2000, offset: 0, name };
        let open = |name| mapping(name).open(&tree.host().proc, 5);
        let text = std::io::read_to_string(open("/opt/server").unwrap()).unwrap();
        assert_eq!(text, "inside", "a link leads to the same tree");
        assert!(open("/opt/../../../../../../../../etc/passwd").is_none());
        assert!(open("/real").is_none(), "a directory is no program");
        assert!(open("/opt/server (deleted)").is_none());
    }
}
