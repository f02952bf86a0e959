//! Every symbol of the running kernel and its modules, by address: what lies where.

use crate::kernel::symbols::base_name;
use std::ops::Range;

/// No function is longer, and no object that holds a pointer worth finding. What lies further behind the last symbol
/// of a module belongs to nobody.
pub(super) const LONGEST: u64 = 256 * 1024;

/// The linker's marks around the parts of the kernel.
const MARKS: [&str; 10] = [
    "_stext",
    "_etext",
    "__start_rodata",
    "__end_rodata",
    "_sdata",
    "_edata",
    "__bss_start",
    "__bss_stop",
    "__start_bss_decrypted_unused",
    "__end_bss_decrypted",
];

/// A line of `/proc/kallsyms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol<'a> {
    pub(super) address: u64,
    kind: u8,
    /// As the compiler left it.
    pub(super) name: &'a str,
    pub(super) module: Option<&'a str>,
}

impl<'a> Symbol<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let address = u64::from_str_radix(fields.next()?, 16).ok()?;
        let kind = *fields.next()?.as_bytes().first()?;
        let name = fields.next()?;
        let module = fields.next().and_then(|field| field.strip_prefix('[')?.strip_suffix(']'));
        Some(Self { address, kind, name, module })
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.kind, b't' | b'T' | b'w' | b'W')
    }

    fn is_data(&self) -> bool {
        matches!(self.kind, b'd' | b'D' | b'b' | b'B' | b'r' | b'R' | b'v' | b'V')
    }

    /// The name in the source.
    pub(super) fn base(&self) -> &'a str {
        base_name(self.name)
    }

    /// A module's tables of all its functions have no symbols of their own: that of its symbols lies behind the one
    /// name, that of the places which ftrace patches behind the others. Neither is there to be called through.
    pub(super) fn lists_functions(&self) -> bool {
        self.module.is_some() && (self.name == "__this_module" || self.name.starts_with("__ksymtab_"))
    }

    /// Code that the kernel writes itself at run time and lists as if it were a module's: compiled BPF programs, and
    /// the trampolines of ftrace and kprobes. It calls what it was attached to, behind the entry.
    fn is_generated(&self) -> bool {
        self.module.is_some_and(|module| module == "bpf" || module.starts_with("__builtin__"))
    }
}

/// The symbols, sorted. The text stays where it is: a kernel has 150 000 to 250 000 lines.
#[derive(Debug)]
pub(super) struct Map<'a> {
    text: &'a str,
    /// Address, and where its line begins.
    entries: Vec<(u64, u32)>,
    marks: Vec<(&'a str, u64)>,
}

/// What part of memory to look through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// `None`: the kernel itself.
    pub(super) module: Option<&'a str>,
    pub(super) range: Range<u64>,
}

impl Part<'_> {
    pub(super) fn size(&self) -> u64 {
        self.range.end - self.range.start
    }
}

impl<'a> Map<'a> {
    /// From text in the format of `/proc/kallsyms`. Empty where the kernel hides its addresses: then all are 0.
    pub(super) fn parse(text: &'a str) -> Self {
        let mut entries = Vec::new();
        let mut marks = Vec::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            // 4 GiB of names cannot happen.
            if let (Some(symbol), Ok(place)) = (Symbol::parse(line), u32::try_from(at))
                && symbol.address != 0
            {
                entries.push((symbol.address, place));
                if symbol.module.is_none() && MARKS.contains(&symbol.name) {
                    marks.push((symbol.name, symbol.address));
                }
            }
            at += line.len();
        }
        // Stable: names of one address keep the order of the file.
        entries.sort_by_key(|(address, _)| *address);
        Self { text, entries, marks }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Symbol<'a>> {
        self.entries.iter().filter_map(|(_, place)| self.line(*place))
    }

    fn mark(&self, name: &str) -> Option<u64> {
        self.marks.iter().find(|(mark, _)| *mark == name).map(|(_, address)| *address)
    }

    /// What an address lies in: the symbol before it, under all its names.
    pub(super) fn around(&self, address: u64) -> impl Iterator<Item = Symbol<'a>> {
        let after = self.entries.partition_point(|(start, _)| *start <= address);
        let start = after.checked_sub(1).and_then(|last| self.entries.get(last)).map(|(start, _)| *start);
        let first = start.map_or(after, |start| self.entries.partition_point(|(other, _)| *other < start));
        let near = start.is_some_and(|start| address - start < LONGEST);
        let found = if near { self.entries.get(first..after) } else { None };
        found.unwrap_or_default().iter().filter_map(|(_, place)| self.line(*place))
    }

    /// Where the padding before a function begins, if it has a name. Calls are led through it where the kernel counts
    /// their depth, and checks of pointers are made there.
    pub(super) fn padding(&self, function: &Symbol<'a>) -> Option<u64> {
        let is_padding = |symbol: &Symbol<'_>| {
            let rest = ["__pfx_", "__cfi_"].iter().find_map(|prefix| symbol.name.strip_prefix(prefix));
            rest == Some(function.name)
        };
        self.around(function.address.checked_sub(1)?).find(is_padding).map(|symbol| symbol.address)
    }

    /// Where the instructions are: the kernel's own, then the modules'.
    pub(super) fn text(&self) -> Vec<Part<'a>> {
        let mut parts = self.between(&[("_stext", "_etext")]);
        parts.extend(self.of_modules(Symbol::is_text));
        parts
    }

    /// Where the variables are that live as long as the kernel. What lies between these marks is handed back after
    /// boot and belongs to others.
    pub(super) fn data(&self) -> Vec<Part<'a>> {
        let bss = if self.mark("__start_bss_decrypted_unused").is_some() {
            // Handed back on hosts that do not encrypt their memory.
            &[("__bss_start", "__start_bss_decrypted_unused"), ("__end_bss_decrypted", "__bss_stop")][..]
        } else {
            &[("__bss_start", "__bss_stop")]
        };
        let marks = [&[("__start_rodata", "__end_rodata"), ("_sdata", "_edata")], bss].concat();
        let mut parts = self.between(&marks);
        parts.extend(self.of_modules(Symbol::is_data));
        parts
    }

    fn between(&self, marks: &[(&str, &str)]) -> Vec<Part<'a>> {
        let range = |(start, end): &(&str, &str)| Some(self.mark(start)?..self.mark(end)?);
        let ranges = marks.iter().filter_map(range).filter(|range| !range.is_empty());
        ranges.map(|range| Part { module: None, range }).collect()
    }

    /// From each such symbol to the next symbol; neighbours in one.
    fn of_modules(&self, wanted: fn(&Symbol<'a>) -> bool) -> Vec<Part<'a>> {
        let mut parts: Vec<Part<'a>> = Vec::new();
        for (at, (start, place)) in self.entries.iter().enumerate() {
            let Some(symbol) = self.line(*place) else { continue };
            if symbol.module.is_none() || symbol.is_generated() || !wanted(&symbol) {
                continue;
            }
            let next = self.entries[at + 1..].iter().map(|(next, _)| *next).find(|next| next > start);
            let end = next.unwrap_or(u64::MAX).min(start.saturating_add(LONGEST));
            match parts.last_mut() {
                Some(last) if last.module == symbol.module && last.range.end >= *start => {
                    last.range.end = last.range.end.max(end);
                }
                _ => parts.push(Part { module: symbol.module, range: *start..end }),
            }
        }
        parts
    }

    fn line(&self, place: u32) -> Option<Symbol<'a>> {
        self.text.get(place as usize..)?.lines().next().and_then(Symbol::parse)
    }
}
