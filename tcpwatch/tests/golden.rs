//! Records built in code, through diagnosis and both sinks, and pages of the dictionary, against golden files. `UPDATE_GOLDEN=1` writes them anew.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to say where")]

use std::path::{Path, PathBuf};
use tcpwatch::cli::explain::{Kernel, answer};
use tcpwatch::decode::{Raw, decode};
use tcpwatch::diagnose::lately::{Around, Lately};
use tcpwatch::diagnose::{Context, interpret, interpret_state};
use tcpwatch::event::{
    CauseCount, Direction, Event, HookBooks, HookStatus, Lifetimes, Lost, Reconciliation, Standing, Start,
    Summary, Tables, TimeWaitInfo,
};
use tcpwatch::kernel::names::ReasonNames;
use tcpwatch::kernel::shape;
use tcpwatch::kernel::symbols::Symbols;
use tcpwatch::sink::Sink;
use tcpwatch::sink::diagnosis::{DiagnosisSink, Form};
use tcpwatch::sink::json::JsonSink;
use tcpwatch::sink::text::{TextOptions, TextSink};
use tcpwatch_common::counters::HookCounters;
use tcpwatch_common::flow::{Addr, Flow};
use tcpwatch_common::owner::{Memory, Owner, Step, end, how};
use tcpwatch_common::record::{Listen, Packet, Record, StateRecord, TimeWait, flag, kind};
use tcpwatch_common::{hook, state};
use zerocopy::{FromZeros, IntoBytes};

const NOW: u64 = 100_000_000_000;
/// 2026-11-21 03:14:07.123456 UTC at [`NOW`].
const WALL: i64 = 1_795_230_847_123_456_000 - NOW as i64;
const US: u64 = 1_000;
const MS: u64 = 1_000 * US;

const KALLSYMS: &str = "\
0000000000001000 t bpf_prog_1f2e_tcp_send_reset
0000000000002000 t tcp_v4_send_reset
0000000000003000 T tcp_v4_rcv
0000000000004000 t ip_protocol_deliver_rcu
0000000000005000 t handle_softirqs
0000000000006000 T tcp_send_active_reset
0000000000007000 T tcp_disconnect
0000000000008000 T __tcp_close
0000000000009000 T tcp_close
000000000000a000 T do_syscall_64
000000000000b000 T tcp_v4_do_rcv
000000000000c000 T tcp_reset
000000000000d000 t tcp_validate_incoming
000000000000e000 t tcp_rcv_established
000000000000f000 t end_of_text
";

fn address(name: &str) -> u64 {
    let line = KALLSYMS.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap();
    u64::from_str_radix(&line[..16], 16).unwrap() + 5
}

fn record(kind: u8, hook: u8, stack: &[&str]) -> Record {
    let mut record = Record::new_zeroed();
    record.mono_ns = NOW;
    record.kind = kind;
    record.hook = hook;
    record.flow = flow("10.9.0.1", 6379, "10.9.0.2", 54096);
    record.task.pid = 4711;
    record.task.comm[..4].copy_from_slice(b"curl");
    for (frame, name) in record.stack.iter_mut().zip(stack) {
        *frame = address(name);
    }
    record.frames = stack.len() as u32;
    record
}

fn flow(local: &str, local_port: u16, remote: &str, remote_port: u16) -> Flow {
    let addr = |text: &str| Addr::from_ip(text.parse().unwrap());
    Flow { local: addr(local), remote: addr(remote), local_port, remote_port, netns: 4_026_531_840 }
}

fn owner(pid: u32, name: &str, how: u8) -> Owner {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    Owner { start_ns: 1, cgroup: 2, pid, uid: 33, root_pid: pid, how, pad: 0, pad2: 0, comm }
}

fn memory(owner: Owner, steps: &[(u8, u64)]) -> Memory {
    let mut memory = Memory::EMPTY;
    memory.owner = owner;
    for (slot, (state, ago)) in memory.steps.iter_mut().zip(steps) {
        *slot = Step::new(*state, NOW - ago);
    }
    memory.step_count = steps.len() as u32;
    memory
}

fn packet(flags: u8, len: u32) -> Packet {
    Packet { seq: 1_000_001, ack: 2_000_002, len, window: 512, flags, nf_hook: 0 }
}

/// 6.12: a SYN to a port where nobody listens.
fn closed_port() -> Record {
    let stack = [
        "bpf_prog_1f2e_tcp_send_reset",
        "tcp_v4_send_reset",
        "tcp_v4_rcv",
        "ip_protocol_deliver_rcu",
        "handle_softirqs",
    ];
    let mut record = record(kind::RST_SENT, hook::TCP_SEND_RESET, &stack);
    record.flags = flag::PACKET | flag::REASON;
    record.reason = 1;
    record.packet = packet(2, 0);
    record
}

