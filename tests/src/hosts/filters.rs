//! Each filter against traffic that it wants and traffic that it does not.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::traffic::{Ground, Reset, end};
use super::{Case, Lab, When, case, differences};
use crate::actor::Actor;
use crate::stage::not_here;

pub(super) const CASES: &[Case] = &[
    case("filter-pid", When::Any, by_pid),
    case("filter-local-port", When::Any, by_local_port),
    case("filter-remote-port", When::Any, by_remote_port),
    case("filter-ipv4", When::Any, |lab| by_family(lab, false)),
    case("filter-ipv6", When::Any, |lab| by_family(lab, true)),
    case("filter-netns", When::Any, by_netns),
    case("filters-attach", When::Any, attach_alike),
    case("filter-cgroup", When::Any, by_cgroup),
];

const WANTED: u16 = 8080;
const OTHER: u16 = 8081;
/// Resets of each kind; every one makes an event at each end.
const TIMES: usize = 3;

/// Runs tcpwatch with a filter while `play` makes traffic, and checks that what is shown is what `wanted` holds of,
/// `shown` events, with `hidden` others counted at least.
pub(super) fn judge(
    lab: &Lab,
    filter: &[&str],
    (shown, hidden): (usize, u64),
    play: impl Fn() -> Result<()>,
    wanted: impl Fn(&Value) -> bool,
) -> Result<()> {
    let args = [&["--json"], filter].concat();
    let mut running = lab.tool(&args).spawn()?.started()?;
    play()?;
    running.wait_events(shown)?;
    let ended = running.stop()?;
    ended.exits(0)?;
    let books = ended.events()?;
    if !filter.contains(&"--attach") {
        let lacking = differences(&lab.usual(&books), &books.attached());
        ensure!(lacking.is_empty(), "not attached with this filter: {lacking:?}");
    }
    if let Some(stray) = books.events.iter().find(|event| !wanted(event)) {
        anyhow::bail!("this should not be shown: {stray}");
    }
    ensure!(books.events.len() == shown, "{} events and not {shown}", books.events.len());
    let filtered = books.sum("filtered");
    ensure!(filtered >= hidden, "{filtered} were counted as filtered and not {hidden}: {}", books.summary);
    Ok(())
}

/// Traffic over two listeners; the order is mixed, so that neither kind comes first.
fn mixed(one: impl Fn() -> Result<Reset>, two: impl Fn() -> Result<Reset>) -> Result<()> {
    for _ in 0..TIMES {
        one()?;
        two()?;
    }
    Ok(())
}

fn by_pid(lab: &Lab) -> Result<()> {
    let ground = Ground::new()?;
    let other = Actor::spawn("oth", &ground.netns)?;
    let listener = ground.listen(WANTED)?;
    let (pid, inode) = (ground.cli.pid().to_string(), ground.inode());
    judge(
        lab,
        &["-p", &pid, "--netns", &inode],
        (TIMES, 3 * TIMES as u64),
        || {
            mixed(
                || ground.reset_by(&ground.cli, listener, WANTED, false),
                || ground.reset_by(&other, listener, WANTED, false),
            )
        },
        |event| event["owner"]["pid"] == ground.cli.pid() && event["event"] == "rst_sent",
    )
}

/// Ports are those of this host's socket: of a connection on the loopback both ends are, so each event has its own.
fn by_port(lab: &Lab, flag: &str, kind: &str, side: &str) -> Result<()> {
    let ground = Ground::new()?;
    let (one, two) = (ground.listen(WANTED)?, ground.listen(OTHER)?);
    let inode = ground.inode();
    judge(
        lab,
        &[flag, &format!("1,{WANTED},65535"), "--netns", &inode],
        (TIMES, 3 * TIMES as u64),
        || mixed(|| ground.reset(one, WANTED), || ground.reset(two, OTHER)),
        |event| event["event"] == kind && end(event, side).is_some_and(|end| end.port() == WANTED),
    )
}

fn by_local_port(lab: &Lab) -> Result<()> {
    by_port(lab, "-L", "rst_received", "local")
}

fn by_remote_port(lab: &Lab) -> Result<()> {
    by_port(lab, "-D", "rst_sent", "remote")
}

