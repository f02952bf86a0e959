//! A look at namespaces: of a made-up host, and of this one.

use super::tables::Row;
use super::*;
use crate::event::Endpoint;
use crate::host::fake::{Process, Tree};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const HEADING: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

fn row(local: &str, remote: &str, state: u8, receive: u32, inode: u64) -> String {
    format!(
        "   0: {local} {remote} {state:02X} 00000000:{receive:08X} 00:00000000 00000000    33        0 {inode} 1 0 100 0 0 10 0\n"
    )
}

/// A host on which process 5 lives in namespace 12, and tcpwatch in 11.
fn tree() -> Tree {
    let tree = Tree::new();
    tree.link("proc/self", &Tree::OWN_PID.to_string());
    tree.process(Tree::OWN_PID, &Process { netns: 11, ..Process::PLAIN });
    tree.process(5, &Process { netns: 12, ..Process::PLAIN });
    tree
}

fn tables(tree: &Tree) {
    let v4 = [
        HEADING.to_owned(),
        row("0100007F:1F90", "00000000:0000", 10, 2, 700),
        row("0100007F:1F90", "0100000A:C001", 8, 1, 0),
        row("0100007F:1F90", "0100000A:C002", 1, 9, 703),
        row("0100007F:1F90", "0100000A:C003", 3, 0, 0),
        row("0100007F:1F90", "0100000A:C004", 3, 0, 0),
        row("0100007F:1F90", "0200000A:C005", 3, 0, 0),
        "   7: 0100007F".to_owned(),
    ];
    let v6 = [
        HEADING.to_owned(),
        row("0000000000000000FFFF00000100007F:1F91", "0000000000000000FFFF00000100000A:0050", 8, 0, 704),
        row("00000000000000000000000001000000:0016", "00000000000000000000000000000000:0000", 10, 0, 705),
    ];
    tree.write("proc/5/net/tcp", &v4.concat());
    tree.write("proc/5/net/tcp6", &v6.concat());
    tree.write(
        "proc/5/net/sockstat",
        "sockets: used 9\nTCP: inuse 5 orphan 2 tw 31 alloc 7 mem 1\nUDP: inuse 0 mem 0\n",
    );
    tree.write("proc/5/net/snmp", "Tcp: RtoMin CurrEstab\nTcp: 200 40\n");
}

fn home(inode: u32, pid: u32) -> Namespace {
    Namespace { inode, pid: Some(pid), name: None }
}

fn local(port: u16) -> Endpoint {
    Endpoint { addr: IpAddr::V4(Ipv4Addr::LOCALHOST), port }
}

#[test]
fn a_namespace_that_cannot_be_entered_is_read_from_its_tables() {
    let tree = tree();
    tables(&tree);
    let view = look(&tree.host(), &home(12, 5)).unwrap();
    assert_eq!((view.netns, view.settings), (12, Settings::default()));
    let why = view.unseen.unwrap().why;
    assert!(why.starts_with("network namespace 12 cannot be opened: "), "{why}");
    let sockets = view.sockets;
    assert_eq!(sockets.source, Source::Tables { why });
    assert!(sockets.complete);
    let listener = Listener { local: local(8080), inode: 700, uid: 33, len: 2, max: None };
    let ssh = Endpoint { addr: "::1".parse().unwrap(), port: 22 };
    assert_eq!(sockets.listeners, [listener, Listener { local: ssh, inode: 705, len: 0, ..listener }]);
    let peer = |last, port| Endpoint { addr: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), port };
    let orphan = Waiting {
        local: local(8080),
        remote: peer(1, 49153),
        inode: 0,
        uid: 33,
        unread: 0,
        end_read: false,
        quiet_ms: None,
    };
    let held = Waiting { local: local(8081), remote: peer(1, 80), inode: 704, end_read: true, ..orphan };
    assert_eq!(sockets.close_wait, [orphan, held]);
    assert_eq!(sockets.half_open, [HalfOpen { port: 8080, requests: 3, remotes: 2, at_least: false }]);
    let counts = Counts { established: Some(38), listen: 2, syn_recv: 3, close_wait: 2, ..Counts::default() };
    assert_eq!(sockets.counts, counts);
    assert_eq!((sockets.time_wait, sockets.orphans), (Some(31), Some(2)));
}

#[test]
fn what_cannot_be_looked_at_is_said_in_a_sentence() {
    let tree = tree();
    let host = tree.host();
    let why = |namespace: &Namespace| look(&host, namespace).unwrap_err().to_string();
    assert_eq!(
        why(&Namespace { inode: 13, ..Namespace::default() }),
        "network namespace 13 cannot be found: no process lives in it and it has no name"
    );
    assert!(why(&home(13, 6)).starts_with("network namespace 13 cannot be opened: No such file"));
    // Its inode is that of the file, which is not the one asked for.
    tree.write("run/netns/blue", "");
    let blue = Namespace { inode: 13, pid: None, name: Some("blue".to_owned()) };
    assert_eq!(why(&blue), "network namespace 13 (blue) is not that any more");
    assert_eq!(settings(&host, &blue).unwrap_err().to_string(), why(&blue));
}

