//! The stage of one incident: the host that somebody is paged for, another host, and tcpwatch on the first.

use std::any::Any;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::programs::{Daemon, Programs};
use crate::counters::{Counters, accept_queue, sockets_in};
use crate::hosts::tool::{Running, Tool};
use crate::net::{Family, Netns, Pair};

/// No wait takes longer; emulated machines are slow.
const LIMIT: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(20);
/// For what is on its way when an incident is over.
const CALM: Duration = Duration::from_millis(600);

/// What all incidents share.
pub(super) struct Lab {
    pub(super) tcpwatch: String,
    pub(super) programs: Programs,
    /// Where captures and their reports stay; a folder of its own otherwise.
    pub(super) captures: Option<PathBuf>,
}

pub(super) struct Scene<'a> {
    pub(super) lab: &'a Lab,
    /// What its capture is called.
    pub(super) name: String,
    pub(super) family: Family,
    pub(super) pair: Pair,
    servers: Vec<Daemon>,
    /// What else has to live until nobody watches any more: its end would be one more event.
    kept: Vec<Box<dyn Any + Send + Sync>>,
    watch: Option<Watch>,
    before: Counters,
}

/// What runs beside the incident.
struct Watch {
    trace: Running,
    /// The command under test, for programs and for people.
    diagnosis: Running,
    text: Running,
}

/// What was seen of an incident.
pub(super) struct Seen {
    /// Every line of `trace`, its first and last ones apart.
    pub(super) start: Value,
    pub(super) events: Vec<Value>,
    /// Runs of its programs that the kernel left out, as `trace` says.
    pub(super) missed: u64,
    /// What `diagnose` said: as JSON, and as text.
    pub(super) diagnosis: Value,
    pub(super) text: String,
    /// The host's namespace.
    pub(super) netns: u64,
    /// How far the kernel's counters of the host grew.
    pub(super) before: Counters,
    pub(super) after: Counters,
    /// The same, when nobody watched any more: what comes in between, a client's next try, each watcher may have seen or not.
    pub(super) late: Counters,
}

impl Seen {
    pub(super) fn growth(&self, counter: &str) -> u64 {
        self.after.since(&self.before, counter)
    }

    /// How far a counter may have grown while a watcher watched.
    pub(super) fn grown(&self, counter: &str) -> RangeInclusive<u64> {
        self.growth(counter)..=self.late.since(&self.before, counter)
    }
}

impl<'a> Scene<'a> {
    pub(super) fn new(lab: &'a Lab, name: &str, family: Family) -> Result<Self> {
        let name = format!("incident-{name}-{}", family.label());
        let (pair, servers, kept) = (Pair::new()?, Vec::new(), Vec::new());
        Ok(Self { lab, name, family, pair, servers, kept, watch: None, before: Counters::default() })
    }

    /// The host in trouble.
    pub(super) fn host(&self) -> &Netns {
        &self.pair.server
    }

    /// Where its clients are, or its backend.
    pub(super) fn elsewhere(&self) -> &Netns {
        &self.pair.client
    }

    /// Starts a real server that lives as long as the scene. Gives its place in `server`.
    fn serve(&mut self, on_host: bool, port: u16, program: &str, args: &[&str]) -> Result<usize> {
        let netns = if on_host { &self.pair.server } else { &self.pair.client };
        self.servers.push(self.lab.programs.serve(netns, port, program, args)?);
        Ok(self.servers.len() - 1)
    }

    /// redis, without persistence and open to all of the little network. Gives its pid.
    pub(super) fn redis(&mut self, on_host: bool, more: &[&str]) -> Result<i32> {
        let usual =
            ["--save", "", "--protected-mode", "no", "--enable-debug-command", "yes", "--dir", "/run"];
        let at = self.serve(on_host, 6379, "/usr/bin/redis-server", &[&usual, more].concat())?;
        Ok(self.servers[at].pid())
    }

    /// nginx with one worker and these lines in its `http` block. Gives the pids of the master and the worker.
    pub(super) fn nginx(&mut self, on_host: bool, http: &str) -> Result<[i32; 2]> {
        let config = format!(
            "daemon off; worker_processes 1; user www-data; pid /run/nginx.pid; error_log stderr warn;\n\
             load_module /usr/lib/nginx/modules/ndk_http_module.so;\n\
             load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n\
             access_log off; keepalive_requests 100000;\n\
             client_body_temp_path /run/body; proxy_temp_path /run/proxy; fastcgi_temp_path /run/fastcgi;\n\
             uwsgi_temp_path /run/uwsgi; scgi_temp_path /run/scgi;\n\
             {http}\n\
             }}\n"
        );
        let config = self.lab.programs.write("nginx.conf", &config)?;
        let at = self.serve(on_host, 80, "/usr/sbin/nginx", &["-c", &config])?;
        let master = &self.servers[at];
        Ok([master.pid(), master.worker()?])
    }

    /// Keeps something until the scene is over.
    pub(super) fn keep(&mut self, what: impl Any + Send + Sync) {
        self.kept.push(Box::new(what));
    }

