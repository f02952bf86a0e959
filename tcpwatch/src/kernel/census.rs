//! The census: every place in the running kernel's own text that leads to what sends an RST, held against the table of
//! callers that the catalogue knows.
//!
//! [`kcore`] reads, the rest is pure: bytes and symbols in, callers and verdict out.

pub mod kcore;
pub mod known;
mod map;
pub mod page;
mod scan;

pub use scan::How;

use known::{Known, Need, TARGETS, Target};
use map::{Map, Part, Symbol};
use scan::{Entries, Found};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// Text is read in pieces of this size: a kernel has 15 to 40 MB of it.
const PIECE: u64 = 1 << 20;

/// How much of the next piece each has at its end: a field that begins in one may end in the other.
const OVERLAP: u64 = 8;

/// The kernel's memory.
pub trait Memory {
    /// Fills all of `bytes`. What is not mapped reads as zeros, or is an error.
    fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()>;
}

/// Why there is no census, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unchecked {
    pub why: String,
    pub hint: String,
}

impl Unchecked {
    fn new(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { why: why.into(), hint: hint.into() }
    }
}

/// One function that leads to a target, or one variable that holds a pointer to it.
#[derive(Clone, Debug)]
pub struct Caller {
    pub how: How,
    /// Without what the compiler hung on.
    pub name: String,
    /// `None`: the kernel itself.
    pub module: Option<String>,
    /// How often it does.
    pub places: usize,
    /// What the table says of it; `None`: nothing.
    pub known: Option<&'static Known>,
    /// For a pointer: those of the functions which call through it, from the source, that this kernel has.
    pub through: Vec<&'static str>,
}

/// What was found of one target.
#[derive(Clone, Debug)]
pub struct Row {
    pub target: &'static Target,
    /// Whether this kernel has the function.
    pub present: bool,
    /// Calls first, in the order of the table.
    pub callers: Vec<Caller>,
}

/// How much was looked through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    pub text_bytes: u64,
    pub module_bytes: u64,
    pub data_bytes: u64,
}

/// The census of one kernel.
#[derive(Clone, Debug)]
pub struct Census {
    pub rows: Vec<Row>,
    pub searched: Searched,
    /// What keeps it from being complete, as sentences without full stop.
    pub problems: Vec<String>,
}

impl Census {
    /// Every place that leads to a target is known, and nothing was left out.
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty()
    }
}

/// The census of the running kernel. `proc` is where `/proc` is mounted.
pub fn take(proc: &Path) -> Result<Census, Unchecked> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Unchecked::new(
            "the census reads the instructions of x86-64, and this is another architecture",
            "everything else works here; the table of callers is the same on all architectures",
        ));
    }
    let symbols = std::fs::read_to_string(proc.join("kallsyms")).map_err(|error| {
        Unchecked::new(
            format!("/proc/kallsyms cannot be read: {error}"),
            "boot a kernel with CONFIG_KALLSYMS=y, and mount /proc",
        )
    })?;
    let map = Map::parse(&symbols);
    if map.is_empty() {
        return Err(Unchecked::new(
            "/proc/kallsyms shows no addresses",
            "run as root, or with CAP_SYSLOG; `sysctl kernel.kptr_restrict=1` if it is 2",
        ));
    }
    count(&map, &kcore::Kcore::open(&proc.join("kcore"))?)
}

fn count(map: &Map<'_>, memory: &impl Memory) -> Result<Census, Unchecked> {
    let text = map.text();
    if text.first().is_none_or(|part| part.module.is_some()) {
        return Err(Unchecked::new(
            "/proc/kallsyms does not tell where the kernel's text is (_stext, _etext)",
            "boot a kernel with CONFIG_KALLSYMS=y",
        ));
    }
    let present = present(map);
    let entries = entries(map);
    let mut tally = Tally { map, entries: &entries, places: BTreeMap::new() };
    let mut searched = Searched::default();
    let mut problems = Vec::new();
    for part in &text {
        searched.text(part);
        let mut candidates = Vec::new();
        let filled = pieces(part, memory, |base, bytes| {
            candidates.extend(scan::candidates(base, bytes, &entries));
        })?;
        if !filled {
            let whose = part.module.map_or("the kernel".to_owned(), |module| format!("module {module}"));
            problems.push(format!("the text of {whose} reads as zeros, so it was not searched"));
        }
        tally.text(&candidates, memory)?;
    }
    for range in entries.neighbourhoods() {
        let bytes = read(memory, range.start, range.end - range.start)?;
        tally.text(&scan::short_candidates(range.start, &bytes, &entries), memory)?;
    }
    let data = map.data();
    if data.iter().all(|part| part.module.is_some()) {
        problems.push(
            "/proc/kallsyms does not tell where variables are, so pointers were not searched".to_owned(),
        );
    }
    for part in &data {
        searched.data_bytes += part.size();
        pieces(part, memory, |base, bytes| {
            for (address, target) in scan::pointers(base, bytes, &entries) {
                tally.note(address, target, How::Pointer);
            }
        })?;
    }
    let rows = tally.rows(&present);
    problems.extend(rows.iter().flat_map(|row| complaints(row, &present)));
    Ok(Census { rows, searched, problems })
}

impl Searched {
    fn text(&mut self, part: &Part<'_>) {
        if part.module.is_some() {
            self.module_bytes += part.size();
        } else {
            self.text_bytes += part.size();
        }
    }
}

