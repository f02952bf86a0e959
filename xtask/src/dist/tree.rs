//! A tree of files as a package carries it, and the archive of it: the same tree makes the same bytes, wherever and whenever.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
}

/// Files by their path, which begins with no `/`. Folders come of themselves, before what lies in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tree {
    files: BTreeMap<String, File>,
}

impl Tree {
    pub(super) fn file(&mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.with_mode(path, 0o644, content);
    }

    pub(super) fn program(&mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.with_mode(path, 0o755, content);
    }

    fn with_mode(&mut self, path: impl Into<String>, mode: u32, content: impl Into<Vec<u8>>) {
        self.files.insert(path.into(), File { mode, content: content.into() });
    }

    /// All of another tree, under a folder.
    pub(super) fn plant(&mut self, under: &str, other: &Self) {
        for (path, file) in &other.files {
            self.files.insert(format!("{under}/{path}"), file.clone());
        }
    }

    /// In the order of their paths.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &File)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file))
    }

    /// Every folder that something lies in, those above first.
    fn folders(&self) -> Vec<String> {
        let mut folders: Vec<String> = Vec::new();
        for path in self.files.keys() {
            folders.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
        }
        folders.sort();
        folders.dedup();
        folders
    }

    /// As a tar: all belongs to root and is of this time. `top` comes before each path.
    pub(super) fn tar(&self, top: &str, time: u64) -> Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        let header = |kind, mode, size| {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(size);
            header.set_mtime(time);
            header.set_uid(0);
            header.set_gid(0);
            header.set_username("root").and_then(|()| header.set_groupname("root")).map(|()| header)
        };
        let mut entries: BTreeMap<String, Option<&File>> =
            self.folders().into_iter().map(|folder| (format!("{folder}/"), None)).collect();
        entries.extend(self.files.iter().map(|(path, file)| (path.clone(), Some(file))));
        if top == "./" {
            // dpkg likes the root itself among the entries.
            entries.insert(String::new(), None);
        }
        for (path, file) in entries {
            let path = format!("{top}{path}");
            let (kind, mode, content) = match file {
                None => (EntryType::Directory, 0o755, [].as_slice()),
                Some(file) => (EntryType::Regular, file.mode, file.content.as_slice()),
            };
            let added = header(kind, mode, content.len() as u64).and_then(|mut header| {
                match header.as_gnu_mut().and_then(|header| header.name.get_mut(..path.len())) {
                    // As it is: the library would take the `./` away, which dpkg's own packages have.
                    Some(name) => {
                        name.copy_from_slice(path.as_bytes());
                        header.set_cksum();
                        builder.append(&header, content)
                    }
                    None => builder.append_data(&mut header, &path, content),
                }
            });
            added.with_context(|| format!("cannot archive {path}"))?;
        }
        builder.into_inner().context("cannot end an archive")
    }
}

/// Packed, with neither name nor time of its own.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    packer.write_all(bytes).and_then(|()| packer.finish()).context("cannot pack")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(order: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for path in order {
            tree.file(*path, path.as_bytes());
        }
        tree.program("usr/bin/x", "x");
        tree
    }

    #[test]
    fn the_same_tree_makes_the_same_bytes() {
        let one = tree(&["usr/share/a", "etc/b", "usr/share/c"]);
        let other = tree(&["usr/share/c", "usr/share/a", "etc/b"]);
        assert_eq!(one.tar("./", 1_700_000_000).unwrap(), other.tar("./", 1_700_000_000).unwrap());
        let packed = gzip(&one.tar("", 1).unwrap()).unwrap();
        assert_eq!(packed, gzip(&other.tar("", 1).unwrap()).unwrap());
        assert_eq!(packed[4..8], [0; 4], "no time in the header");
    }

    #[test]
    fn folders_come_before_what_lies_in_them_and_all_is_roots() {
        let bytes = tree(&["etc/b", "usr/share/a"]).tar("./", 7).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut paths = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 7));
            assert_eq!(header.username().unwrap(), Some("root"));
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            assert_eq!(
                header.mode().unwrap() & 0o100 != 0,
                path.ends_with('/') || path.ends_with("/x"),
                "{path}"
            );
            paths.push(path);
        }
        let expected = [
            "./",
            "./etc/",
            "./etc/b",
            "./usr/",
            "./usr/bin/",
            "./usr/bin/x",
            "./usr/share/",
            "./usr/share/a",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn long_paths_survive() {
        let long = format!("{}/{}", "a".repeat(120), "b".repeat(120));
        let bytes = tree(&[&long]).tar("x/", 7).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let found = archive
            .entries()
            .unwrap()
            .any(|entry| *entry.unwrap().path_bytes() == *format!("x/{long}").as_bytes());
        assert!(found);
    }
}
