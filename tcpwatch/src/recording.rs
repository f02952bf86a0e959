//! Raw records in a file, as they left the kernel: what tests replay. `TCPWATCH_RECORD=FILE` makes one.
//!
//! Each record is preceded by its length, four bytes little-endian. `FILE.symbols` has the functions on their stacks in the
//! format of `/proc/kallsyms`; the types of the kernel, which its reasons have their names from, are to be had elsewhere.

use crate::decode::{Raw, decode};
use crate::kernel::symbols::Symbols;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes what passes.
pub struct Recorder {
    records: BufWriter<File>,
    path: PathBuf,
    /// Functions by their start.
    functions: BTreeMap<u64, String>,
}

impl Recorder {
    /// Where the environment asks for one.
    pub fn from_environment() -> Result<Option<Self>> {
        let Some(path) = std::env::var_os("TCPWATCH_RECORD").map(PathBuf::from) else { return Ok(None) };
        let file = File::create(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Some(Self { records: BufWriter::new(file), path, functions: BTreeMap::new() }))
    }

    pub fn take(&mut self, bytes: &[u8], symbols: &Symbols) -> Result<()> {
        let length = u32::try_from(bytes.len()).context("a record of more than 4 GiB")?;
        self.records.write_all(&length.to_le_bytes())?;
        self.records.write_all(bytes)?;
        if let Ok(Raw::Event(record)) = decode(bytes) {
            for address in record.stack.iter().take(record.frames as usize) {
                if let Some((name, offset)) = symbols.resolve(*address) {
                    self.functions.insert(address - offset, name.to_owned());
                }
            }
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<()> {
        self.records.flush()?;
        let mut path = self.path.into_os_string();
        path.push(".symbols");
        let mut symbols = BufWriter::new(File::create(path)?);
        for (start, name) in &self.functions {
            writeln!(symbols, "{start:016x} t {name}")?;
        }
        symbols.flush()?;
        Ok(())
    }
}

/// Reads a recording back.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>> {
    let data = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut records = Vec::new();
    let mut rest = &data[..];
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        ensure!(behind.len() >= length, "`{}` is cut off in record {}", path.display(), records.len());
        let (record, behind) = behind.split_at(length);
        records.push(record.to_vec());
        rest = behind;
    }
    ensure!(rest.is_empty(), "`{}` is cut off after record {}", path.display(), records.len());
    Ok(records)
}
