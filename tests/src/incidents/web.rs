//! Incident A: a web server sends RSTs to redis, because it closes a connection for each request and has no TIME_WAIT slots left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use anyhow::{Context, Result};

use super::clients::{browse, report};
use super::scene::Scene;
use super::truth::{Event, Truth};
use super::verdict::Verdict;

const LIMIT: u64 = 50;
const VISITORS: usize = 4;
/// Enough refusals and RSTs that no accident explains them.
const REFUSED: u64 = 120;
const RESETS: u64 = 20;

/// nginx asks redis for each request, over a connection that it closes instead of giving it back to its pool.
pub(super) fn play(scene: &mut Scene<'_>) -> Result<Truth> {
    scene.pair.server.sysctl("ipv4/tcp_max_tw_buckets", &LIMIT.to_string())?;
    scene.redis(false, &[])?;
    let redis = scene.family.client(6379);
    let listen = scene.family.any(80);
    let pids = scene.nginx(
        true,
        &format!(
            "server {{ listen {listen}; location / {{ content_by_lua_block {{\n\
               local redis = ngx.socket.tcp()\n\
               redis:settimeout(30000)\n\
               local ok, err = redis:connect(\"{}\", 6379)\n\
               if not ok then ngx.log(ngx.ERR, err) return ngx.exit(502) end\n\
               redis:send(\"GET visitor\\r\\n\")\n\
               redis:receive()\n\
               redis:close()\n\
               ngx.header.content_length = 5\n\
               ngx.say(\"done\")\n\
             }} }} }}",
            lua_address(&redis.ip())
        ),
    )?;
    let site = scene.family.server(80);
    scene.watch(&[])?;
    let stop = AtomicBool::new(false);
    scope(|threads| -> Result<()> {
        let elsewhere = scene.elsewhere();
        let busy = threads.spawn(|| report(elsewhere, redis, &stop));
        let visitors: Vec<_> =
            (0..VISITORS).map(|_| threads.spawn(|| browse(elsewhere, site, &stop))).collect();
        let seen = scene.wait("refusals and resets", || {
            Ok(scene.growth("TCPTimeWaitOverflow")? >= REFUSED && scene.growth("OutRsts")? >= RESETS
                || visitors.iter().any(|visitor| visitor.is_finished()))
        });
        stop.store(true, Ordering::Relaxed);
        for visitor in visitors {
            visitor.join().ok().context("a visitor panicked")??;
        }
        busy.join().ok().context("the report panicked")??;
        seen
    })?;
    Ok(Truth {
        // The worker closed them, the master never had them.
        events: vec![
            Event::new("tw_overflow", "tw-bucket-overflow", REFUSED..=u64::MAX)
                .owner(&pids[1..], "nginx")
                .remote_port(6379)
                .hook("tcp_time_wait"),
            Event::new("rst_sent", "tw-bucket-overflow", RESETS..=u64::MAX)
                .owner(&pids[1..], "nginx")
                .remote_port(6379)
                .hook("tcp_time_wait"),
        ],
        counters: vec![("TCPTimeWaitOverflow", REFUSED..=u64::MAX), ("OutRsts", RESETS..=u64::MAX)],
        verdict: Verdict::new(&["tw-bucket-overflow"], "TCPTimeWaitOverflow")
            .by(&pids[1..], "nginx")
            .at(6379)
            .says(&["TIME_WAIT", "FIN_WAIT2", &format!("{redis}"), "sysctl -w net.ipv4.tcp_max_tw_buckets="])
            // The limit; and that connections live too short, of which side, and what to do about it.
            .says_one(&[&format!("{LIMIT} of {LIMIT}"), &format!("{LIMIT} slots")])
            .says(&["connections", "lived less than", "first", "keep its connections"]),
    })
}

/// As nginx's Lua wants an address: IPv6 in brackets.
fn lua_address(ip: &std::net::IpAddr) -> String {
    if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }
}