/// 5.10: `SO_LINGER` with time 0, and no reason from the kernel.
fn linger_zero() -> Record {
    let stack = ["tcp_send_active_reset", "tcp_disconnect", "__tcp_close", "tcp_close", "do_syscall_64"];
    let mut record = record(kind::RST_SENT, hook::TCP_SEND_RESET, &stack);
    record.flags = flag::SOCKET | flag::FULL | flag::HAS_FILE | flag::OWNED;
    record.state = state::CLOSE;
    record.socket.flags = 1 << 4;
    record.socket.shutdown = 3;
    record.task.pid = 812;
    record.task.comm[..5].copy_from_slice(b"nginx");
    record.present = memory(
        owner(812, "nginx", how::ACCEPT),
        &[(state::SYN_RECV, 17 * MS), (state::ESTABLISHED, 17 * MS - 46 * US), (state::CLOSE, 3 * US)],
    );
    record
}

/// 6.12: the peer's FIN comes for a connection that was refused its TIME_WAIT slot, and meets the listener.
fn late_fin() -> Record {
    let stack =
        ["tcp_v4_send_reset", "tcp_v4_do_rcv", "tcp_v4_rcv", "ip_protocol_deliver_rcu", "handle_softirqs"];
    let mut record = record(kind::RST_SENT, hook::TCP_SEND_RESET, &stack);
    record.flags = flag::PACKET | flag::REASON | flag::SOCKET | flag::FULL | flag::PAST;
    record.reason = 6;
    record.state = state::LISTEN;
    record.packet = packet(17, 0);
    record.present = memory(owner(812, "redis-server", how::LISTEN), &[(state::LISTEN, 60_000 * MS)]);
    record.past = memory(
        owner(812, "redis-server", how::ACCEPT),
        &[
            (state::SYN_RECV, 29 * MS),
            (state::ESTABLISHED, 29 * MS),
            (state::FIN_WAIT1, 12 * MS + 60 * US),
            (state::FIN_WAIT2, 12 * MS + 2 * US),
            (state::CLOSE, 12 * MS),
        ],
    );
    record.past.end = end::TW_REFUSED;
    record.past.end_state = state::FIN_WAIT2;
    record.past.end_ns = NOW - 12 * MS;
    record
}

/// The moment before that.
fn refused_slot() -> Record {
    let mut record = record(kind::TW_OVERFLOW, hook::INET_TWSK_ALLOC, &[]);
    record.flags = flag::SOCKET | flag::FULL | flag::HAS_FILE | flag::TIME_WAIT | flag::OWNED;
    record.state = state::FIN_WAIT2;
    record.timewait = TimeWait { used: 5000, max: 5000, substate: 6, pad: 0 };
    let steps = [(state::ESTABLISHED, 17 * MS), (state::FIN_WAIT1, 58 * US), (state::FIN_WAIT2, 2 * US)];
    record.present = memory(owner(812, "redis-server", how::ACCEPT), &steps);
    record
}

/// The last ACK of a handshake meets a full accept queue.
fn full_accept_queue() -> Record {
    let mut record = record(kind::LISTEN_DROP, hook::TCP_V6_SYN_RECV_SOCK, &[]);
    record.flow = flow("fd00::9:0:1", 443, "fd00::9:0:2", 40002);
    record.flags = flag::SOCKET | flag::FULL | flag::LISTEN | flag::PACKET | flag::ANY_V6;
    record.state = state::LISTEN;
    record.packet = packet(16, 0);
    record.listen = Listen {
        accept_len: 129,
        accept_max: 128,
        syn_len: 3,
        max_syn_backlog: 512,
        somaxconn: 4096,
        syncookies: 1,
        abort_on_overflow: 0,
        stage: 1,
        passed: 0,
    };
    record.present = memory(owner(77, "gunicorn", how::PROC), &[]);
    record
}

/// 5.10: `tcp_reset` has no segment.
fn received() -> Record {
    let stack =
        ["tcp_reset", "tcp_validate_incoming", "tcp_rcv_established", "tcp_v4_do_rcv", "do_syscall_64"];
    let mut record = record(kind::RST_RECEIVED, hook::TCP_RESET, &stack);
    record.flow = flow("10.9.0.1", 54096, "10.9.0.2", 6379);
    record.flags = flag::SOCKET | flag::FULL | flag::HAS_FILE | flag::OWNED;
    record.state = state::CLOSE_WAIT;
    record.task.pid = 99;
    record.task.comm[..6].copy_from_slice(b"python");
    let steps =
        [(state::SYN_SENT, 2_450 * MS), (state::ESTABLISHED, 2_449 * MS), (state::CLOSE_WAIT, 31 * MS)];
    record.present = memory(owner(99, "python", how::CONNECT), &steps);
    record
}

