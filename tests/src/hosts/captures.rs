//! Captures, their reports, and the agent: what goes to disk and to the network.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::tool::END;
use super::traffic::Ground;
use super::{Case, Lab, When, case};

pub(super) const CASES: &[Case] = &[
    case("capture-rotates", When::Any, rotates),
    case("capture-unwritable", When::Any, unwritable),
    case("capture-foreign", When::Any, foreign),
    case("capture-killed", When::Any, killed),
    case("report", When::Any, report),
    case("top-without-terminal", When::Any, top_without_terminal),
    case("agent-figures", When::Any, agent_figures),
    case("agent-reloads", When::Any, agent_reloads),
    case("agent-ring", When::Any, agent_ring),
];

const PORT: u16 = 8080;
/// Attached in a moment: it is not the hooks that matter here.
pub(super) const FEW: &[&str] = &["--attach", "tracepoint"];

pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a name that is no text")
}

/// A folder that nobody has.
pub(super) fn folder(lab: &Lab, name: &str) -> Result<PathBuf> {
    let folder = lab.scratch.path().join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// One file follows the other, nothing is missing or there twice, and what is printed does not care.
fn rotates(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let folder = folder(lab, "rotates")?;
    let first = folder.join("a.pcapng");
    let inode = ground.inode();
    let args =
        [&["--json", "--storm", "off", "--netns", &inode, "-w", text(&first)?, "-C", "64K"], FEW].concat();
    let running = lab.tool(&args).spawn()?.started()?;
    for _ in 0..60 {
        ground.reset(listener, PORT)?;
        sleep(Duration::from_millis(2));
    }
    let live = running.stop()?;
    live.exits(0)?;
    let files = std::fs::read_dir(&folder)?.count();
    ensure!(files >= 3, "{files} files for {} lines", live.stdout.len());
    for entry in std::fs::read_dir(&folder)? {
        let file = entry?.path();
        let size = file.metadata()?.len();
        ensure!(size <= 64 << 10, "{} has {size} bytes", file.display());
        let alone = lab.tool(&["--json", "-r", text(&file)?]).run()?;
        alone.exits(0)?;
        ensure!(
            alone.stdout.first() == live.stdout.first(),
            "{} does not begin with the start",
            file.display()
        );
    }
    let all = lab.tool(&["--json", "-r", text(&folder)?]).run()?;
    all.exits(0)?;
    all.is_silent()?;
    ensure!(all.stdout == live.stdout, "{} lines read back, {} printed", all.stdout.len(), live.stdout.len());
    Ok(())
}

fn unwritable(lab: &Lab) -> Result<()> {
    let missing = lab.tool(&["-w", "/no/such/folder/a.pcapng"]).run()?;
    missing.exits(1)?;
    missing
        .complains(&["cannot write the capture `/no/such/folder/a.pcapng`", "No such file or directory"])?;
    // The same for a disk that fills up, once there is something to write.
    let full = lab.tool(&[&["--json", "-w", "/dev/full"], FEW].concat()).spawn()?.wait(END)?;
    full.exits(1)?;
    full.complains(&["cannot write the capture `/dev/full`", "No space left on device"])?;
    ensure!(!full.stderr.contains("standard output"), "it blames another: {}", full.stderr);
    Ok(())
}

fn foreign(lab: &Lab) -> Result<()> {
    let folder = folder(lab, "foreign")?;
    let file = folder.join("a");
    for (bytes, words) in [
        (&b"{\"event\":\"start\"}\n"[..], "is JSON"),
        (&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0], "is a pcap file of packets"),
        (&[0x1f, 0x8b, 8, 0], "gzip"),
        (b"", "is empty"),
        (&[0xff; 4096], "is not a pcapng file"),
    ] {
        std::fs::write(&file, bytes)?;
        for command in [&["trace"][..], &["diagnose"], &["report"]] {
            let ended = lab.tool(&[command, &["-r", text(&file)?]].concat()).run()?;
            ended.exits(1)?;
            ended.complains(&[words])?;
        }
    }
    let missing = lab.tool(&["-r", "/no/such/file"]).run()?;
    missing.exits(1)?;
    missing.complains(&["cannot open `/no/such/file`"])?;
    let none = folder.join("none");
    std::fs::create_dir_all(&none)?;
    lab.tool(&["-r", text(&none)?]).run()?.complains(&["no capture lies in"])?;
    lab.tool(&["report"]).run()?.refused(2, &["a report is made of a capture"])?;
    lab.tool(&["-r", text(&file)?, "--for", "1s"]).run()?.refused(2, &["`--for` and `--read`"])
}

