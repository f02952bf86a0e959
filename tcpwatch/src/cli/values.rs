//! Text to values: times, sizes, ports, event names. Each error says which text it is about.

use super::Error;
use std::time::Duration;
use tcpwatch_common::config::deliver;

/// Names of `--events` and what they ask the kernel side for.
const EVENTS: [(&str, u32); 7] = [
    ("rst", deliver::RST),
    ("listen", deliver::LISTEN),
    ("tw", deliver::TW),
    ("leak", deliver::LEAK),
    ("drop", deliver::DROP),
    ("state", deliver::STATE),
    ("retransmit", deliver::RETRANSMIT),
];

/// What is shown when nobody says otherwise: events that each mean trouble.
pub(super) const DEFAULT_EVENTS: u32 = deliver::RST | deliver::LISTEN | deliver::TW | deliver::LEAK;

/// How many ports `-L` and `-D` take each.
pub(super) const PORTS: usize = 8;

/// Smallest ring buffer in bytes: room for some dozens of events, and a multiple of every architecture's page.
const MIN_BUFFER: u64 = 64 << 10;

/// Shifted by what is granted to connections and to whole kinds it still fits into 32 bits.
const MAX_RATE: u32 = 1_000_000;

/// Entries that a table of sockets may have: fewer are forgotten at once, more are gigabytes.
const ENTRIES: std::ops::RangeInclusive<u32> = 1_024..=4_194_304;

/// Largest one: the kernel takes the size as 32 bits.
const MAX_BUFFER: u64 = 1 << 30;

pub(super) fn events(lists: &[String]) -> Result<u32, Error> {
    if lists.is_empty() {
        return Ok(DEFAULT_EVENTS);
    }
    let mut bits = 0;
    for name in lists.iter().flat_map(|list| list.split(',')) {
        bits |= event(name.trim())?;
    }
    Ok(bits)
}

fn event(name: &str) -> Result<u32, Error> {
    if name == "all" {
        return Ok(EVENTS.iter().fold(0, |bits, (_, bit)| bits | bit));
    }
    if let Some((_, bit)) = EVENTS.iter().find(|(known, _)| *known == name) {
        return Ok(*bit);
    }
    let names = || EVENTS.map(|(known, _)| known).join(", ");
    let known = EVENTS.iter().map(|(known, _)| *known).chain(["all"]);
    let hint = match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of: {}, all", names()),
    };
    Err(Error::usage(format!("unknown event `{name}`"), hint))
}

/// What a name was probably meant to be: at most two letters away, or begun like it.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let is_near = |(distance, known): &(usize, &str)| {
        *distance <= 2.min(known.len() - 1)
            || (name.len() >= 2 && (known.starts_with(&name) || name.starts_with(known)))
    };
    known
        .map(|known| (distance(&name, known), known))
        .filter(is_near)
        .min_by_key(|(distance, _)| *distance)
        .map(|n| n.1)
}

/// Letters to change, add or drop (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A list of ports, each once; `flag` is for the error.
pub(super) fn ports(flag: &str, lists: &[String]) -> Result<Vec<u16>, Error> {
    let mut ports = Vec::new();
    for text in lists.iter().flat_map(|list| list.split(',')).map(str::trim) {
        let port = text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
            Error::usage(
                format!("`{text}` is not a port, in `{flag}`"),
                "ports are numbers from 1 to 65535, with commas between",
            )
        })?;
        if ports.contains(&port) {
            continue;
        }
        if ports.len() == PORTS {
            return Err(Error::usage(
                format!("more than {PORTS} ports in `{flag}`"),
                format!("name {PORTS} at most, or a filter: `src port 80 or 443`, `dst portrange 8000-8099`"),
            ));
        }
        ports.push(port);
    }
    Ok(ports)
}

