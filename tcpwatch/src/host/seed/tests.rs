//! Tests of the scan on made-up hosts.

use super::*;
use crate::host::fake::{self, Tree};

const HEADING: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

fn row(n: usize, local: &str, state: &str, inode: u64) -> String {
    format!(
        "{n:4}: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )
}

fn owner_of(seed: &Seed, socket: u64) -> Owner {
    *seed.owner(socket).unwrap()
}

#[test]
fn sockets_get_the_process_that_holds_them() {
    let tree = Tree::new();
    let plain = fake::Process::PLAIN;
    tree.process(
        42,
        &fake::Process { files: &["socket:[100]", "/dev/null", "pipe:[7]", "socket:[101]"], ..plain },
    );
    tree.process(
        43,
        &fake::Process { comm: "exactly-15-char", files: &["socket:[102]"], ..fake::Process::PLAIN },
    );
    tree.process(Tree::OWN_PID, &fake::Process { files: &["socket:[103]"], ..fake::Process::PLAIN });
    tree.process(44, &fake::Process::PLAIN);
    let seed = scan(&tree.host());
    assert!(seed.sockets().map(|(inode, _)| inode).eq([100, 101, 102]), "not tcpwatch's own");
    let owner = owner_of(&seed, 100);
    assert_eq!((owner.pid, owner.uid, owner.how), (42, 33, how::PROC));
    assert_eq!(owner.start_ns, 50_000_000_000);
    assert_eq!(&owner.comm[..6], b"nginx\0");
    assert_eq!(&owner_of(&seed, 102).comm, b"exactly-15-char\0");
}

#[test]
fn of_several_holders_the_oldest_is_named() {
    let process =
        |start, parent| fake::Process { start, parent, files: &["socket:[100]"], ..fake::Process::PLAIN };
    for (name, holders, oldest) in [
        ("by start time", vec![(900, process(10, 1)), (50, process(20, 900))], 900),
        ("parent and child in one tick", vec![(900, process(10, 1)), (50, process(10, 900))], 900),
        ("strangers in one tick", vec![(60, process(10, 1)), (50, process(10, 1))], 50),
    ] {
        let tree = Tree::new();
        for (pid, process) in &holders {
            tree.process(*pid, process);
        }
        assert_eq!(owner_of(&scan(&tree.host()), 100).pid, oldest, "{name}");
    }
}

#[test]
fn the_real_pid_is_only_known_in_the_initial_namespace() {
    let tree = Tree::new();
    tree.process(42, &fake::Process { files: &["socket:[100]"], ..fake::Process::PLAIN });
    assert_eq!(owner_of(&scan(&tree.host()), 100).root_pid, 0);
    tree.link(&format!("proc/{}/ns/pid", Tree::OWN_PID), INITIAL_PIDNS);
    assert_eq!(owner_of(&scan(&tree.host()), 100).root_pid, 42);
}

#[test]
fn a_process_that_vanishes_is_left_out() {
    let tree = Tree::new();
    tree.process(42, &fake::Process { files: &["socket:[100]"], ..fake::Process::PLAIN });
    std::fs::remove_file(tree.root.join("proc/42/stat")).unwrap();
    tree.process(43, &fake::Process { files: &["socket:[101]"], ..fake::Process::PLAIN });
    tree.remove("proc/43/fd");
    let seed = scan(&tree.host());
    assert!(seed.sockets().next().is_none());
    assert_eq!(seed.unreadable, 0);
}

#[test]
fn listeners_are_counted_per_port_and_namespace() {
    let tree = Tree::new();
    tree.process(
        42,
        &fake::Process { netns: 11, files: &["socket:[100]", "socket:[101]"], ..fake::Process::PLAIN },
    );
    tree.process(43, &fake::Process { netns: 12, files: &["socket:[102]"], ..fake::Process::PLAIN });
    let v4 = [
        HEADING.to_owned(),
        row(0, "00000000:0050", "0A", 100),
        row(1, "0100007F:1F90", "0A", 555),
        row(2, "0100007F:9C40", "01", 104),
    ];
    tree.write("proc/42/net/tcp", &v4.concat());
    let v6 = row(0, "00000000000000000000000000000000:0050", "0A", 101);
    tree.write("proc/42/net/tcp6", &format!("{HEADING}{v6}"));
    tree.write("proc/43/net/tcp", &format!("{HEADING}{}", row(0, "00000000:0050", "0A", 102)));
    assert_eq!(expected(&tree.host()), 1024, "nothing is said");
    tree.write("proc/42/net/sockstat", "sockets: used 100\nTCP: inuse 4 orphan 0 tw 0 alloc 5 mem 1\n");
    tree.write("proc/43/net/sockstat", "sockets: used 20\n");
    assert_eq!(expected(&tree.host()), 120 + 30 + 1024);
    let seed = scan(&tree.host());
    let ports: Vec<_> =
        seed.ports.iter().map(|(key, value)| (key.netns, key.port, value.sockets, value.owner.pid)).collect();
    // Nobody is seen to hold the socket on 8080; it is counted all the same.
    assert_eq!(ports, [(11, 80, 2, 42), (11, 8080, 1, 0), (12, 80, 1, 43)]);
    assert_eq!(seed.ports[1].1.owner, Owner::default());
}

#[test]
fn what_could_not_be_seen_is_said_with_a_hint() {
    let tree = Tree::new();
    let seed = Seed {
        unreadable: 3,
        namespaces: vec![Namespace { inode: 5, pid: None, name: Some("blue".into()) }],
        ..Seed::default()
    };
    let notes = notes(&seed, &tree.host().proc);
    assert_eq!(notes.len(), 3);
    assert!(notes.iter().all(|note| note.lines().last().is_some_and(|line| line.starts_with("hint: "))));
}

#[test]
fn a_real_listener_of_another_process_is_found() {
    // tcpwatch skips its own sockets, so the scan is told to be somebody else.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = u32::from(socket.local_addr().unwrap().port());
    let host = Host::at(std::path::Path::new("/"), 0);
    let seed = scan(&host);
    let netns = host.proc.netns(std::process::id()).unwrap();
    let (_, found) = seed.ports.iter().find(|(key, _)| *key == PortKey { netns, port }).unwrap();
    assert_eq!((found.owner.pid, found.sockets), (std::process::id(), 1));
    assert_eq!(found.owner.uid, host.proc.uid(std::process::id()).unwrap());
}
