//! Command lines and what comes of them.

use super::*;
use crate::capture::Rotation;
use crate::host::fake::{Process, Tree};
use std::time::Duration;
use tcpwatch_common::config::deliver;
use tcpwatch_common::filter::Filter;

fn host() -> Tree {
    let tree = Tree::new();
    tree.process(5, &Process::PLAIN);
    tree
}

fn parsed(line: &str) -> Result<Parsed, Error> {
    parse(std::iter::once("tcpwatch").chain(line.split_whitespace()), &host().host())
}

fn trace(line: &str) -> WatchOptions {
    match parsed(line) {
        Ok(Parsed::Run(Command::Trace(options))) => options,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn trace_is_what_happens_without_a_command() {
    assert_eq!(trace(""), WatchOptions::default());
    assert_eq!(trace("-p 5 --json"), trace("trace -p 5 --json"));
    assert_eq!(trace("-p5").filter, Filter { active: 1, pid: 5, ..Filter::NONE });
}

#[test]
fn every_flag_arrives() {
    let options = trace(
        "-p 5 -L 80,443 -L 8080 -D 40000 -6 -k -c 10 --for 5m --netns 77 --cgroup 9 --json \
         --events rst,state --attach kprobe --btf /dev/null --buffer 1M --strict --color never --close-wait-after 90s --storm 50 --sockets 1M --ended 5000 \
         -w /tmp/%F_%T -C 100M -G 1h -W 5 \
         host 10.9.0.1 and not port 22",
    );
    let expected = WatchOptions {
        filter: Filter {
            active: 1,
            pid: 5,
            netns: 77,
            cgroup: [9, 0],
            expression: trace(
                "ip6 and src port (80 or 443 or 8080) and dst port 40000 and (host 10.9.0.1 and not port 22)",
            )
            .filter
            .expression,
        },
        deliver: deliver::RST | deliver::STATE,
        stack: true,
        count: Some(10),
        duration: Some(Duration::from_secs(300)),
        json: true,
        color: Color::Never,
        storm: Some(50),
        strict: true,
        attach: Attach::Kprobe,
        btf: Some("/dev/null".into()),
        buffer: 1 << 20,
        close_wait_after: Duration::from_secs(90),
        sockets: 1_048_576,
        ended: 5_000,
        write: Some(Rotation {
            path: "/tmp/%F_%T".into(),
            size: Some(100 << 20),
            every: Some(Duration::from_secs(3_600)),
            files: Some(5),
        }),
        read: None,
        cgroup: None,
    };
    assert_eq!(options, expected);
    assert_eq!(trace("-4").filter, trace("ip").filter);
    assert_eq!(trace("--ipv4 --lport=80").filter, trace("ip and src port 80").filter);
}

#[test]
fn states_are_many_and_have_a_larger_buffer() {
    assert_eq!((trace("").buffer, trace("--events all").buffer), (4 << 20, 16 << 20));
    assert_eq!(trace("--events rst,state --buffer 1M").buffer, 1 << 20);
}

#[test]
fn a_capture_is_read_with_all_it_has() {
    let options = trace("-r a.pcapng -p 99 --netns 3 --cgroup /a.slice port 80");
    assert_eq!(options.read, Some("a.pcapng".into()));
    assert_eq!((options.filter.pid, options.filter.netns), (99, 3), "a process of another host");
    assert_eq!((options.filter.cgroup, options.cgroup.as_deref()), ([0; 2], Some("/a.slice")));
    assert_eq!(options.deliver, u32::MAX);
    assert_eq!(trace("-r a --events rst").deliver, deliver::RST);
    assert_eq!(trace("-r a -w b").write.unwrap().path, PathBuf::from("b"));
}

#[test]
fn what_makes_no_sense_of_a_capture_is_refused() {
    for (line, what, hint) in [
        ("-r a --for 5s", "`--for` and `--read`", "watching the kernel"),
        ("diagnose -r a --for 5s", "`--for` and `--read`", "watching the kernel"),
        ("-r a -k", "`--stack` and `--read`", "watching the kernel"),
        ("-r a --attach fentry", "`--attach` and `--read`", "watching the kernel"),
        ("-r a --buffer 4M", "`--buffer` and `--read`", "watching the kernel"),
        ("-r a --storm off", "`--storm` and `--read`", "watching the kernel"),
        ("-r a --netns blue", "means nothing in a capture", "inode"),
        ("-C 10M", "`-C` without a capture", "-w FILE"),
        ("-w a -C 10", "`10` is not a size", "100M"),
        ("-w a -W 5", "`-W` counts", "-C"),
        ("-w a -C 1M -W 1", "not a number of files", "from 2"),
        ("-w a -G 1h", "written over", "%F_%H"),
        ("-w %B -G 1h", "conversion", "%Y"),
        ("-w - -C 1M", "standard output", "-w FILE"),
    ] {
        let error = parsed(line).unwrap_err();
        assert!(error.what.contains(what) && error.hint.contains(hint), "{line}: {error}");
        assert_eq!(error.exit, Exit::Usage, "{line}");
    }
}

#[test]
fn a_filter_stands_where_it_likes_and_needs_no_quotes() {
    let expected = trace("host 10.9.0.1 and not port 22");
    assert_eq!(expected.filter.active, 1);
    assert!(!expected.filter.expression.is_empty());
    for line in [
        "trace host 10.9.0.1 and not port 22",
        "trace -- host 10.9.0.1 and not port 22",
        "host 10.9.0.1 and ! port 22",
    ] {
        assert_eq!(trace(line), expected, "{line}");
    }
    let json = WatchOptions { json: true, ..expected };
    for line in ["--json host 10.9.0.1 and not port 22", "host 10.9.0.1 and not --json port 22"] {
        assert_eq!(trace(line), json, "{line}");
    }
    let Ok(Parsed::Run(Command::Diagnose(options))) = parsed("diagnose --json host 10.9.0.1 and not port 22")
    else {
        panic!()
    };
    assert_eq!(options.filter, json.filter);
    // What admits everything needs no evaluation.
    assert_eq!(trace("tcp").filter, Filter::NONE);
}

#[test]
fn doctor_and_docs_have_their_own_options() {
    let doctor = |json, census| Ok(Parsed::Run(Command::Doctor(DoctorOptions { json, census, btf: None })));
    assert_eq!(parsed("doctor"), doctor(false, false));
    assert_eq!(parsed("doctor --json"), doctor(true, false));
    assert_eq!(parsed("doctor --census --json"), doctor(true, true));
    assert_eq!(parsed("docs hooks"), Ok(Parsed::Run(Command::DocsHooks)));
}

#[test]
fn explain_takes_a_name_or_none() {
    let explain = |name: Option<&str>, json| {
        Ok(Parsed::Run(Command::Explain(ExplainOptions { name: name.map(str::to_owned), json, btf: None })))
    };
    assert_eq!(parsed("explain"), explain(None, false));
    assert_eq!(parsed("explain TCP_STATE"), explain(Some("TCP_STATE"), false));
    assert_eq!(parsed("explain close-wait --json"), explain(Some("close-wait"), true));
}

#[test]
fn help_and_version_are_printed_not_run() {
    for line in ["-h", "--help", "trace --help", "doctor --help", "-V", "--version"] {
        assert!(matches!(parsed(line), Ok(Parsed::Print(_))), "{line}");
    }
    let Ok(Parsed::Print(version)) = parsed("-V") else { panic!() };
    assert_eq!(version, format!("tcpwatch {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn colour_is_for_terminals_unless_told() {
    for (color, terminal, no_color, on) in [
        (Color::Auto, true, false, true),
        (Color::Auto, false, false, false),
        (Color::Auto, true, true, false),
        (Color::Always, false, true, true),
        (Color::Never, true, false, false),
    ] {
        assert_eq!(color.is_on(terminal, no_color), on, "{color:?} {terminal} {no_color}");
    }
}

#[test]
fn bad_lines_say_what_is_wrong_and_what_to_do() {
    let mut failures = Vec::new();
    for (line, what, hint, exit) in [
        ("--jsn", "unknown option `--jsn`", "`--json`", Exit::Usage),
        ("--xyzzy", "unknown option `--xyzzy`", "--help", Exit::Usage),
        ("docter", "`docter` is neither a command nor a filter", "`doctor`", Exit::Usage),
        ("xyzzy", "`xyzzy` is neither a command nor a filter", "--help", Exit::Usage),
        ("trace port 80 udp", "`udp` is not part of the filter", "`host`, `net`", Exit::Usage),
        (
            "trace doctor",
            "the command `doctor` stands where a filter is expected",
            "comes first",
            Exit::Usage,
        ),
        ("port 80 doctor", "`doctor` follows without `and` or `or`", "for instance", Exit::Usage),
        ("-p", "`--pid <PID>` needs a value", "--help", Exit::Usage),
        ("-p 5 -p 5", "`--pid <PID>` is given twice", "once", Exit::Usage),
        ("-p 77", "no process with pid 77", "ps -e", Exit::Failed),
        ("-p nginx", "`nginx` is not a pid", "ps -e", Exit::Usage),
        ("-4 -6", "exclude each other", "one of them", Exit::Usage),
        ("-L http", "`http` is not a port, in `--lport`", "65535", Exit::Usage),
        ("-D 70000", "`70000` is not a port, in `--rport`", "65535", Exit::Usage),
        ("-L 1,2,3,4,5,6,7,8,9", "more than 8 ports in `--lport`", "8 at most", Exit::Usage),
        ("--for soon", "`soon` is not a time", "30s", Exit::Usage),
        ("--for 0", "no time at all", "30s", Exit::Usage),
        ("-c 0", "`0` is not a number of events", "from 1", Exit::Usage),
        ("-c -1", "unknown option `-1`", "--help", Exit::Usage),
        ("--events lisen", "unknown event `lisen`", "`listen`", Exit::Usage),
        ("--events rst,leaks", "unknown event `leaks`", "did you mean `leak`?", Exit::Usage),
        ("--ended 10", "a table of 10 entries is out of range, in `--ended`", "from 1024", Exit::Usage),
        ("--storm 0", "`0` is not a rate, in `--storm`", "or `off`", Exit::Usage),
        ("--sockets many", "`many` is not a number of entries, in `--sockets`", "--sockets 64K", Exit::Usage),
        ("diagnose --close-wait-after 0", "no time at all", "--close-wait-after 30s", Exit::Usage),
        ("diagnose -c 5", "unknown option `-c`", "tcpwatch --help", Exit::Usage),
        ("--attach ftrace", "`ftrace` is not a value of `--attach`", "fentry", Exit::Usage),
        ("--color sometimes", "`sometimes` is not a value of `--color`", "one of: auto", Exit::Usage),
        ("--buffer 3M", "no power of two", "--buffer 4M", Exit::Usage),
        ("--netns blue", "no network namespace named `blue`", "ip netns", Exit::Failed),
        ("--cgroup /x", "cgroup v2 is not mounted", "mount", Exit::Failed),
        ("--btf /no/such/file", "cannot read the BTF file /no/such/file", "running kernel", Exit::Failed),
        ("-p 5 doctor", "the command `doctor` stands where a filter", "tcpwatch doctor", Exit::Usage),
        ("explain -p 5", "unknown option `-p`", "--help", Exit::Usage),
        ("explain TCP_STATE TCP_FLAGS", "unknown command `TCP_FLAGS`", "--help", Exit::Usage),
        (
            "explain --btf /no/such/file",
            "cannot read the BTF file /no/such/file",
            "running kernel",
            Exit::Failed,
        ),
        ("doctor -p 5", "unknown option `-p`", "--help", Exit::Usage),
        ("--json=yes", "--json", "--help", Exit::Usage),
    ] {
        let error = match parsed(line) {
            Err(error) => error,
            Ok(parsed) => panic!("{line}: {parsed:?}"),
        };
        if !error.what.contains(what) || !error.hint.contains(hint) || error.exit != exit {
            failures.push(format!("{line}\n{error}\n{:?}", error.exit));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn a_hint_is_the_last_line_though_causes_follow_it() {
    let error =
        anyhow::Error::from(std::io::Error::other("no space")).context("cannot write\nhint: make room");
    assert_eq!(sentence(&error), "cannot write: no space\nhint: make room");
    let error = error.context("cannot go on\nhint: ask somebody");
    assert_eq!(sentence(&error), "cannot go on: cannot write: no space\nhint: ask somebody");
    assert_eq!(sentence(&anyhow::anyhow!("plain")), "plain");
}