/// `500ms`, `30s`, `5m`, `1h`, or plain seconds.
pub(super) fn duration(flag: &str, text: &str) -> Result<Duration, Error> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms: Option<u64> = match &text[digits.len()..] {
        "ms" => Some(1),
        "" | "s" => Some(1_000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let number = whole(digits);
    match unit_ms.zip(number).and_then(|(unit, number)| unit.checked_mul(number)) {
        Some(0) => Err(Error::usage(
            format!("`{flag} {text}` is no time at all"),
            format!("for instance `{flag} 30s`"),
        )),
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err(Error::usage(
            format!("`{text}` is not a time, in `{flag}`"),
            format!("a whole number with ms, s, m or h: for instance `{flag} 30s`"),
        )),
    }
}

/// Bytes of a shifted unit; `None`: no size.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    whole(digits)?.checked_mul(1 << shift)
}

/// Smallest file of a capture, and smallest queue: smaller ones would have hardly an event.
const MIN_SIZE: u64 = 64 << 10;

/// A size in bytes, of a file or a queue: `100M`, `1G`.
pub(super) fn size(flag: &str, text: &str) -> Result<u64, Error> {
    bytes(text).filter(|size| *size >= MIN_SIZE).ok_or_else(|| {
        Error::usage(
            format!("`{text}` is not a size, in `{flag}`"),
            format!("{} or more, with K, M or G: for instance `{flag} 100M`", readable(MIN_SIZE)),
        )
    })
}

/// How many files: two at least, or the only one would be written over while it is written.
pub(super) fn files(flag: &str, text: &str) -> Result<u32, Error> {
    let files = whole(text).and_then(|files| u32::try_from(files).ok()).filter(|files| *files >= 2);
    files.ok_or_else(|| {
        Error::usage(format!("`{text}` is not a number of files, in `{flag}`"), "a whole number from 2")
    })
}

/// A size of the ring buffer in bytes: `4M`, `512K`, `1GiB`.
pub(super) fn buffer(flag: &str, text: &str) -> Result<u32, Error> {
    let Some(size) = bytes(text) else {
        return Err(Error::usage(
            format!("`{text}` is not a size, in `{flag}`"),
            format!("a power of two with K, M or G: for instance `{flag} 4M`"),
        ));
    };
    if !(MIN_BUFFER..=MAX_BUFFER).contains(&size) {
        return Err(Error::usage(
            format!("a ring buffer of {text} is out of range, in `{flag}`"),
            format!("from {} to {}", readable(MIN_BUFFER), readable(MAX_BUFFER)),
        ));
    }
    match u32::try_from(size) {
        Ok(size) if size.is_power_of_two() => Ok(size),
        _ => Err(Error::usage(
            format!("a ring buffer of {text} is no power of two, in `{flag}`"),
            format!("the next one: `{flag} {}`", readable(size.next_power_of_two())),
        )),
    }
}

fn readable(size: u64) -> String {
    let (shift, unit) = [(30, "G"), (20, "M"), (10, "K")]
        .into_iter()
        .find(|(shift, _)| size.is_multiple_of(1 << shift))
        .unwrap_or((0, ""));
    format!("{}{unit}", size >> shift)
}

/// Events in a second, `None` for `off`.
pub(super) fn rate(flag: &str, text: &str) -> Result<Option<u32>, Error> {
    if text == "off" {
        return Ok(None);
    }
    match whole(text).and_then(|rate| u32::try_from(rate).ok()) {
        Some(rate) if (1..=MAX_RATE).contains(&rate) => Ok(Some(rate)),
        _ => Err(Error::usage(
            format!("`{text}` is not a rate, in `{flag}`"),
            format!("events a second, from 1 to {MAX_RATE}, or `off`: for instance `{flag} 1000`"),
        )),
    }
}