#[test]
fn tables_that_are_missing_or_cut_are_not_complete() {
    let tree = tree();
    let sockets = Sockets::from_tables(&tree.root.join("proc/5/net"), String::new());
    assert!(!sockets.complete);
    assert_eq!((sockets.counts, sockets.time_wait), (Counts::default(), None));
    tree.write("proc/5/net/tcp", "");
    tree.write("proc/5/net/sockstat", "TCP: inuse tw\nTCP:\n");
    let sockets = Sockets::from_tables(&tree.root.join("proc/5/net"), String::new());
    assert!(sockets.complete, "a kernel without IPv6 has no second table");
    assert_eq!((sockets.time_wait, sockets.orphans), (None, None));
}

#[test]
fn lines_that_are_no_sockets_are_none() {
    let good = row("0100007F:1F90", "00000000:0000", 10, 2, 700);
    assert!(Row::parse(good.trim_end().as_bytes()).is_some());
    for length in 0..good.find(" 700").unwrap() {
        assert_eq!(Row::parse(&good.as_bytes()[..length]), None, "{length} bytes");
    }
    let lines = [
        "",
        HEADING,
        "0: 100007F:1F90 00000000:0000 0A 0:0 00:0 0 33 0 700",
        "0: 0100007F:1F90F 00000000:0000 0A 0:0 00:0 0 33 0 700",
        "0: 0100007F1F90 00000000:0000 0A 0:0 00:0 0 33 0 700",
        "0: 0100007F0100007F:1F90 00000000:0000 0A 0:0 00:0 0 33 0 700",
        "0: :1F90 00000000:0000 0A 0:0 00:0 0 33 0 700",
        "0: 0100007F:1F90 00000000:0000 1FF 0:0 00:0 0 33 0 700",
        "0: 0100007F:1F90 00000000:0000 0A 0:\u{e9} 00:0 0 33 0 700",
    ];
    for line in lines {
        assert_eq!(Row::parse(line.as_bytes()), None, "{line}");
    }
}

#[test]
fn remote_addresses_are_counted_up_to_a_bound() {
    let tree = tree();
    let mut table = HEADING.to_owned();
    for host in 0..5000 {
        table += &row("0100007F:1F90", &format!("{host:08X}:C001"), 3, 0, 0);
        table += &row("0100007F:1F90", &format!("{host:08X}:C002"), 3, 0, 0);
    }
    tree.write("proc/5/net/tcp", &table);
    let sockets = Sockets::from_tables(&tree.root.join("proc/5/net"), String::new());
    assert_eq!(sockets.half_open, [HalfOpen { port: 8080, requests: 10_000, remotes: 4096, at_least: true }]);
}

#[test]
fn settings_are_what_the_files_say() {
    let tree = tree();
    for (name, value) in [
        ("ipv4/tcp_max_tw_buckets", "5000\n"),
        ("ipv4/tcp_fin_timeout", "60\n"),
        ("ipv4/tcp_max_orphans", "65536\n"),
        ("ipv4/tcp_mem", "88110\t117483\t176220\n"),
        ("ipv4/ip_local_port_range", "32768\t60999\n"),
        ("ipv4/tcp_retries2", "fifteen\n"),
        ("ipv4/tcp_rfc1337", "\n"),
        ("core/somaxconn", "4096\n"),
    ] {
        tree.write(&format!("proc/sys/net/{name}"), value);
    }
    let read = settings(&tree.host(), &home(11, Tree::OWN_PID)).unwrap();
    let expected = Settings {
        tcp_max_tw_buckets: Some(5000),
        tcp_fin_timeout: Some(60),
        tcp_max_orphans: Some(65_536),
        tcp_mem: Some([88_110, 117_483, 176_220]),
        ip_local_port_range: Some((32_768, 60_999)),
        somaxconn: Some(4096),
        ..Settings::default()
    };
    assert_eq!(read, expected);
}

fn own() -> (Host, Namespace) {
    let host = Host::live();
    let inode = host.proc.own_netns().unwrap();
    let pid = host.proc.own_pid();
    (host, home(inode, pid))
}

/// A listener with the backlog asked for: the standard library's is 128.
fn listen(address: SocketAddr, backlog: i32) -> TcpListener {
    let listener = TcpListener::bind(address).unwrap();
    rustix::net::listen(&listener, backlog).unwrap();
    listener
}

