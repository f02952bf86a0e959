//! Whether a binary runs anywhere: it names no loader.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Whether an ELF file runs without a loader and without libraries.
pub(crate) fn is_static(file: &Path) -> Result<bool> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    match has_interpreter(&bytes) {
        Some(dynamic) => Ok(!dynamic),
        None => bail!("{} is no 64-bit ELF file", file.display()),
    }
}

/// Whether one of the program headers names a loader. `None` if this is no little-endian 64-bit ELF file.
fn has_interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u64 = 3;
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, size: usize| {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)))
    };
    let table = usize::try_from(number(32, 8)?).ok()?;
    let (size, count) = (number(54, 2)? as usize, number(56, 2)? as usize);
    for i in 0..count {
        if number(table.checked_add(i * size)?, 4)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and program headers of these types.
    fn elf(types: &[u32]) -> Vec<u8> {
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = u8::try_from(types.len()).unwrap();
        for kind in types {
            let at = elf.len();
            elf.resize(at + 56, 0);
            elf[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        }
        elf
    }

    #[test]
    fn the_loader_gives_a_dynamic_file_away() {
        assert_eq!(has_interpreter(&elf(&[6, 3, 1])), Some(true));
        assert_eq!(has_interpreter(&elf(&[1, 1, 7])), Some(false));
        assert_eq!(has_interpreter(b"#!/bin/sh\n"), None);
        assert_eq!(has_interpreter(&elf(&[1, 1])[..100]), None);
    }
}
