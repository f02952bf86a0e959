//! Reads a capture back: the events that tcpwatch wrote, in the order in which it wrote them.

use super::block::{EVENT, EVENT_FIELD};
use super::parse;
use super::write::Host;
use crate::event::{Event, Lost, Standing, Start, Summary};
use pcap_parser::pcapng::{Block, OptionCode, PcapNGOption, parse_block_be, parse_block_le};
use std::fmt;
use std::io::{self, Read};

/// Longest block that is taken for one. tcpwatch's own are some thousand bytes long.
const LONGEST: usize = 16 << 20;
const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const LITTLE: [u8; 4] = [0x4d, 0x3c, 0x2b, 0x1a];
const BIG: [u8; 4] = [0x1a, 0x2b, 0x3c, 0x4d];

/// What a capture says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Start(Start),
    Event(Box<Event>),
    Standing(Vec<Standing>),
    Lost(Lost),
    Summary(Box<Summary>),
}

/// Why a capture is not read on.
#[derive(Debug)]
pub enum Broken {
    /// It is none: what it looks like, and what to do with it.
    Foreign {
        looks: String,
        hint: &'static str,
    },
    /// It ends in the middle of a block, this far into the file.
    CutOff {
        at: u64,
    },
    /// What stands there makes no sense.
    Damaged {
        at: u64,
        why: String,
    },
    /// Written by a later tcpwatch.
    Newer {
        schema: u64,
    },
    Unreadable(io::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { looks, hint } => write!(f, "is {looks}\nhint: {hint}"),
            Self::CutOff { at } => write!(
                f,
                "ends in the middle of a block, {at} bytes into the file\nhint: the run that wrote it was killed, or still \
                 writes; everything before is shown"
            ),
            Self::Damaged { at, why } => {
                write!(f, "is damaged {at} bytes into the file: {why}\nhint: everything before is shown")
            }
            Self::Newer { schema } => write!(
                f,
                "was written by a later tcpwatch (schema {schema}, this one knows {})\nhint: read it with that version",
                crate::sink::json::schema::VERSION
            ),
            Self::Unreadable(error) => {
                write!(f, "cannot be read: {error}\nhint: a file that `tcpwatch -w FILE` wrote")
            }
        }
    }
}

impl std::error::Error for Broken {}

/// Reads one capture.
pub struct Reader<R> {
    input: R,
    /// The block at hand.
    bytes: Vec<u8>,
    at: u64,
    big_endian: bool,
    /// The section at hand was written by tcpwatch.
    ours: bool,
    host: Host,
    events: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the first block.
    ///
    /// # Errors
    /// The file is no pcapng, or not one of tcpwatch's.
    pub fn new(input: R) -> Result<Self, Broken> {
        let host = Host::default();
        let mut reader =
            Self { input, bytes: Vec::new(), at: 0, big_endian: false, ours: false, host, events: 0 };
        if !reader.next_block()? {
            return Err(foreign("empty"));
        }
        reader.section()?;
        Ok(reader)
    }

    /// Where it was written.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// How many events there were so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The next thing it says; `None` at its end.
    ///
    /// # Errors
    /// Nothing more can be read; what was given before is whole.
    pub fn advance(&mut self) -> Result<Option<Said>, Broken> {
        loop {
            let at = self.at;
            if !self.next_block()? {
                return Ok(None);
            }
            if self.bytes.starts_with(&SECTION) {
                self.section()?;
                continue;
            }
            if !self.ours {
                continue;
            }
            let Some(line) = self.line(at)? else { continue };
            let said = parse::line(&line).map_err(|why| match why {
                parse::Why::Newer(schema) => Broken::Newer { schema },
                parse::Why::Wrong(why) => Broken::Damaged { at, why },
            })?;
            self.events += u64::from(matches!(said, Said::Event(_)));
            return Ok(Some(said));
        }
    }

    /// The JSON of the block at hand, if it has any.
    fn line(&self, at: u64) -> Result<Option<Vec<u8>>, Broken> {
        Ok(match self.parsed(at)? {
            Block::EnhancedPacket(packet) => from_options(&packet.options),
            Block::SystemdJournalExport(journal) => from_journal(journal.data),
            _ => None,
        })
    }

