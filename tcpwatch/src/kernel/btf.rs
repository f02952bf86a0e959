//! A reader for BTF, the kernel's own description of its types (`Documentation/bpf/btf.rst`).
//!
//! Only what tcpwatch asks is offered: where a member lies, what an enum's values are called, how many arguments a function
//! or tracepoint has. aya's reader keeps members and enum values to itself.

mod bytes;
mod prototype;
mod reduce;

pub use bytes::Bytes;
pub use reduce::Keep;

use anyhow::{Context, Result, bail, ensure};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

const MAGIC: u16 = 0xeb9f;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FWD: u32 = 7;
pub(crate) const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
pub(crate) const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_FLOAT: u32 = 16;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Bytes of `struct btf_type`.
const TYPE_BYTES: usize = 12;
/// What one section of types and one of strings are as BTF.
///
/// # Errors
/// One of them is longer than BTF can say.
///
/// kernel: v5.10.. include/uapi/linux/btf.h `struct btf_header`
pub(crate) fn assemble(types: &[u8], strings: &[u8]) -> Result<Vec<u8>> {
    let lengths = (u32::try_from(types.len())?, u32::try_from(strings.len())?);
    let mut data = MAGIC.to_le_bytes().to_vec();
    // Version and flags, then header length, then offset and length of both sections.
    data.extend([1, 0]);
    for word in [24, 0, lengths.0, lengths.0, lengths.1] {
        data.extend(word.to_le_bytes());
    }
    data.extend(types);
    data.extend(strings);
    Ok(data)
}

/// The name of the type by which programs are attached to a tracepoint.
pub(crate) fn tracepoint_type(name: &str) -> String {
    format!("btf_trace_{name}")
}

/// How deep structures and typedefs may nest before the data is taken for broken.
const DEPTH: u32 = 32;

/// A kernel's types.
pub struct Btf {
    data: Bytes,
    /// Where the strings begin in `data`, and where they end.
    strings: Range<usize>,
    /// Where type `id` begins in `data`; entry 0 is `void`.
    types: Vec<u32>,
    /// Types by (kind, name), of the kinds and names that were asked for.
    index: HashMap<(u32, String), u32>,
}

#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    entries: usize,
    bitfields: bool,
    /// Size or referenced type.
    other: u32,
}

