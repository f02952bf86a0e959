//! Kernel addresses to function names, from `/proc/kallsyms`.
//!
//! A kernel has 60 000 to 120 000 functions with its modules: all names lie in one string, and a sorted list of
//! addresses points into it.

mod file;

pub use file::inherited;

use std::cell::{Cell, OnceCell, RefCell};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::thread::JoinHandle;

/// Where the kernel tells its functions.
pub const FILE: &str = "/proc/kallsyms";

/// No kernel function is longer. An address further behind the last symbol belongs to code that has none, such as a
/// BPF program that was loaded later.
const LONGEST_FUNCTION: u64 = 64 * 1024;

/// Answers kept, a power of two: the paths to a reset are few, and a search among all functions takes longer than the rest
/// of what an event costs.
const KEPT: usize = 1024;

/// Ends each name in the arena; no symbol contains it.
const END: char = '\n';

/// The function names of the running kernel.
#[derive(Debug)]
pub struct Symbols {
    table: OnceCell<Table>,
    /// A thread that reads them.
    coming: RefCell<Option<JoinHandle<Table>>>,
}

#[derive(Debug, Default)]
struct Table {
    /// Addresses and where the name begins in `names`, by address.
    entries: Vec<(u64, u32)>,
    names: String,
    hidden: bool,
    /// Answers, each at the place that its address gives it.
    kept: Box<[Cell<Kept>]>,
}

/// An address and its answer; the address 0, which no function has, for an empty place.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    addr: u64,
    offset: u64,
    name_at: u32,
    name_len: u32,
    plumbing: bool,
}

/// The function that an address lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Without the compiler's suffixes.
    pub name: &'a str,
    /// From its start.
    pub offset: u64,
    /// See [`is_plumbing`].
    pub plumbing: bool,
}

impl Symbols {
    /// Begins to read [`FILE`] in a thread: it takes a tenth of a second, on a loaded host seconds. A file that cannot be read
    /// counts as hidden.
    pub fn load() -> Self {
        // Whoever handed it over did so because this process sees no addresses in its own.
        let file: io::Result<Box<dyn Read + Send>> = match inherited() {
            Some(file) => Ok(Box::new(file)),
            None => File::open(FILE).map(|file| Box::new(file) as _),
        };
        let read = || file.and_then(|file| Table::parse(BufReader::with_capacity(1 << 16, file)));
        let load = || read().unwrap_or_else(|_| Table { hidden: true, ..Table::default() });
        match std::thread::Builder::new().name("symbols".to_owned()).spawn(load) {
            Ok(thread) => Self { table: OnceCell::new(), coming: RefCell::new(Some(thread)) },
            Err(_) => Self::none(),
        }
    }

    /// Whether a question is answered at once; if not, it waits for the thread.
    pub fn ready(&self) -> bool {
        self.coming.borrow().as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// A table that knows nothing.
    pub fn none() -> Self {
        Self::from(Table { hidden: true, ..Table::default() })
    }

    /// From text in the format of `/proc/kallsyms`.
    pub fn parse(text: impl BufRead) -> io::Result<Self> {
        Ok(Self::from(Table::parse(text)?))
    }

    /// The kernel does not show addresses (`kernel.kptr_restrict`, no CAP_SYSLOG), or not at all.
    pub fn hidden(&self) -> bool {
        self.table().hidden
    }

    /// The function that an address lies in and the distance from its start. Compiler suffixes are folded away.
    pub fn resolve(&self, addr: u64) -> Option<(&str, u64)> {
        self.find(addr).map(|found| (found.name, found.offset))
    }

    /// The same, with what the name means.
    pub fn find(&self, addr: u64) -> Option<Found<'_>> {
        self.table().find(addr)
    }

    fn table(&self) -> &Table {
        self.table.get_or_init(|| {
            let read = self.coming.take().and_then(|thread| thread.join().ok());
            read.unwrap_or_else(|| Table { hidden: true, ..Table::default() })
        })
    }
}

impl From<Table> for Symbols {
    fn from(table: Table) -> Self {
        Self { table: OnceCell::from(table), coming: RefCell::new(None) }
    }
}

impl Table {
    fn parse(mut text: impl BufRead) -> io::Result<Self> {
        let mut table = Self::default();
        let mut line = Vec::new();
        while text.read_until(b'\n', &mut line)? != 0 {
            if let Some((addr, name)) = function(&line) {
                table.add(addr, name);
            }
            line.clear();
        }
        // Stable: of several names at one address the last in the file is found, on every run the same.
        table.entries.sort_by_key(|(addr, _)| *addr);
        table.entries.shrink_to_fit();
        table.names.shrink_to_fit();
        table.hidden = table.entries.is_empty();
        table.kept = vec![Cell::default(); KEPT].into();
        Ok(table)
    }

