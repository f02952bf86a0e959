//! `/proc/kallsyms` as somebody else opened it.
//!
//! The kernel asks for CAP_SYSLOG when that file is opened, not when it is read. So a service manager can open it as root and
//! hand it over as standard input (`StandardInput=file:/proc/kallsyms`): then the service itself needs neither the capability
//! nor the way to the file.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

/// The file from its start, wherever others who share the descriptor are.
#[derive(Debug)]
pub struct Inherited {
    file: File,
    at: u64,
}

/// Standard input, if it is that file.
pub fn inherited() -> Option<Inherited> {
    let stdin = io::stdin();
    is_symbols(stdin.as_fd())
        .then(|| stdin.as_fd().try_clone_to_owned().ok())
        .flatten()
        .map(|file| Inherited { file: file.into(), at: 0 })
}

/// Its name alone would be anybody's: it must lie in a file system of the kernel's.
fn is_symbols(file: impl AsFd) -> bool {
    let of = file.as_fd();
    let in_proc = rustix::fs::fstatfs(of).is_ok_and(|of| of.f_type == rustix::fs::PROC_SUPER_MAGIC);
    let link = std::fs::read_link(format!("/proc/self/fd/{}", of.as_raw_fd()));
    // In a mount namespace of our own the path to it may begin nowhere.
    in_proc && link.is_ok_and(|path| path.ends_with("kallsyms"))
}

impl Read for Inherited {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(into, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::symbols::FILE;

    #[test]
    fn only_the_kernels_own_file_is_taken() {
        assert!(is_symbols(File::open(FILE).unwrap()));
        assert!(!is_symbols(File::open("/proc/self/status").unwrap()), "another file of the kernel");
        let path = std::env::temp_dir().join(format!("tcpwatch-{}-kallsyms", std::process::id()));
        std::fs::write(&path, "ffffffff81000000 T _text\n").unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!is_symbols(file), "a file that calls itself so");
    }

    #[test]
    fn it_is_read_from_the_start_each_time() {
        let file = File::open(FILE).unwrap();
        let read = || {
            let mut text = String::new();
            let file = Inherited { file: file.try_clone().unwrap(), at: 0 };
            file.take(100).read_to_string(&mut text).unwrap();
            text
        };
        let first = read();
        assert!(first.len() == 100 && first == read(), "{first}");
    }
}
