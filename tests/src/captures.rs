//! Holds the capture of a run (`-w`) against the lines of the same run: read back it prints the same bytes, and each RST and each
//! dropped segment is one packet with a comment, as Wireshark sees it.
//!
//! The file is taken apart here by hand, so that writer and reader cannot agree on a mistake; and by `tshark` where that is asked for.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::judge;

const SECTION: u32 = 0x0a0d_0d0a;
const PACKET: u32 = 6;
const JOURNAL: u32 = 9;
const COMMENT: u16 = 1;

/// A packet block.
struct Packet {
    bytes: Vec<u8>,
    comments: Vec<String>,
}

/// Everything that is wrong with the capture of these lines.
pub(crate) fn problems(tcpwatch: &str, path: &Path, lines: &[String], tshark: bool) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let events: Vec<Value> = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let (packets, entries) = take_apart(&bytes)?;
    let with_packet: Vec<&Value> = events.iter().filter(|event| has_packet(event)).collect();
    if packets.len() != with_packet.len() {
        problems.push(format!(
            "{} packets in the capture, {} events have one",
            packets.len(),
            with_packet.len()
        ));
    }
    for (packet, event) in packets.iter().zip(&with_packet) {
        if let Err(why) = holds(packet, event) {
            problems.push(format!("{why:#}: {}", judge::describe(event)));
        }
    }
    // What the host looks like is in captures alone: at the start, and at the end unless it looks the same.
    let without = events.len() - with_packet.len();
    if entries != without + 1 && entries != without + 2 {
        problems.push(format!("{entries} journal entries in the capture, {without} events have no packet"));
    }
    problems.extend(read_back(tcpwatch, path, lines)?);
    problems.extend(read_cut(tcpwatch, path, &bytes, lines)?);
    if tshark {
        problems.extend(by_tshark(path, packets.len(), entries)?);
    }
    Ok(problems)
}

/// RSTs have a packet as soon as both ends are known, others where the kernel had a segment at hand.
fn has_packet(event: &Value) -> bool {
    let of = |key: &str| event.get(key).is_some_and(|value| !value.is_null());
    let name = event.get("event").and_then(Value::as_str);
    let kind = match name {
        Some("rst_sent" | "rst_received") => true,
        Some("listen_drop" | "drop" | "retransmit") => of("packet"),
        _ => false,
    };
    kind && of("local") && of("remote")
}

/// Packets, and how many journal entries there are.
fn take_apart(mut bytes: &[u8]) -> Result<(Vec<Packet>, usize)> {
    let (mut packets, mut entries) = (Vec::new(), 0);
    let mut first = true;
    while !bytes.is_empty() {
        let kind = word(bytes, 0)?;
        ensure!(!first || kind == SECTION, "the file begins with a block of type {kind:#x}");
        first = false;
        let length = word(bytes, 4)? as usize;
        ensure!(
            length >= 12 && length.is_multiple_of(4) && length <= bytes.len(),
            "a block of {length} bytes"
        );
        ensure!(word(bytes, length - 4)? as usize == length, "a block whose lengths differ");
        let (block, rest) = bytes.split_at(length);
        match kind {
            PACKET => packets.push(packet(&block[8..length - 4])?),
            JOURNAL => entries += 1,
            _ => {}
        }
        bytes = rest;
    }
    Ok((packets, entries))
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let part = bytes.get(at..at + 4).context("the file ends in the middle of a block")?;
    Ok(u32::from_le_bytes(part.try_into()?))
}

fn packet(body: &[u8]) -> Result<Packet> {
    let length = word(body, 12)? as usize;
    let bytes = body.get(20..20 + length).context("a packet longer than its block")?.to_vec();
    let mut options = &body[20 + length.next_multiple_of(4)..];
    let mut comments = Vec::new();
    while options.len() >= 4 {
        let code = u16::from_le_bytes(options[..2].try_into()?);
        let length = usize::from(u16::from_le_bytes(options[2..4].try_into()?));
        let value = options.get(4..4 + length).context("an option longer than its block")?;
        if code == COMMENT {
            comments.push(String::from_utf8(value.to_vec()).context("a comment that is no UTF-8")?);
        }
        options = &options[4 + length.next_multiple_of(4)..];
        if code == 0 {
            break;
        }
    }
    Ok(Packet { bytes, comments })
}