    fn add(&mut self, addr: u64, name: &str) {
        // A hidden table has the address 0 everywhere.
        if addr == 0 {
            return;
        }
        // 4 GiB of names cannot happen; a table that long is cut, not wrong.
        let Ok(at) = u32::try_from(self.names.len()) else { return };
        self.names.push_str(base_name(name));
        self.names.push(END);
        self.entries.push((addr, at));
    }

    fn find(&self, addr: u64) -> Option<Found<'_>> {
        // The upper bits of the product depend on all bits of the address.
        let place = addr.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - KEPT.ilog2());
        let place = self.kept.get(place as usize)?;
        let mut kept = place.get();
        if kept.addr != addr || addr == 0 {
            kept = self.search(addr)?;
            place.set(kept);
        }
        let name = self.names.get(kept.name_at as usize..)?.get(..kept.name_len as usize)?;
        Some(Found { name, offset: kept.offset, plumbing: kept.plumbing })
    }

    fn search(&self, addr: u64) -> Option<Kept> {
        let after = self.entries.partition_point(|(start, _)| *start <= addr);
        let (start, name_at) = *self.entries.get(after.checked_sub(1)?)?;
        let offset = addr - start;
        if offset > LONGEST_FUNCTION {
            return None;
        }
        let name = self.names.get(name_at as usize..)?.split(END).next()?;
        let name_len = u32::try_from(name.len()).ok()?;
        Some(Kept { addr, offset, name_at, name_len, plumbing: is_plumbing(name) })
    }
}

/// Address and name of a line that stands for a function: `ADDRESS KIND NAME`, and a tab and `[MODULE]` behind it. By bytes, for
/// there are more than 100 000 lines.
fn function(line: &[u8]) -> Option<(u64, &str)> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (digits, rest) = line.split_at(space);
    let [b' ', b't' | b'T' | b'w' | b'W', b' ', name @ ..] = rest else { return None };
    // The bytes before a function, where nothing is ever called: a stack that leads there comes from the function before, whose
    // last instruction is a call that does not return.
    if name.starts_with(b"__pfx_") {
        return None;
    }
    let end = name.iter().position(u8::is_ascii_whitespace).unwrap_or(name.len());
    let name = str::from_utf8(&name[..end]).ok().filter(|name| !name.is_empty())?;
    Some((address(digits)?, name))
}

fn address(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0, |addr, digit| Some(addr << 4 | u64::from(char::from(*digit).to_digit(16)?)))
}

/// A name without what the compiler hung on when it split or cloned the function.
pub(super) fn base_name(name: &str) -> &str {
    const SUFFIXES: [&str; 6] = [".part.", ".constprop.", ".isra.", ".cold", ".llvm.", ".lto_priv."];
    if !name.contains('.') {
        return name;
    }
    let cut = SUFFIXES.iter().filter_map(|suffix| name.find(suffix)).filter(|at| *at > 0).min();
    cut.map_or(name, |at| &name[..at])
}

