//! Filters as expressions, against connections of both families with several addresses.

use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::filters::judge;
use super::traffic::{Ground, end};
use super::{Case, Lab, When, case};

pub(super) const CASES: &[Case] = &[
    case("filter-expressions", When::Any, each),
    case("filter-expression-every-hook", When::Any, on_every_hook),
    case("filter-expression-states", When::Any, of_states),
    case("filter-expression-leaks", When::Any, of_leaks),
];

const WEB: u16 = 8080;
const OTHER: u16 = 8081;
/// Servers of [`Site`]: each is connected to once and makes an event at each end.
const SERVERS: [(&str, u16); 4] =
    [("127.0.0.7", WEB), ("127.0.0.8", OTHER), ("fd00::7", WEB), ("fd00::8", OTHER)];
const EVENTS: usize = 2 * SERVERS.len();

/// Of the local and the remote end.
type Holds = fn(SocketAddr, SocketAddr) -> bool;

struct Site {
    ground: Ground,
    servers: Vec<(i32, SocketAddr)>,
}

impl Site {
    fn new() -> Result<Self> {
        let ground = Ground::new()?;
        for addr in ["fd00::7", "fd00::8"] {
            ground.netns.run("ip", &["address", "add", addr, "dev", "lo", "nodad"], "")?;
            // The kernel makes the route a moment later.
            let end = Instant::now() + Duration::from_secs(20);
            while !ground.netns.run("ip", &["-6", "route", "show", "table", "local"], "")?.contains(addr) {
                ensure!(Instant::now() < end, "{addr} does not become reachable");
                sleep(Duration::from_millis(5));
            }
        }
        let (web, other) = (ground.listen(WEB)?, ground.listen(OTHER)?);
        let servers = SERVERS.into_iter().map(|(addr, port)| {
            Ok((if port == WEB { web } else { other }, SocketAddr::new(addr.parse::<IpAddr>()?, port)))
        });
        Ok(Self { servers: servers.collect::<Result<_>>()?, ground })
    }

    /// One connection to each server, reset by the client.
    fn resets(&self) -> Result<()> {
        for (listener, server) in &self.servers {
            self.ground.reset_at(&self.ground.cli, *listener, *server)?;
        }
        Ok(())
    }

    /// What the filter must show of these: so many events, for which this holds of the local and the remote end.
    fn judge(&self, lab: &Lab, (filter, shown, holds): (&str, usize, Holds), more: &[&str]) -> Result<()> {
        let inode = self.ground.inode();
        let words: Vec<&str> = filter.split(' ').collect();
        let args = [&["--netns", &inode], more, &words].concat();
        let wanted = |event: &Value| {
            end(event, "local").zip(end(event, "remote")).is_some_and(|(local, remote)| holds(local, remote))
        };
        judge(lab, &args, (shown, (EVENTS - shown) as u64), || self.resets(), wanted)
            .with_context(|| format!("filter `{filter}`"))
    }
}

fn is(end: SocketAddr, addr: &str) -> bool {
    addr.parse::<IpAddr>().is_ok_and(|addr| end.ip() == addr)
}

fn each(lab: &Lab) -> Result<()> {
    let site = Site::new()?;
    let filters: [(&str, usize, Holds); 9] = [
        ("host 127.0.0.7", 2, |local, remote| is(local, "127.0.0.7") || is(remote, "127.0.0.7")),
        ("src host 127.0.0.7", 1, |local, _| is(local, "127.0.0.7")),
        ("dst net fd00::/16", 2, |_, remote| is(remote, "fd00::7") || is(remote, "fd00::8")),
        ("net 127.0.0.0/29 and not port 8081", 2, |local, remote| {
            is(local, "127.0.0.7") || is(remote, "127.0.0.7")
        }),
        ("dst port 8081", 2, |_, remote| remote.port() == OTHER),
        ("ip6 and not ( host fd00::7 or src host fd00::8 )", 1, |_, remote| is(remote, "fd00::8")),
        // From the left: (8080 or 8081) and ip6.
        ("port 8080 or 8081 and ip6", 4, |local, _| local.is_ipv6()),
        ("dst portrange 8081-9000 or src 127.0.0.7", 3, |local, remote| {
            remote.port() == OTHER || is(local, "127.0.0.7")
        }),
        ("-L 8080 -6 src net fd00::/16", 1, |local, _| is(local, "fd00::7")),
    ];
    for filter in filters {
        // Attached in a moment, and nine times.
        site.judge(lab, filter, &["--attach", "tracepoint"])?;
    }
    Ok(())
}

