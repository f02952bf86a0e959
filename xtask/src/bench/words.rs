//! What tools wrote while they were measured: events of the load counted, losses found, tcpwatch's books read.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::data::{Books, HookBooks, ToolRun};

/// Reads tcpwatch's lines of JSON. Events of other namespaces than the load's are somebody else's.
pub(super) fn tcpwatch(from: impl Read, netns: u64, into: &mut ToolRun) -> Result<()> {
    let mut lines = BufReader::with_capacity(1 << 20, from);
    let ours = format!("\"netns\":{netns},");
    let mut line = String::new();
    let mut last = String::new();
    loop {
        line.clear();
        let len = lines.read_line(&mut line).context("tcpwatch wrote what is no text")?;
        if len == 0 {
            break;
        }
        into.written += len as u64;
        let kind = kind(&line).with_context(|| format!("tcpwatch wrote a line that is no event: {line}"))?;
        match kind {
            "start" | "lost" => {}
            "summary" => last.clone_from(&line),
            _ if line.contains(&ours) => {
                let count = count(&line).with_context(|| format!("an event without a count: {line}"))?;
                into.events += count;
                *into.kinds.entry(kind.to_owned()).or_default() += count;
            }
            _ => {}
        }
    }
    if last.is_empty() {
        bail!("tcpwatch ended without a summary");
    }
    let books = books(&last, netns)?;
    into.lost = books.hooks.values().map(|hook| hook.lost).sum();
    into.books = Some(books);
    Ok(())
}

/// The first field of each line. Lines come by the million: they are not parsed.
pub(super) fn kind(line: &str) -> Option<&str> {
    line.strip_prefix("{\"event\":\"")?.split('"').next()
}

/// How many events an event stands for; the field is the last but what other versions add.
pub(super) fn count(line: &str) -> Option<u64> {
    number(line.rsplit_once("\"count\":")?.1)
}

/// The network namespace of an event: a field before those that hold texts.
pub(super) fn netns(line: &str) -> Option<u64> {
    number(line.split_once("\"netns\":")?.1)
}

fn number(rest: &str) -> Option<u64> {
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The books of a `summary`. Those that do not balance are an error: no figure beside them is worth anything.
pub(super) fn books(summary: &str, netns: u64) -> Result<Books> {
    let summary: Value = serde_json::from_str(summary).context("tcpwatch's summary is no JSON")?;
    let mut books = Books::default();
    for (name, hook) in summary["hooks"].as_object().context("a summary without hooks")? {
        let hook: HookBooks =
            serde_json::from_value(hook.clone()).with_context(|| format!("the books of {name}"))?;
        if !hook.balance() {
            bail!("tcpwatch's books of {name} do not balance: {hook:?}");
        }
        books.hooks.insert(name.clone(), hook);
    }
    for row in summary["reconciliation"].as_array().context("a summary without reconciliation")? {
        if row["netns"].as_u64() == Some(netns)
            && let Some(counter) = row["counter"].as_str()
        {
            let explained = row["explained"].as_u64().unwrap_or(0);
            books.reconciled.insert(counter.to_owned(), (row["kernel"].as_u64(), explained));
        }
    }
    Ok(books)
}

/// Reads what a rival wrote: lines that name an address of the load are its events.
pub(super) fn rival(from: impl Read, into: &mut ToolRun) -> Result<()> {
    let mut lines = BufReader::with_capacity(1 << 20, from);
    let mut line = Vec::new();
    loop {
        line.clear();
        let len = lines.read_until(b'\n', &mut line)?;
        if len == 0 {
            return Ok(());
        }
        into.written += len as u64;
        let text = String::from_utf8_lossy(&line);
        if text.contains("127.0.1.") {
            into.events += 1;
        } else {
            into.lost += lost(&text);
        }
    }
}

/// What a rival counts in the kernel: `@[STATE]: COUNT`.
pub(super) fn counted(from: impl Read, into: &mut ToolRun) -> Result<()> {
    for line in BufReader::new(from).lines() {
        let line = line?;
        into.written += line.len() as u64 + 1;
        if let Some((_, number)) = line.strip_prefix('@').and_then(|line| line.rsplit_once(": ")) {
            into.events += number.trim().parse::<u64>().with_context(|| format!("no count: {line}"))?;
        }
    }
    Ok(())
}

/// `Lost 12 events` (bpftrace), `lost 12 events on CPU #0!` (libbpf-tools).
pub(super) fn lost(text: &str) -> u64 {
    let mut words = text.split_whitespace().peekable();
    let mut sum = 0;
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case("lost")
            && let Some(number) = words.peek().and_then(|next| next.parse::<u64>().ok())
        {
            sum += number;
        }
    }
    sum
}