/// Entries of a table in the kernel: `65536`, `64K`, `1M`.
pub(super) fn entries(flag: &str, text: &str) -> Result<u32, Error> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => Some(0),
        "k" => Some(10),
        "m" => Some(20),
        _ => None,
    };
    let count = shift.zip(whole(digits)).and_then(|(shift, number)| number.checked_mul(1 << shift));
    let Some(count) = count else {
        return Err(Error::usage(
            format!("`{text}` is not a number of entries, in `{flag}`"),
            format!("a whole number, with K or M if you like: for instance `{flag} 64K`"),
        ));
    };
    u32::try_from(count).ok().filter(|count| ENTRIES.contains(count)).ok_or_else(|| {
        Error::usage(
            format!("a table of {text} entries is out of range, in `{flag}`"),
            format!(
                "from {} to {}; an entry takes about 250 bytes of kernel memory",
                ENTRIES.start(),
                ENTRIES.end()
            ),
        )
    })
}

/// A count of at least 1.
pub(super) fn count(flag: &str, text: &str) -> Result<u64, Error> {
    whole(text).filter(|count| *count > 0).ok_or_else(|| {
        Error::usage(format!("`{text}` is not a number of events, in `{flag}`"), "a whole number from 1")
    })
}

/// Digits only: Rust's own parser takes a sign, too.
pub(super) fn whole(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, ms) in [
            ("30s", 30_000),
            ("30", 30_000),
            ("5m", 300_000),
            ("5min", 300_000),
            ("1h", 3_600_000),
            ("500ms", 500),
        ] {
            assert_eq!(duration("--for", text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "s",
            "1d",
            "-5s",
            "+5s",
            "1.5h",
            "5 s",
            "0",
            "0ms",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(duration("--for", text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_two() {
        for (text, size) in
            [("4M", 4 << 20), ("512K", 512 << 10), ("1GiB", 1 << 30), ("65536", 65536), ("8mb", 8 << 20)]
        {
            assert_eq!(buffer("--buffer", text), Ok(size), "{text}");
        }
        for (text, hint) in
            [("3M", "4M"), ("100000", "128K"), ("2G", "1G"), ("4K", "64K"), ("big", "4M"), ("", "4M")]
        {
            let error = buffer("--buffer", text).unwrap_err();
            assert!(error.hint.contains(hint), "{text}: {}", error.hint);
        }
    }

    #[test]
    fn ports_are_collected_once_each() {
        let lists = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(ports("-L", &[]), Ok(vec![]));
        assert_eq!(ports("-L", &lists(&["80, 443", "80", "8080"])), Ok(vec![80, 443, 8080]));
        assert!(ports("-L", &lists(&["1,2,3,4,5,6,7,8"])).is_ok());
        for text in ["0", "65536", "http", "", "80,", "-1", "1,2,3,4,5,6,7,8,9"] {
            assert!(ports("-L", &lists(&[text])).is_err(), "{text}");
        }
    }

    #[test]
    fn near_misses_of_event_names_are_recognised() {
        for (name, near) in [
            ("rts", Some("rst")),
            ("reset", Some("rst")),
            ("RST", Some("rst")),
            ("lsten", Some("listen")),
            ("listener", Some("listen")),
            ("drops", Some("drop")),
            ("states", Some("state")),
            ("retrans", Some("retransmit")),
            ("twx", Some("tw")),
            ("xyzzy", None),
            ("", None),
        ] {
            let known = EVENTS.iter().map(|(known, _)| *known);
            assert_eq!(nearest(name, known), near, "{name}");
        }
    }

    #[test]
    fn event_lists_become_bits() {
        assert_eq!(events(&[]), Ok(DEFAULT_EVENTS));
        assert_eq!(
            events(&["rst,state".into(), "drop".into()]),
            Ok(deliver::RST | deliver::STATE | deliver::DROP)
        );
        assert_eq!(events(&["all".into()]), Ok(0b111_1111));
        assert!(events(&["rst,".into()]).is_err());
        assert_eq!(events(&["leak".into()]), Ok(deliver::LEAK));
    }
}