/// Killed in the middle, it leaves what was whole by then.
fn killed(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let file = folder(lab, "killed")?.join("a.pcapng");
    let inode = ground.inode();
    let mut running =
        lab.tool(&[&["--json", "--netns", &inode, "-w", text(&file)?], FEW].concat()).spawn()?.started()?;
    for _ in 0..5 {
        ground.reset(listener, PORT)?;
    }
    running.wait_events(10)?;
    // A moment for the writer, which has its own thread.
    sleep(Duration::from_millis(300));
    let live = running.stop_by(libc::SIGKILL)?;
    let back = lab.tool(&["--json", "-r", text(&file)?]).run()?;
    ensure!(back.stdout.len() >= 11, "{} lines are left", back.stdout.len());
    ensure!(back.stdout.iter().eq(live.stdout.iter().take(back.stdout.len())), "they are others");
    back.complains(&["ends without the books of the run"])?;
    let diagnosis = lab.tool(&["diagnose", "-r", text(&file)?]).run()?;
    ensure!(diagnosis.stdout.iter().any(|line| line.contains("linger-zero")), "no diagnosis of what is left");
    Ok(())
}

fn report(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let folder = folder(lab, "report")?;
    let capture = folder.join("incident.pcapng");
    let inode = ground.inode();
    let running = lab
        .tool(&[&["--json", "--netns", &inode, "-w", text(&capture)?], FEW].concat())
        .spawn()?
        .started()?;
    ground.reset(listener, PORT)?;
    running.stop()?.exits(0)?;
    let ended = lab.tool(&["report", "-r", text(&capture)?]).run()?;
    ended.exits(0)?;
    ended.is_silent()?;
    let page = std::fs::read_to_string(folder.join("incident.html")).context("no page beside the capture")?;
    for word in ["linger-zero", "<svg", "incident.pcapng"] {
        ensure!(page.contains(word), "the page lacks {word}");
    }
    for word in ["<script", "http://", "https://"] {
        ensure!(!page.contains(word), "the page has {word}");
    }
    let printed = lab.tool(&["report", "-r", text(&capture)?, "-o", "-"]).run()?;
    ensure!(printed.stdout.join("\n").trim_end() == page.trim_end(), "printed it is another page");
    let none = lab.tool(&["report", "-r", text(&capture)?, "-o", "/no/such/folder/a.html"]).run()?;
    none.exits(1)?;
    none.complains(&["cannot write the page `/no/such/folder/a.html`"])?;
    lab.tool(&["report", "-r", text(&capture)?, "-o", text(&capture)?])
        .run()?
        .refused(2, &["written over the capture"])
}

fn top_without_terminal(lab: &Lab) -> Result<()> {
    let ended = lab.tool(&["top"]).run()?;
    ended.exits(1)?;
    ended.complains(&["`top` needs a terminal"])
}

/// What a path of the endpoint answers.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Where an agent says that its figures are.
pub(crate) fn address(running: &super::tool::Running) -> Result<SocketAddr> {
    let end = Instant::now() + END;
    while Instant::now() < end {
        let said = running.said();
        if let Some(rest) = said.split("figures are at http://").nth(1)
            && let Some((address, _)) = rest.split_once('/')
        {
            return Ok(address.parse()?);
        }
        sleep(Duration::from_millis(20));
    }
    bail!("the agent does not say where its figures are: {}", running.said())
}

/// The value of the first series that begins so.
pub(super) fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The page on which the first series that begins so has come to that.
pub(super) fn wait_value(address: SocketAddr, series: &str, least: f64) -> Result<String> {
    let end = Instant::now() + END;
    let mut page = String::new();
    while Instant::now() < end {
        page = get(address, "/metrics")?;
        if value(&page, series).is_some_and(|value| value >= least) {
            return Ok(page);
        }
        sleep(Duration::from_millis(50));
    }
    bail!("{series} does not come to {least}:\n{page}")
}