/// Looks until `seen` finds what it looks for: the other end of a connection lags behind.
fn wait<T>(look: impl Fn() -> Sockets, seen: impl Fn(&Sockets) -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let sockets = look();
        if let Some(found) = seen(&sockets) {
            return found;
        }
        assert!(Instant::now() < end, "not found in {sockets:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn inode_of(socket: &impl std::os::fd::AsRawFd) -> u64 {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
    link.to_str().unwrap().strip_prefix("socket:[").unwrap().strip_suffix(']').unwrap().parse().unwrap()
}

#[test]
fn the_own_namespace_shows_a_listener_and_its_queue() {
    let (host, namespace) = own();
    let now = || look(&host, &namespace).unwrap();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = listen(address.parse().unwrap(), 3);
        let at = listener.local_addr().unwrap();
        let _client = TcpStream::connect(at).unwrap();
        let own = Listener {
            local: Endpoint { addr: at.ip(), port: at.port() },
            inode: inode_of(&listener),
            uid: rustix::process::geteuid().as_raw(),
            len: 1,
            max: Some(3),
        };
        let view = now();
        // Where the kernel has no socket diagnostics this says so, and fails: the program would work, without the limits.
        assert_eq!(view.sockets.source, Source::Diag);
        assert!(view.sockets.complete && view.unseen.is_none());
        wait(|| now().sockets, |sockets| sockets.listeners.contains(&own).then_some(()));
        let from_tables = Sockets::from_tables(&host.proc.root().join("self/net"), String::new());
        assert!(from_tables.listeners.contains(&Listener { max: None, ..own }), "{from_tables:?}");
    }
    let view = now();
    assert_eq!(view.settings, settings(&host, &namespace).unwrap());
    assert!(view.settings.tcp_max_tw_buckets.is_some() && view.settings.ip_local_port_range.is_some());
    assert!(view.sockets.time_wait.is_some() && view.sockets.counts.established.is_some());
}

#[test]
fn a_socket_in_close_wait_tells_whether_its_end_was_read() {
    let (host, namespace) = own();
    let now = || look(&host, &namespace).unwrap().sockets;
    let listener = listen("127.0.0.1:0".parse().unwrap(), 3);
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, peer) = listener.accept().unwrap();
    client.write_all(b"hello").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let inode = inode_of(&server);
    let of = |sockets: &Sockets| sockets.close_wait.iter().find(|socket| socket.inode == inode).copied();
    let seen = wait(now, of);
    assert_eq!((seen.unread, seen.end_read), (5, false));
    assert_eq!((seen.remote.port, seen.remote.addr), (peer.port(), peer.ip()));
    server.read_to_end(&mut Vec::new()).unwrap();
    let seen = wait(now, |sockets| of(sockets).filter(|socket| socket.unread == 0));
    assert!(seen.end_read);
}

/// A child that lives in a namespace of its own until it is dropped.
struct Elsewhere(std::process::Child);

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn another_namespace_is_entered_by_a_thread_of_its_own() {
    let (host, here) = own();
    let script = "echo 17 > /proc/sys/net/ipv4/tcp_fin_timeout && exec sleep 60";
    let child = Command::new("unshare").args(["--net", "sh", "-c", script]).stderr(Stdio::null()).spawn();
    let mut child = Elsewhere(child.unwrap());
    let pid = child.0.id();
    let end = Instant::now() + Duration::from_secs(10);
    let inode = loop {
        if child.0.try_wait().unwrap().is_some() {
            let capabilities = crate::host::preflight::Facts::read(&host, false).capabilities.unwrap();
            assert_eq!(capabilities & (1 << 21), 0, "`unshare --net` failed in spite of CAP_SYS_ADMIN");
            eprintln!("not tried: without CAP_SYS_ADMIN nobody enters a namespace");
            return;
        }
        let is_there = host.proc.stat(pid).is_some_and(|stat| stat.comm.starts_with(b"sleep\0"));
        match host.proc.netns(pid).filter(|inode| is_there && *inode != here.inode) {
            Some(inode) => break inode,
            None => std::thread::sleep(Duration::from_millis(10)),
        }
        assert!(Instant::now() < end, "the child never arrived");
    };
    let listener = listen("127.0.0.1:0".parse().unwrap(), 3);
    let view = look(&host, &home(inode, pid)).unwrap();
    assert_eq!((view.netns, view.settings.tcp_fin_timeout), (inode, Some(17)));
    assert_eq!((view.sockets.source, view.sockets.counts.listen), (Source::Diag, 0));
    let of_the_host = settings(&host, &here).unwrap();
    assert_ne!(of_the_host.tcp_fin_timeout, Some(17), "tcpwatch has moved");
    assert_eq!(view.settings.tcp_mem, of_the_host.tcp_mem, "one for the whole host");
    let other = settings(&host, &home(inode + 1, pid)).unwrap_err().to_string();
    assert_eq!(other, format!("network namespace {} is not that of process {pid} any more", inode + 1));
    drop(listener);
}
