//! Whole incidents with real programs: what an SRE is paged for, played in namespaces of its own, and what tcpwatch makes of it.
//!
//! Each incident knows the truth: which process did it, where, how often, by which limit, and what has to be changed.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::net::Family;
use crate::tally::{Tally, say};

mod clients;
mod pops;
pub mod programs;
pub mod proxy;
mod scene;
mod site;
mod truth;
mod verdict;
mod web;

use programs::Programs;
use scene::{Lab, Scene};
use truth::Truth;

pub struct Options {
    /// `a`, `d-flood`, or a letter for all that begin with it; none or `all` for every one.
    pub names: Vec<String>,
    pub tcpwatch: String,
    /// The folder with nginx and redis.
    pub programs: String,
    pub families: Vec<Family>,
    /// Where to store what `diagnose` said.
    pub text: Option<String>,
    /// Where to keep what it captured, and the reports of it.
    pub captures: Option<PathBuf>,
}

struct Incident {
    name: &'static str,
    about: &'static str,
    play: fn(&mut Scene<'_>) -> Result<Truth>,
}

const fn incident(
    name: &'static str,
    about: &'static str,
    play: fn(&mut Scene<'_>) -> Result<Truth>,
) -> Incident {
    Incident { name, about, play }
}

const INCIDENTS: &[Incident] = &[
    incident("a", "a web server sends RSTs to redis: it has no TIME_WAIT slots left", web::play),
    incident("b", "redis clients lose their connections: redis has no TIME_WAIT slots left", pops::play),
    incident("c", "a proxy hangs: CLOSE_WAIT piles up and its listener overflows", proxy::play),
    incident("d", "a site that does not accept for a while", site::slow),
    incident("d-abort", "the same with tcp_abort_on_overflow", site::abort),
    incident("d-somaxconn", "the same, and somaxconn sets the limit", site::somaxconn),
    incident("d-flood", "a site under a SYN flood", site::cookies),
    incident("d-flood-nocookies", "the same without SYN cookies", site::no_cookies),
];

/// How often an incident is played again: 7.x preempts programs, under emulation and three watchers in every other run.
const AGAIN: usize = 6;

/// What went wrong while the kernel left out runs of tcpwatch's programs, as tcpwatch itself says: an event that fell into such a
/// run is lost, said so, and no fault of the incident. It is played again, and the last time counts.
#[derive(Debug)]
struct Excused {
    missed: u64,
    wrong: String,
}

impl fmt::Display for Excused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel left out {} runs in this time: {}", self.missed, self.wrong)
    }
}

impl std::error::Error for Excused {}

/// An error of several lines below the name of what failed.
fn indented(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().collect::<Vec<_>>().join("\n       ")
}

/// Names every incident.
pub fn list() {
    for incident in INCIDENTS {
        say(&format!("{:<18} {}", incident.name, incident.about));
    }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Incident>> {
    let fits = |name: &str, incident: &Incident| {
        let name = name.to_lowercase();
        name == "all"
            || incident.name == name
            || incident.name.strip_prefix(&name).is_some_and(|rest| rest.starts_with('-'))
    };
    if let Some(name) = names.iter().find(|name| !INCIDENTS.iter().any(|incident| fits(name, incident))) {
        bail!("no incident is named {name}\nhint: `incident --list` shows them");
    }
    let wanted = |incident: &&Incident| names.is_empty() || names.iter().any(|name| fits(name, incident));
    Ok(INCIDENTS.iter().filter(wanted).collect())
}

/// Plays what was asked for; true if all of it passed.
pub fn run(options: &Options) -> Result<bool> {
    let incidents = chosen(&options.names)?;
    let lab = Lab {
        tcpwatch: options.tcpwatch.clone(),
        programs: Programs::new(&options.programs)?,
        captures: options.captures.clone(),
    };
    let mut tally = Tally::default();
    for incident in incidents {
        for family in &options.families {
            let began = Instant::now();
            let what = format!("incident-{} {}", incident.name, family.label());
            let play = || {
                let outcome =
                    catch_unwind(AssertUnwindSafe(|| play(incident, &lab, *family, options.text.as_deref())));
                outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("the incident panicked")))
            };
            let mut outcome = play();
            for _ in 0..AGAIN {
                let Err(error) = &outcome else { break };
                if !error.is::<Excused>() {
                    break;
                }
                say(&format!("again {what}: {}", indented(error)));
                outcome = play();
            }
            tally.judge(&what, outcome);
            drop(writeln!(std::io::stderr().lock(), "{:>6.1} s  {what}", began.elapsed().as_secs_f64()));
        }
    }
    tally.finish();
    Ok(tally.failed == 0 && tally.passed > 0)
}

fn play(incident: &Incident, lab: &Lab, family: Family, text: Option<&str>) -> Result<()> {
    let mut scene = Scene::new(lab, incident.name, family)?;
    let truth = (incident.play)(&mut scene)?;
    let seen = scene.seen()?;
    drop(writeln!(std::io::stderr().lock(), "saw: {}", truth::kinds(&seen.events)));
    if let Some(path) = text {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("opening {path}"))?;
        writeln!(
            file,
            "=== incident-{} {}: {}\n{}\n",
            incident.name,
            family.label(),
            incident.about,
            seen.text
        )?;
    }
    let (wrong, unseen) = truth.judge(&seen);
    if !wrong.is_empty() {
        let wrong = wrong.join("\n");
        if seen.missed > 0 {
            return Err(Excused { missed: seen.missed, wrong }.into());
        }
        bail!(wrong);
    }
    if !unseen.is_empty() {
        return Err(crate::stage::not_here(format!(
            "it happened, and diagnose says how much it could not see: on this host {}",
            unseen.join(", ")
        )));
    }
    Ok(())
}
