//! Bytes of x86-64 text and data: where they lead to one of a few addresses.
//!
//! [`candidates`] looks at every byte and is quick; a number that looks right may be part of anything. [`confirm`]
//! decodes from the start of the function and tells what the instruction there really is.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use std::ops::Range;

/// An instruction is no longer.
pub(super) const LONGEST_INSTRUCTION: u64 = 15;

/// How far a jump of two bytes reaches, and its own length.
const SHORT: u64 = 130;

/// A function is also entered behind the `endbr64` at its start.
const ENDBR: u64 = 4;

/// One place where a target begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// From the padding before it, if that has a name (calls are led through it where the kernel counts their depth or
    /// checks their type), to behind its `endbr64`.
    range: Range<u64>,
    /// The symbol's address: what a pointer holds.
    start: u64,
    /// Which target.
    pub(super) target: usize,
}

/// The entries of all targets.
#[derive(Debug, Default)]
pub(super) struct Entries {
    list: Vec<Entry>,
    /// Which low halves of addresses are worth a second look, a bit each: nearly none.
    low: Vec<u64>,
}

impl Entries {
    pub(super) fn add(&mut self, target: usize, start: u64, padding: Option<u64>) {
        let range = padding.unwrap_or(start)..start + ENDBR + 1;
        if self.low.is_empty() {
            self.low = vec![0; (1 << 16) / 64];
        }
        for address in range.clone() {
            self.low[usize::from(address as u16) / 64] |= 1 << (address % 64);
        }
        self.list.push(Entry { range, start, target });
    }

    /// The target that is entered there.
    fn entered(&self, address: u64) -> Option<&Entry> {
        if !self.maybe(address) {
            return None;
        }
        // Within the range only these are entries: the rest lies inside of instructions.
        let enters = |entry: &&Entry| {
            entry.range.contains(&address) && (address <= entry.start || address == entry.start + ENDBR)
        };
        self.list.iter().find(enters)
    }

    /// The target that a pointer of this value points to.
    fn pointed(&self, value: u64) -> Option<&Entry> {
        if !self.maybe(value) {
            return None;
        }
        self.list.iter().find(|entry| entry.start == value)
    }

    fn maybe(&self, address: u64) -> bool {
        let word = self.low.get(usize::from(address as u16) / 64);
        word.is_some_and(|word| word & (1 << (address % 64)) != 0)
    }

    /// Addresses from which two bytes could jump to an entry.
    pub(super) fn neighbourhoods(&self) -> impl Iterator<Item = Range<u64>> {
        self.list
            .iter()
            .map(|entry| entry.range.start.saturating_sub(SHORT)..entry.range.end.saturating_add(SHORT))
    }
}

/// How a place leads to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// An instruction that calls it, or jumps to it at the end of a function.
    Call,
    /// Something that holds its address: an instruction, or a variable.
    Pointer,
}

/// What stands at a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An instruction that leads to this target.
    Leads(usize, How),
    /// Part of an instruction that means something else.
    Nothing,
    /// Bytes before it are no instructions, so that nobody knows where one begins. Counted: better one too many.
    Unclear(usize),
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// Addresses of four-byte fields that may lead to an entry, relative to the instruction's end or as they stand. `base`
/// is the address of the first byte; a field that is cut off at the end belongs to the next piece.
pub(super) fn candidates(base: u64, bytes: &[u8], entries: &Entries) -> Vec<u64> {
    let mut found = Vec::new();
    for (at, field) in bytes.windows(4).enumerate() {
        let address = base + at as u64;
        if aims(address, field, entries).is_some() {
            found.push(address);
        }
    }
    found
}

/// The target of a four-byte field, if it were one.
fn aims(address: u64, field: &[u8], entries: &Entries) -> Option<usize> {
    let value = i64::from(number(field)?.cast_signed()).cast_unsigned();
    let relative = address.wrapping_add(4).wrapping_add(value);
    entries.entered(relative).or_else(|| entries.pointed(value)).map(|entry| entry.target)
}

/// The same for jumps whose field is one byte.
pub(super) fn short_candidates(base: u64, bytes: &[u8], entries: &Entries) -> Vec<u64> {
    let mut found = Vec::new();
    for (at, pair) in bytes.windows(2).enumerate() {
        let &[opcode, field] = pair else { continue };
        let address = base + at as u64 + 1;
        if matches!(opcode, 0x70..=0x7f | 0xeb) && short_aims(address, field, entries).is_some() {
            found.push(address);
        }
    }
    found
}

fn short_aims(address: u64, field: u8, entries: &Entries) -> Option<usize> {
    let distance = i64::from(field.cast_signed()).cast_unsigned();
    entries.entered(address.wrapping_add(1).wrapping_add(distance)).map(|entry| entry.target)
}

/// Decodes a function from its start, up to the instruction that holds the candidate. `bytes` must reach behind that.
pub(super) fn confirm(start: u64, bytes: &[u8], candidate: u64, entries: &Entries) -> Found {
    let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut lost = false;
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        lost |= instruction.is_invalid();
        if instruction.next_ip() <= candidate {
            continue;
        }
        return match leads(&instruction, entries) {
            Some((target, how)) => Found::Leads(target, how),
            None if lost => unclear(start, bytes, candidate, entries),
            None => Found::Nothing,
        };
    }
    unclear(start, bytes, candidate, entries)
}

fn unclear(start: u64, bytes: &[u8], candidate: u64, entries: &Entries) -> Found {
    let at = usize::try_from(candidate - start).unwrap_or(usize::MAX);
    let field = bytes.get(at..).unwrap_or_default();
    let long = aims(candidate, field, entries);
    let short = || short_aims(candidate, *field.first()?, entries);
    long.or_else(short).map_or(Found::Nothing, Found::Unclear)
}

fn leads(instruction: &Instruction, entries: &Entries) -> Option<(usize, How)> {
    if instruction.op0_kind() == OpKind::NearBranch64 {
        let entry = entries.entered(instruction.near_branch64())?;
        return Some((entry.target, How::Call));
    }
    let held = (0..instruction.op_count()).find_map(|operand| match instruction.op_kind(operand) {
        OpKind::Immediate64 | OpKind::Immediate32to64 | OpKind::Immediate32 => {
            entries.pointed(instruction.immediate(operand))
        }
        OpKind::Memory
            if instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand() =>
        {
            entries.pointed(instruction.ip_rel_memory_address())
        }
        _ => None,
    });
    held.map(|entry| (entry.target, How::Pointer))
}

/// Addresses and targets of the pointers in data. `base` is the address of the first byte, a multiple of 8.
pub(super) fn pointers(base: u64, bytes: &[u8], entries: &Entries) -> Vec<(u64, usize)> {
    let mut found = Vec::new();
    for (at, word) in bytes.chunks_exact(8).enumerate() {
        let Ok(word) = word.try_into() else { continue };
        if let Some(entry) = entries.pointed(u64::from_le_bytes(word)) {
            found.push((base + 8 * at as u64, entry.target));
        }
    }
    found
}

#[cfg(test)]
mod tests;