    /// Everything so far was there before anybody looked. From here on tcpwatch watches.
    pub(super) fn watch(&mut self, more: &[&str]) -> Result<()> {
        let netns = self.host().inode().to_string();
        let usual = ["--netns", &netns];
        let start =
            |command: &[&str]| Tool::plain(&self.lab.tcpwatch, &[command, &usual, more].concat()).spawn();
        // The trace shows each event that the diagnosis has to add up.
        let trace = start(&["trace", "--json"])?.started().context("tcpwatch trace")?;
        let capture = self.capture();
        let capture = capture.to_str().context("a name that is no text")?;
        let mut diagnosis = start(&["diagnose", "--json", "--for", "1h", "-w", capture])?;
        diagnosis
            .wait_lines(1, "the state at the start", |line| line.contains(r#""phase":"found""#))
            .context("tcpwatch diagnose --json")?;
        let mut text = start(&["diagnose", "--for", "1h"])?;
        text.wait_lines(1, "the watch", |line| line.contains("Watching")).context("tcpwatch diagnose")?;
        self.watch = Some(Watch { trace, diagnosis, text });
        self.before = self.host().counters()?;
        Ok(())
    }

    /// The incident is over: what tcpwatch said, and what the kernel counted.
    pub(super) fn seen(&mut self) -> Result<Seen> {
        let watch = self.watch.take().context("nobody watched")?;
        self.calm()?;
        let after = self.host().counters()?;
        let text = watch.text.stop()?;
        text.exits(0).context("tcpwatch diagnose")?;
        let diagnosis = watch.diagnosis.stop()?;
        diagnosis.exits(0).context("tcpwatch diagnose --json")?;
        let trace = watch.trace.stop()?;
        trace.exits(0).context("tcpwatch trace")?;
        let late = self.host().counters()?;
        let books = trace.events().context("tcpwatch trace")?;
        ensure!(
            diagnosis.stdout.len() == 2,
            "diagnose printed {} lines of JSON, not 2",
            diagnosis.stdout.len()
        );
        self.again(&diagnosis.stdout).context("the capture of the diagnosis")?;
        let last = diagnosis.stdout.last().context("diagnose printed nothing")?;
        Ok(Seen {
            missed: crate::judge::missed(std::slice::from_ref(&books.summary)),
            start: books.start,
            events: books.events,
            diagnosis: serde_json::from_str(last).with_context(|| format!("no JSON: {last}"))?,
            text: text.stdout.join("\n"),
            netns: self.host().inode(),
            before: self.before.clone(),
            after,
            late,
        })
    }

    fn capture(&self) -> PathBuf {
        let folder = self.lab.captures.clone().unwrap_or_else(std::env::temp_dir);
        folder.join(format!("{}.pcapng", self.name))
    }

    /// From its capture the same diagnosis comes again, byte for byte, and a report.
    fn again(&self, lines: &[String]) -> Result<()> {
        let capture = self.capture();
        let path = capture.to_str().context("a name that is no text")?;
        let again = Tool::plain(&self.lab.tcpwatch, &["diagnose", "--json", "-r", path]).run()?;
        again.exits(0)?;
        again.is_silent()?;
        ensure!(again.stdout == lines, "it says {:?} instead of {lines:?}", again.stdout);
        let report = Tool::plain(&self.lab.tcpwatch, &["report", "-r", path]).run()?;
        report.exits(0)?;
        let page = capture.with_extension("html");
        let text = std::fs::read_to_string(&page).context("no report")?;
        let last: Value = serde_json::from_str(lines.last().context("no diagnosis")?)?;
        let verdicts = last["verdicts"].as_array().context("a diagnosis without verdicts")?;
        for cause in verdicts.iter().filter_map(|verdict| verdict["cause"].as_str()) {
            ensure!(text.contains(cause), "the report does not speak of {cause}");
        }
        if self.lab.captures.is_none() {
            std::fs::remove_file(&capture)?;
            std::fs::remove_file(&page)?;
        }
        Ok(())
    }

    /// Waits until the kernel's books of the host rest.
    fn calm(&self) -> Result<()> {
        let mut books = self.host().counters()?;
        self.wait("the host to come to rest", || {
            sleep(CALM);
            let now = self.host().counters()?;
            let names = ["OutRsts", "ListenDrops", "TCPTimeWaitOverflow", "TCPReqQFullDoCookies"];
            let rests = names.iter().all(|name| now.since(&books, name) == 0);
            books = now;
            Ok(rests)
        })
    }

    pub(super) fn growth(&self, counter: &str) -> Result<u64> {
        Ok(self.host().counters()?.since(&self.before, counter))
    }

    pub(super) fn wait_growth(&self, counter: &str, growth: u64) -> Result<()> {
        self.wait(&format!("{counter} to grow by {growth}"), || Ok(self.growth(counter)? >= growth))
    }

    /// Waits until so many sockets of the host with this local port are in a state, by the kernel's own table.
    pub(super) fn wait_sockets(&self, port: u16, state: &str, count: usize) -> Result<()> {
        self.wait(&format!("{count} sockets of port {port} in {state}"), || {
            Ok(self.sockets(port, state)? >= count)
        })
    }

    fn tables(&self) -> Result<[String; 2]> {
        Ok([self.host().proc_net("tcp")?, self.host().proc_net("tcp6").unwrap_or_default()])
    }

    pub(super) fn sockets(&self, port: u16, state: &str) -> Result<usize> {
        Ok(self.tables()?.iter().map(|table| sockets_in(table, Some(port), None, state)).sum())
    }

    /// Waits until so many connections wait to be accepted on a port.
    pub(super) fn wait_queue(&self, port: u16, length: u64) -> Result<()> {
        self.wait(&format!("{length} connections waiting to be accepted on port {port}"), || {
            Ok(self.tables()?.iter().filter_map(|table| accept_queue(table, port)).sum::<u64>() >= length)
        })
    }

    /// The same with this remote port.
    pub(super) fn sockets_to(&self, port: u16, state: &str) -> Result<usize> {
        Ok(self.tables()?.iter().map(|table| sockets_in(table, None, Some(port), state)).sum())
    }

    pub(super) fn wait(&self, what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !ready()? {
            if Instant::now() > end {
                let books = self.host().counters()?.grown(&self.before);
                bail!("waited in vain for {what}; the host: {books}");
            }
            sleep(PAUSE);
        }
        Ok(())
    }
}