impl Btf {
    /// Parses raw BTF and finds the types with the given names; no others can be asked for later.
    pub fn parse(data: impl Into<Bytes>, names: &[&str]) -> Result<Self> {
        let data = data.into();
        let bytes: &[u8] = &data;
        ensure!(bytes.len() >= 24, "BTF of {} bytes is no BTF", bytes.len());
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let field =
            |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        ensure!(half(0) == MAGIC, "no BTF: it begins with {:#06x} and not {MAGIC:#06x}", half(0));
        let header = field(4);
        let section = |offset: usize, length: usize, what: &str| -> Result<Range<usize>> {
            let start = header.checked_add(field(offset)).context("BTF header overflows")?;
            let end = start.checked_add(field(length)).context("BTF header overflows")?;
            ensure!(end <= bytes.len(), "BTF is cut off: its {what} end at byte {end} of {}", bytes.len());
            Ok(start..end)
        };
        let type_bytes = section(8, 12, "types")?;
        let strings = section(16, 20, "strings")?;
        let wanted = Wanted::find(&bytes[strings.clone()], names);
        let mut index = HashMap::new();
        let mut types = Vec::with_capacity(type_bytes.len() / 20);
        types.push(0);
        let mut at = type_bytes.start;
        while at < type_bytes.end {
            let ty = read_type(bytes, at).with_context(|| format!("BTF type {} is cut off", types.len()))?;
            if matches!(ty.kind, KIND_STRUCT | KIND_ENUM | KIND_ENUM64 | KIND_FUNC | KIND_TYPEDEF)
                && let Some(name) = wanted.get(ty.name)
            {
                let id = u32::try_from(types.len()).context("too many BTF types")?;
                let kind = if ty.kind == KIND_ENUM64 { KIND_ENUM } else { ty.kind };
                // The first one wins: later namesakes are private to one source file.
                index.entry((kind, name.to_owned())).or_insert(id);
            }
            types.push(u32::try_from(at).context("BTF is too large")?);
            let rest = match ty.kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => ty.entries * 12,
                KIND_ENUM | KIND_FUNC_PROTO => ty.entries * 8,
                1..=KIND_ENUM64 => 0,
                other => bail!("BTF type {} is of kind {other}, which is not known", types.len() - 1),
            };
            at += TYPE_BYTES + rest;
        }
        Ok(Self { strings, types, index, data })
    }

    fn word(&self, at: usize) -> Option<u32> {
        word(&self.data, at)
    }

    fn read_type(&self, at: usize) -> Option<Type> {
        read_type(&self.data, at)
    }

    fn by_id(&self, id: u32) -> Option<Type> {
        if id == 0 { None } else { self.read_type(*self.types.get(id as usize)? as usize) }
    }

    fn by_name(&self, kind: u32, name: &str) -> Option<Type> {
        self.by_id(*self.index.get(&(kind, name.to_owned()))?)
    }

    /// The number of a function's type.
    pub fn function_id(&self, name: &str) -> Option<u32> {
        self.index.get(&(KIND_FUNC, name.to_owned())).copied()
    }

    /// The number of the type by which programs are attached to a tracepoint.
    pub fn tracepoint_id(&self, name: &str) -> Option<u32> {
        self.index.get(&(KIND_TYPEDEF, tracepoint_type(name))).copied()
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        for _ in 0..DEPTH {
            let ty = self.by_id(id)?;
            match ty.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => id = ty.other,
                _ => return Some(ty),
            }
        }
        None
    }

    fn string(&self, offset: u32) -> &str {
        let start = self.strings.start + offset as usize;
        let Some(bytes) = self.data.get(start..self.strings.end) else { return "" };
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).unwrap_or("")
    }

    /// Byte offset of a member of a structure. The path's members are separated by dots; anonymous structures and unions
    /// are looked through. `None` where there is no such member, or it is a bitfield.
    pub fn offset_of(&self, structure: &str, path: &str) -> Option<u32> {
        self.walk(structure, path, &mut Vec::new())
    }

    /// The same, and takes down where each member on the way is described: as positions in `data`.
    fn walk(&self, structure: &str, path: &str, trail: &mut Vec<usize>) -> Option<u32> {
        let mut ty = self.by_name(KIND_STRUCT, structure)?;
        let mut bits = 0u32;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let (offset, member) = self.member(ty, part, 0, &mut HashSet::new(), trail)?;
            bits = bits.checked_add(offset)?;
            if parts.peek().is_some() {
                ty = self.resolve(member)?;
            }
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Whether the string at an offset is this one. The whole of it is not looked for: where types are damaged it may be long.
    fn is_string(&self, offset: u32, text: &str) -> bool {
        let at = self.strings.start + offset as usize;
        let bytes = self.data.get(at..self.strings.end);
        let rest = bytes.and_then(|bytes| bytes.strip_prefix(text.as_bytes()));
        rest.is_some_and(|rest| rest.first().is_none_or(|byte| *byte == 0))
    }

    /// Offset in bits and type of a member.
    ///
    /// Each anonymous type is looked through once, by its position in `seen`: what has no such member in one place has none in
    /// another, and in damaged types they lie in each other, so that there would be more ways through them than time.
    fn member(
        &self,
        ty: Type,
        name: &str,
        depth: u32,
        seen: &mut HashSet<usize>,
        trail: &mut Vec<usize>,
    ) -> Option<(u32, u32)> {
        if !matches!(ty.kind, KIND_STRUCT | KIND_UNION) || depth > DEPTH {
            return None;
        }
        for i in 0..ty.entries {
            let at = ty.at + TYPE_BYTES + i * 12;
            let (name_at, id, raw) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            let (offset, width) = if ty.bitfields { (raw & 0x00ff_ffff, raw >> 24) } else { (raw, 0) };
            if self.is_string(name_at, name) {
                trail.push(at);
                return (width == 0).then_some((offset, id));
            }
            if self.is_string(name_at, "")
                && let Some(inner) = self.resolve(id)
                && seen.insert(inner.at)
                && let Some((inner, id)) = self.member(inner, name, depth + 1, seen, trail)
            {
                trail.push(at);
                return Some((offset.checked_add(inner)?, id));
            }
        }
        None
    }

    /// Number and name of each value of an enum, in the kernel's order. Empty where the kernel has no such enum.
    pub fn enum_values(&self, name: &str) -> Vec<(u32, String)> {
        let Some(ty) = self.by_name(KIND_ENUM, name) else { return Vec::new() };
        let stride = if ty.kind == KIND_ENUM64 { 12 } else { 8 };
        (0..ty.entries)
            .filter_map(|i| {
                let at = ty.at + TYPE_BYTES + i * stride;
                Some((self.word(at + 4)?, self.string(self.word(at)?).to_owned()))
            })
            .collect()
    }

    /// How many arguments a function has; `None` for one that cannot be hooked by its type.
    pub fn function_args(&self, name: &str) -> Option<u32> {
        let function = self.by_name(KIND_FUNC, name)?;
        self.proto_args(function.other)
    }

    /// How many arguments a tracepoint hands to its programs: those of its `btf_trace_NAME` prototype without the first,
    /// which is the kernel's own.
    pub fn tracepoint_args(&self, name: &str) -> Option<u32> {
        let typedef = self.by_name(KIND_TYPEDEF, &tracepoint_type(name))?;
        let pointer = self.resolve(typedef.other)?;
        if pointer.kind != KIND_PTR {
            return None;
        }
        self.proto_args(pointer.other)?.checked_sub(1)
    }

    fn proto_args(&self, id: u32) -> Option<u32> {
        let proto = self.resolve(id)?;
        (proto.kind == KIND_FUNC_PROTO).then(|| u32::try_from(proto.entries).ok()).flatten()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn read_type(bytes: &[u8], at: usize) -> Option<Type> {
    let info = word(bytes, at + 4)?;
    Some(Type {
        at,
        name: word(bytes, at)?,
        kind: info >> 24 & 31,
        entries: (info & 0xffff) as usize,
        bitfields: info >> 31 == 1,
        other: word(bytes, at + 8)?,
    })
}

/// Where the wanted names lie among the strings. A kernel has 150,000 names: nearly all of them, and nearly all types that bear
/// them, are told from the wanted ones without a look into a table.
struct Wanted<'a> {
    names: HashMap<u32, &'a str>,
    /// A bit for each place among the strings.
    marks: Vec<u64>,
}

impl<'a> Wanted<'a> {
    fn find(strings: &[u8], names: &[&'a str]) -> Self {
        let by_bytes: HashMap<&[u8], &str> = names.iter().map(|name| (name.as_bytes(), *name)).collect();
        // A bit for each length, by the first byte and by the last: few names that are not wanted agree with both.
        let mut lengths = [[0_u64; 2]; 256];
        let ends = |name: &[u8]| Some((usize::from(*name.first()?), usize::from(*name.last()?)));
        let length_bit = |name: &[u8]| 1 << name.len().min(63);
        for name in by_bytes.keys() {
            if let Some((first, last)) = ends(name) {
                lengths[first][0] |= length_bit(name);
                lengths[last][1] |= length_bit(name);
            }
        }
        let may_be_wanted = |name: &[u8]| {
            ends(name)
                .is_some_and(|(first, last)| lengths[first][0] & lengths[last][1] & length_bit(name) != 0)
        };
        let mut wanted = Self { names: HashMap::new(), marks: vec![0; strings.len() / 64 + 1] };
        let mut start = 0;
        for end in memchr::memchr_iter(0, strings) {
            let string = &strings[start..end];
            if may_be_wanted(string)
                && let (Some(name), Ok(at)) = (by_bytes.get(string), u32::try_from(start))
            {
                wanted.names.insert(at, *name);
                wanted.marks[start / 64] |= 1 << (start % 64);
            }
            start = end + 1;
        }
        wanted
    }

    /// The name at a place among the strings, if it is wanted.
    fn get(&self, at: u32) -> Option<&'a str> {
        let mark = self.marks.get(at as usize / 64).is_some_and(|marks| marks >> (at % 64) & 1 == 1);
        if mark { self.names.get(&at).copied() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds BTF by hand: strings and types in the order of ids.
    #[derive(Default)]
    struct Builder {
        strings: Vec<u8>,
        types: Vec<u8>,
    }

    impl Builder {
        fn name(&mut self, name: &str) -> u32 {
            if self.strings.is_empty() {
                self.strings.push(0);
            }
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(name.as_bytes());
            self.strings.push(0);
            at
        }

        fn ty(&mut self, name: &str, kind: u32, flag: u32, other: u32, entries: &[&[u32]]) {
            let name = self.name(name);
            for word in [name, flag << 31 | kind << 24 | entries.len() as u32, other] {
                self.types.extend(word.to_le_bytes());
            }
            for word in entries.iter().copied().flatten() {
                self.types.extend(word.to_le_bytes());
            }
        }

        fn build(self) -> Vec<u8> {
            let mut data = vec![0x9f, 0xeb, 1, 0];
            for word in [24, 0, self.types.len() as u32, self.types.len() as u32, self.strings.len() as u32] {
                data.extend(word.to_le_bytes());
            }
            data.extend(&self.types);
            data.extend(&self.strings);
            data
        }
    }

    fn sample() -> Btf {
        let mut b = Builder::default();
        let (x, y, bit) = (b.name("x"), b.name("y"), b.name("bit"));
        // 1: int
        b.ty("int", KIND_INT, 0, 4, &[&[32]]);
        // 2: anonymous union { int y }
        b.ty("", KIND_UNION, 0, 4, &[&[y, 1, 0]]);
        // 3: struct inner { int x; union { int y }; int bit:1 }
        b.ty("inner", KIND_STRUCT, 1, 12, &[&[x, 1, 0], &[0, 2, 32], &[bit, 1, 1 << 24 | 64]]);
        // 4: typedef inner inner_t
        b.ty("inner_t", KIND_TYPEDEF, 0, 3, &[]);
        // 5: struct outer { int x; inner_t y }
        b.ty("outer", KIND_STRUCT, 0, 16, &[&[x, 1, 0], &[y, 4, 32]]);
        // 6: enum
        let (red, green) = (b.name("RED"), b.name("GREEN"));
        b.ty("colour", KIND_ENUM, 0, 4, &[&[red, 0], &[green, 7]]);
        // 7: void (*)(void *, int, int), 8: function of it, 9: pointer, 10: tracepoint
        b.ty("", KIND_FUNC_PROTO, 0, 0, &[&[0, 0], &[0, 1], &[0, 1]]);
        b.ty("paint", KIND_FUNC, 0, 7, &[]);
        b.ty("", KIND_PTR, 0, 7, &[]);
        b.ty("btf_trace_painted", KIND_TYPEDEF, 0, 9, &[]);
        Btf::parse(b.build(), &["inner", "outer", "colour", "paint", "btf_trace_painted"]).unwrap()
    }

    #[test]
    fn members_are_found_through_typedefs_and_anonymous_unions() {
        let btf = sample();
        assert_eq!(btf.offset_of("outer", "x"), Some(0));
        assert_eq!(btf.offset_of("outer", "y.x"), Some(4));
        assert_eq!(btf.offset_of("outer", "y.y"), Some(8));
    }

    #[test]
    fn anonymous_types_that_lie_in_each_other_are_looked_through_once() {
        let mut b = Builder::default();
        let x = b.name("x");
        b.ty("int", KIND_INT, 0, 4, &[&[32]]);
        // 2 and 3: each has the other, and itself, twice. There are 4 to the power of the depth ways through them.
        let all: [&[u32]; 4] = [&[0, 2, 0], &[0, 3, 0], &[0, 2, 0], &[0, 3, 0]];
        b.ty("", KIND_UNION, 0, 4, &all);
        b.ty("", KIND_STRUCT, 0, 4, &all);
        b.ty("outer", KIND_STRUCT, 0, 8, &[&[0, 2, 0], &[0, 3, 32], &[x, 1, 64]]);
        let btf = Btf::parse(b.build(), &["outer"]).unwrap();
        assert_eq!(btf.offset_of("outer", "missing"), None);
        assert_eq!(btf.offset_of("outer", "x"), Some(8));
    }

    #[test]
    fn what_is_not_there_is_none() {
        let btf = sample();
        assert_eq!(btf.offset_of("outer", "z"), None);
        assert_eq!(btf.offset_of("missing", "x"), None);
        assert_eq!(btf.offset_of("inner", "bit"), None, "a bitfield has no byte of its own");
        assert_eq!(btf.function_args("missing"), None);
        assert!(btf.enum_values("missing").is_empty());
    }

    #[test]
    fn enums_functions_and_tracepoints() {
        let btf = sample();
        assert_eq!(btf.enum_values("colour"), [(0, "RED".to_owned()), (7, "GREEN".to_owned())]);
        assert_eq!(btf.function_args("paint"), Some(3));
        assert_eq!(btf.tracepoint_args("painted"), Some(2));
    }

    #[test]
    fn a_reduced_copy_answers_as_the_original() {
        let keep = Keep {
            fields: &[("outer", "y.y"), ("outer", "z")],
            enums: &["colour"],
            functions: &["paint", "missing"],
            tracepoints: &["painted"],
        };
        let copy = sample().reduce(&keep).unwrap();
        let btf = Btf::parse(copy, &["outer", "colour", "paint", "btf_trace_painted"]).unwrap();
        assert_eq!(btf.offset_of("outer", "y.y"), Some(8));
        assert_eq!(btf.offset_of("outer", "y.x"), None, "nobody asked for it");
        assert_eq!(btf.by_name(KIND_STRUCT, "outer").unwrap().other, 16, "the size stays");
        assert_eq!(btf.enum_values("colour"), [(0, "RED".to_owned()), (7, "GREEN".to_owned())]);
        assert_eq!(btf.function_prototype("paint").unwrap(), "void paint(void, int, int)");
        assert_eq!(btf.tracepoint_prototype("painted").unwrap(), "(int, int)");
    }

    #[test]
    fn broken_data_is_refused_with_a_sentence() {
        for (data, says) in [
            (vec![], "is no BTF"),
            (vec![0; 24], "begins with 0x0000"),
            ([&[0x9f, 0xeb, 1, 0, 24, 0, 0, 0][..], &[0xff; 16]].concat(), "BTF"),
        ] {
            let error = format!("{:#}", Btf::parse(data, &[]).err().unwrap());
            assert!(error.contains(says), "{error}");
        }
    }
}
