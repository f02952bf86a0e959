//! Functions in an ELF file by their place in it.

use object::read::{ReadCache, ReadRef};
use object::{Object, ObjectSegment, ObjectSymbol, SegmentFlags, SymbolKind};
use std::fs::File;
use std::ops::Range;

/// Larger tables are not read: 2.8 million symbols. A file claims what it likes.
const LARGEST_TABLE: u64 = 64 << 20;

/// A place in an executable file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The address that the file itself gives it, as `addr2line` takes it.
    pub(super) address: u64,
    /// The function that it lies in, and the distance from its start.
    pub(super) function: Option<(String, u64)>,
}

/// The places at these offsets, each the end of an instruction. `None`: the file is no ELF file.
pub(super) fn look_up(file: File, offsets: &[u64]) -> Option<Vec<Place>> {
    let cache = ReadCache::new(file);
    let elf = object::File::parse(Bounded(&cache)).ok()?;
    let code: Vec<Code> = elf.segments().filter_map(|segment| Code::of(&segment)).collect();
    let addresses: Vec<Option<u64>> = offsets.iter().map(|&offset| address(&code, offset)).collect();
    let mut found: Vec<Option<Found>> = vec![None; offsets.len()];
    search(elf.symbols(), &addresses, &mut found);
    // What was stripped still has the names that the dynamic linker needs.
    search(elf.dynamic_symbols(), &addresses, &mut found);
    let places = offsets.iter().zip(addresses).zip(found).map(|((&offset, address), found)| Place {
        address: address.unwrap_or(offset),
        function: found.zip(address).map(|(found, address)| (found.name, address - found.start)),
    });
    Some(places.collect())
}

/// A part of the file that is loaded to be run.
#[derive(Clone, Copy, Debug)]
struct Code {
    address: u64,
    offset: u64,
    size: u64,
}

impl Code {
    fn of<'data>(segment: &impl ObjectSegment<'data>) -> Option<Self> {
        let (offset, size) = segment.file_range();
        let SegmentFlags::Elf { p_flags } = segment.flags() else { return None };
        (p_flags & object::elf::PF_X != 0).then(|| Self { address: segment.address(), offset, size })
    }
}

/// The address at an offset: the linker lays them out apart from each other.
fn address(code: &[Code], offset: u64) -> Option<u64> {
    let part = code.iter().find(|part| offset > part.offset && offset - part.offset <= part.size)?;
    part.address.checked_add(offset - part.offset)
}

#[derive(Clone, Debug)]
struct Found {
    start: u64,
    name: String,
}

/// Goes through a table once, for all addresses that have no name yet.
fn search<'data, S: ObjectSymbol<'data>>(
    table: impl Iterator<Item = S>,
    addresses: &[Option<u64>],
    found: &mut [Option<Found>],
) {
    let open: Vec<(usize, u64)> = addresses
        .iter()
        .enumerate()
        .filter(|(at, _)| found[*at].is_none())
        .filter_map(|(at, address)| Some((at, (*address)?)))
        .collect();
    if open.is_empty() {
        return;
    }
    for symbol in table.filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition()) {
        let start = symbol.address();
        // The address is the end of an instruction, so it may be that of the function.
        for &(at, _) in
            open.iter().filter(|(_, address)| *address > start && address - start <= symbol.size())
        {
            let Ok(name) = symbol.name() else { continue };
            let better = found[at].as_ref().is_none_or(|other| {
                start > other.start || start == other.start && plainness(name) < plainness(&other.name)
            });
            if better {
                found[at] = Some(Found { start, name: name.to_owned() });
            }
        }
    }
}

/// Of the names of one function, `recv` and not `__libc_recv`.
fn plainness(name: &str) -> (usize, usize, &str) {
    (name.len() - name.trim_start_matches('_').len(), name.len(), name)
}

/// A file of which no large part is read at once.
#[derive(Clone, Copy, Debug)]
struct Bounded<'a>(&'a ReadCache<File>);

impl<'a> ReadRef<'a> for Bounded<'a> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        if size > LARGEST_TABLE {
            return Err(());
        }
        self.0.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        self.0.read_bytes_at_until(range, delimiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_one_of_the_code_that_lies_there() {
        // As lld lays it out: the page between two parts is in the file once and in memory twice.
        let code = [
            Code { address: 0x0020_1640, offset: 0x640, size: 0x1c0 },
            Code { address: 0x0020_3800, offset: 0x1800, size: 0x100 },
        ];
        assert_eq!(address(&code, 0x641), Some(0x0020_1641));
        assert_eq!(address(&code, 0x800), Some(0x0020_1800), "behind the last instruction");
        assert_eq!(address(&code, 0x1810), Some(0x0020_3810));
        assert_eq!(address(&code, 0x640), None);
        assert_eq!(address(&code, 0x801), None);
    }

    #[test]
    fn of_two_names_the_plain_one() {
        assert!(plainness("recv") < plainness("__recv"));
        assert!(plainness("__recv") < plainness("__libc_recv"));
    }

    #[test]
    fn a_file_that_is_no_program_has_no_places() {
        assert_eq!(
            look_up(File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap(), &[1]),
            None
        );
        assert_eq!(look_up(File::open("/dev/null").unwrap(), &[1]), None);
    }
}