fn by_family(lab: &Lab, v6: bool) -> Result<()> {
    let ground = Ground::new()?;
    let listener = ground.listen(WANTED)?;
    let inode = ground.inode();
    judge(
        lab,
        &[if v6 { "-6" } else { "-4" }, "--netns", &inode],
        (2 * TIMES, 2 * TIMES as u64),
        || {
            mixed(
                || ground.reset_by(&ground.cli, listener, WANTED, false),
                || ground.reset_by(&ground.cli, listener, WANTED, true),
            )
        },
        |event| end(event, "local").is_some_and(|end| end.is_ipv6() == v6),
    )
}

fn by_netns(lab: &Lab) -> Result<()> {
    let (ground, other) = (Ground::new()?, Ground::new()?);
    let (one, two) = (ground.listen(WANTED)?, other.listen(WANTED)?);
    let names =
        [ground.inode(), format!("pid:{}", ground.cli.pid()), format!("/proc/{}/ns/net", ground.cli.pid())];
    for name in names {
        judge(
            lab,
            // Attached in a moment, and three times.
            &["--netns", &name, "--attach", "tracepoint"],
            (2 * TIMES, 2 * TIMES as u64),
            || mixed(|| ground.reset(one, WANTED), || other.reset(two, WANTED)),
            |event| event["netns"].as_u64() == Some(ground.netns.inode()),
        )
        .with_context(|| format!("--netns {name}"))?;
    }
    Ok(())
}

/// Every option that filters, and last an expression that fills what room they leave, with as many ways through it as there can be.
pub(crate) fn longest_filter(pid: &str) -> Vec<String> {
    let eight = "1,2,3,4,5,6,7,65535";
    let all = [
        "-p",
        pid,
        "-L",
        eight,
        "-D",
        eight,
        "-6",
        "--netns",
        "4026531840",
        "--cgroup",
        "1",
        "--events",
        "all",
    ];
    let pairs: Vec<String> = (1..=16).map(|i| format!("(host 10.9.0.{i} and not port {i})")).collect();
    all.map(str::to_owned).into_iter().chain([pairs.join(" or ")]).collect()
}

/// A filter is part of the programs: the kernel's verifier must take them with every one.
fn attach_alike(lab: &Lab) -> Result<()> {
    let eight = "1,2,3,4,5,6,7,65535";
    let hosts: Vec<String> = (1..=64).map(|i| format!("10.9.0.{i}")).collect();
    let flat = format!("src host {}", hosts.join(" or "));
    let longest = longest_filter(&std::process::id().to_string());
    let longest: Vec<&str> = longest.iter().map(String::as_str).collect();
    let all = &longest[..longest.len() - 1];
    let expressions: [&[&str]; 3] = [&["host 10.9.0.1 and not port 22"], &[&flat], &longest];
    let options = [&["-L", "1"][..], &["-L", eight], &["-D", "1"], &["-L", "1", "-D", eight], &["-k"], all];
    for filter in options.into_iter().chain(expressions) {
        let args = [&["--json", "--for", "100ms"], filter].concat();
        let books = lab.tool(&args).run()?.events()?;
        let lacking = differences(&lab.usual(&books), &books.attached());
        let why = |name: &String| format!("{name}: {}", books.start["hooks"][name]["why_not"]);
        let why: Vec<_> = lacking.iter().map(why).collect();
        ensure!(lacking.is_empty(), "with {filter:?} this does not attach: {}", why.join("; "));
    }
    Ok(())
}

/// A cgroup of our own, gone at the end.
struct Cgroup(String);

impl Cgroup {
    fn new() -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let mount = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (target, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then_some(target)
        });
        let mount = mount.ok_or_else(|| not_here("cgroup v2 is not mounted"))?;
        let path = format!("{mount}/tcpwatch-hosts-{}", std::process::id());
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(not_here(format!("no cgroup can be made at {path}: {error}"))),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(std::fs::remove_dir(&self.0));
    }
}

fn by_cgroup(lab: &Lab) -> Result<()> {
    let group = Cgroup::new()?;
    let ground = Ground::new()?;
    let inside = Actor::spawn("ins", &ground.netns)?;
    std::fs::write(format!("{}/cgroup.procs", group.0), inside.pid().to_string())
        .context("moving a process into a cgroup")?;
    let listener = ground.listen(WANTED)?;
    let result = judge(
        lab,
        &["--cgroup", &group.0, "--netns", &ground.inode()],
        (TIMES, 3 * TIMES as u64),
        || {
            mixed(
                || ground.reset_by(&inside, listener, WANTED, false),
                || ground.reset_by(&ground.cli, listener, WANTED, false),
            )
        },
        |event| event["owner"]["pid"] == inside.pid() && event["event"] == "rst_sent",
    );
    inside.kill()?;
    result
}
