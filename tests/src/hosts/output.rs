//! What becomes of the output: readers that go or stall, full disks, limits on events and time, losses, a second tcpwatch.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::ChildStdout;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::tool::{END, Running};
use super::traffic::{CLOSED, Ground, loopback, only, owned_by};
use super::{Case, Lab, When, case, sys};

pub(super) const CASES: &[Case] = &[
    case("pipe-closed-at-once", When::Any, pipe_closed_at_once),
    case("pipe-closed-later", When::Any, pipe_closed_later),
    case("disk-full", When::Any, disk_full),
    case("for-a-time", When::Any, for_a_time),
    case("count", When::Any, count),
    case("two-at-once", When::Any, two_at_once),
    case("strict-losses", When::Any, strict_losses),
    case("storm", When::Any, storm),
    case("payload", When::Any, payload),
    case("reader-stalls", When::Alone, reader_stalls),
    case("reader-never-returns", When::Alone, reader_never_returns),
    case("reader-starves", When::Alone, reader_starves),
];

const PORT: u16 = 8080;
/// Attached in a moment: it is not the hooks that matter here.
const FEW: &[&str] = &["--attach", "tracepoint"];
/// Each event by itself, however many there are.
const EACH: &[&str] = &["--attach", "tracepoint", "--storm", "off"];

/// It ends by itself and quietly once it has something to write; nobody is told how many events that takes.
fn ends_quietly(running: Running, ground: &Ground, listener: i32) -> Result<()> {
    // The first write may still fit; what follows it cannot.
    for _ in 0..3 {
        ground.reset(listener, PORT)?;
        sleep(Duration::from_millis(100));
    }
    let ended = running.wait(END)?;
    ended.exits(0)?;
    ended.is_silent()
}

/// What connections carried is payload: the kernel's own count has the FIN in it.
fn payload(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let inode = ground.inode();
    let args = [&["--json", "--netns", &inode, "--events", "all"], FEW].concat();
    let running = lab.tool(&args).spawn()?.started()?;
    // 10 bytes and a FIN arrive, nobody reads: the RST leaves in CLOSE_WAIT.
    let server = SocketAddr::new(loopback(false), PORT);
    let fd = ground.cli.socket(false)?;
    let client = ground.cli.connect(fd, server)?;
    let (accepted, _) = ground.srv.accept(listener)?;
    ground.cli.send(fd, 10)?;
    ground.cli.close(fd)?;
    let end = Instant::now() + END;
    while ground.srv.unread(accepted)? < 10 {
        ensure!(Instant::now() < end, "the data did not arrive");
    }
    sleep(Duration::from_millis(200));
    ground.srv.close(accepted)?;
    // The same without a FIN.
    let unread = ground.close_unread(listener, PORT)?;
    let ended = running.stop()?;
    ended.exits(0)?;
    let books = ended.events()?;
    for (client, state) in [(client, "CLOSE_WAIT"), (unread.client, "ESTABLISHED")] {
        let event = only(&books.events, "rst_sent", server, client)?;
        ensure!(event["state"] == state, "it was in {}", event["state"]);
        ensure!(event["bytes"]["received"] == 10, "10 bytes came, not {}", event["bytes"]);
    }
    let rows = books.summary["lifetimes"].as_array().context("no lifetimes")?;
    let of = |direction: &str| rows.iter().find(|row| row["direction"] == direction);
    let incoming = of("incoming").context("no incoming connections")?;
    ensure!(incoming["count"] == 2 && incoming["bytes_received"] == 20, "{incoming}");
    Ok(())
}