/// With everything that this kernel lets tcpwatch hook.
fn on_every_hook(lab: &Lab) -> Result<()> {
    let filter = "(host 127.0.0.7 or host fd00::8) and not src port 8081";
    Site::new()?.judge(
        lab,
        (filter, 3, |local, remote| {
            (is(local, "127.0.0.7") || is(remote, "127.0.0.7") || is(remote, "fd00::8"))
                && local.port() != OTHER
        }),
        &[],
    )
}

/// Transitions have another way out than other events.
fn of_states(lab: &Lab) -> Result<()> {
    let site = Site::new()?;
    let args = ["--json", "--netns", &site.ground.inode(), "--events", "state", "src", "host", "127.0.0.7"];
    let mut running = lab.tool(&args).spawn()?.started()?;
    site.resets()?;
    // ESTABLISHED and CLOSE of the accepted socket; before them SYN_RECV, to which older kernels give no addresses yet.
    running.wait_events(2)?;
    let ended = running.stop()?;
    ended.exits(0)?;
    let books = ended.events()?;
    let stray =
        books.events.iter().find(|event| !end(event, "local").is_some_and(|end| is(end, "127.0.0.7")));
    ensure!(stray.is_none(), "this should not be shown: {}", stray.unwrap_or(&Value::Null));
    let states: Vec<_> = books.of("state").filter_map(|event| event["new_state"].as_str()).collect();
    ensure!(
        matches!(states[..], ["ESTABLISHED", "CLOSE"] | ["SYN_RECV", "ESTABLISHED", "CLOSE"]),
        "the transitions are to {states:?}"
    );
    let row = &books.summary["hooks"]["inet_sock_set_state"];
    // The other three accepted sockets, and the four clients: SYN_SENT, ESTABLISHED and CLOSE.
    ensure!(row["filtered"].as_u64() >= Some(21), "filtered are {row}");
    Ok(())
}

/// Leaks are found by user space.
fn of_leaks(lab: &Lab) -> Result<()> {
    let site = Site::new()?;
    let mut held = Vec::new();
    for (listener, server) in &site.servers {
        let fd = site.ground.cli.socket(server.is_ipv6())?;
        site.ground.cli.connect(fd, *server)?;
        held.push(site.ground.srv.accept(*listener)?.0);
        site.ground.cli.close(fd)?;
    }
    let leaks = |filter: &str| -> Result<Vec<Value>> {
        let words: Vec<&str> = filter.split(' ').collect();
        let inode = site.ground.inode();
        let args = ["--json", "--netns", &inode, "--events", "leak", "--close-wait-after", "500ms"];
        let mut running = lab.tool(&[&args[..], &words].concat()).spawn()?.started()?;
        running.wait_events(1)?;
        let ended = running.stop()?;
        ended.exits(0)?;
        Ok(ended.events()?.events)
    };
    // Each filter leaves sockets away that are found with another.
    for (filter, count) in
        [("tcp", 4), ("src host fd00::7", 1), ("src port 8081", 2), ("not host 127.0.0.8", 3)]
    {
        let leaks = leaks(filter)?;
        let counted: Vec<_> = leaks.iter().map(|leak| leak["count"].as_u64()).collect();
        ensure!(counted.first() == Some(&Some(count)), "of `{filter}` {counted:?} leak and not {count}");
    }
    for fd in held {
        site.ground.srv.close(fd)?;
    }
    Ok(())
}