    fn parsed(&self, at: u64) -> Result<Block<'_>, Broken> {
        let parse = if self.big_endian { parse_block_be } else { parse_block_le };
        match parse(&self.bytes) {
            Ok((_, block)) => Ok(block),
            Err(_) => {
                Err(Broken::Damaged { at, why: "a block whose parts do not fit its length".to_owned() })
            }
        }
    }

    /// Takes the next block into `bytes`; false at the end of the file.
    fn next_block(&mut self) -> Result<bool, Broken> {
        let at = self.at;
        let mut head = [0; 12];
        let got = self.fill(&mut head)?;
        if got == 0 {
            return Ok(false);
        }
        let first = at == 0;
        if first && !head[..got].starts_with(&SECTION[..got.min(4)]) {
            return Err(identified(&head[..got]));
        }
        if got < head.len() {
            return Err(Broken::CutOff { at });
        }
        let [kind, length, third] = [&head[..4], &head[4..8], &head[8..12]];
        if kind == SECTION {
            self.big_endian = match <[u8; 4]>::try_from(third) {
                Ok(LITTLE) => false,
                Ok(BIG) => true,
                _ => {
                    return Err(Broken::Damaged {
                        at,
                        why: "a section header without byte order".to_owned(),
                    });
                }
            };
        }
        let length = <[u8; 4]>::try_from(length).unwrap_or_default();
        let length = if self.big_endian { u32::from_be_bytes(length) } else { u32::from_le_bytes(length) };
        let length = length as usize;
        if length < head.len() || !length.is_multiple_of(4) || length > LONGEST {
            return Err(Broken::Damaged { at, why: format!("a block of {length} bytes") });
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(&head);
        // Not all at once: the length may be a lie.
        let wanted = length - head.len();
        let mut rest = (&mut self.input).take(wanted as u64);
        let got = rest.read_to_end(&mut self.bytes).map_err(Broken::Unreadable)?;
        if got < wanted {
            return Err(Broken::CutOff { at });
        }
        if self.bytes[length - 4..] != self.bytes[4..8] {
            let why = "a block whose two lengths differ".to_owned();
            return Err(Broken::Damaged { at, why });
        }
        self.at += length as u64;
        Ok(true)
    }

    /// As many bytes as there are, up to the length.
    fn fill(&mut self, into: &mut [u8]) -> Result<usize, Broken> {
        let mut got = 0;
        while got < into.len() {
            match self.input.read(&mut into[got..]) {
                Ok(0) => break,
                Ok(more) => got += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Unreadable(error)),
            }
        }
        Ok(got)
    }

    /// The block at hand begins a section: by whom?
    fn section(&mut self) -> Result<(), Broken> {
        let at = self.at - self.bytes.len() as u64;
        let mut host = Host::default();
        let mut application = String::new();
        let Block::SectionHeader(header) = self.parsed(at)? else {
            return Err(Broken::Damaged { at, why: "a section header that is none".to_owned() });
        };
        for option in &header.options {
            let Ok(text) = option.as_str() else { continue };
            match option.code {
                OptionCode::Comment => {
                    if let Some(name) = text.strip_prefix("host ") {
                        name.clone_into(&mut host.name);
                    }
                }
                OptionCode::ShbHardware => text.clone_into(&mut host.hardware),
                OptionCode::ShbOs => text.clone_into(&mut host.system),
                OptionCode::ShbUserAppl => text.clone_into(&mut application),
                _ => {}
            }
        }
        self.ours = application.split(' ').next() == Some(super::APPLICATION);
        if self.ours {
            self.host = host;
            return Ok(());
        }
        // Only the first section decides: others may follow what tcpwatch wrote.
        if at == 0 {
            let by = if application.is_empty() { "another program".to_owned() } else { application };
            return Err(foreign(&format!("a capture written by {by}: it has no events of tcpwatch")));
        }
        Ok(())
    }
}

fn foreign(looks: &str) -> Broken {
    Broken::Foreign { looks: looks.to_owned(), hint: "a file that `tcpwatch -w FILE` wrote" }
}

/// What begins like this, where a section should.
fn identified(head: &[u8]) -> Broken {
    let known: [(&[u8], &str, &str); 6] = [
        (&[0xd4, 0xc3, 0xb2, 0xa1], "a pcap file of packets", "tcpwatch reads what `tcpwatch -w FILE` wrote"),
        (&[0xa1, 0xb2, 0xc3, 0xd4], "a pcap file of packets", "tcpwatch reads what `tcpwatch -w FILE` wrote"),
        (&[0x4d, 0x3c, 0xb2, 0xa1], "a pcap file of packets", "tcpwatch reads what `tcpwatch -w FILE` wrote"),
        (&[0x1f, 0x8b], "compressed with gzip", "gunzip it first: `zcat FILE | tcpwatch -r -`"),
        (
            &[0x28, 0xb5, 0x2f, 0xfd],
            "compressed with zstd",
            "unpack it first: `zstdcat FILE | tcpwatch -r -`",
        ),
        (
            b"{",
            "JSON, not a capture",
            "`--json` is for other programs: write a capture with `tcpwatch -w FILE`",
        ),
    ];
    let found = known.iter().find(|(magic, ..)| head.starts_with(magic));
    found.map_or_else(
        || foreign("not a pcapng file"),
        |(_, looks, hint)| Broken::Foreign { looks: (*looks).to_owned(), hint },
    )
}

fn from_options(options: &[PcapNGOption<'_>]) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    for option in options.iter().filter(|option| option.code == OptionCode(EVENT)) {
        line.extend_from_slice(option.as_bytes().ok()?);
    }
    (!line.is_empty()).then_some(line)
}

/// The field of a journal entry. Fields of text are lines; of others, which are not ours, the length stands in front.
fn from_journal(mut data: &[u8]) -> Option<Vec<u8>> {
    loop {
        let end = data.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = data.split_at(end);
        let rest = rest.get(1..)?;
        match line.iter().position(|byte| *byte == b'=') {
            Some(at) if &line[..at] == EVENT_FIELD.as_bytes() => return Some(line[at + 1..].to_vec()),
            Some(_) => data = rest,
            None => {
                let (length, behind) = rest.split_first_chunk::<8>()?;
                let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
                data = behind.get(length.checked_add(1)?..)?;
            }
        }
    }
}
