//! The bytes of a kernel's types: five megabytes, of which a few kilobytes are wanted.

use crate::mapping::Mapping;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;

/// Bytes that were read, or those that the kernel itself has.
pub struct Bytes(Held);

enum Held {
    Read(Vec<u8>),
    Mapped { pages: Mapping, length: usize },
}

impl Bytes {
    /// What the running kernel shows in `path`: not copied where the kernel allows to look at its own (since 6.16).
    pub fn of_kernel(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if let Ok(pages) = Mapping::constant(&file, length) {
            return Ok(Self(Held::Mapped { pages, length }));
        }
        let mut bytes = Vec::with_capacity(length);
        file.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Held::Read(bytes))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Read(bytes) => bytes,
            // SAFETY: only the kernel's own types are mapped, which stay as they are as long as it runs.
            Held::Mapped { pages, length } => unsafe { pages.bytes(0, *length) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAGIC;
    use super::*;

    #[test]
    fn the_running_kernel_shows_what_it_has() {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        // A kernel may have been built without.
        let Ok(read) = std::fs::read(path) else { return };
        let bytes = Bytes::of_kernel(path).unwrap();
        assert!(*bytes == *read, "{} bytes of {}", bytes.len(), read.len());
        assert_eq!(bytes[..2], MAGIC.to_ne_bytes());
    }
}
