//! Network namespaces of our own, joined by a veth pair, with everything set that could differ between hosts.
//!
//! Namespaces have no names in the file system: they live as long as a descriptor is open, so nothing is left
//! behind however the program ends.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::counters::Counters;
use crate::sys;

/// One network namespace, kept alive until the end: its inode must not be given to another one while events
/// are told apart by it.
pub struct Netns {
    file: OwnedFd,
    inode: u64,
}

/// Puts the thread back into the namespace it came from, also when the work in between fails.
struct Return(OwnedFd);

impl Drop for Return {
    fn drop(&mut self) {
        if sys::enter_netns(&self.0).is_err() {
            // This thread would go on in the wrong namespace: better none than that.
            std::process::abort();
        }
    }
}

fn current() -> Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net").context("opening the network namespace")?.into())
}

impl Netns {
    pub fn new() -> Result<Self> {
        let back = Return(current()?);
        sys::new_netns().context("making a network namespace (this needs root)")?;
        let file = File::open("/proc/thread-self/ns/net")?;
        let inode = file.metadata()?.ino();
        drop(back);
        Ok(Self { file: file.into(), inode })
    }

    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Does something with the calling thread inside this namespace.
    pub fn enter<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let back = Return(current()?);
        sys::enter_netns(&self.file).context("entering a network namespace")?;
        let result = work();
        drop(back);
        result
    }

    /// Moves the calling thread here for good: so tracers find the namespace by its process, as they do on a host.
    pub fn stay(&self) -> Result<()> {
        sys::enter_netns(&self.file).context("entering a network namespace")
    }

    /// A path under which other programs find this namespace.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs a program in here with `input`; gives what it wrote, or fails with its complaint.
    pub fn run(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        self.enter(|| {
            let mut child = Command::new(program)
                .args(args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("starting {program}"))?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes())?;
            }
            let output = child.wait_with_output()?;
            if !output.status.success() {
                let complaint = String::from_utf8_lossy(&output.stderr);
                bail!("{program} {}: {}", args.join(" "), complaint.trim());
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        })
    }

    pub fn ip(&self, batch: &str) -> Result<()> {
        self.run("ip", &["-batch", "-"], batch).map(drop)
    }

    /// Sets `net.…`; the name is the path below `/proc/sys/net`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.enter(|| {
            fs::write(format!("/proc/sys/net/{name}"), value)
                .with_context(|| format!("setting {name}={value}"))
        })
    }

    pub fn has_sysctl(&self, name: &str) -> bool {
        self.enter(|| Ok(fs::metadata(format!("/proc/sys/net/{name}")).is_ok())).unwrap_or(false)
    }

    /// A file below `/proc/net`, as this namespace shows it.
    pub fn proc_net(&self, name: &str) -> Result<String> {
        self.enter(|| {
            fs::read_to_string(format!("/proc/thread-self/net/{name}"))
                .with_context(|| format!("reading /proc/net/{name}"))
        })
    }

    pub fn counters(&self) -> Result<Counters> {
        Ok(Counters::parse(&[self.proc_net("snmp")?, self.proc_net("netstat")?]))
    }
}

/// Which addresses a scenario uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
    /// The server's sockets are IPv6, the packets are IPv4.
    Mapped,
}

impl Family {
    /// What is on the wire.
    pub fn label(self) -> &'static str {
        if self.wire_v6() { "v6" } else { "v4" }
    }

    /// Packets are IPv6.
    pub fn wire_v6(self) -> bool {
        self == Self::V6
    }

    /// The server's sockets are IPv6.
    pub fn server_v6(self) -> bool {
        self != Self::V4
    }

    /// Address number `host` of the little network between the two namespaces.
    pub fn addr(self, host: u8) -> IpAddr {
        if self.wire_v6() {
            IpAddr::from([0xfd09, 0, 0, 0, 0, 0, 0, u16::from(host)])
        } else {
            IpAddr::from([10, 9, 0, host])
        }
    }

    pub fn server(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.addr(SERVER), port)
    }

    pub fn client(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.addr(CLIENT), port)
    }

    /// What a server binds to: all addresses, as servers do.
    pub fn any(self, port: u16) -> SocketAddr {
        let ip: IpAddr = if self.server_v6() { [0u16; 8].into() } else { [0u8; 4].into() };
        SocketAddr::new(ip, port)
    }
}

const SERVER: u8 = 1;
const CLIENT: u8 = 2;
/// Addresses from here on belong to no stack: raw peers use them, and nobody answers in their place.
pub const RAW: u8 = 77;
const RAW_COUNT: u8 = 4;

pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const RAW_MAC: [u8; 6] = [2, 0, 0, 0, 0, 77];
pub const CLIENT_LINK: &str = "c0";
pub const SERVER_LINK: &str = "s0";
const SERVER_LL: &str = "02:00:00:00:00:01";
const CLIENT_LL: &str = "02:00:00:00:00:02";
const RAW_LL: &str = "02:00:00:00:00:4d";
const NOWHERE_LL: &str = "02:00:00:00:00:ff";

