//! The command line from outside.

use std::process::Command;
use tcpwatch::cli::{self, Exit, Parsed};
use tcpwatch::host::Host;

fn parse(line: &[&str]) -> Result<Parsed, cli::Error> {
    cli::parse(std::iter::once(&"tcpwatch").chain(line), &Host::live())
}

/// A pid that nobody has: the highest is 2^22.
const NOBODY: &str = "4194305";

const BAD: &[(&[&str], Exit)] = &[
    (&["--no-such-flag"], Exit::Usage),
    (&["no-such-command"], Exit::Usage),
    (&["--lport", "http"], Exit::Usage),
    (&["--lport", "65536"], Exit::Usage),
    (&["--lport", "1,2,3,4,5,6,7,8,9"], Exit::Usage),
    (&["--rport", "0"], Exit::Usage),
    (&["--for", "soon"], Exit::Usage),
    (&["-4", "-6"], Exit::Usage),
    (&["--events", "lisen"], Exit::Usage),
    (&["--events", "leaks"], Exit::Usage),
    (&["--buffer", "3M"], Exit::Usage),
    (&["explain", "--no-such-flag"], Exit::Usage),
    (&["explain", "TCP_STATE", "TCP_FLAGS"], Exit::Usage),
    (&["explain", "--btf", "/no/such/file"], Exit::Failed),
    (&["-p", NOBODY], Exit::Failed),
    (&["--netns", "no-such-namespace"], Exit::Failed),
    (&["--btf", "/no/such/file"], Exit::Failed),
];

#[test]
fn bad_lines_have_a_hint_and_a_status() {
    for (line, exit) in BAD {
        let error = parse(line).err().unwrap_or_else(|| panic!("{line:?} was taken"));
        assert_eq!(error.exit, *exit, "{line:?}: {error}");
        assert!(error.to_string().lines().last().is_some_and(|line| line.starts_with("hint: ")), "{error}");
    }
}

#[test]
fn the_own_process_and_namespace_are_found() {
    let pid = std::process::id().to_string();
    assert!(matches!(parse(&["-p", &pid, "--netns", "/proc/self/ns/net", "--json"]), Ok(Parsed::Run(_))));
}

#[test]
fn the_program_says_the_same() {
    for (line, exit) in BAD {
        let output = Command::new(env!("CARGO_BIN_EXE_tcpwatch")).args(*line).output().unwrap();
        assert_eq!(output.status.code(), Some(i32::from(*exit as u8)), "{line:?}");
        assert!(output.stdout.is_empty(), "{line:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.lines().last().is_some_and(|line| line.starts_with("hint: ")), "{line:?}: {text}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (flag, begins) in
        [("--help", "Names the process"), ("--version", concat!("tcpwatch ", env!("CARGO_PKG_VERSION")))]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_tcpwatch")).arg(flag).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{flag}");
        assert!(String::from_utf8(output.stdout).unwrap().starts_with(begins), "{flag}");
        assert!(output.stderr.is_empty(), "{flag}");
    }
}

/// What is looked up only when it runs has the same form.
#[test]
fn names_that_mean_nothing_have_a_hint_and_a_status() {
    for name in ["no-such-name", "", "99999", "18446744073709551616"] {
        let output = Command::new(env!("CARGO_BIN_EXE_tcpwatch")).args(["explain", name]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{name}: {text}");
        assert!(output.stdout.is_empty(), "{name}");
        assert!(text.lines().last().is_some_and(|line| line.starts_with("hint: ")), "{name}: {text}");
    }
}

#[test]
fn explain_takes_the_reasons_of_a_file_or_says_why_not() {
    let btf = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/6.12.107+deb13-cloud-amd64/records.btf");
    let explain = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_tcpwatch")).arg("explain").args(args).output().unwrap()
    };
    let output = explain(&["14", "--btf", btf]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("TCP_STATE: reset reason of the kernel (sk_rst_reason), 14 in the given kernel\n"),
        "{text}"
    );
    let output = explain(&["TCP_STATE", "--btf", "/dev/null"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("hint: ")), "{text}");
}
