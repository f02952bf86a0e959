//! What packages carry beside the binary, made of the definition of the command line: pages for `man`, completions for shells.

use super::args;
use anyhow::{Context, Result};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::fs;
use std::io;
use std::path::Path;

/// Of the manual: what is for who runs a system.
const SECTION: &str = "8";

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "It did what it was asked for."),
    ("1", "It could not do it; what was asked for was sensible."),
    ("2", "What was typed makes no sense."),
    ("3", "Events were lost, under --strict."),
];

const FILES: &[(&str, &str)] = &[
    ("/etc/tcpwatch/agent.toml", "What tcpwatch agent is told, unless --config names another file."),
    ("/var/lib/tcpwatch", "Where its systemd unit, tcpwatch-agent.service, keeps the ring of captures."),
    ("/sys/kernel/btf/vmlinux", "The kernel's types. Without them --btf names a file."),
    (
        "/proc/kallsyms",
        "The kernel's functions. It is taken from standard input where this process may not see addresses in it but \
         whoever opened it could.",
    ),
];

/// Of a command: lines to type, and what for.
struct Examples {
    command: &'static str,
    lines: &'static [(&'static str, &'static str)],
}

const EXAMPLES: &[Examples] = &[
    Examples {
        command: "tcpwatch",
        lines: &[
            ("Every reset and every refused connection of this host, with the cause:", "tcpwatch"),
            (
                "What is wrong with connections to a database, in half a minute:",
                "tcpwatch diagnose dst port 5432",
            ),
            (
                "Keep an incident, and look at it elsewhere, without root:",
                "tcpwatch --for 5m -w incident.pcapng\ntcpwatch diagnose -r incident.pcapng",
            ),
            ("What does this host let it see?", "tcpwatch doctor"),
        ],
    },
    Examples {
        command: "trace",
        lines: &[
            ("Resets alone, as JSON, of one process:", "tcpwatch trace --events rst --json -p 812"),
            (
                "What concerns a peer, with the kernel's stack, until ten were seen:",
                "tcpwatch trace -k -c 10 host 10.9.0.1 and not port 22",
            ),
            (
                "The last hour or so, in files of ten minutes:",
                "tcpwatch trace -w /var/tmp/%F_%H-%M-%S.pcapng -G 10m",
            ),
        ],
    },
    Examples {
        command: "diagnose",
        lines: &[
            ("Ten seconds, then what is wrong, most harm first:", "tcpwatch diagnose --for 10s"),
            ("What the agent's ring holds of the last hour:", "tcpwatch diagnose -r /var/lib/tcpwatch"),
        ],
    },
    Examples {
        command: "top",
        lines: &[
            ("The listeners and processes of the web server:", "tcpwatch top -L 80,443"),
            ("Play a capture:", "tcpwatch top -r incident.pcapng"),
        ],
    },
    Examples {
        command: "report",
        lines: &[("A page to send around:", "tcpwatch report -r incident.pcapng -o incident.html")],
    },
    Examples {
        command: "agent",
        lines: &[
            (
                "Figures on port 9853 of this host, and a ring of captures:",
                "tcpwatch agent --ring /var/lib/tcpwatch",
            ),
            ("As a service:", "systemctl enable --now tcpwatch-agent"),
            ("After a change of its file:", "systemctl reload tcpwatch-agent"),
        ],
    },
    Examples {
        command: "explain",
        lines: &[
            ("What leads to a reason that the kernel names:", "tcpwatch explain TCP_ABORT_ON_DATA"),
            ("A counter of nstat:", "tcpwatch explain TcpExtListenOverflows"),
        ],
    },
    Examples {
        command: "doctor",
        lines: &[
            ("What can be seen here, and what to do about the rest:", "tcpwatch doctor"),
            ("Whether every place in this kernel that sends resets is known:", "tcpwatch doctor --census"),
        ],
    },
];

/// Tools for what tcpwatch does not do.
const SEE_ALSO: &[&str] = &["bpftrace(8)", "ss(8)", "tcpdump(8)"];

/// The definition without what is hidden from the help: neither a page nor a completion is to name that.
fn shown() -> clap::Command {
    let whole = args::command();
    let root = clap::Command::new("tcpwatch")
        .bin_name("tcpwatch")
        .version(crate::VERSION)
        .about(whole.get_about().cloned().unwrap_or_default())
        .override_usage(whole.get_overridden_usage().cloned().unwrap_or_default())
        .disable_help_subcommand(true)
        .args(whole.get_arguments().cloned());
    whole.get_subcommands().filter(|command| !command.is_hide_set()).fold(root, |root, command| {
        let name = command.get_name();
        let operands: String = command
            .get_positionals()
            .filter_map(|operand| operand.get_value_names()?.first())
            .map(|operand| format!(" [{operand}]"))
            .collect();
        root.subcommand(command.clone().override_usage(format!("tcpwatch {name} [OPTIONS]{operands}")))
    })
}