fn transition() -> StateRecord {
    let mut record = StateRecord::new_zeroed();
    record.mono_ns = NOW;
    record.kind = kind::STATE;
    record.hook = hook::INET_SOCK_SET_STATE;
    record.old_state = state::ESTABLISHED;
    record.new_state = state::FIN_WAIT1;
    record.flags = flag::OWNED;
    record.since_ns = NOW - 17 * MS;
    record.flow = flow("10.9.0.1", 6379, "10.9.0.2", 54096);
    record.owner = owner(812, "redis-server", how::ACCEPT);
    record.task.pid = 812;
    record.task.comm[..12].copy_from_slice(b"redis-server");
    record
}

/// Watching for 90 s, and calls of `accept()` are seen.
fn watched() -> Around {
    Around { sees_accepts: true, since_ns: NOW - 90_000 * MS, ..Around::default() }
}

/// A pool that does not pool.
fn lifetimes() -> Lifetimes {
    Lifetimes {
        owner: tcpwatch::diagnose::owner::info(&owner(812, "redis-server", how::ACCEPT)),
        netns: 4_026_531_840,
        direction: Direction::Incoming,
        peer: None,
        port: 6379,
        count: 41_200,
        short: 41_190,
        closed_first: 41_150,
        median_us: 3_100,
        p90_us: 9_400,
        max_us: 1_204_000,
        bytes_received: 1_236_000,
        bytes_sent: 412_000,
    }
}

fn start() -> Start {
    let hook = |name: &str, attached: Result<&str, &str>, sees: Option<&str>| HookStatus {
        name: name.to_owned(),
        attached: attached.map(str::to_owned).map_err(str::to_owned),
        sees: sees.map(str::to_owned),
    };
    Start {
        mono_ns: NOW - 1_000 * MS,
        time_ns: (NOW as i64 + WALL) as u64 - 1_000 * MS,
        version: "0.1.0".to_owned(),
        kernel: "6.12.107".to_owned(),
        hooks: vec![
            hook("tcp_send_reset", Ok("raw tracepoint"), None),
            hook("tcp_reset", Ok("fentry"), None),
            hook(
                "nf_send_reset",
                Err("the module nf_reject_ipv4 is not loaded"),
                Some("resets that a firewall rule sends"),
            ),
        ],
    }
}

fn summary() -> Summary {
    let books = |name: &str, seen, delivered, filtered, lost| HookBooks {
        missed: 0,
        name: name.to_owned(),
        counters: HookCounters { seen, delivered, filtered, aggregated: 0, lost },
    };
    let row = |counter: &str, kernel, explained| Reconciliation {
        netns: 4_026_531_840,
        counter: counter.to_owned(),
        kernel,
        explained,
    };
    Summary {
        mono_ns: NOW,
        time_ns: (NOW as i64 + WALL) as u64,
        watched_ns: 95_000 * MS,
        hooks: vec![
            books("tcp_send_reset", 15, 12, 1, 2),
            books("tcp_reset", 0, 0, 0, 0),
            books("inet_twsk_alloc", 4, 4, 0, 0),
        ],
        netns: vec![
            row("TcpOutRsts", Some(15), 15),
            row("ListenDrops", Some(0), 0),
            row("TCPTimeWaitOverflow", None, 4),
        ],
        causes: [("tw-bucket-overflow", 13), ("closed-port", 3)]
            .map(|(id, count)| CauseCount { id: id.to_owned(), count })
            .to_vec(),
        lifetimes: vec![lifetimes()],
        tables: Tables {
            sockets: 65_536,
            sockets_seen: 82_000,
            sockets_forgotten: 0,
            ended: 65_536,
            ended_seen: 80_000,
            ended_forgotten: 14_464,
        },
    }
}

