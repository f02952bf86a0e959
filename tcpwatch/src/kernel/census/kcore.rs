//! The running kernel's memory, through `/proc/kcore`: an ELF core file whose program headers say where addresses lie.

use super::{Memory, Unchecked};
use object::LittleEndian;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Program headers begin right behind the file's own; a kernel with many memory banks has some hundred.
const MOST_HEADERS: u64 = 1 << 20;

/// The file, opened and understood.
#[derive(Debug)]
pub struct Kcore {
    file: File,
    segments: Vec<Segment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    address: u64,
    size: u64,
    offset: u64,
}

impl Kcore {
    /// Opens `/proc/kcore`, or says why that is not granted.
    pub fn open(path: &Path) -> Result<Self, Unchecked> {
        let file = File::open(path).map_err(|error| refused(&error))?;
        let head = read_head(&file).map_err(|error| refused(&error))?;
        let segments = segments(&head).ok_or_else(|| {
            Unchecked::new(
                "/proc/kcore is not the kernel's: it holds no ELF core",
                "containers put an empty file in its place: run on the host, or unmask it",
            )
        })?;
        Ok(Self { file, segments })
    }
}

fn refused(error: &io::Error) -> Unchecked {
    const EPERM: i32 = 1;
    let what = format!("/proc/kcore cannot be read: {error}");
    let hint = match error.kind() {
        ErrorKind::NotFound => "boot a kernel with CONFIG_PROC_KCORE=y",
        // The file's mode says yes, the kernel says no.
        ErrorKind::PermissionDenied if error.raw_os_error() == Some(EPERM) => {
            "it takes CAP_SYS_RAWIO, and no kernel lockdown in confidentiality mode"
        }
        ErrorKind::PermissionDenied => "run as root",
        _ => "run as root on the host",
    };
    Unchecked::new(what, hint)
}

impl Memory for Kcore {
    fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        let end = address.saturating_add(bytes.len() as u64);
        let holds = |segment: &&Segment| segment.address <= address && end - segment.address <= segment.size;
        let Some(segment) = self.segments.iter().find(holds) else {
            let text = format!("no part of /proc/kcore holds {address:#x}");
            return Err(io::Error::new(ErrorKind::NotFound, text));
        };
        self.file.read_exact_at(bytes, segment.offset + (address - segment.address))
    }
}

/// The file's header and the table of program headers. An empty file gives an empty head.
fn read_head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; size_of::<FileHeader64<LittleEndian>>()];
    match file.read_exact_at(&mut head, 0) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Vec::new()),
        other => other?,
    }
    let Some(end) = table_end(&head).filter(|end| *end <= MOST_HEADERS) else { return Ok(Vec::new()) };
    head.resize(usize::try_from(end).unwrap_or(0).max(head.len()), 0);
    file.read_exact_at(&mut head, 0)?;
    Ok(head)
}

fn table_end(head: &[u8]) -> Option<u64> {
    let header = FileHeader64::<LittleEndian>::parse(head).ok()?;
    let endian = LittleEndian;
    let size = u64::from(header.e_phentsize(endian)) * u64::from(header.e_phnum(endian));
    header.e_phoff(endian).checked_add(size)
}

fn segments(head: &[u8]) -> Option<Vec<Segment>> {
    let header = FileHeader64::<LittleEndian>::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let headers = header.program_headers(endian, head).ok()?;
    let loaded = headers.iter().filter(|header| header.p_type(endian) == PT_LOAD);
    let segment = |header: &object::elf::ProgramHeader64<LittleEndian>| Segment {
        address: header.p_vaddr(endian),
        size: header.p_memsz(endian),
        offset: header.p_offset(endian),
    };
    let segments: Vec<_> = loaded.map(segment).collect();
    (!segments.is_empty()).then_some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A core file with one note and these segments: address, offset, bytes.
    fn core(name: &str, parts: &[(u64, u64, &[u8])]) -> PathBuf {
        let mut file = vec![0; 64];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[32] = 64; // e_phoff
        file[52] = 64; // e_ehsize
        file[54] = 56; // e_phentsize
        file[56] = u8::try_from(parts.len() + 1).unwrap();
        let mut header = |kind: u32, address: u64, offset: u64, size: usize| {
            file.extend([kind.to_le_bytes(), 0_u32.to_le_bytes()].concat());
            for field in [offset, address, 0, size as u64, size as u64, 0] {
                file.extend(field.to_le_bytes());
            }
        };
        header(4, 0, 0x200, 8);
        parts.iter().for_each(|(address, offset, bytes)| header(PT_LOAD, *address, *offset, bytes.len()));
        for (_, offset, bytes) in parts {
            let end = usize::try_from(*offset).unwrap() + bytes.len();
            file.resize(file.len().max(end), 0);
            file[end - bytes.len()..end].copy_from_slice(bytes);
        }
        write(name, &file)
    }

    fn write(name: &str, bytes: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tcpwatch-kcore-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn addresses_are_found_through_the_program_headers() {
        let path =
            core("two", &[(0xffff_8000, 0x400, b"vmalloc"), (0xffff_ffff_8100_0000, 0x500, b"kernel text")]);
        let kcore = Kcore::open(&path).unwrap();
        let mut bytes = [0; 4];
        kcore.read(0xffff_ffff_8100_0007, &mut bytes).unwrap();
        assert_eq!(&bytes, b"text");
        kcore.read(0xffff_8003, &mut bytes).unwrap();
        assert_eq!(&bytes, b"lloc");
        for outside in [0xffff_ffff_8100_0008, 0xffff_7fff, 0xffff_8004, u64::MAX - 1] {
            assert_eq!(
                kcore.read(outside, &mut bytes).unwrap_err().kind(),
                ErrorKind::NotFound,
                "{outside:#x}"
            );
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_no_core_is_told() {
        for (name, bytes) in [("empty", &b""[..]), ("short", b"\x7fELF\x02\x01\x01"), ("text", &[b'a'; 200])]
        {
            let path = write(name, bytes);
            let error = Kcore::open(&path).unwrap_err();
            assert!(
                error.why.contains("no ELF core") && error.hint.contains("container"),
                "{name}: {error:?}"
            );
            std::fs::remove_file(path).unwrap();
        }
        let path = core("none", &[]);
        assert!(Kcore::open(&path).is_err(), "no segment");
        std::fs::remove_file(path).unwrap();
        let error = Kcore::open(Path::new("/nowhere/kcore")).unwrap_err();
        assert!(error.hint.contains("CONFIG_PROC_KCORE"), "{error:?}");
    }

    #[test]
    fn who_refuses_it_decides_the_hint() {
        let hint = |number| refused(&io::Error::from_raw_os_error(number)).hint;
        assert!(hint(1).contains("CAP_SYS_RAWIO") && hint(1).contains("lockdown"));
        assert_eq!(hint(13), "run as root");
    }
}