/// How tcpwatch is attached.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hooks {
    pub(super) tracepoints: Vec<String>,
    /// How many are functions.
    pub(super) functions: usize,
    /// How many this kernel does not grant.
    pub(super) refused: usize,
}

/// From tcpwatch's first line.
pub(super) fn hooks(start: &str) -> Result<Hooks> {
    let start: Value = serde_json::from_str(start).context("tcpwatch's first line is no JSON")?;
    let hooks: BTreeMap<String, Value> =
        serde_json::from_value(start["hooks"].clone()).context("a start without hooks")?;
    let mut found = Hooks::default();
    for (name, hook) in hooks {
        match hook["attached"].as_str() {
            Some("tracepoint") => found.tracepoints.push(name),
            Some(_) => found.functions += 1,
            None => found.refused += 1,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = concat!(
        r#"{"event":"start","hooks":{"a":{"attached":"tracepoint"},"b":{"attached":null},"c":{"attached":"fentry"}}}"#,
        "\n",
        r#"{"event":"rst_sent","netns":7,"cause":{"summary":"\"count\":99"},"count":1}"#,
        "\n",
        r#"{"event":"rst_sent","netns":7,"count":40,"later":{"x":1}}"#,
        "\n",
        r#"{"event":"rst_sent","netns":8,"count":1}"#,
        "\n",
        r#"{"event":"state","netns":7,"count":1}"#,
        "\n",
        r#"{"event":"lost","hook":"tcp_send_reset","count":2}"#,
        "\n",
        r#"{"event":"summary","hooks":{"tcp_send_reset":{"seen":5,"delivered":3,"filtered":0,"aggregated":0,"lost":2,"missed":0}},"#,
        r#""reconciliation":[{"netns":7,"counter":"TcpOutRsts","kernel":41,"explained":41},{"netns":8,"counter":"TcpOutRsts","kernel":1,"explained":1}]}"#,
        "\n"
    );

    #[test]
    fn events_of_the_load_are_counted_and_others_are_not() {
        let mut run = ToolRun::default();
        tcpwatch(LINES.as_bytes(), 7, &mut run).unwrap();
        assert_eq!((run.events, run.kinds["rst_sent"], run.kinds["state"], run.lost), (42, 41, 1, 2));
        assert_eq!(run.written, LINES.len() as u64);
        let books = run.books.unwrap();
        assert_eq!(books.reconciled["TcpOutRsts"], (Some(41), 41));
        assert_eq!(books.hooks["tcp_send_reset"].seen, 5);
    }

    #[test]
    fn a_run_without_summary_and_books_that_do_not_balance_are_errors() {
        let cut = LINES.lines().next().unwrap();
        assert!(
            tcpwatch(cut.as_bytes(), 7, &mut ToolRun::default()).unwrap_err().to_string().contains("summary")
        );
        let wrong = LINES.replace("\"seen\":5", "\"seen\":6");
        let error = tcpwatch(wrong.as_bytes(), 7, &mut ToolRun::default()).unwrap_err().to_string();
        assert!(error.contains("tcp_send_reset do not balance"), "{error}");
        let noise = "thread panicked\n";
        assert!(tcpwatch(noise.as_bytes(), 7, &mut ToolRun::default()).is_err());
    }

    #[test]
    fn the_hooks_of_a_start_are_told_apart_by_how_they_are_attached() {
        let start = LINES.lines().next().unwrap();
        let told = Hooks { tracepoints: vec!["a".to_owned()], functions: 1, refused: 1 };
        assert_eq!(hooks(start).unwrap(), told);
    }

    #[test]
    fn a_rival_has_events_and_losses() {
        let text = "SKADDR PID\nffff 1 127.0.0.1 9 127.0.1.3 7000\nLost 12 events\nffff 2 127.0.1.3 7000\n";
        let mut run = ToolRun::default();
        rival(text.as_bytes(), &mut run).unwrap();
        assert_eq!((run.events, run.lost), (2, 12));
        assert_eq!(lost("lost 3 events on CPU #0!\nlost 4 events on CPU #1!"), 7);
        assert_eq!(lost("nothing is lost"), 0);
    }

    #[test]
    fn counts_of_bpftrace_add_up() {
        let mut run = ToolRun::default();
        counted("Attaching 1 probe...\n\n\n@[1]: 20\n@[7]: 22\n".as_bytes(), &mut run).unwrap();
        assert_eq!(run.events, 42);
        assert!(counted("@x: many\n".as_bytes(), &mut run).is_err());
    }
}