/// Every record by its bytes, as from the ring buffer.
fn events() -> Vec<Event> {
    let reset = [(1, "NO_SOCKET"), (6, "TCP_FLAGS")].map(|(n, name)| (n, format!("SK_RST_REASON_{name}")));
    let names = ReasonNames::new(reset.to_vec(), Vec::new());
    let symbols = Symbols::parse(KALLSYMS.as_bytes()).unwrap();
    let ctx = |want_stack, around| Context {
        names: &names,
        symbols: &symbols,
        wall_offset_ns: WALL,
        want_stack,
        around,
    };
    let mut lately = Lately::default();
    let records = [closed_port(), linger_zero(), refused_slot(), late_fin(), full_accept_queue(), received()];
    let mut events: Vec<Event> = records
        .iter()
        .enumerate()
        .map(|(i, record)| match decode(record.as_bytes()).unwrap() {
            Raw::Event(record) => {
                lately.note(record);
                interpret(record, &ctx(i == 0, lately.around(record, &watched()))).unwrap()
            }
            Raw::State(_) => unreachable!("an event's bytes"),
        })
        .collect();
    match decode(transition().as_bytes()).unwrap() {
        Raw::State(record) => events.push(interpret_state(record, &ctx(false, Around::default()))),
        Raw::Event(_) => unreachable!("a transition's bytes"),
    }
    // What the host stage adds.
    if let Some(owner) = &mut events[1].owner {
        owner.exe = Some("/usr/sbin/nginx".into());
        owner.cgroup = Some("/system.slice/nginx.service".into());
    }
    events
}

fn play(sink: &mut dyn Sink) {
    sink.start(&start()).unwrap();
    sink.standing(&[standing()]).unwrap();
    for event in events() {
        sink.event(&event).unwrap();
    }
    let lost = Lost {
        mono_ns: NOW,
        time_ns: (NOW as i64 + WALL) as u64,
        hook: "tcp_send_reset".to_owned(),
        count: 2,
    };
    sink.lost(&lost).unwrap();
    sink.summary(&summary()).unwrap();
    sink.flush().unwrap();
}

fn compare(name: &str, found: &[u8]) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expected = std::fs::read(&path).unwrap_or_default();
    let (expected, found) = (String::from_utf8_lossy(&expected), String::from_utf8_lossy(found));
    for (number, (expected, found)) in expected.lines().zip(found.lines()).enumerate() {
        assert_eq!(expected, found, "{name}:{} differs; UPDATE_GOLDEN=1 writes it anew", number + 1);
    }
    assert_eq!(expected.lines().count(), found.lines().count(), "{name} has another length");
}

/// Names of every kind, as the 6.12 kernel has them.
#[test]
fn explanations() {
    let btf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/6.12.107+deb13-cloud-amd64/records.btf");
    let kernel = Kernel { name: "kernel 6.12.107".to_owned(), reasons: shape::reasons(Some(&btf)).unwrap() };
    let mut out = String::new();
    for name in [
        "linger-zero",
        "SK_RST_REASON_TCP_STATE",
        "tcp_flags",
        "TCP_LISTEN_OVERFLOW",
        "VXLAN_INVALID_HDR",
        "CLOSE-WAIT",
        "TcpExtListenDrops",
        "tw_overflow",
        "listener",
    ] {
        let answer = answer(Some(name), Some(&kernel)).unwrap();
        out.push_str(&format!("$ tcpwatch explain {name}\n{}\n", answer.text()));
        out.push_str(&format!("$ tcpwatch explain --json {name}\n{}\n", answer.json()));
    }
    compare("explain.txt", out.as_bytes());
}

#[test]
fn text() {
    let mut out = Vec::new();
    play(&mut TextSink::new(&mut out, TextOptions::default()));
    compare("events.txt", &out);
}

/// The state that a host is found in.
fn standing() -> Standing {
    let table = TimeWaitInfo { used: 4_800, max: 5_000 };
    Standing {
        netns: 77,
        time_ns: 0,
        time_wait: Some(table),
        refused_since_boot: Some(3),
        listeners: Vec::new(),
    }
}

#[test]
fn diagnosis() {
    for (name, form) in
        [("diagnosis.txt", Form::Text(TextOptions::default())), ("diagnosis.jsonl", Form::Json)]
    {
        let mut out = Vec::new();
        play(&mut DiagnosisSink::new(&mut out, form));
        compare(name, &out);
        for line in String::from_utf8(out).unwrap().lines().filter(|line| !line.starts_with('{')) {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
        }
    }
}

#[test]
fn json() {
    let mut out = Vec::new();
    play(&mut JsonSink::new(&mut out));
    compare("events.jsonl", &out);
}

/// 3 a.m., a terminal of 100 columns. Only transitions, which nobody asks for by default, may be longer.
#[test]
fn text_fits_the_terminal() {
    let mut out = Vec::new();
    play(&mut TextSink::new(&mut out, TextOptions::default()));
    for line in String::from_utf8(out).unwrap().lines().filter(|line| !line.contains(" STATE ")) {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }
}