fn agent_figures(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let inode = ground.inode();
    let running =
        lab.tool(&[&["agent", "--listen", "127.0.0.1:0", "--netns", &inode], FEW].concat()).spawn()?;
    let address = address(&running)?;
    wait_value(address, "tcpwatch_start_time_seconds", 1.0)?;
    for _ in 0..3 {
        ground.reset(listener, PORT)?;
    }
    let sent = "tcpwatch_resets_total{direction=\"sent\",cause=\"linger-zero\"";
    let page = wait_value(address, sent, 3.0)?;
    ensure!(page.contains("process=\"hcli"), "nobody owns them:\n{page}");
    wait_value(address, "tcpwatch_resets_total{direction=\"received\"", 3.0)?;
    wait_value(address, "tcpwatch_hook_attached{hook=\"tcp_send_reset\"}", 1.0)?;
    ensure!(get(address, "/healthz")?.starts_with("HTTP/1.1 200"), "it is not healthy");
    let second = lab.tool(&["agent", "--listen", &address.to_string()]).run()?;
    second.exits(1)?;
    second.complains(&["cannot listen on", "in use"])?;
    let ended = running.stop()?;
    ended.exits(0)
}

/// SIGHUP reads the file again; one that makes no sense changes nothing.
fn agent_reloads(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let folder = folder(lab, "reloads")?;
    let file = folder.join("agent.toml");
    let write = |events: &str| {
        let text = format!(
            "listen = \"127.0.0.1:0\"\nattach = \"tracepoint\"\nnetns = \"{}\"\nevents = \"{events}\"\n",
            ground.inode()
        );
        std::fs::write(&file, text)
    };
    write("tw")?;
    let running = lab.tool(&["agent", "--config", text(&file)?]).spawn()?;
    let address = address(&running)?;
    wait_value(address, "tcpwatch_start_time_seconds", 1.0)?;
    write("nonsense")?;
    running.signal(libc::SIGHUP)?;
    wait_value(address, "tcpwatch_config_reloads_total{outcome=\"failure\"}", 1.0)?;
    ground.reset(listener, PORT)?;
    sleep(Duration::from_millis(300));
    ensure!(
        !get(address, "/metrics")?.contains("tcpwatch_resets_total"),
        "what was not asked for is counted"
    );
    write("rst")?;
    running.signal(libc::SIGHUP)?;
    wait_value(address, "tcpwatch_config_reloads_total{outcome=\"success\"}", 1.0)?;
    // The first run ends, the second one attaches.
    let end = Instant::now() + END;
    while !running.said().contains("begins anew") {
        ensure!(Instant::now() < end, "it does not begin anew: {}", running.said());
        sleep(Duration::from_millis(20));
    }
    sleep(lab.slowness + Duration::from_millis(500));
    ground.reset(listener, PORT)?;
    wait_value(address, "tcpwatch_resets_total{direction=\"sent\"", 1.0)?;
    let threads = std::fs::read_dir(format!("/proc/{}/task", running.pid()))?.flatten();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
    let names: Vec<_> = names.collect();
    let listening = names.iter().filter(|name| name.trim() == "signals").count();
    ensure!(listening == 1, "{listening} threads listen for signals: {names:?}");
    // Told to end while it begins anew: it ends.
    running.signal(libc::SIGHUP)?;
    let ended = running.stop()?;
    ended.exits(0)?;
    for word in ["unknown event `nonsense`", "hint: one of: rst", "begins anew"] {
        ensure!(ended.stderr.contains(word), "it does not say {word}: {}", ended.stderr);
    }
    std::fs::write(&file, "colour = 5\n")?;
    let wrong = lab.tool(&["agent", "--config", text(&file)?]).run()?;
    wrong.exits(1)?;
    wrong.complains(&["line 1 of", "colour"])
}

/// What the ring keeps is what happened.
fn agent_ring(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let ring = folder(lab, "ring")?;
    let inode = ground.inode();
    let args = [
        &["agent", "--listen", "127.0.0.1:0", "--netns", &inode, "--ring", text(&ring)?, "--max", "1M"],
        FEW,
    ]
    .concat();
    let running = lab.tool(&args).spawn()?;
    let address = address(&running)?;
    wait_value(address, "tcpwatch_start_time_seconds", 1.0)?;
    for _ in 0..400 {
        ground.reset(listener, PORT)?;
    }
    wait_value(address, "tcpwatch_events_total{event=\"rst_sent\"}", 400.0)?;
    running.stop()?.exits(0)?;
    let size: u64 =
        std::fs::read_dir(&ring)?.flatten().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    ensure!((200 << 10..=1 << 20).contains(&size), "the ring has {size} bytes");
    let back = lab.tool(&["--json", "-r", text(&ring)?, "--events", "rst"]).run()?;
    back.exits(0)?;
    let last =
        back.stdout.iter().rev().find(|line| line.contains("\"rst_sent\"")).context("no event is left")?;
    ensure!(last.contains("linger-zero"), "{last}");
    Ok(())
}