fn pipe_closed_at_once(lab: &Lab) -> Result<()> {
    for args in [&["--json"][..], &[]] {
        let ground = Ground::new()?;
        let listener = ground.listen(PORT)?;
        let (read, write) = sys::pipe()?;
        let inode = ground.inode();
        let args = [args, FEW, &["--netns", &inode]].concat();
        let running = lab.tool(&args).stdout(write).spawn()?;
        drop(read);
        ends_quietly(running, &ground, listener).with_context(|| format!("arguments {args:?}"))?;
    }
    // Pages are printed in one piece.
    for args in [&["--help"][..], &["doctor"]] {
        let (read, write) = sys::pipe()?;
        drop(read);
        let ended = lab.tool(args).stdout(write).run()?;
        ended.exits(0)?;
        ended.is_silent()?;
    }
    Ok(())
}

fn pipe_closed_later(lab: &Lab) -> Result<()> {
    for args in [&["--json"][..], &[]] {
        let ground = Ground::new()?;
        let listener = ground.listen(PORT)?;
        let inode = ground.inode();
        let args = [args, FEW, &["--netns", &inode]].concat();
        let mut running = lab.tool(&args).read_by_test().spawn()?;
        let mut reader = BufReader::new(running.take_stdout()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        ensure!(!line.is_empty(), "no first line");
        drop(reader);
        ends_quietly(running, &ground, listener).with_context(|| format!("arguments {args:?}"))?;
    }
    Ok(())
}

fn disk_full(lab: &Lab) -> Result<()> {
    let full = || OpenOptions::new().write(true).open("/dev/full");
    let json = [&["--json"], FEW].concat();
    for args in [&json[..], FEW, &["doctor"], &["--help"]] {
        let ended = lab.tool(args).stdout(full()?).spawn()?.wait(END)?;
        ended.exits(1).with_context(|| format!("arguments {args:?}"))?;
        ended
            .complains(&["cannot write to standard output", "No space left on device"])
            .with_context(|| format!("arguments {args:?}"))?;
        ensure!(ended.stderr.matches("cannot write").count() == 1, "it says it twice: {}", ended.stderr);
    }
    Ok(())
}

fn for_a_time(lab: &Lab) -> Result<()> {
    let ended = lab.tool(&["--json", "--for", "1s"]).run()?;
    ended.exits(0)?;
    ended.is_silent()?;
    let watched = ended.events()?.summary["watched_ns"].as_u64().unwrap_or(0);
    ensure!((1_000_000_000..10_000_000_000).contains(&watched), "it watched for {watched} ns");
    Ok(())
}

/// Exactly three events, though there are more in the kernel's buffer, and books that say so.
fn count(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let running =
        lab.tool(&[&["--json", "-c", "3", "--netns", &ground.inode()], FEW].concat()).spawn()?.started()?;
    for _ in 0..20 {
        ground.reset(listener, PORT)?;
    }
    let ended = running.wait(END)?;
    ended.exits(0)?;
    let events = ended.events()?.events;
    ensure!(events.len() == 3, "{} events and not three", events.len());
    Ok(())
}

fn two_at_once(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let inode = ground.inode();
    let args = ["--json", "--netns", &inode];
    let (one, two) = (lab.tool(&args).spawn()?, lab.tool(&args).spawn()?);
    let mut both = [one.started()?, two.started()?];
    let reset = ground.reset(listener, PORT)?;
    for running in &mut both {
        running.wait_events(2)?;
    }
    for running in both {
        let ended = running.stop()?;
        ended.exits(0)?;
        let books = ended.events()?;
        let sent = only(&books.events, "rst_sent", reset.client, reset.server)?;
        owned_by(sent, Some(ground.cli.pid()), ground.cli.comm())?;
        ensure!(books.events.len() == 2, "{} events and not two", books.events.len());
    }
    Ok(())
}

/// More events than the smallest buffer holds, while tcpwatch stands still: it says how many it lost, and fails.
fn strict_losses(lab: &Lab) -> Result<()> {
    const STORM: usize = 400;
    let ground = Ground::new()?;
    let args = ["--json", "--strict", "--buffer", "64K", "--storm", "off", "--netns", &ground.inode()];
    let running = lab.tool(&args).spawn()?.started()?;
    running.signal(libc::SIGSTOP)?;
    ground.storm(|count| count == STORM)?;
    running.signal(libc::SIGCONT)?;
    let ended = running.stop()?;
    let books = ended.events()?;
    ensure!(books.lost > 0, "nothing was lost");
    let seen = books.events.len() as u64 + books.lost;
    ensure!(seen == 2 * STORM as u64, "{STORM} refused connections made {seen} events and not two each");
    ended.exits(3)?;
    // Without the flag it is told all the same, but is no failure.
    let args = ["--json", "--strict", "--for", "100ms", "--netns", &ground.inode()];
    lab.tool(&[&args, FEW].concat()).run()?.exits(0).context("nothing lost")
}

/// Refused connections far above the rate: few of them one by one, all of them in the counts; another port's keep their detail, and
/// so does the first one after the storm.
fn storm(lab: &Lab) -> Result<()> {
    const STORM: usize = 2_000;
    const BESIDE: usize = 4;
    let ground = Ground::new()?;
    let args = ["--json", "--storm", "10", "--netns", &ground.inode()];
    let mut running = lab.tool(&[&args, FEW].concat()).spawn()?.started()?;
    let began = Instant::now();
    ground.storm(|count| {
        if count % (STORM / BESIDE) == 1 {
            // In a window of its own.
            sleep(Duration::from_millis(150));
            Ground::refuse(PORT);
        }
        count == STORM
    })?;
    let took = began.elapsed();
    // Longer than it takes for the limits to begin anew, and for what was counted to be told.
    sleep(Duration::from_millis(1500));
    let storms = |line: &str| line.contains("(--storm)");
    running.wait_lines(1, "a line about the storm", storms)?;
    ground.storm(|count| count == 1)?;
    let ended = running.stop()?;
    ended.exits(0)?;
    let books = ended.events()?;
    let sent = |port: u16| books.of("rst_sent").filter(move |event| event["local"]["port"] == port);
    let counts = |port: u16| sent(port).map(|event| event["count"].as_u64().unwrap_or(0));
    let all: u64 = counts(CLOSED).sum();
    ensure!(all == STORM as u64 + 1, "the counts of the storm's events add up to {all}");
    let single = counts(CLOSED).filter(|count| *count == 1).count();
    // One in each 67 ms, of which the first and the last may be begun only; and two CPUs may count at once.
    let most = 2 * (usize::try_from(took.as_millis())? / 67 + 3);
    ensure!(single <= most, "{single} of the storm were told one by one in {took:?}");
    let last = sent(CLOSED).last();
    ensure!(last.is_some_and(|event| event["count"] == 1), "no detail after the storm: {last:?}");
    ensure!(counts(PORT).eq([1; BESIDE]), "beside the storm: {:?}", counts(PORT).collect::<Vec<_>>());
    let unexplained = sent(CLOSED).find(|event| event["cause"]["id"] != "closed-port");
    ensure!(unexplained.is_none(), "not explained like the others: {unexplained:?}");
    ensure!(books.sum("aggregated") > 0 && books.lost == 0, "{}", books.summary["hooks"]);
    Ok(())
}

/// A run whose reader took the first line, and nothing of the far more than a pipe holds that came then.
fn stalled(lab: &Lab, ground: &Ground) -> Result<(Running, BufReader<ChildStdout>)> {
    let inode = ground.inode();
    let args = [&["--json", "--netns", &inode], EACH].concat();
    let mut running = lab.tool(&args).read_by_test().spawn()?;
    let out = running.take_stdout()?;
    let mut reader = BufReader::with_capacity(1, out);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let began = Instant::now();
    ground.storm(|count| count == 1000)?;
    ensure!(began.elapsed() < END, "the storm took {:?}: tcpwatch holds it up", began.elapsed());
    sleep(Duration::from_millis(500));
    Ok((running, reader))
}

/// A reader that takes nothing: the first Ctrl-C waits for it, the second does not.
fn reader_stalls(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let (running, reader) = stalled(lab, &ground)?;
    running.signal(libc::SIGINT)?;
    sleep(Duration::from_millis(700));
    running.signal(libc::SIGINT)?;
    let ended = running.wait(Duration::from_secs(10));
    drop(reader);
    let code = ended?.status.code();
    ensure!(code == Some(130), "it ended with {code:?}");
    Ok(())
}

/// One Ctrl-C, and a reader that has the pipe open and takes nothing ever: it ends, and says that something is missing.
fn reader_never_returns(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let (running, reader) = stalled(lab, &ground)?;
    running.signal(libc::SIGINT)?;
    let ended = running.wait(END);
    drop(reader);
    let ended = ended?;
    ended.exits(1)?;
    ended.complains(&["cannot write to standard output", "the reader took nothing for 10 s"])?;
    ensure!(ended.took > Duration::from_secs(9), "it waited for {:?} only", ended.took);
    Ok(())
}

/// More events than tcpwatch keeps for a reader that takes nothing: it goes on, grows no further, and once it is read again
/// there are whole lines only, and books that say what is missing. Whether the reader comes back before the end or after.
fn reader_starves(lab: &Lab) -> Result<()> {
    /// Two events each, of a kilobyte or so: about twice of what is kept.
    const STORM: usize = 8_000;
    const BEFORE: usize = 50;
    /// What is kept, beyond it a line a second about losses, and as much again for all else.
    const ROOM: u64 = (8 << 20) + (256 << 10) + (2 << 20);
    for back_before_the_end in [true, false] {
        let ground = Ground::new()?;
        let listener = ground.listen(PORT)?;
        let inode = ground.inode();
        let args = [&["--json", "--strict", "--netns", &inode], EACH].concat();
        let mut running = lab.tool(&args).read_by_test().spawn()?;
        let mut reader = BufReader::with_capacity(1, running.take_stdout()?);
        let mut lines = Vec::new();
        let mut read = |reader: &mut BufReader<_>, count: usize| {
            for _ in 0..count {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                lines.push(line.trim_end().to_owned());
            }
            Ok::<_, anyhow::Error>(())
        };
        read(&mut reader, 1)?;
        // What the first events of all take, names of functions for example, is there for good.
        ground.storm(|count| count == BEFORE)?;
        read(&mut reader, 2 * BEFORE)?;
        let memory = running.memory()?;
        ground.storm(|count| count == STORM)?;
        sleep(Duration::from_millis(1500));
        let grown = running.memory()?.saturating_sub(memory);
        ensure!(grown < ROOM, "it grew by {grown} bytes");
        let mut provoked = 2 * (BEFORE + STORM) as u64;
        if back_before_the_end {
            running.read_on(reader, lines);
            let is_loss = |line: &str| line.starts_with(r#"{"event":"lost""#);
            running.wait_lines(1, "a line about losses", is_loss)?;
            // There is room again.
            sleep(Duration::from_millis(500));
            let reset = ground.reset(listener, PORT)?;
            provoked += 2;
            let port = format!("\"port\":{}", reset.client.port());
            running.wait_lines(2, "a reset after that", |line| line.contains(&port))?;
            running.signal(libc::SIGINT)?;
        } else {
            running.signal(libc::SIGINT)?;
            sleep(Duration::from_secs(3));
            running.read_on(reader, lines);
        }
        let ended = running.wait(END)?;
        ended.exits(3)?;
        let books = ended.events()?;
        ensure!(books.lost > 0, "nothing was lost");
        let told = books.events.len() as u64 + books.lost;
        ensure!(told == provoked, "{provoked} events were provoked, and {told} are shown or lost");
        // Traffic of other namespaces is seen, too.
        let of_ours = books.sum("seen") - books.sum("filtered");
        ensure!(of_ours == provoked, "{provoked} events were provoked, and {of_ours} are in the books");
        let bytes: usize = ended.stdout.iter().map(String::len).sum();
        ensure!(bytes > 8 << 20, "only {bytes} bytes of it were kept");
    }
    Ok(())
}
