//! The flight ring: captures of the last hour, within so many bytes, in a folder of their own.

use crate::capture::Rotation;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Files that the ring consists of: the oldest goes as a whole.
const FILES: u64 = 8;
/// What its files are called, so that nothing else in the folder is ever removed.
const PREFIX: &str = "tcpwatch-";
const SUFFIX: &str = ".pcapng";

/// The bounds of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    pub folder: PathBuf,
    pub keep: Duration,
    /// Bytes.
    pub max: u64,
}

impl Ring {
    /// Files that each are a part of it. The folder is made if it is missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn rotation(&self) -> Result<Rotation> {
        std::fs::create_dir_all(&self.folder).with_context(|| {
            format!(
                "cannot make the folder {}\nhint: `ring.path` is for captures alone",
                self.folder.display()
            )
        })?;
        Ok(Rotation {
            path: self.folder.join(format!("{PREFIX}%F_%H-%M-%S{SUFFIX}")),
            // One more is being written.
            size: Some(self.max / (FILES + 1)),
            every: Some(self.keep / FILES as u32),
            files: None,
        })
    }

    /// Removes what is too old or too much, before another file begins. What cannot be removed is told, and tried again later.
    pub fn prune(&self, now: SystemTime) {
        let mut files = self.files();
        // Newest first.
        files.sort_by_key(|(_, _, at)| std::cmp::Reverse(*at));
        let room = self.max / (FILES + 1) * FILES;
        let mut sum = 0;
        for (number, (path, size, at)) in files.into_iter().enumerate() {
            sum += size;
            let old = now.duration_since(at).is_ok_and(|age| age > self.keep);
            // By number, too: the last bytes of a file may still be on their way to it, and none is longer than its share.
            let many = number as u64 >= FILES;
            if (old || many || sum > room)
                && let Err(error) = std::fs::remove_file(&path)
            {
                eprintln!("tcpwatch: cannot remove {}: {error}", path.display());
            }
        }
    }

    fn files(&self) -> Vec<(PathBuf, u64, SystemTime)> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let file = |entry: std::fs::DirEntry| {
            let name = entry.file_name();
            let is_ours = is_part(Path::new(&name));
            let metadata = entry.metadata().ok().filter(|metadata| is_ours && metadata.is_file())?;
            Some((entry.path(), metadata.len(), metadata.modified().ok()?))
        };
        entries.flatten().filter_map(file).collect()
    }
}

/// `tcpwatch-….pcapng`, and with the number that several in one second have.
fn is_part(name: &Path) -> bool {
    let Some(name) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { return false };
    let name = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    name.ends_with(SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("tcpwatch-ring-{}", std::process::id()));
        let ring = Ring { folder: folder.clone(), keep: Duration::from_secs(3600), max: 9_000 };
        let rotation = ring.rotation().unwrap();
        assert_eq!((rotation.size, rotation.every), (Some(1_000), Some(Duration::from_secs(450))));
        let now = SystemTime::now();
        let names =
            ["tcpwatch-a.pcapng", "tcpwatch-b.pcapng", "tcpwatch-c.pcapng1", "notes.txt", "other.pcapng"];
        for (age, name) in names.iter().enumerate() {
            let path = folder.join(name);
            std::fs::write(&path, vec![0; 4_000]).unwrap();
            let at = now - Duration::from_secs(100 * age as u64);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        }
        let left = || {
            let mut names: Vec<_> = std::fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        ring.prune(now);
        assert_eq!(
            left(),
            ["notes.txt", "other.pcapng", "tcpwatch-a.pcapng", "tcpwatch-b.pcapng"],
            "too much"
        );
        ring.prune(now + Duration::from_secs(3_550));
        assert_eq!(left(), ["notes.txt", "other.pcapng", "tcpwatch-a.pcapng"], "too old");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