/// What may differ between hosts and matters here. New namespaces inherit some of it.
const SYSCTLS: [(&str, &str); 12] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/tcp_syncookies", "1"),
    ("ipv4/tcp_max_syn_backlog", "512"),
    ("ipv4/tcp_abort_on_overflow", "0"),
    ("ipv4/tcp_fin_timeout", "60"),
    ("ipv4/tcp_rfc1337", "0"),
    ("ipv4/tcp_max_tw_buckets", "4096"),
    ("ipv4/tcp_timestamps", "1"),
    ("ipv4/tcp_ecn", "0"),
    ("core/somaxconn", "4096"),
    ("ipv6/bindv6only", "0"),
];

/// Two namespaces that see each other.
pub struct Pair {
    pub server: Netns,
    pub client: Netns,
}

impl Pair {
    /// Neighbours are fixed, so that no packet waits for a lookup and silence can be made by a wrong entry.
    pub fn new() -> Result<Self> {
        let (server, client) = (Netns::new()?, Netns::new()?);
        client.ip(&format!(
            "link set lo up\n\
             link add {CLIENT_LINK} address {CLIENT_LL} type veth peer name {SERVER_LINK} address {SERVER_LL} \
             netns {}\n\
             addr add 10.9.0.{CLIENT}/24 dev {CLIENT_LINK}\n\
             addr add fd09::{CLIENT}/64 dev {CLIENT_LINK} nodad\n\
             link set {CLIENT_LINK} up\n\
             neigh replace 10.9.0.{SERVER} lladdr {SERVER_LL} dev {CLIENT_LINK} nud permanent\n\
             neigh replace fd09::{SERVER} lladdr {SERVER_LL} dev {CLIENT_LINK} nud permanent\n",
            server.path()
        ))?;
        let mut batch = format!(
            "link set lo up\n\
             addr add 10.9.0.{SERVER}/24 dev {SERVER_LINK}\n\
             addr add fd09::{SERVER}/64 dev {SERVER_LINK} nodad\n\
             link set {SERVER_LINK} up\n\
             neigh replace 10.9.0.{CLIENT} lladdr {CLIENT_LL} dev {SERVER_LINK} nud permanent\n\
             neigh replace fd09::{CLIENT} lladdr {CLIENT_LL} dev {SERVER_LINK} nud permanent\n"
        );
        for host in RAW..RAW + RAW_COUNT {
            batch += &format!(
                "neigh replace 10.9.0.{host} lladdr {RAW_LL} dev {SERVER_LINK} nud permanent\n\
                 neigh replace fd09::{host:x} lladdr {RAW_LL} dev {SERVER_LINK} nud permanent\n"
            );
        }
        server.ip(&batch)?;
        for netns in [&server, &client] {
            for (name, value) in SYSCTLS {
                netns.sysctl(name, value)?;
            }
        }
        // The kernel wakes a link whose other end came up later, and takes an IPv6 address into use, when it has
        // time for it; packets before that are lost.
        let end = Instant::now() + Duration::from_secs(20);
        for (netns, link, host) in [(&client, CLIENT_LINK, CLIENT), (&server, SERVER_LINK, SERVER)] {
            let address = format!("fd09{host:028x} 80");
            while !netns.run("ip", &["-o", "link", "show", link], "")?.contains("qdisc noqueue")
                || !netns.proc_net("ipv6_route")?.contains(&address)
            {
                if Instant::now() > end {
                    bail!("the link {link} does not come up");
                }
                sleep(Duration::from_millis(10));
            }
        }
        Ok(Self { server, client })
    }

    /// From now on nothing that the server sends reaches the client, or it does again.
    pub fn mute_server(&self, muted: bool) -> Result<()> {
        let ll = if muted { NOWHERE_LL } else { CLIENT_LL };
        self.server.ip(&format!(
            "neigh replace 10.9.0.{CLIENT} lladdr {ll} dev {SERVER_LINK} nud permanent\n\
             neigh replace fd09::{CLIENT} lladdr {ll} dev {SERVER_LINK} nud permanent\n"
        ))
    }

    /// From now on nothing that the client sends reaches the server, or it does again. The other direction
    /// stays as it is, and no firewall is needed.
    pub fn mute_client(&self, muted: bool) -> Result<()> {
        let ll = if muted { NOWHERE_LL } else { SERVER_LL };
        self.client.ip(&format!(
            "neigh replace 10.9.0.{SERVER} lladdr {ll} dev {CLIENT_LINK} nud permanent\n\
             neigh replace fd09::{SERVER} lladdr {ll} dev {CLIENT_LINK} nud permanent\n"
        ))
    }
}