/// Which functions that the tables name this kernel has.
fn present(map: &Map<'_>) -> BTreeSet<&'static str> {
    let named = TARGETS.iter().flat_map(|target| {
        let through = target.callers.iter().flat_map(|known| known.through.iter().copied());
        let with = if let Need::With(other) = target.need { Some(other) } else { None };
        through.chain(with).chain([target.name])
    });
    let named: BTreeSet<&'static str> = named.collect();
    map.all().filter(Symbol::is_text).filter_map(|symbol| named.get(symbol.base()).copied()).collect()
}

/// Where each target begins.
fn entries(map: &Map<'_>) -> Entries {
    let mut entries = Entries::default();
    for symbol in map.all().filter(Symbol::is_text) {
        // The unlikely half of a function is entered from its other half alone.
        if symbol.name.contains(".cold") {
            continue;
        }
        if let Some(target) = TARGETS.iter().position(|target| target.name == symbol.base()) {
            entries.add(target, symbol.address, map.padding(&symbol));
        }
    }
    entries
}

/// Hands out a part piece by piece, each with the first bytes of the next. Says whether there was anything but zeros.
fn pieces(
    part: &Part<'_>,
    memory: &impl Memory,
    mut each: impl FnMut(u64, &[u8]),
) -> Result<bool, Unchecked> {
    let mut filled = false;
    // Pointers are aligned; the start of text is, too.
    let mut at = part.range.start & !7;
    while at < part.range.end {
        let bytes = read(memory, at, (part.range.end - at).min(PIECE + OVERLAP))?;
        filled |= bytes.iter().any(|byte| *byte != 0);
        each(at, &bytes);
        at += PIECE;
    }
    Ok(filled)
}

fn read(memory: &impl Memory, address: u64, size: u64) -> Result<Vec<u8>, Unchecked> {
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    memory.read(address, &mut bytes).map_err(|error| {
        Unchecked::new(
            format!("the kernel's memory at {address:#x} cannot be read: {error}"),
            "if a module came or went just now, try again",
        )
    })?;
    Ok(bytes)
}

/// Places by who they belong to: target, way, name, module.
type Places<'a> = BTreeMap<(usize, How, &'a str, Option<&'a str>), BTreeSet<u64>>;

struct Tally<'a> {
    map: &'a Map<'a>,
    entries: &'a Entries,
    places: Places<'a>,
}

impl Tally<'_> {
    /// Candidates in text: only those count that are instructions.
    fn text(&mut self, candidates: &[u64], memory: &impl Memory) -> Result<(), Unchecked> {
        for &candidate in candidates {
            // Where no symbol is near there is no function, and nothing to begin decoding from.
            let Some(function) = self.map.around(candidate).next() else { continue };
            let size = candidate - function.address + scan::LONGEST_INSTRUCTION;
            let bytes = read(memory, function.address, size)?;
            match scan::confirm(function.address, &bytes, candidate, self.entries) {
                Found::Leads(target, how) => self.note(candidate, target, how),
                Found::Unclear(target) => self.note(candidate, target, How::Call),
                Found::Nothing => {}
            }
        }
        Ok(())
    }

    fn note(&mut self, address: u64, target: usize, how: How) {
        let Some(spec) = TARGETS.get(target) else { return };
        let mut symbols = self.map.around(address).peekable();
        let Some(first) = symbols.peek().copied() else { return };
        let is_known = |symbol: &Symbol<'_>| spec.known(how, symbol.base()).is_some();
        let symbol = symbols.find(is_known).unwrap_or(first);
        // A function that jumps back to its own start.
        if symbol.base() == spec.name {
            return;
        }
        if how == How::Pointer && symbol.lists_functions() {
            return;
        }
        self.places.entry((target, how, symbol.base(), symbol.module)).or_default().insert(address);
    }

    fn rows(self, present: &BTreeSet<&'static str>) -> Vec<Row> {
        let row = |(at, target): (usize, &'static Target)| {
            let mine = self.places.iter().filter(|((target, ..), _)| *target == at);
            let mut callers: Vec<Caller> = mine
                .map(|((_, how, name, module), places)| {
                    let known = target.known(*how, name);
                    let through = known.map(|known| known.through).unwrap_or_default();
                    Caller {
                        how: *how,
                        name: (*name).to_owned(),
                        module: module.map(str::to_owned),
                        places: places.len(),
                        known,
                        through: through.iter().copied().filter(|name| present.contains(name)).collect(),
                    }
                })
                .collect();
            let place = |caller: &Caller| target.callers.iter().position(|known| known.name == caller.name);
            callers.sort_by_key(|caller| (caller.how, place(caller).unwrap_or(usize::MAX)));
            Row { target, present: present.contains(target.name), callers }
        };
        TARGETS.iter().enumerate().map(row).collect()
    }
}

impl Target {
    fn known(&self, how: How, name: &str) -> Option<&'static Known> {
        self.callers.iter().find(|known| known.how == how && known.name == name)
    }
}

fn complaints(row: &Row, present: &BTreeSet<&'static str>) -> Vec<String> {
    let name = row.target.name;
    let needed = match row.target.need {
        Need::Always => true,
        Need::With(other) => present.contains(other),
        Need::Never => false,
    };
    if !row.present {
        let sentence =
            format!("{name} is not in this kernel, inlined or renamed: who calls it cannot be told");
        return if needed { vec![sentence] } else { Vec::new() };
    }
    let mut all = Vec::new();
    if needed && row.callers.iter().all(|caller| caller.how != How::Call) {
        all.push(format!("no call of {name} was found, and there must be some"));
    }
    all.extend(row.callers.iter().filter(|caller| caller.known.is_none()).map(|caller| {
        let verb = if caller.how == How::Call { "calls" } else { "holds a pointer to" };
        format!("{} {verb} {name}, and the catalogue does not know it", caller.full_name())
    }));
    all
}

impl Caller {
    /// With its module, as the kernel writes it.
    pub fn full_name(&self) -> String {
        match &self.module {
            Some(module) => format!("{} [{module}]", self.name),
            None => self.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
