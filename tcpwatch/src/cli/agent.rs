//! What the agent was told, by flags and by its file; read again when the file has changed.

use super::args::{AgentArgs, CaptureArgs, FilterArgs, KernelArgs, OutputArgs};
use super::options::{WatchOptions, watch};
use super::{Error, otlp, values};
use crate::agent::config::{self, Config, File, RingFile};
use crate::agent::ring::Ring;
use crate::host::Host;
use std::time::Duration;

/// Loopback: who wants to be scraped from elsewhere says so.
const LISTEN: &str = "127.0.0.1:9853";
const MAX_SERIES: usize = 1_000;
const KEEP: Duration = Duration::from_secs(3_600);
const MAX: u64 = 256 << 20;
/// Smaller, and each of the ring's files would have hardly an event.
const MIN: u64 = 1 << 20;

/// The flags of `tcpwatch agent`; with its file they are [`Self::load`]ed.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentOptions {
    typed: AgentArgs,
}

/// What was typed, or what the file says.
fn or<T>(typed: Vec<T>, file: Option<T>) -> Vec<T> {
    if typed.is_empty() { file.into_iter().collect() } else { typed }
}

impl AgentOptions {
    pub(super) fn new(typed: AgentArgs) -> Self {
        Self { typed }
    }

    /// `--check`: what file and flags come to, and whether that makes sense, is all that is asked.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, host: &Host) -> Option<Result<Config, Error>> {
        let wrong = |error| Error { exit: super::Exit::Usage, ..error };
        self.typed.check.then(|| self.load(host).map(|(config, _)| config).map_err(wrong))
    }

    /// Reads the file and joins it with the flags.
    ///
    /// # Errors
    /// The file cannot be read, or one of the two makes no sense on this host.
    pub fn load(&self, host: &Host) -> Result<(Config, WatchOptions), Error> {
        let AgentArgs {
            filter,
            config,
            check: _,
            listen,
            max_series,
            journal,
            ring,
            keep,
            max,
            otlp,
            otlp_protocol,
            storm,
            kernel,
        } = self.typed.clone();
        let (file, path) = File::read(config.as_deref()).map_err(|error| Error::of(&error))?;
        let words = file.filter.map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let filter = FilterArgs {
            filter: if filter.filter.is_empty() { words.unwrap_or_default() } else { filter.filter },
            events: or(filter.events, file.events),
            close_wait_after: filter.close_wait_after.or(file.close_wait_after),
            netns: filter.netns.or(file.netns),
            cgroup: filter.cgroup.or(file.cgroup),
            ..filter
        };
        let kernel = KernelArgs {
            attach: kernel.attach.or(file.attach),
            btf: kernel.btf.or(file.btf),
            buffer: kernel.buffer.or(file.buffer),
            sockets: kernel.sockets.or(file.sockets),
            ended: kernel.ended.or(file.ended),
        };
        let output = OutputArgs { storm: storm.or(file.storm), ..OutputArgs::default() };
        let watched = watch(filter, output, CaptureArgs::default(), kernel, host)?;
        let listen = listen.or(file.listen).unwrap_or_else(|| LISTEN.to_owned());
        let config = Config {
            listen: config::address(&listen)
                .map_err(|error| Error { exit: super::Exit::Usage, ..Error::of(&error) })?,
            max_series: match max_series {
                Some(text) => usize::try_from(values::count("--max-series", &text)?).unwrap_or(usize::MAX),
                None => file.max_series.unwrap_or(MAX_SERIES),
            },
            journal: journal || file.journal.unwrap_or(false),
            ring: self::ring(ring, keep, max, file.ring)?,
            otlp: otlp::settings(otlp, otlp_protocol, file.otlp, |name| std::env::var(name).ok())?,
            close_wait_after: watched.close_wait_after,
            file: path,
        };
        Ok((config, watched))
    }
}

fn ring(
    path: Option<std::path::PathBuf>,
    keep: Option<String>,
    max: Option<String>,
    file: Option<RingFile>,
) -> Result<Option<Ring>, Error> {
    let typed = keep.is_some() || max.is_some();
    let (file_path, file_keep, file_max) =
        file.map_or((None, None, None), |file| (Some(file.path), file.keep, file.max));
    let Some(folder) = path.or(file_path) else {
        return match typed {
            true => Err(Error::usage(
                "`--keep` and `--max` without a ring to keep",
                "`--ring DIR` names its folder",
            )),
            false => Ok(None),
        };
    };
    let keep = keep.or(file_keep).map_or(Ok(KEEP), |text| values::duration("--keep", &text))?;
    let max = max.or(file_max).map_or(Ok(MAX), |text| values::size("--max", &text))?;
    if max < MIN {
        return Err(Error::usage(
            "a ring of less than 1M holds next to nothing",
            "for instance `--max 256M`",
        ));
    }
    if keep < Duration::from_secs(60) {
        return Err(Error::usage(
            "a ring of less than a minute holds next to nothing",
            "for instance `--keep 1h`",
        ));
    }
    Ok(Some(Ring { folder, keep, max }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Tree;

    fn load(typed: AgentArgs, text: &str) -> Result<(Config, WatchOptions), Error> {
        let tree = Tree::new();
        tree.write("agent.toml", text);
        let path = tree.root.join("agent.toml");
        AgentOptions::new(AgentArgs { config: Some(path), ..typed }).load(&tree.host())
    }

    #[test]
    fn the_file_says_and_flags_say_otherwise() {
        let text = "listen = \"0.0.0.0:9000\"\nfilter = \"port 80\"\nevents = \"rst\"\nstorm = \"50\"\n\
                    [ring]\npath = \"/tmp/x\"\nmax = \"10M\"\n";
        let (config, watched) = load(AgentArgs::default(), text).unwrap();
        assert_eq!(config.listen, Some("0.0.0.0:9000".parse().unwrap()));
        assert_eq!(config.ring.unwrap().max, 10 << 20);
        assert_eq!((watched.storm, watched.filter.active), (Some(50), 1));
        let typed = AgentArgs {
            listen: Some("off".into()),
            storm: Some("off".into()),
            keep: Some("5m".into()),
            ..AgentArgs::default()
        };
        let (config, watched) = load(typed, text).unwrap();
        assert_eq!((config.listen, watched.storm), (None, None));
        assert_eq!(config.ring.unwrap().keep, Duration::from_secs(300));
    }

    #[test]
    fn without_a_word_it_listens_on_loopback() {
        let (config, watched) = load(AgentArgs::default(), "").unwrap();
        assert_eq!(config.listen, Some(LISTEN.parse().unwrap()));
        assert!(config.ring.is_none() && !config.journal);
        assert_eq!(watched, WatchOptions::default());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let typed = |change: fn(&mut AgentArgs)| {
            let mut typed = AgentArgs::default();
            change(&mut typed);
            typed
        };
        for (typed, text, what) in [
            (AgentArgs::default(), "listen = \"nowhere\"", "`nowhere` is not an address"),
            (AgentArgs::default(), "events = \"rts\"", "unknown event `rts`"),
            (AgentArgs::default(), "colour = 5", "line 1"),
            (AgentArgs::default(), "filter = \"port x\"", "port"),
            (typed(|typed| typed.keep = Some("1h".into())), "", "without a ring"),
            (
                typed(|typed| (typed.ring, typed.max) = (Some("/x".into()), Some("100K".into()))),
                "",
                "less than 1M",
            ),
        ] {
            let error = load(typed, text).unwrap_err();
            assert!(error.what.contains(what), "{text}: {error}");
        }
    }
}