/// Whether a frame belongs to the machinery by which a program is called, not to what called it.
pub fn is_plumbing(name: &str) -> bool {
    const PREFIXES: [&str; 29] = [
        "bpf_prog_",
        "__bpf_prog",
        "bpf_trampoline_",
        "bpf_dispatcher",
        "bpf_trace_run",
        "__bpf_trace_",
        "bpf_get_stack",
        "____bpf_",
        "bpf_probe_read",
        "bpf_ringbuf_",
        "bpf_perf_event_",
        "__traceiter_",
        "perf_trace_",
        "perf_call",
        "get_perf_callchain",
        "trace_event_raw_event_",
        "ftrace_",
        "__ftrace_",
        "arch_ftrace_",
        "kprobe_",
        "kretprobe_",
        "__kretprobe_",
        "arch_rethook_",
        "rethook_",
        "fprobe_",
        "stack_trace_",
        "arch_stack_walk",
        "unwind_",
        "function_graph_",
    ];
    const NAMES: [&str; 11] = [
        "trace_call_bpf",
        "aggr_pre_handler",
        "opt_pre_handler",
        "optimized_callback",
        "pre_handler_kretprobe",
        "trampoline_handler",
        "do_int3",
        "exc_int3",
        "asm_exc_int3",
        "int3",
        "return_to_handler",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
ffffffff81000000 T _stext
ffffffff81a02000 t tcp_v4_send_reset.isra.0
ffffffff81a01000 T tcp_v4_rcv
ffffffff81a03000 d tcp_hashinfo
ffffffff81a02800 t inet_csk_reqsk_queue_drop.part.0
ffffffff81b00000 t tcp_v4_send_reset.cold
ffffffffc0001000 t nf_send_reset\t[nf_reject_ipv4]
ffffffffc0001ff0 t __pfx_nf_send_reset6	[nf_reject_ipv6]
ffffffffc0002000 t nf_send_reset6	[nf_reject_ipv6]
ffffffffc00030000 t sixty_eight_bits
ffffffffc000300g t no_number
ffffffffc0003000 t
 t tcp_nowhere
not a line at all
";

    fn symbols() -> Symbols {
        Symbols::parse(TEXT.as_bytes()).unwrap()
    }

    #[test]
    fn addresses_become_folded_names_with_offsets() {
        let symbols = symbols();
        assert!(!symbols.hidden());
        assert_eq!(symbols.resolve(0xffffffff81a02005), Some(("tcp_v4_send_reset", 5)));
        assert_eq!(symbols.resolve(0xffffffff81a01000), Some(("tcp_v4_rcv", 0)));
        assert_eq!(symbols.resolve(0xffffffff81a02801), Some(("inet_csk_reqsk_queue_drop", 1)));
        assert_eq!(symbols.resolve(0xffffffff81b00010), Some(("tcp_v4_send_reset", 16)));
        assert_eq!(symbols.resolve(0xffffffffc0001020), Some(("nf_send_reset", 32)), "a module's");
        // More addresses than answers are kept: whether one is remembered or searched for makes no difference.
        for offset in (0..4 * KEPT as u64).chain(0..4 * KEPT as u64) {
            assert_eq!(symbols.resolve(0xffffffff81a01000 + offset), Some(("tcp_v4_rcv", offset)));
        }
    }

    #[test]
    fn addresses_outside_any_function_stay_unknown() {
        let symbols = symbols();
        assert_eq!(symbols.resolve(0), None);
        assert_eq!(symbols.resolve(0xffffffff80ffffff), None, "before the first");
        assert_eq!(symbols.resolve(0xffffffffd0000000), None, "far behind the last");
    }

    #[test]
    fn what_lies_before_a_function_belongs_to_the_one_before() {
        assert_eq!(symbols().resolve(0xffffffffc0001ff0), Some(("nf_send_reset", 0xff0)));
        assert_eq!(symbols().resolve(0xffffffffc0002000), Some(("nf_send_reset6", 0)));
    }

    #[test]
    fn lines_that_are_none_are_left_out() {
        assert_eq!(symbols().table().entries.len(), 7);
    }

    #[test]
    fn zero_addresses_mean_hidden() {
        let symbols = Symbols::parse("0000000000000000 T tcp_v4_rcv\n".as_bytes()).unwrap();
        assert!(symbols.hidden());
        assert_eq!(symbols.resolve(0), None);
        assert!(Symbols::none().hidden());
    }

    #[test]
    fn every_suffix_of_the_compiler_is_folded() {
        for name in [
            "f.part.0",
            "f.constprop.0",
            "f.isra.0.cold",
            "f.part.0.constprop.1",
            "f.llvm.123",
            "f.cold",
            "f",
        ] {
            assert_eq!(base_name(name), "f", "{name}");
        }
        assert_eq!(base_name(".cold"), ".cold");
    }

    #[test]
    fn the_way_into_a_program_is_told_from_the_way_to_it() {
        for name in [
            "bpf_prog_1f2e_tcp_send_reset",
            "bpf_trampoline_6442",
            "bpf_trace_run3",
            "__traceiter_tcp_send_reset",
            "__bpf_trace_tcp_send_reset",
            "kprobe_ftrace_handler",
            "ftrace_regs_call",
            "trace_call_bpf",
            "aggr_pre_handler",
            "optimized_callback",
        ] {
            assert!(is_plumbing(name), "{name}");
        }
        for name in
            ["tcp_v4_send_reset", "tcp_v4_rcv", "__tcp_close", "nf_send_reset", "tcp_retransmit_timer"]
        {
            assert!(!is_plumbing(name), "{name}");
        }
    }
}