/// Whether it is the packet of that event.
fn holds(packet: &Packet, event: &Value) -> Result<()> {
    let [comment] = &packet.comments[..] else { bail!("{} comments", packet.comments.len()) };
    let name = event["event"].as_str().context("an event without a name")?;
    ensure!(comment.starts_with(name), "the comment is about something else: {comment}");
    if let Some(cause) = event.pointer("/cause/id").and_then(Value::as_str) {
        ensure!(
            comment.contains(&format!("cause: {cause} (")),
            "the comment does not give the cause: {comment}"
        );
    }
    ensure!(
        comment.contains("synthetic headers"),
        "the comment does not say what the headers are: {comment}"
    );
    let (from, to) =
        if name == "rst_sent" || name == "retransmit" { ("local", "remote") } else { ("remote", "local") };
    let ends = [judge::endpoint(event, from), judge::endpoint(event, to)];
    let [Some(from), Some(to)] = ends else { bail!("an end that is no address") };
    let (addresses, tcp) = match packet.bytes.first().map(|byte| byte >> 4) {
        Some(4) => (12..20, 20),
        Some(6) => (8..40, 40),
        _ => bail!("no IP packet"),
    };
    let mut expected = Vec::new();
    for end in [from, to] {
        match end.ip() {
            std::net::IpAddr::V4(addr) => expected.extend_from_slice(&addr.octets()),
            std::net::IpAddr::V6(addr) => expected.extend_from_slice(&addr.octets()),
        }
    }
    ensure!(packet.bytes.get(addresses) == Some(&expected[..]), "the packet has other addresses");
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    ensure!(packet.bytes.get(tcp..tcp + 4) == Some(&ports[..]), "the packet has other ports");
    let flags = *packet.bytes.get(tcp + 13).context("the packet has no TCP header")?;
    ensure!(!name.starts_with("rst") || flags & 4 != 0, "the packet is no RST");
    Ok(())
}

/// `-r` prints what the run printed, byte for byte, without any privileges.
fn read_back(tcpwatch: &str, path: &Path, lines: &[String]) -> Result<Vec<String>> {
    let output = Command::new(tcpwatch)
        .args(["trace", "--json", "-r"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {tcpwatch}"))?;
    let mut problems = Vec::new();
    if !output.status.success() || !output.stderr.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        problems.push(format!("reading it back ended with {}: {}", output.status, said.trim()));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let mut back = said.lines();
    for line in lines {
        let again = back.next();
        if again != Some(line) {
            problems.push(format!("read back differs: `{}` instead of `{line}`", again.unwrap_or("nothing")));
            return Ok(problems);
        }
    }
    if let Some(more) = back.next() {
        problems.push(format!("read back there is more: `{more}`"));
    }
    Ok(problems)
}

/// Cut in the middle it gives what is whole, says so, and ends with 1.
fn read_cut(tcpwatch: &str, path: &Path, bytes: &[u8], lines: &[String]) -> Result<Vec<String>> {
    let cut = path.with_extension("cut");
    std::fs::write(&cut, &bytes[..bytes.len() / 4 * 2 + 1])?;
    let output = Command::new(tcpwatch).args(["trace", "--json", "-r"]).arg(&cut).output();
    std::fs::remove_file(&cut)?;
    let output = output?;
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut problems = Vec::new();
    if output.status.code() != Some(1) || !error.contains("ends in the middle of a block") {
        problems.push(format!("cut in the middle it ended with {}: {}", output.status, error.trim()));
    }
    let shown = said.lines().count();
    if shown == 0 || shown >= lines.len() || said.lines().zip(lines).any(|(again, line)| again != line) {
        problems.push(format!("cut in the middle it showed {shown} of {} lines", lines.len()));
    }
    Ok(problems)
}

/// What Wireshark's own reader finds.
fn by_tshark(path: &Path, packets: usize, entries: usize) -> Result<Vec<String>> {
    let rows = |filter: &str, fields: &[&str]| -> Result<Vec<String>> {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(path).args(["-Y", filter, "-T", "fields"]);
        for field in fields {
            command.args(["-e", field]);
        }
        let output = command.stdin(Stdio::null()).output().context("starting tshark")?;
        let error = String::from_utf8_lossy(&output.stderr);
        // It warns root of itself, and says nothing else about a file in order.
        let complaints: Vec<_> = error.lines().filter(|line| !line.contains("Running as user")).collect();
        ensure!(output.status.success() && complaints.is_empty(), "tshark: {error}");
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    };
    let mut problems = Vec::new();
    let mut count = |what: &str, filter: &str, expected: usize| -> Result<()> {
        let found = rows(filter, &["frame.number"])?.len();
        if found != expected {
            problems.push(format!("tshark finds {found} {what}, {expected} were written"));
        }
        Ok(())
    };
    count("packets with a comment", "tcp && frame.comment", packets)?;
    count("packets", "tcp", packets)?;
    count("journal entries", "!tcp", entries)?;
    count(
        "packets that make no sense",
        "_ws.malformed || tcp.checksum.status == 0 || ip.checksum.status == 0",
        0,
    )?;
    Ok(problems)
}
