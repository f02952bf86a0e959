//! The configuration of the agent: a file in TOML, and flags that say otherwise. Every key has the name of its flag.

use super::otlp::settings::{OtlpFile, Settings};
use super::ring::Ring;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the file is when nobody says otherwise; without it the defaults hold.
pub const FILE: &str = "/etc/tcpwatch/agent.toml";

/// What a file says. What it does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    pub listen: Option<String>,
    pub max_series: Option<usize>,
    pub journal: Option<bool>,
    pub filter: Option<String>,
    pub events: Option<String>,
    pub close_wait_after: Option<String>,
    pub storm: Option<String>,
    pub netns: Option<String>,
    pub cgroup: Option<String>,
    pub attach: Option<String>,
    pub btf: Option<PathBuf>,
    pub buffer: Option<String>,
    pub sockets: Option<String>,
    pub ended: Option<String>,
    pub ring: Option<RingFile>,
    pub otlp: Option<OtlpFile>,
}

/// `[ring]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RingFile {
    pub path: PathBuf,
    pub keep: Option<String>,
    pub max: Option<String>,
}

/// What the agent does beside watching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where figures are given out; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Series of a figure by process; what is beyond is `other`.
    pub max_series: usize,
    pub journal: bool,
    pub ring: Option<Ring>,
    /// Where events and figures go over OTLP.
    pub otlp: Option<Settings>,
    pub close_wait_after: Duration,
    /// The file that says so.
    pub file: Option<PathBuf>,
}

/// For `--check`: a line for each thing that it does. Headers to a collector are secrets and not among them.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => writeln!(f, "configuration  {}", file.display())?,
            None => writeln!(f, "configuration  the flags alone")?,
        }
        match self.listen {
            Some(address) => {
                writeln!(
                    f,
                    "figures        http://{address}/metrics, of {} processes at most",
                    self.max_series
                )?;
            }
            None => writeln!(f, "figures        off")?,
        }
        writeln!(f, "journal        {}", if self.journal { "each event" } else { "off" })?;
        match &self.ring {
            Some(Ring { folder, keep, max }) => {
                let (keep, max) = (keep.as_secs() / 60, max >> 20);
                writeln!(
                    f,
                    "ring           {}: the last {keep} minutes, {max} MiB at most",
                    folder.display()
                )?;
            }
            None => writeln!(f, "ring           off")?,
        }
        match &self.otlp {
            Some(Settings { endpoint, protocol, .. }) => {
                writeln!(f, "collector      {endpoint} ({protocol:?})")
            }
            None => writeln!(f, "collector      off"),
        }
    }
}

impl File {
    /// Reads a file. One that nobody named need not be there.
    ///
    /// # Errors
    /// It cannot be read, or says what nobody understands.
    pub fn read(path: Option<&Path>) -> Result<(Self, Option<PathBuf>)> {
        let named = path.is_some();
        let path = path.unwrap_or(Path::new(FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if !named && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok((Self::default(), None));
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "cannot read the configuration {}\nhint: `--config FILE` names another",
                        path.display()
                    )
                });
            }
        };
        Ok((Self::parse(&text, path)?, Some(path.to_owned())))
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            // Its own text has the line, drawn over several; ours is a sentence.
            let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
            let line = before.matches('\n').count() + 1;
            let what = error.message().trim().replace('\n', " ");
            anyhow::anyhow!(
                "line {line} of {} makes no sense: {what}\nhint: docs/agent.md lists the keys",
                path.display()
            )
        })
    }
}

/// An address to listen on, `off` for none.
pub fn address(text: &str) -> Result<Option<SocketAddr>> {
    if text == "off" {
        return Ok(None);
    }
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => bail!(
            "`{text}` is not an address to listen on\nhint: an address and a port, as 127.0.0.1:9853 or [::]:9853, or off"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_it_says_and_no_more() {
        let text =
            "listen = \"[::]:9853\"\nmax-series = 10\n[ring]\npath = \"/var/lib/tcpwatch\"\nmax = \"1G\"\n";
        let file = File::parse(text, Path::new("a")).unwrap();
        assert_eq!(
            (file.listen.as_deref(), file.max_series, &file.filter),
            (Some("[::]:9853"), Some(10), &None)
        );
        assert_eq!(file.ring.unwrap().max.as_deref(), Some("1G"));
        assert_eq!(File::parse("", Path::new("a")).unwrap(), File::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, what) in [
            ("listen = \"x\"\nlisten-on = 5\n", "line 2", "listen-on"),
            ("listen = 5\n", "line 1", "string"),
            ("\n[ring]\nkeep = \"1h\"\n", "", "path"),
            ("listen = \n", "line 1", ""),
        ] {
            let error = format!("{:#}", File::parse(text, Path::new("/etc/a.toml")).unwrap_err());
            assert!(error.contains(line) && error.contains(what) && error.contains("/etc/a.toml"), "{error}");
            assert!(error.contains("\nhint: "), "{error}");
        }
    }

    #[test]
    fn only_a_file_that_was_named_must_be_there() {
        let error = File::read(Some(Path::new("/no/such/file"))).unwrap_err();
        assert!(format!("{error:#}").contains("/no/such/file"));
    }

    #[test]
    fn addresses() {
        assert_eq!(address("off").unwrap(), None);
        assert_eq!(address("127.0.0.1:9853").unwrap(), Some("127.0.0.1:9853".parse().unwrap()));
        for text in ["9853", "localhost:9853", "", "127.0.0.1"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
