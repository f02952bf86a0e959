//! The archive format of an initramfs ("newc"): the kernel unpacks it into its first root folder.

use std::collections::BTreeSet;
use std::path::Path;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// An archive that grows in memory. It stays uncompressed: QEMU hands it over faster than an emulated CPU could inflate it.
#[derive(Default)]
pub(super) struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
    made: BTreeSet<String>,
}

impl Cpio {
    /// A folder and those above it; those that are there already stay.
    pub(super) fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.made.contains(path) {
            return;
        }
        self.parent(path);
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// A file; a second one of the same path is ignored, so the more important comes first.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.trim_matches('/');
        self.parent(path);
        self.entry(path, FILE | mode, (0, 0), content);
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        let path = path.trim_matches('/');
        self.parent(path);
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes());
    }

    /// A character device: the kernel opens /dev/console before any file system is mounted.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) {
        let path = path.trim_matches('/');
        self.parent(path);
        self.entry(path, CHARACTER | 0o600, (major, minor), &[]);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn parent(&mut self, path: &str) {
        if let Some(parent) = Path::new(path).parent().and_then(Path::to_str) {
            self.folder(parent);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        if !self.made.insert(path.to_owned()) {
            return;
        }
        self.entries += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        // inode, mode, uid, gid, links, time, size, device of the archive, device of the node, length of the name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_name_and_content_are_aligned() {
        let mut cpio = Cpio::default();
        cpio.file("/bin/x", 0o755, b"hello");
        let bytes = cpio.finish();
        // `bin` comes before `bin/x`; each header has 110 bytes.
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[110..114], b"bin\0");
        let second = (110_usize + 4).next_multiple_of(4);
        assert_eq!(&bytes[second..second + 6], b"070701");
        assert_eq!(&bytes[second + 14..second + 22], b"000081ed");
        let content = (second + 110 + 6).next_multiple_of(4);
        assert_eq!(&bytes[content..content + 5], b"hello");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn the_first_of_two_wins() {
        let mut cpio = Cpio::default();
        cpio.file("a", 0o644, b"first");
        cpio.link("a", "second");
        let bytes = cpio.finish();
        assert!(!bytes.windows(6).any(|part| part == b"second"));
    }
}