/// The text that makes a shell complete tcpwatch's words.
pub fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut shown(), "tcpwatch", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Every page by the name of its file: `tcpwatch.8`, and one for each command.
///
/// # Errors
/// None in practice: they are written to memory.
pub fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut root = shown();
    root.build();
    let commands: Vec<_> = root.get_subcommands().cloned().collect();
    let names: Vec<_> = commands.iter().map(|command| format!("tcpwatch-{}", command.get_name())).collect();
    let mut pages = vec![("tcpwatch.8".to_owned(), page(root, "tcpwatch", &names)?)];
    for (command, name) in commands.into_iter().zip(&names) {
        let others: Vec<_> =
            names.iter().filter(|other| *other != name).cloned().chain(["tcpwatch".to_owned()]).collect();
        let shown = command.display_name(name.clone());
        pages.push((format!("{name}.{SECTION}"), page(shown, name, &others)?));
    }
    Ok(pages)
}

/// Writes the pages into a folder.
///
/// # Errors
/// The folder cannot be made or written to.
pub fn write_pages(folder: &Path) -> Result<()> {
    let hint =
        || format!("cannot write pages to {}\nhint: name a folder that can be written to", folder.display());
    fs::create_dir_all(folder).with_context(hint)?;
    for (name, text) in pages().with_context(hint)? {
        fs::write(folder.join(name), text).with_context(hint)?;
    }
    Ok(())
}

fn page(command: clap::Command, name: &str, others: &[String]) -> io::Result<Vec<u8>> {
    let of = command.get_name().to_owned();
    let commands = command.has_subcommands();
    let man = Man::new(command)
        .title(name.to_uppercase())
        .section(SECTION)
        // Of the release, not of the day: the same sources make the same page.
        .date("")
        .source(format!("tcpwatch {}", crate::VERSION))
        .manual("System Administration");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if commands {
        let mut more = Roff::new();
        more.control("PP", []);
        more.text([roman(
            "It attaches BPF programs to the running kernel, 5.10 or newer, and needs root, or CAP_BPF and CAP_PERFMON; \
             tcpwatch doctor tells what else helps.",
        )]);
        more.to_writer(&mut out)?;
        man.render_subcommands_section(&mut out)?;
    }
    man.render_options_section(&mut out)?;
    rest(&of, others).to_writer(&mut out)?;
    Ok(out)
}

/// What the definition does not know.
fn rest(command: &str, others: &[String]) -> Roff {
    let mut roff = Roff::new();
    let mut list = |heading: &str, rows: &[(&str, &str)]| {
        roff.control("SH", [heading]);
        for (term, text) in rows {
            roff.control("TP", []);
            roff.text([bold(*term)]);
            roff.text([roman(*text)]);
        }
    };
    list("EXIT STATUS", EXIT_STATUS);
    list("FILES", FILES);
    roff.control("SH", ["EXAMPLES"]);
    for (what, line) in EXAMPLES.iter().filter(|of| of.command == command).flat_map(|of| of.lines) {
        roff.control("PP", []);
        roff.text([roman(*what)]);
        roff.control("PP", []);
        roff.control("RS", ["4"]);
        roff.control("nf", []);
        for line in line.lines() {
            roff.text([bold(format!("# {line}"))]);
        }
        roff.control("fi", []);
        roff.control("RE", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    let pages = others.iter().map(|name| format!("{name}({SECTION})"));
    let all: Vec<_> = pages.chain(SEE_ALSO.iter().map(|name| (*name).to_owned())).collect();
    roff.text([roman(all.join(", "))]);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_with_what_one_looks_for() {
        let pages = pages().unwrap();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        let expected: Vec<_> = ["tcpwatch.8".to_owned()]
            .into_iter()
            .chain(args::COMMANDS.iter().map(|command| format!("tcpwatch-{command}.8")))
            .collect();
        assert_eq!(names, expected);
        for (name, text) in &pages {
            let text = String::from_utf8(text.clone()).unwrap();
            let headings =
                ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "FILES", "EXAMPLES", "SEE ALSO"];
            for heading in headings {
                let quoted = format!(".SH \"{heading}\"");
                assert!(
                    text.contains(&format!(".SH {heading}\n")) || text.contains(&quoted),
                    "{name}: {heading}"
                );
            }
            assert!(text.contains("bpftrace(8), ss(8), tcpdump(8)"), "{name}");
            assert!(
                text.contains("\\fB# tcpwatch") || text.contains("\\fB# systemctl"),
                "{name}: an example"
            );
        }
        let agent = String::from_utf8(pages[5].1.clone()).unwrap();
        assert!(
            agent.contains(".TH TCPWATCH\\-AGENT 8") || agent.contains(".TH TCPWATCH-AGENT 8"),
            "{agent}"
        );
        assert!(agent.contains("max\\-series") && !agent.contains("rotate"), "{agent}");
    }

    #[test]
    fn examples_are_lines_that_tcpwatch_takes() {
        for (_, lines) in EXAMPLES.iter().flat_map(|of| of.lines) {
            for line in lines.lines().filter(|line| line.starts_with("tcpwatch")) {
                args::read(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }

    #[test]
    fn shells_complete_what_is_shown_and_nothing_else() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = completions(shell);
            for word in args::COMMANDS.iter().chain(&["close-wait-after", "rotate-size"]) {
                assert!(text.contains(word), "{shell}: {word}");
            }
            for hidden in ["completions", "callers"] {
                assert!(!text.contains(hidden), "{shell}: {hidden}");
            }
        }
    }
}
