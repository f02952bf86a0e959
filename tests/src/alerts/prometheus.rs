//! Prometheus and promtool out of a folder that holds all they need: started with the loader and the libraries that lie there.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::sys;

const CONFIG: &str = include_str!("../../../deploy/prometheus/prometheus.yml");
const RULES: &str = include_str!("../../../deploy/prometheus/tcpwatch.rules.yml");
const RULES_TEST: &str = include_str!("../../../deploy/prometheus/tcpwatch.rules.test.yml");

/// Instead of the quarter of a minute that the shipped configuration says, and instead of the minutes that an alert waits.
const INTERVAL: &str = "2s";
const END: Duration = Duration::from_secs(20);

fn program(root: &Path, program: &Path) -> Command {
    let mut command = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu")).arg(program);
    // Nobody's settings but ours.
    command.env_clear().env("LANG", "C").stdin(Stdio::null());
    command
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// The text with each `key: …` replaced; so many there must be.
fn replaced(text: &str, key: &str, value: &str, count: usize) -> Result<String> {
    let mut found = 0;
    let line = |line: &str| match line.trim_start().strip_prefix(key).and_then(|rest| rest.strip_prefix(": "))
    {
        Some(_) => {
            found += 1;
            format!("{}{key}: {value}\n", &line[..line.len() - line.trim_start().len()])
        }
        None => format!("{line}\n"),
    };
    let text = text.lines().map(line).collect();
    ensure!(found == count, "`{key}` is {found} times in what is shipped, and not {count} times");
    Ok(text)
}

/// The rules that ship, but that nobody waits for minutes; what they ask is untouched.
fn impatient_rules() -> Result<String> {
    replaced(RULES, "for", INTERVAL, RULES.matches("- alert: ").count())
}

pub(super) struct Promtool {
    root: PathBuf,
    program: PathBuf,
}

impl Promtool {
    pub(super) fn new(root: &Path, program: &Path) -> Self {
        Self { root: root.to_owned(), program: program.to_owned() }
    }

    fn run(&self, folder: &Path, args: &[&str], input: &str) -> Result<()> {
        let mut command = program(&self.root, &self.program);
        command.args(args).current_dir(folder).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting promtool")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(output.status.success(), "promtool {}: {}", args.join(" "), said.trim());
        Ok(())
    }

    /// The configuration, the rules, and what their tests say.
    pub(super) fn rules(&self, folder: &Path) -> Result<()> {
        for (name, text) in [
            ("prometheus.yml", CONFIG),
            ("tcpwatch.rules.yml", RULES),
            ("tcpwatch.rules.test.yml", RULES_TEST),
        ] {
            write(folder, name, text)?;
        }
        self.run(folder, &["check", "config", "prometheus.yml"], "")?;
        self.run(folder, &["check", "rules", "tcpwatch.rules.yml"], "")?;
        self.run(folder, &["test", "rules", "tcpwatch.rules.test.yml"], "")
    }

    /// Its lint of a page of figures.
    pub(super) fn page(&self, page: &str) -> Result<()> {
        self.run(Path::new("/"), &["check", "metrics"], page)
    }
}

/// A running Prometheus that scrapes one agent.
pub(super) struct Prometheus {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Prometheus {
    pub(super) fn start(root: &Path, folder: &Path, agent: SocketAddr) -> Result<Self> {
        let config = replaced(CONFIG, "scrape_interval", INTERVAL, 1)?;
        let config = replaced(&config, "evaluation_interval", INTERVAL, 1)?;
        let config = replaced(&config, "- targets", &format!("[\"{agent}\"]"), 1)?;
        write(folder, "prometheus.yml", &config)?;
        write(folder, "tcpwatch.rules.yml", &impatient_rules()?)?;
        // It does not tell which port it got, so one that is free now.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = folder.join("prometheus.log");
        let mut command = program(root, &root.join("usr/bin/prometheus"));
        command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file);
        sys::interrupt_with_us(&mut command);
        let child = command.spawn().context("starting Prometheus")?;
        Ok(Self { child, address, log })
    }

    /// The end of its log, for whoever wonders.
    pub(super) fn said(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        format!("Prometheus said: {}", lines[lines.len().saturating_sub(5)..].join("\n"))
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(self.address).context("Prometheus does not listen")?;
        stream.set_read_timeout(Some(END))?;
        // In the older HTTP an answer comes in one piece.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
        ensure!(head.contains(" 200 "), "Prometheus answers {path} with {answer}");
        let json: Value = serde_json::from_str(body).with_context(|| format!("no JSON: {body}"))?;
        ensure!(json["status"] == "success", "Prometheus answers {path} with {body}");
        Ok(json["data"].clone())
    }

    pub(super) fn alerts(&self) -> Result<Vec<Value>> {
        let mut data = self.ask("/api/v1/alerts")?;
        let Value::Array(alerts) = data["alerts"].take() else { bail!("no list of alerts") };
        Ok(alerts)
    }

    pub(super) fn targets(&self) -> Result<Vec<Value>> {
        let mut data = self.ask("/api/v1/targets")?;
        let Value::Array(targets) = data["activeTargets"].take() else { bail!("no list of targets") };
        Ok(targets)
    }

    /// Waits until it has judged all rules so many times more.
    pub(super) fn wait_evaluations(&self, times: u32) -> Result<()> {
        let mut last = String::new();
        for _ in 0..=times {
            let end = Instant::now() + END;
            loop {
                let data = self.ask("/api/v1/rules")?;
                let now = data["groups"][0]["lastEvaluation"].as_str().unwrap_or_default().to_owned();
                if now != last && !now.is_empty() && !now.starts_with("0001") {
                    last = now;
                    break;
                }
                ensure!(Instant::now() < end, "Prometheus judges nothing: {data}");
                sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }

    /// Its alerts in a line.
    pub(super) fn summary(&self) -> String {
        match self.alerts() {
            Ok(alerts) => {
                let one =
                    |alert: &Value| format!("{} {} {}", alert["state"], alert["labels"], alert["value"]);
                format!("the alerts [{}]", alerts.iter().map(one).collect::<Vec<_>>().join(", "))
            }
            Err(error) => format!("no alerts to be had: {error:#}; {}", self.said()),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(sys::signal(self.child.id().cast_signed(), libc::SIGTERM));
        let end = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            sleep(Duration::from_millis(50));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_waits_differ_from_the_rules_that_ship() {
        let rules = impatient_rules().unwrap();
        let differ: Vec<_> = RULES.lines().zip(rules.lines()).filter(|(a, b)| a != b).collect();
        assert_eq!(RULES.lines().count(), rules.lines().count());
        assert!(differ.len() > 4, "{differ:?}");
        assert!(differ.iter().all(|(_, line)| line.trim() == format!("for: {INTERVAL}")), "{differ:?}");
        assert!(replaced("a: 1\n", "b", "2", 1).is_err());
    }
}
