//! Limits of the whole machine: orphans and TCP memory. For machines that nobody else uses.

use std::fs;

use anyhow::{Context, Result, bail};

use super::{PLAIN, PORT, Scenario, When};
use crate::expect::{Expect, Side};
use crate::stage::Stage;

pub(super) const SCENARIOS: &[Scenario] = &[
    global(
        "orphan-limit",
        "close a connection when tcp_max_orphans is exceeded",
        &["orphan-limit"],
        orphan_limit,
    ),
    global(
        "orphan-limit-timer",
        "retransmit as an orphan when tcp_max_orphans is exceeded",
        &["orphan-limit"],
        orphan_limit_timer,
    ),
    global(
        "out-of-memory",
        "close a connection with queued data when tcp_mem is exceeded",
        &["out-of-memory"],
        out_of_memory,
    ),
];

const fn global(
    name: &'static str,
    about: &'static str,
    causes: &'static [&'static str],
    play: fn(&mut Stage) -> Result<()>,
) -> Scenario {
    Scenario { name, about, families: PLAIN, when: When::Global, causes, play }
}

/// A setting of the machine that goes back to what it was, whatever happens.
struct Setting {
    path: String,
    before: String,
}

impl Setting {
    fn new(name: &str, value: &str) -> Result<Self> {
        let path = format!("/proc/sys/net/ipv4/{name}");
        let before = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        fs::write(&path, value).with_context(|| format!("setting {name}"))?;
        Ok(Self { path, before })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // Nothing can be done about it here, and the machine is a throw-away one.
        drop(fs::write(&self.path, &self.before));
    }
}

/// Kernels count orphans per CPU and look at the sum only when a rough count is over the limit already. So
/// many are made that even the rough count must show them.
const ORPHANS: usize = 160;

fn orphan_limit(s: &mut Stage) -> Result<()> {
    let (srv, cli) = s.both()?;
    let listener = s.listener(&srv, PORT, 256)?;
    let mut conns = Vec::new();
    for _ in 0..ORPHANS {
        conns.push(s.connection(&srv, listener, &cli)?);
    }
    let victim = s.connection(&srv, listener, &cli)?;
    s.pair.mute_client(true)?;
    for conn in &conns {
        srv.close(conn.srv)?;
    }
    // The rough count follows within 100 ms.
    std::thread::sleep(std::time::Duration::from_millis(400));
    let limit = Setting::new("tcp_max_orphans", "8")?;
    srv.close(victim.srv)?;
    drop(limit);
    let server = s.family.server(PORT);
    s.expect(
        Expect::rst_sent(server, victim.client)
            .state("ESTABLISHED")
            .owner(&srv)
            .reason("TCP_ABORT_ON_MEMORY")
            .cause("orphan-limit")
            .site(&["__tcp_close"]),
    );
    // The FIN went out just before the RST.
    let received = Expect::rst_received(Side::Client, victim.client, server, "ESTABLISHED");
    let received = received.states(&["ESTABLISHED", "CLOSE_WAIT"]);
    s.expect(received.causes(&["reset-by-peer", "reset-after-peer-close"]).owner(&cli));
    // Retransmissions of the other orphans that fall into that moment are ended by the same limit.
    for conn in &conns {
        s.expect(
            Expect::rst_sent(server, conn.client)
                .owner(&srv)
                .reason("TCP_ABORT_ON_MEMORY")
                .cause("orphan-limit")
                .maybe(),
        );
        let received = Expect::rst_received(Side::Client, conn.client, server, "CLOSE_WAIT");
        s.expect(received.owner(&cli).maybe());
    }
    Ok(())
}

/// The same limit found by the retransmission timer of sockets that are orphans already. How many it ends depends
/// on whose timer fires first.
fn orphan_limit_timer(s: &mut Stage) -> Result<()> {
    let (srv, cli) = s.both()?;
    let listener = s.listener(&srv, PORT, 256)?;
    let mut conns = Vec::new();
    for _ in 0..ORPHANS {
        conns.push(s.connection(&srv, listener, &cli)?);
    }
    s.pair.mute_client(true)?;
    for conn in &conns {
        srv.close(conn.srv)?;
    }
    let limit = Setting::new("tcp_max_orphans", "8")?;
    s.wait_counter(Side::Server, "TCPAbortOnMemory", 1)?;
    drop(limit);
    // A timer that fired under the limit may still be at work.
    std::thread::sleep(std::time::Duration::from_millis(400));
    let resets = s.growth(Side::Server, "OutRsts")?;
    let server = s.family.server(PORT);
    let clients: Vec<_> = conns.iter().map(|conn| conn.client).collect();
    let many = Expect::rst_sent(server, clients[0]).remotes(clients).times(resets..=resets);
    s.expect(
        many.state("FIN_WAIT1")
            .owner(&srv)
            .dead()
            .reason("TCP_ABORT_ON_MEMORY")
            .cause("orphan-limit")
            .site(&["tcp_out_of_resources"]),
    );
    for conn in &conns {
        let received = Expect::rst_received(Side::Client, conn.client, server, "CLOSE_WAIT");
        s.expect(received.owner(&cli).maybe());
    }
    Ok(())
}

/// Newer kernels keep up to a mebibyte for each CPU out of the sum, so more than that is queued.
fn out_of_memory(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    srv.set_int(conn.srv, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 16 << 20)?;
    s.pair.mute_client(true)?;
    let mut queued = 0;
    for _ in 0..256 {
        queued += srv.send_some(conn.srv, 64 << 10).unwrap_or(0);
    }
    if queued < 8 << 20 {
        bail!("only {queued} bytes could be queued");
    }
    let limit = Setting::new("tcp_mem", "1 1 1")?;
    srv.close(conn.srv)?;
    drop(limit);
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("ESTABLISHED")
            .owner(&srv)
            .reason("TCP_ABORT_ON_MEMORY")
            .cause("out-of-memory")
            .site(&["__tcp_close"]),
    );
    let received = Expect::rst_received(Side::Client, conn.client, conn.server, "ESTABLISHED");
    let received = received.states(&["ESTABLISHED", "CLOSE_WAIT"]);
    s.expect(received.causes(&["reset-by-peer", "reset-after-peer-close"]).owner(&cli));
    Ok(())
}
